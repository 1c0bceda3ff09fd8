"""The ATA commands of 48 bits of a virtual disk: READ LOG EXT, DATA SET MANAGEMENT, SANITIZE DEVICE (ACS-3)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from scsiusb.virtual.target.ata_logs import general_log
from scsiusb.virtual.target.collecting import act_on
from scsiusb.virtual.target.sense import INVALID_FIELD_IN_CDB, CommandFailed, Sense
from scsiusb.virtual.target.task import Parameters, Task

if TYPE_CHECKING:
    from scsiusb.virtual.target.ata import AtaDisk
    from scsiusb.virtual.target.unit import Unit

TRIM: Final = 1
STATUS, CRYPTO, BLOCK, OVERWRITE, FREEZE, ANTIFREEZE = 0x00, 0x11, 0x12, 0x14, 0x20, 0x40  # FEATURE of SANITIZE
KEYS: Final = {CRYPTO: 0x43727970, BLOCK: 0x426B4572, FREEZE: 0x46724C6B, ANTIFREEZE: 0x416E7469}
OVERWRITE_KEY: Final = 0x4F57  # in the upper 16 bits of the LBA; the lower ones are the pattern
COMPLETED, IN_PROGRESS, FROZEN, ANTIFROZEN = 0x8000, 0x4000, 0x2000, 0x1000  # COUNT that SANITIZE returns
WORD_59: Final = 0xF000  # SANITIZE, with its three methods
MOST_TRIM_BLOCKS: Final = 8  # word 105
_NON_DATA, _PIO_IN, _DMA, _PIO_OUT = 3, 4, 6, 5
_READY, _ERROR, _ABORT = 0x50, 0x51, 0x04
_HALF: Final = 0x8000  # of the progress, when the operation is first asked for


class Sanitizer:
    """The state of the feature set."""

    def __init__(self) -> None:
        self.is_completed = self.is_frozen = self.is_antifrozen = False
        self.progress: int | None = None
        """Of an operation that runs, in 65536ths."""

    def count(self) -> int:
        """Return the COUNT field of SANITIZE STATUS EXT."""
        states = {
            COMPLETED: self.is_completed,
            IN_PROGRESS: self.progress is not None,
            FROZEN: self.is_frozen,
            ANTIFROZEN: self.is_antifrozen,
        }
        return sum(bit for bit, is_set in states.items() if is_set)

    def look(self) -> tuple[int, int]:
        """Return COUNT and LBA; each look finds an operation further, and the second one at its end."""
        answer = self.count(), 0xFFFF if self.progress is None else self.progress
        if self.progress == _HALF:
            self.progress, self.is_completed = None, True
        elif self.progress is not None:
            self.progress = _HALF
        return answer

    def take(self, feature: int, lba: int) -> int | None:
        """Begin what FEATURE says; return the byte that a medium is filled with, -1 for none. None: it is aborted."""
        if self.progress is not None or (feature in KEYS and KEYS[feature] != lba):
            return None
        if feature == FREEZE:
            self.is_frozen |= not self.is_antifrozen
            return -1 if self.is_frozen else None
        if self.is_frozen or (feature == OVERWRITE and lba >> 32 != OVERWRITE_KEY):
            return None
        if feature == ANTIFREEZE:
            self.is_antifrozen = True
            return -1
        if feature not in (CRYPTO, BLOCK, OVERWRITE):
            return None
        self.progress, self.is_completed = 0, False
        return lba & 0xFF if feature == OVERWRITE else 0


def run(unit: Unit, cdb: bytes) -> Task:
    """Run a command of 48 bits."""
    disk = unit.ata
    assert disk is not None
    protocol, check = cdb[1] >> 1 & 0xF, bool(cdb[2] & 0x20)
    features, count = struct.unpack_from(">HH", cdb, 3)
    lba = int.from_bytes(bytes(cdb[at] for at in (8, 10, 12, 7, 9, 11)), "little")
    match cdb[14]:
        case 0x2F if protocol == _PIO_IN:  # READ LOG EXT
            return _read_log(disk, count, lba)
        case 0x06 if protocol in (_DMA, _PIO_OUT):  # DATA SET MANAGEMENT
            return _trim(unit, features, count)
        case 0xB4 if protocol == _NON_DATA:  # SANITIZE DEVICE
            return _sanitize(unit, disk, check, features, lba)
        case 0x2F | 0x06 | 0xB4:
            raise CommandFailed(INVALID_FIELD_IN_CDB)
    raise CommandFailed(aborted(count, lba))


def _read_log(disk: AtaDisk, count: int, lba: int) -> Task:
    page = lba >> 8 & 0xFF | lba >> 24 & 0xFF00
    data = general_log(disk, lba & 0xFF)[512 * page : 512 * (page + count)]
    if not count or len(data) != 512 * count:
        raise CommandFailed(aborted(count, lba))
    return Parameters(data, len(data))


def _trim(unit: Unit, features: int, count: int) -> Task:
    if unit.ata is None or unit.ata.rotation != 1 or features != TRIM or not 0 < count <= MOST_TRIM_BLOCKS:
        raise CommandFailed(aborted(count, 0))

    def act(data: bytes) -> None:
        medium = unit.medium
        assert medium is not None
        ranges = [divmod(entry, 1 << 48) for (entry,) in struct.iter_unpack("<Q", data)]
        if any(lba + blocks > medium.blocks for blocks, lba in ranges):
            raise CommandFailed(aborted(count, 0))
        for blocks, lba in ranges:
            if blocks:
                medium.write(lba * medium.block_size, memoryview(bytes(blocks * medium.block_size)))

    return act_on(unit, 512 * count, act)


def _sanitize(unit: Unit, disk: AtaDisk, check: bool, feature: int, lba: int) -> Task:
    state = disk.sanitizer
    if feature != STATUS:
        fill = state.take(feature, lba)
        if fill is None:
            raise CommandFailed(aborted(state.count(), lba & 0xFF))
        if fill >= 0 and unit.medium is not None:
            unit.medium.fill(bytes((fill,)))
    count, progress = state.look()
    if check:
        raise CommandFailed(returned(0x1, 0, _READY, count, progress))
    return Task()


def aborted(count: int, lba: int) -> Sense:
    """Return the sense data of a command that the disk aborted."""
    return returned(0xB, _ABORT, _ERROR, count, lba)


def returned(key: int, error: int, status: int, count: int, lba: int) -> Sense:
    """Return sense data with the registers of 48 bits (SAT-3 12.2.5)."""
    low, mid, high, *upper = lba.to_bytes(6, "little")
    parts = (upper[0], low, upper[1], mid, upper[2], high)
    descriptor = bytes((0x09, 0x0C, 1, error, count >> 8, count & 0xFF, *parts, 0x40, status))
    return Sense(key, 0x00, 0x1D, registers=descriptor)
