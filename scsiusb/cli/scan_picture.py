"""A scan's picture as a PNG, by matplotlib, in the geometry of the other pictures."""

from __future__ import annotations

import io
import logging
import warnings
from typing import TYPE_CHECKING, Any, Final

from scsiusb.cli.failure import Refused

if TYPE_CHECKING:
    from scsiusb.imaging.scanning import Scan

INCHES: Final = (11.0, 6.5)
DOTS: Final = 120  # per inch
GREY: Final = "#595959"


def check() -> None:
    """Raise Refused without matplotlib: now, and not after the scan."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it logs about its caches
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        what = f"a report as PNG needs matplotlib: {error}"
        raise Refused(what, "run `pip install 'scsiusb[plot]'`, or write .html or .svg") from error


def png(scan: Scan, title: str) -> bytes:
    """Return the picture."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch, Rectangle

    from scsiusb.imaging.heat_map import LEVELS, cells, rows
    from scsiusb.imaging.scan_report import COLUMNS, MOST_CELLS, size_at, summary

    lines = rows(cells(scan, MOST_CELLS), COLUMNS)
    figure = Figure(figsize=INCHES)
    axes = figure.add_axes((0.1, 0.1, 0.88, 0.78))
    for y, line in enumerate(lines):
        for x, cell in enumerate(line):
            axes.add_patch(Rectangle((x + 0.05, y + 0.05), 0.9, 0.9, color=cell.level.colour))
            if cell.level is not LEVELS[0]:
                middle: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7}
                axes.text(x + 0.5, y + 0.5, cell.level.mark, color=cell.level.ink, **middle)
    axes.set_xlim(0, COLUMNS)
    axes.set_ylim(max(len(lines), 1), 0)
    step = max(len(lines) // 16, 1)
    axes.set_yticks(
        [y + 0.5 for y in range(0, len(lines), step)], [size_at(scan, line[0].lba) for line in lines[::step]]
    )
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    figure.text(0.1, 0.94, title, fontsize=14, parse_math=False)
    figure.text(0.1, 0.9, summary(scan), fontsize=9.5, color=GREY, parse_math=False)
    shown = [Patch(color=level.colour, label=f"{level.mark}  {level.text}") for level in LEVELS]
    figure.legend(handles=shown, loc="lower center", ncols=len(shown), frameon=False, fontsize=9)
    picture = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about characters in a device name that the font does not have
        figure.savefig(picture, format="png", dpi=DOTS)
    return picture.getvalue()
