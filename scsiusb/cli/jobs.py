"""What the commands of long jobs share: who a disk is, how far a job came, and the command to go on."""

from __future__ import annotations

import errno
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from scsiusb.cli.failure import UnfinishedJob
from scsiusb.cli.options import settings
from scsiusb.cli.output import counted, size_text
from scsiusb.cli.progress import interruptible
from scsiusb.cli.replug import REPLUG
from scsiusb.errors import DeviceGone, HardwareError, MediumError, NotReady, ScsiUsbError

if TYPE_CHECKING:
    from scsiusb.disk.disk import Disk
    from scsiusb.imaging.events import Progress
    from scsiusb.imaging.readback import BlockRange

RESUME: Final = "--resume"
CONFIRMED: Final = "--yes"
MOST_PARTITIONS: Final = 20
FULL: Final = (errno.ENOSPC, errno.EDQUOT)


def rate(count: int, seconds: float) -> str:
    """Return "40.1 MB/s"."""
    return f"{count / max(seconds, 1e-6) / 1e6:.1f} MB/s"


def again(*more: str) -> str:
    """Return the command line that was given, without --yes and with `more`, to go on after an interruption."""
    words = [word for word in settings().words if word not in (CONFIRMED, *more)]
    return shlex.join(["scsiusb", *words, *more])


def resuming() -> str:
    """Return how to go on with a job that has --resume."""
    return f"go on with `{again(RESUME)}`"


def rescuing(disk: Disk, device: str | None) -> str:
    """Return what to do about blocks of a disk that cannot be read."""
    unit = disk.unit
    lun = ["--lun", str(unit.lun)] if unit.lun else []
    command = shlex.join(["scsiusb", "rescue", device or unit.transport.info.address, "FILE", "MAP", *lun])
    return f"copy what can be read with `{command}`"


class Reached:
    """How far a job has come, and how to go on, for the line that is printed when Ctrl-C or an error ends it."""

    def __init__(self, show_progress: Callable[[Progress], object], then: str, unreadable: str = "") -> None:
        """Make it for a job after which `then` says how to go on, and `unreadable` what to do about bad blocks."""
        self._show = show_progress
        self._then = then
        self._unreadable = unreadable
        self.last: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        """Take note of the progress, and show it."""
        self.last = progress
        self._show(progress)

    def text(self) -> str:
        """Return what is done, and how to go on."""
        return f"{self.done}; {self._then}"

    @property
    def done(self) -> str:
        """What is done."""
        last = self.last
        if last is None:
            return "nothing is done"
        if last.phase == REPLUG:
            return f"all is written, {last.done} of {last.total} devices were plugged in again"
        total = "" if last.total is None else f" of {size_text(last.total)}"
        return f"{last.phase}: {size_text(last.done)}{total}"

    @contextmanager
    def said(self) -> Iterator[None]:
        """Add what is done and how to go on to Ctrl-C, and to an error after which the job can go on."""
        with interruptible(self.text, then=""):
            try:
                yield
            except (DeviceGone, NotReady) as error:
                error.what += f": {self.done}"
                self.advised(error)
                raise
            except (OSError, ScsiUsbError) as error:
                advised = self.advised(error)
                if advised is error:
                    raise
                raise advised from error

    def advised(self, error: Exception) -> Exception:
        """Return the error with the remedy that is right for this job."""
        if isinstance(error, DeviceGone):
            error.remedy = f"plug it in, and {self._then}"
        elif isinstance(error, NotReady):
            error.remedy = f"when the device is ready, {self._then}"
        elif isinstance(error, (MediumError, HardwareError)):
            error.remedy = self._unreadable or error.remedy
        elif isinstance(error, OSError) and error.errno in FULL:
            return UnfinishedJob(error, f"free some space, and {self._then}")
        return error


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
