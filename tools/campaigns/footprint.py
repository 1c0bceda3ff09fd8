"""What this process holds at a moment, and whether that stays flat."""

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
MOST_GROWTH = 1024  # KiB of memory, from the first quarter to the last
SELF = Path("/proc/self")
SETTLING = 0.02  # seconds: a thread that was joined has ended for Python a moment before it has for the kernel


@dataclass(frozen=True)
class Footprint:
    """Counted when nothing is going on."""

    descriptors: int
    threads: int
    children: int
    ledger: int
    device_memory: int
    """Mappings of usbfs."""
    memory: int
    """Resident, in KiB."""

    def as_json(self) -> dict[str, int]:
        return asdict(self)


def one_heap() -> None:
    """Has malloc use one arena: with one for each thread, memory depends on which thread came first."""
    ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def footprint() -> Footprint:
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
    """None for the descriptor by which the folder was read."""
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return None


def _resident() -> int:
    """Exactly: statm may be off by some hundred KiB."""
    for line in (SELF / "smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1])
    raise ValueError("smaps_rollup without Rss")


def changes(base: Footprint, later: Footprint) -> list[str]:
    """What is counted and is not as it was."""
    counted = [(name, value, getattr(later, name)) for name, value in base.as_json().items() if name != "memory"]
    return [f"{name}: {after} instead of {before}" for name, before, after in counted if before != after]


def trend(footprints: Sequence[Footprint]) -> int:
    """KiB by which the memory of the last quarter is above that of the first, by their medians.

    Not sample by sample: the heap grows once by a megabyte or two when it first needs another arena, whenever that is.
    """
    quarter = max(1, len(footprints) // 4)
    first, last = (median(each.memory for each in part) for part in (footprints[:quarter], footprints[-quarter:]))
    return round(last - first)


def growth(footprints: Sequence[Footprint], most: int = MOST_GROWTH) -> list[str]:
    """What grew without end."""
    grown = trend(footprints)
    return [f"memory grew by {grown} KiB"] if grown > most else []
