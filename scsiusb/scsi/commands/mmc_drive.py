"""Commands of optical drives (MMC-6) that describe and control the drive."""

from __future__ import annotations

from typing import ClassVar, Final

from construct import BitStruct, Flag, Int8ub, Int16ub, Int24ub, Int32ub, Padding, Struct

from scsiusb.base.dataclass import dataclass
from scsiusb.base.packing import parsed
from scsiusb.scsi.command import SECOND, U2, U3, U4, U5, U8, U16, U32, Command, opcode
from scsiusb.scsi.commands.mmc_disc import OPTICAL
from scsiusb.scsi.reply import Reply, entries, listed, parse
from scsiusb.transport.base import Direction

PROFILES: Final = {  # MMC-6 table 100
    0x0001: "non-removable disk",
    0x0002: "removable disk",
    0x0008: "CD-ROM",
    0x0009: "CD-R",
    0x000A: "CD-RW",
    0x0010: "DVD-ROM",
    0x0011: "DVD-R",
    0x0012: "DVD-RAM",
    0x0013: "DVD-RW, restricted overwrite",
    0x0014: "DVD-RW, sequential",
    0x0015: "DVD-R DL, sequential",
    0x0016: "DVD-R DL, layer jump",
    0x001A: "DVD+RW",
    0x001B: "DVD+R",
    0x002A: "DVD+RW DL",
    0x002B: "DVD+R DL",
    0x0040: "BD-ROM",
    0x0041: "BD-R, sequential",
    0x0042: "BD-R, random",
    0x0043: "BD-RE",
}
FEATURES: Final = {  # MMC-6 table 99
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
    0x0024: "hardware defect management",
    0x0026: "restricted overwrite",
    0x002A: "DVD+RW",
    0x002B: "DVD+R",
    0x002D: "CD track at once",
    0x002E: "CD mastering",
    0x002F: "DVD-R/-RW write",
    0x0033: "layer jump recording",
    0x0037: "CD-RW media write support",
    0x003B: "DVD+R DL",
    0x0040: "BD read",
    0x0041: "BD write",
    0x0100: "power management",
    0x0103: "CD audio external play",
    0x0104: "microcode upgrade",
    0x0105: "timeout",
    0x0106: "DVD CSS",
    0x0107: "real time streaming",
    0x0108: "drive serial number",
    0x010A: "disc control blocks",
    0x010B: "DVD CPRM",
    0x010C: "firmware information",
    0x010D: "AACS",
}
CONFIGURATION: Final = Struct("length" / Int32ub, Padding(2), "profile" / Int16ub)
FEATURE: Final = Struct(
    "code" / Int16ub,
    "flags" / BitStruct(Padding(2), "version" / U4, "persistent" / Flag, "current" / Flag),
    "length" / Int8ub,
)
PROFILE_LIST: Final = 0x0000
CONFIGURATION_LENGTH: Final = 0x2000


def profile_text(profile: int) -> str:
    """Return the name of a profile."""
    return PROFILES.get(profile, "none" if profile == 0 else f"profile {profile:04X}h")


@dataclass(frozen=True)
class Feature:
    """A feature of a drive (MMC-6 5.2)."""

    code: int
    """A key of `FEATURES`."""
    version: int
    persistent: bool
    """Always current."""
    current: bool
    """Can be used now, with this disc."""
    data: bytes
    """The descriptor after its header."""

    @property
    def name(self) -> str:
        """Name of the feature."""
        return FEATURES.get(self.code, "vendor specific" if self.code >= 0xFF00 else f"feature {self.code:04X}h")


@dataclass(frozen=True)
class Configuration:
    """What a drive can do, and what with the disc that is in it (MMC-6 GET CONFIGURATION)."""

    profile: int
    """The current profile, a key of `PROFILES`; 0: none."""
    features: tuple[Feature, ...]
    missing: int
    """Bytes that were announced and did not come."""

    @property
    def profiles(self) -> tuple[int, ...]:
        """All profiles of the drive."""
        data = next((each.data for each in self.features if each.code == PROFILE_LIST), b"")
        return tuple(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data) - 3, 4))


@dataclass(frozen=True)
class GetConfiguration(Command[Configuration]):
    """GET CONFIGURATION: profiles and features of a drive (MMC-6 GET CONFIGURATION)."""

    NAME = "GET CONFIGURATION"
    repeatable = True
    CDB = BitStruct(opcode(0x46), Padding(6), "kind" / U2, "start" / U16, Padding(24), "length" / U16, Padding(8))
    direction = Direction.IN
    kind: int = 0
    """RT: 0 all features, 1 the current ones, 2 only the feature `start`."""
    start: int = 0
    """First feature to report."""
    length: int = CONFIGURATION_LENGTH
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> Configuration:
        """Return the configuration. Raises MalformedReply."""
        head = parse(CONFIGURATION, data, self.NAME)
        body, missing = listed(data, 8, max(head.length - 4, 0))
        found = []
        while len(body) >= FEATURE.sizeof():
            row = parsed(FEATURE, body)
            end = FEATURE.sizeof() + row.length
            flags = row.flags
            rest = body[FEATURE.sizeof() : end]
            found.append(Feature(row.code, flags.version, flags.persistent, flags.current, rest))
            body = body[end:]
        return Configuration(head.profile, tuple(found), missing)


@dataclass(frozen=True)
class Mechanism(Reply):
    """The state of the loading mechanism (MMC-6 MECHANISM STATUS)."""

    LAYOUT: ClassVar[Struct] = Struct(
        "first" / BitStruct("fault" / Flag, "changer" / U2, "slot" / U5),
        "second" / BitStruct("mechanism" / U3, "door_open" / Flag, Padding(4)),
        "lba" / Int24ub,
        "slots" / Int8ub,
        "length" / Int16ub,
    )
    fault: bool
    """The changer has failed."""
    slot: int
    """The current slot."""
    changer: int
    """0 ready, 1 loading, 2 unloading, 3 initializing."""
    mechanism: int
    """0 idle, 1 playing, 2 scanning, 3 other, 7 no information."""
    door_open: bool
    lba: int
    """Where the drive is reading."""
    discs: tuple[bool, ...]
    """Whether there is a disc in each slot of a changer."""

    @classmethod
    def parse(cls, data: bytes) -> Mechanism:
        """Return the state. Raises MalformedReply."""
        row = cls.fields_of(data)
        table = listed(data, 8, row.length)[0]
        discs = tuple(bool(table[at] & 0x80) for at in range(0, len(table) - 3, 4))
        first, second = row.first, row.second
        return cls(first.fault, first.slot, first.changer, second.mechanism, second.door_open, row.lba, discs)


@dataclass(frozen=True)
class MechanismStatus(Command[Mechanism]):
    """MECHANISM STATUS: the state of the tray or changer (MMC-6 MECHANISM STATUS)."""

    NAME = "MECHANISM STATUS"
    repeatable = True
    device_types = OPTICAL
    CDB = BitStruct(opcode(0xBD), Padding(56), "length" / U16, Padding(16))
    direction = Direction.IN
    length: int = 8
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> Mechanism:
        """Return the state. Raises MalformedReply."""
        return Mechanism.parse(data)


@dataclass(frozen=True)
class LoadUnloadMedium(Command[None]):
    """LOAD/UNLOAD MEDIUM: move a disc of a changer (MMC-6 LOAD/UNLOAD MEDIUM)."""

    NAME = "LOAD/UNLOAD MEDIUM"
    timeout = 60 * SECOND
    device_types = OPTICAL
    CDB = BitStruct(
        opcode(0xA6), Padding(7), "immediate" / Flag, Padding(16), Padding(6), "load_unload" / Flag, "start" / Flag,
        Padding(24), "slot" / U8, Padding(24),
    )  # fmt: skip
    load_unload: bool = True
    """LOUNLO: with `start` load the slot, else unload."""
    start: bool = True
    slot: int = 0
    immediate: bool = False
    """Return when the move has begun (IMMED)."""


@dataclass(frozen=True)
class SetCdSpeed(Command[None]):
    """SET CD SPEED: how fast to read and write a CD (MMC-6 SET CD SPEED)."""

    NAME = "SET CD SPEED"
    device_types = OPTICAL
    CDB = BitStruct(opcode(0xBB), Padding(6), "rotation" / U2, "read" / U16, "write" / U16, Padding(48))
    read: int = 0xFFFF
    """kB/s (1000 bytes); FFFFh: as fast as possible. 176 is single speed."""
    write: int = 0xFFFF
    """kB/s (1000 bytes); FFFFh: as fast as possible."""
    rotation: int = 0
    """0 CLV or as the drive likes, 1 CAV."""


@dataclass(frozen=True)
class SetStreaming(Command[None]):
    """SET STREAMING: how fast to read and write a range (MMC-6 SET STREAMING)."""

    NAME = "SET STREAMING"
    device_types = OPTICAL
    CDB = BitStruct(opcode(0xB6), Padding(64), "length" / U16, Padding(8))
    direction = Direction.OUT
    length = 28
    first: int = 0
    """First block."""
    last: int = 0
    """Last block."""
    read: int = 0
    """Kilobytes in `milliseconds`."""
    write: int = 0
    """Kilobytes in `milliseconds`."""
    milliseconds: int = 1000
    restore: bool = False
    """Restore the drive's own settings (RDD)."""

    @property
    def payload(self) -> bytes:
        """The performance descriptor."""
        words = (self.first, self.last, self.read, self.milliseconds, self.write, self.milliseconds)
        return bytes((0x04 if self.restore else 0, 0, 0, 0)) + b"".join(word.to_bytes(4, "big") for word in words)


@dataclass(frozen=True)
class BufferCapacity(Reply):
    """The drive's write buffer (MMC-6 READ BUFFER CAPACITY)."""

    LAYOUT: ClassVar[Struct] = Struct(Padding(4), "size" / Int32ub, "available" / Int32ub)
    size: int
    """Bytes, or blocks if that was asked for."""
    available: int
    """Of them, free."""


@dataclass(frozen=True)
class ReadBufferCapacity(Command[BufferCapacity]):
    """READ BUFFER CAPACITY: how full the write buffer is (MMC-6 READ BUFFER CAPACITY)."""

    NAME = "READ BUFFER CAPACITY"
    repeatable = True
    CDB = BitStruct(opcode(0x5C), Padding(7), "in_blocks" / Flag, Padding(40), "length" / U16, Padding(8))
    direction = Direction.IN
    in_blocks: bool = False
    """Report blocks (BLOCK)."""
    length: int = 12
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> BufferCapacity:
        """Return the buffer. Raises MalformedReply."""
        return BufferCapacity.parse(data)


SPEED: Final = Struct("first" / Int32ub, "first_speed" / Int32ub, "last" / Int32ub, "last_speed" / Int32ub)
PERFORMANCE: Final = Struct("length" / Int32ub, Padding(4))


@dataclass(frozen=True)
class Performance:
    """How fast the drive is between two blocks."""

    first: int
    first_speed: int
    """kB/s."""
    last: int
    last_speed: int
    """kB/s."""


@dataclass(frozen=True)
class GetPerformance(Command[tuple[Performance, ...]]):
    """GET PERFORMANCE, type 00h: how fast the drive is (MMC-6 GET PERFORMANCE)."""

    NAME = "GET PERFORMANCE"
    repeatable = True
    device_types = OPTICAL
    CDB = BitStruct(
        opcode(0xAC), Padding(3), "data_type" / U5, "lba" / U32, Padding(16), "descriptors" / U16, Padding(16)
    )
    direction = Direction.IN
    data_type: int = 0x10
    """10h: nominal read speed, 14h: nominal write speed."""
    lba: int = 0
    """First block."""
    descriptors: int = 32
    """The most ranges to report."""

    @property
    def length(self) -> int:
        """Bytes of data-in."""
        return 8 + 16 * self.descriptors

    def reply(self, data: bytes) -> tuple[Performance, ...]:
        """Return the ranges. Raises MalformedReply."""
        head = parse(PERFORMANCE, data, self.NAME)
        return entries(SPEED, listed(data, 8, max(head.length - 4, 0))[0], Performance)
