"""What this process holds at a moment, and whether it grows."""

from __future__ import annotations

import ctypes
import gc
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

from scsiusb import ledger

M_ARENA_MAX = -8  # malloc.h
MOST_GROWTH = 1024  # KiB of memory between the first and the last quarter of the samples
SELF = Path("/proc/self")
SETTLING = 10.0  # seconds
PAUSE = 0.02  # seconds


@dataclass(frozen=True)
class Footprint:
    """Counts of what the process holds, taken when it is idle."""

    descriptors: int
    threads: int
    children: int
    ledger: int
    device_memory: int
    """Number of mappings of usbfs."""
    memory: int
    """Resident memory in KiB."""

    def as_json(self) -> dict[str, int]:
        """Return the counts by name."""
        return asdict(self)


def one_heap() -> None:
    """Make malloc use one arena: with one per thread, memory would depend on which thread came first."""
    ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def footprint(base: Footprint | None = None) -> Footprint:
    """Collect garbage, return free memory to the system, and count.

    A thread that was joined has ended for Python a moment before it has for the kernel: count again, for a while,
    until the counts are those of `base`, or without a base until they no longer change.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    deadline = time.monotonic() + SETTLING
    seen = _count()
    while time.monotonic() < deadline and not (base and not changes(base, seen)):
        time.sleep(PAUSE)
        before, seen = seen, _count()
        if base is None and not changes(before, seen):
            break
    return seen


def _count() -> Footprint:
    names = [_link(path) for path in (SELF / "fd").iterdir()]
    maps = (SELF / "maps").read_text()
    return Footprint(
        descriptors=sum(name is not None for name in names),
        threads=len(list((SELF / "task").iterdir())),
        children=len((SELF / "task" / str(os.getpid()) / "children").read_text().split()),
        ledger=len(ledger.outstanding()),
        device_memory=maps.count("/dev/bus/usb/"),
        memory=_resident(),
    )


def _link(path: Path) -> str | None:
    """Return the target of the link; None for the descriptor by which the folder was read."""
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return None


def _resident() -> int:
    """Return the resident memory in KiB. Not from statm, which may be off by some hundred KiB."""
    for line in (SELF / "smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1])
    raise ValueError("smaps_rollup without Rss")


def changes(base: Footprint, later: Footprint) -> list[str]:
    """Return the counts that differ, as text; memory is not compared."""
    counted = [(name, value, getattr(later, name)) for name, value in base.as_json().items() if name != "memory"]
    return [f"{name}: {after} instead of {before}" for name, before, after in counted if before != after]


def trend(footprints: Sequence[Footprint]) -> int:
    """Return the KiB by which the median memory of the last quarter exceeds that of the first.

    Single samples are not compared: the heap grows once by a megabyte or two, at an unpredictable time.
    """
    quarters = _quarters(footprints)
    return round(quarters[-1] - quarters[0])


def growth(footprints: Sequence[Footprint], most: int = MOST_GROWTH) -> list[str]:
    """Return a fault if memory grew by more than `most` KiB, and from each quarter to the next.

    A leak goes on. What is loaded or cached at the first use, and the heap's own growth, end; in a short run
    they can be most of it.
    """
    if len(footprints) < 4:
        return []
    steps = [after - before for before, after in pairwise(_quarters(footprints))]
    steady = len(steps) * min(steps) > most
    return [f"memory grew by {trend(footprints)} KiB"] if steady else []


def _quarters(footprints: Sequence[Footprint]) -> list[float]:
    """Return the median memory of each quarter of the samples; of fewer than four, of each."""
    parts = min(4, len(footprints))
    ends = [len(footprints) * part // parts for part in range(parts + 1)]
    return [median(each.memory for each in footprints[begin:end]) for begin, end in pairwise(ends)]
