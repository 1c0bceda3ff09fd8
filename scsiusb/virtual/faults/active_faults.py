"""The faults of the command in progress, and tasks that move other data than the command asks for."""

from __future__ import annotations

from scsiusb.base.dataclass import dataclass
from scsiusb.virtual.device.bot import Phase
from scsiusb.virtual.faults.faults import CBW, CSW, DATA, Fault
from scsiusb.virtual.target.task import Direction, Task

_ORDER = {CBW: 0, DATA: 1, CSW: 2}
_REACHED = {Phase.COMMAND: 0, Phase.DATA_IN: 1, Phase.DATA_OUT: 1, Phase.STATUS: 2, Phase.BROKEN: 2}


@dataclass
class DisconnectPoint:
    """Where the device leaves the bus: after `bytes_left` more bytes of the phase `phase`.

    It comes back after `absence` seconds; None: it does not by itself.
    """

    phase: str
    bytes_left: int
    absence: float | None = None

    def phases_until(self, phase: Phase) -> int:
        """Return how many phases come before the disconnect phase, seen from `phase`; negative if it is over."""
        return _ORDER[self.phase] - _REACHED[phase]


class ActiveFaults:
    """The faults that apply to one command, and their progress."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        self.faults = faults
        self.silent_until = 0.0  # time.monotonic()
        self.silent_phase = ""
        self.cbw_time = 0.0  # time.monotonic() when the CBW was accepted; 0: not yet, or already checked
        self.lun = 0
        self.skips_data = self.stalls_csw = False
        self.ignores_class_reset = False
        self.disconnect_point = self._find_disconnect_point()

    def _find_disconnect_point(self) -> DisconnectPoint | None:
        disconnect, away = self.find("disconnect"), self.find("away")
        if disconnect is not None:
            return DisconnectPoint(disconnect.phase, disconnect.number)
        return None if away is None else DisconnectPoint(away.phase, 0, float(away.value or 0))

    def in_phase(self, phase: str) -> list[Fault]:
        """Return the faults of the phase "cbw", "data" or "csw"."""
        return [fault for fault in self.faults if fault.phase == phase]

    def find(self, name: str) -> Fault | None:
        """Return the first fault of that kind, or None."""
        return next((fault for fault in self.faults if fault.name == name), None)

    @property
    def hides_data_end(self) -> bool:
        """Whether a fault of the data phase keeps the host from seeing how the data phase ends."""
        disconnects_in_data = self.disconnect_point is not None and self.disconnect_point.phase == DATA
        return self.silent_phase == DATA or disconnects_in_data

    def stay_silent(self, until: float, phase: str) -> None:
        """Answer NAK until `until` (`time.monotonic`), because of a fault in `phase`; the longest silence counts."""
        if until > self.silent_until:
            self.silent_until, self.silent_phase = until, phase


class AlteredTask(Task):
    """A task that moves `length` bytes in `direction`, whatever the original task would move."""

    def __init__(self, task: Task, direction: Direction, length: int) -> None:
        super().__init__()
        self.direction, self.length = direction, length
        self._task = task
        self._left = task.length if direction is task.direction else 0  # bytes that the original task still moves

    def read(self, view: memoryview) -> int:
        """Fill `view` from the original task, then with zeros; 0 if the original task fails."""
        original = view[: self._left]
        self._left -= len(original)
        if original and self._task.read(original) < len(original):
            return 0
        view[len(original) :] = bytes(len(view) - len(original))
        return len(view)

    def write(self, view: memoryview) -> None:
        """Pass to the original task what it takes, and discard the rest."""
        original = view[: self._left]
        self._left -= len(original)
        if original:
            self._task.write(original)

    def end(self) -> bool:
        """See `Task.end`."""
        return self._task.end()


def limit_length(task: Task, length: int) -> Task:
    """Return a task that moves at most the first `length` bytes of `task`."""
    return AlteredTask(task, task.direction, length) if length < task.length else task


def task_for_case(case: int, task: Task, transfer_length: int) -> Task:
    """Return a task that puts the device into one of the thirteen cases (BOT 6.7), 1 to 13.

    `transfer_length` is dCBWDataTransferLength: the device intends less, the same or more, as the case says.
    """
    if case in (1, 4, 9):
        return AlteredTask(
            task, Direction.NONE, 0
        )  # which still fails if the original does: it must not hide its sense
    if case in (6, 12):
        return task
    direction = Direction.IN if case in (2, 5, 7, 10) else Direction.OUT
    return AlteredTask(task, direction, transfer_length // 2 if case in (5, 11) else transfer_length + 512)
