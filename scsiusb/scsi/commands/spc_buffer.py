"""READ BUFFER and WRITE BUFFER (SPC-4): the echo buffer, and the download of firmware."""

from __future__ import annotations

from typing import ClassVar, Final

from construct import BitsInteger, BitStruct, Flag, Int8ub, Int24ub, Padding, Struct

from scsiusb.base.dataclass import dataclass
from scsiusb.scsi.command import SECOND, U3, U5, U8, U24, Command, opcode
from scsiusb.scsi.reply import Reply
from scsiusb.transport.base import Direction

DATA: Final = 0x02  # modes of both commands (SPC-4 tables 227 and 318)
DESCRIPTOR: Final = 0x03
ECHO: Final = 0x0A
ECHO_DESCRIPTOR: Final = 0x0B
DOWNLOAD_SAVE: Final = 0x05
DOWNLOAD_OFFSETS_SAVE: Final = 0x07
DOWNLOAD_DEFER: Final = 0x0E
ACTIVATE: Final = 0x0F
FIRMWARE: Final = 300 * SECOND  # timeout of a download, which erases and writes flash memory


@dataclass(frozen=True)
class BufferDescriptor(Reply):
    """Size and alignment of a buffer (SPC-4 6.18.5)."""

    LAYOUT: ClassVar[Struct] = Struct("boundary" / Int8ub, "capacity" / Int24ub)
    boundary: int
    """Offsets are multiples of two to this power; FFh: only offset 0."""
    capacity: int
    """Bytes."""


@dataclass(frozen=True)
class EchoDescriptor(Reply):
    """Size of the echo buffer (SPC-4 6.18.8)."""

    LAYOUT: ClassVar[Struct] = Struct(
        "head" / BitStruct(Padding(7), "overwritten" / Flag),
        Padding(1),
        "tail" / BitStruct(Padding(3), "capacity" / BitsInteger(13)),
    )
    overwritten: bool
    """The unit says so if another host overwrote the buffer (EBOS)."""
    capacity: int
    """Bytes."""

    @classmethod
    def parse(cls, data: bytes) -> EchoDescriptor:
        """Return the descriptor. Raises MalformedReply."""
        fields = cls.fields_of(data)
        return cls(fields.head.overwritten, fields.tail.capacity)


BUFFER: Final = ("specific" / U3, "mode" / U5, "buffer" / U8, "offset" / U24, "length" / U24, Padding(8))


@dataclass(frozen=True)
class ReadBuffer(Command[bytes]):
    """READ BUFFER: bytes of a buffer of the unit (SPC-4 6.18); parse descriptors with the types of this module."""

    NAME = "READ BUFFER"
    repeatable = True
    CDB = BitStruct(opcode(0x3C), *BUFFER)
    direction = Direction.IN
    mode: int = DATA
    """MODE: 02h data, 03h descriptor, 0Ah echo buffer, 0Bh its descriptor, 1Ch error history."""
    length: int = 4
    """Allocation length in bytes."""
    buffer: int = 0
    """BUFFER ID."""
    offset: int = 0
    """First byte in the buffer."""
    specific: int = 0
    """MODE SPECIFIC."""

    def reply(self, data: bytes) -> bytes:
        """Return the bytes received."""
        return data


@dataclass(frozen=True)
class WriteBuffer(Command[None]):
    """WRITE BUFFER: write to a buffer of the unit, or its firmware (SPC-4 6.49). Wrong firmware destroys a device."""

    NAME = "WRITE BUFFER"
    timeout = FIRMWARE
    CDB = BitStruct(opcode(0x3B), *BUFFER)
    direction = Direction.OUT
    payload: bytes = b""
    """Data to write."""
    mode: int = DATA
    """MODE: 02h data, 0Ah echo buffer; of firmware: 05h, 07h (with offsets), 0Eh (to activate later), 0Fh activate."""
    buffer: int = 0
    """BUFFER ID."""
    offset: int = 0
    """First byte in the buffer."""
    specific: int = 0
    """MODE SPECIFIC."""

    @property
    def length(self) -> int:
        """Bytes of data-out."""
        return len(self.payload)
