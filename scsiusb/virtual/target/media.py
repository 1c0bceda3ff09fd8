"""Media: the storage of a unit's blocks, in memory or in a file."""

from __future__ import annotations

import errno
import io
import os
import stat
import threading
from abc import ABC, abstractmethod

from scsiusb.base.locks import is_refused

_CHUNK = 1 << 16
_PIECE = 1 << 20  # bytes that `Medium.fill` writes at once


class BadBlock(OSError):
    """Raised by a medium for a block that cannot be read or written; `moved` bytes before it were moved."""

    def __init__(self, moved: int) -> None:
        super().__init__("a bad block")
        self.moved = moved


class Medium(ABC):
    """The storage of a unit's blocks, addressed by byte offset; the unit checks the range before.

    `size` and `block_size` are in bytes; ValueError if `size` is not a positive multiple of `block_size`.
    `reads`, `writes`, `flushes` and `power_ons` count the calls.
    """

    def __init__(self, size: int, block_size: int, read_only: bool = False) -> None:
        if block_size <= 0:
            raise ValueError(f"a block size of {block_size} bytes is not possible")
        if size <= 0 or size % block_size:
            raise ValueError(f"{size} bytes are not a positive multiple of the block size, {block_size}")
        self.block_size = block_size
        self.blocks = size // block_size
        self.read_only = read_only
        self.is_closed = False
        self.reads = self.writes = self.flushes = self.power_ons = 0

    def readinto(self, offset: int, view: memoryview) -> None:
        """Read `len(view)` bytes at `offset` into `view`; OSError if the medium cannot be read there."""
        self.reads += 1
        self._readinto(offset, view)

    def write(self, offset: int, view: memoryview) -> None:
        """Write `view` at `offset`; OSError if the medium cannot be written there."""
        self.writes += 1
        self._write(offset, view)

    def flush(self) -> None:
        """Make sure that written data are durable; OSError if that fails."""
        self.flushes += 1

    def fill(self, pattern: bytes) -> None:
        """Write a pattern to all blocks, repeated in each; OSError if the medium cannot be written."""
        block = (pattern * (self.block_size // len(pattern) + 1))[: self.block_size]
        count = max(_PIECE // self.block_size, 1)
        piece = memoryview(block * min(count, self.blocks))
        for lba in range(0, self.blocks, count):
            blocks = min(count, self.blocks - lba)
            self.write(lba * self.block_size, piece[: blocks * self.block_size])

    def reassign(self, lba: int) -> None:
        """Replace a defective block by a spare one, which reads as zeros."""
        self.write(lba * self.block_size, memoryview(bytes(self.block_size)))

    def power_on(self) -> None:
        """Enter the state after power-on or a port reset: the cache is empty, if the medium has one."""
        self.power_ons += 1

    def close(self) -> None:
        """Release the medium's resources, if any; may be called again."""
        self.is_closed = True

    @abstractmethod
    def _readinto(self, offset: int, view: memoryview) -> None: ...

    @abstractmethod
    def _write(self, offset: int, view: memoryview) -> None: ...


class Memory(Medium):
    """A medium in one bytearray, `data`; given as that, as bytes to copy, or as a number of zero bytes."""

    def __init__(self, data: int | bytes | bytearray, block_size: int = 512, read_only: bool = False) -> None:
        self.data = data if isinstance(data, bytearray) else bytearray(data)
        super().__init__(len(self.data), block_size, read_only)

    def _readinto(self, offset: int, view: memoryview) -> None:
        view[:] = memoryview(self.data)[offset : offset + len(view)]

    def _write(self, offset: int, view: memoryview) -> None:
        memoryview(self.data)[offset : offset + len(view)] = view


class Sparse(Medium):
    """A medium of any size in memory that stores only the chunks that were written; the rest reads as zeros."""

    def __init__(self, blocks: int, block_size: int = 512, read_only: bool = False) -> None:
        super().__init__(blocks * block_size, block_size, read_only)
        self.chunks: dict[int, bytearray] = {}

    def fill(self, pattern: bytes) -> None:
        """See `Medium.fill`; zeros take no memory."""
        self.chunks.clear()
        if any(pattern):
            super().fill(pattern)

    def _readinto(self, offset: int, view: memoryview) -> None:
        done = 0
        while done < len(view):
            index, start = divmod(offset + done, _CHUNK)
            count = min(_CHUNK - start, len(view) - done)
            chunk = self.chunks.get(index)
            view[done : done + count] = bytes(count) if chunk is None else memoryview(chunk)[start : start + count]
            done += count

    def _write(self, offset: int, view: memoryview) -> None:
        done = 0
        while done < len(view):
            index, start = divmod(offset + done, _CHUNK)
            count = min(_CHUNK - start, len(view) - done)
            chunk = self.chunks.setdefault(index, bytearray(_CHUNK))
            memoryview(chunk)[start : start + count] = view[done : done + count]
            done += count


class File(Medium):
    """A medium in a file or block device, which is opened once.

    `read_only` None: read-only if the file cannot be written. Raises OSError if the file cannot be opened, with
    `read_only` False also if it cannot be written; ValueError if its size is not a multiple of the block size.
    Raises BlockingIOError if the file is the medium of another stick, in any process, unless both are read-only.
    """

    def __init__(self, path: str | os.PathLike[str], block_size: int = 512, read_only: bool | None = None) -> None:
        self._lock = threading.Lock()
        self._file, written = _open(path, read_only)
        try:
            if is_refused(self._file.fileno(), shared=not written):
                raise BlockingIOError(errno.EBUSY, "another virtual stick has this image open", os.fspath(path))
            super().__init__(self._file.seek(0, os.SEEK_END), block_size, not written)
        except BaseException:
            self._file.close()
            raise

    def _seek(self, offset: int) -> None:
        if self._file.closed:
            raise OSError("the medium is closed")
        self._file.seek(offset)

    def _readinto(self, offset: int, view: memoryview) -> None:
        with self._lock:
            self._seek(offset)
            while view:
                count = self._file.readinto(view)
                if not count:
                    raise OSError("the file has become shorter")
                view = view[count:]

    def _write(self, offset: int, view: memoryview) -> None:
        with self._lock:
            self._seek(offset)
            while view:
                view = view[self._file.write(view) or 0 :]

    def flush(self) -> None:
        """See `Medium.flush`."""
        super().flush()
        with self._lock:
            self._seek(0)
            if self._file.writable():
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """See `Medium.close`; later reads and writes raise OSError."""
        super().close()
        with self._lock:
            self._file.close()


def _open(path: str | os.PathLike[str], read_only: bool | None) -> tuple[io.FileIO, bool]:
    """Open the file, and return it with whether it can be written.

    A file without any write permission is read-only for root too, to whom the system would permit writing.
    """
    writable = os.stat(path).st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)
    if writable and not read_only:
        try:
            return io.FileIO(path, "r+"), True
        except PermissionError:
            if read_only is False:
                raise
    elif read_only is False:
        raise PermissionError(f"{path} is write protected")
    return io.FileIO(path, "r"), False
