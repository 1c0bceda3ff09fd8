"""Android sparse images (version 1): chunks of raw data, of a repeated pattern, or of blocks that need no data."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from scsiusb.errors import ImageError

MAGIC: Final = b"\x3a\xff\x26\xed"
HEADER: Final = struct.Struct("<4sHHHHIIII")
CHUNK: Final = struct.Struct("<HHII")
RAW, FILL, SKIP, CRC = 0xCAC1, 0xCAC2, 0xCAC3, 0xCAC4
PIECE: Final = 1024 * 1024  # bytes
LARGEST_BLOCK: Final = 1 << 24

Read = Callable[[int], bytes]
"""Returns so many bytes of the image, fewer only at its end."""


class SparseHeader(NamedTuple):
    """The head of a sparse image."""

    block_size: int
    blocks: int
    chunks: int
    header_extra: int
    """Bytes of the file's header that this version does not know."""
    chunk_extra: int
    """The same, of each chunk's header."""

    @property
    def size(self) -> int:
        """Bytes of the image that it stands for."""
        return self.block_size * self.blocks


def parse_header(data: bytes, name: str) -> SparseHeader:
    """Parse the first bytes of the file. Raise ImageError."""
    if len(data) < HEADER.size:
        raise _damaged(name, "its header is cut off")
    _, major, _, file_header, chunk_header, block_size, blocks, chunks, _ = HEADER.unpack_from(data)
    if major != 1 or file_header < HEADER.size or chunk_header < CHUNK.size:
        raise ImageError(f"{name} is an Android sparse image of version {major}", "only version 1 is supported")
    if not 0 < block_size <= LARGEST_BLOCK or block_size % 4:
        raise _damaged(name, f"its block size is {block_size}")
    return SparseHeader(block_size, blocks, chunks, file_header - HEADER.size, chunk_header - CHUNK.size)


def sparse_pieces(read: Read, header: SparseHeader, name: str) -> Iterator[tuple[int, bytes]]:
    """Yield the offset and the bytes of each piece that has data, in order. `read` begins after the header.

    Raise ImageError if the file is damaged; what the CRC chunks say is not checked.
    """
    _exactly(read, header.header_extra, name)
    at = 0
    for _ in range(header.chunks):
        kind, _, blocks, total = CHUNK.unpack(_exactly(read, CHUNK.size, name))
        _exactly(read, header.chunk_extra, name)
        length = blocks * header.block_size
        body = total - CHUNK.size - header.chunk_extra
        if at + length > header.size:
            raise _damaged(name, "its chunks are more than the image")
        if body != {RAW: length, FILL: 4, SKIP: 0, CRC: 4}.get(kind):
            raise _damaged(name, f"a chunk of type {kind:04X}h has {body} bytes")
        if kind == RAW:
            yield from _raw(read, at, length, name)
        elif kind == FILL:
            yield from _filled(_exactly(read, 4, name), at, length)
        elif kind == CRC:
            _exactly(read, 4, name)
            length = 0
        at += length


def _raw(read: Read, at: int, length: int, name: str) -> Iterator[tuple[int, bytes]]:
    for start in range(0, length, PIECE):
        yield at + start, _exactly(read, min(PIECE, length - start), name)


def _filled(pattern: bytes, at: int, length: int) -> Iterator[tuple[int, bytes]]:
    whole = pattern * (min(PIECE, length) // 4)
    for start in range(0, length, PIECE):
        yield at + start, whole[: length - start]


def _exactly(read: Read, count: int, name: str) -> bytes:
    data = read(count) if count else b""
    if len(data) < count:
        raise ImageError(f"{name} ends in the middle of a chunk", "get the image again")
    return data


def _damaged(name: str, why: str) -> ImageError:
    return ImageError(f"{name} is a damaged Android sparse image: {why}", "get the image again")
