"""Commands of a CD-ROM drive: its disc has one session with one data track (MMC-6)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from scsiusb.virtual.target.sense import INVALID_FIELD_IN_CDB, CommandFailed
from scsiusb.virtual.target.task import Parameters, Task

if TYPE_CHECKING:
    from scsiusb.virtual.target.unit import Unit

_LEAD_OUT = 0xAA
_DATA_TRACK = 0x14  # ADR 1: position, CONTROL 4: data
_CD_ROM_PROFILE = 0x0008
_PERSISTENT, _CURRENT = 0x02, 0x01
_COMPLETE = 0x0E  # last session and disc


def read_toc(unit: Unit, cdb: bytes) -> Task:
    """Report the track and the lead-out, or the session (MMC-6 6.25)."""
    medium, length = unit.ready_medium(), int.from_bytes(cdb[7:9], "big")
    form, track, is_msf = cdb[2] & 0x0F or cdb[9] >> 6, cdb[6], bool(cdb[1] & 2)
    if form > 1 or (track > 1 and track != _LEAD_OUT):
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    rows = [_row(1, 0, is_msf)] if form or track <= 1 else []
    if not form:
        rows.append(_row(_LEAD_OUT, medium.blocks, is_msf))
    body = b"".join(rows)
    return Parameters(struct.pack(">HBB", 2 + len(body), 1, 1) + body, length)


def _row(track: int, lba: int, is_msf: bool) -> bytes:
    if is_msf:
        seconds, frame = divmod(lba + 150, 75)
        address = bytes((0, *divmod(seconds, 60), frame)) if seconds < 256 * 60 else b"\0\xff\xff\xff"
    else:
        address = struct.pack(">I", min(lba, 0xFFFFFFFF))
    return struct.pack(">xBBx", _DATA_TRACK, track) + address


def get_configuration(unit: Unit, cdb: bytes) -> Task:
    """Report the profile list, core, removable medium, random readable and CD read (MMC-6 6.6)."""
    which, first, length = cdb[1] & 3, int.from_bytes(cdb[2:4], "big"), int.from_bytes(cdb[7:9], "big")
    if which == 3:
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    has_disc = unit.medium is not None
    current = _CURRENT if has_disc else 0
    features = {
        0x0000: (_PERSISTENT | _CURRENT, struct.pack(">HBx", _CD_ROM_PROFILE, current)),
        0x0001: (0x02 << 2 | _PERSISTENT | _CURRENT, struct.pack(">IB3x", 8, 1)),
        0x0003: (0x01 << 2 | _PERSISTENT | _CURRENT, bytes((0x39, 0, 0, 0))),
        0x0010: (current, struct.pack(">IHBx", 2048, 1, 0)),
        0x001E: (0x02 << 2 | current, bytes(4)),
    }
    rows = b"".join(
        struct.pack(">HBB", code, flags, len(data)) + data
        for code, (flags, data) in features.items()
        if (code == first if which == 2 else code >= first and (which == 0 or flags & _CURRENT))
    )
    profile = _CD_ROM_PROFILE if has_disc else 0
    return Parameters(struct.pack(">IHH", 4 + len(rows), 0, profile) + rows, length)


def read_disc_information(unit: Unit, cdb: bytes) -> Task:
    """Report a complete disc with one session (MMC-6 6.21)."""
    unit.ready_medium()
    if cdb[1] & 7:
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    body = struct.pack(">BBBBB", _COMPLETE, 1, 1, 1, 1) + bytes(27)
    return Parameters(struct.pack(">H", len(body)) + body, int.from_bytes(cdb[7:9], "big"))
