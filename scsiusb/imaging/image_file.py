"""The image file that a dump writes: its frames, one after the other, in the format that its name asks for."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

from scsiusb.base.copying import Uncopyable
from scsiusb.base.files import named
from scsiusb.imaging.codecs import Codec
from scsiusb.imaging.seekable import Frame, seek_table

HOLE: Final = 64 * 1024  # bytes; so many zeros in a row take no space on the host's disk
ZEROS: Final = bytes(HOLE)
BINARY: Final = getattr(os, "O_BINARY", 0)


def refuse_folder(path: Path) -> None:
    """Raise IsADirectoryError for a path that cannot be a file's, such as that of a folder."""
    if not path.name or path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))


class ImageFile(Uncopyable):
    """A file, cut off after `length` bytes, to which frames are added. Close it."""

    def __init__(self, path: Path, codec: Codec | None, length: int = 0) -> None:
        """Open the file, and make it if there is none. Raise OSError."""
        self.path = path
        self._codec = codec
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | BINARY, 0o666)
        try:
            self.is_regular = stat.S_ISREG(os.fstat(self._descriptor).st_mode)
            if self.is_regular:
                os.ftruncate(self._descriptor, length)
                os.lseek(self._descriptor, length, os.SEEK_SET)
        except BaseException:
            self.close()
            raise
        self.length = length
        """Bytes of the file so far."""

    def add(self, data: bytes | bytearray) -> None:
        """Write a frame: as the codec compressed it, or its contents where there is no codec. Raise OSError."""
        with named(self.path):
            if self._codec is not None or not self.is_regular:
                self._write(data)
            else:
                self._write_sparse(data)
        self.length += len(data)

    def _write_sparse(self, data: bytes | bytearray) -> None:
        is_hole = False
        for at in range(0, len(data), HOLE):
            piece = data[at : at + HOLE]
            is_hole = piece == ZEROS[: len(piece)]
            if is_hole:
                os.lseek(self._descriptor, len(piece), os.SEEK_CUR)
            else:
                self._write(piece)
        if is_hole:  # the program may be killed at any time, and the file must have what the journal says
            os.ftruncate(self._descriptor, self.length + len(data))

    def _write(self, data: bytes | bytearray) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def finish(self, frames: list[Frame]) -> None:
        """Complete the file, and have it on the host's disk; `frames`: all of it, for the table of a .zst file."""
        if self._codec is not None and self._codec.name == "zst":
            self.add(seek_table(frames))
        if self.is_regular:
            with named(self.path):
                os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file. May be called again."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
