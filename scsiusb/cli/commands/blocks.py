"""Commands that transfer data: read and write."""

from __future__ import annotations

import sys
import time
from typing import Any, Final

import click

from scsiusb.cli.ask import confirm_overwriting, require_terminal
from scsiusb.cli.device import device_argument, device_record, opened
from scsiusb.cli.files import STANDARD, Source, refuse_own_file, sink, source
from scsiusb.cli.options import global_options, number_option, settings
from scsiusb.cli.output import counted, hex_dump, say, show, show_json, size_text
from scsiusb.cli.progress import progress
from scsiusb.disk.disk import Disk
from scsiusb.errors import Miscompare
from scsiusb.scsi.sense import Sense

MOST_AS_TEXT: Final = 16 * 1024 * 1024
MISCOMPARE: Final = Sense(0xE, 0x1D, 0)


@click.command("read", short_help="Read blocks to a file, a pipe or the terminal.")
@device_argument
@number_option("--lba", default="0", help="First block (default 0).")
@number_option("--blocks", default="1", help="Number of blocks (default 1).")
@click.option("-o", "--output", metavar="FILE", type=click.Path(), help="Write to FILE; - is stdout (default).")
@global_options
def read_command(device: str | None, lun: int | None, lba: int, blocks: int, output: str | None) -> None:
    """Read blocks: to a file or a pipe as raw bytes, to a terminal as a hex dump.

    With --json and without -o, the JSON contains the data as hex digits.

    \b
    Examples:
      scsiusb read 2-1 --lba 0 --blocks 1
      scsiusb read serial=ABC --lba 2048 --blocks 0x1000 -o part.img
      scsiusb read 2-1 --blocks 32768 | sha256sum
    """
    if output == STANDARD and settings().json:
        raise click.UsageError("--json and -o - would both write to stdout")
    refuse_own_file(device, output)
    if output is None and (settings().json or sys.stdout.isatty()):
        _read_as_text(device, lun, lba, blocks)
        return
    with sink(output) as target, opened(device, lun) as disk:
        disk.check_range(lba, blocks)
        record = _record(disk, lba, blocks)
        target.begin()
        began = time.monotonic()
        with progress("reading", record["bytes"]) as moved, disk.reading(lba, blocks) as pieces:
            for data in pieces:
                target.write(data)
                moved(len(data))
        seconds = time.monotonic() - began
    if settings().json:
        show_json({**record, "output": output, "seconds": round(seconds, 6)})


def _record(disk: Disk, lba: int, blocks: int) -> dict[str, Any]:
    size = disk.block_size
    record = {"lba": lba, "blocks": blocks, "block_size": size, "bytes": blocks * size}
    return {**record, "device": device_record(disk)}


def _read_as_text(device: str | None, lun: int | None, lba: int, blocks: int) -> None:
    with opened(device, lun) as disk:
        disk.check_range(lba, blocks)
        record = _record(disk, lba, blocks)
        if record["bytes"] > MOST_AS_TEXT:
            raise click.UsageError(f"{size_text(record['bytes'])} is too much for the terminal: use -o FILE or a pipe")
        data = disk.read(lba, blocks)
    if settings().json:
        show_json({**record, "data": data})
    elif data:
        show(hex_dump(data, lba * record["block_size"]))


@click.command("write", short_help="Write a file to blocks.")
@device_argument
@number_option("--lba", required=True, help="First block to overwrite.")
@click.option(
    "-i", "--input", "path", metavar="FILE", type=click.Path(), required=True, help="File to write; - is stdin."
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--verify", is_flag=True, help="Flush, read back from the device and compare.")
@global_options
def write_command(device: str | None, lun: int | None, lba: int, path: str, yes: bool, verify: bool) -> None:
    """Write a file to blocks; its length must be a multiple of the block size.

    Asks for confirmation, unless --yes is given. Nothing is padded, and nothing
    is written before the length and the position of the file are checked.

    \b
    Examples:
      scsiusb write 2-1 --lba 0 -i image.img --verify
      zcat image.gz | scsiusb write serial=ABC --lba 0 -i - --yes
    """
    if not yes:
        require_terminal("the write")
    refuse_own_file(device, path)
    with source(path) as file, opened(device, lun) as disk:
        blocks = _checked_blocks(disk, lba, file)
        if blocks and not yes:
            confirm_overwriting(disk, device, lba, blocks)
        began = time.monotonic()
        _write(disk, lba, file)
        seconds = time.monotonic() - began
        if verify:
            _verify(disk, lba, blocks, file)
    if settings().json:
        record = {"lba": lba, "blocks": blocks, "bytes": file.length, "verified": verify}
        show_json({**record, "seconds": round(seconds, 6), "device": device_record(disk)})
    else:
        say(f"wrote {counted(blocks, 'block')} at LBA {lba}{', read back and compared' if verify else ''}")


def _checked_blocks(disk: Disk, lba: int, file: Source) -> int:
    """Return the number of blocks in the file. Raises OutOfRange if they do not fit, UsageError for a partial block."""
    disk.check_range(lba, 0)
    file.measure((disk.blocks - lba + 1) * disk.block_size)  # one block more than fits is enough to know
    blocks, rest = divmod(file.length, disk.block_size)
    disk.check_range(lba, blocks)
    if rest:
        length = counted(file.length, "byte")
        raise click.UsageError(f"{file.name} has {length}, which is not a multiple of the block size {disk.block_size}")
    return blocks


def _write(disk: Disk, lba: int, file: Source) -> None:
    """Write the file, then flush the cache of the device."""
    file.rewind()
    left = file.length
    with progress("writing", left) as moved, disk.writing(lba) as out:
        while left:
            with out.room() as room, room[:left] as piece:
                file.fill(piece)
                count = len(piece)
            out.advance(count)
            moved(count)
            left -= count
    disk.flush()


def _verify(disk: Disk, lba: int, blocks: int, file: Source) -> None:
    file.rewind()
    with progress("verifying", file.length) as moved, disk.reading(lba, blocks) as pieces:
        whole = memoryview(bytearray(min(disk.max_blocks, blocks) * disk.block_size))
        for found in pieces:
            with whole[: len(found)] as wanted:
                file.fill(wanted)
                if found != wanted:
                    raise _difference(pieces.lba - len(found) // disk.block_size, found, wanted, disk.block_size)
            moved(len(found))


def _difference(lba: int, found: memoryview, wanted: memoryview, size: int) -> Miscompare:
    starts = range(0, len(found), size)
    at = next(start for start in starts if found[start : start + size] != wanted[start : start + size])
    return Miscompare(f"verify: LBA {lba + at // size} does not have the data that was written", MISCOMPARE)
