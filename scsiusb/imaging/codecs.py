"""How images are compressed: in frames, each of which can be read without the others.

All these formats allow several frames one after the other, which their own tools read as one. So an image can be
continued at a frame after an interruption, and the frames can be compressed at the same time.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple, Protocol

from scsiusb.errors import ImageError

if TYPE_CHECKING:
    from types import ModuleType

FRAME: Final = 2 * 1024 * 1024  # bytes of the device in a frame
PIECE: Final = 1024 * 1024  # bytes of a compressed file that are read at once
GZIP_LEVEL: Final = 6
BZ2_LEVEL: Final = 9
# A dictionary of the frame's size gains little over this one, and takes ten times its size of memory.
XZ_FILTERS: Final = ({"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 2 * 1024 * 1024},)
GZIP_LENGTH: Final = struct.Struct("<I")  # at the end of each member
DEFLATE_RATIO: Final = 1032  # no compressed byte has more contents: 258 bytes take two bits
GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS  # for zlib: the data has gzip's header and trailer
DAMAGED: Final = (zlib.error, lzma.LZMAError, EOFError, OSError)


class Decompressor(Protocol):
    """One frame's decompressor, as `bz2`, `lzma` and `zstd` have it."""

    @property
    def eof(self) -> bool:
        """Whether the frame's end was reached."""

    @property
    def needs_input(self) -> bool:
        """Whether `decompress` can return no more without more input."""

    @property
    def unused_data(self) -> bytes:
        """What follows the frame in the input."""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Return at most `max_length` bytes of the frame."""


class Codec(NamedTuple):
    """A compressed format."""

    name: str
    suffixes: tuple[str, ...]
    """How the names of such files end."""
    magic: bytes
    """How such files begin."""
    compress: Callable[[Any], bytes]
    """Returns a whole frame for its contents."""
    decompressor: Callable[[], Decompressor]
    """Makes the decompressor of one frame."""
    padding: bytes = b""
    """A byte that may follow the last frame any number of times."""


class _Gunzip:
    """A `Decompressor` of gzip; `zlib` has another interface."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(GZIP_WINDOW)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max(max_length, 0))


def least_of_gzip(file: BinaryIO) -> int:
    """Return how many bytes the contents of a seekable .gz file have at least; 0 if that cannot be known.

    The trailer has the length of the last member modulo 2^32 (RFC 1952 2.3.1); there may be others before it. Zeros
    after it make the number smaller. More than deflate can compress into a file of this length is no trailer.
    """
    end = file.seek(0, os.SEEK_END)
    file.seek(max(end - GZIP_LENGTH.size, 0))
    trailer = file.read(GZIP_LENGTH.size)
    size = int(GZIP_LENGTH.unpack(trailer)[0]) if len(trailer) == GZIP_LENGTH.size else 0
    return size if size <= end * DEFLATE_RATIO else 0


def zstd() -> ModuleType:
    """Return the module for zstd: the standard library's, or its copy for Python before 3.14. Raise ImageError."""
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd as module
        else:
            from backports import zstd as module
    except ImportError as error:
        raise ImageError("this Python cannot handle .zst images", "pip install backports.zstd") from error
    return module


def _compress_zstd(data: Any) -> bytes:
    module = zstd()
    options = {module.CompressionParameter.compression_level: 3, module.CompressionParameter.checksum_flag: 1}
    return bytes(module.compress(data, options=options))


def _zstd_decompressor() -> Decompressor:
    decompressor: Decompressor = zstd().ZstdDecompressor()
    return decompressor


CODECS: Final = (
    Codec("gz", (".gz",), b"\x1f\x8b", lambda data: gzip.compress(data, GZIP_LEVEL, mtime=0), _Gunzip, padding=b"\x00"),
    Codec("bz2", (".bz2",), b"BZh", lambda data: bz2.compress(data, BZ2_LEVEL), bz2.BZ2Decompressor),
    Codec(
        "xz",
        (".xz",),
        b"\xfd7zXZ\x00",
        lambda data: lzma.compress(data, filters=XZ_FILTERS),
        lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ),
        padding=b"\x00",
    ),
    Codec("zst", (".zst", ".zstd"), b"\x28\xb5\x2f\xfd", _compress_zstd, _zstd_decompressor),
)
GZ: Final = CODECS[0]
XZ: Final = CODECS[2]
ZST: Final = CODECS[-1]
SKIPPABLE: Final = tuple(bytes((low, 0x2A, 0x4D, 0x18)) for low in range(0x50, 0x60))
"""How a zstd frame begins whose contents do not count."""


def codec_by_name(name: str) -> Codec | None:
    """Return the codec that the end of a file's name asks for; None for an image that is not compressed."""
    return next((codec for codec in CODECS if name.lower().endswith(codec.suffixes)), None)


def codec_by_content(head: bytes) -> Codec | None:
    """Return the codec of a file that begins with these bytes; None for an image that is not compressed."""
    if head[:4] in SKIPPABLE:
        return ZST
    return next((codec for codec in CODECS if head.startswith(codec.magic)), None)


def decompressed(file: BinaryIO, codec: Codec, name: str) -> Iterator[bytes]:
    """Yield the contents of all frames, in pieces of at most PIECE bytes. Raise ImageError if the file is damaged."""
    data = b""
    while True:
        data = (data or file.read(PIECE)).lstrip(codec.padding) if codec.padding else data or file.read(PIECE)
        if not data:
            if codec.padding and (data := file.read(PIECE)):
                continue
            return
        data = yield from _frame(file, codec, name, data)


def _frame(file: BinaryIO, codec: Codec, name: str, data: bytes) -> Any:
    """Yield the contents of one frame; return what was read after it."""
    decompressor = codec.decompressor()
    is_error: tuple[type[Exception], ...] = (*DAMAGED, zstd().ZstdError) if codec is ZST else DAMAGED
    while not decompressor.eof:
        try:
            piece = decompressor.decompress(data, PIECE)
        except is_error as error:
            raise ImageError(f"{name} is damaged: {error}", "get the image again") from error
        if piece:
            yield piece
        data = b""
        if decompressor.needs_input and not decompressor.eof:
            data = file.read(PIECE)
            if not data:
                raise ImageError(f"{name} ends in the middle of a frame of {codec.name}", "get the image again")
    return decompressor.unused_data
