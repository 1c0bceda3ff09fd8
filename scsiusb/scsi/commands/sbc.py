"""The commands of block devices (SBC-3), as declarations."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Final

from construct import BitStruct, Const, Flag, Int32ub, Int64ub, Padding, Struct

from scsiusb.base.dataclass import dataclass
from scsiusb.scsi.command import SECOND, U4, U5, U16, U32, U64, Command, opcode
from scsiusb.scsi.reply import Reply
from scsiusb.transport.base import Direction

CAPACITY_10_LENGTH: Final = 8
CAPACITY_16_LENGTH: Final = 32
TOO_LARGE_FOR_10: Final = 0xFFFFFFFF
SERVICE_READ_CAPACITY_16: Final = 0x10
SLOW: Final = 120 * SECOND  # spinning up, emptying a cache


@dataclass(frozen=True)
class Capacity(Reply):
    """READ CAPACITY(10) parameter data (SBC-3 5.15.2)."""

    LAYOUT: ClassVar[Struct] = Struct("last_lba" / Int32ub, "block_size" / Int32ub)
    last_lba: int
    block_size: int

    @property
    def blocks(self) -> int:
        return self.last_lba + 1


@dataclass(frozen=True)
class LongCapacity(Capacity):
    """READ CAPACITY(16) parameter data (SBC-3 5.16.2), its first two fields."""

    LAYOUT: ClassVar[Struct] = Struct("last_lba" / Int64ub, "block_size" / Int32ub)


@dataclass(frozen=True)
class ReadCapacity10(Command[Capacity]):
    """READ CAPACITY(10) (SBC-3 5.15)."""

    NAME = "READ CAPACITY(10)"
    repeatable = True
    CDB = BitStruct(opcode(0x25), Padding(72))
    direction = Direction.IN
    exact = True
    length = CAPACITY_10_LENGTH

    def reply(self, data: bytes) -> Capacity:
        return Capacity.parse(data)


@dataclass(frozen=True)
class ReadCapacity16(Command[LongCapacity]):
    """READ CAPACITY(16) (SBC-3 5.16)."""

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

    def reply(self, data: bytes) -> LongCapacity:
        return LongCapacity.parse(data)


RW_10 = (  # SBC-3 tables 46, 101 and 91 alike
    Padding(3),  # RDPROTECT, WRPROTECT
    "dpo" / Flag,
    "fua" / Flag,
    Padding(3),
    "lba" / U32,
    Padding(8),  # GROUP NUMBER
    "blocks" / U16,  # TRANSFER LENGTH
    Padding(8),
)
RW_16 = (  # SBC-3 tables 50 and 107 alike
    Padding(3),
    "dpo" / Flag,
    "fua" / Flag,
    Padding(3),
    "lba" / U64,
    "blocks" / U32,
    Padding(16),
)


@dataclass(frozen=True)
class BlockCommand(Command[bytes]):
    """What reading and writing have in common. `block_size` is the medium's, in bytes."""

    accesses_medium = True
    exact = True
    lba: int
    blocks: int
    block_size: int = field(kw_only=True)
    dpo: bool = False
    fua: bool = False

    @property
    def length(self) -> int:
        return self.blocks * self.block_size

    def reply(self, data: bytes) -> bytes:
        return data

    def __str__(self) -> str:
        return f"{self.NAME} of {self.blocks} block{'s' * (self.blocks != 1)} at LBA {self.lba}"


@dataclass(frozen=True)
class Read10(BlockCommand):
    """READ(10) (SBC-3 5.11)."""

    NAME = "READ(10)"
    repeatable = True
    CDB = BitStruct(opcode(0x28), *RW_10)
    direction = Direction.IN


@dataclass(frozen=True)
class Read16(BlockCommand):
    """READ(16) (SBC-3 5.13)."""

    NAME = "READ(16)"
    repeatable = True
    CDB = BitStruct(opcode(0x88), *RW_16)
    direction = Direction.IN


@dataclass(frozen=True)
class WriteCommand(BlockCommand):
    """What writing has in common: `data`, as many bytes as the blocks have."""

    direction = Direction.OUT
    data: bytes | bytearray | memoryview = field(default=b"", repr=False)

    @property
    def payload(self) -> bytes | bytearray | memoryview:
        return self.data


@dataclass(frozen=True)
class Write10(WriteCommand):
    """WRITE(10) (SBC-3 5.32)."""

    NAME = "WRITE(10)"
    CDB = BitStruct(opcode(0x2A), *RW_10)


@dataclass(frozen=True)
class Write16(WriteCommand):
    """WRITE(16) (SBC-3 5.34)."""

    NAME = "WRITE(16)"
    CDB = BitStruct(opcode(0x8A), *RW_16)


@dataclass(frozen=True)
class Verify10(Command[None]):
    """VERIFY(10) without data: can the medium be read (SBC-3 5.28, BYTCHK 0)?"""

    NAME = "VERIFY(10)"
    repeatable = True
    CDB = BitStruct(
        opcode(0x2F), Padding(3), "dpo" / Flag, Padding(4), "lba" / U32, Padding(8), "blocks" / U16, Padding(8)
    )
    timeout = SLOW
    accesses_medium = True
    lba: int
    blocks: int
    dpo: bool = False

    def __str__(self) -> str:
        return f"VERIFY(10) of {self.blocks} blocks at LBA {self.lba}"


@dataclass(frozen=True)
class SynchronizeCache10(Command[None]):
    """SYNCHRONIZE CACHE(10) (SBC-3 5.20); 0 blocks at LBA 0: the whole medium."""

    NAME = "SYNCHRONIZE CACHE(10)"
    repeatable = True
    CDB = BitStruct(
        opcode(0x35), Padding(6), "immediate" / Flag, Padding(1), "lba" / U32, Padding(8), "blocks" / U16, Padding(8)
    )
    timeout = SLOW
    accesses_medium = True
    lba: int = 0
    blocks: int = 0
    immediate: bool = False


@dataclass(frozen=True)
class StartStopUnit(Command[None]):
    """START STOP UNIT (SBC-3 5.19); `load_eject` with `start` false ejects."""

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
    load_eject: bool = False
    no_flush: bool = False
    power_condition: int = 0
    immediate: bool = False
