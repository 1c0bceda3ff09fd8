"""The files at the other end of read, write and raw: checked before the device is opened, changed only after."""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import BinaryIO, Final, cast

import click

from scsiusb.cli.output import STDOUT, naming, write_all
from scsiusb.finding import VIRTUAL

PIECE: Final = 1024 * 1024
STANDARD: Final = "-"
STDIN: Final = "stdin"
BINARY: Final = getattr(os, "O_BINARY", 0)


class Sink:
    """Where data goes. A file that was there is emptied by `begin`, not sooner; one that was not goes again without."""

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self._name = name
        self.has_begun = False

    def begin(self) -> None:
        """All is checked, data will follow."""
        self.has_begun = True
        with naming(self._name):
            if stat.S_ISREG(os.fstat(self._descriptor).st_mode) and self._name != STDOUT:
                os.ftruncate(self._descriptor, 0)

    def write(self, data: bytes | memoryview) -> None:
        with naming(self._name):
            write_all(self._descriptor, data)


@contextmanager
def sink(path: str | None) -> Iterator[Sink]:
    """The file at `path`, which is made if need be; None and - are stdout."""
    if path is None or path == STANDARD:
        yield Sink(sys.stdout.fileno(), STDOUT)
        return
    descriptor, is_new = _open_for_writing(path)
    opened = Sink(descriptor, path)
    try:
        yield opened
    finally:
        with naming(path):
            os.close(descriptor)
        if is_new and not opened.has_begun:
            with suppress(OSError):
                os.unlink(path)


def _open_for_writing(path: str) -> tuple[int, bool]:
    """The descriptor, and whether the file was made."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, 0o666), True
    except FileExistsError:
        return os.open(path, os.O_WRONLY | os.O_CREAT | BINARY, 0o666), False


class Source:
    """A file whose length counts. One that has none, such as a pipe, is copied first, up to what can be of use."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self.name = name
        self.length = 0
        self._start = 0
        self._copies = ExitStack()

    def measure(self, at_most: int) -> None:
        """Sets `length`; of a pipe, no more than `at_most` bytes are read."""
        if not _has_length(self._file, self.name):
            self._file = self._copies.enter_context(_copied(self._file, self.name, at_most))
        with naming(self.name):
            self._start = self._file.tell()  # of stdin, some may have been read by whoever started us
            self.length = max(self._file.seek(0, os.SEEK_END) - self._start, 0)

    def close(self) -> None:
        """Removes the copy, if there is one; the file itself is its opener's."""
        self._copies.close()

    def rewind(self) -> None:
        with naming(self.name):
            self._file.seek(self._start)

    def fill(self, piece: memoryview) -> None:
        """Reads on, as much as the piece takes. FileError where it has become shorter."""
        done = 0
        while done < len(piece):
            with naming(self.name), piece[done:] as rest:
                count = cast(io.RawIOBase, self._file).readinto(rest)
            if not count:
                raise click.FileError(self.name, "it became shorter while it was read")
            done += count


@contextmanager
def source(path: str) -> Iterator[Source]:
    """The file at `path`; - is stdin."""
    if path == STANDARD:
        with closing(Source(sys.stdin.buffer, STDIN)) as opened:
            yield opened
        return
    with open(path, "rb") as file, closing(Source(file, path)) as opened:
        yield opened


def read_whole(path: str, at_most: int) -> bytes:
    """The file's bytes; one more than `at_most` where it has more."""
    with source(path) as opened:
        opened.measure(at_most + 1)
        data = bytearray(min(opened.length, at_most + 1))
        opened.rewind()
        with memoryview(data) as whole:
            opened.fill(whole)
        return bytes(data)


def _has_length(file: BinaryIO, name: str) -> bool:
    with naming(name):
        mode = os.fstat(file.fileno()).st_mode
    return stat.S_ISREG(mode) or stat.S_ISBLK(mode)


@contextmanager
def _copied(file: BinaryIO, name: str, at_most: int) -> Iterator[BinaryIO]:
    from tempfile import TemporaryFile

    with TemporaryFile() as copy:
        left = at_most
        while left:
            with naming(name):
                data = file.read(min(PIECE, left))
            if not data:
                break
            with naming("a temporary file"):
                copy.write(data)
            left -= len(data)
        copy.seek(0)
        yield cast(BinaryIO, copy)


def refuse_own_file(device: str | None, path: str | None) -> None:
    """The file behind virtual:FILE cannot be the other end too. Raises UsageError."""
    if device is None or path is None or not device.startswith(VIRTUAL):
        return
    with suppress(OSError):
        if os.path.samefile(device.removeprefix(VIRTUAL), path):
            raise click.UsageError(f"{path} is the device itself")
