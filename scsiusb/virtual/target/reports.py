"""Commands by which a unit reports its commands, its clock and its provisioning (SPC-4, SBC-3)."""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from scsiusb.virtual.target.sense import INVALID_FIELD_IN_CDB, LBA_OUT_OF_RANGE, CommandFailed
from scsiusb.virtual.target.task import Parameters, Task

if TYPE_CHECKING:
    from scsiusb.virtual.target.unit import Unit

SERVICE_ACTION = 0x1F
REPORT_OPCODES, REPORT_TIMESTAMP = 0x0C, 0x0F
GET_LBA_STATUS = 0x12
MAINTENANCE_IN = 0xA3

_WITH_SERVICE_ACTIONS: Mapping[int, tuple[int, ...]] = {0x9E: (0x10, GET_LBA_STATUS), 0xA3: (0x0C, 0x0F)}
_LENGTHS: Mapping[int, int] = {0: 6, 1: 10, 2: 10, 4: 16, 5: 12}  # of CDBs, by GROUP CODE (SPC-4 4.2.5.1)
_SERVACTV = 0x01


def maintenance_in(unit: Unit, cdb: bytes) -> Task:
    """Report the supported commands, or the clock, which nobody has set (SPC-4 6.35, 6.38)."""
    action, length = cdb[1] & SERVICE_ACTION, int.from_bytes(cdb[6:10], "big")
    if action == REPORT_OPCODES and not cdb[2]:
        rows = b"".join(_rows(unit))
        return Parameters(struct.pack(">I", len(rows)) + rows, length)
    if action == REPORT_TIMESTAMP:
        milliseconds = int((time.monotonic() - unit.powered_at) * 1000)
        return Parameters(struct.pack(">HBx6s2x", 10, 0, milliseconds.to_bytes(6, "big")), length)
    raise CommandFailed(INVALID_FIELD_IN_CDB)


def _rows(unit: Unit) -> list[bytes]:
    rows = []
    for opcode in sorted(unit.opcodes):
        actions = _WITH_SERVICE_ACTIONS.get(opcode)
        for action in (None,) if actions is None else actions:
            flags = 0 if action is None else _SERVACTV
            rows.append(struct.pack(">BxHxBH", opcode, action or 0, flags, _LENGTHS[opcode >> 5]))
    return rows


def get_lba_status(unit: Unit, cdb: bytes) -> Task:
    """Report all blocks from an LBA on as mapped, as no unit here forgets which were unmapped (SBC-3 5.4)."""
    medium = unit.ready_medium()
    lba, length = struct.unpack_from(">QI", cdb, 2)
    if lba >= medium.blocks:
        raise CommandFailed(LBA_OUT_OF_RANGE)
    row = struct.pack(">QIB3x", lba, min(medium.blocks - lba, 0xFFFFFFFF), 0)
    return Parameters(struct.pack(">I4x", 4 + len(row)) + row, length)
