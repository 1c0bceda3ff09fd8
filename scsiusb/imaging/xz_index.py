"""How large the contents of an .xz file are, by the index at the end of each stream (.xz file format 1.2.1, 2 to 4).

A file may have several streams, each with a footer that gives the length of its index, and an index that gives the
lengths of its blocks. So the streams are found from the end of the file on. A file may say anything: each length is
checked against the file, and an index must have its CRC.
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import BinaryIO, Final, NamedTuple

HEADER: Final = 12  # bytes of a stream's header, and of its footer
MAGIC: Final = b"\xfd7zXZ\x00"
FOOTER_MAGIC: Final = b"YZ"
FOOTER: Final = struct.Struct("<II2s2s")  # CRC, backward size, stream flags, magic
CRC: Final = 4  # bytes
ALIGNMENT: Final = 4  # bytes, of which streams, blocks and padding have whole numbers
LARGEST_INDEX: Final = 16 * 1024 * 1024  # bytes; of an image of 2 TB in blocks of a MiB
MOST_STREAMS: Final = 100_000  # more are not looked at
LONGEST_PADDING: Final = 64 * 1024  # bytes; tools pad to a sector, or to a block of a tape
LONGEST_NUMBER: Final = 9  # bytes


class XzContents(NamedTuple):
    """What the indexes say."""

    size: int
    """Bytes of the contents; of the last streams, if not all were found."""
    is_whole: bool
    """Whether all streams were found, so that the file has no more than `size`."""


class _Stream(NamedTuple):
    """Where a stream begins in the file, and how large its contents are."""

    start: int
    size: int


def read_xz_index(file: BinaryIO) -> XzContents | None:
    """Return how large the contents of a seekable file are; None if its end is no .xz stream. Raise OSError."""
    end, size = file.seek(0, os.SEEK_END), 0
    for count in range(MOST_STREAMS):
        found = _stream_before(file, end)
        if found is None:
            return XzContents(size, is_whole=False) if count else None
        end, size = found.start, size + found.size
        if not end:
            return XzContents(size, is_whole=True)
    return XzContents(size, is_whole=False)


def _stream_before(file: BinaryIO, end: int) -> _Stream | None:
    """Return the stream that ends at byte `end` of the file, but for its padding; None if there is none."""
    at = _without_padding(file, end) - HEADER
    if at < HEADER:
        return None
    crc, backward, flags, magic = FOOTER.unpack(_read(file, at, HEADER))
    length = (backward + 1) * ALIGNMENT
    if magic != FOOTER_MAGIC or crc != zlib.crc32(struct.pack("<I", backward) + flags):
        return None
    if length > min(at - HEADER, LARGEST_INDEX):
        return None
    sizes = _parse_index(_read(file, at - length, length))
    if sizes is None:
        return None
    start = at - length - sizes[0] - HEADER
    if start < 0 or _read(file, start, len(MAGIC)) != MAGIC:
        return None
    return _Stream(start, sizes[1])


def _without_padding(file: BinaryIO, end: int) -> int:
    """Return the end of what is before the padding of a stream: zeros, by fours."""
    least = max(end - LONGEST_PADDING, ALIGNMENT)
    while end >= least and _read(file, end - ALIGNMENT, ALIGNMENT) == bytes(ALIGNMENT):
        end -= ALIGNMENT
    return end


def _parse_index(index: bytes) -> tuple[int, int] | None:
    """Return how many bytes the blocks take in the file, and have as contents; None for an index that is damaged."""
    body, crc = index[:-CRC], int.from_bytes(index[-CRC:], "little")
    if zlib.crc32(body) != crc or body[:1] != b"\0":
        return None
    try:
        count, at = _number(body, 1)
        stored = size = 0
        for _ in range(count):  # each takes bytes of the index: a wrong count ends with an IndexError
            unpadded, at = _number(body, at)
            contents, at = _number(body, at)
            stored += -(-unpadded // ALIGNMENT) * ALIGNMENT
            size += contents
    except (IndexError, ValueError):
        return None
    return (stored, size) if not any(body[at:]) and len(body) - at < ALIGNMENT else None


def _number(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of variable length, and the place after it. Raise IndexError, ValueError."""
    value = 0
    for position in range(LONGEST_NUMBER):
        byte = data[at + position]
        value |= (byte & 0x7F) << 7 * position
        if byte < 0x80:
            return value, at + position + 1
    raise ValueError("a number is longer than the format allows")


def _read(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)
