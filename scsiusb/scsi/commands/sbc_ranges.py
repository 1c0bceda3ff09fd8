"""Commands on ranges of blocks: provisioning, defects, and long forms (SBC-3), as declarations."""

from __future__ import annotations

from typing import Final

from construct import BitsInteger, BitStruct, Const, Flag, GreedyRange, Int8ub, Int32ub, Int64ub, Padding, Struct

from scsiusb.base.dataclass import dataclass
from scsiusb.scsi.command import U5, U16, U32, U64, Command, opcode
from scsiusb.scsi.commands.sbc import SLOW
from scsiusb.scsi.reply import parse
from scsiusb.transport.base import Direction

STATUSES: Final = {0: "mapped", 1: "deallocated", 2: "anchored"}  # SBC-3 table 30
LBA_STATUS: Final = Struct(
    "length" / Int32ub,
    Padding(4),
    "rows"
    / GreedyRange(
        Struct(
            "lba" / Int64ub, "blocks" / Int32ub, "how" / BitStruct(Padding(4), "status" / BitsInteger(4)), Padding(3)
        )
    ),
)


@dataclass(frozen=True)
class LbaStatus:
    """The provisioning status of a range of blocks."""

    lba: int
    blocks: int
    status: int
    """A key of `STATUSES`."""


@dataclass(frozen=True)
class GetLbaStatus(Command[tuple[LbaStatus, ...]]):
    """GET LBA STATUS: report which blocks from `lba` on are mapped (SBC-3 5.4)."""

    NAME = "GET LBA STATUS"
    repeatable = True
    CDB = BitStruct(opcode(0x9E), Padding(3), "service" / Const(0x12, U5), "lba" / U64, "length" / U32, Padding(16))
    direction = Direction.IN
    accesses_medium = True
    lba: int = 0
    """First block."""
    length: int = 4096
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> tuple[LbaStatus, ...]:
        """Return the ranges. Raises MalformedReply."""
        fields = parse(LBA_STATUS, data, self.NAME)
        rows = fields.rows[: max(0, fields.length - 4) // 16]
        return tuple(LbaStatus(row.lba, row.blocks, row.how.status) for row in rows)


@dataclass(frozen=True)
class SynchronizeCache16(Command[None]):
    """SYNCHRONIZE CACHE(16): write cached blocks to the medium; 64-bit LBA (SBC-3 5.27)."""

    NAME = "SYNCHRONIZE CACHE(16)"
    repeatable = True
    CDB = BitStruct(opcode(0x91), Padding(6), "immediate" / Flag, Padding(1), "lba" / U64, "blocks" / U32, Padding(16))
    timeout = SLOW
    accesses_medium = True
    lba: int = 0
    """First block."""
    blocks: int = 0
    """Number of blocks; 0 means all from `lba` to the end of the medium."""
    immediate: bool = False
    """Return before the blocks are on the medium (IMMED)."""


@dataclass(frozen=True)
class Verify16(Command[None]):
    """VERIFY(16) with BYTCHK 0: check that the device can read the blocks; 64-bit LBA (SBC-3 5.31)."""

    NAME = "VERIFY(16)"
    repeatable = True
    CDB = BitStruct(opcode(0x8F), Padding(3), "dpo" / Flag, Padding(4), "lba" / U64, "blocks" / U32, Padding(16))
    timeout = SLOW
    accesses_medium = True
    lba: int
    """First block."""
    blocks: int
    """Number of blocks; 0 verifies nothing."""
    dpo: bool = False
    """Disable page out: the device need not keep these blocks in its cache."""


@dataclass(frozen=True)
class PreFetch10(Command[None]):
    """PRE-FETCH(10): read blocks into the device's cache (SBC-3 5.8)."""

    NAME = "PRE-FETCH(10)"
    repeatable = True
    CDB = BitStruct(
        opcode(0x34), Padding(6), "immediate" / Flag, Padding(1), "lba" / U32, Padding(8), "blocks" / U16, Padding(8)
    )
    timeout = SLOW
    accesses_medium = True
    lba: int
    """First block."""
    blocks: int
    """Number of blocks; 0 means all to the end of the medium."""
    immediate: bool = False
    """Return before the blocks are in the cache (IMMED)."""


@dataclass(frozen=True)
class WriteSame10(Command[None]):
    """WRITE SAME(10): write one block to each of a range (SBC-3 5.43)."""

    NAME = "WRITE SAME(10)"
    CDB = BitStruct(
        opcode(0x41),
        Padding(3),
        "anchor" / Flag,
        "unmap" / Flag,
        Padding(3),
        "lba" / U32,
        Padding(8),
        "blocks" / U16,
        Padding(8),
    )
    timeout = SLOW
    accesses_medium = True
    direction = Direction.OUT
    lba: int
    """First block."""
    blocks: int
    """Number of blocks; 0 means all to the end of the medium."""
    block: bytes
    """The content of each."""
    unmap: bool = False
    """The device may unmap the blocks instead, if they then read so (UNMAP)."""
    anchor: bool = False
    """It may anchor them (ANCHOR)."""

    @property
    def length(self) -> int:
        """Bytes of one block."""
        return len(self.block)

    @property
    def payload(self) -> bytes:
        """The block."""
        return self.block

    def __str__(self) -> str:
        return f"WRITE SAME(10) of {self.blocks} blocks at LBA {self.lba}"


@dataclass(frozen=True)
class WriteSame16(Command[None]):
    """WRITE SAME(16): write one block to each of a range; 64-bit LBA (SBC-3 5.44)."""

    NAME = "WRITE SAME(16)"
    CDB = BitStruct(
        opcode(0x93),
        Padding(3),
        "anchor" / Flag,
        "unmap" / Flag,
        Padding(3),
        "lba" / U64,
        "blocks" / U32,
        Padding(16),
    )
    timeout = SLOW
    accesses_medium = True
    direction = Direction.OUT
    lba: int
    """First block."""
    blocks: int
    """Number of blocks; 0 means all to the end of the medium."""
    block: bytes
    """The content of each."""
    unmap: bool = False
    """The device may unmap the blocks instead, if they then read so (UNMAP)."""
    anchor: bool = False
    """It may anchor them (ANCHOR)."""

    @property
    def length(self) -> int:
        """Bytes of one block."""
        return len(self.block)

    @property
    def payload(self) -> bytes:
        """The block."""
        return self.block

    def __str__(self) -> str:
        return f"WRITE SAME(16) of {self.blocks} blocks at LBA {self.lba}"


DEFECTS: Final = Struct(
    Padding(1),
    "flags" / BitStruct(Padding(3), "primary" / Flag, "grown" / Flag, "format" / BitsInteger(3)),
    "length" / BitStruct("value" / BitsInteger(16)),
    "bytes" / GreedyRange(Int8ub),
)
WIDTHS: Final = {0: 4, 3: 8, 4: 8, 5: 8}  # bytes of an address descriptor, by its format (SBC-3 6.2)


@dataclass(frozen=True)
class Defects:
    """A list of defects."""

    primary: bool
    """It has those that the manufacturer found (PLISTV)."""
    grown: bool
    """It has those that were found later (GLISTV)."""
    format: int
    """0 and 3: addresses of blocks; 4 bytes from index; 5 physical sectors."""
    count: int
    """How many there are, also those that did not fit into the reply."""
    descriptors: tuple[bytes, ...]
    """The address descriptors that came."""


@dataclass(frozen=True)
class ReadDefectData10(Command[Defects]):
    """READ DEFECT DATA(10): list the defects of the medium (SBC-3 5.17)."""

    NAME = "READ DEFECT DATA(10)"
    repeatable = True
    CDB = BitStruct(
        opcode(0x37),
        Padding(8),
        Padding(3),
        "primary" / Flag,
        "grown" / Flag,
        "format" / BitsInteger(3),
        Padding(32),
        "length" / U16,
        Padding(8),
    )
    direction = Direction.IN
    primary: bool = False
    """List those that the manufacturer found."""
    grown: bool = True
    """List those that were found later."""
    format: int = 0
    """How addresses are written: 0 short blocks, 3 long blocks, 5 physical sectors."""
    length: int = 4096
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> Defects:
        """Return the list. Raises MalformedReply."""
        fields = parse(DEFECTS, data, self.NAME)
        width = WIDTHS.get(fields.flags.format, 8)
        body = bytes(fields.bytes)[: fields.length.value]
        rows = tuple(body[at : at + width] for at in range(0, len(body) - width + 1, width))
        return Defects(
            fields.flags.primary, fields.flags.grown, fields.flags.format, fields.length.value // width, rows
        )
