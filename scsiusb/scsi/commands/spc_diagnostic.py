"""SEND DIAGNOSTIC, RECEIVE DIAGNOSTIC RESULTS and LOG SELECT (SPC-4): self-tests, pages of enclosures, counters."""

from __future__ import annotations

from typing import Final

from construct import BitsInteger, BitStruct, Flag, Padding

from scsiusb.base.dataclass import dataclass
from scsiusb.scsi.command import SECOND, U2, U3, U8, U16, Command, opcode
from scsiusb.transport.base import Direction

BACKGROUND_SHORT, BACKGROUND_LONG, ABORT, FOREGROUND_SHORT, FOREGROUND_LONG = 1, 2, 4, 5, 6  # SELF-TEST CODE
FOREGROUND: Final = 2 * 3600 * SECOND  # timeout: a foreground self-test answers when it has ended
PAGE_LENGTH: Final = 0x1000
CUMULATIVE: Final = 1  # PAGE CONTROL


@dataclass(frozen=True)
class SendDiagnostic(Command[None]):
    """SEND DIAGNOSTIC: run a self-test, or send a diagnostic page (SPC-4 6.42).

    Of an empty page, `code` or `default_test` says what is tested. With `code` 1 and 2 the test runs in the background,
    and its result is in the log page 10h.
    """

    NAME = "SEND DIAGNOSTIC"
    CDB = BitStruct(
        opcode(0x1D),
        "code" / U3,
        "page_format" / Flag,
        Padding(1),
        "default_test" / Flag,
        "device_offline" / Flag,
        "unit_offline" / Flag,
        Padding(8),
        "length" / U16,
        Padding(8),
    )
    timeout = FOREGROUND
    code: int = 0
    """SELF-TEST CODE: 1 background short, 2 background extended, 4 abort, 5 foreground short, 6 foreground extended."""
    default_test: bool = False
    """Run the unit's default self-test (SELFTEST); `code` must be 0."""
    device_offline: bool = False
    """The test may change what the other units of the device do (DEVOFFL)."""
    unit_offline: bool = False
    """The test may change what is on the medium (UNITOFFL)."""
    page: bytes = b""
    """A diagnostic page, with its header."""

    @property
    def direction(self) -> Direction:  # type: ignore[override]
        """Data-out if there is a page."""
        return Direction.OUT if self.page else Direction.NONE

    @property
    def page_format(self) -> bool:
        """Whether a page as the standard has it is sent (PF)."""
        return bool(self.page)

    @property
    def length(self) -> int:
        """Bytes of the page."""
        return len(self.page)

    @property
    def payload(self) -> bytes:
        """The page."""
        return self.page


@dataclass(frozen=True)
class ReceiveDiagnosticResults(Command[bytes]):
    """RECEIVE DIAGNOSTIC RESULTS: a diagnostic page, cut at `length` bytes (SPC-4 6.27).

    `scsiusb.scsi.pages.enclosure` parses those of an enclosure.
    """

    NAME = "RECEIVE DIAGNOSTIC RESULTS"
    CDB = BitStruct(opcode(0x1C), Padding(7), "valid" / Flag, "page" / U8, "length" / U16, Padding(8))
    direction = Direction.IN
    page: int = 0
    """Page code; 00h lists those that the unit has."""
    valid: bool = True
    """Return that page (PCV); else the result of the last SEND DIAGNOSTIC."""
    length: int = PAGE_LENGTH
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> bytes:
        """Return the page with its header."""
        return data


@dataclass(frozen=True)
class LogSelect(Command[None]):
    """LOG SELECT: set log parameters, or reset the counters of a page, or of all (SPC-4 6.7)."""

    NAME = "LOG SELECT"
    CDB = BitStruct(
        opcode(0x4C),
        Padding(6),
        "reset" / Flag,
        "save" / Flag,
        "control" / U2,
        "page" / BitsInteger(6),
        "subpage" / U8,
        Padding(24),
        "length" / U16,
        Padding(8),
    )
    page: int = 0
    """Page code; 0 with subpage 0: all pages."""
    subpage: int = 0
    reset: bool = False
    """Reset the parameters (PCR); `parameters` must be empty."""
    save: bool = False
    """Save them over a loss of power (SP)."""
    control: int = CUMULATIVE
    """PAGE CONTROL: 0 threshold, 1 cumulative, 2 and 3 their defaults."""
    parameters: bytes = b""
    """Log pages, with their headers."""

    @property
    def direction(self) -> Direction:  # type: ignore[override]
        """Data-out if there are parameters."""
        return Direction.OUT if self.parameters else Direction.NONE

    @property
    def length(self) -> int:
        """Bytes of the parameters."""
        return len(self.parameters)

    @property
    def payload(self) -> bytes:
        """The parameters."""
        return self.parameters
