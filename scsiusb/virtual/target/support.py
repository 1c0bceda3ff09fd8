"""Commands that report what a unit supports, its clock, its name and its buffers (SPC-4)."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from scsiusb.virtual.target import diagnostics, extra_blocks, long_blocks, reservations, whole_medium
from scsiusb.virtual.target.block import read_capacity_16
from scsiusb.virtual.target.collecting import Collect, act_on
from scsiusb.virtual.target.logs import MOST_SELF_TESTS
from scsiusb.virtual.target.sense import (
    INVALID_FIELD_IN_CDB,
    INVALID_FIELD_IN_PARAMETERS,
    PARAMETER_LIST_LENGTH_ERROR,
    CommandFailed,
)
from scsiusb.virtual.target.task import Parameters, Task

if TYPE_CHECKING:
    from scsiusb.virtual.target.primary import Command
    from scsiusb.virtual.target.unit import Unit

Service = Callable[["Unit", bytes], Task]

ECHO = 4096  # bytes of the echo buffer
BUFFER = 65536  # bytes of buffer 0
_MOST_NAME = 64
_NOMINAL, _RECOMMENDED = 1, 30  # seconds
_SUPPORTED, _UNSUPPORTED = 3, 1
_RCTD = 0x80
_WELL = 0x32  # health of an element: within its limits


class Kept:
    """What a unit keeps beside its medium: its clock, its name, its buffers."""

    def __init__(self) -> None:
        self.clock: tuple[int, float] | None = None  # what was set, in ms, and when
        self.began = time.monotonic()
        self.name = b""
        self.echo = b""
        self.data = bytearray(BUFFER)
        self.firmware = bytearray()
        self.self_tests: list[int] = []
        """Codes of the last self-tests."""

    def add_self_test(self, code: int) -> None:
        """Keep the code of a self-test that was done."""
        self.self_tests = [*self.self_tests, code][-MOST_SELF_TESTS:]

    def milliseconds(self) -> tuple[int, int]:
        """Return the clock, and the origin of its time."""
        start, since, origin = (0, self.began, 0) if self.clock is None else (*self.clock, 2)
        return start + int((time.monotonic() - since) * 1000) & (1 << 48) - 1, origin


def _supported(unit: Unit) -> list[tuple[int, int | None, int]]:
    """Return operation code, service action and CDB length of all commands."""
    rows: list[tuple[int, int | None, int]] = []
    for opcode in unit.opcodes:
        length = unit.cdb_length(opcode)
        services = unit.services.get(opcode)
        rows += [(opcode, service, length) for service in services] if services else [(opcode, None, length)]
    return rows


def _report_commands(unit: Unit, cdb: bytes) -> Task:
    options, length = cdb[2] & 7, int.from_bytes(cdb[6:10], "big")
    timeouts = bool(cdb[2] & _RCTD)
    rows = _supported(unit)
    if options == 0:
        body = b"".join(_row(*row, timeouts=timeouts) for row in rows)
        return Parameters(struct.pack(">I", len(body)) + body, length)
    if options > 3:
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    return Parameters(_one(rows, options, cdb[3], int.from_bytes(cdb[4:6], "big"), timeouts), length)


def _row(opcode: int, service: int | None, length: int, *, timeouts: bool) -> bytes:
    flags = (2 if timeouts else 0) | (0 if service is None else 1)
    return struct.pack(">BxHxBH", opcode, service or 0, flags, length) + (_timeouts() if timeouts else b"")


def _timeouts() -> bytes:
    return struct.pack(">HxxII", 10, _NOMINAL, _RECOMMENDED)


def _one(rows: list[tuple[int, int | None, int]], options: int, opcode: int, service: int, timeouts: bool) -> bytes:
    of_code = [row for row in rows if row[0] == opcode]
    has_services = any(row[1] is not None for row in of_code)
    if (options == 1 and has_services) or (options == 2 and of_code and not has_services):
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    found = [row for row in of_code if row[1] in (None, service)]
    if not found:
        return struct.pack(">xBH", _UNSUPPORTED, 0)
    usage = _usage(*found[0])
    flags = 0x80 if timeouts else 0
    return struct.pack(">xBH", flags | _SUPPORTED, len(usage)) + usage + (_timeouts() if timeouts else b"")


def _usage(opcode: int, service: int | None, length: int) -> bytes:
    """Return the mask of the bits that the unit looks at: by the layouts that most commands share."""
    flags = {0x28: 0x18, 0x2A: 0x18, 0x88: 0x18, 0x8A: 0x18, 0xA8: 0x18, 0xAA: 0x18}.get(opcode, 0xFF)
    body = {6: "ffffff", 10: "ffffffff00ffff", 12: "ffffffffffffffff00", 16: "ff" * 12 + "00"}[length]
    second = flags if service is None else service
    return bytes((opcode, second)) + bytes.fromhex(body) + b"\0"


def _report_task_management(unit: Unit, cdb: bytes) -> Task:
    data = bytes((0x08, 0, 0, 12 if cdb[2] & 0x80 else 0))  # LURS; Bulk-Only Transport has no other
    return Parameters(data + (bytes(12) if cdb[2] & 0x80 else b""), int.from_bytes(cdb[6:10], "big"))


def _report_timestamp(unit: Unit, cdb: bytes) -> Task:
    now, origin = unit.kept.milliseconds()
    data = struct.pack(">HBx", 10, origin) + now.to_bytes(6, "big") + bytes(2)
    return Parameters(data, int.from_bytes(cdb[6:10], "big"))


def _set_timestamp(unit: Unit, cdb: bytes) -> Task:
    if int.from_bytes(cdb[6:10], "big") != 12:
        raise CommandFailed(PARAMETER_LIST_LENGTH_ERROR)

    def act(data: bytes) -> None:
        unit.kept.clock = (int.from_bytes(data[4:10], "big"), time.monotonic())

    return Collect(unit, 12, act)


def _report_name(unit: Unit, cdb: bytes) -> Task:
    if cdb[10] & 0xFE:
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    name = unit.kept.name
    return Parameters(struct.pack(">2xH", len(name)) + name, int.from_bytes(cdb[6:10], "big"))


def _set_name(unit: Unit, cdb: bytes) -> Task:
    length = int.from_bytes(cdb[6:10], "big")
    if cdb[10] & 0xFE or length > _MOST_NAME:
        raise CommandFailed(INVALID_FIELD_IN_CDB)

    def act(data: bytes) -> None:
        unit.kept.name = data

    return act_on(unit, length, act)


def _read_buffer(unit: Unit, cdb: bytes) -> Task:
    """Answer modes 02h, 03h, 0Ah and 0Bh of buffer 0 (SPC-4 6.18)."""
    mode, buffer, offset = cdb[1] & 0x1F, cdb[2], int.from_bytes(cdb[3:6], "big")
    length = int.from_bytes(cdb[6:9], "big")
    memory = unit.kept
    if mode == 0x0B:
        return Parameters(struct.pack(">xxH", ECHO), length)
    if mode == 0x0A:
        return Parameters(memory.echo, length)
    if buffer or offset > BUFFER or mode not in (0x02, 0x03):
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    data = bytes(memory.data[offset:]) if mode == 0x02 else BUFFER.to_bytes(4, "big")
    return Parameters(data, length)


def _write_buffer(unit: Unit, cdb: bytes) -> Task:
    """Take modes 02h and 0Ah, and a firmware in one piece or several (05h, 07h), which changes nothing (SPC-4 6.49)."""
    mode, buffer, offset = cdb[1] & 0x1F, cdb[2], int.from_bytes(cdb[3:6], "big")
    length = int.from_bytes(cdb[6:9], "big")
    limits = {0x02: BUFFER, 0x05: 1 << 24, 0x07: 1 << 24, 0x0A: ECHO}
    if buffer or offset + length > limits.get(mode, -1):
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    memory = unit.kept

    def act(data: bytes) -> None:
        if mode == 0x0A:
            memory.echo = data
        elif mode == 0x02:
            memory.data[offset : offset + len(data)] = data
        elif offset > len(memory.firmware):
            raise CommandFailed(INVALID_FIELD_IN_PARAMETERS)
        else:
            memory.firmware[offset:] = data

    return act_on(unit, length, act)


def _security_in(unit: Unit, cdb: bytes) -> Task:
    """Report protocol 00h only (SPC-4 7.7.1)."""
    if cdb[1] or int.from_bytes(cdb[2:4], "big") > 1 or cdb[4] & 0x80:
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    data = struct.pack(">6xHB", 1, 0) if not cdb[3] else bytes(4)
    return Parameters(data, int.from_bytes(cdb[6:10], "big"))


def _media_serial(unit: Unit, cdb: bytes) -> Task:
    """Report the unit's serial number as that of its medium, with zeros to a multiple of four (SPC-4 6.21)."""
    unit.ready_medium()
    serial = (unit.serial or unit.device_serial).encode("ascii", "replace")
    serial += bytes(-len(serial) % 4)
    return Parameters(struct.pack(">I", len(serial)) + serial, int.from_bytes(cdb[6:10], "big"))


def _element_status(unit: Unit, cdb: bytes) -> Task:
    """Report one element, which is well; with a filter for those that are not, none (SBC-4 5.7)."""
    start, is_filtered = int.from_bytes(cdb[6:10], "big"), bool(cdb[14] & 0xC0)
    if cdb[14] & 0x0F:
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    elements = [] if is_filtered or start > 1 else [struct.pack(">4xI6xBBQ8x", 1, 1, _WELL, (1 << 64) - 1)]
    head = struct.pack(">II24x", len(elements), len(elements))
    return Parameters(head + b"".join(elements), int.from_bytes(cdb[10:14], "big"))


SERVICES: Mapping[int, Mapping[int, Service]] = {
    0x48: whole_medium.SANITIZE,
    0x5E: reservations.IN,
    0x5F: reservations.OUT,
    0x9E: {
        0x10: read_capacity_16,
        0x11: long_blocks.read_16,
        0x12: extra_blocks.get_lba_status,
        0x17: _element_status,
    },
    0x9F: {0x11: long_blocks.write_16},
    0xA3: {0x05: _report_name, 0x0C: _report_commands, 0x0D: _report_task_management, 0x0F: _report_timestamp},
    0xA4: {0x06: _set_name, 0x0F: _set_timestamp},
    0xAB: {0x01: _media_serial},
}
COMMANDS: Mapping[int, Command] = {
    0x04: whole_medium.format_unit,
    **dict.fromkeys((0x16, 0x17, 0x56, 0x57), reservations.reserve),
    0x1C: diagnostics.receive,
    0x1D: diagnostics.send,
    0x3B: _write_buffer,
    0x3C: _read_buffer,
    0x3E: long_blocks.read_10,
    0x3F: long_blocks.write_10,
    0x4C: diagnostics.log_select,
    0xA2: _security_in,
    **dict.fromkeys(SERVICES, lambda unit, cdb: unit.serve(cdb)),
    **extra_blocks.COMMANDS,
}
