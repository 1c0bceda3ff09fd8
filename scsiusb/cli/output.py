"""Results on stdout: JSON for scripts, tables on a terminal, plain text in a pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def jsonable(value: Any) -> Any:
    """For json.dumps: bytes become hex digits, tuples lists."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    if isinstance(value, Mapping):
        return {key: jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    return value


def show_json(value: Any) -> None:
    click.echo(json.dumps(jsonable(value), indent=2))


def show_record(record: Mapping[str, Any]) -> None:
    """One thing with its attributes, a line each."""
    width = max(len(key) for key in record)
    for key, value in record.items():
        click.echo(f"{key.replace('_', ' '):<{width}}  {_words(value)}")


def show_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Many things, a line each; with rules on a terminal, aligned columns in a pipe."""
    cells = [[_words(value) for value in row] for row in rows]
    if sys.stdout.isatty():
        _show_rich(columns, cells)
    else:
        _show_plain(columns, cells)


def _show_rich(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=box.SIMPLE_HEAD)
    for row in cells:
        table.add_row(*map(Text, row))
    Console().print(table)


def _show_plain(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for row in (columns, *cells):
        click.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _words(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (bytes, bytearray)):
        return value.hex(" ")
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_words, value))
    return str(value)


def size_text(count: int) -> str:
    """65536 → "64 KiB"."""
    size, power = float(count), 0
    while size >= 1024 and power < len(UNITS) - 1:
        size, power = size / 1024, power + 1
    return f"{count} bytes" if power == 0 else f"{size:.4g} {UNITS[power]}"


def hex_dump(data: bytes, start: int = 0) -> str:
    """Sixteen bytes a line: where, hex, and what is printable."""
    lines = []
    for at in range(0, len(data), 16):
        piece = data[at : at + 16]
        letters = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in piece)
        lines.append(f"{start + at:08x}  {piece[:8].hex(' '):<23}  {piece[8:].hex(' '):<23}  |{letters}|")
    return "\n".join(lines)
