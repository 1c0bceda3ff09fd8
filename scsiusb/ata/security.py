"""The ATA security feature set: what its state is, erase the whole disk by it, take a password away (ACS-3 4.18)."""

from __future__ import annotations

import logging
import struct
from typing import Final

from construct import BitStruct, Const, Padding

from scsiusb.ata.device import check_disk
from scsiusb.ata.identify import IDENTIFY_DEVICE
from scsiusb.ata.passthrough import PIO_OUT, SECTOR, SECTOR_COUNT_HAS_LENGTH, Ata, execute_shortly
from scsiusb.base.dataclass import dataclass
from scsiusb.errors import CheckCondition, DeviceUnsupported, MalformedReply, ScsiUsbError, TransportError
from scsiusb.scsi.command import U4, U8, Command, opcode
from scsiusb.scsi.retry import NO_RETRY
from scsiusb.scsi.unit import LogicalUnit
from scsiusb.transport.base import Direction

SET_PASSWORD, UNLOCK, ERASE_PREPARE, ERASE_UNIT, DISABLE_PASSWORD = 0xF1, 0xF2, 0xF3, 0xF4, 0xF6
ENHANCED: Final = 0x0002  # of the first word of ERASE UNIT
PASSWORD_LENGTH: Final = 32  # bytes
PASSWORD: Final = "scsiusb"
"""The user password that a disk has while it is erased, and keeps if that is cut off."""
STATE_WORD: Final = 128
NORMAL_TIME_WORD, ENHANCED_TIME_WORD = 89, 90
UNIT_OF_TIME: Final = 2  # minutes
LONG_TIME: Final = 0x8000  # the time has 15 bits, not 8
LEAST_TIMEOUT: Final = 600.0  # seconds
UNKNOWN_TIMEOUT: Final = 24 * 3600.0  # seconds, where the disk does not say how long it takes
MARGIN: Final = 2  # times what it says

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SecurityState:
    """What IDENTIFY DEVICE says of security (word 128)."""

    supported: bool
    enabled: bool
    """It has a user password, and locks with the next power-on."""
    locked: bool
    """Nothing can be read or written until it is unlocked."""
    frozen: bool
    """No command changes it until the next power-on."""
    count_expired: bool
    """Too many wrong passwords: it takes none until the next power-on."""
    enhanced_supported: bool
    minutes: int | None
    """How long an erase takes; None if the disk does not say."""
    enhanced_minutes: int | None

    @classmethod
    def parse(cls, data: bytes) -> SecurityState:
        """Parse the 512 bytes of IDENTIFY DEVICE. Raises MalformedReply for another length."""
        if len(data) != SECTOR:
            raise MalformedReply(f"IDENTIFY DEVICE: received {len(data)} of {SECTOR} bytes")
        words = struct.unpack("<256H", data)
        state = words[STATE_WORD]
        supported, enabled, locked, frozen, expired, enhanced = (bool(state >> bit & 1) for bit in range(6))
        times = (_minutes(words[word]) for word in (NORMAL_TIME_WORD, ENHANCED_TIME_WORD))
        return cls(supported, enabled, locked, frozen, expired, enhanced, *times)


def _minutes(word: int) -> int | None:
    """Return the minutes that an erase takes (ACS-3 7.12.7.45); None if they are not told, or too many to tell."""
    bits = 0x7FFF if word & LONG_TIME else 0xFF
    value = word & bits
    return None if value in (0, bits) else value * UNIT_OF_TIME


@dataclass(frozen=True)
class AtaSend(Command[None]):
    """ATA PASS-THROUGH(16) of a command of 28 bits with one sector of data-out (SAT-3 12.2.3)."""

    NAME = "ATA PASS-THROUGH(16)"
    CDB = BitStruct(
        opcode(0x85),
        Padding(3),
        Const(PIO_OUT, U4),
        Padding(1),
        Const(0x04 | SECTOR_COUNT_HAS_LENGTH, U8),  # BYT_BLOK, T_LENGTH
        Padding(24),
        Const(1, U8),
        Padding(56),
        "command" / U8,
        Padding(8),
    )
    direction = Direction.OUT
    length = SECTOR
    command: int
    sector: bytes

    @property
    def payload(self) -> bytes:
        """The sector."""
        return self.sector

    def __str__(self) -> str:
        return f"ATA command {self.command:02X}h"


def read_security(unit: LogicalUnit) -> SecurityState:
    """Return the security state of the disk behind a bridge that translates ATA commands (SAT).

    Raises DeviceUnsupported for a unit that is no disk, UnsupportedOpcode or IllegalRequest where the bridge does not
    translate, and as `LogicalUnit.execute`.
    """
    return SecurityState.parse(Ata(unit).read(IDENTIFY_DEVICE))


def security_erase(unit: LogicalUnit, *, enhanced: bool = False) -> None:
    """Have the disk erase all its blocks (SECURITY ERASE UNIT, ACS-3 7.42); returns when it has ended.

    `enhanced`: also blocks that have no address any more, by the maker's own pattern; often only a key is changed.
    For the erase the disk gets the user password `PASSWORD`, which the erase takes away. If the erase fails, it is
    taken away by `remove_password`; where that fails too, as after a loss of power, the disk is locked by it, and the
    error says so. The bridge must pass commands that take as long as the erase.

    Raises DeviceUnsupported where the disk cannot do it now: it has no security, is frozen, is locked, or has a
    password already. Raises as `read_security`.
    """
    check_disk(unit, "sat")
    state = read_security(unit)
    check_erasable(state, enhanced=enhanced)
    minutes = state.enhanced_minutes if enhanced else state.minutes
    timeout = UNKNOWN_TIMEOUT if minutes is None else max(LEAST_TIMEOUT, minutes * 60.0 * MARGIN)
    try:
        _send(unit, SET_PASSWORD, _sector(PASSWORD))
        if not read_security(unit).enabled:
            raise MalformedReply("the disk accepted a password, and does not have one")
        Ata(unit).registers(ERASE_PREPARE)
        _send(unit, ERASE_UNIT, _sector(PASSWORD, ENHANCED if enhanced else 0), timeout)
        if read_security(unit).enabled:
            raise MalformedReply("the disk says that it is erased, and still has the password")
    except BaseException as error:
        _give_up(unit, error)
        raise


def remove_password(unit: LogicalUnit, password: str = PASSWORD) -> None:
    """Unlock the disk with its user password, and take that away; the data stay.

    Raises DeviceUnsupported where the disk has none, or takes none now, AbortedCommand for a wrong one, and as
    `read_security`; ValueError for one of more than 32 bytes.
    """
    check_disk(unit, "sat")
    sector = _sector(password)
    state = read_security(unit)
    if not state.enabled:
        raise DeviceUnsupported("the disk has no password", "there is nothing to take away")
    _check_changeable(state)
    if state.locked:
        _send(unit, UNLOCK, sector)
    _send(unit, DISABLE_PASSWORD, sector)
    if read_security(unit).enabled:
        raise MalformedReply("the disk accepted the command, and still has the password")


def check_erasable(state: SecurityState, *, enhanced: bool = False) -> None:
    """Raise DeviceUnsupported where the disk cannot be erased now, and say why."""
    if not state.supported:
        raise DeviceUnsupported("the disk has no ATA security", "use `scsiusb sanitize` or `scsiusb erase`")
    if enhanced and not state.enhanced_supported:
        raise DeviceUnsupported("the disk has no enhanced erase", "use the normal one")
    _check_changeable(state)
    if state.enabled:
        raise DeviceUnsupported(
            "the disk has a password already", "take it away first: `scsiusb ata-security --remove PASSWORD`"
        )


def _check_changeable(state: SecurityState) -> None:
    again = "unplug the device and plug it in again"
    if state.frozen:
        raise DeviceUnsupported("the security of the disk is frozen until its next power-on", again)
    if state.count_expired:
        raise DeviceUnsupported("the disk takes no password until its next power-on: there were too many", again)


def _give_up(unit: LogicalUnit, error: BaseException) -> None:
    """After a failed erase, take the password away; say in the error if the disk may have kept it."""
    try:
        if read_security(unit).enabled:
            remove_password(unit)
    except (CheckCondition, TransportError) as failure:
        log.warning("the password %r of the disk could not be taken away: %s", PASSWORD, failure.what)
        if isinstance(error, ScsiUsbError):
            error.remedy = f"the disk may be locked: `scsiusb ata-security --remove {PASSWORD}` unlocks it"


def _send(unit: LogicalUnit, command: int, sector: bytes, timeout: float | None = None) -> None:
    """Send a command with its sector once. Raise as `LogicalUnit.execute`."""
    sent = AtaSend(command, sector)
    if timeout is None:
        execute_shortly(unit, sent)
    else:
        unit.execute(sent, timeout=timeout, retry=NO_RETRY)


def _sector(password: str, flags: int = 0) -> bytes:
    """Return the data of a command that takes a user password (ACS-3 7.45). Raise ValueError for a long one."""
    data = password.encode()
    if len(data) > PASSWORD_LENGTH:
        raise ValueError(f"a password has {PASSWORD_LENGTH} bytes at most, not {len(data)}")
    return (struct.pack("<H", flags) + data.ljust(PASSWORD_LENGTH, b"\0")).ljust(SECTOR, b"\0")
