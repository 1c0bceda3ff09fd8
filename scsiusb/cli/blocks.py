"""Commands that move data: read and write."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Final

import click

from scsiusb.cli.options import device_argument, global_options, number_option, settings
from scsiusb.cli.output import hex_dump, show_json, size_text
from scsiusb.cli.progress import progress
from scsiusb.cli.session import opened
from scsiusb.disk import Disk
from scsiusb.errors import Miscompare

CHUNK: Final = 4 * 1024 * 1024
MOST_AS_TEXT: Final = 16 * 1024 * 1024
STDIN: Final = "-"

Moved = Callable[[int], None]


@click.command("read")
@device_argument
@number_option("--lba", default="0", help="The first block (default 0).")
@number_option("--blocks", default="1", help="How many blocks (default 1).")
@click.option("-o", "--output", type=click.Path(), help="The file to write to; default: stdout.")
@global_options
def read_command(device: str | None, lun: int, lba: int, blocks: int, output: str | None) -> None:
    """Read blocks: into a file, raw into a pipe, as a hex dump onto a terminal.

    \b
    Examples:
      scsiusb read 2-1 --lba 0 --blocks 1
      scsiusb read serial=ABC --lba 2048 --blocks 0x1000 -o part.img
      scsiusb read 2-1 --blocks 32768 | sha256sum
    """
    with opened(device, lun) as disk:
        disk.check_range(lba, blocks)
        record: dict[str, Any] = {"lba": lba, "blocks": blocks, "block_size": disk.block_size}
        record["bytes"] = blocks * disk.block_size
        if output is None and (settings().json or sys.stdout.isatty()):
            _read_as_text(disk, record)
            return
        with _binary_output(output) as write, progress("reading", record["bytes"]) as moved:
            for data in _chunks_read(disk, lba, blocks):
                write(data)
                moved(len(data))
    if output is not None and settings().json:
        show_json({**record, "output": output})


def _read_as_text(disk: Disk, record: dict[str, Any]) -> None:
    if record["bytes"] > MOST_AS_TEXT:
        raise click.UsageError(f"{size_text(record['bytes'])} are too much to print: use -o FILE or a pipe")
    data = disk.read(record["lba"], record["blocks"])
    if settings().json:
        show_json({**record, "data": data})
    else:
        click.echo(hex_dump(data, record["lba"] * disk.block_size))


def _chunks_read(disk: Disk, lba: int, blocks: int) -> Iterator[memoryview]:
    """The blocks, in one buffer that is used again for each piece."""
    step = max(1, CHUNK // disk.block_size)
    buffer = memoryview(bytearray(min(step, blocks) * disk.block_size))
    for at in range(0, blocks, step):
        with buffer[: min(step, blocks - at) * disk.block_size] as piece:
            disk.readinto(lba + at, piece)
            yield piece


@contextmanager
def _binary_output(path: str | None) -> Iterator[Callable[[memoryview], None]]:
    """Unbuffered, so that a full disk is met here and not when the interpreter closes the file."""
    if path is None:
        yield lambda data: _write_all(sys.stdout.fileno(), data, "stdout")
        return
    with open(path, "wb", buffering=0) as file:
        yield lambda data: _write_all(file.fileno(), data, path)


def _write_all(descriptor: int, data: memoryview, name: str) -> None:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OSError(error.errno, error.strerror, name) from error


@click.command("write")
@device_argument
@number_option("--lba", required=True, help="The first block to overwrite.")
@click.option("-i", "--input", "source", required=True, help="The file to write; - is stdin.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--verify", is_flag=True, help="Flush, read back from the device and compare.")
@global_options
def write_command(device: str | None, lun: int, lba: int, source: str, yes: bool, verify: bool) -> None:
    """Write a file onto blocks. Its length must be a whole number of blocks; nothing is padded.

    \b
    Examples:
      scsiusb write 2-1 --lba 0 -i image.img --verify
      zcat image.gz | scsiusb write serial=ABC --lba 0 -i - --yes
    """
    with _input(source) as file, opened(device, lun) as disk:
        length = file.seek(0, os.SEEK_END)
        blocks, rest = divmod(length, disk.block_size)
        if rest:
            raise click.UsageError(f"{source} has {length} bytes, no multiple of the block size {disk.block_size}")
        disk.check_range(lba, blocks)
        if not yes:
            _ask(disk, device, lba, blocks)
        with progress("writing", length) as moved:
            _for_each_chunk(disk, file, lba, moved, disk.write)
        disk.flush()
        if verify:
            with progress("verifying", length) as moved:
                _for_each_chunk(disk, file, lba, moved, lambda at, data: _compare(disk, at, data))
    record = {"lba": lba, "blocks": blocks, "bytes": length, "verified": verify}
    if settings().json:
        show_json(record)
    else:
        click.echo(f"wrote {blocks} blocks at LBA {lba}{', and read them back' if verify else ''}", err=True)


@contextmanager
def _input(path: str) -> Iterator[BinaryIO]:
    """A seekable file. stdin is kept in a temporary file first, so that its length is known before anything is sent."""
    if path != STDIN:
        with open(path, "rb") as file:
            yield file
        return
    with tempfile.TemporaryFile() as copy:
        while data := sys.stdin.buffer.read(CHUNK):
            copy.write(data)
        yield copy


def _ask(disk: Disk, device: str | None, lba: int, blocks: int) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("nobody is at the terminal to confirm the write: give --yes")
    unit = disk.inquiry()
    last = lba + max(blocks, 1) - 1
    name = f"{unit.vendor} {unit.product} ({size_text(disk.size)}) at {device or 'the only device'}"
    click.confirm(f"Overwrite LBA {lba} to {last} of {name}?", abort=True, err=True)


def _for_each_chunk(
    disk: Disk, file: BinaryIO, lba: int, moved: Moved, action: Callable[[int, memoryview], object]
) -> None:
    """Calls `action` with the LBA and the bytes of each piece of the file."""
    buffer = memoryview(bytearray(max(1, CHUNK // disk.block_size) * disk.block_size))
    file.seek(0)
    while count := _fill(file, buffer):
        with buffer[:count] as piece:
            action(lba, piece)
        lba += count // disk.block_size
        moved(count)


def _fill(file: BinaryIO, buffer: memoryview) -> int:
    """As much of `buffer` as the file still has: a short read is not its end."""
    count = 0
    while count < len(buffer) and (data := file.read(len(buffer) - count)):
        buffer[count : count + len(data)] = data
        count += len(data)
    return count


def _compare(disk: Disk, lba: int, wanted: memoryview) -> None:
    found = disk.read(lba, len(wanted) // disk.block_size)
    if found != wanted:
        raise _difference(disk, lba, found, wanted)


def _difference(disk: Disk, lba: int, found: bytes, wanted: memoryview) -> Miscompare:
    from scsiusb.scsi.sense import Sense

    differ = next(
        at
        for at in range(0, len(found), disk.block_size)
        if found[at:][: disk.block_size] != wanted[at:][: disk.block_size]
    )
    return Miscompare(
        f"verify: LBA {lba + differ // disk.block_size} does not hold what was written", Sense(0xE, 0x1D, 0)
    )
