"""What the commands of long jobs share: who a disk is, how far a job came, and the command to go on."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from scsiusb.cli.options import settings
from scsiusb.cli.output import counted, size_text
from scsiusb.errors import ScsiUsbError

if TYPE_CHECKING:
    from scsiusb.disk.disk import Disk
    from scsiusb.imaging.events import Progress
    from scsiusb.imaging.readback import BlockRange

RESUME: Final = "--resume"
CONFIRMED: Final = "--yes"
MOST_PARTITIONS: Final = 20


def rate(count: int, seconds: float) -> str:
    """Return "40.1 MB/s"."""
    return f"{count / max(seconds, 1e-6) / 1e6:.1f} MB/s"


def again(*more: str) -> str:
    """Return the command line that was given, without --yes and with `more`, to go on after an interruption."""
    words = [word for word in settings().words if word not in (CONFIRMED, *more)]
    return shlex.join(["scsiusb", *words, *more])


class Reached:
    """How far a job has come, for the line that Ctrl-C prints."""

    def __init__(self, show_progress: Callable[[Progress], object]) -> None:
        self._show = show_progress
        self.last: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        """Take note of the progress, and show it."""
        self.last = progress
        self._show(progress)

    def text(self) -> str:
        """Return what is done, and how to go on."""
        last = self.last
        if last is None:
            return f"nothing is done; go on with `{again(RESUME)}`"
        total = "" if last.total is None else f" of {size_text(last.total)}"
        return f"{last.phase}: {size_text(last.done)}{total}; go on with `{again(RESUME)}`"


def name(disk: Disk) -> str:
    """Return who a disk is, for a question."""
    unit, info = disk.inquiry(), disk.unit.transport.info
    serial = "" if info.serial is None else f", serial {info.serial}"
    return f"{info.address}, {unit.vendor} {unit.product}{serial} ({size_text(disk.size)})"


def contents_of(disk: Disk) -> str:
    """Return what is on a disk, for a question: its partitions, or what the whole of it has."""
    from scsiusb.volume import partitions

    try:
        table = partitions(disk)
    except ScsiUsbError as error:
        return f"which cannot be read ({error.what})"
    if not table:
        return f"without partitions, with {table.content or 'unknown content'}"
    shown = ", ".join(f"{each.content or 'unknown'} {size_text(each.size)}" for each in table[:MOST_PARTITIONS])
    return f"with {counted(len(table), 'partition')} ({shown})"


def range_records(ranges: Sequence[BlockRange]) -> list[dict[str, Any]]:
    """Return ranges of blocks as names and values for JSON."""
    return [{"lba": each.lba, "blocks": each.blocks} for each in ranges]
