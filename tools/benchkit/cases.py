"""The tables of what is measured in the guest, part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module

from benchkit import api, names, plain, programs
from benchkit.names import key
from benchkit.work import MIB, Timing, Work, latency, scattered, sequential, throughput
from tests.kernel.machine import zoo

Figures = dict[str, float]
Way = Callable[[Work], Timing]

SLOW = 4  # these do a quarter of the work
READS: tuple[tuple[str, Way, int], ...] = (
    (names.SCSIUSB, api.read, 1),
    (names.DD, programs.dd_read, 1),
    (names.C, programs.c_read, 1),
    (names.ORDINARY, api.read_ordinary, 1),
    (names.STREAM, api.read_stream, 1),
    (names.PYUSB, plain.read, SLOW),
    (names.SG_DD, programs.sg_dd_read, SLOW),
)
WRITES: tuple[tuple[str, Way, int], ...] = (
    (names.SCSIUSB, api.write, 1),
    (names.DD, programs.dd_write, 1),
    (names.C, programs.c_write, 1),
    (names.ORDINARY, api.write_ordinary, 1),
    (names.STREAM, api.write_stream, 1),
    (names.PYUSB, plain.write, SLOW),
)
ORDINARY_READS: tuple[tuple[str, Way, int], ...] = (
    (names.REFUSED, api.refused(api.read), 1),
    (names.C_ORDINARY, programs.c_read_ordinary, 1),
    (names.REFUSED_ORDINARY, api.refused(api.read_ordinary), 1),
)
ORDINARY_WRITES: tuple[tuple[str, Way, int], ...] = (
    (names.REFUSED, api.refused(api.write), 1),
    (names.C_ORDINARY, programs.c_write_ordinary, 1),
    (names.REFUSED_ORDINARY, api.refused(api.write_ordinary), 1),
)
RANDOM: tuple[tuple[str, Way], ...] = (
    (names.SCSIUSB, api.read),
    (names.PREAD, programs.pread),
    (names.C, programs.c_read),
    (names.ORDINARY, api.read_ordinary),
    (names.PYUSB, plain.read),
)
SEQUENTIAL = (
    ("read, stick", "stick", {"sequential": READS, "ordinary": ORDINARY_READS}, 1),
    ("read, gadget", "gadget", {"sequential": READS, "ordinary": ORDINARY_READS}, SLOW),
    ("write, stick", "scratch", {"sequential": WRITES, "ordinary": ORDINARY_WRITES}, 1),
    ("write, gadget", "gadget", {"sequential": WRITES, "ordinary": ORDINARY_WRITES}, SLOW),
)


@dataclass(frozen=True)
class Case:
    """One figure or several, measured once in each round, or only in the first."""

    key: str
    run: Callable[[], Figures]
    once: bool = False


@dataclass(frozen=True)
class Extent:
    """How much is done."""

    sequential: int = 128 * MIB
    random: int = 2000
    many: int = 512 * MIB
    many_least: int = 256 * MIB  # of each device: sixteen processes of dd do not start together
    huge: int = 10 << 30


QUICK = Extent(sequential=32 * MIB, random=300, many=128 * MIB, many_least=64 * MIB, huge=1 << 30)


def cases(part: str, extent: Extent) -> Iterator[Case]:
    if part in ("sequential", "ordinary"):
        yield from _sequential(part, extent)
    elif part == "random":
        yield from _random(extent)
    else:
        yield from import_module(f"benchkit.{part}").cases(extent)


def _sequential(part: str, extent: Extent) -> Iterator[Case]:
    for subject, device, ways, less in SEQUENTIAL:
        work = sequential(zoo()[device].units[0], extent.sequential // less)
        for name, way, share in ways[part]:
            yield Case(key(subject, name), _measured(way, work.part(share), throughput))


def _random(extent: Extent) -> Iterator[Case]:
    for device in ("stick", "gadget"):
        work = scattered(zoo()[device].units[0], extent.random)
        for name, way in RANDOM:
            yield Case(key(f"random 4 KiB read, {device}", name), _measured(way, work, latency))


def _measured(way: Way, work: Work, figures: Callable[[Timing], Figures]) -> Callable[[], Figures]:
    return lambda: figures(way(work))
