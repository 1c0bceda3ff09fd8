"""What this process holds at a moment, and whether it grows."""

from __future__ import annotations

import ctypes
import gc
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from scsiusb import ledger

M_ARENA_MAX = -8  # malloc.h
MOST_GROWTH = 1024  # KiB of memory between the first and the last quarter of the samples
SELF = Path("/proc/self")
SETTLING = 0.02  # seconds: a thread that was joined has ended for Python a moment before it has for the kernel


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


def footprint() -> Footprint:
    """Collect garbage, return free memory to the system, and count."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    time.sleep(SETTLING)
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
    quarter = max(1, len(footprints) // 4)
    first, last = (median(each.memory for each in part) for part in (footprints[:quarter], footprints[-quarter:]))
    return round(last - first)


def growth(footprints: Sequence[Footprint], most: int = MOST_GROWTH) -> list[str]:
    """Return a fault if memory grew by more than `most` KiB."""
    grown = trend(footprints)
    return [f"memory grew by {grown} KiB"] if grown > most else []
