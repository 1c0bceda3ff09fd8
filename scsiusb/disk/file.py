"""A disk, or a range of its blocks, as a file object of the standard library: any offset, any number of bytes."""

from __future__ import annotations

import errno
import io
import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, NoReturn

from scsiusb.base.arguments import buffer as buffer_of
from scsiusb.base.arguments import integer, wrong_type
from scsiusb.base.copying import Uncopyable
from scsiusb.disk.medium import check_range
from scsiusb.errors import DeviceClosed, DeviceGone, MediumChanged
from scsiusb.scsi.sense import MEDIUM_CHANGED

if TYPE_CHECKING:
    from scsiusb.disk.disk import Disk
    from scsiusb.disk.medium import Medium

READ_WRITE: Final = "r+b"
MODES: Final = ("rb", READ_WRITE)


class DiskFile(Uncopyable, io.RawIOBase):
    """The bytes of a disk as an unbuffered file, for all that works on a binary file; `Disk.open` returns it.

    It is bound to the medium that was in the unit when it was opened: with another one, reads and writes raise
    MediumChanged. Its size is fixed. Where a read or write begins or ends within a block, that block is read (and, for
    a write, written) as a whole, so that `io.BufferedReader` and `io.BufferedRandom` with a large buffer are faster
    than many small reads.

    Reads and writes raise as `Disk.readinto` and `Disk.write`; the position is unchanged then, and the error's `lba`
    is an address on the disk. Threads may share a file. Two files that write to the same block at the same time, or a
    file and `Disk.write`, must be kept apart by the caller.
    """

    def __init__(
        self,
        disk: Disk,
        mode: str = "rb",
        lba: int = 0,
        blocks: int | None = None,
        *,
        medium: Medium | None = None,
    ) -> None:
        """Open the blocks from `lba` on; `blocks` None: up to the end. `medium`: the one that these addresses are of.

        Raises ValueError for a mode other than "rb" and "r+b", OutOfRange, NoMedium, NotReady.
        """
        if not hasattr(disk, "medium"):  # `Disk` itself imports this module
            raise wrong_type("disk", "a Disk, as scsiusb.open returns it", disk)
        if not isinstance(mode, str):
            raise wrong_type("mode", "a str", mode)
        if mode not in MODES:
            raise ValueError(f'mode {mode!r} is not possible for a disk; use "rb" or "r+b"')
        self.disk = disk
        self.mode = mode
        self.medium = disk.medium() if medium is None else medium
        """The medium that the file is bound to."""
        self._lba = integer("lba", lba)
        self.blocks = max(0, self.medium.blocks - self._lba) if blocks is None else integer("blocks", blocks)
        """The number of blocks that the file has."""
        self._check_medium()
        check_range(self.medium, self._lba, self.blocks)
        self.block_size = self.medium.block_size
        self._position = 0
        self._lock = threading.RLock()  # reentrant: a signal handler may use the file
        self._is_unflushed = False

    def __del__(self) -> None:
        """Do nothing: the garbage collector may run in the middle of a command, and the disk's `close` flushes."""

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{self.blocks} blocks from LBA {self._lba}"
        return f"<DiskFile {self.mode} of {self.disk}: {state}>"

    @property
    def size(self) -> int:
        """The number of bytes in the file."""
        return self.blocks * self.block_size

    def readable(self) -> bool:
        """Return True. Raises ValueError if the file is closed, as all methods but `close` do."""
        self._check_open()
        return True

    def writable(self) -> bool:
        """Return whether the mode is "r+b"."""
        self._check_open()
        return self.mode == READ_WRITE

    def seekable(self) -> bool:
        """Return True."""
        self._check_open()
        return True

    def tell(self) -> int:
        """Return the position in bytes."""
        self._check_open()
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position in bytes, also beyond the end, and return it. Raises ValueError if it would be negative."""
        self._check_usable()
        offset = integer("offset", offset)
        with self._lock:
            starts = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}
            if whence not in starts:
                raise ValueError(f"whence {whence!r} is not possible; use 0, 1 or 2")
            if starts[whence] + offset < 0:
                raise ValueError(f"the position {starts[whence] + offset} is negative; the first byte is 0")
            self._position = starts[whence] + offset
            return self._position

    def truncate(self, size: int | None = None) -> NoReturn:
        """Raise io.UnsupportedOperation: a disk has the size that it has."""
        self._check_open()
        raise io.UnsupportedOperation("a disk cannot be truncated")

    def readinto(self, buffer: Any, /) -> int:
        """Fill a writable buffer from the position on; return the number of bytes, fewer only at the end of the file.

        Whole blocks are read straight into the buffer.
        """
        self._check_usable()
        with _bytes_of("buffer", buffer) as view, self._lock:
            if view.readonly:
                raise TypeError("buffer must be writable")
            count = min(len(view), max(0, self.size - self._position))
            for lba, start, piece in self._pieces(view, count):
                with piece:
                    self._read(lba, start, piece)
            self._position += count
            return count

    def readall(self) -> bytes:
        """Return all bytes from the position to the end, in memory."""
        self._check_usable()
        with self._lock:
            data = bytearray(max(0, self.size - self._position))
            self.readinto(data)
        return bytes(data)

    def write(self, data: Any, /) -> int:
        """Write at the position, and return the number of bytes: fewer than given if the end of the file comes first.

        At the end, nothing fits: OSError with ENOSPC, as for a block device of Linux. A block of which only a part is
        given is read, changed and written. The bytes may be in the device's cache until `flush`.
        """
        if not self.writable():
            raise io.UnsupportedOperation('the file is open for reading only; open the disk with "r+b"')
        self._check_usable()
        with _bytes_of("data", data) as view, self._lock:
            count = min(len(view), max(0, self.size - self._position))
            if len(view) and not count:
                raise OSError(errno.ENOSPC, "the end of the disk or partition is reached")
            for lba, start, piece in self._pieces(view, count):
                with piece:
                    self._write(lba, start, piece)
            self._position += count
            return count

    def flush(self) -> None:
        """Return when all that this file wrote is on the medium; does nothing if it wrote nothing since the last flush.

        Raises as `Disk.flush`.
        """
        super().flush()
        if not self._is_unflushed:
            return
        self._is_unflushed = False  # before the command: another thread may write meanwhile
        try:
            self._check_medium()
            self.disk.flush()
        except BaseException:
            self._is_unflushed = True
            raise

    def close(self) -> None:
        """Flush what this file wrote; the disk stays open. Raises as `flush`; may be called again."""
        try:
            super().close()
        except DeviceClosed:
            return  # the disk's `close` has flushed, or reported that it could not

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("the file is closed; open it again")

    def _check_usable(self) -> None:
        """Raise if no command can be sent; called before the lock is taken, as a fork's child may find it taken."""
        self._check_open()
        self.disk.unit.transport.check()

    def _check_medium(self) -> None:
        if self.medium.changes != self.disk.unit.medium_changes:
            error = MediumChanged("the medium was changed since the file was opened", MEDIUM_CHANGED)
            self.disk.note_told(error, self.medium)
            try:
                raise error
            finally:
                del error  # this frame is in its traceback

    def _pieces(self, view: memoryview, count: int) -> Iterator[tuple[int, int, memoryview]]:
        """Yield LBA, offset in that block, and view of each part of the next bytes: whole blocks, or a part of one."""
        size, done = self.block_size, 0
        while done < count:
            block, start = divmod(self._position + done, size)
            left = count - done
            length = min(size - start, left) if start or left < size else left - left % size
            yield self._lba + block, start, view[done : done + length]
            done += length

    def _read(self, lba: int, start: int, piece: memoryview) -> None:
        if len(piece) % self.block_size == 0:
            self.disk.read_from(self.medium, lba, piece)
        else:
            piece[:] = self._block(lba)[start : start + len(piece)]

    def _block(self, lba: int) -> bytearray:
        block = bytearray(self.block_size)
        with memoryview(block) as view:
            self.disk.read_from(self.medium, lba, view)
        return block

    def _write(self, lba: int, start: int, piece: memoryview) -> None:
        """Write whole blocks, or change a part of one; both only on the medium that the file was opened on."""
        if len(piece) % self.block_size:
            block = self._block(lba)
            block[start : start + len(piece)] = piece
            piece = memoryview(block)
        self._is_unflushed = True
        try:
            self.disk.write_to(self.medium, lba, piece)
        except DeviceGone:
            self._is_unflushed = False  # the caller has the error, so `close` need not raise it again
            raise


def _bytes_of(name: str, data: object) -> memoryview:
    """Return a view of the bytes of any contiguous buffer."""
    view = buffer_of(name, data)
    if not view.contiguous:
        raise BufferError(f"{name} must be contiguous; copy it first")
    return view.cast("B") if view.nbytes else memoryview(bytearray())
