"""An ATA disk behind a bridge that translates its commands (SAT-3): IDENTIFY DEVICE and SMART."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from scsiusb.virtual.target import ata_extended
from scsiusb.virtual.target.ata_security import ERASE_PREPARE, FREEZE_LOCK, SECURITY, Security
from scsiusb.virtual.target.collecting import act_on
from scsiusb.virtual.target.sense import INVALID_FIELD_IN_CDB, CommandFailed, Sense
from scsiusb.virtual.target.task import Parameters, Task

if TYPE_CHECKING:
    from scsiusb.virtual.target.unit import Unit

PASS_THROUGH_16, PASS_THROUGH_12 = 0x85, 0xA1
IDENTIFY, CHECK_POWER, SMART, STANDBY_IMMEDIATE = 0xEC, 0xE5, 0xB0, 0xE0
READ_DATA, READ_THRESHOLDS, EXECUTE, READ_LOG, RETURN_STATUS = 0xD0, 0xD1, 0xD4, 0xD5, 0xDA
SELF_TESTS = {0x01: 2, 0x02: 90}  # subcommands of EXECUTE, and the minutes that they take
ABORT_SELF_TEST = 0x7F
ERROR_LOG, SELF_TEST_LOG = 0x01, 0x06  # log addresses
_MOVING = (0x08, 0x0A, 0x28, 0x2A, 0x2E, 0x2F, 0x88, 0x8A, 0x8E, 0x8F, 0xA8, 0xAA, 0xAE, 0xAF, 0x41, 0x42, 0x93)
_WAKING = (0x28, 0x2A, 0x88, 0x8A, 0x2F, 0x8F, 0x1B)  # reads, writes, VERIFY, START STOP UNIT
KEY, FAILING_KEY = 0xC24F00, 0x2CF400
NON_DATA, PIO_IN, PIO_OUT = 3, 4, 5
_EXTEND = 0x01

ABORTED = Sense(0xB, 0x00, 0x00)
LOCKED = Sense(0x7, 0x74, 0x71)
READY = 0x50  # the status register: DRDY, DSC
ERROR, ABORT = 0x51, 0x04

Row = tuple[int, int, int, int, int]
"""An attribute: number, flags, value, threshold, raw number."""

SSD: Final[Mapping[str, tuple[Row, ...]]] = {  # as makers of SATA SSDs have them, by health
    "good": (
        (5, 0x33, 100, 10, 0),
        (9, 0x32, 99, 0, 1234),
        (12, 0x32, 99, 0, 210),
        (177, 0x13, 97, 0, 31),
        (194, 0x22, 67, 0, 33),
        (197, 0x12, 100, 0, 0),
        (199, 0x3E, 100, 0, 0),
        (241, 0x32, 99, 0, 5_000_000_000),
    ),
    "worn": (
        (5, 0x33, 98, 10, 12),
        (9, 0x32, 60, 0, 41234),
        (177, 0x13, 4, 0, 2950),
        (194, 0x22, 60, 0, 40),
        (197, 0x12, 100, 0, 0),
    ),
    "failing": (
        (5, 0x33, 8, 10, 2044),
        (9, 0x32, 55, 0, 46000),
        (177, 0x13, 1, 0, 3300),
        (194, 0x22, 35, 0, 65),
        (197, 0x12, 70, 0, 24),
    ),
}
HDD: Final[Mapping[str, tuple[Row, ...]]] = {
    "good": (
        (1, 0x2F, 200, 51, 0),
        (3, 0x27, 175, 21, 2233),
        (5, 0x33, 200, 140, 0),
        (9, 0x32, 90, 0, 7300),
        (194, 0x22, 115, 0, 32),
        (197, 0x32, 200, 0, 0),
        (198, 0x30, 100, 0, 0),
    ),
    "worn": ((5, 0x33, 199, 140, 5), (9, 0x32, 40, 0, 43800), (194, 0x22, 110, 0, 37), (197, 0x32, 200, 0, 0)),
    "failing": ((5, 0x33, 120, 140, 900), (9, 0x32, 30, 0, 51100), (194, 0x22, 104, 0, 43), (197, 0x32, 190, 0, 56)),
}
KINDS: Final = {
    "sat-ssd": ("Virtual SSD 870", 1, SSD),
    "sat-hdd": ("Virtual WD10 HDD", 5400, HDD),
    "smr": ("Virtual SMR HDD", 5400, HDD),
}
HEALTHS: Final = ("good", "worn", "failing")


class AtaDisk:
    """The disk. `kind`: one of `KINDS`; `health`: one of `HEALTHS`. `short_only`: it knows ATA PASS-THROUGH(12) only.

    `has_registers`: whether the bridge returns registers in sense data; `describes`: always in descriptor format.
    """

    def __init__(
        self,
        kind: str = "sat-ssd",
        health: str = "good",
        *,
        short_only: bool = False,
        has_registers: bool = True,
        describes: bool = False,
    ) -> None:
        self.model, self.rotation, rows = KINDS[kind]
        self.attributes = rows[health]
        self.is_failing = health == "failing"
        self.percent_used = 100 - next((value for number, _, value, *_ in self.attributes if number == 177), 100)
        self.short_only = short_only
        self.has_registers, self.describes = has_registers, describes
        self.is_resting = False
        """Whether it was put into standby, and not woken since."""
        self.security = Security()
        self.sanitizer = ata_extended.Sanitizer()
        self.self_test = 0x00
        """The status of the last self-test, as in READ DATA: in the high nibble Fh while it runs, in the low one tenths
        that are left."""

    def note(self, opcode: int) -> None:
        """Wake for a command that needs the medium. Raises `CommandFailed` for one to a locked disk."""
        self.is_resting &= opcode not in _WAKING
        if self.security.is_locked and opcode in _MOVING:
            raise CommandFailed(LOCKED)

    def power_on(self) -> None:
        """Lock, if there is a password."""
        self.security.power_on()

    @property
    def power_mode(self) -> int:
        """The answer to CHECK POWER MODE."""
        return 0x00 if self.is_resting else 0xFF

    def identify(self, unit: Unit) -> bytes:
        """Return the 512 bytes of IDENTIFY DEVICE (ACS-3 7.12)."""
        words = [0] * 256
        blocks = unit.medium.blocks if unit.medium is not None else 0
        words[0], words[47], words[49] = 0x0040, 0x8001, 0x2F00
        words[60], words[61] = min(blocks, 0x0FFFFFFF) & 0xFFFF, min(blocks, 0x0FFFFFFF) >> 16
        words[69] = 1 if unit.zones is not None else 0  # host-aware zones (ZAC)
        words[76], words[77], words[80] = 0x000E, 0x0006, 0x03FC
        # SMART with its logs, security, write cache, 48 bits, general purpose logs
        words[82], words[83], words[84] = 0x0023, 0x7400, 0x4023
        words[85], words[86], words[87] = 0x0001, 0x7400, 0x4023
        words[59] = ata_extended.WORD_59
        words[85] |= (0x0020 if unit.modes.has_write_cache else 0) | self.security.word & 0x0002
        words[100:104] = [blocks >> shift & 0xFFFF for shift in (0, 16, 32, 48)]
        words[106] = 0x6003  # eight logical sectors in a physical one
        words[89] = words[90] = 1  # two minutes for an erase
        words[128] = self.security.word
        words[105], words[169] = (ata_extended.MOST_TRIM_BLOCKS, 1) if self.rotation == 1 else (0, 0)
        words[217], words[222] = self.rotation, 0x107F
        data = bytearray(struct.pack("<256H", *words))
        for word, count, text in ((10, 10, unit.device_serial), (23, 4, "1.00"), (27, 20, self.model)):
            field = text.encode("ascii", "replace")[: 2 * count].ljust(2 * count)
            data[2 * word : 2 * (word + count)] = bytes(field[at ^ 1] for at in range(2 * count))
        data[510] = 0xA5
        return _summed(data)

    def smart_data(self) -> bytes:
        """Return the attributes (SMART READ DATA)."""
        data = bytearray(512)
        struct.pack_into("<H", data, 0, 16)
        for at, (number, flags, value, _, raw) in enumerate(self.attributes):
            struct.pack_into("<BHBB6s", data, 2 + 12 * at, number, flags, value, value, raw.to_bytes(6, "little"))
        data[370] = 1  # there is an error log
        data[363], data[367], data[372], data[373] = self.self_test, 0x5B, SELF_TESTS[0x01], SELF_TESTS[0x02]
        if self.self_test >> 4 == 0xF:  # each look finds it a tenth further
            left = (self.self_test & 0xF) - 1
            self.self_test = 0xF0 | left if left > 0 else 0x70 if self.is_failing else 0x00
        return _summed(data)

    @property
    def hours(self) -> int:
        """The power-on hours, which are attribute 9."""
        return next((raw for number, *_, raw in self.attributes if number == 9), 0)

    def error_log(self) -> bytes:
        """Return the summary error log: of a failing disk, an error at LBA 1000 and one at LBA 2000 (ACS-3 A.17)."""
        data = bytearray(512)
        data[0] = 1
        if self.is_failing:
            data[1] = 2  # the latest
            for at, lba in enumerate((1000, 2000)):
                entry = 2 + 90 * at
                struct.pack_into("<8BI", data, entry + 48, 0, 0, 8, *lba.to_bytes(3, "little"), 0xE0, 0x25, 5000)
                low, mid, high = lba.to_bytes(3, "little")
                struct.pack_into("<8B", data, entry + 60, 0, 0x40, 8, low, mid, high, 0xE0, ERROR)
                struct.pack_into("<BH", data, entry + 60 + 27, 3, self.hours - 2 + at)  # active or idle
            struct.pack_into("<H", data, 452, 2)
        return _summed(data)

    def self_test_log(self) -> bytes:
        """Return the self-test log: one short test, which a failing disk did not pass (ACS-3 A.14)."""
        data = bytearray(512)
        status, lba = (0x70, 2000) if self.is_failing else (0x00, 0x0FFFFFFF)
        struct.pack_into("<HBBHBI", data, 0, 1, 0x01, status, self.hours - 1 & 0xFFFF, 0, lba)
        data[508] = 1
        return _summed(data)

    def execute(self, subcommand: int) -> bool:
        """Begin or abort a self-test (SMART EXECUTE OFFLINE IMMEDIATE); return whether the disk knows it."""
        if subcommand == ABORT_SELF_TEST:
            self.self_test = 0x10 if self.self_test >> 4 == 0xF else self.self_test
        elif subcommand in SELF_TESTS:
            self.self_test = 0xFA
        return subcommand == ABORT_SELF_TEST or subcommand in SELF_TESTS

    def thresholds(self) -> bytes:
        """Return the thresholds (SMART READ THRESHOLDS)."""
        data = bytearray(512)
        struct.pack_into("<H", data, 0, 16)
        for at, (number, _, _, threshold, _) in enumerate(self.attributes):
            struct.pack_into("<BB", data, 2 + 12 * at, number, threshold)
        return _summed(data)


def _summed(data: bytearray) -> bytes:
    """Return the data with the byte at the end that makes the sum of all zero."""
    data[511] = -sum(data[:511]) & 0xFF
    return bytes(data)


def pass_through_16(unit: Unit, cdb: bytes) -> Task:
    """Translate a command of 28 bits, or of 48 (SAT-3 12.2.3)."""
    if unit.ata is None or unit.ata.short_only:
        raise CommandFailed(Sense(0x5, 0x20, 0x00))
    if cdb[1] & _EXTEND:
        return ata_extended.run(unit, cdb)
    lba = cdb[8] | cdb[10] << 8 | cdb[12] << 16
    return run(unit, cdb[1] >> 1 & 0xF, bool(cdb[2] & 0x20), cdb[4], cdb[6], lba, cdb[14])


def pass_through_12(unit: Unit, cdb: bytes) -> Task:
    """Translate a command (SAT-3 12.2.2)."""
    if unit.ata is None:
        raise CommandFailed(Sense(0x5, 0x20, 0x00))
    lba = cdb[5] | cdb[6] << 8 | cdb[7] << 16
    return run(unit, cdb[1] >> 1 & 0xF, bool(cdb[2] & 0x20), cdb[3], cdb[4], lba, cdb[9])


def run(unit: Unit, protocol: int, check: bool, features: int, count: int, lba: int, command: int) -> Task:
    """Run a command of 28 bits. With `check`, one without data gives its registers, in `CommandFailed`."""
    disk = unit.ata
    assert disk is not None
    data: Mapping[tuple[int, int], Callable[[], bytes]] = {
        (IDENTIFY, 0): lambda: disk.identify(unit),
        (SMART, READ_DATA): disk.smart_data,
        (SMART, READ_THRESHOLDS): disk.thresholds,
    }
    logs = {ERROR_LOG: disk.error_log, SELF_TEST_LOG: disk.self_test_log}
    if lba & 0xFF in logs:
        data = {**data, (SMART, READ_LOG): logs[lba & 0xFF]}
    key = (command, features if command == SMART else 0)
    if command == SMART and lba & 0xFFFF00 != KEY:
        raise CommandFailed(_returned(disk, 0xB, ABORT, ERROR, count, lba))
    if key in data:
        if protocol != PIO_IN or count != 1:
            raise CommandFailed(INVALID_FIELD_IN_CDB)
        return Parameters(data[key](), 512)
    if key == (SMART, EXECUTE) and disk.execute(lba & 0xFF):
        return _done(disk, check, count, lba)
    if command in SECURITY:
        return _secure(unit, disk, protocol, check, count, lba, command)
    disk.security.is_prepared = False
    if command == STANDBY_IMMEDIATE:
        disk.is_resting = True
        return _done(disk, check, count, lba)
    if key not in ((SMART, RETURN_STATUS), (CHECK_POWER, 0)):
        raise CommandFailed(_returned(disk, 0xB, ABORT, ERROR, count, lba))
    if check and disk.has_registers:
        answer = FAILING_KEY if key[0] == SMART and disk.is_failing else lba
        raise CommandFailed(
            _returned(disk, 0x1, 0, READY, disk.power_mode if command == CHECK_POWER else count, answer)
        )
    return Task()


def _secure(unit: Unit, disk: AtaDisk, protocol: int, check: bool, count: int, lba: int, command: int) -> Task:
    """Run a command of the security feature set; those that fail are aborted."""
    refusal = _returned(disk, 0xB, ABORT, ERROR, count, lba)
    if command in (ERASE_PREPARE, FREEZE_LOCK):
        if not disk.security.take(command, b"", unit):
            raise CommandFailed(refusal)
        return _done(disk, check, count, lba)
    if protocol != PIO_OUT or count != 1:
        raise CommandFailed(INVALID_FIELD_IN_CDB)

    def act(data: bytes) -> None:
        if not disk.security.take(command, data, unit):
            raise CommandFailed(refusal)

    return act_on(unit, 512, act)


def _done(disk: AtaDisk, check: bool, count: int, lba: int) -> Task:
    """Return a task that is done already; with `check`, give the registers."""
    if check and disk.has_registers:
        raise CommandFailed(_returned(disk, 0x1, 0, READY, count, lba))
    return Task()


def _returned(disk: AtaDisk, key: int, error: int, status: int, count: int, lba: int) -> Sense:
    """Return sense data with the registers (SAT-3 12.2.5)."""
    if disk.describes:
        return ata_extended.returned(key, error, status, count, lba)
    return Sense(key, 0x00, 0x1D, information=error << 24 | status << 16 | 0 << 8 | count, specific=_low(lba))


def _low(lba: int) -> bytes:
    return bytes((0, lba & 0xFF, lba >> 8 & 0xFF, lba >> 16 & 0xFF))
