"""Seekable zstd (format 0.1.0): a table of all frames at the end, by which a reader finds the frame of any byte.

The table is a skippable frame, so that every zstd program reads the file like any other.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from typing import BinaryIO, Final, NamedTuple

from scsiusb.imaging.codecs import ZST

SKIPPABLE: Final = struct.Struct("<II")  # magic, length of what follows
SKIPPABLE_MAGIC: Final = 0x184D2A5E
ENTRY: Final = struct.Struct("<III")  # compressed and decompressed bytes, checksum
ENTRY_WITHOUT_CHECKSUM: Final = struct.Struct("<II")
FOOTER: Final = struct.Struct("<IBI")  # number of frames, descriptor, magic
FOOTER_MAGIC: Final = 0x8F92EAB1
HAS_CHECKSUMS: Final = 0x80
CHECKSUM: Final = 4  # bytes at the end of a frame, where zstd puts the low half of XXH64, which the table has, too


class Frame(NamedTuple):
    """A frame of the file."""

    compressed: int
    """Bytes in the file."""
    size: int
    """Bytes of its contents."""
    checksum: bytes = bytes(CHECKSUM)


def seek_table(frames: Iterable[Frame]) -> bytes:
    """Return the table for the end of the file."""
    entries = b"".join(struct.pack("<II4s", *frame) for frame in frames)
    count = len(entries) // ENTRY.size
    body = entries + FOOTER.pack(count, HAS_CHECKSUMS, FOOTER_MAGIC)
    return SKIPPABLE.pack(SKIPPABLE_MAGIC, len(body)) + body


def read_seek_table(file: BinaryIO) -> list[Frame] | None:
    """Return the frames by the table at the end of a file that can seek; None if it has none that fits the file."""
    length = file.seek(0, os.SEEK_END)
    if length < SKIPPABLE.size + FOOTER.size:
        return None
    file.seek(length - FOOTER.size)
    count, descriptor, magic = FOOTER.unpack(file.read(FOOTER.size))
    entry = ENTRY if descriptor & HAS_CHECKSUMS else ENTRY_WITHOUT_CHECKSUM
    body = count * entry.size + FOOTER.size
    if magic != FOOTER_MAGIC or SKIPPABLE.size + body > length:
        return None
    file.seek(length - SKIPPABLE.size - body)
    if SKIPPABLE.unpack(file.read(SKIPPABLE.size)) != (SKIPPABLE_MAGIC, body):
        return None
    table = file.read(count * entry.size)
    if sum(compressed for compressed, *_ in entry.iter_unpack(table)) != length - SKIPPABLE.size - body:
        return None
    return [Frame(compressed, size) for compressed, size, *_ in entry.iter_unpack(table)]


def frame_of(data: bytes, size: int) -> Frame:
    """Return the entry of a frame that was compressed with a checksum; `size`: bytes of its contents."""
    assert data.startswith(ZST.magic)
    return Frame(len(data), size, data[-CHECKSUM:])
