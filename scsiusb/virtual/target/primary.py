"""The commands that all units support, disks and CD-ROMs (SPC-4, MMC-6)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from scsiusb.virtual.target import logs, modes, pages
from scsiusb.virtual.target.sense import (
    INVALID_FIELD_IN_CDB,
    MEDIUM_REMOVAL_PREVENTED,
    CommandFailed,
)
from scsiusb.virtual.target.task import Parameters, Task

if TYPE_CHECKING:
    from scsiusb.virtual.target.unit import Unit

Command = Callable[["Unit", bytes], Task]

REQUEST_SENSE = 0x03
INQUIRY = 0x12
REPORT_LUNS = 0xA0

_WRITE_PROTECT = 0x80  # WP and DPOFUA of the device-specific parameter (SBC-3 6.4.1)
_DPOFUA = 0x10
_MOST_MODE_6 = 0xFF  # MODE DATA LENGTH is one byte, which limits what MODE SENSE(6) sends (SPC-4 table 452)
_PF, _SP = 0x10, 0x01  # of MODE SELECT


def _test_unit_ready(unit: Unit, cdb: bytes) -> Task:
    unit.ready_medium()
    return Task()


def request_sense_fields(cdb: bytes) -> tuple[bool, int]:
    """Return DESC and ALLOCATION LENGTH of a REQUEST SENSE CDB (SPC-4 6.39)."""
    return bool(cdb[1] & 1), cdb[4]


def _request_sense(unit: Unit, cdb: bytes) -> Task:
    descriptors, length = request_sense_fields(cdb)
    sense = unit.take_sense()
    return Parameters(sense.descriptors() if descriptors else sense.fixed(), length)


def _inquiry(unit: Unit, cdb: bytes) -> Task:
    evpd, page, length = cdb[1] & 1, cdb[2], int.from_bytes(cdb[3:5], "big")
    if cdb[1] & 2 or (page and not evpd):  # CMDDT is obsolete
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    data = pages.vpd(unit, page) if evpd else unit.inquiry()
    if data is None:
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    return Parameters(data, length)


def _mode_body(unit: Unit, cdb: bytes) -> tuple[int, bytes]:
    """Return the device-specific parameter and the mode pages, for MODE SENSE(6) and MODE SENSE(10)."""
    body = unit.modes.sense(cdb[2] & 0x3F, cdb[3], cdb[2] >> 6)
    if unit.device_type != pages.DISK:
        return 0, body
    return _DPOFUA | (_WRITE_PROTECT if unit.is_write_protected else 0), body


def _block_descriptor(unit: Unit, cdb: bytes, long_lba: bool) -> bytes:
    """Return the block descriptor; empty if DBD is set, and for a CD-ROM (MMC-6 7.2.1)."""
    if cdb[1] & 0x08 or unit.device_type != pages.DISK:
        return b""
    medium = unit.medium
    if medium is None:
        return pages.mode_block_descriptor(0, 0, long_lba)
    return pages.mode_block_descriptor(medium.blocks, medium.block_size, long_lba)


def _mode_sense_6(unit: Unit, cdb: bytes) -> Task:
    parameter, body = _mode_body(unit, cdb)
    descriptor, kind = _block_descriptor(unit, cdb, False), unit.modes.medium_type
    rest = (bytes((kind, parameter, len(descriptor))) + descriptor + body)[:_MOST_MODE_6]
    return Parameters(bytes((len(rest),)) + rest, cdb[4])


def _mode_sense_10(unit: Unit, cdb: bytes) -> Task:
    parameter, body = _mode_body(unit, cdb)
    long_lba = bool(cdb[1] & 0x10)  # LLBAA
    descriptor, kind = _block_descriptor(unit, cdb, long_lba), unit.modes.medium_type
    flags = 1 if long_lba and descriptor else 0
    head = struct.pack(">HBBBBH", 6 + len(descriptor) + len(body), kind, parameter, flags, 0, len(descriptor))
    return Parameters(head + descriptor + body, int.from_bytes(cdb[7:9], "big"))


def _mode_select(unit: Unit, cdb: bytes, length: int, header: int) -> Task:
    """Take mode pages; PF must be set, as there is no other format (SPC-4 6.11)."""
    if not cdb[1] & _PF:
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    return modes.Select(unit.modes, length, header, bool(cdb[1] & _SP), unit.keep_sense) if length else Task()


def _mode_select_6(unit: Unit, cdb: bytes) -> Task:
    return _mode_select(unit, cdb, cdb[4], 4)


def _mode_select_10(unit: Unit, cdb: bytes) -> Task:
    return _mode_select(unit, cdb, int.from_bytes(cdb[7:9], "big"), 8)


def _log_sense(unit: Unit, cdb: bytes) -> Task:
    """Report a log page with current cumulative values; parameters cannot be saved (SPC-4 6.8)."""
    page, subpage, pointer = cdb[2] & 0x3F, cdb[3], int.from_bytes(cdb[5:7], "big")
    body = logs.page(page, pointer, unit.kept)
    if cdb[1] & 1 or subpage or body is None:
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    return Parameters(struct.pack(">BBH", page, 0, len(body)) + body, int.from_bytes(cdb[7:9], "big"))


def _start_stop_unit(unit: Unit, cdb: bytes) -> Task:
    power, load, start = cdb[4] >> 4, cdb[4] & 2, bool(cdb[4] & 1)
    if power > 3:  # ACTIVE, IDLE and STANDBY are accepted and ignored (SBC-3 5.25)
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    if not power and load:
        _load_or_eject(unit, start)
    elif not power:
        unit.stopped = not start
    return Task()


def _load_or_eject(unit: Unit, load: bool) -> None:
    if not unit.removable:
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    if load:
        unit.load()
    elif unit.prevented:
        raise CommandFailed(MEDIUM_REMOVAL_PREVENTED)
    else:
        unit.eject()


def _prevent_allow_medium_removal(unit: Unit, cdb: bytes) -> Task:
    if cdb[4] & 0x02:
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    unit.prevented = bool(cdb[4] & 1)
    return Task()


def _report_luns(unit: Unit, cdb: bytes) -> Task:
    """Report the LUNs in peripheral device addressing; there are no well-known logical units (SPC-4 6.33)."""
    if cdb[2] > 2:
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    luns = range(0 if cdb[2] == 1 else unit.units)
    data = struct.pack(">I4x", 8 * len(luns)) + b"".join(struct.pack(">xB6x", lun) for lun in luns)
    return Parameters(data, int.from_bytes(cdb[6:10], "big"))


COMMANDS: Mapping[int, Command] = {
    0x00: _test_unit_ready,
    REQUEST_SENSE: _request_sense,
    INQUIRY: _inquiry,
    0x15: _mode_select_6,
    0x1A: _mode_sense_6,
    0x1B: _start_stop_unit,
    0x1E: _prevent_allow_medium_removal,
    0x4D: _log_sense,
    0x55: _mode_select_10,
    0x5A: _mode_sense_10,
    REPORT_LUNS: _report_luns,
}
