"""Commands of all device types (SPC-4), as declarations."""

from __future__ import annotations

from typing import Final

from construct import (
    BitStruct,
    Bytes,
    Flag,
    GreedyRange,
    Int32ub,
    Padding,
    Struct,
)

from scsiusb.base.dataclass import dataclass
from scsiusb.scsi.command import U2, U6, U8, U16, U32, Command, opcode
from scsiusb.scsi.pages.inquiry import STANDARD_LENGTH, InquiryData
from scsiusb.scsi.pages.mode import ModeParameters
from scsiusb.scsi.reply import parse
from scsiusb.scsi.sense import Sense
from scsiusb.transport.base import Direction

SENSE_LENGTH: Final = 18  # bytes; some devices fail when asked for more
MODE_LENGTH: Final = 192  # bytes; other systems ask for this, and some devices fail with less or more
ALL_PAGES: Final = 0x3F  # mode page code that asks for every page
VPD_LENGTH: Final = 252  # bytes
REPORT_LUNS_HEADER: Final = 8  # bytes before the first LUN
LUN_LENGTH: Final = 8  # bytes
MOST_LUNS: Final = 256

LUN_LIST: Final = Struct("length" / Int32ub, Padding(4), "luns" / GreedyRange(Bytes(LUN_LENGTH)))  # SPC-4 table 293


@dataclass(frozen=True)
class TestUnitReady(Command[None]):
    """TEST UNIT READY: succeed if the unit is ready, fail with the reason if not (SPC-4 6.47)."""

    NAME = "TEST UNIT READY"
    repeatable = True
    CDB = BitStruct(opcode(0x00), Padding(40))


@dataclass(frozen=True)
class RequestSense(Command[Sense]):
    """REQUEST SENSE: report why the last command failed, or the present state (SPC-4 6.39)."""

    NAME = "REQUEST SENSE"
    CDB = BitStruct(opcode(0x03), Padding(7), "descriptor" / Flag, Padding(16), "length" / U8, Padding(8))
    direction = Direction.IN
    descriptor: bool = False
    """Ask for descriptor format (DESC); false: fixed format."""
    length: int = SENSE_LENGTH
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> Sense:
        """Return the sense data; see `Sense.parse` for data that cannot be read."""
        return Sense.parse(data)


@dataclass(frozen=True)
class Inquiry(Command[InquiryData]):
    """INQUIRY of the standard data: device type, vendor, product and revision (SPC-4 6.6.2)."""

    NAME = "INQUIRY"
    repeatable = True
    CDB = BitStruct(opcode(0x12), Padding(16), "length" / U16, Padding(8))
    direction = Direction.IN
    length: int = STANDARD_LENGTH
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> InquiryData:
        """Return the standard INQUIRY data. Raises MalformedReply."""
        return InquiryData.parse(data)


@dataclass(frozen=True)
class InquiryVpdBytes(Command[bytes]):
    """INQUIRY of a vital product data page, cut at `length` bytes (SPC-4 6.6.1, 7.8)."""

    NAME = "INQUIRY (VPD)"
    repeatable = True
    CDB = BitStruct(opcode(0x12), Padding(7), "evpd" / Flag, "page" / U8, "length" / U16, Padding(8))
    direction = Direction.IN
    page: int = 0
    """Page code."""
    length: int = VPD_LENGTH
    """Allocation length in bytes."""
    evpd: bool = True
    """Ask for a page (EVPD); false asks for the standard data."""

    def reply(self, data: bytes) -> bytes:
        """Return the page with its header; see `parse_page`."""
        return data

    def __str__(self) -> str:
        return f"INQUIRY of VPD page {self.page:02X}h"


@dataclass(frozen=True)
class ModeSense6(Command[ModeParameters]):
    """MODE SENSE(6): report mode parameters, with a header of 4 bytes (SPC-4 6.13)."""

    NAME = "MODE SENSE(6)"
    repeatable = True
    CDB = BitStruct(
        opcode(0x1A),
        Padding(4),
        "disable_block_descriptors" / Flag,  # DBD
        Padding(3),
        "page_control" / U2,  # PC
        "page" / U6,
        "subpage" / U8,
        "length" / U8,
        Padding(8),
    )
    direction = Direction.IN
    page: int = ALL_PAGES
    """Page code; 3Fh asks for every page."""
    subpage: int = 0
    """Subpage code; FFh asks for every subpage."""
    page_control: int = 0
    """Values to report: 0 current, 1 changeable, 2 default, 3 saved."""
    disable_block_descriptors: bool = False
    """Leave out the block descriptors (DBD)."""
    length: int = MODE_LENGTH
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> ModeParameters:
        """Return the header and the whole pages. Raises MalformedReply."""
        return ModeParameters.parse(data, long_header=False)


@dataclass(frozen=True)
class ModeSense10(Command[ModeParameters]):
    """MODE SENSE(10): report mode parameters, with a header of 8 bytes (SPC-4 6.14)."""

    NAME = "MODE SENSE(10)"
    repeatable = True
    CDB = BitStruct(
        opcode(0x5A),
        Padding(3),
        "long_lba_accepted" / Flag,  # LLBAA
        "disable_block_descriptors" / Flag,  # DBD
        Padding(3),
        "page_control" / U2,  # PC
        "page" / U6,
        "subpage" / U8,
        Padding(24),
        "length" / U16,
        Padding(8),
    )
    direction = Direction.IN
    page: int = ALL_PAGES
    """Page code; 3Fh asks for every page."""
    subpage: int = 0
    """Subpage code; FFh asks for every subpage."""
    page_control: int = 0
    """Values to report: 0 current, 1 changeable, 2 default, 3 saved."""
    disable_block_descriptors: bool = False
    """Leave out the block descriptors (DBD)."""
    long_lba_accepted: bool = False
    """Allow long LBA block descriptors in the reply (LLBAA)."""
    length: int = MODE_LENGTH
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> ModeParameters:
        """Return the header and the whole pages. Raises MalformedReply."""
        return ModeParameters.parse(data, long_header=True)


@dataclass(frozen=True)
class ReportLuns(Command[tuple[int, ...]]):
    """REPORT LUNS: list the logical unit numbers of the target, single level (SPC-4 6.33)."""

    NAME = "REPORT LUNS"
    repeatable = True
    CDB = BitStruct(opcode(0xA0), Padding(8), "select_report" / U8, Padding(24), "length" / U32, Padding(16))
    direction = Direction.IN
    select_report: int = 0
    """Which units to list: 0 all but the well-known ones, 1 the well-known ones, 2 all."""
    length: int = REPORT_LUNS_HEADER + MOST_LUNS * LUN_LENGTH
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> tuple[int, ...]:
        """Return the LUNs. Raises MalformedReply."""
        fields = parse(LUN_LIST, data, self.NAME)
        return tuple(_lun(entry) for entry in fields.luns[: fields.length // LUN_LENGTH])


def _lun(entry: bytes) -> int:
    """Return the number in peripheral or flat space addressing: 14 bits after 2 bits of method (SAM-4 4.6.7, 4.6.8)."""
    return int.from_bytes(entry[:2], "big") & 0x3FFF


@dataclass(frozen=True)
class PreventAllow(Command[None]):
    """PREVENT ALLOW MEDIUM REMOVAL: lock the medium in the drive, or unlock it (SBC-3 5.10)."""

    NAME = "PREVENT ALLOW MEDIUM REMOVAL"
    CDB = BitStruct(opcode(0x1E), Padding(30), "prevent" / U2, Padding(8))
    prevent: int = 0
    """0: removal is allowed, 1: removal is prevented."""
