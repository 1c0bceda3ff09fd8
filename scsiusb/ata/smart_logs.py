"""What a disk remembers: the errors that it reported, and its past self-tests (ACS-3 A.14 and A.17, NVMe 1.4 5.14)."""

from __future__ import annotations

import struct
from typing import Final

from scsiusb.ata.device import ATA, NVME
from scsiusb.ata.self_test import ATA_RESULTS, FIRST_FAILURE, NVME_FAILURES, NVME_RESULTS, dialect_of
from scsiusb.ata.smart import KEY, SMART
from scsiusb.base.dataclass import dataclass
from scsiusb.errors import MalformedReply
from scsiusb.scsi.unit import LogicalUnit

READ_LOG: Final = 0xD5  # SMART READ LOG
ERRORS, SELF_TESTS = 0x01, 0x06  # log addresses of ATA; NVMe has the same log identifiers
LENGTH: Final = 512
MOST_ERRORS, MOST_TESTS = 5, 21  # that an ATA log has room for
ERROR_SIZE, COMMAND_SIZE, TEST_SIZE = 90, 12, 24  # bytes
ERROR_AT: Final = 60  # in its entry, after five commands
NVME_ENTRY, NVME_ENTRIES, NVME_TEST = 64, 8, 28  # bytes; more than 512 of a log not every bridge gives
NO_LBA: Final = 0x0FFFFFFF
ERROR_BITS: Final = {
    0x80: "interface CRC",
    0x40: "uncorrectable data",
    0x10: "address not found",
    0x04: "aborted",
    0x01: "address mark not found",
}
KINDS: Final = {0x00: "offline", 0x01: "short", 0x02: "long", 0x03: "conveyance", 0x04: "selective"}
CAPTIVE: Final = 0x80
NVME_KINDS: Final = {0x1: "short", 0x2: "long", 0xE: "vendor specific"}
NVME_STATUS: Final = {
    0x281: "unrecovered read error",
    0x280: "write fault",
    0x2: "invalid field",
    0x1: "invalid opcode",
}


@dataclass(frozen=True)
class LoggedError:
    """An error that the disk reported to a host."""

    number: int
    """Counted from the first in the disk's life."""
    what: str
    """In words."""
    lba: int | None
    hours: int | None
    """Power-on hours then; None where the disk does not say."""
    command: int | None
    """The command's code; None where the disk does not say."""


@dataclass(frozen=True)
class ErrorLog:
    """The last errors, the latest first."""

    count: int
    """In the disk's life."""
    errors: tuple[LoggedError, ...]


@dataclass(frozen=True)
class PastTest:
    """A self-test that has ended."""

    kind: str
    result: str
    passed: bool | None
    """None: it was not completed."""
    hours: int
    """Power-on hours then."""
    lba: int | None
    """The first block that failed."""


def read_errors(unit: LogicalUnit, via: str | None = None) -> ErrorLog:
    """Return the errors that the disk has logged. `via` and errors: as for `read_smart`."""
    name = dialect_of(unit, via)
    if name in NVME:
        return parse_nvme_errors(NVME[name](unit).log(ERRORS, NVME_ENTRY * NVME_ENTRIES))
    return parse_errors(ATA[name](unit).read(SMART, features=READ_LOG, lba=KEY | ERRORS))


def read_self_tests(unit: LogicalUnit, via: str | None = None) -> tuple[PastTest, ...]:
    """Return the past self-tests, the latest first. `via` and errors: as for `read_smart`."""
    name = dialect_of(unit, via)
    if name in NVME:
        return parse_nvme_tests(NVME[name](unit).log(SELF_TESTS, 4 + 20 * NVME_TEST))
    return parse_tests(ATA[name](unit).read(SMART, features=READ_LOG, lba=KEY | SELF_TESTS))


def parse_errors(data: bytes) -> ErrorLog:
    """Parse the summary error log of an ATA disk. Raises MalformedReply for another length."""
    _check(data, "error log")
    latest, count = data[1], int.from_bytes(data[452:454], "little")
    if not 0 < latest <= MOST_ERRORS:
        return ErrorLog(count, ())
    order = [(latest - 1 - step) % MOST_ERRORS for step in range(min(count or MOST_ERRORS, MOST_ERRORS))]
    entries = [data[2 + at * ERROR_SIZE : 2 + (at + 1) * ERROR_SIZE] for at in order]
    return ErrorLog(count, tuple(_error(count - step, each) for step, each in enumerate(entries) if any(each)))


def _error(number: int, entry: bytes) -> LoggedError:
    command = entry[ERROR_AT - COMMAND_SIZE + 7]
    error = entry[ERROR_AT:]
    lba = error[3] | error[4] << 8 | error[5] << 16 | (error[6] & 0xF) << 24
    hours = int.from_bytes(error[28:30], "little")
    return LoggedError(number, error_words(error[1]), lba, hours, command)


def error_words(error: int) -> str:
    """Return what the bits of the ERROR register mean."""
    return ", ".join(text for bit, text in ERROR_BITS.items() if error & bit) or f"error {error:02X}h"


def parse_tests(data: bytes) -> tuple[PastTest, ...]:
    """Parse the self-test log of an ATA disk. Raises MalformedReply for another length."""
    _check(data, "self-test log")
    latest = data[508]
    if not 0 < latest <= MOST_TESTS:
        return ()
    order = [(latest - 1 - step) % MOST_TESTS for step in range(MOST_TESTS)]
    entries = [data[2 + at * TEST_SIZE : 2 + (at + 1) * TEST_SIZE] for at in order]
    return tuple(_test(each) for each in entries if any(each))


def _test(entry: bytes) -> PastTest:
    kind, status, hours, _, lba = struct.unpack_from("<BBHBI", entry)
    return past_test(kind, status, hours, None if lba >= NO_LBA else lba)


def past_test(kind: int, status: int, hours: int, lba: int | None) -> PastTest:
    """Return a self-test of an ATA disk, by the kind and status bytes of its log; only a failed one has an LBA."""
    code = status >> 4
    result = ATA_RESULTS[code] if code < len(ATA_RESULTS) else f"code {code:X}h"
    passed = True if not code else False if FIRST_FAILURE <= code < len(ATA_RESULTS) else None
    name = KINDS.get(kind & ~CAPTIVE, f"kind {kind & ~CAPTIVE:02X}h") + (", captive" if kind & CAPTIVE else "")
    return PastTest(name, result, passed, hours, lba if passed is False else None)


def parse_nvme_errors(data: bytes) -> ErrorLog:
    """Parse the error information log of an NVMe disk; entries without a number are empty."""
    found = []
    for at in range(0, len(data) - NVME_ENTRY + 1, NVME_ENTRY):
        number, _, _, status, _, lba = struct.unpack_from("<QHHHHQ", data, at)
        if number:
            code = status >> 1 & 0x7FF
            what = NVME_STATUS.get(code, f"status {code:03X}h")
            found.append(LoggedError(number, what, None if lba == (1 << 64) - 1 else lba, None, None))
    return ErrorLog(max((each.number for each in found), default=0), tuple(found))


def parse_nvme_tests(data: bytes) -> tuple[PastTest, ...]:
    """Parse the self-test log of an NVMe disk; entries of tests that were never begun are empty."""
    found = []
    for at in range(4, len(data) - NVME_TEST + 1, NVME_TEST):
        status, _, valid, _, hours, _, lba = struct.unpack_from("<BBBBQIQ", data, at)
        kind, code = status >> 4, status & 0xF
        if kind and code != 0xF:
            result = NVME_RESULTS[code] if code < len(NVME_RESULTS) else f"code {code:X}h"
            passed = True if not code else False if code in NVME_FAILURES else None
            name = NVME_KINDS.get(kind, f"kind {kind:X}h")
            found.append(PastTest(name, result, passed, hours, lba if valid & 2 else None))
    return tuple(found)


def _check(data: bytes, what: str) -> None:
    if len(data) != LENGTH:
        raise MalformedReply(f"SMART {what}: received {len(data)} bytes of {LENGTH}")
