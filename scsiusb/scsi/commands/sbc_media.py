"""Commands of block devices (SBC-3) that format, sanitize and repair the medium, and report its state."""

from __future__ import annotations

from typing import ClassVar, Final

from construct import BitsInteger, BitStruct, Const, Flag, Int8ub, Int24ub, Int32ub, Int64ub, Padding, Struct

from scsiusb.base.dataclass import dataclass
from scsiusb.base.packing import parsed
from scsiusb.scsi.command import SECOND, U2, U3, U4, U8, U16, U32, U64, Command, opcode, service
from scsiusb.scsi.commands.sbc import SLOW
from scsiusb.scsi.reply import Reply, entries, listed, parse
from scsiusb.transport.base import Direction

HOURS: Final = 24 * 3600 * SECOND  # timeout of what writes the whole medium before it returns
FLOPPY: Final = 0x07  # DEFECT LIST FORMAT that UFI demands


@dataclass(frozen=True)
class FormatUnit(Command[None]):
    """FORMAT UNIT: format the whole medium; all data on it are lost (SBC-3 5.3)."""

    NAME = "FORMAT UNIT"
    timeout = HOURS
    accesses_medium = True
    CDB = BitStruct(
        opcode(0x04),
        "protection" / U2,
        "long_list" / Flag,
        "with_list" / Flag,
        "complete_list" / Flag,
        "list_format" / U3,
        Padding(32),
    )
    immediate: bool = False
    """Return when the format has begun (IMMED); REQUEST SENSE reports its progress."""
    complete_list: bool = False
    """Forget the grown defects (CMPLST)."""
    protection: int = 0
    """FMTPINFO: kind of protection information; 0 none."""
    list_format = 0
    long_list = False

    @property
    def with_list(self) -> bool:
        """A parameter list is sent (FMTDATA)."""
        return self.immediate

    @property
    def direction(self) -> Direction:  # type: ignore[override]
        """Of the data phase: OUT if there is a parameter list."""
        return Direction.OUT if self.with_list else Direction.NONE

    @property
    def length(self) -> int:
        """Bytes of data-out."""
        return 4 if self.with_list else 0

    @property
    def payload(self) -> bytes:
        """The short parameter list header, with IMMED and no defect list."""
        return bytes((0, 0x02, 0, 0)) if self.with_list else b""


@dataclass(frozen=True)
class FormatTrack(Command[None]):
    """FORMAT UNIT of one side of a floppy's track (UFI 1.0 4.4)."""

    NAME = "FORMAT UNIT"
    timeout = SLOW
    accesses_medium = True
    CDB = BitStruct(
        opcode(0x04),
        Padding(3),
        "with_list" / Const(1, BitsInteger(1)),
        Padding(1),
        "list_format" / Const(FLOPPY, U3),
        "track" / U8,
        Padding(32),
        "length" / U16,
        Padding(24),
    )
    direction = Direction.OUT
    length = 12
    track: int
    side: int
    blocks: int
    """Of the whole floppy: 2880 for 1.44 MB."""
    block_size: int = 512

    @property
    def payload(self) -> bytes:
        """The header, with SINGLE TRACK, and the capacity to format to."""
        head = bytes((0, 0xB0 | (self.side & 1), 0, 8))
        return head + self.blocks.to_bytes(4, "big") + self.block_size.to_bytes(4, "big")


@dataclass(frozen=True)
class SanitizeCommand(Command[None], abstract=True):
    """Base of SANITIZE: make all former data unreadable, also in blocks that have no address (SBC-3 5.24)."""

    timeout = HOURS
    accesses_medium = True
    immediate: bool = True
    """Return when the operation has begun (IMMED); REQUEST SENSE reports its progress."""
    unrestricted: bool = False
    """Allow an exit from the failure mode (AUSE)."""


SANITIZE: Final = ("immediate" / Flag, Padding(1), "unrestricted" / Flag)


@dataclass(frozen=True)
class SanitizeOverwrite(SanitizeCommand):
    """SANITIZE, OVERWRITE: write a pattern to the whole medium (SBC-3 5.24.2.2)."""

    NAME = "SANITIZE, OVERWRITE"
    CDB = BitStruct(opcode(0x48), *SANITIZE, service(0x01), Padding(40), "length" / U16, Padding(8))
    direction = Direction.OUT
    pattern: bytes = bytes(4)
    """Repeated in each block."""
    passes: int = 1
    """OVERWRITE COUNT, 1 to 31."""
    invert: bool = False
    """Invert the pattern from pass to pass."""

    @property
    def payload(self) -> bytes:
        """The parameter list. Raises ValueError for a number of passes that does not fit."""
        if not 1 <= self.passes <= 31:
            raise ValueError(f"passes={self.passes} does not fit: 1 to 31 does")
        return bytes((self.invert << 7 | self.passes, 0)) + len(self.pattern).to_bytes(2, "big") + self.pattern

    @property
    def length(self) -> int:
        """Bytes of data-out."""
        return 4 + len(self.pattern)


@dataclass(frozen=True)
class SanitizeBlockErase(SanitizeCommand):
    """SANITIZE, BLOCK ERASE: erase all flash blocks (SBC-3 5.24.2.3)."""

    NAME = "SANITIZE, BLOCK ERASE"
    CDB = BitStruct(opcode(0x48), *SANITIZE, service(0x02), Padding(64))


@dataclass(frozen=True)
class SanitizeCryptoErase(SanitizeCommand):
    """SANITIZE, CRYPTOGRAPHIC ERASE: change the key that encrypts the medium (SBC-3 5.24.2.4)."""

    NAME = "SANITIZE, CRYPTOGRAPHIC ERASE"
    CDB = BitStruct(opcode(0x48), *SANITIZE, service(0x03), Padding(64))


@dataclass(frozen=True)
class SanitizeExitFailure(SanitizeCommand):
    """SANITIZE, EXIT FAILURE MODE: use the unit again after a sanitize that failed (SBC-3 5.24.2.5)."""

    NAME = "SANITIZE, EXIT FAILURE MODE"
    CDB = BitStruct(opcode(0x48), *SANITIZE, service(0x1F), Padding(64))
    immediate: bool = False
    """Not used here."""


@dataclass(frozen=True)
class ReassignBlocks(Command[None]):
    """REASSIGN BLOCKS: replace defective blocks by spare ones; their data are lost (SBC-3 5.21)."""

    NAME = "REASSIGN BLOCKS"
    timeout = SLOW
    accesses_medium = True
    device_types = frozenset({0x00, 0x07, 0x0E, 0x14})
    CDB = BitStruct(opcode(0x07), Padding(6), "long_lba" / Flag, Padding(1), Padding(32))
    direction = Direction.OUT
    lbas: tuple[int, ...]
    """Blocks to reassign."""

    @property
    def long_lba(self) -> bool:
        """The list has LBAs of 8 bytes (LONGLBA)."""
        return any(lba >> 32 for lba in self.lbas)

    @property
    def length(self) -> int:
        """Bytes of data-out."""
        return 4 + len(self.lbas) * (8 if self.long_lba else 4)

    @property
    def payload(self) -> bytes:
        """The defect list with its short header. Raises OverflowError for more blocks than it can have."""
        size = 8 if self.long_lba else 4
        return (self.length - 4).to_bytes(4, "big") + b"".join(lba.to_bytes(size, "big") for lba in self.lbas)


DEFECT_FORMATS: Final = {0: "blocks", 3: "long blocks", 4: "bytes from index", 5: "physical sectors"}
DEFECT_FLAGS: Final = BitStruct(Padding(3), "primary" / Flag, "grown" / Flag, "format" / U3)
DEFECTS_10: Final = Struct(Padding(1), "flags" / DEFECT_FLAGS, "length" / Struct("high" / Int8ub, "low" / Int8ub))
DEFECTS_12: Final = Struct(Padding(1), "flags" / DEFECT_FLAGS, Padding(2), "length" / Int32ub)


@dataclass(frozen=True)
class Defect:
    """A place of a defect: an LBA, or cylinder, head and sector (or bytes from index)."""

    lba: int | None = None
    cylinder: int | None = None
    head: int | None = None
    sector: int | None = None


@dataclass(frozen=True)
class DefectList:
    """A list of defects (SBC-3 5.17.2, 5.18.2)."""

    primary: bool
    """It has the defects of the manufacture (PLISTV)."""
    grown: bool
    """It has those found later (GLISTV)."""
    list_format: int
    """Format of the places, a key of `DEFECT_FORMATS`; a device may answer in another than it was asked for."""
    defects: tuple[Defect, ...]
    missing: int
    """Bytes of the list that were announced and did not come."""


def _defects(data: bytes, start: int, length: int, flags: Struct) -> DefectList:
    body, missing = listed(data, start, length)
    size = 4 if flags.format == 0 else 8
    places = [body[at : at + size] for at in range(0, len(body) - size + 1, size)]
    return DefectList(
        flags.primary, flags.grown, flags.format, tuple(_defect(e, flags.format) for e in places), missing
    )


def _defect(entry: bytes, list_format: int) -> Defect:
    if list_format in (4, 5):
        return Defect(None, int.from_bytes(entry[:3], "big"), entry[3], int.from_bytes(entry[4:], "big"))
    return Defect(int.from_bytes(entry, "big"))


@dataclass(frozen=True)
class ReadDefectData10(Command[DefectList]):
    """READ DEFECT DATA(10): the lists of defects, up to 64 KiB (SBC-3 5.17)."""

    NAME = "READ DEFECT DATA(10)"
    repeatable = True
    timeout = SLOW
    CDB = BitStruct(
        opcode(0x37), Padding(8), Padding(3), "primary" / Flag, "grown" / Flag, "list_format" / U3, Padding(32),
        "length" / U16, Padding(8),
    )  # fmt: skip
    direction = Direction.IN
    grown: bool = True
    """Ask for the defects found since the manufacture (REQ_GLIST)."""
    primary: bool = False
    """Ask for those of the manufacture (REQ_PLIST)."""
    list_format: int = 0
    """Format of the places, a key of `DEFECT_FORMATS`."""
    length: int = 0xFFFC
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> DefectList:
        """Return the list. Raises MalformedReply."""
        head = parse(DEFECTS_10, data, self.NAME)
        return _defects(data, 4, head.length.high << 8 | head.length.low, head.flags)


@dataclass(frozen=True)
class ReadDefectData12(Command[DefectList]):
    """READ DEFECT DATA(12): the lists of defects, of any length (SBC-3 5.18)."""

    NAME = "READ DEFECT DATA(12)"
    repeatable = True
    timeout = SLOW
    CDB = BitStruct(
        opcode(0xB7), Padding(3), "primary" / Flag, "grown" / Flag, "list_format" / U3, "index" / U32,
        "length" / U32, Padding(16),
    )  # fmt: skip
    direction = Direction.IN
    grown: bool = True
    """Ask for the defects found since the manufacture (REQ_GLIST)."""
    primary: bool = False
    """Ask for those of the manufacture (REQ_PLIST)."""
    list_format: int = 0
    """Format of the places, a key of `DEFECT_FORMATS`."""
    index: int = 0
    """First entry of the list to report (ADDRESS DESCRIPTOR INDEX)."""
    length: int = 0x10000
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> DefectList:
        """Return the list. Raises MalformedReply."""
        head = parse(DEFECTS_12, data, self.NAME)
        return _defects(data, 8, head.length, head.flags)


STATUSES: Final = {0: "mapped, or not known", 1: "deallocated", 2: "anchored", 3: "mapped", 4: "unknown"}
LBA_STATUS: Final = Struct(
    "lba" / Int64ub, "blocks" / Int32ub, "_state" / BitStruct(Padding(4), "status" / U4), Padding(3)
)
LIST_LENGTH: Final = Struct("length" / Int32ub)


@dataclass(frozen=True)
class LbaStatus:
    """The state of a range of blocks."""

    lba: int
    blocks: int
    status: int
    """PROVISIONING STATUS, a key of `STATUSES`."""

    @property
    def text(self) -> str:
        """PROVISIONING STATUS as text."""
        return STATUSES.get(self.status, f"reserved status {self.status}")


@dataclass(frozen=True)
class GetLbaStatus(Command[tuple[LbaStatus, ...]]):
    """GET LBA STATUS: which blocks are mapped to the medium, from `lba` on (SBC-3 5.4)."""

    NAME = "GET LBA STATUS"
    repeatable = True
    accesses_medium = True
    CDB = BitStruct(opcode(0x9E), Padding(3), service(0x12), "lba" / U64, "length" / U32, Padding(16))
    direction = Direction.IN
    lba: int = 0
    """First block."""
    length: int = 8 + 256 * 16
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> tuple[LbaStatus, ...]:
        """Return the ranges, in order. Raises MalformedReply."""
        body, _ = listed(data, 8, max(parse(LIST_LENGTH, data, self.NAME).length - 4, 0))
        rows = [parsed(LBA_STATUS, body[at : at + 16]) for at in range(0, len(body) - 15, 16)]
        return tuple(LbaStatus(row.lba, row.blocks, row["_state"].status) for row in rows)


ELEMENT: Final = Struct(
    Padding(4), "element" / Int32ub, Padding(6), "kind" / Int8ub, "health" / Int8ub, "blocks" / Int64ub, Padding(8)
)


@dataclass(frozen=True)
class PhysicalElement:
    """A part of the medium, such as a head (SBC-4 5.7)."""

    element: int
    kind: int
    """1: a storage element."""
    health: int
    """0 not reported; 1 to 63h within limits; 64h at the limit; 65h to CFh outside; FDh to FFh: depopulation."""
    blocks: int
    """Blocks that its loss would cost; all bits set: not reported."""


@dataclass(frozen=True)
class GetPhysicalElementStatus(Command[tuple[PhysicalElement, ...]]):
    """GET PHYSICAL ELEMENT STATUS: which parts of the medium are worn (SBC-4 5.7)."""

    NAME = "GET PHYSICAL ELEMENT STATUS"
    repeatable = True
    CDB = BitStruct(
        opcode(0x9E), Padding(3), service(0x17), Padding(32), "start" / U32, "length" / U32, "failed_only" / U2,
        Padding(14),
    )  # fmt: skip
    direction = Direction.IN
    start: int = 0
    """First element."""
    failed_only: int = 0
    """FILTER: 1 reports only those outside of their limits."""
    length: int = 32 + 128 * 32
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> tuple[PhysicalElement, ...]:
        """Return the elements. Raises MalformedReply."""
        head = parse(Struct(Padding(4), "count" / Int32ub, Padding(24)), data, self.NAME)
        return entries(ELEMENT, listed(data, 32, head.count * 32)[0], PhysicalElement)


CAPACITIES: Final = Struct(Padding(3), "length" / Int8ub)
CAPACITY_KINDS: Final = {1: "unformatted medium", 2: "formatted medium", 3: "no medium"}


@dataclass(frozen=True)
class FormatCapacity(Reply):
    """A capacity that the medium has or can be formatted to (UFI 1.0 4.10)."""

    LAYOUT: ClassVar[Struct] = Struct("blocks" / Int32ub, "kind" / Int8ub, "block_size" / Int24ub)
    blocks: int
    kind: int
    """Of the first capacity: a key of `CAPACITY_KINDS`; of others, a format type of MMC-6 in the upper six bits."""
    block_size: int


@dataclass(frozen=True)
class ReadFormatCapacities(Command[tuple[FormatCapacity, ...]]):
    """READ FORMAT CAPACITIES: the present capacity, then those to which the medium can be formatted (UFI 1.0 4.10)."""

    NAME = "READ FORMAT CAPACITIES"
    repeatable = True
    CDB = BitStruct(opcode(0x23), Padding(48), "length" / U16, Padding(8))
    direction = Direction.IN
    length: int = 252
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> tuple[FormatCapacity, ...]:
        """Return the capacities. Raises MalformedReply."""
        body = listed(data, 4, parse(CAPACITIES, data, self.NAME).length)[0]
        return entries(FormatCapacity.LAYOUT, body, FormatCapacity)
