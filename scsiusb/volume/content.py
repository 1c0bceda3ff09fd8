"""What is on a partition, or on a disk without a table, recognized by signatures of file systems and containers."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from construct import Bytes, Int8ul, Int16ul, Int32ul, Padding, Struct

from scsiusb.base.packing import parsed
from scsiusb.volume.source import Source

HEAD_LENGTH: Final = 0x11000  # bytes: the furthest signatures are at 64 KiB
BOOT_LENGTH: Final = 512

BPB: Final = Struct(  # the BIOS parameter block of FAT, as Microsoft's specification of 2004 has it
    "jump" / Int8ul,
    Padding(10),
    "bytes_per_sector" / Int16ul,
    "sectors_per_cluster" / Int8ul,
    "reserved" / Int16ul,
    "fats" / Int8ul,
    "root_entries" / Int16ul,
    "sectors_16" / Int16ul,
    "media" / Int8ul,
    "fat_sectors_16" / Int16ul,
    Padding(8),
    "sectors_32" / Int32ul,
    "fat_sectors_32" / Int32ul,
)
JUMPS: Final = (0xEB, 0xE9)
SECTOR_SIZES: Final = (512, 1024, 2048, 4096)
FEWEST_FAT16: Final = 4085  # clusters
FEWEST_FAT32: Final = 65525

EXT_AT: Final = 1024
EXT_SUPERBLOCK: Final = Struct(
    Padding(56), "magic" / Bytes(2), Padding(34), "compatible" / Int32ul, "incompatible" / Int32ul, "ro" / Int32ul
)
EXT_MAGIC: Final = b"\x53\xef"
EXT_JOURNAL: Final = 0x4  # compatible feature
EXT3_INCOMPATIBLE: Final = 0x2 | 0x4 | 0x10  # file types, recovery, meta block groups
EXT3_RO: Final = 0x1 | 0x2 | 0x4  # sparse superblocks, large files, directory trees

VOLUMES_AT: Final = 0x8000  # the volume descriptors of ISO 9660 and UDF (ECMA-119 6.2.1, ECMA-167 2/8)
DESCRIPTOR: Final = 2048  # bytes, or a block if that is larger
UDF: Final = (b"NSR02", b"NSR03")
ISO: Final = b"CD001"


class Signature(NamedTuple):
    """Bytes by which a format is known."""

    content: str
    offset: int
    magic: bytes


BOOT_SECTORS: Final = (  # these are in a boot sector that looks like a partition table, as it ends with 55AAh
    Signature("exfat", 3, b"EXFAT   \0\0\0\0\0\0\0\0"),
    Signature("ntfs", 3, b"NTFS    "),
    Signature("bitlocker", 3, b"-FVE-FS-"),
)
SIGNATURES: Final = (  # a format writes at least at its first offset when it is made: lower ones are newer
    Signature("luks1", 0, b"LUKS\xba\xbe\x00\x01"),
    Signature("luks2", 0, b"LUKS\xba\xbe\x00\x02"),
    Signature("xfs", 0, b"XFSB"),
    Signature("squashfs", 0, b"hsqs"),
    Signature("apfs", 32, b"NXSB"),
    Signature("lvm2", 512, b"LABELONE"),
    Signature("hfsplus", 1024, b"H+\x00\x04"),
    Signature("hfsplus", 1024, b"HX\x00\x05"),
    Signature("f2fs", 1024, b"\x10\x20\xf5\xf2"),
    *(Signature("swap", size - 10, b"SWAPSPACE2") for size in (0x1000, 0x2000, 0x4000, 0x8000, 0x10000)),  # a page
    Signature("btrfs", 0x10040, b"_BHRfS_M"),
)


def find(source: Source) -> str | None:
    """Return what is on the blocks: "fat12", "ext4", "luks2", …, a name as Linux's; None if nothing is known there."""
    head = source.readable(0, HEAD_LENGTH)
    return boot_sector(head) or _ext(head) or _match(SIGNATURES, head) or _volume(head, source.block_size)


def boot_sector(head: bytes) -> str | None:
    """Return the file system whose boot sector begins the bytes, if any: it may pass for a partition table."""
    return _match(BOOT_SECTORS, head) or _fat(head)


def _match(signatures: tuple[Signature, ...], head: bytes) -> str | None:
    return next((content for content, at, magic in signatures if head[at : at + len(magic)] == magic), None)


def _fat(head: bytes) -> str | None:
    if len(head) < BOOT_LENGTH or head[BOOT_LENGTH - 2 : BOOT_LENGTH] != b"\x55\xaa":
        return None
    bpb = parsed(BPB, head)
    size, cluster = bpb.bytes_per_sector, bpb.sectors_per_cluster
    if bpb.jump not in JUMPS or size not in SECTOR_SIZES or not cluster or cluster & (cluster - 1):
        return None
    if not bpb.reserved or bpb.fats not in (1, 2) or not (bpb.media == 0xF0 or bpb.media >= 0xF8):
        return None
    return _fat_by_clusters(bpb)


def _fat_by_clusters(bpb: Any) -> str | None:
    """Return the kind of FAT, which its number of clusters decides; None if there is no room for any."""
    fat_sectors = bpb.fat_sectors_16 or bpb.fat_sectors_32
    root_sectors = -(-bpb.root_entries * 32 // bpb.bytes_per_sector)
    data = (bpb.sectors_16 or bpb.sectors_32) - bpb.reserved - bpb.fats * fat_sectors - root_sectors
    if not fat_sectors or data <= 0:
        return None
    clusters = data // bpb.sectors_per_cluster
    if clusters >= FEWEST_FAT32 or not bpb.fat_sectors_16:
        return "fat32"
    return "fat16" if clusters >= FEWEST_FAT16 else "fat12"


def _ext(head: bytes) -> str | None:
    raw = head[EXT_AT : EXT_AT + EXT_SUPERBLOCK.sizeof()]
    if len(raw) < EXT_SUPERBLOCK.sizeof():
        return None
    block = parsed(EXT_SUPERBLOCK, raw)
    if block.magic != EXT_MAGIC:
        return None
    if block.incompatible & ~EXT3_INCOMPATIBLE or block.ro & ~EXT3_RO:
        return "ext4"
    return "ext3" if block.compatible & EXT_JOURNAL else "ext2"


def _volume(head: bytes, block_size: int) -> str | None:
    """Return "udf" or "iso9660"; a disk that has both is "udf", as Linux mounts it."""
    step = max(DESCRIPTOR, block_size)
    names = [head[at + 1 : at + 6] for at in range(VOLUMES_AT, len(head), step)]
    if any(name in UDF for name in names):
        return "udf"
    return "iso9660" if names[:1] == [ISO] else None
