"""Builds disks with partition tables byte by byte, from the specifications and not by the code under test."""

from __future__ import annotations

import binascii
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import scsiusb
from scsiusb.virtual import Bus, Memory, Stick, Unit
from scsiusb.volume import PartitionTable, partitions

LINUX = UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
DISK_ID = UUID("01234567-89ab-cdef-0123-456789abcdef")
OWN_ID = UUID("11111111-2222-3333-4444-555555555555")

MbrRow = tuple[int, int, int]  # type, first block, blocks
GptRow = tuple[UUID, int, int, str]  # type, first and last block, name


def record(*rows: MbrRow, signature: int = 0x12345678, status: int = 0) -> bytes:
    """Return a boot record."""
    entries = b"".join(struct.pack("<B3xB3xII", status, kind, lba, blocks) for kind, lba, blocks in rows)
    return bytes(440) + struct.pack("<IH", signature, 0) + entries.ljust(64, b"\0") + b"\x55\xaa"


def array_of(rows: list[GptRow], count: int = 128, size: int = 128) -> bytes:
    """Return the entries of a GPT."""
    made = [
        struct.pack("<16s16sQQQ72s", kind.bytes_le, OWN_ID.bytes_le, first, last, 0, name.encode("utf-16-le"))
        for kind, first, last, name in rows
    ]
    return b"".join(entry.ljust(size, b"\0") for entry in made).ljust(count * size, b"\0")


def header(
    lba: int,
    other: int,
    array_lba: int,
    array: bytes,
    usable: tuple[int, int],
    *,
    count: int = 128,
    size: int = 128,
    length: int = 92,
) -> bytes:
    """Return a header of a GPT."""

    def packed(crc: int) -> bytes:
        head = struct.pack("<8sIIIIQQQQ", b"EFI PART", 0x10000, length, crc, 0, lba, other, *usable)
        tail = struct.pack("<16sQIII", DISK_ID.bytes_le, array_lba, count, size, binascii.crc32(array))
        return (head + tail).ljust(length, b"\0")

    return packed(binascii.crc32(packed(0)[:length]))


def gpt(blocks: int, block_size: int, *rows: GptRow, protective: bool = True) -> bytearray:
    """Return a whole disk with a GPT."""
    data, array = bytearray(blocks * block_size), array_of(list(rows))
    size, last = len(array) // block_size, blocks - 1
    usable = 2 + size, last - size - 1
    if protective:
        data[:512] = record((0xEE, 1, blocks - 1), signature=0)
    put(data, block_size, header(1, last, 2, array, usable))
    put(data, 2 * block_size, array)
    put(data, (last - size) * block_size, array)
    put(data, last * block_size, header(last, 1, last - size, array, usable))
    return data


def logical_drives() -> bytearray:
    """Return a disk of 1000 blocks with a primary partition, and three logical drives in a chain."""
    data = bytearray(1000 * 512)
    put(data, 0, record((0x83, 10, 90), (0x0F, 100, 500)))
    put(data, 100 * 512, record((0x83, 10, 40), (0x05, 100, 100)))  # relative to this record; to the partition
    put(data, 200 * 512, record((0x07, 1, 50), (0x05, 300, 100)))
    put(data, 400 * 512, record((0x0C, 5, 60)))
    return data


def put(data: bytearray, at: int, part: bytes | bytearray) -> None:
    data[at : at + len(part)] = part


@contextmanager
def disk_of(data: bytearray, block_size: int = 512, *faults: str) -> Iterator[scsiusb.Disk]:
    """Open a disk with these bytes, which it changes."""
    with scsiusb.open_on(Bus(Stick([Unit(Memory(data, block_size))], faults=faults))) as disk:
        yield disk


def table_of(data: bytearray, block_size: int = 512, *faults: str) -> PartitionTable:
    with disk_of(data, block_size, *faults) as disk:
        return partitions(disk)
