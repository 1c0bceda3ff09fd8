"""A scan as a picture (SVG) and as a page (HTML) that need no other file and no network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, Final

from scsiusb.imaging.heat_map import BAD, LEVELS, SLOW, Cell, cells, rows
from scsiusb.imaging.readback import BlockRange
from scsiusb.imaging.scanning import Scan

COLUMNS: Final = 64
MOST_CELLS: Final = 64 * 32
PITCH: Final = 14  # units of the picture, from cell to cell
LEFT: Final = 96  # units, for the labels of the rows
TOP: Final = 44
LINE: Final = 18
MOST_RANGES: Final = 1000  # in the tables of the page

INKS: Final = "\n".join(
    f".l{number} rect {{ fill: {level.colour} }} .l{number} text {{ fill: {level.ink} }}"
    for number, level in enumerate(LEVELS)
)
STYLE: Final = f"""
.scan {{ font: 11px system-ui, sans-serif; --ink: #1a1a1a; --paper: #ffffff; color-scheme: light dark }}
@media (prefers-color-scheme: dark) {{ .scan {{ --ink: #e8e8e8; --paper: #16181c }} }}
.scan .paper {{ fill: var(--paper) }} .scan text {{ fill: var(--ink) }} .scan .title {{ font-size: 15px }}
.scan .mark {{ font: bold 10px monospace; text-anchor: middle }} .scan .label {{ text-anchor: end }}
.scan .l{len(LEVELS) - 1} rect {{ stroke: var(--ink); stroke-width: 1.5 }}
{INKS}
"""
PAGE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem;
       color: #1a1a1a; background: #ffffff }
table { border-collapse: collapse; margin: 1rem 0 } th, td { text-align: right; padding: .15rem .8rem .15rem 0 }
th { font-weight: 600 } .figures th, .figures td { text-align: left } svg { width: 100%; height: auto }
@media (prefers-color-scheme: dark) { body { color: #e8e8e8; background: #16181c } }
"""


def record(scan: Scan) -> dict[str, Any]:
    """Return the scan as names and values for JSON, without its regions."""
    return {
        "bytes": scan.size,
        "lba": scan.lba,
        "blocks": scan.blocks,
        "block_size": scan.block_size,
        "destructive": scan.is_destructive,
        "bad": [each._asdict() for each in scan.bad],
        "slow": [each._asdict() for each in scan.slow],
        "latency": {name: round(seconds, 6) for name, seconds in scan.latency._asdict().items()},
        "slow_above": round(scan.limit, 6),
        "seconds": round(scan.seconds, 6),
        "resumed": scan.resumed,
    }


def full_record(scan: Scan, title: str) -> dict[str, Any]:
    """Return the scan for JSON, with all regions."""
    regions = [
        {**each._asdict(), "mean": round(each.mean, 6), "slowest": round(each.slowest, 6)} for each in scan.regions
    ]
    return {"title": title, **record(scan), "regions": regions}


def summary(scan: Scan) -> str:
    """Return how many blocks are bad and slow, in a line."""
    bad, slow = (sum(each.blocks for each in ranges) for ranges in (scan.bad, scan.slow))
    p50, p99, slowest = (seconds_text(seconds) for seconds in scan.latency)
    return f"{bad} bad and {slow} slow of {scan.blocks} blocks; latency p50 {p50}, p99 {p99}, max {slowest}"


def seconds_text(seconds: float) -> str:
    """Return "12.3 ms"."""
    for factor, unit in ((1, "s"), (1e3, "ms")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def size_at(scan: Scan, lba: int) -> str:
    """Return where a block is on the disk, as text: "1.5 GiB"."""
    size, units = float(lba * scan.block_size), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        del units[0]
    return f"{size:.4g} {units[0]}"


def svg(scan: Scan, title: str) -> str:
    """Return the picture: a cell for each part of the range, whose tooltip has its blocks, and a legend."""
    lines = rows(cells(scan, MOST_CELLS), COLUMNS)
    width = LEFT + COLUMNS * PITCH + 12
    legend = TOP + len(lines) * PITCH + 12
    height = legend + LINE
    parts = [
        f'<svg class="scan" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        f"<title>{escape(title)}: {escape(summary(scan))}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{width}" height="{height}"/>',
        f'<text class="title" x="12" y="18">{escape(title)}</text>',
        f'<text x="12" y="34">{escape(summary(scan))}</text>',
    ]
    for number, line in enumerate(lines):
        y = TOP + number * PITCH
        parts.append(f'<text class="label" x="{LEFT - 8}" y="{y + 10}">{size_at(scan, line[0].lba)}</text>')
        parts += [_cell(cell, LEFT + column * PITCH, y) for column, cell in enumerate(line)]
    return "\n".join([*parts, *_legend(legend), "</svg>", ""])


def _cell(cell: Cell, x: int, y: int) -> str:
    last = cell.lba + cell.blocks - 1
    said = f"LBA {cell.lba} to {last}: slowest {seconds_text(cell.slowest)}, {cell.bad} bad"
    return f"{_square(cell, x, y)}<title>{said}</title></g>"


def _square(cell: Cell, x: int, y: int) -> str:
    level = LEVELS.index(cell.level)
    mark = f'<text class="mark" x="{x + 6}" y="{y + 10}">{cell.level.mark}</text>' if level else ""
    return f'<g class="l{level}"><rect x="{x}" y="{y}" width="12" height="12" rx="2"/>{mark}'


def _legend(y: int) -> list[str]:
    parts, x = [], LEFT
    for level in LEVELS:
        parts.append(f"{_square(Cell(0, 0, level, 0.0, 0), x, y)}</g>")
        parts.append(f'<text x="{x + 18}" y="{y + 10}">{escape(level.text)}</text>')
        x += 40 + 6 * len(level.text)
    return parts


def page(scan: Scan, title: str) -> str:
    """Return the page: figures, picture, and the ranges of bad and slow blocks."""
    p50, p99, slowest = (seconds_text(seconds) for seconds in scan.latency)
    how = "patterns written and read back" if scan.is_destructive else "read"
    figures = {
        "range": f"LBA {scan.lba} to {scan.lba + scan.blocks - 1}, {scan.blocks} blocks of {scan.block_size} bytes",
        "how": how,
        "latency": f"p50 {p50}, p99 {p99}, max {slowest}",
        "slow above": seconds_text(scan.limit),
        "time of this run": f"{scan.seconds:.1f} s",
    }
    lines = "".join(f"<tr><th>{name}</th><td>{escape(value)}</td></tr>" for name, value in figures.items())
    return "\n".join(
        [
            "<!DOCTYPE html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title><style>{PAGE}</style></head>',
            f"<body><h1>{escape(title)}</h1>",
            svg(scan, title),
            f'<table class="figures">{lines}</table>',
            _table(f"{BAD.mark} Bad blocks", scan.bad),
            _table(f"{SLOW.mark} Slow blocks", scan.slow),
            "</body></html>",
            "",
        ]
    )


def _table(heading: str, ranges: Sequence[BlockRange]) -> str:
    if not ranges:
        return f"<h2>{heading}</h2><p>none</p>"
    lines = "".join(
        f"<tr><td>{each.lba}</td><td>{each.lba + each.blocks - 1}</td><td>{each.blocks}</td></tr>"
        for each in ranges[:MOST_RANGES]
    )
    more = f"<p>and {len(ranges) - MOST_RANGES} more ranges</p>" if len(ranges) > MOST_RANGES else ""
    return f"<h2>{heading}</h2><table><tr><th>from LBA</th><th>to</th><th>blocks</th></tr>{lines}</table>{more}"
