"""ATA commands in SCSI ones: ATA PASS-THROUGH(16) and (12) (SAT-3 12.2)."""

from __future__ import annotations

from typing import Final, NamedTuple, TypedDict, TypeVar

from construct import BitStruct, Flag, Padding

from scsiusb.base.dataclass import dataclass
from scsiusb.errors import DeviceTimeout, DeviceUnsupported, IllegalRequest, MalformedReply, UnsupportedOpcode
from scsiusb.scsi.command import U2, U4, U8, Command, opcode
from scsiusb.scsi.sense import UNIT_ATTENTION, Sense, error_for
from scsiusb.scsi.unit import LogicalUnit
from scsiusb.transport.base import Direction

R = TypeVar("R")

SAT, SAT_12 = "sat", "sat,12"  # the two forms, as smartctl's -d names them
SECTOR: Final = 512  # bytes of the data of the commands here
NON_DATA, PIO_IN, PIO_OUT = 3, 4, 5  # PROTOCOL (SAT-3 table 148)
SECTOR_COUNT_HAS_LENGTH: Final = 2  # T_LENGTH
SHORTLY: Final = 10.0  # seconds: a bridge that does not translate may not answer at all
REGISTERS_RETURNED: Final = (0x00, 0x1D)  # additional sense: ATA pass-through information available
STATUS_DESCRIPTOR: Final = 0x09
STATUS_DESCRIPTOR_LENGTH: Final = 14
DISK_TYPES: Final = (0x00, 0x0E, 0x14)  # peripheral device types: disk, simplified disk, zoned disk
UNIT_ATTENTIONS: Final = 5  # that may be pending
ABORTED: Final = Sense(0xB, 0x00, 0x00)  # of a command that the disk refused, where the bridge does not say so
ERROR_BIT: Final = 0x01  # of the status register
DESCRIPTOR_FORMAT: Final = (0x72, 0x73)  # response codes
QUERIES: Final = ((0xB0, 0xDA), (0xE5, 0x00))  # command and features of SMART RETURN STATUS, CHECK POWER MODE


class Registers28(TypedDict):
    """What is written into the registers for a command with data, and its length in bytes."""

    features: int
    count: int
    lba: int
    length: int


class Registers(NamedTuple):
    """The registers after a command; the 24 low bits of the LBA."""

    error: int
    status: int
    sectors: int
    lba: int


class WholeData(Command[bytes], abstract=True):
    """A command whose data-in must all come."""

    direction = Direction.IN

    def reply(self, data: bytes) -> bytes:
        """Return the data. Raises MalformedReply if it is not all there."""
        if len(data) != self.length:
            raise MalformedReply(f"{self.NAME}: received {len(data)} of {self.length} bytes")
        return data


def short_timeout(unit: LogicalUnit) -> float:
    """Return the seconds that a command to the disk may take: a bridge that does not know it may not answer."""
    return min(SHORTLY, unit.timeout or SHORTLY)


def execute_shortly(unit: LogicalUnit, command: Command[R]) -> R:
    """Run a command with that deadline. Raises as `LogicalUnit.execute`.

    Some bridges pass commands to the disk by BOT, and hang at them by UAS: one that reads is sent again by BOT.
    """
    protocol = unit.transport.info.protocol
    try:
        return unit.execute(command, timeout=short_timeout(unit))
    except DeviceTimeout as error:
        may_repeat = error.may_repeat and command.direction is Direction.IN
        if not may_repeat or unit.transport.info.protocol == protocol:
            raise
    return unit.execute(command, timeout=short_timeout(unit))


@dataclass(frozen=True)
class AtaRegisters(WholeData, abstract=True):
    """An ATA command of 28 bits as the values of its registers, and its data phase."""

    command: int
    features: int = 0
    count: int = 1
    lba: int = 0
    device: int = 0
    direction: Direction = Direction.IN
    length: int = SECTOR

    @property
    def lba_low(self) -> int:
        """Bits 0 to 7 of the LBA."""
        return self.lba & 0xFF

    @property
    def lba_mid(self) -> int:
        """Bits 8 to 15 of the LBA."""
        return self.lba >> 8 & 0xFF

    @property
    def lba_high(self) -> int:
        """Bits 16 to 23 of the LBA."""
        return self.lba >> 16 & 0xFF

    def __str__(self) -> str:
        return f"ATA command {self.command:02X}h"


FLAGS: Final = (
    Padding(3),
    "protocol" / U4,
    Padding(3),
    "check" / Flag,
    Padding(1),
    "has_data" / Flag,  # T_DIR: to the host
    "has_data" / Flag,  # BYT_BLOK: the length is in blocks
    "length_in" / U2,
)
"""Bytes 1 and 2 of both forms."""


@dataclass(frozen=True)
class AtaPassThrough(AtaRegisters, abstract=True):
    """What both forms of ATA PASS-THROUGH have."""

    check: bool = False
    """Return the registers in sense data (CK_COND)."""

    @property
    def has_data(self) -> bool:
        """Whether there is data-in."""
        return self.length > 0

    @property
    def protocol(self) -> int:
        """PROTOCOL (SAT-3 table 148)."""
        return PIO_IN if self.length else NON_DATA

    @property
    def length_in(self) -> int:
        """T_LENGTH."""
        return SECTOR_COUNT_HAS_LENGTH if self.length else 0


@dataclass(frozen=True)
class AtaPassThrough16(AtaPassThrough):
    """ATA PASS-THROUGH(16) of a command of 28 bits (SAT-3 12.2.3)."""

    NAME = "ATA PASS-THROUGH(16)"
    CDB = BitStruct(
        opcode(0x85),
        *FLAGS,
        Padding(8),
        "features" / U8,
        Padding(8),
        "count" / U8,
        Padding(8),
        "lba_low" / U8,
        Padding(8),
        "lba_mid" / U8,
        Padding(8),
        "lba_high" / U8,
        "device" / U8,
        "command" / U8,
        Padding(8),
    )


@dataclass(frozen=True)
class AtaPassThrough12(AtaPassThrough):
    """ATA PASS-THROUGH(12); to an optical drive, this is BLANK (SAT-3 12.2.2)."""

    NAME = "ATA PASS-THROUGH(12)"
    CDB = BitStruct(
        opcode(0xA1),
        *FLAGS,
        "features" / U8,
        "count" / U8,
        "lba_low" / U8,
        "lba_mid" / U8,
        "lba_high" / U8,
        "device" / U8,
        "command" / U8,
        Padding(16),
    )


def registers_of(sense: Sense) -> Registers | None:
    """Return the registers that sense data have, in either format (SAT-3 12.2.5); None if there are none."""
    raw = sense.raw
    found = status_descriptor_in(raw)
    if found is not None:
        return Registers(found[3], found[13], found[5], found[7] | found[9] << 8 | found[11] << 16)
    is_fixed = len(raw) >= 12 and raw[0] & 0x7F not in DESCRIPTOR_FORMAT
    if is_fixed and (sense.asc, sense.ascq) == REGISTERS_RETURNED:
        return Registers(raw[3], raw[4], raw[6], raw[9] | raw[10] << 8 | raw[11] << 16)
    return None


def status_descriptor_in(raw: bytes) -> bytes | None:
    """Return the ATA Status Return descriptor of sense data in descriptor format (SAT-3 12.2.6); None without one."""
    if len(raw) < 8 or raw[0] & 0x7F not in DESCRIPTOR_FORMAT:
        return None
    at = 8
    while at + 2 <= len(raw):
        found = raw[at : at + raw[at + 1] + 2]
        if found[0] == STATUS_DESCRIPTOR and len(found) == STATUS_DESCRIPTOR_LENGTH:
            return found
        at += len(found)
    return None


def send_for_registers(unit: LogicalUnit, cdb: bytes, *, is_query: bool) -> Sense | None:
    """Send a command without data; return its sense, None for good status.

    It is sent again after a unit attention, before which the unit did not begin it. One that changes nothing
    (`is_query`) is sent again, too, after sense data that were cut: the next ones are asked for whole.
    """
    sense = _sent(unit, cdb)
    for _ in range(UNIT_ATTENTIONS):
        if sense is None or not (sense.key == UNIT_ATTENTION or (is_query and sense.says_more)):
            break
        sense = _sent(unit, cdb)
    return sense


def _sent(unit: LogicalUnit, cdb: bytes) -> Sense | None:
    """Send a command without data once; return its sense, None for good status."""
    with unit.transport.memory.lend(1) as buffer:
        return unit.send(cdb, Direction.NONE, buffer[:0], short_timeout(unit))[1]


class Ata:
    """The ATA device behind a unit whose bridge translates commands."""

    def __init__(self, unit: LogicalUnit, via: str = "") -> None:
        """Take the unit; nothing is sent. `via`: the form, if it is known."""
        self._unit = unit
        self._is_disk = False
        self.via = via
        """The form of the commands that the bridge understands: `SAT` or `SAT_12`; "" before the first."""

    def read(self, command: int, *, features: int = 0, count: int = 1, lba: int = 0) -> bytes:
        """Return `count` sectors that a command with data-in gives.

        The first command finds out which form the bridge understands. Raises UnsupportedOpcode or IllegalRequest from
        a bridge that does not translate, DeviceUnsupported for a unit that is no disk, other CheckConditions,
        TransportError; a device that is silent is recovered.
        """
        self._check_type()
        values: Registers28 = {"features": features, "count": count, "lba": lba, "length": SECTOR * count}
        if self.via == SAT_12:
            return execute_shortly(self._unit, AtaPassThrough12(command, **values))
        try:
            data = execute_shortly(self._unit, AtaPassThrough16(command, **values))
        except (UnsupportedOpcode, IllegalRequest):
            if self.via:
                raise
            data = execute_shortly(self._unit, AtaPassThrough12(command, **values))
            self.via = SAT_12
            return data
        self.via = SAT
        return data

    def registers(self, command: int, *, features: int = 0, lba: int = 0) -> Registers | None:
        """Send a command without data; return the registers after it, None if the bridge does not return them.

        Raises a CheckCondition if the device aborted the command, and as `read`.
        """
        self._check_type()
        form = AtaPassThrough12 if self.via == SAT_12 else AtaPassThrough16
        cdb = form(command, features, 0, lba, 0, Direction.NONE, 0, check=True).cdb()
        sense = send_for_registers(self._unit, cdb, is_query=(command, features) in QUERIES)
        if sense is None:
            return None
        found = registers_of(sense)
        if found is None or found.status & ERROR_BIT:
            if found is None and sense.says_more and (sense.asc, sense.ascq) == REGISTERS_RETURNED:
                return None
            raise error_for(sense, f"ATA command {command:02X}h")
        return found

    def _check_type(self) -> None:
        """Raise DeviceUnsupported unless the unit is a disk: to an optical drive, the short form means BLANK."""
        if self._is_disk:
            return
        data = self._unit.inquiry()
        if data.peripheral_device_type not in DISK_TYPES:
            what = f"ATA commands are for disks, and the unit is one of type {data.type_text}"
            raise DeviceUnsupported(what, "name a unit that is a disk (--lun)")
        self._is_disk = True
