"""Commands of a CD-ROM drive (MMC-6): its disc has one data track."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING

from scsiusb.virtual.target.block import check_range
from scsiusb.virtual.target.sense import INVALID_FIELD_IN_CDB, NO_TABLE_OF_CONTENTS, CommandFailed
from scsiusb.virtual.target.task import Parameters, Read, Task

if TYPE_CHECKING:
    from scsiusb.virtual.target.primary import Command
    from scsiusb.virtual.target.unit import Unit

_LEAD_OUT = 0xAA
_INVISIBLE = 0xFF  # the track that is not complete
_DATA = 0x14  # ADR 1, CONTROL 4
_CD_ROM, _CD_RW = 0x0008, 0x000A  # profiles
_PREGAP, _FRAMES = 150, 75


def _time(lba: int) -> int:
    """Return the time of a block, a byte each for minutes, seconds and frames (MMC-6 4.2.6.3)."""
    seconds, frame = divmod(lba + _PREGAP, _FRAMES)
    minute, second = divmod(seconds, 60)
    return min(minute, 255) << 16 | second << 8 | frame


def _read_toc(unit: Unit, cdb: bytes) -> Task:
    end = unit.ready_medium().blocks
    if not end:
        raise CommandFailed(NO_TABLE_OF_CONTENTS)
    form, first, length = cdb[2] & 0x0F, cdb[6], int.from_bytes(cdb[7:9], "big")
    if form == 0 and first not in (0, 1, _LEAD_OUT):
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    as_time = bool(cdb[1] & 2)
    tracks = [(1, 0), (_LEAD_OUT, end)] if form == 0 and first != _LEAD_OUT else [(_LEAD_OUT, end)]
    if form == 1:
        tracks = [(1, 0)]
    if form <= 1:
        rows = [struct.pack(">xBBxI", _DATA, track, _time(lba) if as_time else lba) for track, lba in tracks]
    elif form == 2 and first <= 1:
        points = [(0xA0, 0x010000), (0xA1, 0x010000), (0xA2, _time(end)), (0x01, _time(0))]
        rows = [struct.pack(">BBxB4x", 1, _DATA, point) + place.to_bytes(3, "big") for point, place in points]
    else:
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    body = b"\1\1" + b"".join(rows)
    return Parameters(struct.pack(">H", len(body)) + body, length)


def _features(unit: Unit) -> list[tuple[int, int, bool, bytes]]:
    """Return code, version, whether it is current, and the data of each feature (MMC-6 5.3)."""
    loaded, disc = unit.medium is not None, unit.disc
    profiles = struct.pack(">HBx", _CD_ROM, loaded and disc is None)
    writing: list[tuple[int, int, bool, bytes]] = []
    if disc is not None:
        profiles = struct.pack(">HBx", _CD_RW, loaded) + profiles
        writing.append((0x002D, 2, loaded and not disc.is_complete, struct.pack(">BxH", 0x02, 0x0100)))
    return [
        (0x0000, 0, True, profiles),
        (0x0001, 2, True, struct.pack(">IB3x", 8, 1)),  # USB; DBE
        (0x0003, 0, True, bytes((0x29, 0, 0, 0))),  # a tray that ejects and locks
        (0x0010, 0, loaded, struct.pack(">IHBx", 2048, 1, 1)),
        (0x001E, 2, loaded, bytes(4)),
        *writing,
        (0x0108, 0, True, (unit.serial or unit.device_serial).encode("ascii", "replace")[:252]),
    ]


def _get_configuration(unit: Unit, cdb: bytes) -> Task:
    kind, start = cdb[1] & 3, int.from_bytes(cdb[2:4], "big")
    rows = [row for row in _features(unit) if row[0] >= start]
    if kind == 1:
        rows = [row for row in rows if row[2]]
    elif kind == 2:
        rows = [row for row in rows if row[0] == start]
    elif kind == 3:
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    body = b"".join(_feature(*row) for row in rows)
    profile = (_CD_ROM if unit.disc is None else _CD_RW) if unit.medium is not None else 0
    head = struct.pack(">I2xH", 4 + len(body), profile)
    return Parameters(head + body, int.from_bytes(cdb[7:9], "big"))


def _feature(code: int, version: int, current: bool, data: bytes) -> bytes:
    padded = data.ljust(-(-len(data) // 4) * 4, b" ")
    persistent = 2 if code in (0x0000, 0x0001, 0x0003, 0x0108) else 0
    return struct.pack(">HBB", code, version << 2 | persistent | current, len(padded)) + padded


def _read_disc_information(unit: Unit, cdb: bytes) -> Task:
    if cdb[1] & 7:
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    medium, disc = unit.ready_medium(), unit.disc
    state = 0x0E if disc is None or disc.is_complete else 0x05 if medium.blocks else 0x00  # disc and last session
    erasable = 0 if disc is None else 0x10
    head = bytes((state | erasable, 1, 1, 1, 1, 0x20, 0x00, 0, 0, 0))  # one session of one track; URU; CD-ROM
    data = struct.pack(">H", 32) + head + bytes(4) + b"\xff" * 8 + bytes(10)
    return Parameters(data, int.from_bytes(cdb[7:9], "big"))


def _read_track_information(unit: Unit, cdb: bytes) -> Task:
    medium = unit.ready_medium()
    kind, number = cdb[1] & 3, int.from_bytes(cdb[2:6], "big")
    disc = unit.disc
    size = medium.blocks if disc is None or disc.is_complete else disc.room
    if kind == 3 or (kind == 0 and number >= size) or (kind in (1, 2) and number not in (1, _INVISIBLE)):
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    blank, has_next = 0x40 if not medium.blocks else 0, size > medium.blocks
    head = struct.pack(">HBBxBBB", 34, 1, 1, 0x04, 0x01 | blank, has_next)
    places = struct.pack(
        ">IIIIII", 0, medium.blocks if has_next else 0, size - medium.blocks, 0, size, max(medium.blocks - 1, 0)
    )
    return Parameters(head + places + bytes(4), int.from_bytes(cdb[7:9], "big"))


def _mechanism_status(unit: Unit, cdb: bytes) -> Task:
    door = 0x10 if unit.medium is None else 0x00
    return Parameters(bytes((0, door, 0, 0, 0, 0, 0, 0)), int.from_bytes(cdb[8:10], "big"))


def _get_event_status(unit: Unit, cdb: bytes) -> Task:
    """Report the medium's state, without an event (MMC-6 GET EVENT STATUS NOTIFICATION)."""
    if not cdb[1] & 1:
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    state = 0x01 if unit.medium is None else 0x02
    data = bytes((0, 6, 4, 0x10, 0, state, 0, 0)) if cdb[4] & 0x10 else bytes((0, 2, 0x80, 0x10))
    return Parameters(data, int.from_bytes(cdb[7:9], "big"))


def _read_cd(unit: Unit, cdb: bytes) -> Task:
    """Read the user data of the sectors; other parts of a sector are not stored."""
    medium = unit.ready_medium()
    lba, blocks = int.from_bytes(cdb[2:6], "big"), int.from_bytes(cdb[6:9], "big")
    if cdb[1] >> 2 & 7 not in (0, 2) or cdb[9] & 0xEE or cdb[10] & 7:
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    check_range(medium, lba, blocks)
    return Read(medium, lba, blocks, unit.keep_sense) if blocks and cdb[9] & 0x10 else Task()


def _set_speed(unit: Unit, cdb: bytes) -> Task:
    return Task()  # the speed is that of the machine


COMMANDS: Mapping[int, Command] = {
    0x43: _read_toc,
    0x46: _get_configuration,
    0x4A: _get_event_status,
    0x51: _read_disc_information,
    0x52: _read_track_information,
    0xBB: _set_speed,
    0xBD: _mechanism_status,
    0xBE: _read_cd,
}
