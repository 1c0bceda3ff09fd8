"""The files on a partition, in user space: list, read, and, on FAT, write them."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

from scsiusb.base.arguments import wrong_type
from scsiusb.base.copying import Uncopyable
from scsiusb.disk.file import MODES, READ_WRITE, DiskFile
from scsiusb.errors import FileSystemError
from scsiusb.volume import content, names
from scsiusb.volume.file_entry import FileEntry
from scsiusb.volume.source import Source

if TYPE_CHECKING:
    from scsiusb.volume.fat import FatWriter
    from scsiusb.volume.sleuth import Sleuth

READABLE: Final = ("fat12", "fat16", "fat32", "exfat", "ntfs", "ext2", "ext3", "ext4", "hfsplus", "iso9660")
WRITABLE: Final = ("fat12", "fat16", "fat32")


class Openable(Protocol):
    """What has files: a `Partition`, or a `Disk` without a partition table."""

    def open(self, mode: str = "rb") -> DiskFile:
        """Return its blocks as a file."""


def check_openable(where: object) -> None:
    """Raise TypeError for what is neither a partition nor a disk, such as the name of one."""
    if not hasattr(where, "open"):
        raise wrong_type("where", "a Partition or a Disk", where)


def filesystem(where: Openable, mode: str = "rb") -> FileSystem:
    """Open the file system of a partition, or of a disk that has no table; `mode` is "rb", or "r+b" to write as well.

    FAT, exFAT, NTFS, ext, HFS+ and ISO 9660 are read by pytsk3, FAT is written by fatfs-ng; both come with
    `pip install scsiusb[files]`. Use it in a `with`; the disk stays open. It is bound to the medium in the unit.

    Raises FileSystemError if nothing that is known is there, if it is damaged, or if a library is missing; ValueError
    for another mode; as `Disk.read`.
    """
    return FileSystem(where, mode)


class FileSystem(Uncopyable):
    """The files of a partition; `filesystem` returns it. Paths begin at the root, and `/` divides their names.

    Methods raise FileNotFoundError, NotADirectoryError and IsADirectoryError for paths, FileSystemError for a damaged
    file system, and as `Disk.read` and `Disk.write`. Threads may share it.
    """

    def __init__(self, where: Openable, mode: str = "rb") -> None:
        """See `filesystem`."""
        check_openable(where)
        if mode not in MODES:
            raise ValueError(f'mode {mode!r} is not possible for a file system; use "rb" or "r+b"')
        self._lock = threading.RLock()
        self._reader: Sleuth | None = None
        self._where = where
        self.mode = mode
        self.file = where.open(mode)
        """The blocks that the file system is on."""
        try:
            self.kind = self._recognized()
        except BaseException:
            self.file.close()
            raise

    def __enter__(self) -> FileSystem:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<FileSystem {self.kind} of {self.file}>"

    @property
    def size(self) -> int:
        """The number of bytes of the partition."""
        return self.file.size

    def close(self) -> None:
        """Flush what was written, and let the partition go. Files of it cannot be read any more. May be repeated."""
        with self._lock:
            self._forget()
            self.file.close()

    def entry(self, path: str) -> FileEntry:
        """Return what is at a path; `/` is the root."""
        with self._lock:
            return self._reading().entry(names.components(path))

    def entries(self, path: str = "/") -> list[FileEntry]:
        """Return the files and directories in a directory, in its own order."""
        with self._lock:
            return self._reading().entries(names.components(path))

    def walk(self, path: str = "/") -> Iterator[tuple[str, FileEntry]]:
        """Yield the path of each file and directory below a directory, and what it is; a directory before its content.

        A directory that contains itself is not entered twice.
        """
        yield from self._walk(names.components(path), set())

    def open(self, path: str) -> io.BufferedReader:
        """Return a file, to be read. Close it before the file system."""
        with self._lock:
            return io.BufferedReader(VolumeFile(self, self._file_at(path)), buffer_size=1 << 16)

    def write(self, path: str, source: BinaryIO, *, replace: bool = False) -> int:
        """Write a file from all that `source` gives; return its size in bytes when it is flushed to the medium.

        Raises FileExistsError for a path that is there, unless `replace`; ValueError for a name that FAT cannot have;
        OSError with ENOSPC where there is no room, and then the file is removed again. If the device fails, a part of
        the file may be there.
        """
        with self._lock:
            writer, parts = self._writer(), names.components(path)
            try:
                size = writer.write(parts, source, replace=replace)
            finally:
                self._forget()
            writer.stamp(self._reading().entry(parts), datetime.now())
            self._forget()
            return size

    def make_directory(self, path: str) -> None:
        """Make a directory. Raises FileExistsError for a path that is there, ValueError as `write`."""
        with self._lock:
            writer, parts = self._writer(), names.components(path)
            try:
                writer.make_directory(parts)
            finally:
                self._forget()
            writer.stamp(self._reading().entry(parts), datetime.now())
            self._forget()

    def remove(self, path: str) -> None:
        """Remove a file, or an empty directory. Raises OSError with ENOTEMPTY for a directory that is not."""
        with self._lock:
            writer = self._writer()
            try:
                writer.remove(names.components(path))
            finally:
                self._forget()

    def read_at(self, number: int, offset: int, size: int) -> bytes:
        """Return at most `size` bytes of the file with that number; fewer only at its end."""
        with self._lock:
            return self._reading().read(number, offset, size)

    def _file_at(self, path: str) -> FileEntry:
        found = self.entry(path)
        if found.is_directory:
            raise names.is_a_directory(path)
        return found

    def _walk(self, at: tuple[str, ...], seen: set[int]) -> Iterator[tuple[str, FileEntry]]:
        for each in self.entries(names.joined(at)):
            path = (*at, each.name)
            yield names.joined(path), each
            if each.is_directory and each.number not in seen and len(path) < names.DEEPEST:
                seen.add(each.number)
                yield from self._walk(path, seen)

    def _recognized(self) -> str:
        file = self.file
        found = content.find(Source(file, file.block_size, file.blocks))
        if found not in READABLE:
            there = f"{found} is on it" if found else "nothing is on it that is known"
            what = f"there are no files that can be read: {there}"
            raise FileSystemError(what, "give a partition with files; `scsiusb partitions` shows what is on each")
        return found

    def _reading(self) -> Sleuth:
        """Return what reads; made anew after each write, as it keeps what it has read."""
        if self.file.closed:
            raise ValueError("the file system is closed; open it again")
        if self._reader is None:
            from scsiusb.volume.sleuth import Sleuth

            self._reader = Sleuth(self.file, self.kind)
        return self._reader

    def _writer(self) -> FatWriter:
        if self.file.closed:
            raise ValueError("the file system is closed; open it again")
        if self.mode != READ_WRITE:
            raise io.UnsupportedOperation('the file system is open for reading only; open it with "r+b"')
        if self.kind not in WRITABLE:
            raise FileSystemError(f"{self.kind} can be read only", "FAT can be written: `scsiusb mkfs` makes one")
        from scsiusb.volume.fat import FatWriter

        return FatWriter(self.file)

    def _forget(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            with suppress(FileSystemError):
                reader.close()


class VolumeFile(io.RawIOBase):
    """A file of a file system, unbuffered; `FileSystem.open` returns it behind a buffer."""

    def __init__(self, files: FileSystem, entry: FileEntry) -> None:
        """Take the file system, and the file's entry."""
        self.name = entry.name
        self._files = files
        self._entry = entry
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position in bytes, and return it. Raises ValueError if it would be negative."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._entry.size}[whence]
        if start + offset < 0:
            raise ValueError(f"the position {start + offset} is negative; the first byte is 0")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        """Fill a buffer from the position on; return the number of bytes, 0 at the end."""
        if self.closed:
            raise ValueError("the file is closed; open it again")
        with memoryview(buffer) as view, view.cast("B") as room:
            count = max(0, min(len(room), self._entry.size - self._position))
            data = self._files.read_at(self._entry.number, self._position, count) if count else b""
            room[: len(data)] = data
        self._position += len(data)
        return len(data)
