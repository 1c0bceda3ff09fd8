"""Output: results on stdout (JSON, tables on a terminal, plain text in a pipe), messages on stderr."""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import click

from scsiusb.errors import ScsiUsbError

if TYPE_CHECKING:
    from scsiusb.scsi.sense import Sense
    from scsiusb.usb.interface import InterfaceInfo

UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
BETWEEN_COLUMNS: Final = 3  # characters between two columns of a table
SHORTEST: Final = 7  # characters of a shortened cell: "ACME F…"
LEAST_WRAPPED: Final = 24  # characters in a line of a wrapped cell
MOST_AS_TEXT: Final = 16 * 1024 * 1024  # bytes of data as hex digits
STDOUT: Final = "stdout"
OUTPUT: Final = "the output"
STDERR: Final = "stderr"
ON_WINDOWS: Final = sys.platform == "win32"


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Add a file name to an OSError that has none; a BrokenPipeError is not changed.

    Raises BrokenPipeError if the reader of a standard stream has gone, also where the system reports another error.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if isinstance(error, ScsiUsbError) or error.errno is None or error.filename is not None:
            raise
        if _is_closed_pipe(error, name):
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from error
        raise OSError(error.errno, error.strerror, name) from error


def _is_closed_pipe(error: OSError, name: str) -> bool:
    """Return whether the stream is a pipe whose reader has gone: Windows then reports EINVAL instead of EPIPE."""
    if not ON_WINDOWS or error.errno != errno.EINVAL or name not in (STDOUT, OUTPUT, STDERR):
        return False
    stream = sys.stderr if name == STDERR else sys.stdout
    try:
        return stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):  # it has no descriptor, or is closed
        return False


def show(text: str) -> None:
    """Print a result to stdout."""
    with naming(STDOUT):
        click.echo(text)


def show_bytes(data: bytes) -> None:
    """Write a result to stdout as raw bytes."""
    with naming(STDOUT):
        sys.stdout.flush()
        write_all(sys.stdout.fileno(), data)


def say(text: str) -> None:
    """Print a message to stderr. A failure to do so does not change the exit status."""
    with suppress(OSError):
        click.echo(text, err=True)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of `data`, unbuffered, so that a full disk is an error here and not when Python exits."""
    with memoryview(data) as view:
        done = 0
        while done < len(view):
            with view[done:] as rest:
                done += os.write(descriptor, rest)


def jsonable(value: Any) -> Any:
    """Return a value for json.dumps: bytes become hex digits, tuples become lists."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    if isinstance(value, Mapping):
        return {key: jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    return value


def show_json(value: Any) -> None:
    """Print a result as JSON."""
    show(json.dumps(jsonable(value), indent=2))


def show_record(record: Mapping[str, Any]) -> None:
    """Print names and values, one in each line."""
    width = max(map(len, record), default=0)
    show("\n".join(f"{key:<{width}}  {_words(value)}".rstrip() for key, value in record.items()))


def show_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    elastic: Sequence[str] = (),
    wrapped: Sequence[str] = (),
    optional: Sequence[str] = (),
) -> None:
    """Print a table.

    If the terminal is too narrow: leave out the `optional` columns; then shorten the `elastic` columns (to SHORTEST
    characters or more) and wrap the `wrapped` columns (at LEAST_WRAPPED or more); if that is not enough, print each row
    as a record.
    """
    cells = [[_words(value) for value in row] for row in rows]
    if optional and sys.stdout.isatty() and _total(_widths(columns, cells)) > _terminal_size().columns:
        kept = [at for at, name in enumerate(columns) if name not in optional]
        columns, cells = [columns[at] for at in kept], [[row[at] for at in kept] for row in cells]
    if not sys.stdout.isatty():
        _show_plain(columns, cells)
        return
    least = dict.fromkeys(elastic, SHORTEST) | dict.fromkeys(wrapped, LEAST_WRAPPED)
    widths = _shortened(columns, cells, least, _terminal_size().columns)
    if _total(widths) > _terminal_size().columns:
        _show_records(columns, cells)
    else:
        _show_rich(columns, cells, widths, wrapped)


def _terminal_size() -> os.terminal_size:
    from shutil import get_terminal_size

    return get_terminal_size()


def _show_rich(
    columns: Sequence[str], cells: Sequence[Sequence[str]], widths: Sequence[int], wrapped: Sequence[str]
) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    size = _terminal_size()  # rich assumes 80 columns if TERM is dumb
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name, width in zip(columns, widths, strict=True):
        table.add_column(
            name, no_wrap=name not in wrapped, overflow="fold" if name in wrapped else "ellipsis", width=width
        )
    for row in cells:
        table.add_row(*map(Text, row))
    with naming(STDOUT):
        Console(width=size.columns, height=size.lines).print(table)


def _show_records(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    for at, row in enumerate(cells):
        if at:
            show("")
        show_record(dict(zip(columns, row, strict=True)))


def _show_plain(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    widths = _widths(columns, cells)
    for row in (columns, *cells):
        show("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _widths(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(columns, *cells, strict=True)]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + BETWEEN_COLUMNS * len(widths)


def _shortened(
    columns: Sequence[str], cells: Sequence[Sequence[str]], least: Mapping[str, int], room: int
) -> list[int]:
    """Return the widths of the columns; the widest of those in `least` is shortened until all fit into `room`."""
    widths = _widths(columns, cells)
    while _total(widths) > room:
        spare = [(widths[at], at) for at, name in enumerate(columns) if widths[at] > least.get(name, widths[at])]
        if not spare:
            break
        widths[max(spare)[1]] -= 1
    return widths


def _words(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (bytes, bytearray)):
        return value.hex(" ")
    return str(value)


def size_text(count: int) -> str:
    """Return a size in bytes as text: 65536 becomes "64 KiB"."""
    size, power = float(count), 0
    while size >= 1024 and power < len(UNITS) - 1:
        size, power = size / 1024, power + 1
    return counted(count, "byte") if power == 0 else f"{size:.4g} {UNITS[power]}"


def counted(count: int, thing: str) -> str:
    """Return a number with its noun: "1 block", "2 blocks"."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def hex_dump(data: bytes, start: int = 0) -> str:
    """Return a hex dump with 16 bytes in a line: offset, hex, printable characters."""
    lines = []
    for at in range(0, len(data), 16):
        piece = data[at : at + 16]
        letters = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in piece)
        lines.append(f"{start + at:08x}  {piece[:8].hex(' '):<23}  {piece[8:].hex(' '):<23}  |{letters}|")
    return "\n".join(lines)


def identity_of(info: InterfaceInfo) -> dict[str, str | None]:
    """Return the fields that identify a device in JSON."""
    return {
        "address": info.address,
        "vid": f"{info.vid:04x}",
        "pid": f"{info.pid:04x}",
        "serial": info.serial,
        "manufacturer": info.manufacturer,
        "product": info.product,
    }


def sense_record(sense: Sense) -> dict[str, Any]:
    """Return sense data as names and values for JSON."""
    from scsiusb.scsi.sense_details import details

    return {
        "key": sense.key,
        "key_text": sense.key_text,
        "asc": sense.asc,
        "ascq": sense.ascq,
        "text": sense.text,
        "information": sense.information,
        "deferred": sense.deferred,
        "raw": sense.raw,
        "details": [{"name": each.name, **each.values} for each in details(sense)],
    }


def sense_words(sense: Sense) -> dict[str, Any]:
    """Return sense data as names and values to show; details of the same name are numbered."""
    from scsiusb.scsi.sense_details import details

    words: dict[str, Any] = {
        "key": f"{sense.key:X}h {sense.key_text}",
        "asc/ascq": f"{sense.asc:02X}h/{sense.ascq:02X}h {sense.text}",
        "information": None if sense.information is None else f"{sense.information} ({sense.information:X}h)",
        "deferred": sense.deferred,
    }
    names = Counter[str]()
    for each in details(sense):
        if each.name != "information":
            names[each.name] += 1
            words[each.name if names[each.name] == 1 else f"{each.name} {names[each.name]}"] = str(each)
    return words
