"""Write files to FAT12, FAT16 and FAT32 by ChaN's FatFs, through fatfs-ng."""

from __future__ import annotations

import errno
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from scsiusb.base.packing import parsed
from scsiusb.errors import FileSystemError
from scsiusb.volume import names
from scsiusb.volume.content import BPB

if TYPE_CHECKING:
    from scsiusb.disk.file import DiskFile
    from scsiusb.volume.file_entry import FileEntry

SECTOR: Final = 512  # bytes; the library is compiled for no other
PIECE: Final = 1 << 18  # bytes written at once
MOST: Final = (1 << 32) - 1  # bytes of a file (Microsoft's FAT specification, 6.1)
CODE_PAGE: Final = "cp437"  # that of the library
FORBIDDEN: Final = frozenset('"*/:<>?\\|')
FIRST_NUMBER: Final = 3  # of a directory entry, as The Sleuth Kit numbers them, from the first cluster or the root on
ENTRY_LENGTH: Final = 32  # bytes
KINDS: Final = 0x18  # the attributes of a directory and of a volume label
DIRECTORY: Final = 0x10
LONGEST: Final = 255  # characters of a name
DRAFT: Final = "scsiusb-unfinished.tmp"
INSTALL: Final = "pip install 'scsiusb[files]'"

FR_NO_FILE: Final = 4
FR_NO_PATH: Final = 5
FR_DENIED: Final = 7
FR_EXIST: Final = 8
WORDS: Final = {
    1: "the device failed",
    2: "the file system is damaged",
    3: "the device is not ready",
    6: "a name is not possible",
    10: "the medium is write protected",
    13: "there is no FAT that can be written: it is damaged, or its sectors have not 512 bytes",
}


def library() -> ModuleType:
    """Return fatfs. Raise FileSystemError if it is not installed."""
    try:
        import fatfs
    except ImportError as error:
        raise FileSystemError("files cannot be written: fatfs-ng is not installed", INSTALL) from error
    module: ModuleType = fatfs
    return module


class FatWriter:
    """Changes a FAT file system; each call mounts it, makes one change, and flushes that to the medium."""

    _one_at_a_time: Final = threading.RLock()  # the library keeps its volumes and its work space in global variables

    def __init__(self, file: DiskFile) -> None:
        """`file`: the partition, open for writing."""
        self._file = file
        self._fatfs = library()

    def write(self, path: tuple[str, ...], source: BinaryIO, *, replace: bool) -> int:
        """See `FileSystem.write`. The file has another name until it is complete."""
        place, draft = self._encoded(path), self._encoded((*path[:-1], DRAFT))
        wrapper = self._fatfs.wrapper
        with self._mounted() as drive:
            found = wrapper.FILINFO_Handle()
            is_there = wrapper.pyf_stat(drive + place, found) == 0
            if is_there and (not replace or found.is_directory()):
                raise names.is_a_directory(names.joined(path)) if replace else names.exists(names.joined(path))
            handle = wrapper.FIL_Handle()
            mode = wrapper.PY_FA_WRITE | wrapper.PY_FA_CREATE_ALWAYS
            self._check(wrapper.pyf_open(handle, drive + draft, mode), path)
            try:
                size = self._copy(handle, source, path)
            except BaseException:
                wrapper.pyf_close(handle)
                wrapper.pyf_unlink(drive + draft)
                raise
            self._check(wrapper.pyf_close(handle), path)
            if is_there:
                self._check(wrapper.pyf_unlink(drive + place), path)
            self._check(wrapper.pyf_rename(drive + draft, drive + place), path)
        return size

    def make_directory(self, path: tuple[str, ...]) -> None:
        """See `FileSystem.make_directory`."""
        place = self._encoded(path)
        with self._mounted() as drive:
            self._check(self._fatfs.wrapper.pyf_mkdir(drive + place), path)

    def remove(self, path: tuple[str, ...]) -> None:
        """See `FileSystem.remove`."""
        place = self._encoded(path)
        with self._mounted() as drive:
            code = self._fatfs.wrapper.pyf_unlink(drive + place)
            if code == FR_DENIED:
                what = "it is not empty, or it is protected (read-only)"
                raise OSError(errno.ENOTEMPTY, what, names.joined(path))
            self._check(code, path)

    def stamp(self, entry: FileEntry, when: datetime) -> None:
        """Set the time of a file or directory that was written: the library's own is sixteen hours off after 16:00.

        `entry`: as `Sleuth` has it, whose number says where the directory entry is.
        """
        file = self._file
        file.seek(0)
        record = parsed(BPB, file.read(SECTOR) or b"")
        size = record.bytes_per_sector
        index = entry.number - FIRST_NUMBER
        sector = record.reserved + record.fats * (record.fat_sectors_16 or record.fat_sectors_32)
        at = sector * size + index * ENTRY_LENGTH
        file.seek(at)
        found = bytearray(file.read(ENTRY_LENGTH) or b"")
        is_it = len(found) == ENTRY_LENGTH and found[11] & KINDS == (DIRECTORY if entry.is_directory else 0)
        if not is_it or struct.unpack_from("<I", found, 28)[0] != entry.size:
            return  # an entry without a name of its own: the time stays as it is
        time = when.hour << 11 | when.minute << 5 | when.second // 2
        date = max(0, when.year - 1980) << 9 | when.month << 5 | when.day
        for offset in (14, 22):  # creation, last write
            struct.pack_into("<HH", found, offset, time, date)
        struct.pack_into("<H", found, 18, date)  # last access
        file.seek(at)
        file.write(found)
        file.flush()

    def _copy(self, handle: Any, source: BinaryIO, path: tuple[str, ...]) -> int:
        size = 0
        while piece := source.read(PIECE):
            if size + len(piece) > MOST:
                raise OSError(errno.EFBIG, "a file on FAT has at most 4 GiB - 1", names.joined(path))
            code, written = self._fatfs.wrapper.pyf_write(handle, bytes(piece))
            self._check(code, path)
            size += written
            if written < len(piece):
                raise OSError(errno.ENOSPC, "there is no room on the device", names.joined(path))
        return size

    def _encoded(self, path: tuple[str, ...]) -> bytes:
        """Return the path for the library. Raise ValueError for a name that it, or FAT, cannot have."""
        if not path:
            raise names.is_a_directory("/")
        for name in path:
            _check_name(name)
        return names.joined(path).encode(CODE_PAGE)

    @contextmanager
    def _mounted(self) -> Iterator[bytes]:
        """Mount; give the drive's prefix; flush. The device's own error is raised where there was one."""
        fatfs, errors = self._fatfs, list[BaseException]()
        with self._one_at_a_time:
            if self._file.block_size > SECTOR:
                what = f"the device has blocks of {self._file.block_size} bytes, and FAT is written on 512"
                raise FileSystemError(what, "write an image of the file system (`scsiusb restore`)")
            sectors = Sectors(self._file, errors)
            partition = fatfs.Partition(_disk(fatfs, sectors, self._file.size // SECTOR))
            try:
                drive = bytes(partition._adjust_path("/"))[:-1]
                try:
                    partition.mount()
                except fatfs.wrapper.FatFSException as error:
                    raise (
                        errors[0] if errors else FileSystemError(WORDS[13], "make it anew (`scsiusb mkfs`)")
                    ) from error
                yield drive
            finally:
                try:
                    partition.unmount()
                except fatfs.wrapper.FatFSException as error:
                    errors.append(error)
                sectors.settle()
                if errors:
                    raise errors[0]
            self._file.flush()

    def _check(self, code: int, path: tuple[str, ...]) -> None:
        """Raise what a code of the library says."""
        where = names.joined(path)
        if code in (FR_NO_FILE, FR_NO_PATH):
            raise names.not_found(where)
        if code == FR_EXIST:
            raise names.exists(where)
        if code == FR_DENIED:
            raise OSError(errno.ENOSPC, "there is no room on the device, or what is there is protected", where)
        if code:
            raise FileSystemError(f"{where}: {WORDS.get(code, f'FatFs says {code}')}", "check the file system (fsck)")


def _check_name(name: str) -> None:
    bad = sorted(FORBIDDEN.intersection(name)) + [char for char in name if char < " "]
    if bad or name != name.rstrip(". ") or len(name) > LONGEST:
        reason = f"it has {bad[0]!r}" if bad else "it ends with a dot or a space, or is longer than 255 characters"
        raise ValueError(f"{name!r} is not possible as a name on FAT: {reason}")
    try:
        name.encode(CODE_PAGE)
    except UnicodeEncodeError as error:
        letter = name[error.start]
        raise ValueError(f"{name!r} cannot be written: fatfs-ng has no {letter!r}, only code page 437") from error


class Sectors:
    """The sectors of a partition for the library, whose errors are kept, as an exception must not go through it.

    After the first error nothing more is written, and reads give zeros: what the library does then stays in memory,
    and is dropped with it. Neighbours that are written one after the other, as the clusters of a file are, are one
    write; the order of writes stays.
    """

    def __init__(self, file: DiskFile, errors: list[BaseException]) -> None:
        """`errors`: where the errors go."""
        self._file = file
        self._errors = errors
        self._first = 0
        self._pending = bytearray()

    def read(self, sector: int, count: int) -> bytes:
        """Return `count` bytes."""
        self.settle()
        data = bytearray(count)
        self._move(sector, partial(self._file.readinto, data), count)
        return bytes(count) if self._errors else bytes(data)

    def write(self, sector: int, data: bytes) -> None:
        """Write whole sectors, perhaps when the next ones come."""
        length = len(self._pending)
        if sector != self._first + length // SECTOR or length + len(data) > PIECE:
            self.settle()
            self._first = sector
        self._pending += data

    def settle(self) -> None:
        """Write what was not written yet."""
        pending, self._pending = self._pending, bytearray()
        if pending:
            self._move(self._first, partial(self._file.write, pending), len(pending))

    def _move(self, sector: int, transfer: Callable[[], int | None], count: int) -> None:
        if self._errors:
            return
        try:
            self._file.seek(sector * SECTOR)
            if transfer() != count:
                raise FileSystemError("the file system leads to blocks after its end", "check it (fsck)")
        except BaseException as error:  # noqa: BLE001 - raised when the library has returned
            self._errors.append(error)


def _disk(fatfs: ModuleType, sectors: Sectors, count: int) -> Any:
    """Return sectors as the library wants them."""

    class Disk(fatfs.diskio.Disk):  # type: ignore[misc, name-defined]
        """Its methods are called by the library."""

        def ioctl_get_sector_count(self) -> int:
            """Return the number of sectors."""
            return count

        def ioctl_get_sector_size(self) -> int:
            """Return their size in bytes."""
            return SECTOR

        def ioctl_get_block_size(self) -> int:
            """Return how many sectors are erased together: not known."""
            return 1

        def read(self, sector: int, count: int) -> bytes:
            """Return `count` bytes."""
            return sectors.read(sector, count)

        def write(self, sector: int, count: int, buff: bytes) -> None:
            """Write `count` bytes."""
            sectors.write(sector, buff)

    return Disk()
