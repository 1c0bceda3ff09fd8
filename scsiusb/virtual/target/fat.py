"""A small formatted disk: a partition table with one FAT partition that contains README.TXT."""

from __future__ import annotations

import struct
from functools import cached_property

from scsiusb.virtual.target.media import Medium, Memory

SIZE = 8 << 20
START = 1 << 20  # byte offset of the partition
LABEL = b"SCSIUSB    "
README = (
    b"This is a USB stick made of software.\r\nIt belongs to scsiusb.\r\nWhat you write here is gone afterwards.\r\n"
)

_ROOT_ENTRIES = 512
_DATE = 1 << 5 | 1  # 1 January 1980, the first date that FAT can store
_SERIAL = 0x5C510001
_HEADS, _SECTORS = 255, 63
_MEDIA = 0xF8  # fixed disk


class Formatted(Memory):
    """The disk as a medium in memory.

    The image is made at the first access to its blocks: making it takes longer than most commands.
    Raises ValueError for a block size other than 512, 1024, 2048 or 4096 bytes.
    """

    def __init__(self, block_size: int = 512) -> None:
        _check(block_size)
        Medium.__init__(self, SIZE, block_size)

    @cached_property
    def data(self) -> bytearray:  # type: ignore[override]
        """The bytes of all blocks."""
        return image(self.block_size)


def image(block_size: int = 512) -> bytearray:
    """Return the bytes of the whole disk, which are always the same. ValueError for an unsupported block size."""
    _check(block_size)
    disk = bytearray(SIZE)
    volume = _volume(block_size, (SIZE - START) // block_size)
    disk[START : START + len(volume)] = volume
    disk[:512] = _partition_table(START // block_size, (SIZE - START) // block_size)
    return disk


def _check(block_size: int) -> None:
    if block_size not in (512, 1024, 2048, 4096):
        raise ValueError(f"FAT has no block size of {block_size} bytes; use 512, 1024, 2048 or 4096")


def _partition_table(start: int, blocks: int) -> bytes:
    entry = struct.pack("<B3sB3sII", 0, _chs(start), 0x0E, _chs(start + blocks - 1), start, blocks)
    return struct.pack("<440sIH16s48sH", b"", _SERIAL, 0, entry, b"", 0xAA55)


def _chs(block: int) -> bytes:
    cylinder, rest = divmod(block, _HEADS * _SECTORS)
    head, sector = divmod(rest, _SECTORS)
    return bytes((head, sector + 1 | cylinder >> 2 & 0xC0, cylinder & 0xFF))


def _volume(block_size: int, blocks: int) -> bytes:
    """Return the partition up to its last used block: boot sector, two FATs, root directory, README.TXT.

    A cluster has one block.
    """
    root = _ROOT_ENTRIES * 32 // block_size
    bits = 16 if blocks > 4096 else 12  # FAT12 has less than 4085 clusters
    fat = -(-(blocks * bits // 8 + 4) // block_size)
    # Two reserved entries, and the end-of-chain mark of README.TXT's only cluster.
    table = bytes((_MEDIA, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF) if bits == 16 else (_MEDIA, 0xFF, 0xFF, 0xFF, 0x0F))
    table = table.ljust(fat * block_size, b"\0")
    head = _boot_sector(block_size, blocks, fat, bits) + table + table
    return head + _directory().ljust(root * block_size, b"\0") + README


def _boot_sector(block_size: int, blocks: int, fat: int, bits: int) -> bytes:
    small, large = (blocks, 0) if blocks < 0x10000 else (0, blocks)
    sector = struct.pack(
        "<3s8sHBHBHHBHHHIIBBBI11s8s448sH",
        b"\xeb\x3c\x90",
        b"SCSIUSB ",
        block_size,
        1,  # blocks per cluster
        1,  # reserved blocks
        2,  # FATs
        _ROOT_ENTRIES,
        small,
        _MEDIA,
        fat,
        _SECTORS,
        _HEADS,
        START // block_size,
        large,
        0x80,
        0,
        0x29,
        _SERIAL,
        LABEL,
        f"FAT{bits}   ".encode(),
        b"",
        0xAA55,
    )
    return sector.ljust(block_size, b"\0")


def _directory() -> bytes:
    return _entry(LABEL, 0x08, 0, 0) + _entry(b"README  TXT", 0x20, 2, len(README))


def _entry(name: bytes, attributes: int, cluster: int, size: int) -> bytes:
    return struct.pack("<11sB10xHHHI", name, attributes, 0, _DATE, cluster, size)
