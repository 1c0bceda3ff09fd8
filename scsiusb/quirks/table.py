"""The table of devices that need care, which lies in the package as text and is read when it is asked for."""

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
    """A device by vendor, product (None: any) and a range of releases (bcdDevice)."""

    vid: int
    pid: int | None
    first: int
    last: int
    quirks: Quirk
    device: str
    reporter: str
    reason: str
    source: str

    @property
    def words(self) -> str:
        """All that is known of why."""
        is_whole = (self.first, self.last) == ALL_RELEASES
        which = self.device if is_whole else f"{self.device}, release {self.first:04x} to {self.last:04x}"
        reporter = f"reported by {self.reporter}" if self.reporter else ""
        return "; ".join(filter(None, (which, self.reason, reporter, f"from {self.source}")))


def rows_for(vid: int, pid: int, release: int | None = None) -> list[Row]:
    """The rows that mean such a device, of this release or of any."""
    rows = (row for row in _rows(f"{vid:04x}:") if row.pid in (None, pid))
    return [row for row in rows if release is None or row.first <= release <= row.last]


def table() -> list[Row]:
    """All rows."""
    return list(_rows(""))


def _rows(start: str) -> Iterator[Row]:
    """The rows whose line begins with `start`; only these are looked at closely."""
    source = ""
    for line in (get_data("scsiusb", f"data/{FILE}") or b"").decode().splitlines():
        if line.startswith(SOURCE):
            source = line.removeprefix(SOURCE).strip()
        elif line.startswith(start) and line and not line.startswith(COMMENT):
            yield _row(line, source)


def _row(line: str, source: str) -> Row:
    columns = [column.strip() for column in line.split("|")]
    identity, releases, letters, device, reporter, reason = columns + [""] * (COLUMNS - len(columns))
    vid, pid = identity.split(":")
    first, last = releases.split("-")
    product = None if pid == ANY else int(pid, 16)
    quirks = parse_letters(letters)
    return Row(int(vid, 16), product, int(first, 16), int(last, 16), quirks, device, reporter, reason, source)
