"""The general purpose logs of a virtual ATA disk (ACS-3 annex A)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from scsiusb.virtual.target.ata import AtaDisk

DIRECTORY, EXTENDED_ERRORS, STATISTICS, EXTENDED_SELF_TESTS, NCQ_ERROR = 0x00, 0x03, 0x04, 0x07, 0x10
_KEEPS, _VALID, _NORMALIZED = 0x80, 0x40, 0x20  # flags of a statistic
_FAILED: Final = 0x0012345678  # the block of a failing disk: more than 28 bits have
_STATISTICS_PAGES: Final = 8


def general_log(disk: AtaDisk, address: int) -> bytes:
    """Return all pages of a log; b"" for one that the disk does not have."""
    makers = {
        EXTENDED_ERRORS: _errors,
        STATISTICS: _statistics,
        EXTENDED_SELF_TESTS: _self_tests,
        NCQ_ERROR: _queue_error,
    }
    if address == DIRECTORY:
        sizes = {number: len(make(disk)) // 512 for number, make in makers.items()}
        return struct.pack("<256H", 1, *(sizes.get(number, 0) for number in range(1, 256)))
    return makers[address](disk) if address in makers else b""


def _summed(data: bytearray) -> bytes:
    data[511] = -sum(data[:511]) & 0xFF
    return bytes(data)


def _error_entry(lba: int, hours: int) -> bytes:
    """Return an error of READ DMA EXT, after four empty commands: 124 bytes."""
    parts = bytes(lba >> shift & 0xFF for shift in (0, 24, 8, 32, 16, 40))
    command = struct.pack("<BHH6sBBBI", 0, 0, 8, parts, 0xE0, 0x25, 0, 5000)
    return bytes(72) + command + struct.pack("<BBH6sBB19xBH", 0, 0x40, 8, parts, 0xE0, 0x51, 3, hours)


def _errors(disk: AtaDisk) -> bytes:
    """Return the Extended Comprehensive SMART error log: of a failing disk, two errors."""
    data = bytearray(512)
    data[0] = 1
    if disk.is_failing:
        struct.pack_into("<H", data, 2, 2)  # the latest
        for at, lba in enumerate((1000, _FAILED)):
            data[4 + 124 * at : 4 + 124 * (at + 1)] = _error_entry(lba, disk.hours - 2 + at)
        struct.pack_into("<H", data, 500, 2)
    return _summed(data)


def _self_tests(disk: AtaDisk) -> bytes:
    """Return the Extended SMART Self-test log: one short test, which a failing disk did not pass."""
    data = bytearray(512)
    status, lba = (0x70, _FAILED) if disk.is_failing else (0x00, (1 << 48) - 1)
    struct.pack_into("<BxHBBHB6s", data, 0, 1, 1, 0x01, status, disk.hours - 1 & 0xFFFF, 0, lba.to_bytes(6, "little"))
    return _summed(data)


def _queue_error(disk: AtaDisk) -> bytes:
    """Return the NCQ Command Error log: of a failing disk, a queued read."""
    data = bytearray(512)
    if disk.is_failing:
        low, mid, high, *upper = _FAILED.to_bytes(6, "little")
        struct.pack_into("<BxBB", data, 0, 5, 0x41, 0x40)
        data[4:11] = bytes((low, mid, high, 0x40, *upper))
        data[12] = 8
    else:
        data[0] = 0x80  # NQ
    return _summed(data)


def _statistics(disk: AtaDisk) -> bytes:
    """Return the Device Statistics log: the list of its pages, and those."""
    is_ssd = disk.rotation == 1
    pages = [0, 1, 4, 5, 6, 7] if is_ssd else [0, 1, 3, 4, 5, 6]
    raw = {number: value for number, _, _, _, value in disk.attributes}
    bad, pending, celsius = raw.get(5, 0), raw.get(197, 0), raw.get(194, 30)
    values: dict[int, dict[int, tuple[int, int, int]]] = {  # page, offset: size, value, more flags
        1: {8: (4, raw.get(12, 7), 0), 16: (4, disk.hours, 0), 24: (6, 123_456_789, 0), 40: (6, 987_654_321, 0)},
        3: {8: (4, disk.hours - 5, 0), 32: (4, bad, 0), 56: (4, pending, 0)},
        4: {8: (4, 3 if disk.is_failing else 0, 0), 16: (4, 1, 0)},
        5: {8: (1, celsius, 0), 32: (1, celsius + 9, 0), 40: (1, -3 & 0xFF, 0), 88: (1, 60, 0)},
        6: {8: (4, 70, 0), 24: (4, 0, 0)},
        7: {8: (1, disk.percent_used, _NORMALIZED)},
    }
    data = bytearray(512 * _STATISTICS_PAGES)
    for page in pages:
        struct.pack_into("<HB", data, 512 * page, 1, page)
        for at, (size, value, flags) in values.get(page, {}).items():
            data[512 * page + at : 512 * page + at + size] = value.to_bytes(size, "little")
            data[512 * page + at + 7] = _KEEPS | _VALID | flags
    data[8 : 9 + len(pages)] = bytes((len(pages), *pages))
    return bytes(data)
