"""Commands of optical drives (MMC-6) that write discs, and those of copy protection."""

from __future__ import annotations

from typing import ClassVar, Final

from construct import BitStruct, Flag, Int8ub, Padding, Struct

from scsiusb.base.dataclass import dataclass
from scsiusb.scsi.command import SECOND, U2, U3, U6, U8, U16, U24, U32, Command, opcode
from scsiusb.scsi.commands.mmc_disc import OPTICAL
from scsiusb.scsi.reply import Reply
from scsiusb.transport.base import Direction

BURN: Final = 3600 * SECOND  # timeout of what writes to the whole disc


@dataclass(frozen=True)
class Blank(Command[None]):
    """BLANK: erase a rewritable disc (MMC-6 BLANK); A1h is ATA PASS-THROUGH(12) of other devices."""

    NAME = "BLANK"
    timeout = BURN
    accesses_medium = True
    device_types = OPTICAL
    CDB = BitStruct(opcode(0xA1), Padding(3), "immediate" / Flag, Padding(1), "kind" / U3, "start" / U32, Padding(48))
    kind: int = 1
    """0 all, 1 minimal, 2 a track, 3 unreserve a track, 4 the tail of a track, 5 unclose, 6 a session."""
    start: int = 0
    """The track or the first block, if the kind needs one."""
    immediate: bool = False
    """Return when it has begun (IMMED); REQUEST SENSE reports its progress."""


@dataclass(frozen=True)
class CloseTrackSession(Command[None]):
    """CLOSE TRACK/SESSION (MMC-6 CLOSE TRACK/SESSION)."""

    NAME = "CLOSE TRACK/SESSION"
    timeout = BURN
    accesses_medium = True
    CDB = BitStruct(
        opcode(0x5B), Padding(7), "immediate" / Flag, Padding(5), "function" / U3, Padding(8), "track" / U16,
        Padding(32),
    )  # fmt: skip
    function: int = 2
    """1 track, 2 session, 5 finalize the disc, 6 finalize with the least lead-out."""
    track: int = 0
    immediate: bool = False
    """Return when it has begun (IMMED)."""


@dataclass(frozen=True)
class ReserveTrack(Command[None]):
    """RESERVE TRACK: make a track of a size (MMC-6 RESERVE TRACK)."""

    NAME = "RESERVE TRACK"
    timeout = BURN
    accesses_medium = True
    CDB = BitStruct(opcode(0x53), Padding(32), "blocks" / U32, Padding(8))
    blocks: int
    """Size of the track."""


@dataclass(frozen=True)
class RepairTrack(Command[None]):
    """REPAIR TRACK: complete a track that was left open (MMC-6 REPAIR TRACK)."""

    NAME = "REPAIR TRACK"
    timeout = BURN
    accesses_medium = True
    CDB = BitStruct(opcode(0x58), Padding(7), "immediate" / Flag, Padding(16), "track" / U16, Padding(32))
    track: int
    immediate: bool = False
    """Return when it has begun (IMMED)."""


@dataclass(frozen=True)
class SendOpc(Command[None]):
    """SEND OPC INFORMATION: calibrate the power of the laser (MMC-6 SEND OPC INFORMATION)."""

    NAME = "SEND OPC INFORMATION"
    timeout = 120 * SECOND
    accesses_medium = True
    CDB = BitStruct(
        opcode(0x54), Padding(7), "calibrate" / Flag, Padding(6), "exclude" / U2, Padding(32), Padding(16), Padding(8)
    )
    calibrate: bool = True
    """Do it now (DOOPC)."""
    exclude: int = 0


@dataclass(frozen=True)
class SendCueSheet(Command[None]):
    """SEND CUE SHEET: the layout of a disc that is written at once (MMC-6 SEND CUE SHEET)."""

    NAME = "SEND CUE SHEET"
    accesses_medium = True
    CDB = BitStruct(opcode(0x5D), Padding(40), "length" / U24, Padding(8))
    direction = Direction.OUT
    payload: bytes = b""
    """The cue sheet."""

    @property
    def length(self) -> int:
        """Bytes of data-out."""
        return len(self.payload)


@dataclass(frozen=True)
class RegionState(Reply):
    """The region setting of a DVD drive (MMC-6 REPORT KEY, key format 001000b)."""

    LAYOUT: ClassVar[Struct] = Struct(
        Padding(4),
        "head" / BitStruct("kind" / U2, "vendor_resets" / U3, "changes" / U3),
        "mask" / Int8ub,
        "scheme" / Int8ub,
        Padding(1),
    )
    kind: int
    """0 no region is set, 1 set, 2 only one change is left, 3 cannot be changed."""
    vendor_resets: int
    """Left for the vendor."""
    changes: int
    """Left for the user."""
    regions: tuple[int, ...]
    """Regions that the drive plays."""
    scheme: int
    """1: the drive enforces regions."""

    @classmethod
    def parse(cls, data: bytes) -> RegionState:
        """Return the setting. Raises MalformedReply."""
        row = cls.fields_of(data)
        regions = tuple(region for region in range(1, 9) if not row.mask >> (region - 1) & 1)
        return cls(row.head.kind, row.head.vendor_resets, row.head.changes, regions, row.scheme)


KEY_TAIL: Final = ("length" / U16, "agid" / U2, "format" / U6, Padding(8))


@dataclass(frozen=True)
class ReportKey(Command[bytes]):
    """REPORT KEY: bytes of copy protection (MMC-6 REPORT KEY); A4h is MAINTENANCE OUT of other devices.

    Format 08h is the region setting: parse it with `RegionState`.
    """

    NAME = "REPORT KEY"
    device_types = OPTICAL
    CDB = BitStruct(opcode(0xA4), Padding(8), "lba" / U32, Padding(8), "key_class" / U8, *KEY_TAIL)
    direction = Direction.IN
    format: int = 0x08
    """KEY FORMAT."""
    length: int = 8
    """Allocation length in bytes."""
    key_class: int = 0
    """0: CSS, CPPM, CPRM; 2: AACS."""
    agid: int = 0
    lba: int = 0

    def reply(self, data: bytes) -> bytes:
        """Return the bytes received."""
        return data


@dataclass(frozen=True)
class SendKey(Command[None]):
    """SEND KEY: bytes of copy protection (MMC-6 SEND KEY); A3h is MAINTENANCE IN of other devices."""

    NAME = "SEND KEY"
    device_types = OPTICAL
    CDB = BitStruct(opcode(0xA3), Padding(48), "key_class" / U8, *KEY_TAIL)
    direction = Direction.OUT
    format: int
    """KEY FORMAT; 06h sets the region, which can be done five times only."""
    payload: bytes = b""
    """The key, with its header of 4 bytes."""
    key_class: int = 0
    """0: CSS, CPPM, CPRM; 2: AACS."""
    agid: int = 0

    @property
    def length(self) -> int:
        """Bytes of data-out."""
        return len(self.payload)
