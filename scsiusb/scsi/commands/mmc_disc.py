"""Commands of optical drives (MMC-6) that describe the disc: its tracks, sessions and structures."""

from __future__ import annotations

from typing import ClassVar, Final

from construct import BitStruct, Const, Flag, Int8ub, Int16ub, Int32ub, Padding, Struct

from scsiusb.base.dataclass import dataclass
from scsiusb.base.packing import parsed
from scsiusb.scsi.command import SECOND, U2, U4, U8, U16, U32, Command, opcode
from scsiusb.scsi.reply import Reply, listed, parse
from scsiusb.transport.base import Direction

OPTICAL: Final = frozenset({0x05})
SPIN_UP: Final = 60 * SECOND  # timeout where the drive may have to read the disc first
LEAD_OUT: Final = 0xAA  # track number of the lead-out
DATA_TRACK: Final = 0x4  # bit of CONTROL
CD_FRAMES: Final = 75  # blocks in a second
PREGAP: Final = 150  # blocks before LBA 0, from time 00:02:00 on
FIRST_TRACK: Final = 0xA0  # points of a lead-in's entry, beside the tracks, as are the next four
LAST_TRACK: Final = 0xA1
SESSION_LEAD_OUT: Final = 0xA2
NEXT_SESSION: Final = 0xB0
FIRST_LEAD_IN: Final = 0xC0  # point with the start of the first lead-in, whose times run up to 100 minutes, then 0

MOST_TRACKS: Final = 99

TOC_HEADER: Final = Struct("length" / Int16ub, "first" / Int8ub, "last" / Int8ub)
TOC_ENTRY: Final = Struct(
    Padding(1), "how" / BitStruct("adr" / U4, "control" / U4), "track" / Int8ub, Padding(1), "start" / Int32ub
)
FULL_ENTRY: Final = Struct(
    "session" / Int8ub,
    "how" / BitStruct("adr" / U4, "control" / U4),
    Padding(1),
    "point" / Int8ub,
    "minute" / Int8ub,
    "second" / Int8ub,
    "frame" / Int8ub,
    Padding(1),
    "p_minute" / Int8ub,
    "p_second" / Int8ub,
    "p_frame" / Int8ub,
)
TOC_LENGTH: Final = 0x1000  # bytes: more than 99 sessions and tracks
TIMES: Final = (Padding(6), "as_time" / Flag, Padding(1), Padding(4))


@dataclass(frozen=True)
class TocTrack:
    """A track of a table of contents."""

    track: int
    """Track number; AAh: the lead-out."""
    start: int
    """First block; with `as_time` its time, a byte each for minutes, seconds and frames."""
    control: int
    """CONTROL: 4h is a data track, 1h has pre-emphasis, 2h may be copied, 8h has four channels."""
    adr: int
    """ADR: 1h, the position is that of the track."""

    @property
    def is_data(self) -> bool:
        """A data track; false: audio."""
        return bool(self.control & DATA_TRACK)


@dataclass(frozen=True)
class Toc:
    """The table of contents (MMC-6 READ TOC/PMA/ATIP, format 0000b)."""

    first: int
    """Number of the first track."""
    last: int
    """Number of the last track."""
    tracks: tuple[TocTrack, ...]
    """The tracks, and last the lead-out."""
    missing: int
    """Bytes that were announced and did not come."""


def _tracks(data: bytes, name: str) -> Toc:
    head = parse(TOC_HEADER, data, name)
    body, missing = listed(data, 4, max(head.length - 2, 0))
    size = TOC_ENTRY.sizeof()
    rows = [parsed(TOC_ENTRY, body[at : at + size]) for at in range(0, len(body) - size + 1, size)]
    found = tuple(TocTrack(row.track, row.start, row.how.control, row.how.adr) for row in rows)
    return Toc(head.first, head.last, found, missing)


@dataclass(frozen=True)
class ReadToc(Command[Toc]):
    """READ TOC/PMA/ATIP, format 0000b: the table of contents (MMC-6 READ TOC/PMA/ATIP)."""

    NAME = "READ TOC/PMA/ATIP"
    repeatable = True
    accesses_medium = True
    timeout = SPIN_UP
    CDB = BitStruct(opcode(0x43), *TIMES, Padding(4), Padding(24), "track" / U8, "length" / U16, Padding(8))
    direction = Direction.IN
    track: int = 0
    """First track to report; 0: all."""
    as_time: bool = False
    """Report times instead of blocks (TIME)."""
    length: int = TOC_LENGTH
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> Toc:
        """Return the table. Raises MalformedReply."""
        return _tracks(data, self.NAME)


@dataclass(frozen=True)
class ReadSessions(Command[Toc]):
    """READ TOC/PMA/ATIP, format 0001b: the first track of the last session (MMC-6 READ TOC/PMA/ATIP)."""

    NAME = "READ TOC/PMA/ATIP, SESSIONS"
    repeatable = True
    accesses_medium = True
    timeout = SPIN_UP
    CDB = BitStruct(opcode(0x43), *TIMES, "format" / Const(1, U4), Padding(32), "length" / U16, Padding(8))
    direction = Direction.IN
    as_time: bool = False
    """Report times instead of blocks (TIME)."""
    length: int = 12
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> Toc:
        """Return the sessions, with `first` and `last` their numbers. Raises MalformedReply."""
        return _tracks(data, self.NAME)


@dataclass(frozen=True)
class FullTocEntry:
    """An entry of the lead-in of a session."""

    session: int
    point: int
    """1 to 63h: a track; A0h, A1h: first and last track; A2h: the lead-out; B0h: the next session; C0h: the first
    lead-in."""
    control: int
    adr: int
    minute: int
    second: int
    frame: int
    p_minute: int
    """Of the point, as are the next two; in A0h and A1h the track number."""
    p_second: int
    p_frame: int

    @property
    def is_track(self) -> bool:
        """Whether the point is a track's."""
        return 0 < self.point <= MOST_TRACKS

    @property
    def lba(self) -> int:
        """Block of the point's time; negative in the first lead-in (MMC-6 4.2.6.3)."""
        before = 100 if self.point == FIRST_LEAD_IN and self.p_minute >= 90 else 0  # minutes
        return ((self.p_minute - before) * 60 + self.p_second) * CD_FRAMES + self.p_frame - PREGAP


@dataclass(frozen=True)
class FullToc:
    """The entries of the lead-ins of all sessions (MMC-6 READ TOC/PMA/ATIP, format 0010b)."""

    first: int
    """Number of the first session."""
    last: int
    """Number of the last session."""
    entries: tuple[FullTocEntry, ...]
    missing: int
    """Bytes that were announced and did not come."""

    @property
    def sessions(self) -> dict[int, int]:
        """The session of each track."""
        return {entry.point: entry.session for entry in self.entries if entry.is_track}

    @property
    def lead_outs(self) -> dict[int, int]:
        """The block at which each session ends."""
        return {entry.session: entry.lba for entry in self.entries if entry.point == SESSION_LEAD_OUT}


@dataclass(frozen=True)
class ReadFullToc(Command[FullToc]):
    """READ TOC/PMA/ATIP, format 0010b: the entries of all lead-ins (MMC-6 READ TOC/PMA/ATIP)."""

    NAME = "READ TOC/PMA/ATIP, FULL TOC"
    repeatable = True
    accesses_medium = True
    timeout = SPIN_UP
    CDB = BitStruct(
        opcode(0x43), *TIMES, "format" / Const(2, U4), Padding(24), "session" / U8, "length" / U16, Padding(8)
    )
    direction = Direction.IN
    as_time = True
    session: int = 1
    """First session to report."""
    length: int = TOC_LENGTH
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> FullToc:
        """Return the entries. Raises MalformedReply."""
        head = parse(TOC_HEADER, data, self.NAME)
        body, missing = listed(data, 4, max(head.length - 2, 0))
        size = FULL_ENTRY.sizeof()
        rows = [parsed(FULL_ENTRY, body[at : at + size]) for at in range(0, len(body) - size + 1, size)]
        return FullToc(head.first, head.last, tuple(map(_entry, rows)), missing)


def _entry(row: Struct) -> FullTocEntry:
    times = (row.minute, row.second, row.frame, row.p_minute, row.p_second, row.p_frame)
    return FullTocEntry(row.session, row.point, row.how.control, row.how.adr, *times)


@dataclass(frozen=True)
class ReadTocBytes(Command[bytes]):
    """READ TOC/PMA/ATIP of another format: 0011b PMA, 0100b ATIP, 0101b CD-TEXT (MMC-6 READ TOC/PMA/ATIP)."""

    NAME = "READ TOC/PMA/ATIP"
    repeatable = True
    accesses_medium = True
    timeout = SPIN_UP
    CDB = BitStruct(opcode(0x43), *TIMES, "format" / U4, Padding(32), "length" / U16, Padding(8))
    direction = Direction.IN
    format: int
    """3 PMA, 4 ATIP, 5 CD-TEXT."""
    as_time: bool = True
    """Report times (TIME)."""
    length: int = TOC_LENGTH
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> bytes:
        """Return the bytes received, with their header of 4 bytes."""
        return data


DISC_STATES: Final = {0: "blank", 1: "incomplete", 2: "complete", 3: "other"}
SESSION_STATES: Final = {0: "empty", 1: "incomplete", 2: "damaged", 3: "complete"}
DISC_TYPES: Final = {0x00: "CD-DA or CD-ROM", 0x10: "CD-I", 0x20: "CD-ROM XA", 0xFF: "not a CD"}


@dataclass(frozen=True)
class DiscInformation(Reply):
    """The state of the disc (MMC-6 READ DISC INFORMATION, data type 000b)."""

    LAYOUT: ClassVar[Struct] = Struct(
        "length" / Int16ub,
        "head" / BitStruct(Padding(3), "erasable" / Flag, "session" / U2, "disc" / U2),
        "first_track" / Int8ub,
        "sessions_low" / Int8ub,
        "first_low" / Int8ub,
        "last_low" / Int8ub,
        "flags" / BitStruct(Padding(2), "unrestricted" / Flag, Padding(5)),
        "disc_type" / Int8ub,
        "sessions_high" / Int8ub,
        "first_high" / Int8ub,
        "last_high" / Int8ub,
        "identification" / Int32ub,
    )
    disc: int
    """State of the disc, a key of `DISC_STATES`."""
    session: int
    """State of the last session, a key of `SESSION_STATES`."""
    erasable: bool
    """It can be erased or written over."""
    unrestricted: bool
    """Any drive may write it (URU)."""
    disc_type: int
    """A key of `DISC_TYPES`."""
    first_track: int
    sessions: int
    """Number of sessions."""
    last_session_first_track: int
    last_session_last_track: int

    @classmethod
    def parse(cls, data: bytes) -> DiscInformation:
        """Return the state. Raises MalformedReply."""
        row = cls.fields_of(data)
        return cls(
            row.head.disc,
            row.head.session,
            row.head.erasable,
            row.flags.unrestricted,
            row.disc_type,
            row.first_track,
            row.sessions_high << 8 | row.sessions_low,
            row.first_high << 8 | row.first_low,
            row.last_high << 8 | row.last_low,
        )

    @property
    def text(self) -> str:
        """State of the disc as text."""
        return DISC_STATES[self.disc]


@dataclass(frozen=True)
class ReadDiscInformation(Command[DiscInformation]):
    """READ DISC INFORMATION: the state of the disc (MMC-6 READ DISC INFORMATION)."""

    NAME = "READ DISC INFORMATION"
    repeatable = True
    accesses_medium = True
    timeout = SPIN_UP
    CDB = BitStruct(opcode(0x51), Padding(48), "length" / U16, Padding(8))
    direction = Direction.IN
    length: int = 34
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> DiscInformation:
        """Return the state. Raises MalformedReply."""
        return DiscInformation.parse(data)


@dataclass(frozen=True)
class TrackInformation(Reply):
    """The state of a track (MMC-6 READ TRACK INFORMATION)."""

    LAYOUT: ClassVar[Struct] = Struct(
        Padding(2),
        "track_low" / Int8ub,
        "session_low" / Int8ub,
        Padding(1),
        "mode" / BitStruct(Padding(2), "damaged" / Flag, "copy" / Flag, "control" / U4),
        "state" / BitStruct("reserved" / Flag, "blank" / Flag, "packet" / Flag, "fixed" / Flag, "data_mode" / U4),
        "valid" / BitStruct(Padding(6), "last" / Flag, "next" / Flag),
        "start" / Int32ub,
        "next_writable" / Int32ub,
        "free" / Int32ub,
        "packet_size" / Int32ub,
        "blocks" / Int32ub,
    )
    track: int
    """Number, of 8 bits."""
    session: int
    """Number, of 8 bits."""
    start: int
    """First block."""
    blocks: int
    free: int
    """Blocks that can be written."""
    next_writable: int | None
    """Where to write next; None: not valid."""
    control: int
    data_mode: int
    """1 or 2 of a data track; Fh: not known."""
    blank: bool
    reserved: bool
    damaged: bool
    packet: bool
    """Written in packets."""

    @classmethod
    def parse(cls, data: bytes) -> TrackInformation:
        """Return the state. Raises MalformedReply."""
        row = cls.fields_of(data)
        mode, state = row.mode, row.state
        return cls(
            row.track_low,
            row.session_low,
            row.start,
            row.blocks,
            row.free,
            row.next_writable if row.valid.next else None,
            mode.control,
            state.data_mode,
            state.blank,
            state.reserved,
            mode.damaged,
            state.packet,
        )


@dataclass(frozen=True)
class ReadTrackInformation(Command[TrackInformation]):
    """READ TRACK INFORMATION: the state of a track (MMC-6 READ TRACK INFORMATION)."""

    NAME = "READ TRACK INFORMATION"
    repeatable = True
    accesses_medium = True
    timeout = SPIN_UP
    device_types = OPTICAL
    CDB = BitStruct(opcode(0x52), Padding(6), "kind" / U2, "number" / U32, Padding(8), "length" / U16, Padding(8))
    direction = Direction.IN
    number: int = 1
    """An LBA, track or session, as `kind` says; FFh with kind 1: the invisible track."""
    kind: int = 1
    """ADDRESS/NUMBER TYPE: 0 LBA, 1 track, 2 session."""
    length: int = 36
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> TrackInformation:
        """Return the state. Raises MalformedReply."""
        return TrackInformation.parse(data)


STRUCTURE: Final = Struct("length" / Int16ub, Padding(2))


@dataclass(frozen=True)
class ReadDiscStructure(Command[bytes]):
    """READ DISC STRUCTURE: what is recorded on a DVD or BD beside the user data (MMC-6 READ DISC STRUCTURE)."""

    NAME = "READ DISC STRUCTURE"
    repeatable = True
    accesses_medium = True
    timeout = SPIN_UP
    device_types = OPTICAL
    CDB = BitStruct(
        opcode(0xAD), Padding(4), "medium" / U4, "address" / U32, "layer" / U8, "format" / U8, "length" / U16,
        "agid" / U2, Padding(14),
    )  # fmt: skip
    direction = Direction.IN
    format: int = 0
    """0 physical format, 1 copyright, 4 manufacturing, FFh list of structures."""
    medium: int = 0
    """MEDIA TYPE: 0 DVD, 1 BD."""
    layer: int = 0
    address: int = 0
    agid: int = 0
    length: int = 0x1000
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> bytes:
        """Return the structure. Raises MalformedReply."""
        return listed(data, 4, max(parse(STRUCTURE, data, self.NAME).length - 2, 0))[0]
