"""Commands of tape drives (SSC-3), whose operation codes mean something else for other devices."""

from __future__ import annotations

from typing import ClassVar, Final

from construct import BitStruct, Flag, Int8ub, Int16ub, Int24ub, Int32ub, Padding, Struct

from scsiusb.base.dataclass import dataclass
from scsiusb.scsi.command import SECOND, U4, U8, U24, U32, Command, opcode
from scsiusb.scsi.reply import Reply
from scsiusb.transport.base import Direction

TAPE: Final = frozenset({0x01})
WIND: Final = 1200 * SECOND  # timeout of what moves the whole tape


@dataclass(frozen=True)
class BlockLimits(Reply):
    """The sizes of blocks that a drive can write (SSC-3 READ BLOCK LIMITS)."""

    LAYOUT: ClassVar[Struct] = Struct("granularity" / Int8ub, "largest" / Int24ub, "smallest" / Int16ub)
    granularity: int
    """Sizes are multiples of two to this power (the lower five bits)."""
    largest: int
    """Bytes."""
    smallest: int
    """Bytes."""


@dataclass(frozen=True)
class ReadBlockLimits(Command[BlockLimits]):
    """READ BLOCK LIMITS: the sizes of blocks that a drive can write (SSC-3 READ BLOCK LIMITS)."""

    NAME = "READ BLOCK LIMITS"
    repeatable = True
    device_types = TAPE
    CDB = BitStruct(opcode(0x05), Padding(40))
    direction = Direction.IN
    length = 6

    def reply(self, data: bytes) -> BlockLimits:
        """Return the limits. Raises MalformedReply."""
        return BlockLimits.parse(data)


@dataclass(frozen=True)
class Rewind(Command[None]):
    """REWIND: move to the beginning of the tape (SSC-3 REWIND)."""

    NAME = "REWIND"
    timeout = WIND
    device_types = TAPE
    CDB = BitStruct(opcode(0x01), Padding(7), "immediate" / Flag, Padding(32))
    immediate: bool = False
    """Return when the tape has begun to move (IMMED)."""


@dataclass(frozen=True)
class Locate10(Command[None]):
    """LOCATE(10): move to a logical object (SSC-3 LOCATE(10))."""

    NAME = "LOCATE(10)"
    timeout = WIND
    device_types = TAPE
    CDB = BitStruct(
        opcode(0x2B),
        Padding(6),
        "change_partition" / Flag,
        "immediate" / Flag,
        Padding(8),
        "position" / U32,
        Padding(8),
        "partition" / U8,
        Padding(8),
    )
    position: int
    """Number of the object."""
    partition: int = 0
    change_partition: bool = False
    """Go to `partition` (CP)."""
    immediate: bool = False
    """Return when the tape has begun to move (IMMED)."""


@dataclass(frozen=True)
class Space6(Command[None]):
    """SPACE(6): move forward or backward by blocks or filemarks (SSC-3 SPACE(6))."""

    NAME = "SPACE(6)"
    timeout = WIND
    device_types = TAPE
    CDB = BitStruct(opcode(0x11), Padding(4), "code" / U4, "wire_count" / U24, Padding(8))
    count: int
    """How many; negative: backward."""
    code: int = 0
    """0 blocks, 1 filemarks, 3 to the end of the data."""

    @property
    def wire_count(self) -> int:
        """COUNT in two's complement. Raises ValueError."""
        if not -(1 << 23) <= self.count < 1 << 23:
            raise ValueError(f"count={self.count} does not fit: {-(1 << 23)} to {(1 << 23) - 1} does")
        return self.count & 0xFFFFFF


@dataclass(frozen=True)
class WriteFilemarks6(Command[None]):
    """WRITE FILEMARKS(6); 0 of them writes the buffer to the tape (SSC-3 WRITE FILEMARKS(6))."""

    NAME = "WRITE FILEMARKS(6)"
    timeout = WIND
    device_types = TAPE
    CDB = BitStruct(opcode(0x10), Padding(7), "immediate" / Flag, "count" / U24, Padding(8))
    count: int = 0
    immediate: bool = False
    """Return before they are on the tape (IMMED)."""


@dataclass(frozen=True)
class LoadUnload(Command[None]):
    """LOAD UNLOAD: load the tape, or rewind and unload it (SSC-3 LOAD UNLOAD)."""

    NAME = "LOAD UNLOAD"
    timeout = WIND
    device_types = TAPE
    CDB = BitStruct(
        opcode(0x1B), Padding(7), "immediate" / Flag, Padding(16), Padding(5), "end" / Flag, "retension" / Flag,
        "load" / Flag, Padding(8),
    )  # fmt: skip
    load: bool = False
    end: bool = False
    """Unload at the end of the tape (EOT)."""
    retension: bool = False
    """Wind it to the end and back (RETEN)."""
    immediate: bool = False
    """Return when the tape has begun to move (IMMED)."""


@dataclass(frozen=True)
class Position(Reply):
    """Where the tape is, in short form (SSC-3 READ POSITION)."""

    LAYOUT: ClassVar[Struct] = Struct(
        "flags" / BitStruct("at_beginning" / Flag, "near_end" / Flag, Padding(3), "unknown" / Flag, Padding(2)),
        "partition" / Int8ub,
        Padding(2),
        "position" / Int32ub,
        Padding(12),
    )
    partition: int
    position: int | None
    """Number of the next object; None: the drive does not know."""
    at_beginning: bool
    near_end: bool

    @classmethod
    def parse(cls, data: bytes) -> Position:
        """Return the position. Raises MalformedReply."""
        fields = cls.fields_of(data)
        flags = fields.flags
        known = None if flags.unknown else fields.position
        return cls(fields.partition, known, flags.at_beginning, flags.near_end)


@dataclass(frozen=True)
class ReadPosition(Command[Position]):
    """READ POSITION, short form (SSC-3 READ POSITION)."""

    NAME = "READ POSITION"
    repeatable = True
    device_types = TAPE
    CDB = BitStruct(opcode(0x34), Padding(72))
    direction = Direction.IN
    length = 20

    def reply(self, data: bytes) -> Position:
        """Return the position. Raises MalformedReply."""
        return Position.parse(data)
