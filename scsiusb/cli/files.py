"""The files that read, write and raw use: opened before the device, changed only after all checks."""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, Final, cast

import click

from scsiusb.cli.options import settings
from scsiusb.cli.output import STDOUT, naming, write_all
from scsiusb.finding import VIRTUAL

PIECE: Final = 1024 * 1024
STANDARD: Final = "-"
STDIN: Final = "stdin"
BINARY: Final = getattr(os, "O_BINARY", 0)


class Sink:
    """A destination for data. `begin` truncates an existing file; a new file is removed if `begin` was not called."""

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self._name = name
        self.has_begun = False

    def begin(self) -> None:
        """Truncate the file: all checks are done, data follows."""
        self.has_begun = True
        with naming(self._name):
            if stat.S_ISREG(os.fstat(self._descriptor).st_mode) and self._name != STDOUT:
                os.ftruncate(self._descriptor, 0)

    def write(self, data: bytes | memoryview) -> None:
        """Write all of `data`."""
        with naming(self._name):
            write_all(self._descriptor, data)


@contextmanager
def sink(path: str | None) -> Iterator[Sink]:
    """Open the file at `path` for writing, creating it if necessary; None and - are stdout."""
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
    """Return the file descriptor, and whether the file is new."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, 0o666), True
    except FileExistsError:
        return os.open(path, os.O_WRONLY | os.O_CREAT | BINARY, 0o666), False


class Source:
    """A file to read. The length of a pipe, and of a device such as /dev/zero, is not known before its end."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self.name = name
        self.length: int | None = None
        self._start = 0

    def measure(self) -> None:
        """Set `length`, if it can be known."""
        if not _has_length(self._file, self.name):
            return
        with naming(self.name):
            self._start = self._file.tell()  # of stdin, the parent process may have read a part
            self.length = max(self._file.seek(0, os.SEEK_END) - self._start, 0)
            self._file.seek(self._start)

    def rewind(self) -> None:
        """Go back to the start of the data, of a file whose length is known."""
        with naming(self.name):
            self._file.seek(self._start)

    def read_into(self, piece: memoryview) -> int:
        """Read until `piece` is full or the data end; return the number of bytes."""
        done = 0
        while done < len(piece):
            with naming(self.name), piece[done:] as rest:
                count = cast(io.RawIOBase, self._file).readinto(rest)
            if not count:
                break
            done += count
        return done

    def fill(self, piece: memoryview) -> None:
        """Read until `piece` is full. Raises click.FileError if the file has become shorter."""
        if self.read_into(piece) < len(piece):
            raise click.FileError(self.name, "it became shorter while it was read")


@contextmanager
def source(path: str) -> Iterator[Source]:
    """Open the file at `path` for reading. `-` means stdin."""
    if path == STANDARD:
        yield Source(sys.stdin.buffer, STDIN)
        return
    with open(path, "rb") as file:
        yield Source(file, path)


@contextmanager
def binary(path: str) -> Iterator[BinaryIO]:
    """Open the file at `path` for reading as a binary file. `-` means stdin."""
    if path == STANDARD:
        with naming(STDIN):
            yield sys.stdin.buffer
    else:
        with naming(path), open(path, "rb") as file:
            yield file


def read_whole(path: str, at_most: int) -> bytes:
    """Return the content of the file; one byte more than `at_most` if it is longer."""
    data = bytearray()
    with source(path) as opened, memoryview(bytearray(PIECE)) as piece:
        while len(data) <= at_most:
            with piece[: at_most + 1 - len(data)] as room:
                count = opened.read_into(room)
                data += room[:count]
            if not count:
                break
    return bytes(data)


def _has_length(file: BinaryIO, name: str) -> bool:
    with naming(name):
        mode = os.fstat(file.fileno()).st_mode
    return stat.S_ISREG(mode) or stat.S_ISBLK(mode)


def refuse_stdout(path: str | None, what: str = "an image", instead: str = "read DEVICE --blocks all") -> None:
    """Raise UsageError if `path` is -: what is not written from its start to its end alone needs a file."""
    if path == STANDARD:
        place = f"- is stdout, which cannot have {what}: give a file (./- if that is its name), or use"
        raise click.UsageError(f"{place} `scsiusb {instead}` in a pipe")


def refuse_trace_of(devices: int) -> None:
    """Raise UsageError if a trace is asked for, and the command opens more than one device: they cannot share it."""
    if settings().trace is not None and devices > 1:
        raise click.UsageError("--trace records one device: name one, or leave --trace out")


def refuse_own_file(device: str | None, path: str | None) -> None:
    """Raise UsageError if the file of virtual:FILE, the input or output, and the trace are not different files."""
    trace = settings().trace
    if device is not None and device.startswith(VIRTUAL):
        from scsiusb.virtual.address import split

        own = split(device)[0]
        for each in (path, trace):
            if own and each is not None and _is_same(own, each):
                raise click.UsageError(f"{each} is the device itself")
    if trace is None:
        return
    if path is not None and path != STANDARD and _is_same(trace, path):
        raise click.UsageError(f"--trace {trace}: the command itself uses this file")
    for name, descriptor in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        if _is_regular_and_same(trace, descriptor):
            raise click.UsageError(f"--trace {trace}: {name} is this file")


def _is_same(one: str, other: str) -> bool:
    """Return whether two paths name one file, which need not exist yet."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)


def _is_regular_and_same(path: str, descriptor: int) -> bool:
    try:
        found = os.fstat(descriptor)
        return stat.S_ISREG(found.st_mode) and os.path.samestat(found, os.stat(path))
    except OSError:
        return False
