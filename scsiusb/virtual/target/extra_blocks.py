"""Commands of a disk that write blocks in other ways, or report their state (SBC-3)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from scsiusb.virtual.target.block import check_range, checked_extent, extent
from scsiusb.virtual.target.collecting import Collect, act_on
from scsiusb.virtual.target.pages import MOST_ATOMIC, MOST_COMPARED, MOST_SAME
from scsiusb.virtual.target.sense import (
    INVALID_FIELD_IN_CDB,
    INVALID_FIELD_IN_PARAMETERS,
    LBA_OUT_OF_RANGE,
    PARAMETER_LIST_LENGTH_ERROR,
    WRITE_PROTECTED,
    CommandFailed,
    miscompare,
    read_error,
)
from scsiusb.virtual.target.task import Compare, Parameters, Task, Write

if TYPE_CHECKING:
    from scsiusb.virtual.target.media import Medium
    from scsiusb.virtual.target.primary import Command
    from scsiusb.virtual.target.unit import Unit

_UNMAP, _ANCHOR, _NDOB = 0x08, 0x10, 0x01
_PIECE = 1 << 20  # bytes written at once
_MOST_STATUSES = 64
_SCANNED = 1 << 18  # blocks that GET LBA STATUS looks at
_MAPPED, _DEALLOCATED = 0, 1
_GROWN = 0x08
_MOST_REASSIGNED = 512


def _writable(unit: Unit, cdb: bytes) -> tuple[Medium, int, int]:
    medium, lba, blocks = checked_extent(unit, cdb)
    if unit.is_write_protected:
        raise CommandFailed(WRITE_PROTECTED)
    return medium, lba, blocks


class _OrWrite(Write):
    """Blocks from the host, of which the bits that are set are set on the medium."""

    def _store(self, view: memoryview) -> None:
        stored = bytearray(len(view))
        self._medium.readinto(self._offset, memoryview(stored))
        both = int.from_bytes(stored, "big") | int.from_bytes(view, "big")
        super()._store(memoryview(both.to_bytes(len(view), "big")))


class _WriteAndVerify(Compare):
    """Blocks from the host, which are written and then compared with what the medium returns."""

    def _store(self, view: memoryview) -> None:
        self._medium.write(self._offset, view)
        super()._store(view)


def _orwrite(unit: Unit, cdb: bytes) -> Task:
    medium, lba, blocks = _writable(unit, cdb)
    return _OrWrite(medium, lba, blocks, unit.keep_sense, bool(cdb[1] & 0x08)) if blocks else Task()


def _write_and_verify(unit: Unit, cdb: bytes) -> Task:
    if cdb[1] >> 1 & 3 not in (0, 1):
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    medium, lba, blocks = _writable(unit, cdb)
    return _WriteAndVerify(medium, lba, blocks, unit.keep_sense, True) if blocks else Task()


def _write_atomic(unit: Unit, cdb: bytes) -> Task:
    """Write all blocks or none: they are written when all have come (SBC-4 WRITE ATOMIC(16)); no atomic boundary."""
    medium, lba, blocks = unit.ready_medium(), int.from_bytes(cdb[2:10], "big"), int.from_bytes(cdb[12:14], "big")
    if cdb[1] & 0xE0 or any(cdb[10:12]):
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    check_range(medium, lba, blocks)
    if blocks > MOST_ATOMIC:
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    if unit.is_write_protected:
        raise CommandFailed(WRITE_PROTECTED)

    def act(data: bytes) -> None:
        medium.write(lba * medium.block_size, memoryview(data))
        if cdb[1] & 0x08:  # FUA
            medium.flush()

    return act_on(unit, blocks * medium.block_size, act)


def _prefetch(unit: Unit, cdb: bytes) -> Task:
    medium = unit.ready_medium()
    check_range(medium, *extent(cdb))
    return Task()


def _seek(unit: Unit, cdb: bytes) -> Task:
    check_range(unit.ready_medium(), int.from_bytes(cdb[2:6], "big"), 0)
    return Task()


def _compare_and_write(unit: Unit, cdb: bytes) -> Task:
    """Write the second half of the data if the medium has the first half (SBC-3 5.2)."""
    if cdb[1] & 0xE0 or cdb[13] > MOST_COMPARED:
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    medium = unit.ready_medium()
    lba, blocks = int.from_bytes(cdb[2:10], "big"), cdb[13]
    check_range(medium, lba, blocks)
    if unit.is_write_protected:
        raise CommandFailed(WRITE_PROTECTED)
    size = blocks * medium.block_size

    def act(data: bytes) -> None:
        stored = bytearray(size)
        try:
            medium.readinto(lba * medium.block_size, memoryview(stored))
        except OSError as error:
            raise CommandFailed(read_error(lba)) from error
        if stored != data[:size]:
            pairs = zip(stored, data, strict=False)
            raise CommandFailed(miscompare(next((at for at, (a, b) in enumerate(pairs) if a != b), len(data))))
        medium.write(lba * medium.block_size, memoryview(data[size : 2 * size]))

    return act_on(unit, 2 * size, act)


def _write_same(unit: Unit, cdb: bytes) -> Task:
    """Write one block, or zeros, to a range; 0 blocks means all to the end (SBC-3 5.43, 5.44)."""
    flags, is_long = cdb[1], cdb[0] == 0x93
    no_data = bool(is_long and flags & _NDOB)
    if flags & (0xE0 | _ANCHOR) or (flags & _UNMAP and not unit.thin):
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    medium = unit.ready_medium()
    lba, blocks = extent(cdb)
    check_range(medium, lba, blocks)
    blocks = blocks or medium.blocks - lba
    if blocks > MOST_SAME:
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    if unit.is_write_protected:
        raise CommandFailed(WRITE_PROTECTED)

    def act(data: bytes) -> None:
        block = bytes(medium.block_size) if no_data else data.ljust(medium.block_size, b"\0")
        write_repeated(medium, lba, blocks, block)

    return act_on(unit, 0 if no_data else medium.block_size, act)


def write_repeated(medium: Medium, lba: int, blocks: int, block: bytes) -> None:
    """Write a block to a range of blocks, in pieces."""
    count = max(_PIECE // medium.block_size, 1)
    at, end = lba, lba + blocks
    piece = block * min(count, blocks)
    while at < end:
        step = min(count, end - at)
        medium.write(at * medium.block_size, memoryview(piece)[: step * medium.block_size])
        at += step


def get_lba_status(unit: Unit, cdb: bytes) -> Task:
    """Report ranges: blocks of a thin unit that read as zeros are not mapped (SBC-3 5.4)."""
    medium = unit.ready_medium()
    lba = int.from_bytes(cdb[2:10], "big")
    if lba >= medium.blocks:
        raise CommandFailed(LBA_OUT_OF_RANGE)
    rows = _statuses(medium, lba, unit.thin)
    body = b"".join(struct.pack(">QIB3x", *row) for row in rows)
    return Parameters(struct.pack(">I4x", 4 + len(body)) + body, int.from_bytes(cdb[10:14], "big"))


def _statuses(medium: Medium, lba: int, thin: bool) -> list[tuple[int, int, int]]:
    if not thin:
        return [(lba, min(medium.blocks - lba, 0xFFFFFFFF), _MAPPED)]
    found: list[tuple[int, int, int]] = []
    for at, blocks, status in _runs(medium, lba, min(medium.blocks, lba + _SCANNED)):
        if found and found[-1][2] == status:
            found[-1] = (found[-1][0], found[-1][1] + blocks, status)
        elif len(found) == _MOST_STATUSES:
            break
        else:
            found.append((at, blocks, status))
    return found


def _runs(medium: Medium, lba: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield pieces of zeros as a whole, the blocks of others one by one."""
    size = medium.block_size
    while lba < end:
        count = min(_PIECE // size, end - lba)
        yield from [(lba, count, _DEALLOCATED)] if _is_zero(medium, lba, count) else _single(medium, lba, count)
        lba += count


def _single(medium: Medium, lba: int, count: int) -> Iterator[tuple[int, int, int]]:
    for at in range(lba, lba + count):
        yield at, 1, _DEALLOCATED if _is_zero(medium, at, 1) else _MAPPED


def _is_zero(medium: Medium, lba: int, count: int) -> bool:
    """Return whether blocks are zeros; those that cannot be read are mapped."""
    data = bytearray(count * medium.block_size)
    try:
        medium.readinto(lba * medium.block_size, memoryview(data))
    except OSError:
        return False
    return not any(data) if count == 1 else data == bytes(len(data))


def _read_defects_10(unit: Unit, cdb: bytes) -> Task:
    body = b"".join(lba.to_bytes(4, "big") for lba in unit.grown) if cdb[2] & _GROWN else b""
    head = struct.pack(">xBH", cdb[2] & 0x18, len(body))
    return Parameters(head + body, int.from_bytes(cdb[7:9], "big"))


def _read_defects_12(unit: Unit, cdb: bytes) -> Task:
    body = b"".join(lba.to_bytes(4, "big") for lba in unit.grown) if cdb[1] & _GROWN else b""
    body = body[4 * int.from_bytes(cdb[2:6], "big") :]
    head = struct.pack(">xBHI", cdb[1] & 0x18, 0, len(body))
    return Parameters(head + body, int.from_bytes(cdb[6:10], "big"))


def _reassign(unit: Unit, cdb: bytes) -> Task:
    """Take blocks to the list of grown defects; they read as zeros then (SBC-3 5.21)."""
    medium = unit.ready_medium()
    if unit.is_write_protected:
        raise CommandFailed(WRITE_PROTECTED)
    size = 8 if cdb[1] & 2 else 4

    def act(data: bytes) -> None:
        if len(data) < 4:
            raise CommandFailed(PARAMETER_LIST_LENGTH_ERROR)
        length = int.from_bytes(data[0:4] if cdb[1] & 1 else data[2:4], "big")
        if length % size or length > len(data) - 4:
            raise CommandFailed(INVALID_FIELD_IN_PARAMETERS)
        lbas = [int.from_bytes(data[at : at + size], "big") for at in range(4, 4 + length, size)]
        if any(lba >= medium.blocks for lba in lbas):
            raise CommandFailed(LBA_OUT_OF_RANGE)
        for lba in lbas:
            medium.reassign(lba)
            unit.grown = sorted({*unit.grown, lba})[: 0xFFFF // 4]

    return Collect(unit, 4 + 8 * _MOST_REASSIGNED, act, takes_less=True)


def _read_format_capacities(unit: Unit, cdb: bytes) -> Task:
    medium = unit.medium
    blocks, kind, size = (0xFFFFFFFF, 3, 512) if medium is None else (medium.blocks, 2, medium.block_size)
    data = struct.pack(">3xBII", 8, min(blocks, 0xFFFFFFFF), kind << 24 | size)
    return Parameters(data, int.from_bytes(cdb[7:9], "big"))


COMMANDS: Mapping[int, Command] = {
    0x07: _reassign,
    0x23: _read_format_capacities,
    0x2B: _seek,
    0x2E: _write_and_verify,
    0x34: _prefetch,
    0x37: _read_defects_10,
    0x41: _write_same,
    0x89: _compare_and_write,
    0x8B: _orwrite,
    0x8E: _write_and_verify,
    0x90: _prefetch,
    0x93: _write_same,
    0x9C: _write_atomic,
    0xAE: _write_and_verify,
    0xB7: _read_defects_12,
}
