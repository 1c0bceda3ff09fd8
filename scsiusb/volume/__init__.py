"""What is on a disk: its partition table, each partition as a file, what is on it by its signature, and its files."""

from __future__ import annotations

from scsiusb.volume.fat_format import make_filesystem
from scsiusb.volume.file_entry import FileEntry
from scsiusb.volume.filesystem import FileSystem, filesystem
from scsiusb.volume.table import Partition, PartitionTable, partitions
from scsiusb.volume.types import BASIC_DATA, EFI_SYSTEM, LINUX, LINUX_SWAP
from scsiusb.volume.writing import NewPartition, write_gpt, write_mbr

__all__ = [
    "BASIC_DATA",
    "EFI_SYSTEM",
    "LINUX",
    "LINUX_SWAP",
    "FileEntry",
    "FileSystem",
    "NewPartition",
    "Partition",
    "PartitionTable",
    "filesystem",
    "make_filesystem",
    "partitions",
    "write_gpt",
    "write_mbr",
]
