"""What is written to disks, or compared with them: an image file of any format, a stream, or another disk."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, NamedTuple, Protocol

from scsiusb.base.copying import Uncopyable
from scsiusb.base.files import named
from scsiusb.disk.disk import Disk
from scsiusb.errors import ImageError, OutOfRange, ScsiUsbError
from scsiusb.imaging import android_sparse
from scsiusb.imaging.codecs import GZ, PIECE, XZ, ZST, codec_by_content, decompressed, least_of_gzip, zstd
from scsiusb.imaging.identity import DiskIdentity
from scsiusb.imaging.seekable import Frame, read_seek_table
from scsiusb.imaging.xz_index import read_xz_index

HEAD: Final = 64  # bytes by which a format is known
GET_AGAIN: Final = "get the image again"


class Extent(NamedTuple):
    """A part of the image that has data."""

    offset: int
    """Bytes from the start of the image."""
    data: bytes


def too_large(source: Source, disk: Disk) -> OutOfRange:
    """Return the error for a source that is larger than the disk, as is known before or found out in the middle."""
    remedy = "use a larger disk"
    if source.least <= disk.size:
        return OutOfRange(
            f"{source.name} is larger than the disk: {disk.unit.transport.info} has {disk.size} bytes", remedy
        )
    about = ""
    if source.length is None:  # at the end of a .gz file that was cut off there is no length, but any number
        about, remedy = "at least ", f"{remedy}, or get the image again if it should fit"
    what = f"{source.name} has {about}{source.least} bytes, {disk.unit.transport.info} only {disk.size}"
    return OutOfRange(what, remedy)


def in_blocks(extents: Iterable[Extent], size: int) -> Iterator[Extent]:
    """Yield the same parts, each of whole blocks of `size` bytes as far as those next to it allow that."""
    kept = Extent(0, b"")
    for offset, data in extents:
        if kept.data and kept.offset + len(kept.data) == offset:
            offset, data = kept.offset, kept.data + data
        elif kept.data:
            yield kept
        whole = max((offset + len(data)) // size * size - offset, 0)
        if whole:
            yield Extent(offset, data[:whole])
        kept = Extent(offset + whole, data[whole:])
    if kept.data:
        yield kept


class Source(Protocol):
    """An image that is read from its start to its end, more than once unless it is a stream."""

    name: str
    path: Path | None
    """Of the image, beside which journals can be kept; None for a stream, or a disk."""
    length: int | None
    """Bytes of the image; None if that is not known before its end."""
    least: int
    """Bytes that the image has at least."""
    is_repeatable: bool
    """Whether `extents` can be called again."""

    def record(self) -> dict[str, Any]:
        """Return, for a journal, what must be the same when the job goes on."""

    def extents(self, start: int = 0) -> Iterator[Extent]:
        """Yield the parts with data from byte `start` on, in order, of at most PIECE bytes; gaps need no data."""


class ImageSource(Uncopyable):
    """A `Source` from a file or a pipe: raw, .gz, .bz2, .xz, .zst, or an Android sparse image, which may be compressed.

    The format is known by the content. Use it in a `with`. Raise ImageError, also for an image without bytes, OSError.
    """

    def __init__(self, path: str | os.PathLike[str] | None, *, stream: BinaryIO | None = None) -> None:
        """Read the file at `path`, or the open `stream`, which stays the caller's."""
        self._held = ExitStack()
        self.path = None if path is None else Path(path)
        self.name = "the input" if path is None else str(path)
        if stream is None:
            assert path is not None
            stream = self._held.enter_context(io.BufferedReader(io.FileIO(path)))
        self._file: BinaryIO = stream
        try:
            with named(self.name):
                self._look()
        except BaseException:
            self._held.close()
            raise

    def __enter__(self) -> ImageSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._held.close()

    def _look(self) -> None:
        self.is_repeatable = _can_repeat(self._file)
        self._began = self._state()
        self._start = self._file.tell() if self.is_repeatable else 0
        self._head = _read(self._file, HEAD)
        self._codec = codec_by_content(self._head)
        self._frames: list[Frame] | None = None
        self.length: int | None = None
        self.least = 0
        if self._codec is None and self.is_repeatable:
            self.length = self.least = self._file.seek(0, os.SEEK_END) - self._start
        elif self._codec is ZST:
            self._look_into_zstd()
        elif self._codec is GZ and self.is_repeatable:
            self.least = least_of_gzip(self._file)
        elif self._codec is XZ and self.is_repeatable and not self._start:
            self._look_into_xz()
        self._sparse = self._find_sparse_header()
        if self._sparse is not None:
            self.length = self.least = self._sparse.size

    def _look_into_zstd(self) -> None:
        if self.is_repeatable and not self._start:
            self._frames = read_seek_table(self._file)
        if self._frames is not None:
            self.length = self.least = sum(frame.size for frame in self._frames)
            return
        module = zstd()
        try:
            self.least = module.get_frame_info(self._head).decompressed_size or 0
        except module.ZstdError:
            return

    def _look_into_xz(self) -> None:
        found = read_xz_index(self._file)
        if found is not None:
            self.least = found.size
            self.length = found.size if found.is_whole else None

    def _find_sparse_header(self) -> android_sparse.SparseHeader | None:
        """Return the header of a sparse image, also of one that is compressed and can be read twice.

        Raise ImageError if it begins with its end.
        """
        head = self._head
        if self._codec is not None and self.is_repeatable:
            with _Bytes(self._pieces(0)) as stream:
                head = stream.read(HEAD)
        if not head:
            raise self._empty()
        return android_sparse.parse_header(head, self.name) if head.startswith(android_sparse.MAGIC) else None

    def record(self) -> dict[str, Any]:
        """See `Source.record`."""
        found = os.fstat(self._file.fileno())
        return {"bytes": found.st_size, "modified": found.st_mtime_ns}

    def _state(self) -> dict[str, Any] | None:
        """Return the record; None of what is no file, or is read once."""
        try:
            return self.record() if self.is_repeatable else None
        except OSError:  # io.UnsupportedOperation: it has no descriptor
            return None

    def extents(self, start: int = 0) -> Iterator[Extent]:
        """See `Source.extents`. Raise ImageError if the file is damaged, or was changed since it was opened."""
        with named(self.name):
            yield from self._parts(start)
        if self._state() != self._began:
            raise ImageError(f"{self.name} was changed while it was read", "run it again when nothing writes to it")

    def _parts(self, start: int) -> Iterator[Extent]:
        at, pieces = self._from(0 if self._sparse is not None else start)
        with _Bytes(pieces) as stream:
            if self._sparse is not None or (not self.is_repeatable and stream.peek(4) == android_sparse.MAGIC):
                yield from self._unfolded(stream, start)
                return
            while at < start:
                at += len(stream.read(min(PIECE, start - at)) or _end(self.name))
            while data := stream.read(PIECE):
                yield Extent(at, data)
                at += len(data)
            if not at:
                raise self._empty()

    def _empty(self) -> ImageError:
        return ImageError(f"{self.name} is empty", "give an image that has data")

    def _unfolded(self, stream: _Bytes, start: int) -> Iterator[Extent]:
        """Yield the parts of a sparse image."""
        header = android_sparse.parse_header(stream.read(android_sparse.HEADER.size), self.name)
        self.length = header.size
        for offset, data in android_sparse.sparse_pieces(stream.read, header, self.name):
            if offset + len(data) > start:
                yield Extent(max(offset, start), data[max(start - offset, 0) :])

    def _from(self, start: int) -> tuple[int, Iterator[bytes]]:
        """Return the bytes of the image from a place on that is not after `start`, and that place."""
        if self._codec is None and self.is_repeatable:
            self._file.seek(self._start + start)
            return start, _file_pieces(self._file)
        place = at = 0
        for frame in self._frames or ():
            if at + frame.size > start:
                break
            at, place = at + frame.size, place + frame.compressed
        return at, self._pieces(place)

    def _pieces(self, place: int) -> Iterator[bytes]:
        """Return the contents of the file from a frame on, decompressed."""
        file: Any = self._file
        if self.is_repeatable:
            file.seek(self._start + place)
        else:
            file, self._head = _Rejoined(self._head, file), b""
        return _file_pieces(file) if self._codec is None else decompressed(file, self._codec, self.name)


class DiskSource:
    """A `Source` from a disk: all of it."""

    is_repeatable = True

    def __init__(self, disk: Disk) -> None:
        self.path: Path | None = None
        self._disk = disk
        self.name = str(disk.unit.transport.info)
        self.length: int | None = disk.size
        self.least = disk.size

    def record(self) -> dict[str, Any]:
        """See `Source.record`."""
        return DiskIdentity.of(self._disk).record()

    def extents(self, start: int = 0) -> Iterator[Extent]:
        """See `Source.extents`. Raise as `Disk.reading`."""
        size = self._disk.block_size
        with _Bytes(self._read(start // size)) as stream:
            at = start
            stream.read(start % size)
            while data := stream.read(PIECE):
                yield Extent(at, data)
                at += len(data)

    def _read(self, lba: int) -> Iterator[bytes]:
        try:
            with self._disk.reading(lba, self._disk.blocks - lba) as pieces:
                for piece in pieces:
                    yield bytes(piece)
        except ScsiUsbError as error:  # which would be taken for one of the disk that is written
            error.what = f"{self.name}: {error.what}"
            raise


class _Bytes:
    """Bytes that come in pieces, read in other pieces; closes the generator that they come from."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = b""

    def __enter__(self) -> _Bytes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        close = getattr(self._pieces, "close", None)
        if close is not None:
            close()

    def peek(self, count: int) -> bytes:
        """Return so many bytes, which `read` returns again."""
        head = self.read(count)
        self._left = head + self._left
        return head

    def read(self, count: int) -> bytes:
        """Return so many bytes, fewer only at the end."""
        parts, missing = [], count
        while missing:
            piece = self._left or next(self._pieces, b"")
            if not piece:
                break
            parts.append(piece[:missing])
            self._left = piece[missing:]
            missing -= len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts)


class _Rejoined(io.RawIOBase):
    """A stream whose first bytes were read already."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head = head
        self._rest = rest

    def read(self, count: int = -1) -> bytes:
        head, self._head = self._head[:count], self._head[count:]
        return head or _read(self._rest, count)


def _can_repeat(file: BinaryIO) -> bool:
    try:
        mode = os.fstat(file.fileno()).st_mode
    except (AttributeError, OSError):
        return False
    return stat.S_ISREG(mode) or stat.S_ISBLK(mode)


def _file_pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(PIECE):
        yield piece


def _read(file: BinaryIO, count: int) -> bytes:
    """Return so many bytes, fewer only at the end, also of a pipe."""
    parts = []
    while count > 0 and (piece := file.read(count)):
        parts.append(piece)
        count -= len(piece)
    return b"".join(parts)


def _end(name: str) -> bytes:
    raise ImageError(f"{name} has become shorter", GET_AGAIN)
