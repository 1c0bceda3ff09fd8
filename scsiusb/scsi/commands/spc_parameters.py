"""Commands that change mode parameters, and read log parameters (SPC-4), as declarations."""

from __future__ import annotations

from construct import BitStruct, Flag, Padding

from scsiusb.base.dataclass import dataclass
from scsiusb.scsi.command import U2, U6, U8, U16, Command, opcode
from scsiusb.scsi.pages.log import LogPage
from scsiusb.transport.base import Direction

HEADER_6 = 4  # bytes
HEADER_10 = 8


@dataclass(frozen=True)
class ModeSelect6(Command[None]):
    """MODE SELECT(6): change mode pages; the header is of 4 bytes, with no block descriptor (SPC-4 6.11)."""

    NAME = "MODE SELECT(6)"
    CDB = BitStruct(
        opcode(0x15),
        Padding(3),
        "page_format" / Flag,
        Padding(3),
        "save" / Flag,
        Padding(16),
        "length" / U8,
        Padding(8),
    )
    direction = Direction.OUT
    pages: bytes
    """The pages, whole, with the PS bit cleared."""
    save: bool = False
    """Keep the values also without power (SP)."""
    page_format: bool = True
    """The parameters are pages (PF)."""

    @property
    def length(self) -> int:
        """Bytes of the header and the pages."""
        return HEADER_6 + len(self.pages)

    @property
    def payload(self) -> bytes:
        """The header, with its reserved fields zero, and the pages."""
        return bytes(HEADER_6) + self.pages


@dataclass(frozen=True)
class ModeSelect10(Command[None]):
    """MODE SELECT(10): change mode pages; the header is of 8 bytes, with no block descriptor (SPC-4 6.12)."""

    NAME = "MODE SELECT(10)"
    CDB = BitStruct(
        opcode(0x55),
        Padding(3),
        "page_format" / Flag,
        Padding(3),
        "save" / Flag,
        Padding(40),
        "length" / U16,
        Padding(8),
    )
    direction = Direction.OUT
    pages: bytes
    """The pages, whole, with the PS bit cleared."""
    save: bool = False
    """Keep the values also without power (SP)."""
    page_format: bool = True
    """The parameters are pages (PF)."""

    @property
    def length(self) -> int:
        """Bytes of the header and the pages."""
        return HEADER_10 + len(self.pages)

    @property
    def payload(self) -> bytes:
        """The header, with its reserved fields zero, and the pages."""
        return bytes(HEADER_10) + self.pages


@dataclass(frozen=True)
class LogSense(Command[LogPage]):
    """LOG SENSE: report a log page (SPC-4 6.8)."""

    NAME = "LOG SENSE"
    repeatable = True
    CDB = BitStruct(
        opcode(0x4D),
        Padding(7),
        "save" / Flag,  # SP
        "page_control" / U2,  # PC
        "page" / U6,
        "subpage" / U8,
        Padding(8),
        "pointer" / U16,
        "length" / U16,
        Padding(8),
    )
    direction = Direction.IN
    page: int = 0
    """Page code; 0 lists the pages that there are."""
    subpage: int = 0
    """Subpage code; FFh of page 0 lists subpages, too."""
    page_control: int = 1
    """Values to report: 0 thresholds, 1 cumulative, 2 default thresholds, 3 default cumulative values."""
    pointer: int = 0
    """First parameter to report."""
    save: bool = False
    """Save the parameters first (SP)."""
    length: int = 4096
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> LogPage:
        """Return the page. Raises MalformedReply below 4 bytes."""
        return LogPage.parse(data)
