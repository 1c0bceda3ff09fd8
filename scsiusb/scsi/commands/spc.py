"""The commands that all device types have (SPC-4), as declarations."""

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

SENSE_LENGTH: Final = 18  # more breaks some devices
MODE_LENGTH: Final = 192  # what other systems ask; less or more breaks some devices
ALL_PAGES: Final = 0x3F
VPD_LENGTH: Final = 252
REPORT_LUNS_HEADER: Final = 8
LUN_LENGTH: Final = 8
MOST_LUNS: Final = 256

LUN_LIST: Final = Struct("length" / Int32ub, Padding(4), "luns" / GreedyRange(Bytes(LUN_LENGTH)))  # SPC-4 table 293


@dataclass(frozen=True)
class TestUnitReady(Command[None]):
    """TEST UNIT READY (SPC-4 6.47)."""

    NAME = "TEST UNIT READY"
    repeatable = True
    CDB = BitStruct(opcode(0x00), Padding(40))


@dataclass(frozen=True)
class RequestSense(Command[Sense]):
    """REQUEST SENSE (SPC-4 6.39)."""

    NAME = "REQUEST SENSE"
    CDB = BitStruct(opcode(0x03), Padding(7), "descriptor" / Flag, Padding(16), "length" / U8, Padding(8))
    direction = Direction.IN
    descriptor: bool = False
    length: int = SENSE_LENGTH

    def reply(self, data: bytes) -> Sense:
        return Sense.parse(data)


@dataclass(frozen=True)
class Inquiry(Command[InquiryData]):
    """INQUIRY, standard data (SPC-4 6.4.2)."""

    NAME = "INQUIRY"
    repeatable = True
    CDB = BitStruct(opcode(0x12), Padding(16), "length" / U16, Padding(8))
    direction = Direction.IN
    length: int = STANDARD_LENGTH

    def reply(self, data: bytes) -> InquiryData:
        return InquiryData.parse(data)


@dataclass(frozen=True)
class InquiryVpdBytes(Command[bytes]):
    """INQUIRY, a vital product data page (SPC-4 6.4.3): as much of it as fits."""

    NAME = "INQUIRY (VPD)"
    repeatable = True
    CDB = BitStruct(opcode(0x12), Padding(7), "evpd" / Flag, "page" / U8, "length" / U16, Padding(8))
    direction = Direction.IN
    page: int = 0
    length: int = VPD_LENGTH
    evpd: bool = True

    def reply(self, data: bytes) -> bytes:
        return data

    def __str__(self) -> str:
        return f"INQUIRY of VPD page {self.page:02X}h"


@dataclass(frozen=True)
class ModeSense6(Command[ModeParameters]):
    """MODE SENSE(6) (SPC-4 6.13)."""

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
    subpage: int = 0
    page_control: int = 0
    disable_block_descriptors: bool = False
    length: int = MODE_LENGTH

    def reply(self, data: bytes) -> ModeParameters:
        return ModeParameters.parse(data, long_header=False)


@dataclass(frozen=True)
class ModeSense10(Command[ModeParameters]):
    """MODE SENSE(10) (SPC-4 6.14)."""

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
    subpage: int = 0
    page_control: int = 0
    disable_block_descriptors: bool = False
    long_lba_accepted: bool = False
    length: int = MODE_LENGTH

    def reply(self, data: bytes) -> ModeParameters:
        return ModeParameters.parse(data, long_header=True)


@dataclass(frozen=True)
class ReportLuns(Command[tuple[int, ...]]):
    """REPORT LUNS (SPC-4 6.33): the LUNs, single level."""

    NAME = "REPORT LUNS"
    repeatable = True
    CDB = BitStruct(opcode(0xA0), Padding(8), "select_report" / U8, Padding(24), "length" / U32, Padding(16))
    direction = Direction.IN
    select_report: int = 0
    length: int = REPORT_LUNS_HEADER + MOST_LUNS * LUN_LENGTH

    def reply(self, data: bytes) -> tuple[int, ...]:
        fields = parse(LUN_LIST, data, self.NAME)
        return tuple(_lun(entry) for entry in fields.luns[: fields.length // LUN_LENGTH])


def _lun(entry: bytes) -> int:
    """Peripheral or flat space addressing (SAM-4 4.6.7, 4.6.8): 14 bits below the method."""
    return int.from_bytes(entry[:2], "big") & 0x3FFF


@dataclass(frozen=True)
class PreventAllow(Command[None]):
    """PREVENT ALLOW MEDIUM REMOVAL (SPC-4 6.19)."""

    NAME = "PREVENT ALLOW MEDIUM REMOVAL"
    CDB = BitStruct(opcode(0x1E), Padding(30), "prevent" / U2, Padding(8))
    prevent: int = 0
