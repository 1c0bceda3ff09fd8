"""The table of devices with quirks: a text file in the package, which is read each time it is needed."""

from __future__ import annotations

from collections.abc import Iterator
from pkgutil import get_data
from typing import Final, NamedTuple

from scsiusb.quirks.model import Quirk, parse_letters

FILE: Final = "quirks.txt"
COMMENT: Final = "#"
SOURCE: Final = "@"
ANY: Final = "*"
COLUMNS: Final = 6
ALL_RELEASES: Final = (0x0000, 0xFFFF)


class Row(NamedTuple):
    """The quirks of one device, or of all devices of a vendor."""

    vid: int
    pid: int | None
    """None stands for every product of the vendor."""
    first: int
    """The lowest bcdDevice that the row is for."""
    last: int
    """The highest one."""
    quirks: Quirk
    device: str
    reporter: str
    reason: str
    source: str

    @property
    def words(self) -> str:
        """Return the device, the reason, the reporter and the source, as far as they are known."""
        is_whole = (self.first, self.last) == ALL_RELEASES
        which = self.device if is_whole else f"{self.device}, release {self.first:04x} to {self.last:04x}"
        reporter = f"reported by {self.reporter}" if self.reporter else ""
        return "; ".join(filter(None, (which, self.reason, reporter, f"from {self.source}")))


def rows_for(vid: int, pid: int, release: int | None = None) -> list[Row]:
    """Return the rows for a device with this release (bcdDevice), or with any if `release` is None."""
    rows = (row for row in _rows(f"{vid:04x}:") if row.pid in (None, pid))
    return [row for row in rows if release is None or row.first <= release <= row.last]


def table() -> list[Row]:
    """Return all rows."""
    return list(_rows(""))


def _rows(start: str) -> Iterator[Row]:
    """Yield the rows whose line begins with `start`; only these are parsed, to save time."""
    source = ""
    for line in (get_data("scsiusb", f"data/{FILE}") or b"").decode().splitlines():
        if line.startswith(SOURCE):
            source = line.removeprefix(SOURCE).strip()
        elif line.startswith(start) and line and not line.startswith(COMMENT):
            yield _row(line, source)


def _row(line: str, source: str) -> Row:
    """Parse a line of the table."""
    columns = [column.strip() for column in line.split("|")]
    identity, releases, letters, device, reporter, reason = columns + [""] * (COLUMNS - len(columns))
    vid, pid = identity.split(":")
    first, last = releases.split("-")
    product = None if pid == ANY else int(pid, 16)
    quirks = parse_letters(letters)
    return Row(int(vid, 16), product, int(first, 16), int(last, 16), quirks, device, reporter, reason, source)
