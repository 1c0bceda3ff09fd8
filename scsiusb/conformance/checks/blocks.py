"""Capacity and reading: each block that is told of can be read, none beyond, and always with the same content."""

from __future__ import annotations

from functools import partial
from typing import Final

from scsiusb.conformance.device_under_test import LBA_OUT_OF_RANGE, DeviceUnderTest
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
LARGE: Final = 60 * 1024  # bytes of one command that every device should take
LARGEST_6: Final = 0x1FFFFF  # LBA of a READ(6)
POWERS: Final = tuple(1 << power for power in range(9, 17))
CD_SIZES: Final = (2048, 2352, 512)


def capacity_10(device: DeviceUnderTest) -> str:
    ended = device.good(ReadCapacity10())
    ended.require(ended.moved == ReadCapacity10.length, "8 bytes")
    last, size = int.from_bytes(ended.data[:4], "big"), int.from_bytes(ended.data[4:], "big")
    right = POWERS if device.standard.peripheral_device_type == DISK else (*POWERS, *CD_SIZES)
    if size not in right:
        raise Violation(ended.asked, f"blocks of {size} bytes", "a power of two from 512 on")
    return f"last LBA {last}, blocks of {size} bytes"


def capacity_16(device: DeviceUnderTest) -> str:
    short = device.good(ReadCapacity10()).data
    too_large = short[:4] == b"\xff" * 4
    ended = device.good(ReadCapacity16()) if too_large else device.optional(ReadCapacity16())
    ended.require(ended.moved >= 12, f"{CAPACITY_16_LENGTH} bytes")
    ended.require(ended.data[:8] != b"\xff" * 8, "a last LBA that can be")
    last, size = int.from_bytes(ended.data[:8], "big"), ended.data[8:12]
    if size != short[4:8] or (last < TOO_LARGE_FOR_10 if too_large else last != int.from_bytes(short[:4], "big")):
        came = f"last LBA {last}, blocks of {int.from_bytes(size, 'big')} bytes"
        raise Violation(ended.asked, came, f"as READ CAPACITY(10) says, whose reply is {short.hex(' ')}")
    return f"last LBA {last}"


def last_block(device: DeviceUnderTest) -> str:
    last = device.capacity.last_lba
    first = max(0, last - 7)
    several = device.read(first, last - first + 1)
    alone = device.read(last, 1)
    if several[-device.block_size :] != alone:
        raise Violation(f"LBA {last}, alone and in a larger read", "different data", "the same")
    return f"LBA {last}, alone and with 7 before it"


def beyond_end(device: DeviceUnderTest) -> str:
    """One block behind the last, and one far behind it."""
    last = device.capacity.last_lba
    far = [] if last >= TOO_LARGE_FOR_10 - 1 else [TOO_LARGE_FOR_10]
    for lba in (last + 1, *far):
        kind = Read10 if lba <= TOO_LARGE_FOR_10 else Read16
        device.refused(kind(lba, 1, block_size=device.block_size), LBA_OUT_OF_RANGE)
    return f"LBA {last + 1} and {far or 'no other'}: 5/21/00"


def crossing_end(device: DeviceUnderTest) -> str:
    last = device.capacity.last_lba
    kind = Read10 if last < TOO_LARGE_FOR_10 else Read16
    request = kind(last, 2, block_size=device.block_size)
    ended = device.run(request)
    ended.require(ended.is_failed, "status 1 with sense 5/21/00")
    sense = device.sense()
    if (sense.key, sense.asc, sense.ascq) != LBA_OUT_OF_RANGE:
        raise Violation(ended.asked, f"sense {sense.codes}", "sense 5/21/00")
    return f"2 blocks at LBA {last}: {sense.codes}"


def zero_blocks(device: DeviceUnderTest) -> str:
    for lba in (0, device.capacity.last_lba // 2):
        ended = device.run(device.reading(lba, 0))
        ended.require(ended.is_good, "status 0: nothing to read is no error")
    return "status 0, no data"


def _read_6(lba: int, blocks: int, size: int) -> Raw:
    return Raw("READ(6)", bytes((8, lba >> 16, lba >> 8 & 0xFF, lba & 0xFF, blocks, 0)), blocks * size)


def _read_12(lba: int, blocks: int, size: int) -> Raw:
    return Raw("READ(12)", b"\xa8\0" + lba.to_bytes(4, "big") + blocks.to_bytes(4, "big") + bytes(2), blocks * size)


def _read_16(lba: int, blocks: int, size: int) -> Request:
    return Read16(lba, blocks, block_size=size)


def read_alike(length: int, device: DeviceUnderTest) -> str:
    """The other READs, where the device has them, read the same blocks."""
    make = {6: _read_6, 12: _read_12, 16: _read_16}[length]
    count = min(8, device.capacity.blocks)
    last = min(device.capacity.blocks, LARGEST_6 if length == 6 else TOO_LARGE_FOR_10) - count
    for lba in (0, last):
        ended = device.optional(make(lba, count, device.block_size))
        if ended.data != device.read(lba, count):
            raise Violation(f"{ended.asked}, LBA {lba}", "other data than READ(10)", "the same data")
    return f"{count} blocks at LBA 0 and {last}"


def repeatable(device: DeviceUnderTest) -> str:
    count = min(BLOCKS, device.capacity.blocks)
    for lba in (0, (device.capacity.blocks - count) // 2):
        if device.read(lba, count) != device.read(lba, count):
            raise Violation(f"{count} blocks at LBA {lba}, twice", "different data", "the same")
    return f"{count} blocks at two places, twice each"


def split(device: DeviceUnderTest) -> str:
    count = min(LARGE // device.block_size, device.capacity.blocks)
    if count < 2:
        raise NotApplicable("the blocks are too large, or too few")
    whole = device.read(0, count)
    single = b"".join(device.read(lba, 1) for lba in range(min(count, BLOCKS)))
    pairs = b"".join(device.read(lba, min(7, count - lba)) for lba in range(0, count, 7))
    if whole[: len(single)] != single or whole != pairs:
        raise Violation(f"{count} blocks at once and in pieces", "different data", "the same")
    return f"{count} blocks at once, in sevens, and singly"


CHECKS: Final = (
    Check(
        "capacity-10",
        "SBC-3 5.15",
        "READ CAPACITY(10) gives 8 bytes and a block size that can be.",
        capacity_10,
        needs_medium=True,
    ),
    Check(
        "capacity-16", "SBC-3 5.16", "READ CAPACITY(16) agrees with READ CAPACITY(10).", capacity_16, needs_medium=True
    ),
    Check(
        "last-block",
        "SBC-3 5.15",
        "The last LBA that READ CAPACITY reports can be read.",
        last_block,
        needs_medium=True,
    ),
    Check(
        "beyond-end", "SBC-3 5.11", "A READ behind the last block fails with 5/21/00.", beyond_end, needs_medium=True
    ),
    Check(
        "crossing-end",
        "SBC-3 5.11",
        "A READ that begins on the medium and ends behind it fails with 5/21/00.",
        crossing_end,
        needs_medium=True,
    ),
    Check(
        "read-zero-blocks",
        "SBC-3 5.11",
        "READ(10) of 0 blocks succeeds and moves nothing.",
        zero_blocks,
        needs_medium=True,
    ),
    Check(
        "read-6",
        "SBC-3 5.10",
        "READ(6), where there is one, reads what READ(10) reads.",
        partial(read_alike, 6),
        needs_medium=True,
    ),
    Check(
        "read-12",
        "SBC-3 5.12",
        "READ(12), where there is one, reads what READ(10) reads.",
        partial(read_alike, 12),
        needs_medium=True,
    ),
    Check(
        "read-16",
        "SBC-3 5.13",
        "READ(16), where there is one, reads what READ(10) reads.",
        partial(read_alike, 16),
        needs_medium=True,
    ),
    Check(
        "read-repeatable",
        "SBC-3 5.11",
        "The same blocks have the same content each time.",
        repeatable,
        needs_medium=True,
    ),
    Check(
        "read-split",
        "SBC-3 5.11",
        "One large READ and many small ones have the same content.",
        split,
        needs_medium=True,
    ),
)
