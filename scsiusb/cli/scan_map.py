"""The picture of a scan on the terminal: a character for each part of the disk, in colours where they are possible."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Final

from scsiusb.cli.output import STDOUT, naming, show

if TYPE_CHECKING:
    from scsiusb.imaging.heat_map import Cell, Level
    from scsiusb.imaging.scanning import Scan

COLUMNS: Final = 64
ROWS: Final = 16
LABEL: Final = 11  # characters before a row
WIDTH: Final = 80
EACH: Final = 8  # columns are a multiple of it


def show_map(scan: Scan) -> None:
    """Print the picture, in at most 80 columns, and its legend."""
    from scsiusb.imaging.heat_map import LEVELS, cells, rows
    from scsiusb.imaging.scan_report import size_at

    columns = _columns()
    lines = [(size_at(scan, row[0].lba), row) for row in rows(cells(scan, columns * ROWS), columns)]
    legend = [LEVELS[:3], LEVELS[3:]]
    if sys.stdout.isatty():
        _show_coloured(lines, legend)
        return
    for label, row in lines:
        show(f"{label:>{LABEL - 1}} {''.join(cell.level.mark for cell in row)}")
    for levels in legend:
        show(" " * LABEL + "   ".join(f"{level.mark} {level.text}" for level in levels))


def _columns() -> int:
    """Return how many cells a row has: 64, or fewer on a narrow terminal."""
    room = get_terminal_size().columns if sys.stdout.isatty() else WIDTH
    return max(min(COLUMNS, (room - LABEL - 1) // EACH * EACH), EACH)


def _show_coloured(lines: list[tuple[str, Sequence[Cell]]], legend: list[tuple[Level, ...]]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(width=WIDTH, highlight=False)
    with naming(STDOUT):
        for label, row in lines:
            text = Text(f"{label:>{LABEL - 1}} ")
            for cell in row:
                text.append(cell.level.mark, _style(cell.level))
            console.print(text)
        for levels in legend:
            text = Text(" " * LABEL)
            for level in levels:
                text.append(level.mark, _style(level)).append(f" {level.text}   ")
            console.print(text)


def _style(level: Level) -> str:
    """Return both colours, so that the character can be read on any theme."""
    return f"bold {level.ink} on {level.colour}"
