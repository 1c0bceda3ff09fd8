"""What reading alone shows of a capacity: blocks that cannot be read, that repeat others, or that are empty."""

from __future__ import annotations

import random
import time
from itertools import pairwise
from typing import Final

from scsiusb.disk.disk import Disk
from scsiusb.disk.witness import is_distinct
from scsiusb.imaging.events import PROBING, OnProgress, Progress, ignore
from scsiusb.imaging.probe_result import Kind, Probe, result_of
from scsiusb.imaging.surface import Surface

SAMPLES: Final = 512
FEW_SAMPLES, FEW_UNREADABLE = 64, 3
SOURCES: Final = (0, 1, 2, 34, 63, 2048, 8192, 32768)  # LBAs near which most disks have data
NEAR: Final = 16  # blocks at each of them
MOST_SOURCES, LEAST_SOURCES = 32, 4  # blocks with a content of their own that are looked for elsewhere
LEAST_TAIL: Final = 16  # samples


def glance(disk: Disk, progress: OnProgress = ignore) -> Probe:
    """Return the same as `look` in a few seconds: from fewer blocks, and it stops when some of them cannot be read."""
    return look(disk, progress, FEW_SAMPLES, FEW_UNREADABLE)


def look(disk: Disk, progress: OnProgress, samples: int = SAMPLES, enough: int = SAMPLES) -> Probe:
    """Return what can be said without a write: "damaged" if blocks among good ones cannot be read, else "unknown".

    So many blocks are read, until `enough` of them cannot be.
    """
    began, surface = time.monotonic(), Surface(disk)
    with surface.impatient():
        kind, findings = _judge_samples(_read_samples(surface, progress, samples, enough))
        repeated = _find_repetition(surface)
    distance = None
    if repeated is not None:
        distance, count = repeated
        findings.append(f"{count} blocks repeat those {distance} blocks before: it may begin again at LBA {distance}")
    return result_of(surface, began, kind, None, tuple(findings), distance)


def _read_samples(surface: Surface, progress: OnProgress, count: int, enough: int) -> dict[int, bytes | None]:
    """Return the content of one block in each part of the disk; None where it cannot be read."""
    bounds = [surface.blocks * part // count for part in range(count + 1)]
    chosen = [random.randrange(low, high) for low, high in pairwise(bounds) if low < high]
    random.shuffle(chosen)  # those before `enough` are from all parts
    samples: dict[int, bytes | None] = {}
    for done, lba in enumerate(chosen, 1):
        samples[lba] = data = surface.read(lba)
        enough -= data is None
        if not enough:
            break
        progress(Progress(PROBING, done * surface.block_size, len(chosen) * surface.block_size))
    return dict(sorted(samples.items()))


def _judge_samples(samples: dict[int, bytes | None]) -> tuple[Kind, list[str]]:
    unreadable = [lba for lba, data in samples.items() if data is None]
    last_readable = max((lba for lba, data in samples.items() if data is not None), default=-1)
    if samples and last_readable < 0:
        return "damaged", [f"none of {len(samples)} blocks can be read"]
    inner = [lba for lba in unreadable if lba < last_readable]
    findings = []
    if inner:
        findings.append(f"{len(inner)} of {len(samples)} blocks cannot be read, the first is LBA {inner[0]}")
    if len(unreadable) - len(inner) >= LEAST_TAIL:
        findings.append(f"no block after LBA {last_readable} can be read: it may have no capacity there")
    varied = [lba for lba, data in samples.items() if data is not None and is_distinct(data)]
    last = varied[-1] if varied else -1
    constant = [lba for lba, data in samples.items() if data is not None and lba > last]
    if len(constant) >= LEAST_TAIL and not varied:
        findings.append(f"empty, as far as was read ({len(constant)} blocks)")
    elif len(constant) >= LEAST_TAIL:
        findings.append(f"empty after LBA {last}, as far as was read ({len(constant)} blocks): unused or missing")
    return ("damaged" if inner else "unknown"), findings


def _find_repetition(surface: Surface) -> tuple[int, int] | None:
    """Return the least power of two after which all of some blocks are seen again, and how many these are."""
    sources = _sources(surface)
    if len(sources) < LEAST_SOURCES:
        return None
    farthest = max(sources.values())
    distance = 1 << farthest.bit_length()
    while distance + farthest < surface.blocks:
        if all(surface.read(lba + distance) == data for data, lba in sources.items()):
            return distance, len(sources)
        distance *= 2
    return None


def _sources(surface: Surface) -> dict[bytes, int]:
    """Return blocks near the beginning that differ from each other, by content."""
    sources: dict[bytes, int] = {}
    for start in SOURCES:
        for lba in range(start, min(start + NEAR, surface.blocks)):
            data = surface.read(lba)
            if data is not None and is_distinct(data):
                sources.setdefault(data, lba)
            if len(sources) == MOST_SOURCES:
                return sources
    return sources
