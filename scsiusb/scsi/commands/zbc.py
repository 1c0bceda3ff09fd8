"""Commands of zoned block devices (ZBC): shingled disks behind a bridge."""

from __future__ import annotations

from typing import Final

from construct import BitStruct, Flag, Int32ub, Int64ub, Padding, Struct

from scsiusb.base.dataclass import dataclass
from scsiusb.base.packing import parsed
from scsiusb.scsi.command import U4, U6, U32, U64, Command, opcode, service
from scsiusb.scsi.reply import listed, parse
from scsiusb.transport.base import Direction

HEADER: Final = 64  # bytes, as those of a zone descriptor
KINDS: Final = {1: "conventional", 2: "sequential write required", 3: "sequential write preferred"}
CONDITIONS: Final = {
    0: "not write pointer",
    1: "empty",
    2: "implicitly open",
    3: "explicitly open",
    4: "closed",
    13: "read only",
    14: "full",
    15: "offline",
}
ZONES: Final = Struct("length" / Int32ub, Padding(4), "last_lba" / Int64ub)
ZONE: Final = Struct(
    "kind" / BitStruct(Padding(4), "value" / U4),
    "state" / BitStruct("condition" / U4, Padding(2), "non_sequential" / Flag, "reset" / Flag),
    Padding(6),
    "blocks" / Int64ub,
    "lba" / Int64ub,
    "pointer" / Int64ub,
    Padding(32),
)


@dataclass(frozen=True)
class Zone:
    """A zone of blocks that are written in order."""

    lba: int
    blocks: int
    kind: int
    """ZONE TYPE, a key of `KINDS`."""
    condition: int
    """ZONE CONDITION, a key of `CONDITIONS`."""
    write_pointer: int
    """LBA where to write next."""
    reset_recommended: bool
    """RESET WRITE POINTER is recommended."""


@dataclass(frozen=True)
class ZoneList:
    """Zones, from the requested LBA on."""

    last_lba: int
    """Of the medium."""
    zones: tuple[Zone, ...]
    missing: int
    """Bytes of the list that did not come, because the allocation length is too small for them."""


@dataclass(frozen=True)
class ReportZones(Command[ZoneList]):
    """REPORT ZONES: the zones from an LBA on (ZBC REPORT ZONES)."""

    NAME = "REPORT ZONES"
    repeatable = True
    accesses_medium = True
    CDB = BitStruct(
        opcode(0x95),
        Padding(3),
        service(0x00),
        "lba" / U64,
        "length" / U32,
        "partial" / Flag,
        Padding(1),
        "options" / U6,
        Padding(8),
    )
    direction = Direction.IN
    lba: int = 0
    """First block."""
    options: int = 0
    """REPORTING OPTIONS: 0 all zones, 1 empty ones, …"""
    partial: bool = False
    """The length counts only what is sent (PARTIAL)."""
    length: int = HEADER * 129
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> ZoneList:
        """Return the zones. Raises MalformedReply."""
        head = parse(ZONES, data, self.NAME)
        body, missing = listed(data, HEADER, head.length)
        whole = [parsed(ZONE, body[at : at + HEADER]) for at in range(0, len(body) - HEADER + 1, HEADER)]
        return ZoneList(head.last_lba, tuple(map(_zone, whole)), missing)


def _zone(row: Struct) -> Zone:
    return Zone(row.lba, row.blocks, row.kind.value, row.state.condition, row.pointer, row.state.reset)


@dataclass(frozen=True)
class ZoneCommand(Command[None], abstract=True):
    """Base of the commands that change the state of a zone."""

    accesses_medium = True
    lba: int = 0
    """First block of the zone."""
    all_zones: bool = False
    """All zones (ALL)."""


ZONE_ID: Final = ("lba" / U64, Padding(39), "all_zones" / Flag, Padding(8))


@dataclass(frozen=True)
class CloseZone(ZoneCommand):
    """CLOSE ZONE (ZBC CLOSE ZONE)."""

    NAME = "CLOSE ZONE"
    CDB = BitStruct(opcode(0x94), Padding(3), service(0x01), *ZONE_ID)


@dataclass(frozen=True)
class FinishZone(ZoneCommand):
    """FINISH ZONE: set the write pointer to the end (ZBC FINISH ZONE)."""

    NAME = "FINISH ZONE"
    CDB = BitStruct(opcode(0x94), Padding(3), service(0x02), *ZONE_ID)


@dataclass(frozen=True)
class OpenZone(ZoneCommand):
    """OPEN ZONE (ZBC OPEN ZONE)."""

    NAME = "OPEN ZONE"
    CDB = BitStruct(opcode(0x94), Padding(3), service(0x03), *ZONE_ID)


@dataclass(frozen=True)
class ResetWritePointer(ZoneCommand):
    """RESET WRITE POINTER: empty a zone; its data are lost (ZBC RESET WRITE POINTER)."""

    NAME = "RESET WRITE POINTER"
    CDB = BitStruct(opcode(0x94), Padding(3), service(0x04), *ZONE_ID)
