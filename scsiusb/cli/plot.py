"""Plot the results of bench: throughput and latency over the call size, as a PNG or SVG picture."""

from __future__ import annotations

import io
import logging
import os
import warnings
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from scsiusb.cli.failure import Refused
from scsiusb.cli.figures import Record, circumstances, device_name, measurements, place
from scsiusb.cli.output import size_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS: Final = (".png", ".svg")
INCHES: Final = (12.0, 6.0)
DOTS: Final = 120  # per inch
GREY: Final = "#595959"
TOP: Final = 0.88  # upper edge of the two plots; the title is above
CENTRED: Final[dict[str, Any]] = {"ha": "center", "va": "bottom", "parse_math": False}


class Style(NamedTuple):
    """Colour and marker of a series. The colours are those of Okabe and Ito; the markers differ too."""

    colour: str
    marker: str


STYLES: Final = {
    ("read", "sequential"): Style("#0072B2", "o"),
    ("read", "random"): Style("#56B4E9", "s"),
    ("write", "sequential"): Style("#D55E00", "^"),
    ("write", "random"): Style("#E69F00", "D"),
}


def check(path: str) -> None:
    """Check that a plot can be drawn. Raises UsageError for an unknown format, Refused without matplotlib."""
    if _format(path) not in FORMATS:
        raise click.UsageError(f"--plot {path} is neither FILE.png nor FILE.svg")
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it logs about its caches
    try:
        import matplotlib.figure  # noqa: F401 - fail now, not after the measurements
    except ImportError as error:
        raise Refused(f"--plot needs matplotlib: {error}", "run `pip install 'scsiusb[plot]'`") from error


def _format(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def drawn(found: Record, path: str) -> bytes:
    """Return the picture in the format given by the extension of the path."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about characters in a device name that the font does not have
        figure, picture = _figure(found), io.BytesIO()
        figure.savefig(picture, format=_format(path)[1:], dpi=DOTS)
    return picture.getvalue()


def _figure(found: Record) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.1, wspace=0.04, rect=(0, 0, 1, TOP))
    figure = Figure(figsize=INCHES, layout=layout)
    figure.text(0.5, TOP + 0.06, device_name(found), fontsize=15, **CENTRED)
    figure.text(0.5, TOP + 0.015, _subtitle(found), fontsize=9.5, color=GREY, **CENTRED)
    throughput, latency = figure.subplots(1, 2)
    for (direction, pattern), series in _series(found).items():
        _draw(throughput, latency, direction, pattern, series)
    _finish(throughput, "Throughput", "MB/s", _ticks(found))
    _finish(latency, "Latency", "latency of a call", _ticks(found))
    throughput.set_ylim(0, throughput.dataLim.y1 * 1.05)
    _in_time(latency)
    _legend(figure, throughput)
    return figure


def _legend(figure: Figure, throughput: Axes) -> None:
    """Add the legend below both plots, where it covers nothing."""
    from matplotlib.lines import Line2D

    shapes = [Line2D([], [], color=GREY, label="p50"), Line2D([], [], color=GREY, linestyle="--", label="p99")]
    handles = [*throughput.get_lines(), *shapes]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)


def _subtitle(found: Record) -> str:
    return f"{circumstances(found)}{place(found)} — scsiusb {found['host']['scsiusb']}, {found['date'][:10]}"


def _series(found: Record) -> dict[tuple[str, str], dict[int, dict[str, Any]]]:
    lines: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for direction, pattern, size, numbers in measurements(found):
        lines.setdefault((direction, pattern), {})[size] = numbers
    return lines


def _draw(throughput: Axes, latency: Axes, direction: str, pattern: str, series: dict[int, dict[str, Any]]) -> None:
    sizes, numbers = list(series), list(series.values())
    colour, marker = STYLES[direction, pattern]
    look: dict[str, Any] = {"color": colour, "marker": marker, "linewidth": 1.8, "markersize": 6}
    throughput.plot(sizes, [each["mb_per_s"] for each in numbers], label=f"{direction}, {pattern}", **look)
    latency.plot(sizes, [each["latency_us"]["p50"] for each in numbers], **look)
    look |= {"linestyle": "--", "linewidth": 1.2, "markersize": 5, "markerfacecolor": "white"}
    latency.plot(sizes, [each["latency_us"]["p99"] for each in numbers], **look)


def _ticks(found: Record) -> list[int]:
    return sorted({size for _, _, size, _ in measurements(found)})


def _finish(axes: Axes, title: str, unit: str, sizes: list[int]) -> None:
    axes.set_title(title, fontsize=12)
    axes.set_xlabel("call size")
    axes.set_ylabel(unit)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [size_text(size) for size in sizes], rotation=45 if len(sizes) > 8 else 0)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _in_time(axes: Axes) -> None:
    """Set a logarithmic axis with units of µs, ms and s."""
    from matplotlib.ticker import EngFormatter, LogLocator

    least, most = axes.dataLim.y0, axes.dataLim.y1
    axes.set_yscale("log")
    axes.set_ylim(least / 1.5, max(most * 1.5, least * 10))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, _: EngFormatter("s")(value / 1e6))
    axes.yaxis.set_minor_formatter(lambda value, _: "")
