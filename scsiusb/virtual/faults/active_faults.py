"""What goes wrong with the command under way."""

from __future__ import annotations

from scsiusb.base.dataclass import dataclass
from scsiusb.virtual.device.bot import Phase
from scsiusb.virtual.faults.faults import CBW, CSW, DATA, Fault
from scsiusb.virtual.target.task import Direction, Task

_ORDER = {CBW: 0, DATA: 1, CSW: 2}
_REACHED = {Phase.COMMAND: 0, Phase.DATA_IN: 1, Phase.DATA_OUT: 1, Phase.STATUS: 2, Phase.BROKEN: 2}


@dataclass
class Fuse:
    """The device leaves the bus after so many bytes of a phase."""

    phase: str
    left: int

    def distance(self, phase: Phase) -> int:
        """Phases to go: less than zero once its own is over."""
        return _ORDER[self.phase] - _REACHED[phase]


class ActiveFaults:
    """The faults of one command, and how far they have come."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        self.faults = faults
        self.silent_until = 0.0  # time.monotonic()
        self.silenced_in = ""  # the phase
        self.began = 0.0  # when the CBW was taken
        self.lun = 0
        self.skips_data = self.stalls_csw = False
        leaving = self.find("disconnect")
        self.fuse = Fuse(leaving.phase, leaving.number) if leaving else None

    def at(self, phase: str) -> list[Fault]:
        return [fault for fault in self.faults if fault.phase == phase]

    def find(self, name: str) -> Fault | None:
        return next((fault for fault in self.faults if fault.name == name), None)

    @property
    def stops_data(self) -> bool:
        """Is the host to learn nothing more in the data phase, not even that it is over?"""
        return self.silenced_in == DATA or (self.fuse is not None and self.fuse.phase == DATA)

    def silence(self, until: float, phase: str) -> None:
        if until > self.silent_until:
            self.silent_until, self.silenced_in = until, phase


class Intent(Task):
    """A task whose device means to move something else than it should."""

    def __init__(self, task: Task, direction: Direction, length: int) -> None:
        super().__init__()
        self.direction, self.length = direction, length
        self._task = task
        self._left = task.length if direction is task.direction else 0  # of what it should move

    def read(self, view: memoryview) -> int:
        """What should come, and zeros behind it."""
        own = view[: self._left]
        self._left -= len(own)
        if own and self._task.read(own) < len(own):
            return 0
        view[len(own) :] = bytes(len(view) - len(own))
        return len(view)

    def write(self, view: memoryview) -> None:
        own = view[: self._left]
        self._left -= len(own)
        if own:
            self._task.write(own)

    def end(self) -> bool:
        return self._task.end()


def cut(task: Task, length: int) -> Task:
    return Intent(task, task.direction, length) if length < task.length else task


def intent_of_case(case: int, task: Task, asked: int) -> Task:
    """What the device wants in one of the thirteen cases (BOT 6.7), whatever the host wants."""
    if case in (1, 4, 9):
        return Task()
    if case in (6, 12):
        return task
    direction = Direction.IN if case in (2, 5, 7, 10) else Direction.OUT
    return Intent(task, direction, asked // 2 if case in (5, 11) else asked + 512)
