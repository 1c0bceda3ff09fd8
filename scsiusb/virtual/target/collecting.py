"""A task that collects data-out and then acts on all of it: a parameter list, or blocks that are compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from scsiusb.virtual.target.sense import INVALID_FIELD_IN_CDB, CommandFailed, write_error
from scsiusb.virtual.target.task import Direction, Task

if TYPE_CHECKING:
    from scsiusb.virtual.target.unit import Unit

MOST = 16 << 20  # bytes that a command may send


class Collect(Task):
    """A task that receives `length` bytes, then calls `act` with those that came; it may raise `CommandFailed`.

    Raises `CommandFailed` for a length that no command here needs.
    """

    direction = Direction.OUT

    def __init__(self, unit: Unit, length: int, act: Callable[[bytes], None], takes_less: bool = False) -> None:
        super().__init__()
        self.takes_less = takes_less
        if length > MOST:
            raise CommandFailed(INVALID_FIELD_IN_CDB)
        self.length = length
        self._unit = unit
        self._act = act
        self._data = bytearray()

    def write(self, view: memoryview) -> None:
        """See `Task.write`."""
        self._data += view[: self.length - len(self._data)]

    def end(self) -> bool:
        """See `Task.end`."""
        try:
            self._act(bytes(self._data))
        except CommandFailed as failure:
            self._unit.keep_sense(failure.sense)
            return False
        except OSError:
            self._unit.keep_sense(write_error(0))
            return False
        return True


def act_on(unit: Unit, length: int, act: Callable[[bytes], None]) -> Task:
    """Return a task that collects `length` bytes for `act`; without data, call it at once."""
    if length:
        return Collect(unit, length, act)
    act(b"")
    return Task()
