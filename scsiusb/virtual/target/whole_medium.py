"""FORMAT UNIT and SANITIZE, which go on after their status, and report their progress (SBC-3 5.3, 5.24).

Progress advances with each command that asks for it, and not with time, so that it is the same on each machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from scsiusb.virtual.target.collecting import act_on
from scsiusb.virtual.target.sense import (
    INVALID_FIELD_IN_CDB,
    INVALID_FIELD_IN_PARAMETERS,
    WRITE_PROTECTED,
    CommandFailed,
    Sense,
)
from scsiusb.virtual.target.task import Task

if TYPE_CHECKING:
    from scsiusb.virtual.target.media import Medium
    from scsiusb.virtual.target.unit import Unit

FORMAT_FAILED = Sense(0x3, 0x31, 0x01)
STEPS = 4  # commands that ask, until it is done
_WHOLE = 0x10000
_LARGEST = 1 << 30  # bytes of a medium in memory that a pattern may fill

_FMTDATA, _CMPLST = 0x10, 0x08
_IMMED_OF_LIST = 0x02
_IMMED = 0x80


class Operation:
    """An operation in progress: its additional sense code, and what it does to the medium at its end."""

    def __init__(self, asc: tuple[int, int], finish: Callable[[], None]) -> None:
        self._asc = asc
        self._finish = finish
        self._steps = 0
        self.is_over = False

    def advance(self) -> Sense | None:
        """Return the sense that reports the progress; None: the operation has just ended."""
        self._steps += 1
        if self._steps <= STEPS:
            return Sense(0x2, *self._asc, progress=self._steps * _WHOLE // (STEPS + 1))
        try:
            self._finish()
        except OSError:
            self.is_over = True
            return FORMAT_FAILED
        self.is_over = True
        return None


def _begin(unit: Unit, immediate: bool, asc: tuple[int, int], finish: Callable[[], None]) -> None:
    if immediate:
        unit.operation = Operation(asc, finish)
        return
    try:
        finish()
    except OSError as error:
        raise CommandFailed(FORMAT_FAILED) from error


def _checked(unit: Unit) -> Medium:
    medium = unit.ready_medium()
    if unit.is_write_protected:
        raise CommandFailed(WRITE_PROTECTED)
    return medium


def format_unit(unit: Unit, cdb: bytes) -> Task:
    """Fill the medium with zeros. Protection information and defect lists of the host are not supported."""
    if cdb[1] & 0xE0 or (cdb[1] & _CMPLST and not cdb[1] & _FMTDATA):
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    medium = _checked(unit)

    def act(data: bytes) -> None:
        if len(data) >= 4 and (any(data[2:4]) or data[0] & 0x07):
            raise CommandFailed(INVALID_FIELD_IN_PARAMETERS)
        immediate = len(data) >= 2 and bool(data[1] & _IMMED_OF_LIST)
        if cdb[1] & _CMPLST:
            unit.grown = []
        _begin(unit, immediate, (0x04, 0x04), lambda: medium.fill(b"\0"))

    return act_on(unit, 4 if cdb[1] & _FMTDATA else 0, act)


def _overwrite(unit: Unit, cdb: bytes) -> Task:
    medium = _checked(unit)
    length = int.from_bytes(cdb[7:9], "big")
    if not 4 < length <= 4 + medium.block_size:
        raise CommandFailed(INVALID_FIELD_IN_CDB)

    def act(data: bytes) -> None:
        size = int.from_bytes(data[2:4], "big")
        if not data or not data[0] & 0x1F or not 0 < size <= len(data) - 4:
            raise CommandFailed(INVALID_FIELD_IN_PARAMETERS)
        pattern = data[4 : 4 + size]
        if any(pattern) and medium.blocks * medium.block_size > _LARGEST:
            raise CommandFailed(INVALID_FIELD_IN_PARAMETERS)
        if data[0] & 0x80 and not data[0] & 0x01:  # INVERT, and an even number of passes
            pattern = bytes(byte ^ 0xFF for byte in pattern)
        _begin(unit, bool(cdb[1] & _IMMED), (0x04, 0x1B), lambda: medium.fill(pattern))

    return act_on(unit, length, act)


def _erase(unit: Unit, cdb: bytes) -> Task:
    if any(cdb[7:9]):
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    medium = _checked(unit)
    _begin(unit, bool(cdb[1] & _IMMED), (0x04, 0x1B), lambda: medium.fill(b"\0"))
    return Task()


def _exit_failure(unit: Unit, cdb: bytes) -> Task:
    if any(cdb[7:9]):
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    return Task()  # no sanitize fails here


SANITIZE: Mapping[int, Callable[[Unit, bytes], Task]] = {
    0x01: _overwrite,
    0x02: _erase,
    0x03: _erase,
    0x1F: _exit_failure,
}
