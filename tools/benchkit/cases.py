"""Tables of what is measured in the guest, by part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module

from benchkit import api, cli, names, plain, programs
from benchkit.names import key
from benchkit.turns import Contestant, Subject
from benchkit.work import MIB, SMALL, Way, latency, scattered, sequential, throughput
from tests.kernel.machine import is_native, zoo

Figures = dict[str, float]

SLOW = 4  # slow ways and devices do a quarter of the work
KERNEL, SCSIUSB, C, PYUSB = "kernel", "scsiusb", "c", "pyusb"  # which device a way uses; see labkit/zoo.py
Row = tuple[str, str, Way, int]
Contestants = tuple[Contestant, ...]

READS: tuple[Row, ...] = (
    (names.SCSIUSB, SCSIUSB, api.read, 1),
    (names.DD, KERNEL, programs.dd_read, 1),
    (names.C, C, programs.on_usb("read", "device"), 1),
    (names.ORDINARY, SCSIUSB, api.read_ordinary, 1),
    (names.STREAM, SCSIUSB, api.read_stream, 1),
    (names.PYUSB, PYUSB, plain.read, SLOW),
    (names.SG_DD, KERNEL, programs.sg_dd_read, SLOW),
)
WRITES: tuple[Row, ...] = (
    (names.SCSIUSB, SCSIUSB, api.write, 1),
    (names.DD, KERNEL, programs.dd_write, 1),
    (names.C, C, programs.on_usb("write", "device"), 1),
    (names.ORDINARY, SCSIUSB, api.write_ordinary, 1),
    (names.STREAM, SCSIUSB, api.write_stream, 1),
    (names.PYUSB, PYUSB, plain.write, SLOW),
)
ORDINARY_READS: tuple[Row, ...] = (
    (names.REFUSED, SCSIUSB, api.refused(api.read), 1),
    (names.C_ORDINARY, C, programs.on_usb("read", "ordinary"), 1),
    (names.REFUSED_ORDINARY, SCSIUSB, api.refused(api.read_ordinary), 1),
)
ORDINARY_WRITES: tuple[Row, ...] = (
    (names.REFUSED, SCSIUSB, api.refused(api.write), 1),
    (names.C_ORDINARY, C, programs.on_usb("write", "ordinary"), 1),
    (names.REFUSED_ORDINARY, SCSIUSB, api.refused(api.write_ordinary), 1),
)
RANDOM: tuple[Row, ...] = (
    (names.SCSIUSB, SCSIUSB, api.read, 1),
    (names.PREAD, KERNEL, programs.pread, 1),
    (names.C, C, programs.on_usb("read", "device"), 1),
    (names.ORDINARY, SCSIUSB, api.read_ordinary, 1),
    (names.PYUSB, PYUSB, plain.read, 1),
)
CLI_READS: tuple[Row, ...] = (
    (names.CLI, SCSIUSB, cli.read, 1),
    (names.DD, KERNEL, cli.dd_read, 1),
)
CLI_WRITES: tuple[Row, ...] = (
    (names.CLI, SCSIUSB, cli.write, 1),
    (names.DD, KERNEL, cli.dd_write, 1),
)
ROWS = {
    "sequential": (("read", READS), ("write", WRITES)),
    "ordinary": (("read", ORDINARY_READS), ("write", ORDINARY_WRITES)),
    "random": (("random 4 KiB read", RANDOM),),
    "cli": (("read to a file", CLI_READS), ("write from a file", CLI_WRITES)),
}
DEVICES = (("stick", 1), ("gadget", SLOW))  # with the divisor of their work
NATIVE_DEVICES = (("gadget", 1),)


@dataclass(frozen=True)
class Case:
    """One or several figures, measured once per round, or only in the first round."""

    key: str
    run: Callable[[], Figures]
    once: bool = False


@dataclass(frozen=True)
class Extent:
    """How much is done per round, in bytes or commands, and in how many turns."""

    sequential: int = 256 * MIB
    random: int = 2000
    turns: int = 8
    processes: int = 2  # turns of the command line; each turn is a process
    many: int = 256 * MIB
    many_least: int = 128 * MIB  # for each device at least
    huge: int = 10 << 30
    sick: int = 16 * MIB  # for each device


QUICK = Extent(
    sequential=64 * MIB, random=400, turns=4, many=128 * MIB, many_least=64 * MIB, huge=1 << 30, sick=8 * MIB
)


def subjects(part: str, extent: Extent) -> Iterator[Subject]:
    """Yield what a part measures in turns."""
    for title, rows in ROWS.get(part, ()):
        if part == "cli":
            yield _by_processes(_contestants(title, "stick", rows), extent)
            continue
        for device, less in NATIVE_DEVICES if is_native() else DEVICES:
            contestants = _contestants(f"{title}, {device}", device, rows)
            make = _scattered if part == "random" else _sequential
            yield make(contestants, extent, less)


def _contestants(subject: str, device: str, rows: tuple[Row, ...]) -> Contestants:
    return tuple(
        Contestant(key(subject, name), zoo()[f"{device}-{owner}"].units[0], way, share)
        for name, owner, way, share in rows
    )


def _sequential(contestants: Contestants, extent: Extent, less: int) -> Subject:
    slices = partial(sequential, contestants[0].unit, extent.sequential // less, extent.turns)
    return Subject(contestants, MIB, slices, throughput)


def _scattered(contestants: Contestants, extent: Extent, less: int) -> Subject:
    slices = partial(scattered, contestants[0].unit, extent.random // less, extent.turns)
    return Subject(contestants, SMALL, slices, latency)


def _by_processes(contestants: Contestants, extent: Extent) -> Subject:
    """Return a subject whose slices are single commands: what one process transfers."""
    size = extent.sequential // extent.processes
    slices = partial(sequential, contestants[0].unit, extent.sequential, extent.processes, size)
    return Subject(contestants, size, slices, cli.figures)


def cases(part: str, extent: Extent) -> Iterator[Case]:
    """Yield what a part measures as a whole, not in turns."""
    if part not in ROWS:
        yield from import_module(f"benchkit.{part}").cases(extent)
