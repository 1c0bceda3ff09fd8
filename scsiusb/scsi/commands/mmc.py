"""The commands of CD and DVD drives (MMC-6), as declarations."""

from __future__ import annotations

from typing import ClassVar, Final

from construct import BitsInteger, BitStruct, Flag, Int8ub, Padding, Struct

from scsiusb.base.dataclass import dataclass
from scsiusb.scsi.command import U8, U16, Command, opcode
from scsiusb.scsi.reply import Reply
from scsiusb.transport.base import Direction

MEDIA_CLASS: Final = 4  # MMC-6 table 289
MEDIA_EVENT_LENGTH: Final = 8


@dataclass(frozen=True)
class MediaEvent(Reply):
    """The media event of GET EVENT STATUS NOTIFICATION (MMC-6 6.6.2.7), its header flattened in."""

    LAYOUT: ClassVar[Struct] = Struct(
        Padding(2),
        "head" / BitStruct("no_event" / Flag, Padding(4), "notification_class" / BitsInteger(3)),
        Padding(1),
        "event" / Int8ub,
        "status" / BitStruct(Padding(6), "present" / Flag, "tray_open" / Flag),
        Padding(2),
    )
    no_event: bool
    """NEA: the drive has no media events to tell, and the rest means nothing."""
    present: bool
    tray_open: bool

    @classmethod
    def parse(cls, data: bytes) -> MediaEvent:
        fields = cls.fields_of(data)
        told = not fields.head.no_event and fields.head.notification_class == MEDIA_CLASS
        return cls(not told, fields.status.present, fields.status.tray_open)


@dataclass(frozen=True)
class GetMediaEvent(Command[MediaEvent]):
    """GET EVENT STATUS NOTIFICATION, polled, for the media class alone (MMC-6 6.6)."""

    NAME = "GET EVENT STATUS NOTIFICATION"
    CDB = BitStruct(
        opcode(0x4A), Padding(7), "polled" / Flag, Padding(16), "classes" / U8, Padding(16), "length" / U16, Padding(8)
    )
    direction = Direction.IN
    length: int = MEDIA_EVENT_LENGTH
    polled: bool = True
    classes: int = 1 << MEDIA_CLASS

    def reply(self, data: bytes) -> MediaEvent:
        return MediaEvent.parse(data)
