"""A rewritable CD in a drive that writes it: blank, in one track from its beginning on, or complete (MMC-6)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from scsiusb.virtual.target.block import extent
from scsiusb.virtual.target.flawed import Wrapper
from scsiusb.virtual.target.modes import OPTICAL_PAGES, ModePages, Pages
from scsiusb.virtual.target.sense import (
    ILLEGAL_MODE,
    INVALID_ADDRESS,
    INVALID_FIELD_IN_CDB,
    LBA_OUT_OF_RANGE,
    CommandFailed,
    write_error,
)
from scsiusb.virtual.target.task import Parameters, Task, Write

if TYPE_CHECKING:
    from scsiusb.virtual.target.media import Medium
    from scsiusb.virtual.target.unit import Unit

_ALL, _MINIMAL = 0, 1  # BLANKING TYPE
_TRACK = 1  # CLOSE FUNCTION; 2 and more close the session, and so the disc
_PAGES: Final[Pages] = {
    **OPTICAL_PAGES,
    0x05: (bytes.fromhex("0532010408") + bytes(9) + b"\0\x96").ljust(52, b"\0"),  # write parameters: track at once
    0x2A: bytes.fromhex("2a14 0703 7103 2900 1b90 0100 0800 1b90 0000 06e4 06e4"),  # what it can: reads, writes CD-RW
}


class Disc(Wrapper):
    """A disc whose `blocks` are those that were written; all of them at first, and it is then complete."""

    def __init__(self, inner: Medium) -> None:
        super().__init__(inner)
        self.is_complete = True

    @property
    def room(self) -> int:
        """Blocks that can be written."""
        return self.inner.blocks

    def blank(self) -> None:
        """Erase it."""
        self.inner.fill(b"\0")
        self.blocks, self.is_complete = 0, False

    def _write(self, offset: int, view: memoryview) -> None:
        super()._write(offset, view)
        self.blocks = max(self.blocks, (offset + len(view)) // self.block_size)


def furnish(unit: Unit, disc: Disc) -> None:
    """Make the unit a drive that writes, with the disc in it."""
    unit.disc = disc
    unit.modes = ModePages(_PAGES)
    for opcode, command in _COMMANDS.items():
        unit.add(opcode, command)


def _disc(unit: Unit) -> Disc:
    unit.ready_medium()
    if unit.disc is None:
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    return unit.disc


def _read_capacity(unit: Unit, cdb: bytes) -> Task:
    disc = _disc(unit)
    return Parameters(struct.pack(">II", max(disc.blocks - 1, 0), disc.block_size), 8)


def _write_next(unit: Unit, cdb: bytes) -> Task:
    disc = _disc(unit)
    lba, blocks = extent(cdb)
    if disc.is_complete:
        raise CommandFailed(ILLEGAL_MODE)
    if lba + blocks > disc.room:
        raise CommandFailed(LBA_OUT_OF_RANGE)
    if lba != disc.blocks:
        raise CommandFailed(INVALID_ADDRESS)
    return Write(disc, lba, blocks, unit.keep_sense) if blocks else Task()


def _synchronize(unit: Unit, cdb: bytes) -> Task:
    try:
        _disc(unit).flush()
    except OSError as error:
        raise CommandFailed(write_error(0)) from error
    return Task()


def _blank(unit: Unit, cdb: bytes) -> Task:
    disc = _disc(unit)
    if cdb[1] & 7 not in (_ALL, _MINIMAL):
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    disc.blank()
    return Task()


def _close(unit: Unit, cdb: bytes) -> Task:
    disc = _disc(unit)
    disc.is_complete |= cdb[2] & 7 != _TRACK and disc.blocks > 0
    return Task()


def _calibrate(unit: Unit, cdb: bytes) -> Task:
    _disc(unit)
    return Task()


_COMMANDS: Final[Mapping[int, Callable[[Unit, bytes], Task]]] = {
    0x25: _read_capacity,
    0x2A: _write_next,
    0x35: _synchronize,
    0x54: _calibrate,
    0x5B: _close,
    0xA1: _blank,
}
