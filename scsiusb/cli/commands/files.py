"""Commands for the files on a device: ls, cat, get, put, mkdir, rm, mkfs."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Final, cast

import click

from scsiusb.base.files import named
from scsiusb.cli.ask import confirm, require_terminal
from scsiusb.cli.device import complete_device, device_record, lun_option, opened
from scsiusb.cli.failure import Refused
from scsiusb.cli.files import STANDARD, STDIN, refuse_own_file, refuse_stdout
from scsiusb.cli.jobs import contents_of, name
from scsiusb.cli.options import F, global_options, settings
from scsiusb.cli.output import (
    MOST_AS_TEXT,
    counted,
    naming,
    say,
    show_bytes,
    show_json,
    show_table,
    size_text,
    write_all,
)
from scsiusb.cli.progress import progress
from scsiusb.errors import FileSystemError, Miscompare
from scsiusb.scsi.sense import Sense

if TYPE_CHECKING:
    from scsiusb.disk.disk import Disk
    from scsiusb.volume.file_entry import FileEntry
    from scsiusb.volume.filesystem import FileSystem, Openable

PLACE: Final = re.compile(r"(.+):([0-9]{1,3})")  # an ID has four digits, so that VID:PID is none
VIRTUAL: Final = "virtual"
WHOLE: Final = 0  # in place of a partition's number
PIECE: Final = 1 << 20
MISCOMPARE: Final = Sense(0xE, 0x1D, 0)
YES: Final = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")


def place_argument(function: F) -> F:
    """Add DEVICE[:PART] and --lun."""
    argument = click.argument("device", metavar="DEVICE[:PART]", shell_complete=complete_device)
    return argument(lun_option(function))


def divided(device: str) -> tuple[str, int | None]:
    """Return DEVICE and the partition's number, None if it is not given: "2-1:3" → ("2-1", 3)."""
    match = PLACE.fullmatch(device)
    if match is None or match[1] == VIRTUAL:
        return device, None
    return match[1], int(match[2])


def place_on(disk: Disk, number: int | None, *, is_new: bool = False) -> tuple[Openable, str]:
    """Return the partition, and its name for a question. `is_new`: one to make a file system on.

    Raises ValueError for a partition that is not there, FileSystemError where it must be named.
    """
    from scsiusb.volume import partitions
    from scsiusb.volume.filesystem import READABLE

    table = partitions(disk)
    if number == WHOLE or (number is None and table.kind == "none"):
        return disk, "the whole disk"
    if number is not None:
        try:
            return table.find(number), f"partition {number}"
        except ValueError as error:
            raise Refused(str(error), "`scsiusb partitions` shows them") from error
    found = [each for each in table if is_new or each.content in READABLE]
    if len(found) == 1 and not is_new:
        return found[0], f"partition {found[0].number}"
    there = ", ".join(f"{each.number} ({each.content or 'unknown'})" for each in found) or "none"
    what = f"there {'is' if len(found) == 1 else 'are'} {counted(len(found), 'partition')} to choose from: {there}"
    raise FileSystemError(what, "name one: DEVICE:1; DEVICE:0 is the whole disk")


@contextmanager
def files_of(device: str, lun: int | None, mode: str = "rb") -> Iterator[tuple[Disk, FileSystem, str]]:
    """Open the device and the file system on it, for a `with`."""
    from scsiusb.volume import filesystem

    word, number = divided(device)
    with opened(word, lun) as disk:
        place, said = place_on(disk, number)
        with filesystem(place, mode) as files:
            yield disk, files, f"{said} ({files.kind}, {size_text(files.size)})"


@click.command("ls", short_help="List the files in a directory.")
@place_argument
@click.argument("path", default="/")
@global_options
def ls_command(device: str, lun: int | None, path: str) -> None:
    """List the files in a directory of a device, or show one file.

    FAT, exFAT, NTFS, ext, HFS+ and ISO 9660 are read, without mounting. PART is a
    number of `scsiusb partitions`; it can be omitted if only one has files.
    Needs: pip install 'scsiusb[files]'

    \b
    Examples:
      scsiusb ls 2-1
      scsiusb ls 2-1:1 /photos --json
    """
    with files_of(device, lun) as (_, files, _):
        found = files.entry(path)
        listed = files.entries(path) if found.is_directory else [found]
    if settings().json:
        show_json([_record(each) for each in listed])
        return
    rows = [
        (
            each.modified and each.modified.astimezone().strftime("%Y-%m-%d %H:%M"),
            None if each.is_directory else each.size,
            _shown(each.name) + ("/" if each.is_directory else ""),
        )
        for each in sorted(listed, key=lambda each: (not each.is_directory, each.name.casefold()))
    ]
    show_table(("modified", "bytes", "name"), rows, elastic=("name",))


def _record(entry: FileEntry) -> dict[str, Any]:
    return {
        "name": _shown(entry.name),
        "bytes": entry.size,
        "directory": entry.is_directory,
        "modified": entry.modified and entry.modified.isoformat(),
    }


def _shown(text: str) -> str:
    """Return a name for output: bytes that are no UTF-8 are replaced."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


@click.command("cat", short_help="Write a file's content to stdout.")
@place_argument
@click.argument("path")
@global_options
def cat_command(device: str, lun: int | None, path: str) -> None:
    """Write the content of a file of a device to stdout.

    With --json, the JSON contains it as hex digits.

    \b
    Examples:
      scsiusb cat 2-1 /config.txt
      scsiusb cat 2-1:2 /var/log/syslog | tail
    """
    with files_of(device, lun) as (disk, files, _):
        entry = files.entry(path)
        _check_size(files, entry, path)
        if settings().json and entry.size > MOST_AS_TEXT:
            raise click.UsageError(f"{size_text(entry.size)} is too much for JSON: use `scsiusb get`")
        with files.open(path) as file:
            if settings().json:
                data = file.read()
                show_json({"path": _shown(path), "bytes": len(data), "data": data, "device": device_record(disk)})
                return
            while data := file.read(PIECE):
                show_bytes(data)


def _check_size(files: FileSystem, entry: FileEntry, path: str) -> None:
    """Raise FileSystemError for a file that says to be larger than all that it can be on."""
    if entry.size > files.size:
        what = f"{path} claims {entry.size} bytes, more than the partition has: it is sparse, or a lie"
        raise FileSystemError(what, "read it in Python: `volume.filesystem(…).open(…)`")


@click.command("get", short_help="Copy a file or a directory from a device.")
@place_argument
@click.argument("path")
@click.option("-o", "--output", metavar="FILE", type=click.Path(), help="Where to (default: its name, in this folder).")
@click.option("--force", is_flag=True, help="Replace files that exist.")
@global_options
def get_command(device: str, lun: int | None, path: str, output: str | None, force: bool) -> None:
    """Copy a file, or a directory with all that is in it, from a device.

    Nothing that exists is replaced without --force, and nothing is written outside
    the folder, whatever the names on the device are.

    \b
    Examples:
      scsiusb get 2-1 /photos/1.jpg
      scsiusb get 2-1:1 /photos -o ~/photos
    """
    from scsiusb.volume.names import local_name

    refuse_stdout(output, "a copy with its folders", "cat DEVICE PATH")
    refuse_own_file(divided(device)[0], output)
    with files_of(device, lun) as (disk, files, _):
        found = files.entry(path)
        target = Path(output if output is not None else local_name(_shown(found.name)))
        if found.is_directory:
            count, size = _get_directory(files, path, target, force)
        else:
            count, size = 1, _get(files, found, path, target, force)
        device_of = device_record(disk)
    if settings().json:
        show_json({"path": path, "output": str(target), "files": count, "bytes": size, "device": device_of})
    else:
        say(f"copied {counted(count, 'file')}, {size_text(size)}, to {target}")


def _get_directory(files: FileSystem, path: str, target: Path, force: bool) -> tuple[int, int]:
    from scsiusb.volume.names import components, local_name

    top, count, size = components(path), 0, 0
    target.mkdir(exist_ok=True)
    for at, each in files.walk(path):
        place = target.joinpath(*map(local_name, map(_shown, components(at)[len(top) :])))
        if each.is_directory:
            place.mkdir(exist_ok=True)
        else:
            size += _get(files, each, at, place, force)
            count += 1
    return count, size


def _get(files: FileSystem, entry: FileEntry, path: str, target: Path, force: bool) -> int:
    """Copy one file. What exists is replaced only when all of the new one is here. Return the number of bytes.

    A pipe or a device, as /dev/null, is written to: it must not be replaced by a file.
    """
    _check_size(files, entry, path)
    if target.is_dir():
        target /= _shown(entry.name).replace("/", "_")
    if not force and (target.exists() or target.is_symlink()):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    if target.exists() and not target.is_file():
        with naming(str(target)), files.open(path) as file, target.open("wb", buffering=0) as special:
            return _copy(file, special, "copying", entry.size)
    part = target.with_name(target.name + ".part")
    with naming(str(target)), named(target, part):
        try:
            with files.open(path) as file, part.open("xb", buffering=0) as out:
                size = _copy(file, out, "copying", entry.size)
            part.replace(target)
        except BaseException as error:
            if not isinstance(error, FileExistsError):
                part.unlink(missing_ok=True)
            raise
    return size


def _copy(source: IO[bytes], target: IO[bytes], doing: str, total: int | None) -> int:
    size = 0
    with progress(doing, total) as advance:
        while data := source.read(PIECE):
            write_all(target.fileno(), data)
            size += len(data)
            advance(len(data))
    return size


class _Counted:
    """A file to read that counts, shows its progress, and makes a digest."""

    def __init__(self, file: BinaryIO, file_name: str, advance: Callable[[int], object]) -> None:
        self._file, self._name, self._advance = file, file_name, advance
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """Return bytes, fewer only at the end."""
        with naming(self._name):
            data = self._file.read(size)
        self.digest.update(data)
        self._advance(len(data))
        return data


@click.command("put", short_help="Copy a file to a device.")
@place_argument
@click.argument("path")
@click.option("-i", "--input", "source", metavar="FILE", type=click.Path(), help="From where (default: its name here).")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@YES
@global_options
def put_command(device: str, lun: int | None, path: str, source: str | None, force: bool, yes: bool) -> None:
    """Copy a file to a FAT file system on a device, and read it back.

    PATH is the file on the device; -i - is stdin. It has another name until it is
    complete. Names have the letters of code page 437.

    \b
    Examples:
      scsiusb put 2-1 /firmware.bin
      scsiusb put 2-1:1 /etc/config.txt -i config.new --force --yes
    """
    from scsiusb.volume.names import components

    parts = components(path)
    source = source if source is not None else (parts[-1] if parts else "")
    refuse_own_file(divided(device)[0], source)
    if not yes:
        require_terminal("the copy")
    with _source(source) as file, files_of(device, lun, "r+b") as (disk, files, where):
        total = os.fstat(file.fileno()).st_size if source != STANDARD else None
        if not yes:
            amount = "" if total is None else f" ({size_text(total)})"
            confirm(f"Write {path}{amount} to {where} of {name(disk)}?")
        with progress("writing", total) as advance:
            counting = _Counted(file, STDIN if source == STANDARD else source, advance)
            size = files.write(path, cast(BinaryIO, counting), replace=force)
        _read_back(files, path, size, counting.digest.digest())
        device_of = device_record(disk)
    if settings().json:
        digest = counting.digest.hexdigest()
        show_json({"done": True, "path": path, "bytes": size, "sha256": digest, "device": device_of})
    else:
        say(f"wrote {path}, {counted(size, 'byte')}, and read it back")


@contextmanager
def _source(path: str) -> Iterator[BinaryIO]:
    if path == STANDARD:
        with click.open_file(path, "rb") as stdin:
            yield cast(BinaryIO, stdin)
        return
    with open(path, "rb") as file:
        yield file


def _read_back(files: FileSystem, path: str, size: int, digest: bytes) -> None:
    """Raise Miscompare if the file on the device is not what was written."""
    read = hashlib.sha256()
    count = 0
    with files.open(path) as file, progress("reading back", size) as advance:
        while data := file.read(PIECE):
            read.update(data)
            count += len(data)
            advance(len(data))
    if count != size or read.digest() != digest:
        what = f"{path} differs from what was written"
        raise Miscompare(what, MISCOMPARE, "do not trust this device; `scsiusb probe` finds fakes")


@click.command("mkdir", short_help="Make a directory on a device.")
@place_argument
@click.argument("path")
@YES
@global_options
def mkdir_command(device: str, lun: int | None, path: str, yes: bool) -> None:
    """Make a directory on a FAT file system of a device.

    \b
    Examples:
      scsiusb mkdir 2-1 /photos
      scsiusb mkdir 2-1:1 /photos/2026 --yes
    """
    _change(device, lun, yes, f"Make the directory {path}", lambda files: files.make_directory(path), path)


@click.command("rm", short_help="Remove a file from a device.")
@place_argument
@click.argument("path")
@YES
@global_options
def rm_command(device: str, lun: int | None, path: str, yes: bool) -> None:
    """Remove a file, or an empty directory, from a FAT file system of a device.

    \b
    Examples:
      scsiusb rm 2-1 /old.txt
      scsiusb rm 2-1:1 /photos --yes
    """
    _change(device, lun, yes, f"Remove {path}", lambda files: files.remove(path), path)


def _change(
    device: str, lun: int | None, yes: bool, question: str, change: Callable[[FileSystem], None], path: str
) -> None:
    """Ask, make one change, and print that it is done."""
    if not yes:
        require_terminal("the change")
    with files_of(device, lun, "r+b") as (disk, files, where):
        if not yes:
            confirm(f"{question} on {where} of {name(disk)}?")
        change(files)
        device_of = device_record(disk)
    if settings().json:
        show_json({"done": True, "path": path, "device": device_of})


@click.command("mkfs", short_help="Make an empty FAT file system.")
@place_argument
@click.option("--label", default="", metavar="TEXT", help="Name of the file system, at most 11 letters.")
@YES
@global_options
def mkfs_command(device: str, lun: int | None, label: str, yes: bool) -> None:
    """Make an empty FAT file system on a partition; all files there are lost.

    FAT12 or FAT16, and FAT32 from 512 MiB on. A disk without partitions is used as a
    whole; on one that has some, name one: DEVICE:1, or DEVICE:0 for the whole disk.

    \b
    Examples:
      scsiusb mkfs 2-1:1 --label BACKUP
      scsiusb mkfs 2-1:0 --yes
    """
    from scsiusb.volume import make_filesystem

    word, number = divided(device)
    if not yes:
        require_terminal("the new file system")
    with opened(word, lun) as disk:
        place, said = place_on(disk, number, is_new=True)
        if not yes:
            confirm(f"Make a FAT file system on {said} of {name(disk)}, {contents_of(disk)}?")
        kind = make_filesystem(place, label=label)
        device_of = device_record(disk)
    if settings().json:
        show_json({"done": True, "kind": kind, "device": device_of})
    else:
        say(f"made {kind} on {said}")
