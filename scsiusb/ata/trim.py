"""TRIM of an ATA disk behind a bridge: for those that do not translate UNMAP (ACS-3 DATA SET MANAGEMENT)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from scsiusb.ata.device import check_disk
from scsiusb.ata.extended import AtaExtendedSend
from scsiusb.ata.identify import IDENTIFY_DEVICE, IdentifyData
from scsiusb.ata.passthrough import SAT, SECTOR, Ata
from scsiusb.errors import DeviceUnsupported
from scsiusb.scsi.retry import NO_RETRY
from scsiusb.scsi.unit import LogicalUnit

DATA_SET_MANAGEMENT, TRIM = 0x06, 0x01  # the command, and its bit in FEATURES
MOST_BLOCKS_WORD: Final = 105
RANGE: Final = struct.Struct("<Q")  # 48 bits of LBA, 16 of the number of sectors
MOST_SECTORS: Final = 0xFFFF  # in a range
RANGES: Final = SECTOR // RANGE.size  # in a block of the list
TIMEOUT: Final = 120.0  # seconds


def trim(unit: LogicalUnit, lba: int, blocks: int) -> None:
    """Let the disk forget blocks; what they read as then, its IDENTIFY DEVICE data say.

    Raises DeviceUnsupported where the disk has no TRIM, or the bridge shows other blocks than the disk has,
    UnsupportedOpcode or IllegalRequest where the bridge does not translate, ValueError for blocks beyond the end, and
    as `LogicalUnit.execute`. No command is sent twice.
    """
    most = _check(unit, lba, blocks)
    for payload in lists(lba, blocks, most):
        unit.execute(AtaExtendedSend(DATA_SET_MANAGEMENT, TRIM, payload), timeout=TIMEOUT, retry=NO_RETRY)


def lists(lba: int, blocks: int, most: int) -> Iterator[bytes]:
    """Yield the data of each command: ranges of at most 65,535 sectors, in lists of at most `most` sectors."""
    ranges = list[bytes]()
    for at in range(lba, lba + blocks, MOST_SECTORS):
        ranges.append(RANGE.pack(at | min(MOST_SECTORS, lba + blocks - at) << 48))
        if len(ranges) == most * RANGES:
            yield b"".join(ranges)
            ranges.clear()
    if ranges:
        data = b"".join(ranges)
        yield data.ljust(-(-len(data) // SECTOR) * SECTOR, b"\0")


def _check(unit: LogicalUnit, lba: int, blocks: int) -> int:
    """Return how many sectors a list may have. Raise as `trim`."""
    check_disk(unit, SAT)
    data = Ata(unit).read(IDENTIFY_DEVICE)
    disk, capacity = IdentifyData.parse(data), unit.read_capacity()
    if not disk.has_trim:
        raise DeviceUnsupported("the disk has no TRIM")
    if (disk.blocks, disk.block_size) != (capacity.blocks, capacity.block_size):
        seen = f"{capacity.blocks} blocks of {capacity.block_size} bytes"
        has = f"the disk has {disk.blocks} of {disk.block_size}"
        raise DeviceUnsupported(f"the bridge shows {seen}, and {has}: its LBAs may be others")
    if not 0 <= lba <= lba + blocks <= disk.blocks:
        raise ValueError(f"{blocks} blocks at LBA {lba} end beyond the {disk.blocks} of the disk")
    return max(1, int.from_bytes(data[2 * MOST_BLOCKS_WORD : 2 * MOST_BLOCKS_WORD + 2], "little"))
