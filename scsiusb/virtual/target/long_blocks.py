"""READ LONG and WRITE LONG: blocks with their error correction bytes, and blocks marked as unreadable (SBC-3)."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from scsiusb.virtual.target.block import check_range
from scsiusb.virtual.target.collecting import act_on
from scsiusb.virtual.target.flawed import Wrapper
from scsiusb.virtual.target.media import BadBlock, Medium
from scsiusb.virtual.target.sense import (
    INVALID_FIELD_IN_CDB,
    WRITE_PROTECTED,
    CommandFailed,
    Sense,
    read_error,
)
from scsiusb.virtual.target.task import Parameters, Task

if TYPE_CHECKING:
    from scsiusb.virtual.target.unit import Unit

CORRECTION: Final = 8  # bytes of a block that correct its errors
_CORRECT, _PHYSICAL = 0x01, 0x02  # of READ LONG
_UNCORRECTABLE, _WHOLE_PHYSICAL = 0x40, 0x20  # of WRITE LONG


class Marked(Wrapper):
    """A medium with blocks that were marked as unreadable; writing one mends it."""

    def __init__(self, inner: Medium) -> None:
        super().__init__(inner)
        self._marked: set[int] = set()

    def mark(self, lba: int) -> None:
        """Mark a block."""
        self._marked.add(lba)

    def is_marked(self, lba: int) -> bool:
        """Return whether a block is marked."""
        return lba in self._marked

    def stored(self, lba: int) -> bytes:
        """Return what is in a block, marked or not."""
        data = bytearray(self.block_size)
        self.inner.readinto(lba * self.block_size, memoryview(data))
        return bytes(data)

    def fill(self, pattern: bytes) -> None:
        """See `Medium.fill`."""
        self._marked.clear()
        super().fill(pattern)

    def _readinto(self, offset: int, view: memoryview) -> None:
        blocks = range(offset // self.block_size, -(-(offset + len(view)) // self.block_size))
        bad = min((lba for lba in self._marked if lba in blocks), default=None)
        good = len(view) if bad is None else max(0, bad * self.block_size - offset)
        super()._readinto(offset, view[:good])
        if bad is not None:
            raise BadBlock(good)

    def _write(self, offset: int, view: memoryview) -> None:
        super()._write(offset, view)
        first = -(-offset // self.block_size)
        self._marked -= {lba for lba in self._marked if first <= lba < (offset + len(view)) // self.block_size}


def read_10(unit: Unit, cdb: bytes) -> Task:
    """READ LONG(10) (SBC-3 5.19)."""
    return _read(unit, int.from_bytes(cdb[2:6], "big"), int.from_bytes(cdb[7:9], "big"), cdb[1] >> 1)


def read_16(unit: Unit, cdb: bytes) -> Task:
    """READ LONG(16) (SBC-3 5.20)."""
    return _read(unit, int.from_bytes(cdb[2:10], "big"), int.from_bytes(cdb[12:14], "big"), cdb[14])


def write_10(unit: Unit, cdb: bytes) -> Task:
    """WRITE LONG(10) (SBC-3 5.41)."""
    return _write(unit, int.from_bytes(cdb[2:6], "big"), int.from_bytes(cdb[7:9], "big"), cdb[1])


def write_16(unit: Unit, cdb: bytes) -> Task:
    """WRITE LONG(16) (SBC-3 5.42)."""
    return _write(unit, int.from_bytes(cdb[2:10], "big"), int.from_bytes(cdb[12:14], "big"), cdb[1])


def _read(unit: Unit, lba: int, length: int, flags: int) -> Task:
    medium = _medium(unit, lba, has_physical=bool(flags & _PHYSICAL))
    if not length:
        return Task()
    _check_length(medium, length)
    try:
        block = medium.stored(lba)
    except OSError as error:
        raise CommandFailed(read_error(lba)) from error
    code = correction(block)
    if medium.is_marked(lba):
        if flags & _CORRECT:
            raise CommandFailed(read_error(lba))
        code = bytes(byte ^ 0xFF for byte in code)
    return Parameters(block + code, length)


def _write(unit: Unit, lba: int, length: int, flags: int) -> Task:
    medium = _medium(unit, lba, has_physical=bool(flags & _WHOLE_PHYSICAL))
    if unit.is_write_protected:
        raise CommandFailed(WRITE_PROTECTED)
    if flags & _UNCORRECTABLE:
        _keep(unit, medium).mark(lba)
        return Task()
    if not length:
        return Task()
    _check_length(medium, length)
    return act_on(unit, length, _storing(unit, medium, lba))


def _storing(unit: Unit, medium: Marked, lba: int) -> Callable[[bytes], None]:
    def act(data: bytes) -> None:
        block = data[: medium.block_size]
        medium.write(lba * medium.block_size, memoryview(block))
        if data[medium.block_size :] != correction(block):
            _keep(unit, medium).mark(lba)

    return act


def correction(block: bytes) -> bytes:
    """Return the bytes that would correct the errors of a block."""
    return zlib.crc32(block).to_bytes(4, "big") * 2


def _medium(unit: Unit, lba: int, *, has_physical: bool) -> Marked:
    """Return the unit's medium with its marks. Raise `CommandFailed`; a physical block is one logical block here."""
    medium = unit.ready_medium()
    if has_physical and unit.physical_exponent:
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    check_range(medium, lba, 1)
    return medium if isinstance(medium, Marked) else Marked(medium)


def _keep(unit: Unit, medium: Marked) -> Marked:
    """Let the unit have the medium with its marks from now on."""
    unit.medium = medium
    return medium


def _check_length(medium: Medium, length: int) -> None:
    """Raise `CommandFailed` for another length than that of a block; INFORMATION is the difference."""
    difference = length - medium.block_size - CORRECTION
    if difference:
        raise CommandFailed(Sense(0x5, 0x24, 0x00, difference & 0xFFFFFFFF, has_wrong_length=True))
