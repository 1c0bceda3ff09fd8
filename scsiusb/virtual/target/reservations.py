"""Reservations: persistent ones (SPC-4 5.13), of the one host that a USB device has, and RESERVE and RELEASE."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from scsiusb.virtual.target.collecting import Collect
from scsiusb.virtual.target.sense import INVALID_FIELD_IN_CDB, PARAMETER_LIST_LENGTH_ERROR, CommandFailed, Sense
from scsiusb.virtual.target.task import Parameters, Task

if TYPE_CHECKING:
    from scsiusb.virtual.target.unit import Unit

INVALID_RELEASE = Sense(0x5, 0x26, 0x04)
CONFLICT = Sense(0x5, 0x26, 0x00)  # in place of RESERVATION CONFLICT, for which a CSW has no status
ALL_REGISTRANTS = (7, 8)
TYPES = (1, 3, 5, 6, *ALL_REGISTRANTS)
_LIST = 24  # bytes


class Reservations:
    """The key of the host, and its reservation."""

    def __init__(self) -> None:
        self.generation = 0
        self.key = 0  # 0: the host is not registered
        self.kind = 0  # 0: there is no reservation

    def register(self, new: int) -> None:
        """Register the host with a key; with 0, end the registration and the reservation."""
        self.key = new
        self.generation = self.generation + 1 & 0xFFFFFFFF
        if not new:
            self.kind = 0


def _in(unit: Unit, cdb: bytes, body: bytes) -> Task:
    head = struct.pack(">II", unit.reservations.generation, len(body))
    return Parameters(head + body, int.from_bytes(cdb[7:9], "big"))


def _read_keys(unit: Unit, cdb: bytes) -> Task:
    key = unit.reservations.key
    return _in(unit, cdb, key.to_bytes(8, "big") if key else b"")


def _read_reservation(unit: Unit, cdb: bytes) -> Task:
    held = unit.reservations
    key = 0 if held.kind in ALL_REGISTRANTS else held.key  # SPC-4 6.15.3.2
    return _in(unit, cdb, struct.pack(">Q5xB2x", key, held.kind) if held.kind else b"")


def _capabilities(unit: Unit, cdb: bytes) -> Task:
    data = struct.pack(">HBBH2x", 8, 0x00, 0x80, 0xEA01)  # TMV, and all types
    return Parameters(data, int.from_bytes(cdb[7:9], "big"))


def _full_status(unit: Unit, cdb: bytes) -> Task:
    held = unit.reservations
    body = struct.pack(">Q4xBB4xHI", held.key, bool(held.kind), held.kind, 1, 0) if held.key else b""
    return _in(unit, cdb, body)


def _out(unit: Unit, cdb: bytes) -> Task:
    if int.from_bytes(cdb[5:9], "big") != _LIST:
        raise CommandFailed(PARAMETER_LIST_LENGTH_ERROR)
    action, scope, kind = cdb[1] & 0x1F, cdb[2] >> 4, cdb[2] & 0xF
    if scope or (action in (1, 2, 4, 5) and kind not in TYPES):
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    return Collect(unit, _LIST, lambda data: _change(unit.reservations, action, kind, data.ljust(_LIST, b"\0")))


def _change(held: Reservations, action: int, kind: int, data: bytes) -> None:
    key, new = struct.unpack_from(">QQ", data)
    if action != 6 and key != held.key:  # of all but REGISTER AND IGNORE EXISTING KEY
        raise CommandFailed(CONFLICT)
    if action in (0, 6):
        held.register(new)
    elif not held.key:
        raise CommandFailed(CONFLICT)
    elif action == 1:
        if held.kind not in (0, kind):
            raise CommandFailed(CONFLICT)
        held.kind = kind
    elif action == 2:
        if held.kind not in (0, kind):
            raise CommandFailed(INVALID_RELEASE)
        held.kind = 0
    elif action == 3:
        held.register(0)
    else:  # PREEMPT of the only host is that of itself
        held.kind = kind


def reserve(unit: Unit, cdb: bytes) -> Task:
    """Do nothing: there is no other host (SPC-2 7.21)."""
    if unit.reservations.kind:
        raise CommandFailed(CONFLICT)
    return Task()


IN: Mapping[int, Callable[[Unit, bytes], Task]] = {
    0: _read_keys,
    1: _read_reservation,
    2: _capabilities,
    3: _full_status,
}
OUT: Mapping[int, Callable[[Unit, bytes], Task]] = dict.fromkeys(range(7), _out)
