"""Commands that describe a disc and its drive (MMC-6), as declarations."""

from __future__ import annotations

from typing import ClassVar, Final

from construct import (
    BitsInteger,
    BitStruct,
    Flag,
    GreedyBytes,
    GreedyRange,
    Int8ub,
    Int16ub,
    Int32ub,
    Padding,
    Prefixed,
    Struct,
)

from scsiusb.base.dataclass import dataclass
from scsiusb.scsi.command import U2, U4, U8, U16, Command, opcode
from scsiusb.scsi.reply import Reply, parse
from scsiusb.transport.base import Direction

LEAD_OUT: Final = 0xAA  # track number
DATA_TRACK: Final = 0x04  # of CONTROL
TOC: Final = Struct(
    "length" / Int16ub,
    "first_track" / Int8ub,
    "last_track" / Int8ub,
    "tracks"
    / GreedyRange(
        Struct(
            Padding(1),
            "flags" / BitStruct("adr" / BitsInteger(4), "control" / BitsInteger(4)),
            "number" / Int8ub,
            Padding(1),
            "lba" / Int32ub,
        )
    ),
)


@dataclass(frozen=True)
class Track:
    """A track of a disc; the last one is the lead-out, AAh."""

    number: int
    lba: int
    control: int
    """Bit 2: data; else bit 0: pre-emphasis, bit 3: four channels; bit 1: copying is permitted."""

    @property
    def is_data(self) -> bool:
        """Whether it has data, and no audio."""
        return bool(self.control & DATA_TRACK)


@dataclass(frozen=True)
class TableOfContents:
    """The tracks of a disc."""

    first_track: int
    last_track: int
    tracks: tuple[Track, ...]


@dataclass(frozen=True)
class ReadToc(Command[TableOfContents]):
    """READ TOC/PMA/ATIP, format 0000b: list the tracks from `track` on (MMC-6 6.25.2.4)."""

    NAME = "READ TOC/PMA/ATIP"
    repeatable = True
    CDB = BitStruct(
        opcode(0x43),
        Padding(6),
        "msf" / Flag,
        Padding(5),
        "format" / U4,
        Padding(24),
        "track" / U8,
        "length" / U16,
        Padding(8),
    )
    direction = Direction.IN
    track: int = 0
    """First track."""
    msf: bool = False
    """Addresses as minutes, seconds, frames; else blocks."""
    format: int = 0
    """Only 0 has the layout of the reply here."""
    length: int = 4 + 8 * 100
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> TableOfContents:
        """Return the tracks. Raises MalformedReply."""
        fields = parse(TOC, data, self.NAME)
        rows = fields.tracks[: max(0, fields.length - 2) // 8]
        tracks = tuple(Track(row.number, row.lba, row.flags.control) for row in rows)
        return TableOfContents(fields.first_track, fields.last_track, tracks)


SESSIONS: Final = 1  # format of READ TOC


@dataclass(frozen=True)
class Feature:
    """A feature of a drive."""

    code: int
    name: str
    version: int
    persistent: bool
    """It is always current."""
    current: bool
    """It can be used with the medium that is in the drive."""
    data: bytes


@dataclass(frozen=True)
class Configuration:
    """What a drive can do."""

    profile: int
    """The profile of the medium that is in the drive, a key of `PROFILES`; 0: none."""
    features: tuple[Feature, ...]


FEATURES: Final = {  # MMC-6 table 92
    0x0000: "profile list",
    0x0001: "core",
    0x0002: "morphing",
    0x0003: "removable medium",
    0x0004: "write protect",
    0x0010: "random readable",
    0x001D: "multi-read",
    0x001E: "CD read",
    0x001F: "DVD read",
    0x0020: "random writable",
    0x0021: "incremental streaming writable",
    0x0023: "formattable",
    0x0024: "defect management",
    0x0025: "write once",
    0x0026: "restricted overwrite",
    0x002A: "DVD+RW",
    0x002B: "DVD+R",
    0x002D: "CD track at once",
    0x002E: "CD mastering",
    0x002F: "DVD-R/-RW write",
    0x0037: "CD-RW media write",
    0x0040: "BD read",
    0x0041: "BD write",
    0x0100: "power management",
    0x0101: "SMART",
    0x0103: "CD audio",
    0x0105: "timeout",
    0x0106: "DVD CSS",
    0x0107: "real time streaming",
    0x0108: "drive serial number",
    0x010A: "disc control blocks",
    0x010B: "DVD CPRM",
    0x010C: "firmware information",
    0x010D: "AACS",
}
PROFILES: Final = {  # MMC-6 table 94
    0x0001: "non-removable disk",
    0x0002: "removable disk",
    0x0008: "CD-ROM",
    0x0009: "CD-R",
    0x000A: "CD-RW",
    0x0010: "DVD-ROM",
    0x0011: "DVD-R",
    0x0012: "DVD-RAM",
    0x0013: "DVD-RW restricted overwrite",
    0x0014: "DVD-RW sequential",
    0x0015: "DVD-R dual layer sequential",
    0x001A: "DVD+RW",
    0x001B: "DVD+R",
    0x002B: "DVD+R dual layer",
    0x0040: "BD-ROM",
    0x0041: "BD-R sequential",
    0x0042: "BD-R random",
    0x0043: "BD-RE",
}
CONFIGURATION: Final = Struct(
    "length" / Int32ub,
    Padding(2),
    "profile" / Int16ub,
    "features"
    / GreedyRange(
        Struct(
            "code" / Int16ub,
            "flags" / BitStruct(Padding(2), "version" / BitsInteger(4), "persistent" / Flag, "current" / Flag),
            "data" / Prefixed(Int8ub, GreedyBytes),
        )
    ),
)


@dataclass(frozen=True)
class GetConfiguration(Command[Configuration]):
    """GET CONFIGURATION: list the features of a drive (MMC-6 6.6)."""

    NAME = "GET CONFIGURATION"
    repeatable = True
    CDB = BitStruct(opcode(0x46), Padding(6), "which" / U2, "first" / U16, Padding(24), "length" / U16, Padding(8))
    direction = Direction.IN
    which: int = 0
    """0: all features, 1: those that are current, 2: only `first`."""
    first: int = 0
    """First feature to list."""
    length: int = 4096
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> Configuration:
        """Return the features that came whole. Raises MalformedReply."""
        fields = parse(CONFIGURATION, data, self.NAME)
        rows = (
            Feature(
                row.code,
                FEATURES.get(row.code, f"{row.code:04x}"),
                row.flags.version,
                row.flags.persistent,
                row.flags.current,
                bytes(row.data),
            )
            for row in fields.features
        )
        return Configuration(fields.profile, tuple(rows))


DISC_STATUSES: Final = ("empty", "incomplete", "complete", "other")
SESSION_STATES: Final = ("empty", "incomplete", "damaged", "complete")


@dataclass(frozen=True)
class DiscInformation(Reply):
    """READ DISC INFORMATION, standard data (MMC-6 6.21.3.1)."""

    LAYOUT: ClassVar[Struct] = Struct(
        Padding(2),
        "a" / BitStruct(Padding(3), "erasable" / Flag, "session" / U2, "disc" / U2),
        "first_track" / Int8ub,
        "sessions_low" / Int8ub,
        "first_track_low" / Int8ub,
        "last_track_low" / Int8ub,
        Padding(2),
        "sessions_high" / Int8ub,
        "first_track_high" / Int8ub,
        "last_track_high" / Int8ub,
    )
    status: str
    """One of `DISC_STATUSES`."""
    last_session: str
    """One of `SESSION_STATES`."""
    erasable: bool
    sessions: int
    first_track: int
    """Of the disc."""
    last_session_first_track: int
    last_session_last_track: int

    @classmethod
    def parse(cls, data: bytes) -> DiscInformation:
        """Parse the reply. Raises MalformedReply."""
        fields = cls.fields_of(data)
        return cls(
            DISC_STATUSES[fields.a.disc],
            SESSION_STATES[fields.a.session],
            fields.a.erasable,
            fields.sessions_high << 8 | fields.sessions_low,
            fields.first_track,
            fields.first_track_high << 8 | fields.first_track_low,
            fields.last_track_high << 8 | fields.last_track_low,
        )


@dataclass(frozen=True)
class ReadDiscInformation(Command[DiscInformation]):
    """READ DISC INFORMATION: report sessions and tracks of a disc, and whether it can be written (MMC-6 6.21)."""

    NAME = "READ DISC INFORMATION"
    repeatable = True
    CDB = BitStruct(opcode(0x51), Padding(48), "length" / U16, Padding(8))
    direction = Direction.IN
    length: int = 34
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> DiscInformation:
        """Return the information. Raises MalformedReply."""
        return DiscInformation.parse(data)
