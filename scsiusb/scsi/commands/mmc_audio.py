"""Commands of optical drives (MMC-6) for audio and for raw sectors of a CD."""

from __future__ import annotations

from typing import ClassVar, Final

from construct import BitStruct, Flag, Int8ub, Int16ub, Int32ub, Padding, Struct

from scsiusb.base.dataclass import dataclass
from scsiusb.scsi.command import U2, U3, U4, U8, U16, U24, U32, Command, opcode
from scsiusb.scsi.commands.mmc_disc import OPTICAL, SPIN_UP
from scsiusb.scsi.reply import Reply
from scsiusb.transport.base import Direction

AUDIO_STATES: Final = {
    0x00: "not supported",
    0x11: "playing",
    0x12: "paused",
    0x13: "ended",
    0x14: "stopped by an error",
    0x15: "none",
}


@dataclass(frozen=True)
class SubChannel(Reply):
    """Where the drive is playing (MMC-6 READ SUB-CHANNEL, format 01h)."""

    LAYOUT: ClassVar[Struct] = Struct(
        Padding(1),
        "audio" / Int8ub,
        "length" / Int16ub,
        "format" / Int8ub,
        "how" / BitStruct("adr" / U4, "control" / U4),
        "track" / Int8ub,
        "index" / Int8ub,
        "absolute" / Int32ub,
        "relative" / Int32ub,
    )
    audio: int
    """AUDIO STATUS, a key of `AUDIO_STATES`."""
    track: int
    index: int
    absolute: int
    """Block on the disc; with `as_time` its time, a byte each for minutes, seconds and frames."""
    relative: int
    """The same in the track."""


@dataclass(frozen=True)
class ReadSubChannel(Command[SubChannel]):
    """READ SUB-CHANNEL, current position (MMC-6 READ SUB-CHANNEL)."""

    NAME = "READ SUB-CHANNEL"
    repeatable = True
    accesses_medium = True
    device_types = OPTICAL
    CDB = BitStruct(
        opcode(0x42), Padding(6), "as_time" / Flag, Padding(1), Padding(1), "with_data" / Flag, Padding(6),
        "format" / U8, Padding(16), "track" / U8, "length" / U16, Padding(8),
    )  # fmt: skip
    direction = Direction.IN
    format = 1
    with_data = True
    as_time: bool = False
    """Report times instead of blocks (TIME)."""
    track = 0
    length: int = 16
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> SubChannel:
        """Return the position. Raises MalformedReply."""
        return SubChannel.parse(data)


@dataclass(frozen=True)
class PlayAudio10(Command[None]):
    """PLAY AUDIO(10) from a block on (MMC-6 PLAY AUDIO(10))."""

    NAME = "PLAY AUDIO(10)"
    accesses_medium = True
    timeout = SPIN_UP
    CDB = BitStruct(opcode(0x45), Padding(8), "lba" / U32, Padding(8), "blocks" / U16, Padding(8))
    lba: int
    """First block; FFFFFFFFh: where it is."""
    blocks: int


@dataclass(frozen=True)
class PlayAudioMsf(Command[None]):
    """PLAY AUDIO MSF, from a time to another (MMC-6 PLAY AUDIO MSF)."""

    NAME = "PLAY AUDIO MSF"
    accesses_medium = True
    timeout = SPIN_UP
    CDB = BitStruct(opcode(0x47), Padding(16), "start" / U24, "end" / U24, Padding(8))
    start: int
    """A byte each for minutes, seconds and frames."""
    end: int
    """The same."""


@dataclass(frozen=True)
class PauseResume(Command[None]):
    """PAUSE/RESUME of the audio (MMC-6 PAUSE/RESUME)."""

    NAME = "PAUSE/RESUME"
    CDB = BitStruct(opcode(0x4B), Padding(56), Padding(7), "resume" / Flag, Padding(8))
    resume: bool = False
    """Resume; false: pause."""


@dataclass(frozen=True)
class StopPlayScan(Command[None]):
    """STOP PLAY/SCAN of the audio (MMC-6 STOP PLAY/SCAN)."""

    NAME = "STOP PLAY/SCAN"
    CDB = BitStruct(opcode(0x4E), Padding(72))


SECTOR: Final = (Padding(3), "expected" / U3, "audio_errors" / Flag, Padding(1))
PARTS: Final = ("sync" / Flag, "headers" / U2, "user_data" / Flag, "edc" / Flag, "c2" / U2, Padding(1))


@dataclass(frozen=True)
class SectorCommand(Command[bytes], abstract=True):
    """Base of the commands that read sectors of a CD with what surrounds the user data."""

    direction = Direction.IN
    repeatable = True
    accesses_medium = True
    timeout = SPIN_UP
    length: int = 2352
    """Bytes to receive: the number of blocks times the bytes of the parts, 2352 for audio or all main channel data."""
    expected: int = 0
    """EXPECTED SECTOR TYPE: 0 any, 1 CD-DA, 2 mode 1, 3 mode 2, 4 form 1, 5 form 2."""
    audio_errors: bool = False
    """Interpolate audio that cannot be read (DAP)."""
    sync: bool = False
    """The synchronization field."""
    headers: int = 0
    """1 header, 2 subheader, 3 both."""
    user_data: bool = True
    """The user data; of audio, all 2352 bytes."""
    edc: bool = False
    """Error detection and correction."""
    c2: int = 0
    """1: C2 error bits, 2: with the block error byte."""
    sub_channel: int = 0
    """1 raw, 2 Q, 4 R to W."""

    def reply(self, data: bytes) -> bytes:
        """Return the bytes received."""
        return data


@dataclass(frozen=True)
class ReadCd(SectorCommand):
    """READ CD: sectors with what surrounds the user data (MMC-6 READ CD)."""

    NAME = "READ CD"
    device_types = OPTICAL
    CDB = BitStruct(
        opcode(0xBE), *SECTOR, "lba" / U32, "blocks" / U24, *PARTS, Padding(5), "sub_channel" / U3, Padding(8)
    )
    lba: int = 0
    blocks: int = 1


@dataclass(frozen=True)
class ReadCdMsf(SectorCommand):
    """READ CD MSF: as READ CD, from a time to another (MMC-6 READ CD MSF)."""

    NAME = "READ CD MSF"
    device_types = OPTICAL
    CDB = BitStruct(
        opcode(0xB9), *SECTOR, Padding(8), "start" / U24, "end" / U24, *PARTS, Padding(5), "sub_channel" / U3,
        Padding(8),
    )  # fmt: skip
    start: int = 0x000200
    """A byte each for minutes, seconds and frames."""
    end: int = 0x000201
    """The same; the sector at this time is not read."""
