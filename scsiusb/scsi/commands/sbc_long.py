"""READ LONG and WRITE LONG (SBC-3): blocks with their error correction bytes."""

from __future__ import annotations

from construct import BitStruct, Flag, Padding

from scsiusb.base.dataclass import dataclass
from scsiusb.scsi.command import U16, U32, U64, Command, opcode, service
from scsiusb.scsi.commands.sbc_transfer import DISKS
from scsiusb.transport.base import Direction


@dataclass(frozen=True)
class ReadLong10(Command[bytes]):
    """READ LONG(10): one block with its error correction bytes (SBC-3 5.19)."""

    NAME = "READ LONG(10)"
    repeatable = True
    accesses_medium = True
    device_types = DISKS
    CDB = BitStruct(
        opcode(0x3E),
        Padding(5),
        "physical" / Flag,
        "correct" / Flag,
        Padding(1),
        "lba" / U32,
        Padding(8),
        "length" / U16,
        Padding(8),
    )
    direction = Direction.IN
    lba: int
    length: int = 520
    """Bytes; a wrong number is refused, and INFORMATION of the sense has the difference."""
    physical: bool = False
    """The whole physical block (PBLOCK)."""
    correct: bool = False
    """Correct errors first (CORRCT)."""

    def reply(self, data: bytes) -> bytes:
        """Return the bytes received."""
        return data


@dataclass(frozen=True)
class ReadLong16(Command[bytes]):
    """READ LONG(16): one block with its error correction bytes (SBC-3 5.20)."""

    NAME = "READ LONG(16)"
    repeatable = True
    accesses_medium = True
    CDB = BitStruct(
        opcode(0x9E),
        Padding(3),
        service(0x11),
        "lba" / U64,
        Padding(16),
        "length" / U16,
        Padding(6),
        "physical" / Flag,
        "correct" / Flag,
        Padding(8),
    )
    direction = Direction.IN
    lba: int
    length: int = 520
    """Bytes; a wrong number is refused, and INFORMATION of the sense has the difference."""
    physical: bool = False
    """The whole physical block (PBLOCK)."""
    correct: bool = False
    """Correct errors first (CORRCT)."""

    def reply(self, data: bytes) -> bytes:
        """Return the bytes received."""
        return data


@dataclass(frozen=True)
class WriteLongCommand(Command[None], abstract=True):
    """Base of WRITE LONG: write a block with its error correction bytes, or mark it as unreadable."""

    accesses_medium = True
    lba: int
    payload: bytes = b""
    """The block with its error correction bytes; empty with `uncorrectable`."""
    disable_correction: bool = False
    """The device does not try to correct the block later (COR_DIS)."""
    uncorrectable: bool = False
    """Mark the block as unreadable, without data (WR_UNCOR)."""
    physical: bool = False
    """The whole physical block (PBLOCK)."""

    @property
    def direction(self) -> Direction:  # type: ignore[override]
        """Of the data phase."""
        return Direction.OUT if self.payload else Direction.NONE

    @property
    def length(self) -> int:
        """Bytes of data-out."""
        return len(self.payload)


HOW = ("disable_correction" / Flag, "uncorrectable" / Flag, "physical" / Flag)


@dataclass(frozen=True)
class WriteLong10(WriteLongCommand):
    """WRITE LONG(10): one block with its error correction bytes (SBC-3 5.41)."""

    NAME = "WRITE LONG(10)"
    device_types = DISKS
    CDB = BitStruct(opcode(0x3F), *HOW, Padding(5), "lba" / U32, Padding(8), "length" / U16, Padding(8))


@dataclass(frozen=True)
class WriteLong16(WriteLongCommand):
    """WRITE LONG(16): one block with its error correction bytes (SBC-3 5.42)."""

    NAME = "WRITE LONG(16)"
    CDB = BitStruct(opcode(0x9F), *HOW, service(0x11), "lba" / U64, Padding(16), "length" / U16, Padding(16))
