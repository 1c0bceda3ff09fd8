"""What the extended general purpose logs of an ATA disk remember: errors, self-tests (ACS-3 annex A)."""

from __future__ import annotations

from typing import Final

from scsiusb.ata.extended import read_log
from scsiusb.ata.log_directory import NAMES, check_log, sizes_of_logs
from scsiusb.ata.passthrough import SECTOR
from scsiusb.ata.smart_logs import ErrorLog, LoggedError, PastTest, error_words, past_test
from scsiusb.base.dataclass import dataclass
from scsiusb.errors import MalformedReply
from scsiusb.scsi.unit import LogicalUnit

ERRORS, SELF_TESTS, QUEUE_ERROR = 0x03, 0x07, 0x10
ENTRIES: Final = 4  # errors in a page
ERROR_SIZE, COMMAND_SIZE, TEST_SIZE, TESTS = 124, 18, 26, 19
ERROR_AT: Final = 90  # in its entry, after five commands
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
    return LoggedError(number, error_words(error[1]), _lba(error[4:10]), hours, command)


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
    hours, lba = int.from_bytes(entry[2:4], "little"), int.from_bytes(entry[5:11], "little")
    return past_test(entry[0], entry[1], hours, None if lba == NO_LBA else lba)


def parse_queue_error(data: bytes) -> QueueError:
    """Parse the NCQ Command Error log. Raises MalformedReply for another length, or a checksum that is wrong."""
    if len(data) != SECTOR or sum(data) & 0xFF:
        raise MalformedReply(f"NCQ command error log: the {len(data)} bytes received are none")
    lba = int.from_bytes(data[4:7] + data[8:11], "little")
    return QueueError(None if data[0] & 0x80 else data[0] & 0x1F, data[2], data[3], lba, error_words(data[3]))


def _pages(data: bytes, what: str) -> list[bytes]:
    if not data or len(data) % SECTOR:
        raise MalformedReply(f"{what}: received {len(data)} bytes, which are no pages")
    return [data[at : at + SECTOR] for at in range(0, len(data), SECTOR)]
