"""EXTENDED COPY within one unit, and RECEIVE COPY RESULTS (SPC-4 5.17, 6.5, 6.20 to 6.22)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from scsiusb.virtual.target.collecting import Collect
from scsiusb.virtual.target.sense import (
    INVALID_FIELD_IN_CDB,
    PARAMETER_LIST_LENGTH_ERROR,
    WRITE_PROTECTED,
    CommandFailed,
    Sense,
    read_error,
)
from scsiusb.virtual.target.task import Parameters, Task

if TYPE_CHECKING:
    from scsiusb.virtual.target.media import Medium
    from scsiusb.virtual.target.unit import Unit

EXTENDED_COPY, RECEIVE_COPY = 0x83, 0x84  # operation codes
COPY, STATUS, PARAMETERS = 0x00, 0x00, 0x03  # service actions
IDENTIFIER, BLOCKS_TO_BLOCKS = 0xE4, 0x02  # descriptor types
MOST_DEVICES, MOST_SEGMENTS, MOST_BYTES = 4, 16, 1024  # descriptors, and bytes of them
HEADER, DEVICE, SEGMENT = 16, 32, 28  # bytes
DISCARD: Final = 2  # LIST ID USAGE: 10b and 11b keep no results
TOO_MANY_DEVICES, UNKNOWN_DEVICE = Sense(0x5, 0x26, 0x06), Sense(0x5, 0x26, 0x07)
TOO_MANY_SEGMENTS, UNKNOWN_SEGMENT = Sense(0x5, 0x26, 0x08), Sense(0x5, 0x26, 0x09)
NOT_REACHABLE, ABORTED = Sense(0xA, 0x0D, 0x02), Sense(0xA, 0x00, 0x00)


class Segment(NamedTuple):
    """A segment descriptor, block device to block device (SPC-4 6.5.7.7)."""

    source: int
    destination: int
    blocks: int
    source_lba: int
    destination_lba: int


class Copies:
    """The results of copies by their list identifiers."""

    def __init__(self) -> None:
        self.segments: dict[int, int] = {}
        """How many segments were processed."""


def furnish(unit: Unit) -> None:
    """Give the unit the commands and what describes them."""
    unit.copies = Copies()
    for opcode, services in _SERVICES.items():
        unit.services[opcode] = services
        unit.add(opcode, lambda unit, cdb: unit.serve(cdb))


def designator(serial: str) -> bytes:
    """Return an NAA designator, locally assigned, by which copies name the unit (SPC-4 7.8.6.6)."""
    return bytes((0x01, 0x03, 0x00, 8)) + (3 << 60 | zlib.crc32(serial.encode())).to_bytes(8, "big")


def description() -> bytes:
    """Return page 8Fh after its header: the commands, and the descriptor types (SPC-4 7.8.17)."""
    commands = b"".join(bytes((opcode, len(services), *services)) for opcode, services in _SERVICES.items())
    types = bytes((IDENTIFIER, BLOCKS_TO_BLOCKS))
    return _described(1, bytes((len(commands),)) + commands) + _described(8, bytes((len(types),)) + types)


def _described(kind: int, data: bytes) -> bytes:
    padded = data.ljust(-(-len(data) // 4) * 4, b"\0")
    return struct.pack(">HH", kind, len(padded)) + padded


def _copy(unit: Unit, cdb: bytes) -> Task:
    length = int.from_bytes(cdb[10:14], "big")
    if not length:
        return Task()  # this is no error (SPC-4 6.5)
    if unit.is_write_protected:
        raise CommandFailed(WRITE_PROTECTED)
    medium = unit.ready_medium()
    return Collect(unit, length, lambda data: _carry_out(unit, medium, data))


def _carry_out(unit: Unit, medium: Medium, data: bytes) -> None:
    if len(data) < HEADER:
        raise CommandFailed(PARAMETER_LIST_LENGTH_ERROR)
    name, usage, devices, segments, inline = struct.unpack_from(">BBH4xII", data)
    if inline or devices + segments > MOST_BYTES or HEADER + devices + segments > len(data):
        raise CommandFailed(PARAMETER_LIST_LENGTH_ERROR)
    there = data[HEADER : HEADER + devices]
    reachable = _devices(unit, there)
    plan = _segments(data[HEADER + devices : HEADER + devices + segments])
    done = 0
    try:
        for segment in plan:
            _move(medium, reachable, segment)
            done += 1
    finally:
        if usage >> 3 & 3 < DISCARD and unit.copies is not None:
            unit.copies.segments[name] = done


def _devices(unit: Unit, data: bytes) -> list[bool]:
    """Return for each CSCD descriptor whether it names this unit."""
    if len(data) % DEVICE:
        raise CommandFailed(PARAMETER_LIST_LENGTH_ERROR)
    rows = [data[at : at + DEVICE] for at in range(0, len(data), DEVICE)]
    if len(rows) > MOST_DEVICES:
        raise CommandFailed(TOO_MANY_DEVICES)
    if any(row[0] != IDENTIFIER for row in rows):
        raise CommandFailed(UNKNOWN_DEVICE)
    own = designator(unit.device_serial if unit.serial is None else unit.serial)
    return [row[4:8] == own[:4] and row[8 : 4 + len(own)] == own[4:] for row in rows]


def _segments(data: bytes) -> list[Segment]:
    found = []
    while data:
        length = 4 + int.from_bytes(data[2:4], "big")
        if data[0] != BLOCKS_TO_BLOCKS:
            raise CommandFailed(UNKNOWN_SEGMENT)
        if length != SEGMENT or len(data) < SEGMENT:
            raise CommandFailed(PARAMETER_LIST_LENGTH_ERROR)
        found.append(Segment(*struct.unpack_from(">HH2xHQQ", data, 4)))
        data = data[SEGMENT:]
    if len(found) > MOST_SEGMENTS:
        raise CommandFailed(TOO_MANY_SEGMENTS)
    return found


def _move(medium: Medium, reachable: list[bool], segment: Segment) -> None:
    if not all(index < len(reachable) and reachable[index] for index in (segment.source, segment.destination)):
        raise CommandFailed(NOT_REACHABLE)
    size = medium.block_size
    if max(segment.source_lba, segment.destination_lba) + segment.blocks > medium.blocks:
        raise CommandFailed(ABORTED)
    room = bytearray(segment.blocks * size)  # the two ranges may overlap
    try:
        medium.readinto(segment.source_lba * size, memoryview(room))
    except OSError as error:
        raise CommandFailed(read_error(segment.source_lba)) from error
    medium.write(segment.destination_lba * size, memoryview(room))


def _status(unit: Unit, cdb: bytes) -> Task:
    """Report a copy by its list identifier; the results are then gone (SPC-4 6.20)."""
    segments = None if unit.copies is None else unit.copies.segments.pop(cdb[2], None)
    if segments is None:
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    data = struct.pack(">IBHBI", 8, 0x01, segments, 0, 0)  # completed without errors
    return Parameters(data, int.from_bytes(cdb[10:14], "big"))


def _parameters(unit: Unit, cdb: bytes) -> Task:
    """Report what is supported (SPC-4 6.22)."""
    types = bytes((BLOCKS_TO_BLOCKS, IDENTIFIER))
    limits = struct.pack(">B3xHHIII", 1, MOST_DEVICES, MOST_SEGMENTS, MOST_BYTES, 0xFFFF * 512, 0)
    body = limits + struct.pack(">II2xHBBBB3xB", 0, 0, 1, 1, 9, 0, 0, len(types)) + types
    return Parameters(struct.pack(">I", len(body)) + body, int.from_bytes(cdb[10:14], "big"))


_SERVICES: Final[Mapping[int, Mapping[int, Callable[[Unit, bytes], Task]]]] = {
    EXTENDED_COPY: {COPY: _copy},
    RECEIVE_COPY: {STATUS: _status, PARAMETERS: _parameters},
}
