"""General purpose logs of an ATA disk: which there are, and what the extended ones remember (ACS-3 annex A)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from scsiusb.ata.extended import GENERAL_LOGS_BIT, GENERAL_LOGS_WORD, read_log
from scsiusb.ata.identify import IDENTIFY_DEVICE
from scsiusb.ata.passthrough import SAT, SECTOR, Ata
from scsiusb.ata.refusals import refusals_named
from scsiusb.ata.self_test import ATA_RESULTS, FIRST_FAILURE
from scsiusb.ata.smart_logs import CAPTIVE, ERROR_BITS, KINDS, ErrorLog, LoggedError, PastTest
from scsiusb.base.dataclass import dataclass
from scsiusb.errors import DeviceUnsupported, MalformedReply
from scsiusb.scsi.unit import LogicalUnit

DIRECTORY, ERRORS, SELF_TESTS, QUEUE_ERROR = 0x00, 0x03, 0x07, 0x10
NAMES: Final[Mapping[int, str]] = {
    0x00: "directory",
    0x01: "summary error log",
    0x02: "comprehensive error log",
    0x03: "extended comprehensive error log",
    0x04: "device statistics",
    0x06: "self-test log",
    0x07: "extended self-test log",
    0x08: "power conditions",
    0x09: "selective self-test log",
    0x0A: "device statistics notifications",
    0x0C: "pending defects",
    0x0D: "LPS misalignment log",
    0x10: "NCQ command error",
    0x11: "SATA PHY event counters",
    0x12: "NCQ queue management",
    0x13: "NCQ send and receive",
    0x19: "LBA status",
    0x21: "write stream errors",
    0x22: "read stream errors",
    0x30: "IDENTIFY DEVICE data",
    0xE0: "SCT command and status",
    0xE1: "SCT data",
}
HOST_LOGS, VENDOR_LOGS = range(0x80, 0xA0), range(0xA0, 0xE0)
ENTRIES: Final = 4  # errors in a page
ERROR_SIZE, COMMAND_SIZE, TEST_SIZE, TESTS = 124, 18, 26, 19
ERROR_AT: Final = 90  # in its entry, after five commands
MOST_PAGES: Final = 64  # of a log that is read; the standard has 25 for the errors
NO_LBA: Final = (1 << 48) - 1


@dataclass(frozen=True)
class QueueError:
    """The queued command that failed (NCQ Command Error log)."""

    tag: int | None
    """None: the command was not a queued one."""
    status: int
    error: int
    lba: int
    what: str
    """In words."""


def log_name(address: int) -> str:
    """Return the name of a log; "host specific" and "vendor specific" for those of others."""
    if address in HOST_LOGS or address in VENDOR_LOGS:
        return "host specific" if address in HOST_LOGS else "vendor specific"
    return NAMES.get(address, "reserved")


def sizes_of_logs(unit: LogicalUnit) -> dict[int, int]:
    """Return the number of pages of each log that the disk has, by its address (General Purpose Log Directory).

    Raises DeviceUnsupported where the unit is no disk, or the disk has no such logs; as `extended.read_log`.
    """
    with refusals_named("general purpose logs", (SAT,)):
        identity = Ata(unit).read(IDENTIFY_DEVICE)
        at = 2 * GENERAL_LOGS_WORD
        word = int.from_bytes(identity[at : at + 2], "little")
        if word & 0xC000 != 0x4000 or not word & GENERAL_LOGS_BIT:
            raise DeviceUnsupported("the disk has no general purpose logs")
        return parse_directory(read_log(unit, DIRECTORY))


def check_log(sizes: Mapping[int, int], address: int, what: str) -> int:
    """Return the pages of a log, MOST_PAGES at most. Raise DeviceUnsupported where the disk does not have it."""
    if address not in sizes:
        raise DeviceUnsupported(
            f"the disk keeps no {what}", "`scsiusb smart --log directory` shows the logs that it has"
        )
    return min(sizes[address], MOST_PAGES)


def parse_directory(data: bytes) -> dict[int, int]:
    """Parse the directory: pages by address. Raises MalformedReply."""
    if len(data) != SECTOR or not data[0] | data[1]:
        raise MalformedReply(f"general purpose log directory: the {len(data)} bytes received are none")
    pages = {at: int.from_bytes(data[2 * at : 2 * at + 2], "little") for at in range(1, SECTOR // 2)}
    return {address: count for address, count in pages.items() if count}


def read_extended_errors(unit: LogicalUnit) -> ErrorLog:
    """Return the errors of the Extended Comprehensive SMART error log, with LBAs of 48 bits. Raises as `read_log`."""
    pages = check_log(sizes_of_logs(unit), ERRORS, NAMES[ERRORS])
    return parse_extended_errors(read_log(unit, ERRORS, 0, pages))


def read_extended_tests(unit: LogicalUnit) -> tuple[PastTest, ...]:
    """Return the self-tests of the Extended SMART Self-test log, the latest first. Raises as `read_log`."""
    pages = check_log(sizes_of_logs(unit), SELF_TESTS, NAMES[SELF_TESTS])
    return parse_extended_tests(read_log(unit, SELF_TESTS, 0, pages))


def read_queue_error(unit: LogicalUnit) -> QueueError:
    """Return the last queued command that failed. Reading the log releases the disk's queue. Raises as `read_log`."""
    check_log(sizes_of_logs(unit), QUEUE_ERROR, NAMES[QUEUE_ERROR])
    return parse_queue_error(read_log(unit, QUEUE_ERROR))


def parse_extended_errors(data: bytes) -> ErrorLog:
    """Parse the pages of the log, the latest error first. Raises MalformedReply for another length."""
    pages = _pages(data, "extended error log")
    latest, count = int.from_bytes(data[2:4], "little"), int.from_bytes(data[500:502], "little")
    entries = [page[4 + at * ERROR_SIZE : 4 + (at + 1) * ERROR_SIZE] for page in pages for at in range(ENTRIES)]
    if not 0 < latest <= len(entries):
        return ErrorLog(count, ())
    order = [entries[latest - 1 - step] for step in range(min(count or len(entries), len(entries)))]
    return ErrorLog(count, tuple(_error(count - step, each) for step, each in enumerate(order) if any(each)))


def _error(number: int, entry: bytes) -> LoggedError:
    command, error = entry[ERROR_AT - COMMAND_SIZE + 12], entry[ERROR_AT:]
    hours = int.from_bytes(error[32:34], "little")
    return LoggedError(number, _words(error[1]), _lba(error[4:10]), hours, command)


def _words(error: int) -> str:
    return ", ".join(text for bit, text in ERROR_BITS.items() if error & bit) or f"error {error:02X}h"


def _lba(field: bytes) -> int:
    """Return the LBA of six bytes, of which each of the lower half comes before one of the upper half."""
    return int.from_bytes(field[::2] + field[1::2], "little")


def parse_extended_tests(data: bytes) -> tuple[PastTest, ...]:
    """Parse the pages of the log, the latest test first. Raises MalformedReply for another length."""
    pages = _pages(data, "extended self-test log")
    latest = int.from_bytes(data[2:4], "little")
    entries = [page[4 + at * TEST_SIZE : 4 + (at + 1) * TEST_SIZE] for page in pages for at in range(TESTS)]
    if not 0 < latest <= len(entries):
        return ()
    return tuple(_test(each) for each in (entries[latest - 1 - step] for step in range(len(entries))) if any(each))


def _test(entry: bytes) -> PastTest:
    kind, code = entry[0], entry[1] >> 4
    hours, lba = int.from_bytes(entry[2:4], "little"), int.from_bytes(entry[5:11], "little")
    result = ATA_RESULTS[code] if code < len(ATA_RESULTS) else f"code {code:X}h"
    passed = True if not code else False if FIRST_FAILURE <= code < len(ATA_RESULTS) else None
    name = KINDS.get(kind & ~CAPTIVE, f"kind {kind & ~CAPTIVE:02X}h") + (", captive" if kind & CAPTIVE else "")
    return PastTest(name, result, passed, hours, None if passed is not False or lba == NO_LBA else lba)


def parse_queue_error(data: bytes) -> QueueError:
    """Parse the NCQ Command Error log. Raises MalformedReply for another length, or a checksum that is wrong."""
    if len(data) != SECTOR or sum(data) & 0xFF:
        raise MalformedReply(f"NCQ command error log: the {len(data)} bytes received are none")
    lba = int.from_bytes(data[4:7] + data[8:11], "little")
    return QueueError(None if data[0] & 0x80 else data[0] & 0x1F, data[2], data[3], lba, _words(data[3]))


def _pages(data: bytes, what: str) -> list[bytes]:
    if not data or len(data) % SECTOR:
        raise MalformedReply(f"{what}: received {len(data)} bytes, which are no pages")
    return [data[at : at + SECTOR] for at in range(0, len(data), SECTOR)]
