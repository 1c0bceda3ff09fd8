"""Finds the quirks of a device: the user's rows, else the table's."""

from __future__ import annotations

from typing import Final

from scsiusb.quirks.model import MEANINGS, Applied, Quirk, Quirks, split
from scsiusb.quirks.table import rows_for
from scsiusb.quirks.user import row_for

TABLE: Final = "table"


def quirks_for(vid: int, pid: int, release: int | None = None, given: str | None = None) -> Quirks:
    """What applies to such a device; the user's rows, the nearest one first, take the place of the table's.

    `given`: the device's letters, or rows as `--quirks` takes them; then come SCSIUSB_QUIRKS and the user's file.
    `release` (bcdDevice): None stands for all. Raises ValueError for what cannot be read, and tells where it stands.
    """
    own = row_for(vid, pid, given)
    if own is None:
        return tabled(vid, pid, release)
    return Quirks(tuple(Applied(quirk, own.source, own.why) for quirk in split(own.quirks)))


def tabled(vid: int, pid: int, release: int | None) -> Quirks:
    """All that the table says of such a device."""
    applied: dict[Quirk, Applied] = {}
    for row in rows_for(vid, pid, release):
        for quirk in split(row.quirks):
            applied.setdefault(quirk, Applied(quirk, TABLE, row.words))
    return Quirks(tuple(applied[meaning.quirk] for meaning in MEANINGS if meaning.quirk in applied))
