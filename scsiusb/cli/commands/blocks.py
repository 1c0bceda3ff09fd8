"""Commands that transfer data: read and write."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import click

from scsiusb.cli.ask import confirm_overwriting, require_terminal
from scsiusb.cli.device import device_argument, device_record, opened
from scsiusb.cli.failure import Refused
from scsiusb.cli.files import STANDARD, Source, refuse_own_file, sink, source
from scsiusb.cli.jobs import rate
from scsiusb.cli.options import block_number_option, count_or_all, global_options, settings
from scsiusb.cli.output import MOST_AS_TEXT, counted, hex_dump, say, show, show_json, size_text
from scsiusb.cli.progress import interruptible, progress
from scsiusb.disk.disk import Disk
from scsiusb.disk.streaming import Writing
from scsiusb.errors import Miscompare, ScsiUsbError
from scsiusb.scsi.sense import MISCOMPARE

HASHES: Final = ("sha256", "sha512", "sha1", "md5", "blake2b")
CHUNK: Final = 2048  # blocks of a stream that have one digest, to verify them


@click.command("read", short_help="Read blocks to a file, a pipe or the terminal.")
@device_argument
@block_number_option("--lba", default="0", help="First block (default 0).")
@click.option("--blocks", metavar="N|all", default="1", callback=count_or_all, help="Number of blocks (default 1).")
@click.option("-o", "--output", metavar="FILE", type=click.Path(), help="Write to FILE; - is stdout (default).")
@click.option("--hash", "algorithm", type=click.Choice(HASHES), help="Also print the digest of the data.")
@global_options
def read_command(
    device: str | None, lun: int | None, lba: int, blocks: int | None, output: str | None, algorithm: str | None
) -> None:
    """Read blocks: to a file or a pipe as raw bytes, to a terminal as a hex dump.

    N can have a suffix: 4K is 4096 blocks, 1M is 1048576 blocks. With --json and
    without -o, the JSON contains the data as hex digits.

    \b
    Examples:
      scsiusb read 2-1 --lba 0 --blocks 1
      scsiusb read serial=ABC --lba 2048 --blocks 0x1000 -o part.img
      scsiusb read 2-1 --blocks all -o stick.img --hash sha256
    """
    if output == STANDARD and settings().json:
        raise click.UsageError("--json and -o - would both write to stdout")
    refuse_own_file(device, output)
    digest = None if algorithm is None else hashlib.new(algorithm, usedforsecurity=False)
    if output is None and (settings().json or sys.stdout.isatty()):
        _read_as_text(device, lun, lba, blocks, digest)
        return
    with sink(output) as target, opened(device, lun) as disk:
        record = _record(disk, lba, blocks)
        target.begin()
        began, done = time.monotonic(), 0
        with (
            interruptible(lambda: f"read {_amount(done, disk)} of {record['blocks']} from LBA {lba} on"),
            progress("reading", record["bytes"]) as moved,
            disk.reading(lba, record["blocks"]) as pieces,
        ):
            for data in pieces:
                target.write(data)
                if digest is not None:
                    digest.update(data)
                moved(len(data))
                done += len(data)
        seconds = time.monotonic() - began
    _report_read(record, output, seconds, digest)


def _amount(count: int, disk: Disk) -> str:
    return counted(count // disk.block_size, "block")


def _report_read(record: dict[str, Any], output: str | None, seconds: float, digest: Any) -> None:
    is_file = output not in (None, STANDARD)
    if settings().json:
        show_json({**record, "output": output, "seconds": round(seconds, 6), **_digest(digest)})
        return
    if is_file:
        count = record["bytes"]
        say(f"read {counted(count, 'byte')} ({size_text(count)}) in {seconds:.2f} s, {rate(count, seconds)}")
    if digest is not None:
        (show if is_file else say)(f"{digest.hexdigest()}  {output or STANDARD}")


def _digest(digest: Any) -> dict[str, str]:
    return {} if digest is None else {digest.name: digest.hexdigest()}


def _record(disk: Disk, lba: int, blocks: int | None) -> dict[str, Any]:
    """Return the range to read, of all blocks from `lba` on if `blocks` is None. Raises OutOfRange."""
    disk.check_range(lba, blocks or 0)
    count, size = disk.blocks - lba if blocks is None else blocks, disk.block_size
    record = {"lba": lba, "blocks": count, "block_size": size, "bytes": count * size}
    return {**record, "device": device_record(disk)}


def _read_as_text(device: str | None, lun: int | None, lba: int, blocks: int | None, digest: Any) -> None:
    with opened(device, lun) as disk:
        record = _record(disk, lba, blocks)
        if record["bytes"] > MOST_AS_TEXT:
            raise click.UsageError(f"{size_text(record['bytes'])} is too much for the terminal: use -o FILE or a pipe")
        data = disk.read(lba, record["blocks"])
    if digest is not None:
        digest.update(data)
    if settings().json:
        show_json({**record, "data": data, **_digest(digest)})
        return
    if data:
        show(hex_dump(data, lba * record["block_size"]))
    if digest is not None:
        say(f"{digest.hexdigest()}  {STANDARD}")


@click.command("write", short_help="Write a file to blocks.")
@device_argument
@block_number_option("--lba", required=True, help="First block to overwrite.")
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

    The length of a pipe is not known before its end. It is written as it comes;
    if it turns out not to fit, the error says how many blocks were written.

    \b
    Examples:
      scsiusb write 2-1 --lba 0 -i image.img --verify
      zcat image.gz | scsiusb write serial=ABC --lba 0 -i - --yes
    """
    if not yes:
        require_terminal("the write")
    refuse_own_file(device, path)
    with source(path) as file, opened(device, lun) as disk:
        file.measure()
        blocks = _checked_blocks(disk, lba, file)
        if not yes:
            end = "" if file.length is not None else ", as far as the input goes"
            confirm_overwriting(disk, device, lba, blocks, end)
        began = time.monotonic()
        written = _Written(disk, lba)
        written.write(file)
        seconds = time.monotonic() - began
        if verify:
            written.verify(file)
    blocks = written.blocks
    if settings().json:
        record = {"lba": lba, "blocks": blocks, "bytes": blocks * disk.block_size, "verified": verify}
        show_json({**record, "seconds": round(seconds, 6), "device": device_record(disk)})
    else:
        say(f"wrote {counted(blocks, 'block')} at LBA {lba}{', read back and compared' if verify else ''}")


def _checked_blocks(disk: Disk, lba: int, file: Source) -> int:
    """Return the number of blocks in the file, at most in a stream.

    Raises OutOfRange if they do not fit, DataProtect, UsageError for no bytes and a partial block.
    """
    disk.medium_to_write(lba)  # before its size is used: if MODE SENSE fails, the medium is found again
    if file.length is None:
        return disk.blocks - lba
    blocks = file.length // disk.block_size
    disk.check_range(lba, blocks)
    _check_length(file.name, file.length, disk.block_size)
    return blocks


def _check_length(name: str, length: int, block_size: int) -> None:
    """Raise Refused for no bytes, UsageError for a partial block."""
    if not length:
        raise Refused(f"{name} is empty: nothing was written", "give an input with data")
    if length % block_size:
        raise click.UsageError(
            f"{name} has {counted(length, 'byte')}, which is not a multiple of the block size {block_size}"
        )


class _Written:
    """The blocks that a command writes, from `lba` on."""

    def __init__(self, disk: Disk, lba: int) -> None:
        self._disk = disk
        self._lba = lba
        self._size = disk.block_size
        self._digests = _Digests(CHUNK * self._size)
        self.blocks = 0

    def write(self, file: Source) -> None:
        """Write the file, then flush the cache of the device."""
        out = self._disk.writing(self._lba)
        with self._reached(out), progress("writing", file.length) as moved, out:
            rest = self._copy(file, out, moved)
        self.blocks = out.lba - self._lba
        self._disk.flush()
        if rest:
            text = f"{file.name} ended within a block, after {counted(rest, 'byte')} of {self._size}"
            raise Refused(f"{text}: {self._reached_text(out)}", "give an input of whole blocks")

    @contextmanager
    def _reached(self, out: Writing) -> Iterator[None]:
        """Add to an error, and to Ctrl-C, what was written before it."""
        with interruptible(lambda: self._reached_text(out)):
            try:
                yield
            except ScsiUsbError as error:
                error.what += f": {self._reached_text(out)}"
                raise

    def _reached_text(self, out: Writing) -> str:
        count = out.lba - self._lba
        return f"wrote {counted(count, 'block')} from LBA {self._lba} on" if count else "no write was confirmed"

    def _copy(self, file: Source, out: Writing, moved: Any) -> int:
        """Copy the file to the stream; return the bytes of a partial block at its end, which are not written."""
        room_left = (self._disk.blocks - self._lba) * self._size
        left, total = file.length, 0
        while left != 0:
            with out.room() as room, room[:left] as piece:
                most = len(piece)
                count = _read(file, piece)
                if file.length is None:
                    self._digests.update(piece[:count])
            total += count
            if total == room_left and file.length is None:
                self._check_end(file)
            rest = count % self._size if count < most else 0
            if total == count and count < most:  # no command was sent yet
                _check_length(file.name, total, self._size)
            out.advance(count - rest)
            moved(count)
            if count < most:
                return rest
            left = None if left is None else left - count
        return 0

    def _check_end(self, file: Source) -> None:
        """Raise OutOfRange if the stream goes on after the last block of the medium."""
        with memoryview(bytearray(1)) as byte:
            if file.read_into(byte):
                self._disk.check_range(self._disk.blocks, 1)

    def verify(self, file: Source) -> None:
        """Read the blocks back. Raises Miscompare with the first block that differs, of a stream the first range."""
        with progress("verifying", self.blocks * self._size) as moved:
            if file.length is None:
                self._verify_digests(moved)
            else:
                self._verify_bytes(file, moved)

    def _verify_bytes(self, file: Source, moved: Any) -> None:
        file.rewind()
        with self._disk.reading(self._lba, self.blocks) as pieces:
            whole = memoryview(bytearray(pieces.most_bytes))
            for found in pieces:
                with whole[: len(found)] as wanted:
                    file.fill(wanted)
                    if found != wanted:
                        raise _difference(pieces.lba - len(found) // self._size, found, wanted, self._size)
                moved(len(found))

    def _verify_digests(self, moved: Any) -> None:
        found = _Digests(CHUNK * self._size)
        with self._disk.reading(self._lba, self.blocks) as pieces:
            for piece in pieces:
                found.update(piece)
                moved(len(piece))
        pairs = zip(self._digests.end(), found.end(), strict=True)
        wrong = next((at for at, (wanted, came) in enumerate(pairs) if wanted != came), None)
        if wrong is not None:
            first = self._lba + wrong * CHUNK
            last = min(first + CHUNK, self._lba + self.blocks) - 1
            raise _miscompare(f"LBA {first} to {last} do", first)


def _read(file: Source, piece: memoryview) -> int:
    if file.length is None:
        return file.read_into(piece)
    file.fill(piece)
    return len(piece)


class _Digests:
    """Digests of data by pieces of `size` bytes: enough to verify a stream, which cannot be read twice."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._done: list[bytes] = []
        self._begin()

    def _begin(self) -> None:
        self._digest, self._left = hashlib.blake2b(digest_size=16), self._size

    def update(self, data: memoryview) -> None:
        """Add data of any length."""
        while data:
            part, data = data[: self._left], data[self._left :]
            self._digest.update(part)
            self._left -= len(part)
            if not self._left:
                self._done.append(self._digest.digest())
                self._begin()

    def end(self) -> list[bytes]:
        """Return the digests of all pieces, including an incomplete last piece."""
        return self._done if self._left == self._size else [*self._done, self._digest.digest()]


def _difference(lba: int, found: memoryview, wanted: memoryview, size: int) -> Miscompare:
    starts = range(0, len(found), size)
    at = next(start for start in starts if found[start : start + size] != wanted[start : start + size])
    first = lba + at // size
    return _miscompare(f"LBA {first} does", first)


def _miscompare(place: str, first: int) -> Miscompare:
    error = Miscompare(f"verify: {place} not have the data that was written", MISCOMPARE)
    error.lba = first
    return error
