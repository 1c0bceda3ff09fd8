"""The commands that access the medium (SBC-3, MMC-6)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING

from scsiusb.virtual.target import ata, pages
from scsiusb.virtual.target.media import Medium
from scsiusb.virtual.target.sense import (
    INVALID_COMMAND,
    INVALID_FIELD_IN_CDB,
    LBA_OUT_OF_RANGE,
    WRITE_PROTECTED,
    CommandFailed,
    write_error,
)
from scsiusb.virtual.target.task import Compare, Parameters, Read, Task, Write
from scsiusb.virtual.target.unmap import Unmap

if TYPE_CHECKING:
    from scsiusb.virtual.target.primary import Command
    from scsiusb.virtual.target.unit import Unit

_FUA = 0x08
_LBPME, _LBPRZ = 0x80, 0x40  # of READ CAPACITY(16) parameter data (SBC-3 5.16.2)


def extent(cdb: bytes) -> tuple[int, int]:
    """Return LOGICAL BLOCK ADDRESS and TRANSFER LENGTH of a CDB of 6, 10, 12 or 16 bytes (SPC-4 4.2)."""
    group = cdb[0] >> 5
    if group == 0:
        lba = int.from_bytes(cdb[1:4], "big") & 0x1FFFFF
        return lba, cdb[4] or 256  # in READ(6) and WRITE(6) 0 means 256 (SBC-2 5.5)
    lba, blocks = struct.unpack_from({4: ">QI", 5: ">II"}.get(group, ">IxH"), cdb, 2)
    return lba, blocks


def check_range(medium: Medium, lba: int, blocks: int) -> None:
    """Raise `CommandFailed` for blocks that the medium does not have."""
    if lba >= medium.blocks or lba + blocks > medium.blocks:
        raise CommandFailed(LBA_OUT_OF_RANGE)


def checked_extent(unit: Unit, cdb: bytes) -> tuple[Medium, int, int]:
    """Return the medium, the first LBA and the number of blocks of a transfer, after all checks.

    Protection information (RDPROTECT, WRPROTECT, VRPROTECT) is not supported. Raises `CommandFailed`.
    """
    if cdb[0] >> 5 and cdb[1] & 0xE0:
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    medium = unit.ready_medium()
    lba, blocks = extent(cdb)
    check_range(medium, lba, blocks)
    if unit.maximum_transfer and blocks > unit.maximum_transfer:
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    return medium, lba, blocks


def _read(unit: Unit, cdb: bytes) -> Task:
    medium, lba, blocks = checked_extent(unit, cdb)
    return Read(medium, lba, blocks, unit.keep_sense) if blocks else Task()


def _write(unit: Unit, cdb: bytes) -> Task:
    medium, lba, blocks = checked_extent(unit, cdb)
    if unit.is_write_protected:
        raise CommandFailed(WRITE_PROTECTED)
    flush = bool(cdb[0] >> 5 and cdb[1] & _FUA) or not unit.modes.has_write_cache
    return Write(medium, lba, blocks, unit.keep_sense, flush) if blocks else Task()


def _verify(unit: Unit, cdb: bytes) -> Task:
    """Verify blocks; with BYTCHK 01b, compare them with data-out. Other values are not supported (SBC-3 5.29)."""
    check = cdb[1] >> 1 & 3
    if check > 1:
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    medium, lba, blocks = checked_extent(unit, cdb)
    return Compare(medium, lba, blocks, unit.keep_sense) if check and blocks else Task()


def _synchronize_cache(unit: Unit, cdb: bytes) -> Task:
    medium = unit.ready_medium()
    lba, blocks = extent(cdb)
    check_range(medium, lba, blocks)
    try:
        medium.flush()
    except OSError as error:
        raise CommandFailed(write_error(lba)) from error
    return Task()


def _read_capacity_10(unit: Unit, cdb: bytes) -> Task:
    partial, lba = cdb[8] & 1, cdb[2:6]
    if any(lba) and not partial:
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    medium = unit.ready_medium()
    last = min(medium.blocks - 1, 0xFFFFFFFF)  # FFFFFFFFh: ask READ CAPACITY(16) (SBC-3 5.15.2)
    return Parameters(struct.pack(">II", last, medium.block_size), 8)


def read_capacity_16(unit: Unit, cdb: bytes) -> Task:
    """Report the capacity with 64 bits, and whether the unit is thin (SBC-3 5.16)."""
    medium = unit.ready_medium()
    flags = (_LBPME if unit.thin else 0) | (_LBPRZ if unit.thin and unit.thin_zeros else 0)
    data = struct.pack(">QIxBB17x", medium.blocks - 1, medium.block_size, unit.physical_exponent, flags)
    return Parameters(data, int.from_bytes(cdb[10:14], "big"))


def _unmap(unit: Unit, cdb: bytes) -> Task:
    """Unmap ranges of blocks, of a thin unit (SBC-3 5.28). ANCHOR is not supported."""
    if not unit.thin:
        raise CommandFailed(INVALID_COMMAND)
    if cdb[1] & 1:
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    medium = unit.ready_medium()
    if unit.is_write_protected:
        raise CommandFailed(WRITE_PROTECTED)
    length = int.from_bytes(cdb[7:9], "big")
    return Unmap(medium, length, unit.keep_sense, zeros=unit.thin_zeros) if length else Task()


_READ_ONLY: Mapping[int, Command] = {
    0x25: _read_capacity_10,
    0x28: _read,
    0x2F: _verify,
    0xA8: _read,
}

COMMANDS: Mapping[int, Mapping[int, Command]] = {
    pages.CD_ROM: _READ_ONLY,
    pages.DISK: {
        **_READ_ONLY,
        0x08: _read,
        0x0A: _write,
        0x2A: _write,
        0x35: _synchronize_cache,
        0x42: _unmap,
        0x88: _read,
        0x8A: _write,
        0x8F: _verify,
        0x91: _synchronize_cache,
        0xAA: _write,
        0xAF: _verify,
        ata.PASS_THROUGH_16: ata.pass_through_16,
        ata.PASS_THROUGH_12: ata.pass_through_12,
    },
}
