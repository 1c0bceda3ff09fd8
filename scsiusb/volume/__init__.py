"""What is on a disk: its partition table, each partition as a file, and what is on it by its signature."""

from __future__ import annotations

from scsiusb.volume.table import Partition, PartitionTable, partitions
from scsiusb.volume.types import BASIC_DATA, EFI_SYSTEM, LINUX, LINUX_SWAP
from scsiusb.volume.writing import NewPartition, write_gpt, write_mbr

__all__ = [
    "BASIC_DATA",
    "EFI_SYSTEM",
    "LINUX",
    "LINUX_SWAP",
    "NewPartition",
    "Partition",
    "PartitionTable",
    "partitions",
    "write_gpt",
    "write_mbr",
]
