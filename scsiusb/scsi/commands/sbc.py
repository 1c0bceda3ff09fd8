"""Commands of block devices (SBC-3), as declarations."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Final

from construct import BitsInteger, BitStruct, Const, Construct, Flag, Int32ub, Padding, Struct

from scsiusb.base.dataclass import dataclass
from scsiusb.scsi.command import SECOND, U4, U5, U16, U32, U64, Command, opcode
from scsiusb.scsi.reply import Reply
from scsiusb.transport.base import Direction

CAPACITY_10_LENGTH: Final = 8  # bytes
CAPACITY_16_LENGTH: Final = 32  # bytes
LEAST_CAPACITY_16: Final = 12  # bytes up to the block size
TOO_LARGE_FOR_10: Final = 0xFFFFFFFF  # LBA that READ CAPACITY(10) reports when the last LBA needs READ CAPACITY(16)
SERVICE_READ_CAPACITY_16: Final = 0x10
SLOW: Final = 120 * SECOND  # timeout where the device may spin up or write its cache to the medium


@dataclass(frozen=True)
class Capacity(Reply):
    """READ CAPACITY(10) parameter data (SBC-3 5.15.2)."""

    LAYOUT: ClassVar[Construct] = Struct("last_lba" / Int32ub, "block_size" / Int32ub)
    last_lba: int
    """LBA of the last block; the number of blocks is one more."""
    block_size: int
    """Bytes per block."""

    @property
    def blocks(self) -> int:
        """Number of blocks on the medium."""
        return self.last_lba + 1


@dataclass(frozen=True)
class LongCapacity(Capacity):
    """READ CAPACITY(16) parameter data (SBC-3 5.16.2, ZBC); fields that the reply ends before are 0."""

    LAYOUT: ClassVar[Construct] = BitStruct(
        "last_lba" / U64,
        "block_size" / U32,
        Padding(2),
        "rc_basis" / BitsInteger(2),
        "p_type" / BitsInteger(3),
        "prot_en" / Flag,
        "p_i_exponent" / BitsInteger(4),
        "logical_blocks_per_physical_block_exponent" / BitsInteger(4),
        "lbpme" / Flag,
        "lbprz" / Flag,
        "lowest_aligned_lba" / BitsInteger(14),
    )
    rc_basis: int = 0
    """What the last LBA of a zoned device ends: 0 its first conventional zones, 1 the whole unit."""
    p_type: int = 0
    """Protection type less 1, if `prot_en`."""
    prot_en: bool = False
    """The medium is formatted with protection information."""
    p_i_exponent: int = 0
    """Protection information intervals of a logical block, as a power of two."""
    logical_blocks_per_physical_block_exponent: int = 0
    """Logical blocks of a physical block, as a power of two; 0: one or more."""
    lbpme: bool = False
    """The unit manages the provisioning of its blocks: it is thin or resource provisioned."""
    lbprz: bool = False
    """Blocks that are not mapped read as zeros."""
    lowest_aligned_lba: int = 0
    """First block at the start of a physical block."""

    @classmethod
    def parse(cls, data: bytes) -> LongCapacity:
        """Parse a reply of at least the last LBA and the block size. Raises MalformedReply."""
        return super().parse(data.ljust(cls.LAYOUT.sizeof(), b"\0") if len(data) >= LEAST_CAPACITY_16 else data)


@dataclass(frozen=True)
class ReadCapacity10(Command[Capacity]):
    """READ CAPACITY(10): report the last LBA, up to 32 bits, and the block size (SBC-3 5.15)."""

    NAME = "READ CAPACITY(10)"
    repeatable = True
    CDB = BitStruct(opcode(0x25), Padding(72))
    direction = Direction.IN
    exact = True
    length = CAPACITY_10_LENGTH

    def reply(self, data: bytes) -> Capacity:
        """Return the capacity. Raises MalformedReply."""
        return Capacity.parse(data)


@dataclass(frozen=True)
class ReadCapacity16(Command[LongCapacity]):
    """READ CAPACITY(16): report the last LBA, up to 64 bits, and the block size (SBC-3 5.16)."""

    NAME = "READ CAPACITY(16)"
    repeatable = True
    CDB = BitStruct(
        opcode(0x9E),
        Padding(3),
        "service" / Const(SERVICE_READ_CAPACITY_16, U5),
        Padding(64),
        "length" / U32,
        Padding(16),
    )
    direction = Direction.IN
    length: int = CAPACITY_16_LENGTH
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> LongCapacity:
        """Return the capacity. Raises MalformedReply."""
        return LongCapacity.parse(data)


RW_10 = (  # the same in READ(10) and WRITE(10); SBC-3 tables 46, 91 and 101
    Padding(3),  # RDPROTECT, WRPROTECT
    "dpo" / Flag,
    "fua" / Flag,
    Padding(3),
    "lba" / U32,
    Padding(8),  # GROUP NUMBER
    "blocks" / U16,  # TRANSFER LENGTH
    Padding(8),
)
RW_16 = (  # the same in READ(16) and WRITE(16); SBC-3 tables 50 and 107
    Padding(3),  # RDPROTECT, WRPROTECT
    "dpo" / Flag,
    "fua" / Flag,
    Padding(3),
    "lba" / U64,
    "blocks" / U32,  # TRANSFER LENGTH
    Padding(16),  # GROUP NUMBER, CONTROL
)


@dataclass(frozen=True)
class BlockCommand(Command[bytes], abstract=True):
    """Base of the commands that read or write blocks."""

    accesses_medium = True
    exact = True
    lba: int
    """First block."""
    blocks: int
    """Number of blocks; 0 transfers nothing."""
    block_size: int = field(kw_only=True)
    """Bytes per block of the medium, as READ CAPACITY reports it."""
    dpo: bool = False
    """Disable page out: the device need not keep these blocks in its cache."""
    fua: bool = False
    """Force unit access: read from or write to the medium, not only the cache."""

    @property
    def length(self) -> int:
        """Bytes of data: `blocks` times `block_size`."""
        return self.blocks * self.block_size

    def reply(self, data: bytes) -> bytes:
        """Return the bytes that were read; nothing for a write."""
        return data

    def __str__(self) -> str:
        return f"{self.NAME} of {self.blocks} block{'s' * (self.blocks != 1)} at LBA {self.lba}"


@dataclass(frozen=True)
class Read10(BlockCommand):
    """READ(10): read blocks; 32-bit LBA, up to 65,535 blocks (SBC-3 5.11)."""

    NAME = "READ(10)"
    repeatable = True
    CDB = BitStruct(opcode(0x28), *RW_10)
    direction = Direction.IN


@dataclass(frozen=True)
class Read16(BlockCommand):
    """READ(16): read blocks; 64-bit LBA (SBC-3 5.13)."""

    NAME = "READ(16)"
    repeatable = True
    CDB = BitStruct(opcode(0x88), *RW_16)
    direction = Direction.IN


@dataclass(frozen=True)
class WriteCommand(BlockCommand, abstract=True):
    """Base of the commands that write blocks."""

    direction = Direction.OUT
    data: bytes | bytearray | memoryview = field(default=b"", repr=False)
    """Data to write, `blocks` times `block_size` bytes."""

    @property
    def payload(self) -> bytes | bytearray | memoryview:
        """See `Command.payload`."""
        return self.data


@dataclass(frozen=True)
class Write10(WriteCommand):
    """WRITE(10): write blocks; 32-bit LBA, up to 65,535 blocks (SBC-3 5.33)."""

    NAME = "WRITE(10)"
    CDB = BitStruct(opcode(0x2A), *RW_10)


@dataclass(frozen=True)
class Write16(WriteCommand):
    """WRITE(16): write blocks; 64-bit LBA (SBC-3 5.35)."""

    NAME = "WRITE(16)"
    CDB = BitStruct(opcode(0x8A), *RW_16)


@dataclass(frozen=True)
class Verify10(Command[None]):
    """VERIFY(10) with BYTCHK 0: check that the device can read the blocks; no data is transferred (SBC-3 5.29)."""

    NAME = "VERIFY(10)"
    repeatable = True
    CDB = BitStruct(
        opcode(0x2F), Padding(3), "dpo" / Flag, Padding(4), "lba" / U32, Padding(8), "blocks" / U16, Padding(8)
    )
    timeout = SLOW
    accesses_medium = True
    lba: int
    """First block."""
    blocks: int
    """Number of blocks; 0 verifies nothing."""
    dpo: bool = False
    """Disable page out: the device need not keep these blocks in its cache."""

    def __str__(self) -> str:
        return f"VERIFY(10) of {self.blocks} blocks at LBA {self.lba}"


@dataclass(frozen=True)
class SynchronizeCache10(Command[None]):
    """SYNCHRONIZE CACHE(10): write cached blocks to the medium (SBC-3 5.26)."""

    NAME = "SYNCHRONIZE CACHE(10)"
    repeatable = True
    CDB = BitStruct(
        opcode(0x35), Padding(6), "immediate" / Flag, Padding(1), "lba" / U32, Padding(8), "blocks" / U16, Padding(8)
    )
    timeout = SLOW
    accesses_medium = True
    lba: int = 0
    """First block."""
    blocks: int = 0
    """Number of blocks; 0 means all from `lba` to the end of the medium."""
    immediate: bool = False
    """Return before the blocks are on the medium (IMMED)."""


UNMAP_HEADER: Final = 8  # bytes before the descriptors of UNMAP
UNMAP_DESCRIPTOR: Final = 16  # bytes


@dataclass(frozen=True)
class Unmap(Command[None]):
    """UNMAP of one range: the device need not keep its blocks; up to 2^32 - 1 of them (SBC-3 5.28).

    What the blocks read as afterwards is in the Logical Block Provisioning VPD page.
    """

    NAME = "UNMAP"
    repeatable = True
    CDB = BitStruct(opcode(0x42), Padding(48), "length" / U16, Padding(8))
    timeout = SLOW
    accesses_medium = True
    direction = Direction.OUT
    length = UNMAP_HEADER + UNMAP_DESCRIPTOR
    lba: int
    """First block."""
    blocks: int
    """Number of blocks; 0 unmaps nothing."""

    @property
    def payload(self) -> bytes:
        """The parameter list: its length fields, which do not count themselves, and one descriptor."""
        head = (self.length - 2).to_bytes(2, "big") + UNMAP_DESCRIPTOR.to_bytes(2, "big") + bytes(4)
        return head + self.lba.to_bytes(8, "big") + self.blocks.to_bytes(4, "big") + bytes(4)

    def __str__(self) -> str:
        return f"UNMAP of {self.blocks} block{'s' * (self.blocks != 1)} at LBA {self.lba}"


@dataclass(frozen=True)
class StartStopUnit(Command[None]):
    """START STOP UNIT: start, stop, load or eject (SBC-3 5.25). `load_eject` without `start` ejects."""

    NAME = "START STOP UNIT"
    CDB = BitStruct(
        opcode(0x1B),
        Padding(7),
        "immediate" / Flag,
        Padding(16),
        "power_condition" / U4,
        Padding(1),
        "no_flush" / Flag,
        "load_eject" / Flag,
        "start" / Flag,
        Padding(8),
    )
    timeout = SLOW
    start: bool = False
    """Start the unit (START); false: stop it."""
    load_eject: bool = False
    """Load the medium if `start`, else eject it (LOEJ)."""
    no_flush: bool = False
    """Do not write the cache to the medium first (NO_FLUSH)."""
    power_condition: int = 0
    """Power condition to enter; 0: as `start` and `load_eject` say."""
    immediate: bool = False
    """Return before the unit has finished (IMMED)."""
