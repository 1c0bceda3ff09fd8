"""Read the files of a file system by The Sleuth Kit, through pytsk3."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from scsiusb.errors import FileSystemError
from scsiusb.volume import names
from scsiusb.volume.file_entry import FileEntry

if TYPE_CHECKING:
    from scsiusb.disk.file import DiskFile

MOST_ENTRIES: Final = 1 << 20  # of a directory; more are a circle, or made to harm
PIECE: Final = 1 << 20  # bytes of one read
MOST_PIECE: Final = 1 << 24  # bytes that the library may ask of us at once
CASELESS: Final = ("fat", "exfat", "ntfs", "hfs")
CHECK: Final = "check it (fsck), or make an image and look there"
EXFAT_TABLES: Final = ("$ALLOC_BITMAP", "$UPCASE_TABLE")  # names that the library gives to what has none
LABEL: Final = " (Volume Label Entry)"  # what the library adds to the name of a volume label on FAT and exFAT
NTFS_RESERVED: Final = 16  # the first files are the file system itself
INSTALL: Final = "pip install 'scsiusb[files]'"


def library() -> ModuleType:
    """Return pytsk3. Raise FileSystemError if it is not installed."""
    try:
        import pytsk3
    except ImportError as error:
        raise FileSystemError("files cannot be read: pytsk3 is not installed", INSTALL) from error
    module: ModuleType = pytsk3
    return module


class Sleuth:
    """A file system that is read through a file of its blocks. Names are looked up one directory at a time."""

    def __init__(self, file: DiskFile, kind: str) -> None:
        """Raise FileSystemError where the library finds no file system; as `Disk.read`."""
        self._ignores_case = kind.startswith(CASELESS)
        self._is_ntfs = kind == "ntfs"
        self._errors: list[BaseException] = []
        self._tsk = tsk = library()
        self._image = _image(tsk, file, self._errors)
        with self._told():
            self._files: Any = tsk.FS_Info(self._image)

    def close(self) -> None:
        """Let the library go: its objects refer to each other."""
        self._files = self._image = None

    def entry(self, path: tuple[str, ...]) -> FileEntry:
        """Return what is at a path. Raise FileNotFoundError, NotADirectoryError."""
        found = self._root()
        for at, name in enumerate(path):
            if not found.is_directory:
                raise names.not_a_directory(names.joined(path[:at]))
            found = self._look_up(found, name, names.joined(path[: at + 1]))
        return found

    def entries(self, path: tuple[str, ...]) -> list[FileEntry]:
        """Return what is in a directory. Raise as `entry`."""
        found = self.entry(path)
        if not found.is_directory:
            raise names.not_a_directory(names.joined(path))
        return self._listed(found.number)

    def read(self, number: int, offset: int, size: int) -> bytes:
        """Return bytes of a file: as many as asked for, unless it ends before."""
        data = bytearray()
        with self._told():
            file = self._files.open_meta(inode=number)
            while len(data) < size:
                piece = file.read_random(offset + len(data), min(PIECE, size - len(data)))
                if not piece:
                    break
                data += piece
        return bytes(data)

    def _root(self) -> FileEntry:
        with self._told():
            return FileEntry("/", 0, True, None, int(self._files.info.root_inum))

    def _look_up(self, directory: FileEntry, name: str, path: str) -> FileEntry:
        listed = self._listed(directory.number)
        found = next((each for each in listed if each.name == name), None)
        if found is None and self._ignores_case:
            folded = name.casefold()
            found = next((each for each in listed if each.name.casefold() == folded), None)
        if found is None:
            raise names.not_found(path)
        return found

    def _listed(self, number: int) -> list[FileEntry]:
        """Return a directory's entries: no deleted ones, and none that the library invents."""
        listed: list[FileEntry] = []
        with self._told():
            for each in self._files.open_dir(inode=number):
                found = self._entry(each.info)
                if found is not None:
                    listed.append(found)
                if len(listed) > MOST_ENTRIES:
                    raise OSError(f"a directory has more than {MOST_ENTRIES} entries")
        return listed

    def _entry(self, info: Any) -> FileEntry | None:
        tsk, named, meta = self._tsk, info.name, info.meta
        if named is None or meta is None or not int(named.flags) & int(tsk.TSK_FS_NAME_FLAG_ALLOC):
            return None
        name, kind = bytes(named.name).decode("utf-8", "surrogateescape"), int(meta.type)
        name = name.replace("/", "_")  # no file system allows it; made to harm
        if name in ("", ".", "..") or kind not in (int(tsk.TSK_FS_META_TYPE_REG), int(tsk.TSK_FS_META_TYPE_DIR)):
            return None
        if name in EXFAT_TABLES or (self._is_ntfs and int(meta.addr) < NTFS_RESERVED):
            return None
        if self._ignores_case and name.endswith(LABEL):
            return None
        is_directory = kind == int(tsk.TSK_FS_META_TYPE_DIR)
        return FileEntry(name, 0 if is_directory else int(meta.size), is_directory, _time(meta.mtime), int(meta.addr))

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Raise the device's own error where there was one, and FileSystemError for what the library says."""
        try:
            yield
        except OSError as error:
            if not self._errors:
                reason = str(error).partition(") ")[2] or str(error)
                raise FileSystemError(f"the file system is damaged, or not supported: {reason}", CHECK) from error
        finally:
            if self._errors:
                first = self._errors[0]
                self._errors.clear()
                raise first


def _time(seconds: object) -> datetime | None:
    try:
        return datetime.fromtimestamp(int(seconds), timezone.utc) if seconds else None  # type: ignore[call-overload]
    except (OverflowError, ValueError, OSError):
        return None


def _image(tsk: ModuleType, file: DiskFile, errors: list[BaseException]) -> Any:
    """Return the blocks as the library wants them; an error goes to `errors`, as the library would lose its kind."""

    class Image(tsk.Img_Info):  # type: ignore[misc, name-defined]
        """The blocks of a partition. Its methods are called by the library."""

        def __init__(self) -> None:
            super().__init__(url="", type=tsk.TSK_IMG_TYPE_EXTERNAL)

        def get_size(self) -> int:
            """Return the number of bytes."""
            return file.size

        def read(self, offset: int, size: int) -> bytes:
            """Return the bytes there."""
            try:
                if not 0 <= size <= MOST_PIECE:
                    raise FileSystemError(f"the file system is damaged: it leads to a read of {size} bytes", CHECK)
                file.seek(offset)
                data = bytearray(max(0, min(size, file.size - offset)))
                file.readinto(data)
                return bytes(data)
            except BaseException as error:  # noqa: BLE001 - raised when the library has returned
                errors.append(error)
                raise OSError(str(error)) from None

        def close(self) -> None:
            """Do nothing: the file is its owner's."""

    return Image()
