"""Third-party copy (SPC-4): EXTENDED COPY and what a unit supports of it."""

from __future__ import annotations

from typing import ClassVar

from construct import BitStruct, Flag, Int8ub, Int16ub, Int32ub, Padding, Struct

from scsiusb.base.dataclass import dataclass
from scsiusb.scsi.command import SECOND, U32, Command, opcode, service
from scsiusb.scsi.reply import Reply
from scsiusb.transport.base import Direction


@dataclass(frozen=True)
class CopyParameters(Reply):
    """What a unit supports of EXTENDED COPY (SPC-4 6.22)."""

    LAYOUT: ClassVar[Struct] = Struct(
        Padding(4),
        "head" / BitStruct(Padding(7), "no_list_id" / Flag),
        Padding(3),
        "descriptors" / Int16ub,
        "segments" / Int16ub,
        "list_length" / Int32ub,
        "segment_length" / Int32ub,
        "inline_length" / Int32ub,
        Padding(8),
        Padding(2),
        "total_copies" / Int16ub,
        "copies" / Int8ub,
        "granularity" / Int8ub,
        Padding(6),
    )
    descriptors: int
    """Most CSCD descriptors, which name the devices."""
    segments: int
    """Most segment descriptors."""
    list_length: int
    """Most bytes of descriptors."""
    segment_length: int
    """Most bytes of one segment."""
    inline_length: int
    """Most bytes of inline data."""
    copies: int
    """Copies at the same time."""


@dataclass(frozen=True)
class ReceiveCopyParameters(Command[CopyParameters]):
    """RECEIVE COPY OPERATING PARAMETERS: what the unit supports of EXTENDED COPY (SPC-4 6.22)."""

    NAME = "RECEIVE COPY OPERATING PARAMETERS"
    repeatable = True
    CDB = BitStruct(opcode(0x84), Padding(3), service(0x03), Padding(64), "length" / U32, Padding(16))
    direction = Direction.IN
    length: int = 255
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> CopyParameters:
        """Return the parameters. Raises MalformedReply."""
        return CopyParameters.parse(data)


@dataclass(frozen=True)
class ExtendedCopy(Command[None]):
    """EXTENDED COPY(LID1): let the device copy by itself, as a parameter list says (SPC-4 6.5)."""

    NAME = "EXTENDED COPY"
    timeout = 600 * SECOND
    accesses_medium = True
    CDB = BitStruct(opcode(0x83), Padding(3), service(0x00), Padding(64), "length" / U32, Padding(16))
    direction = Direction.OUT
    payload: bytes = b""
    """The parameter list (SPC-4 6.5.2)."""

    @property
    def length(self) -> int:
        """Bytes of data-out."""
        return len(self.payload)
