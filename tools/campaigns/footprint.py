"""What this process holds at a moment, and whether that stays flat."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from scsiusb import ledger

M_ARENA_MAX = -8  # malloc.h
MOST_GROWTH = 1024  # KiB of memory after the warm-up
SELF = Path("/proc/self")


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


def growth(base: Footprint, later: Sequence[Footprint], most: int = MOST_GROWTH) -> list[str]:
    """What is not flat since `base`: only the resident memory may move, by `most` KiB upwards at most."""
    found = []
    for each in later:
        for name in ("descriptors", "threads", "children", "ledger", "device_memory"):
            before, after = getattr(base, name), getattr(each, name)
            if before != after:
                found.append(f"{name}: {after} instead of {before}")
        if each.memory > base.memory + most:
            found.append(f"memory grew by {each.memory - base.memory} KiB")
    return list(dict.fromkeys(found))
