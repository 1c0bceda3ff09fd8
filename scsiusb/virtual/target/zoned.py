"""A shingled disk that takes writes anywhere, but knows zones to be written in order (host-aware, ZBC)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from scsiusb.virtual.target.flawed import Wrapper
from scsiusb.virtual.target.media import Medium
from scsiusb.virtual.target.sense import INVALID_FIELD_IN_CDB, LBA_OUT_OF_RANGE, CommandFailed
from scsiusb.virtual.target.task import Parameters, Task

if TYPE_CHECKING:
    from scsiusb.virtual.target.unit import Unit

REPORT_ZONES, CHANGE_ZONE = 0x95, 0x94  # operation codes, each with service actions
ZONES: Final = 32
CONVENTIONAL, PREFERRED = 1, 3  # ZONE TYPE; sequential write preferred
NO_POINTER, EMPTY, IMPLICITLY_OPEN, EXPLICITLY_OPEN, CLOSED, FULL = 0, 1, 2, 3, 4, 14  # ZONE CONDITION
_OF_OPTION: Final = {1: EMPTY, 2: IMPLICITLY_OPEN, 3: EXPLICITLY_OPEN, 4: CLOSED, 5: FULL, 0x3F: NO_POINTER}
_RESET_RECOMMENDED, _OUT_OF_ORDER = 0x10, 0x11
_ROW: Final = 64  # bytes of a zone descriptor


class Zone:
    """So many blocks from `lba` on; the first zones of a disk are conventional: they have no write pointer."""

    def __init__(self, lba: int, blocks: int, *, is_conventional: bool) -> None:
        self.lba, self.blocks = lba, blocks
        self.is_conventional = is_conventional
        self.pointer = lba
        self.state = EMPTY
        """The condition while it is neither empty nor full."""
        self.is_out_of_order = False
        """Whether it was written elsewhere than at its pointer (NON_SEQ)."""

    @property
    def end(self) -> int:
        """The first block after it."""
        return self.lba + self.blocks

    @property
    def condition(self) -> int:
        """ZONE CONDITION."""
        if self.is_conventional:
            return NO_POINTER
        if self.pointer == self.end:
            return FULL
        return EMPTY if self.pointer == self.lba and self.state == IMPLICITLY_OPEN else self.state

    def note_write(self, lba: int, end: int) -> None:
        """Move the pointer after blocks that were written."""
        self.is_out_of_order |= lba != self.pointer and not self.is_conventional
        self.pointer = max(self.pointer, end)
        if self.state != EXPLICITLY_OPEN:
            self.state = IMPLICITLY_OPEN

    def row(self) -> bytes:
        """Return the zone descriptor (ZBC REPORT ZONES)."""
        kind = CONVENTIONAL if self.is_conventional else PREFERRED
        pointer = (1 << 64) - 1 if self.is_conventional or self.condition == FULL else self.pointer
        flags = self.condition << 4 | self.is_out_of_order << 1
        return struct.pack(">BB6xQQQ", kind, flags, self.blocks, self.lba, pointer).ljust(_ROW, b"\0")


class Zoned(Wrapper):
    """A medium of `ZONES` zones at most, a quarter of them conventional, which follows what is written."""

    def __init__(self, inner: Medium) -> None:
        super().__init__(inner)
        size = max(self.blocks // ZONES, 1)
        starts = range(0, self.blocks, size)
        self.zones = [
            Zone(start, min(size, self.blocks - start), is_conventional=number < len(starts) // 4)
            for number, start in enumerate(starts)
        ]

    def _write(self, offset: int, view: memoryview) -> None:
        super()._write(offset, view)
        lba, end = offset // self.block_size, (offset + len(view)) // self.block_size
        for zone in self.zones:
            if zone.lba < end and lba < zone.end:
                zone.note_write(max(lba, zone.lba), min(end, zone.end))

    def at(self, lba: int) -> Zone:
        """Return the zone that begins at a block. Raises `CommandFailed`."""
        if lba >= self.blocks:
            raise CommandFailed(LBA_OUT_OF_RANGE)
        found = next((zone for zone in self.zones if zone.lba == lba), None)
        if found is None or found.is_conventional:
            raise CommandFailed(INVALID_FIELD_IN_CDB)
        return found

    def empty(self, zone: Zone) -> None:
        """Set the pointer to the zone's beginning; its blocks read as zeros."""
        zeros = memoryview(bytes(zone.blocks * self.block_size))
        super()._write(zone.lba * self.block_size, zeros)
        zone.pointer, zone.state, zone.is_out_of_order = zone.lba, EMPTY, False


def furnish(unit: Unit, medium: Zoned) -> None:
    """Make the unit one of zones, which are those of its medium."""
    unit.zones = medium
    for opcode, services in ((REPORT_ZONES, {0: _report}), (CHANGE_ZONE, dict(_CHANGES))):
        unit.services[opcode] = services
        unit.add(opcode, lambda unit, cdb: unit.serve(cdb))


def characteristics() -> bytes:
    """Return page B6h after its header: how many zones should be open, and be written out of order, at most."""
    return struct.pack(">4xIII", 4, 4, 0).ljust(60, b"\0")


def _report(unit: Unit, cdb: bytes) -> Task:
    lba, length = int.from_bytes(cdb[2:10], "big"), int.from_bytes(cdb[10:14], "big")
    partial, options = cdb[14] & 0x80, cdb[14] & 0x3F
    medium = _zoned(unit)
    if lba >= medium.blocks:
        raise CommandFailed(LBA_OUT_OF_RANGE)
    rows = [zone.row() for zone in medium.zones if zone.end > lba and _is_asked(zone, options)]
    count = min(len(rows), max(length // _ROW - 1, 0)) if partial else len(rows)
    head = struct.pack(">I4xQ", count * _ROW, medium.blocks - 1).ljust(_ROW, b"\0")
    return Parameters(head + b"".join(rows), length)


def _is_asked(zone: Zone, options: int) -> bool:
    if options == _OUT_OF_ORDER:
        return zone.is_out_of_order
    if options in (0, _RESET_RECOMMENDED):
        return not options
    if options not in _OF_OPTION:
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    return zone.condition == _OF_OPTION[options]


def _zoned(unit: Unit) -> Zoned:
    unit.ready_medium()
    if unit.zones is None:
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    return unit.zones


def _close(medium: Zoned, zone: Zone) -> None:
    if zone.state in (IMPLICITLY_OPEN, EXPLICITLY_OPEN):
        zone.state = EMPTY if zone.pointer == zone.lba else CLOSED


def _finish(medium: Zoned, zone: Zone) -> None:
    zone.pointer = zone.end


def _open(medium: Zoned, zone: Zone) -> None:
    if zone.condition != FULL:
        zone.state = EXPLICITLY_OPEN


def _changing(change: Callable[[Zoned, Zone], None]) -> Callable[[Unit, bytes], Task]:
    """Return a command that changes a zone, or with ALL each of those that have a pointer."""

    def run(unit: Unit, cdb: bytes) -> Task:
        medium = _zoned(unit)
        has_pointer = [zone for zone in medium.zones if not zone.is_conventional]
        for zone in has_pointer if cdb[14] & 1 else [medium.at(int.from_bytes(cdb[2:10], "big"))]:
            change(medium, zone)
        return Task()

    return run


_CHANGES: Final = {1: _changing(_close), 2: _changing(_finish), 3: _changing(_open), 4: _changing(Zoned.empty)}
