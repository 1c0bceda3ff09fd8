"""Finds the quirks of a device: the user's rows, else the table's."""

from __future__ import annotations

from typing import Final

from scsiusb.quirks.model import MEANINGS, Applied, Quirk, Quirks, split
from scsiusb.quirks.table import rows_for
from scsiusb.quirks.user import row_for

TABLE: Final = "table"


def quirks_for(vid: int, pid: int, release: int | None = None, given: str | None = None) -> Quirks:
    """Return the quirks of a device: those of the user's row for it, if there is one, else the table's.

    The user's row is the first one found in `given`, SCSIUSB_QUIRKS and the user's file, in this order. `given` are
    the device's letters, or rows as for `--quirks`. `release` is bcdDevice; None stands for all releases. Raises
    ValueError, which names the source, if one cannot be parsed, and OSError if the file cannot be read.
    """
    own = row_for(vid, pid, given)
    if own is None:
        return tabled(vid, pid, release)
    return Quirks(tuple(Applied(quirk, own.source, own.why) for quirk in split(own.quirks)))


def tabled(vid: int, pid: int, release: int | None) -> Quirks:
    """Return the quirks of all rows of the table that apply to a device."""
    applied: dict[Quirk, Applied] = {}
    for row in rows_for(vid, pid, release):
        for quirk in split(row.quirks):
            applied.setdefault(quirk, Applied(quirk, TABLE, row.words))
    return Quirks(tuple(applied[meaning.quirk] for meaning in MEANINGS if meaning.quirk in applied))
