"""ATA commands of 48 bits, in ATA PASS-THROUGH(16) alone: the other forms have no room for them (SAT-3 12.2.3)."""

from __future__ import annotations

from typing import Final, NamedTuple

from construct import BitsInteger, BitStruct, Const, Flag, Padding

from scsiusb.ata.passthrough import (
    ERROR_BIT,
    NON_DATA,
    PIO_IN,
    REGISTERS_RETURNED,
    SECTOR,
    SECTOR_COUNT_HAS_LENGTH,
    WholeData,
    execute_shortly,
    send_for_registers,
    status_descriptor_in,
)
from scsiusb.base.dataclass import dataclass
from scsiusb.errors import DeviceUnsupported
from scsiusb.scsi.command import U2, U4, U8, U16, Command, opcode
from scsiusb.scsi.sense import Sense, error_for
from scsiusb.scsi.unit import LogicalUnit
from scsiusb.transport.base import Direction

DMA: Final = 6  # PROTOCOL (SAT-3 table 148)
LBA_MODE: Final = 0x40  # of the DEVICE register
READ_LOG_EXT: Final = 0x2F
GENERAL_LOGS_WORD, GENERAL_LOGS_BIT = 84, 0x20  # of IDENTIFY DEVICE: READ LOG EXT is supported

FIELDS: Final = (
    Padding(3),
    "protocol" / U4,
    "extend" / Const(1, BitsInteger(1)),
    Padding(2),
    "check" / Flag,
    Padding(1),
    "to_host" / Flag,  # T_DIR
    "has_data" / Flag,  # BYT_BLOK: the length is in blocks
    "length_in" / U2,
    "features" / U16,
    "count" / U16,
    "lba_bytes" / BitsInteger(48),
    "device" / U8,
    "command" / U8,
    Padding(8),
)
"""All but the operation code."""


class ExtendedRegisters(NamedTuple):
    """The registers after a command of 48 bits."""

    error: int
    status: int
    sectors: int
    """COUNT."""
    lba: int


def interleaved(lba: int) -> int:
    """Return the LBA field: each byte of the upper half before that of the lower one, the lowest first."""
    data = lba.to_bytes(6, "little")
    return int.from_bytes(bytes(each for pair in zip(data[3:], data[:3], strict=True) for each in pair), "big")


@dataclass(frozen=True)
class AtaExtendedRead(WholeData):
    """ATA PASS-THROUGH(16) of a command of 48 bits with data-in (SAT-3 12.2.3)."""

    NAME = "ATA PASS-THROUGH(16)"
    CDB = BitStruct(opcode(0x85), *FIELDS)
    direction = Direction.IN
    protocol = PIO_IN
    check, to_host, has_data, length_in, device = False, True, True, SECTOR_COUNT_HAS_LENGTH, LBA_MODE
    command: int
    features: int = 0
    count: int = 1
    """Sectors."""
    lba: int = 0

    @property
    def lba_bytes(self) -> int:
        """See `interleaved`."""
        return interleaved(self.lba)

    @property
    def length(self) -> int:
        """Bytes of data-in."""
        return self.count * SECTOR

    def __str__(self) -> str:
        return f"ATA command {self.command:02X}h"


@dataclass(frozen=True)
class AtaExtendedSend(Command[None]):
    """ATA PASS-THROUGH(16) of a command of 48 bits with data-out, by DMA (SAT-3 12.2.3)."""

    NAME = "ATA PASS-THROUGH(16)"
    CDB = BitStruct(opcode(0x85), *FIELDS)
    direction = Direction.OUT
    protocol = DMA
    check, to_host, has_data, length_in, device = False, False, True, SECTOR_COUNT_HAS_LENGTH, LBA_MODE
    lba_bytes = 0
    command: int
    features: int
    data: bytes
    """Whole sectors."""

    @property
    def count(self) -> int:
        """Sectors."""
        return len(self.data) // SECTOR

    @property
    def length(self) -> int:
        """Bytes of data-out."""
        return len(self.data)

    @property
    def payload(self) -> bytes:
        """The sectors."""
        return self.data

    def __str__(self) -> str:
        return f"ATA command {self.command:02X}h"


@dataclass(frozen=True)
class AtaExtendedPlain(Command[None]):
    """ATA PASS-THROUGH(16) of a command of 48 bits without data, which returns its registers (SAT-3 12.2.3)."""

    NAME = "ATA PASS-THROUGH(16)"
    CDB = BitStruct(opcode(0x85), *FIELDS)
    protocol = NON_DATA
    check, to_host, has_data, length_in, device = True, False, False, 0, LBA_MODE
    command: int
    features: int = 0
    count: int = 0
    lba: int = 0

    @property
    def lba_bytes(self) -> int:
        """See `interleaved`."""
        return interleaved(self.lba)

    def __str__(self) -> str:
        return f"ATA command {self.command:02X}h"


def extended_registers_of(sense: Sense) -> ExtendedRegisters | None:
    """Return the registers of 48 bits in the sense data; None in fixed format, which has the low bytes only."""
    found = status_descriptor_in(sense.raw)
    if found is None or (sense.asc, sense.ascq) != REGISTERS_RETURNED:
        return None
    low, high = found[7:12:2], found[6:11:2]
    return ExtendedRegisters(found[3], found[13], found[4] << 8 | found[5], int.from_bytes(low + high, "little"))


def read_log(unit: LogicalUnit, address: int, page: int = 0, count: int = 1) -> bytes:
    """Return `count` sectors of a general purpose log (READ LOG EXT), from a page on.

    Raises IllegalRequest where the bridge refuses commands of 48 bits, AbortedCommand for a log that the disk does not
    have, MalformedReply for one that is cut, and as `LogicalUnit.execute`. The unit must be a disk.
    """
    lba = address | (page & 0xFF) << 8 | page >> 8 << 32
    return execute_shortly(unit, AtaExtendedRead(READ_LOG_EXT, count=count, lba=lba))


def send_plain(unit: LogicalUnit, command: AtaExtendedPlain, *, is_query: bool = False) -> ExtendedRegisters:
    """Send a command without data once; return its registers. `is_query`: it changes nothing, and may be sent again.

    Raises DeviceUnsupported where the bridge does not return all of the registers, a CheckCondition if the disk aborted
    the command, and as `LogicalUnit.execute`.
    """
    sense = send_for_registers(unit, command.cdb(), is_query=is_query)
    found = None if sense is None else extended_registers_of(sense)
    if found is None or found.status & ERROR_BIT:
        if sense is not None and (found is not None or (sense.asc, sense.ascq) != REGISTERS_RETURNED):
            raise error_for(sense, str(command))
        raise DeviceUnsupported("the bridge does not return the upper registers, in which the disk answers")
    return found
