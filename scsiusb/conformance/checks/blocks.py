"""Checks of READ CAPACITY and READ: every reported block is readable, none after the end, with stable content."""

from __future__ import annotations

from functools import partial
from typing import Final

from scsiusb.conformance.device_under_test import LBA_OUT_OF_RANGE, MOST_BLOCKS, DeviceUnderTest
from scsiusb.conformance.exchange import Raw, Request
from scsiusb.conformance.outcome import Check, NotApplicable, Violation
from scsiusb.scsi.commands.sbc import (
    CAPACITY_16_LENGTH,
    TOO_LARGE_FOR_10,
    Read10,
    Read16,
    ReadCapacity10,
    ReadCapacity16,
)
from scsiusb.scsi.pages.inquiry import DISK

BLOCKS: Final = 64
LARGE: Final = 60 * 1024  # bytes of one command; every device should support so many
LARGEST_6: Final = 0x1FFFFF  # LBA of a READ(6)
POWERS: Final = tuple(1 << power for power in range(9, 17))
CD_SIZES: Final = (2048, 2352, 512)


def capacity_10(device: DeviceUnderTest) -> str:
    """Check the length of READ CAPACITY(10) data and the block size."""
    result = device.good(ReadCapacity10())
    result.require(result.moved == ReadCapacity10.length, "8 bytes of data")
    last, size = int.from_bytes(result.data[:4], "big"), int.from_bytes(result.data[4:], "big")
    expected = POWERS if device.standard.peripheral_device_type == DISK else (*POWERS, *CD_SIZES)
    if size not in expected:
        raise Violation(result.asked, f"blocks of {size} bytes", "a power of two from 512 to 65536")
    return f"last LBA {last}, blocks of {size} bytes"


def capacity_16(device: DeviceUnderTest) -> str:
    """Compare READ CAPACITY(16), optional for media below 2 TiB, with READ CAPACITY(10)."""
    short = device.good(ReadCapacity10()).data
    too_large = short[:4] == b"\xff" * 4
    result = device.good(ReadCapacity16()) if too_large else device.optional(ReadCapacity16())
    result.require(result.moved >= 12, f"{CAPACITY_16_LENGTH} bytes")
    last, size = int.from_bytes(result.data[:8], "big"), result.data[8:12]
    if last >= MOST_BLOCKS:
        raise Violation(result.asked, f"last LBA {last}", f"a last LBA below {MOST_BLOCKS}, which is 2^64 bytes")
    if size != short[4:8] or (last < TOO_LARGE_FOR_10 if too_large else last != int.from_bytes(short[:4], "big")):
        came = f"last LBA {last}, blocks of {int.from_bytes(size, 'big')} bytes"
        raise Violation(result.asked, came, f"the same as READ CAPACITY(10), whose reply is {short.hex(' ')}")
    return f"last LBA {last}"


def last_block(device: DeviceUnderTest) -> str:
    """Read the last block alone, and with up to 7 blocks before it."""
    last = device.capacity.last_lba
    first = max(0, last - 7)
    several = device.read(first, last - first + 1)
    alone = device.read(last, 1)
    if several[-device.block_size :] != alone:
        raise Violation(f"READ of LBA {last}, alone and with others", "different data", "the same data")
    return f"LBA {last}, alone and with {last - first} before it"


def beyond_end(device: DeviceUnderTest) -> str:
    """Read one block after the last one, and one at the last LBA that READ(10) can address."""
    last = device.capacity.last_lba
    lbas = (last + 1,) if last >= TOO_LARGE_FOR_10 - 1 else (last + 1, TOO_LARGE_FOR_10)
    for lba in lbas:
        kind = Read10 if lba <= TOO_LARGE_FOR_10 else Read16
        device.refused(kind(lba, 1, block_size=device.block_size), LBA_OUT_OF_RANGE)
    return f"LBA {', '.join(map(str, lbas))}: 5/21/00"


def crossing_end(device: DeviceUnderTest) -> str:
    """Read the last block and the one after it by one command."""
    last = device.capacity.last_lba
    kind = Read10 if last < TOO_LARGE_FOR_10 else Read16
    request = kind(last, 2, block_size=device.block_size)
    result = device.run(request)
    result.require(result.is_failed, "status 1 with sense 5/21/00")
    sense = device.sense()
    if (sense.key, sense.asc, sense.ascq) != LBA_OUT_OF_RANGE:
        raise Violation(result.asked, f"sense {sense.codes}", "sense 5/21/00")
    return f"2 blocks at LBA {last}: {sense.codes}"


def zero_blocks(device: DeviceUnderTest) -> str:
    """Read 0 blocks at the start and in the middle of the medium."""
    for lba in (0, device.capacity.last_lba // 2):
        result = device.run(device.reading(lba, 0))
        result.require(result.is_good, "status 0: reading 0 blocks is not an error")
    return "status 0, no data"


def _read_6(lba: int, blocks: int, size: int) -> Raw:
    return Raw("READ(6)", bytes((8, lba >> 16, lba >> 8 & 0xFF, lba & 0xFF, blocks, 0)), blocks * size)


def _read_12(lba: int, blocks: int, size: int) -> Raw:
    return Raw("READ(12)", b"\xa8\0" + lba.to_bytes(4, "big") + blocks.to_bytes(4, "big") + bytes(2), blocks * size)


def _read_16(lba: int, blocks: int, size: int) -> Request:
    return Read16(lba, blocks, block_size=size)


def read_alike(length: int, device: DeviceUnderTest) -> str:
    """Compare READ(6), (12) or (16), by the `length` of the CDB, with READ(10) at two places."""
    make = {6: _read_6, 12: _read_12, 16: _read_16}[length]
    count = min(8, device.capacity.blocks)
    last = min(device.capacity.blocks, LARGEST_6 if length == 6 else TOO_LARGE_FOR_10) - count
    compared: list[int] = []
    for lba in dict.fromkeys((0, last)):
        if not device.works(device.reading(lba, count)):
            continue  # blocks that READ(10) cannot read either are not the fault of this command
        request = make(lba, count, device.block_size)
        # It is optional, but not only in places.
        result = device.good(request) if compared else device.optional(request)
        if result.data != device.read(lba, count):
            raise Violation(f"{result.asked}, LBA {lba}", "different data than by READ(10)", "the same data")
        compared.append(lba)
    if not compared:
        raise NotApplicable("READ(10) fails, too")
    return f"{count} blocks at LBA {' and '.join(map(str, compared))}"


def repeatable(device: DeviceUnderTest) -> str:
    """Read blocks at two places twice and compare."""
    count = min(BLOCKS, device.capacity.blocks)
    for lba in (0, (device.capacity.blocks - count) // 2):
        if device.read(lba, count) != device.read(lba, count):
            raise Violation(f"{count} blocks at LBA {lba}, twice", "different data", "the same data")
    return f"{count} blocks at two places, twice each"


def split(device: DeviceUnderTest) -> str:
    """Read the same blocks by one command, 7 at a time and one at a time, and compare."""
    count = min(LARGE // device.block_size, device.capacity.blocks)
    if count < 2:
        raise NotApplicable("the medium has one block, or blocks of more than 30 KiB")
    whole = device.read(0, count)
    single = b"".join(device.read(lba, 1) for lba in range(min(count, BLOCKS)))
    sevens = b"".join(device.read(lba, min(7, count - lba)) for lba in range(0, count, 7))
    if whole[: len(single)] != single or whole != sevens:
        raise Violation(f"{count} blocks in one READ and in several", "different data", "the same data")
    return f"{count} blocks in one READ, 7 at a time, and one at a time"


CHECKS: Final = (
    Check(
        "capacity-10",
        "SBC-3 5.15",
        "READ CAPACITY(10) must return 8 bytes, with a block size of 512 to 65536, a power of two (CD: or 2352).",
        capacity_10,
        needs_medium=True,
    ),
    Check(
        "capacity-16",
        "SBC-3 5.16",
        "READ CAPACITY(16) must agree with READ CAPACITY(10).",
        capacity_16,
        needs_medium=True,
    ),
    Check(
        "last-block",
        "SBC-3 5.15",
        "The last LBA that READ CAPACITY reports must be readable.",
        last_block,
        needs_medium=True,
    ),
    Check(
        "beyond-end",
        "SBC-3 5.11",
        "A READ after the last block must fail with 5/21/00 (LOGICAL BLOCK ADDRESS OUT OF RANGE).",
        beyond_end,
        needs_medium=True,
    ),
    Check(
        "crossing-end",
        "SBC-3 5.11",
        "A READ that starts before and ends after the end of the medium must fail with 5/21/00.",
        crossing_end,
        needs_medium=True,
    ),
    Check(
        "read-zero-blocks",
        "SBC-3 5.11",
        "A READ of 0 blocks must succeed and transfer no data.",
        zero_blocks,
        needs_medium=True,
    ),
    Check(
        "read-6",
        "SBC-2 5.5",
        "READ(6), if supported, must return the same data as READ(10).",
        partial(read_alike, 6),
        needs_medium=True,
    ),
    Check(
        "read-12",
        "SBC-3 5.12",
        "READ(12), if supported, must return the same data as READ(10).",
        partial(read_alike, 12),
        needs_medium=True,
    ),
    Check(
        "read-16",
        "SBC-3 5.13",
        "READ(16), if supported, must return the same data as READ(10).",
        partial(read_alike, 16),
        needs_medium=True,
    ),
    Check(
        "read-repeatable",
        "SBC-3 5.11",
        "The same blocks must have the same content each time they are read.",
        repeatable,
        needs_medium=True,
    ),
    Check(
        "read-split",
        "SBC-3 5.11",
        "One large READ and several small ones must return the same data.",
        split,
        needs_medium=True,
    ),
)
