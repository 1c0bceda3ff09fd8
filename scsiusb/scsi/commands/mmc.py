"""Commands of CD and DVD drives (MMC-6), as declarations."""

from __future__ import annotations

from typing import ClassVar, Final

from construct import BitsInteger, BitStruct, Flag, Int8ub, Padding, Struct

from scsiusb.base.dataclass import dataclass
from scsiusb.scsi.command import U8, U16, Command, opcode
from scsiusb.scsi.reply import Reply
from scsiusb.transport.base import Direction

MEDIA_CLASS: Final = 4  # notification class "media" (MMC-6 table 289)
MEDIA_EVENT_LENGTH: Final = 8  # bytes: event header and media event descriptor, 4 each


@dataclass(frozen=True)
class MediaEvent(Reply):
    """Reply to GET EVENT STATUS NOTIFICATION of the media class: header and event in one layout (MMC-6 6.6.2.7)."""

    LAYOUT: ClassVar[Struct] = Struct(
        Padding(2),
        "head" / BitStruct("no_event" / Flag, Padding(4), "notification_class" / BitsInteger(3)),
        Padding(1),
        "event" / Int8ub,
        "status" / BitStruct(Padding(6), "present" / Flag, "tray_open" / Flag),
        Padding(2),
    )
    no_event: bool
    """The drive does not report media events (NEA bit set, or another class): the other fields mean nothing."""
    present: bool
    """A medium is in the drive."""
    tray_open: bool
    """The tray or door is open."""

    @classmethod
    def parse(cls, data: bytes) -> MediaEvent:
        """See `Reply.parse`; the event header decides `no_event`."""
        fields = cls.fields_of(data)
        is_valid = not fields.head.no_event and fields.head.notification_class == MEDIA_CLASS
        return cls(not is_valid, fields.status.present, fields.status.tray_open)


@dataclass(frozen=True)
class GetMediaEvent(Command[MediaEvent]):
    """GET EVENT STATUS NOTIFICATION, polled: report an event of the medium or the tray (MMC-6 6.6)."""

    NAME = "GET EVENT STATUS NOTIFICATION"
    CDB = BitStruct(
        opcode(0x4A), Padding(7), "polled" / Flag, Padding(16), "classes" / U8, Padding(16), "length" / U16, Padding(8)
    )
    direction = Direction.IN
    length: int = MEDIA_EVENT_LENGTH
    """Allocation length in bytes."""
    polled: bool = True
    """Report at once what is pending (POLLED); false asks for asynchronous operation."""
    classes: int = 1 << MEDIA_CLASS
    """Notification classes to report, one bit each."""

    def reply(self, data: bytes) -> MediaEvent:
        """Return the event. Raises MalformedReply."""
        return MediaEvent.parse(data)
