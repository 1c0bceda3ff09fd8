"""Files of a stick for fsspec, and so for pandas, pyarrow and others: usb://DEVICE/PART/path, to read."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final
from urllib.parse import quote, unquote

from fsspec import AbstractFileSystem

from scsiusb.opening import open as open_disk
from scsiusb.volume import FileEntry, FileSystem, filesystem, partitions

WHOLE: Final = 0  # in place of a partition's number: the disk has no table


class UsbFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """The files on USB mass-storage devices, to read: `fsspec.open("usb://serial=X/1/dir/file")`.

    A path begins with what `scsiusb.open` takes to find a device, with `/` as %2F, and the number of a partition, 0 for
    a disk without a table. The device is open only as long as a file is, or a directory is read. Options: as those of
    `scsiusb.open`. Raises as that, and as `volume.filesystem`.
    """

    protocol = "usb"
    root_marker = ""
    cachable = False  # an object for each use: nothing is known of a stick that may be another one now

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._options = {key: value for key, value in options.items() if key in ("lun", "timeout", "quirks", "trace")}

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        """Return what is in a directory: names, or, with `detail`, a dict for each with `name`, `size`, `type`."""
        device, number, inner = _parts(self._strip_protocol(path))
        with self._opened(device, number) as files:
            found = files.entry(inner)
            listed = files.entries(inner) if found.is_directory else [found]
            above = inner if found.is_directory else inner.rpartition("/")[0]
        rows = [_row(f"{_place(device, number)}{above.rstrip('/')}/{each.name}", each) for each in listed]
        return rows if detail else [row["name"] for row in rows]

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        """Return the `name`, `size` and `type` of a file or directory."""
        device, number, inner = _parts(self._strip_protocol(path))
        with self._opened(device, number) as files:
            return _row(f"{_place(device, number)}{inner.rstrip('/')}", files.entry(inner))

    def modified(self, path: str) -> Any:
        """Return when a file was last changed; None if that is not known."""
        return self.info(path)["mtime"]

    def _open(self, path: str, mode: str = "rb", **options: Any) -> io.BufferedReader:
        if mode != "rb":
            raise ValueError(
                f'mode {mode!r} is not possible; use "rb", and `scsiusb put` or `volume.filesystem` to write'
            )
        device, number, inner = _parts(path)
        with ExitStack() as held:
            files = held.enter_context(self._opened(device, number))
            file = held.enter_context(files.open(inner))
            return io.BufferedReader(_Closing(file, held.pop_all()), buffer_size=1 << 16)

    @contextmanager
    def _opened(self, device: str, number: int) -> Iterator[FileSystem]:
        with ExitStack() as held:
            disk = held.enter_context(open_disk(device, **self._options))
            place = disk if number == WHOLE else partitions(disk).find(number)
            yield held.enter_context(filesystem(place))


class _Closing(io.RawIOBase):
    """A file whose `close` gives the file system and the device back, too."""

    def __init__(self, file: io.BufferedReader, held: ExitStack) -> None:
        self._file = file
        self._held = held

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer: Any, /) -> int:
        return self._file.readinto(buffer)

    def close(self) -> None:
        if not self.closed:
            try:
                self._held.close()
            finally:
                super().close()


def _parts(path: str) -> tuple[str, int, str]:
    """Return the device, the partition's number, and the path in it. Raise ValueError if they are not all there."""
    device, _, rest = path.lstrip("/").partition("/")
    number, _, inner = rest.partition("/")
    if not device or not (number.isascii() and number.isdigit()):
        raise ValueError(
            f"{path!r} is no path on a stick; give usb://DEVICE/PART/path, with 0 for a disk without a table"
        )
    return unquote(device), int(number), f"/{inner}"


def _place(device: str, number: int) -> str:
    return f"{quote(device, safe='=:')}/{number}"


def _row(name: str, entry: FileEntry) -> dict[str, Any]:
    kind = "directory" if entry.is_directory else "file"
    return {"name": name, "size": entry.size, "type": kind, "mtime": entry.modified}
