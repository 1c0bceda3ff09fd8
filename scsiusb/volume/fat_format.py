"""Make an empty FAT12, FAT16 or FAT32 file system, as Microsoft's specification of 2004 has it (fatgen103)."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from construct import Bytes, Const, If, Int8ul, Int16ul, Int32ul, Padded, Padding, Struct, this

from scsiusb.disk.file import READ_WRITE
from scsiusb.errors import FileSystemError
from scsiusb.volume.content import FEWEST_FAT16, FEWEST_FAT32, HEAD_LENGTH
from scsiusb.volume.filesystem import check_openable
from scsiusb.volume.table import Partition

if TYPE_CHECKING:
    from scsiusb.disk.file import DiskFile
    from scsiusb.volume.filesystem import Openable

FATS: Final = 2
FIXED_DISK: Final = 0xF8  # the media byte
ROOT_ENTRIES: Final = 512  # of FAT12 and FAT16, 32 bytes each
ENTRY_LENGTH: Final = 32
ROOT_CLUSTER: Final = 2
INFORMATION_SECTOR: Final = 1
BACKUP_SECTOR: Final = 6
RESERVED_32: Final = 32  # sectors
NEAR_LIMIT: Final = 16  # clusters: other systems count a little differently
FEWEST_SECTORS: Final = 64
PIECE: Final = 1 << 20  # bytes of zeros written at once
LABEL_ATTRIBUTE: Final = 0x08
NO_LABEL: Final = b"NO NAME    "
MIB: Final = 1 << 20
CLUSTERS_32: Final = ((260 * MIB, 512), (8192 * MIB, 4096), (16384 * MIB, 8192), (32768 * MIB, 16384))  # up to; bytes
LARGEST_CLUSTER: Final = 32768  # bytes
LARGEST_16: Final = 512 * MIB  # the specification makes FAT32 from here on

_EXTENSION: Final = Struct(
    "drive" / Const(0x80, Int8ul),
    Padding(1),
    "signature" / Const(0x29, Int8ul),
    "serial" / Int32ul,
    "label" / Bytes(11),
    "type" / Padded(8, Bytes(8)),
)
BOOT_SECTOR: Final = Padded(
    510,
    Struct(
        "jump" / Bytes(3),
        "oem" / Const(b"SCSIUSB "),
        "bytes_per_sector" / Int16ul,
        "sectors_per_cluster" / Int8ul,
        "reserved" / Int16ul,
        "fats" / Const(FATS, Int8ul),
        "root_entries" / Int16ul,
        "sectors_16" / Int16ul,
        "media" / Const(FIXED_DISK, Int8ul),
        "fat_sectors_16" / Int16ul,
        "sectors_per_track" / Const(63, Int16ul),
        "heads" / Const(255, Int16ul),
        "hidden" / Int32ul,
        "sectors_32" / Int32ul,
        "fat32"
        / If(
            this.is_fat32,
            Struct(
                "fat_sectors_32" / Int32ul,
                "flags" / Const(0, Int16ul),
                "version" / Const(0, Int16ul),
                "root" / Const(ROOT_CLUSTER, Int32ul),
                "information" / Const(INFORMATION_SECTOR, Int16ul),
                "backup" / Const(BACKUP_SECTOR, Int16ul),
                Padding(12),
            ),
        ),
        "extension" / _EXTENSION,
    ),
)
INFORMATION: Final = Struct(
    "lead" / Const(b"RRaA"),
    Padding(480),
    "signature" / Const(b"rrAa"),
    "free" / Int32ul,
    "next" / Int32ul,
    Padding(12),
    "trail" / Const(b"\0\0\x55\xaa"),
)


class Layout(NamedTuple):
    """Where the parts of a file system are; all but `bits` in sectors or clusters."""

    bits: int
    """12, 16 or 32 for each entry of the FAT."""
    cluster: int
    """Sectors of a cluster."""
    reserved: int
    fat: int
    """Sectors of one FAT."""
    root: int
    """Sectors of the root directory; 0 on FAT32, where it is a cluster."""
    clusters: int

    @property
    def data(self) -> int:
        """The first sector of the clusters."""
        return self.reserved + FATS * self.fat + self.root


def make_filesystem(where: Openable, *, label: str = "") -> str:
    """Make an empty FAT file system on a partition, or on a whole disk; all that was there is lost.

    Returns its kind when it is on the medium: "fat12", "fat16", or, from 512 MiB on, "fat32". Its sectors have the size
    of the device's blocks. `label`: at most 11 characters of ASCII. Raises ValueError for another label,
    FileSystemError where no FAT fits; as `Disk.write`, and then nothing that is known is on the partition.
    """
    check_openable(where)
    name = _label(label)
    hidden = where.lba if isinstance(where, Partition) else 0
    with where.open(READ_WRITE) as file:
        layout = plan(file.blocks, file.block_size)
        _write(file, layout, name, hidden if hidden < 1 << 32 else 0)
    return f"fat{layout.bits}"


def plan(sectors: int, size: int) -> Layout:
    """Return the layout for so many sectors of `size` bytes. Raise FileSystemError where no FAT fits."""
    if sectors < FEWEST_SECTORS or sectors >= 1 << 32 or size not in (512, 1024, 2048, 4096):
        what = f"{sectors} blocks of {size} bytes cannot have a FAT file system"
        raise FileSystemError(what, "it takes 64 to 2^32 - 1 blocks of 512, 1024, 2048 or 4096 bytes")
    bits, cluster = (32, _cluster_32(sectors * size)) if sectors * size >= LARGEST_16 else (0, size)
    while True:
        layout = _laid_out(sectors, size, bits or 16, max(1, cluster // size))
        if not bits and layout.clusters < FEWEST_FAT16 + NEAR_LIMIT:
            layout = _laid_out(sectors, size, 12, max(1, cluster // size))
        if _fits(layout):
            return layout
        cluster *= 2  # too many clusters, or as many as other systems take for another kind


def _cluster_32(length: int) -> int:
    return next((cluster for most, cluster in CLUSTERS_32 if length <= most), LARGEST_CLUSTER)


def _laid_out(sectors: int, size: int, bits: int, cluster: int) -> Layout:
    reserved = RESERVED_32 if bits == 32 else 1
    root = 0 if bits == 32 else ROOT_ENTRIES * ENTRY_LENGTH // size
    fat = 1
    while True:  # a larger FAT leaves fewer clusters: this ends
        clusters = (sectors - reserved - FATS * fat - root) // cluster
        needed = -(-(clusters + 2) * bits // (8 * size))
        if needed <= fat:
            return Layout(bits, cluster, reserved, fat, root, clusters)
        fat = needed


def _fits(layout: Layout) -> bool:
    most = {12: FEWEST_FAT16 - NEAR_LIMIT, 16: FEWEST_FAT32 - NEAR_LIMIT, 32: 0x0FFFFFF5}[layout.bits]
    fewest = {12: 1, 16: FEWEST_FAT16 + NEAR_LIMIT, 32: FEWEST_FAT32 + NEAR_LIMIT}[layout.bits]
    return fewest <= layout.clusters < most


def _write(file: DiskFile, layout: Layout, label: bytes, hidden: int) -> None:
    """Write zeros first, the boot sector last: what is half made is no file system."""
    size = file.block_size
    begin = layout.data * size
    _zeros(file, 0, min(file.size, max(begin + layout.cluster * size, HEAD_LENGTH)))
    first = {12: b"\xf8\xff\xff", 16: b"\xf8\xff\xff\xff", 32: b"\xf8\xff\xff\x0f\xff\xff\xff\x0f\xff\xff\xff\x0f"}
    for number in range(FATS):
        _put(file, (layout.reserved + number * layout.fat) * size, first[layout.bits])
    if label != NO_LABEL:
        entry = label + bytes([LABEL_ATTRIBUTE]) + bytes(ENTRY_LENGTH - 12)
        _put(file, (layout.data if layout.bits == 32 else layout.data - layout.root) * size, entry)
    boot = BOOT_SECTOR.build(_fields(file, layout, label, hidden)) + b"\x55\xaa"
    if layout.bits == 32:
        information = INFORMATION.build({"free": layout.clusters - 1, "next": ROOT_CLUSTER + 1})
        for at in (0, BACKUP_SECTOR):
            _put(file, (at + INFORMATION_SECTOR) * size, information)
        _put(file, BACKUP_SECTOR * size, boot)
    file.flush()
    _put(file, 0, boot)
    file.flush()


def _fields(file: DiskFile, layout: Layout, label: bytes, hidden: int) -> dict[str, Any]:
    is_fat32 = layout.bits == 32
    is_small = file.blocks < 1 << 16 and not is_fat32
    return {
        "is_fat32": is_fat32,
        "jump": b"\xeb\x58\x90" if is_fat32 else b"\xeb\x3c\x90",
        "bytes_per_sector": file.block_size,
        "sectors_per_cluster": layout.cluster,
        "reserved": layout.reserved,
        "root_entries": 0 if is_fat32 else ROOT_ENTRIES,
        "sectors_16": file.blocks if is_small else 0,
        "fat_sectors_16": 0 if is_fat32 else layout.fat,
        "hidden": hidden,
        "sectors_32": 0 if is_small else file.blocks,
        "fat32": {"fat_sectors_32": layout.fat},
        "extension": {"serial": secrets.randbits(32), "label": label, "type": b"FAT%-5d" % layout.bits},
    }


def _label(label: str) -> bytes:
    text = label.upper()
    if not text.isascii() or len(text) > 11 or any(char < " " or char in '"*+,./:;<=>?[\\]|' for char in text):
        raise ValueError(f"the label {label!r} is not possible on FAT: at most 11 letters, digits, spaces, - and _")
    return text.encode().ljust(11) if text.strip() else NO_LABEL


def _zeros(file: DiskFile, begin: int, end: int) -> None:
    for at in range(begin, end, PIECE):
        _put(file, at, bytes(min(PIECE, end - at)))


def _put(file: DiskFile, at: int, data: bytes) -> None:
    file.seek(at)
    if file.write(data) != len(data):
        raise FileSystemError("the partition ended before the file system", "read the partition table again")
