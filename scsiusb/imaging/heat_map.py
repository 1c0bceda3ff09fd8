"""The geometry of a scan's picture: which cell has which blocks, and how bad each is; for a terminal and for files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from scsiusb.imaging.scanning import Scan

MUCH: Final = 3  # times the median; above that a cell has another level
MORE: Final = 10


class Level(NamedTuple):
    """How bad a cell is: a character and colours, each of which is enough to know it by."""

    mark: str
    text: str
    """For the legend."""
    colour: str
    """Of the cell; readable on light and on dark."""
    ink: str
    """Of the character in it."""


USUAL: Final = Level(".", f"up to {MUCH} x the median", "#2a9d8f", "#000000")
LONG: Final = Level(":", f"up to {MORE} x", "#e9c46a", "#000000")
LONGER: Final = Level("+", f"above {MORE} x", "#f4a261", "#000000")
SLOW: Final = Level("S", f"slow: above {MORE} x and 0.1 s", "#b8452c", "#ffffff")
BAD: Final = Level("X", "bad blocks", "#5a0c1a", "#ffffff")
LEVELS: Final = (USUAL, LONG, LONGER, SLOW, BAD)  # the worst last


class Cell(NamedTuple):
    """Some regions next to each other, as bad as the worst of them."""

    lba: int
    blocks: int
    level: Level
    slowest: float
    """Seconds of the slowest command; 0.0 if none succeeded."""
    bad: int
    """Blocks that are bad."""


def cells(scan: Scan, most: int) -> list[Cell]:
    """Return at most `most` cells, of equal numbers of regions, but for the last."""
    regions = scan.regions
    each = max(-(-len(regions) // most), 1)
    found = []
    for at in range(0, len(regions), each):
        part = regions[at : at + each]
        blocks, bad = sum(region.blocks for region in part), sum(region.bad for region in part)
        slowest = max(region.slowest for region in part)
        found.append(Cell(part[0].lba, blocks, _level(scan, slowest, bad), slowest, bad))
    return found


def rows(found: Sequence[Cell], columns: int) -> list[Sequence[Cell]]:
    """Return the cells in rows."""
    return [found[at : at + columns] for at in range(0, len(found), columns)]


def _level(scan: Scan, slowest: float, bad: int) -> Level:
    if bad:
        return BAD
    if slowest > scan.limit:
        return SLOW
    if slowest > MORE * scan.latency.p50:
        return LONGER
    return LONG if slowest > MUCH * scan.latency.p50 else USUAL
