"""Measures how fast a disk reads and writes: throughput, latency and CPU time, by pattern and size of a call."""

from __future__ import annotations

import gc
import math
import random
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, repeat
from typing import Final, NamedTuple

from scsiusb.disk.disk import Disk
from scsiusb.quirks.model import Quirk

KIB: Final = 1024
SIZES: Final = tuple(4 * KIB << power for power in range(0, 11, 2))  # 4 KiB to 4 MiB
READ, WRITE = "read", "write"
SEQUENTIAL, RANDOM = "sequential", "random"
PATTERNS: Final = (SEQUENTIAL, RANDOM)
WARM_UP: Final = 0.1  # of a measurement's time and calls, before it
WAKING: Final = 0.5  # the same, before the first


class Extent(NamedTuple):
    """Blocks that lie side by side."""

    lba: int
    blocks: int


class Case(NamedTuple):
    """What is measured at a time."""

    direction: str
    """READ or WRITE."""
    pattern: str
    """SEQUENTIAL or RANDOM."""
    size: int
    """Bytes of a call."""


@dataclass(frozen=True)
class Plan:
    """What to measure where, and for how long."""

    extent: Extent
    sizes: Sequence[int] = SIZES
    """Bytes of a call; see `unfit` for what goes."""
    patterns: Sequence[str] = PATTERNS
    writes: bool = False
    """Also measure writes, of random bytes: all of the extent may be overwritten."""
    seconds: float = 1.0
    """A measurement ends with the first call that ends after so long."""
    calls: int | None = None
    """It ends sooner after so many calls."""
    seed: int = 0
    """The same seed means the same blocks in the same order, and the same bytes."""

    @property
    def cases(self) -> list[Case]:
        """In the order in which they are to be measured."""
        directions = (READ, WRITE) if self.writes else (READ,)
        return [Case(*each, size) for each in _pairs(directions, self.patterns) for size in self.sizes]

    @property
    def case_seconds(self) -> float:
        """What a case takes, its warm-up included, if a call takes no time to speak of."""
        return self.seconds * (1 + WARM_UP)


def _pairs(first: Sequence[str], second: Sequence[str]) -> Iterator[tuple[str, str]]:
    return ((one, other) for one in first for other in second)


class Latency(NamedTuple):
    """Of calls, in seconds."""

    p50: float
    p99: float
    max: float


@dataclass(frozen=True)
class Figures:
    """What one measurement gave."""

    size: int
    """Bytes of a call."""
    calls: int
    commands: int
    """That the calls were made of: a call larger than one command takes is several."""
    seconds: float
    """From the first call to the end of the last, or of the flush behind it."""
    flush_seconds: float | None
    """The flush's part in `seconds`; None where nothing was written."""
    cpu_seconds: float
    """That this process took meanwhile, in user space and in the kernel."""
    latency: Latency
    is_device_memory: bool
    """The buffer was memory that the kernel transfers without a copy."""

    @property
    def bytes(self) -> int:
        return self.calls * self.size

    @property
    def mb_per_s(self) -> float:
        """10^6 bytes a second."""
        return self.bytes / 1e6 / self.seconds

    @property
    def commands_per_s(self) -> float:
        return self.commands / self.seconds

    @property
    def cpu_per_command(self) -> float:
        """Seconds."""
        return self.cpu_seconds / self.commands


def unfit(disk: Disk, extent: Extent, size: int) -> str | None:
    """Why calls of that size cannot be measured there; None: they can."""
    block = disk.block_size
    if size < block:
        return f"smaller than a block of {block} bytes"
    if size % block:
        return f"no whole number of blocks of {block} bytes"
    return "larger than the range" if size > extent.blocks * block else None


def whole_commands(disk: Disk, extent: Extent) -> Extent:
    """Without the last block of the medium, where a quirk gives that a command of its own: calls would differ."""
    lba, blocks = extent
    is_alone = Quirk.LAST_SECTOR_ALONE in disk.unit.transport.quirks and lba + blocks == disk.blocks
    return Extent(lba, blocks - 1) if is_alone else extent


class Bench:
    """Measures the cases of a plan on a disk, one at a time. Every method raises as `readinto` and `write` do."""

    def __init__(self, disk: Disk, plan: Plan) -> None:
        """Raises OutOfRange for an extent that the medium does not have."""
        disk.check_range(*plan.extent)
        self._disk = disk
        self._plan = plan
        self._sweep = _Sweep(plan.extent)

    def try_out(self) -> None:
        """The smallest call each way: what cannot work at all fails before anything is measured.

        Reads for half a measurement's time, as the device, the bus and the processor may have been asleep.
        """
        plan = self._plan
        for direction in dict.fromkeys(case.direction for case in plan.cases):
            part = WAKING if direction == READ else 0
            with self._call(direction, min(plan.sizes)) as (call, buffer):
                _repeat(call, buffer, repeat(plan.extent.lba), plan.seconds * part, _part(plan.calls, part))

    def measure(self, case: Case) -> Figures:
        """One measurement, after a warm-up that does the same for a tenth of the time."""
        plan, disk = self._plan, self._disk
        places = self._places(case)
        with self._call(case.direction, case.size) as (call, buffer):
            _repeat(call, buffer, places, plan.seconds * WARM_UP, _part(plan.calls, WARM_UP))
            flush = disk.flush if case.direction == WRITE else None
            if flush:
                flush()
            with _undisturbed():
                cpu, began = time.process_time(), time.perf_counter()
                taken = _repeat(call, buffer, places, plan.seconds, plan.calls)
                called = time.perf_counter()
                if flush:
                    flush()
                ended = time.perf_counter() if flush else called
                cpu = time.process_time() - cpu
            return Figures(
                size=case.size,
                calls=len(taken),
                commands=len(taken) * commands_per_call(disk, case.size),
                seconds=ended - began,
                flush_seconds=ended - called if flush else None,
                cpu_seconds=cpu,
                latency=_latency(taken),
                is_device_memory=not isinstance(buffer.obj, bytearray),
            )

    @contextmanager
    def _call(self, direction: str, size: int) -> Iterator[tuple[_Call, memoryview]]:
        """What is to be timed, and its buffer; for writes with random bytes in it, as some devices cheat with zeros."""
        with self._disk.buffer(size) as buffer:
            if direction == WRITE:
                buffer[:] = random.Random(self._plan.seed).randbytes(size)
            yield self._disk.write if direction == WRITE else self._disk.readinto, buffer

    def _places(self, case: Case) -> Iterator[int]:
        """The LBAs of its calls, without end."""
        blocks = case.size // self._disk.block_size
        if case.pattern == SEQUENTIAL:
            return self._sweep.places(blocks)
        return _scattered(self._plan.extent, blocks, random.Random(f"{self._plan.seed} {case}"))


_Call = Callable[[int, memoryview], int]


def commands_per_call(disk: Disk, size: int) -> int:
    """How many commands a call of so many bytes is cut into."""
    return -(-size // (disk.block_size * disk.max_blocks))


class _Sweep:
    """Where sequential calls go: each size goes on where the last one ended, as a cache may hold what was before."""

    def __init__(self, extent: Extent) -> None:
        self._extent = extent
        self._next = 0  # block of the extent

    def places(self, blocks: int) -> Iterator[int]:
        slots = self._extent.blocks // blocks
        slot = -(-self._next // blocks) % slots
        while True:
            self._next = (slot + 1) * blocks
            yield self._extent.lba + slot * blocks
            slot = (slot + 1) % slots


def _scattered(extent: Extent, blocks: int, chance: random.Random) -> Iterator[int]:
    """Aligned to their size from the extent's start, each place as likely as any."""
    fraction, slots = chance.random, extent.blocks // blocks  # as quick as it gets: this is within what is measured
    while True:
        yield extent.lba + int(fraction() * slots) * blocks


def _repeat(call: _Call, buffer: memoryview, places: Iterable[int], seconds: float, calls: int | None) -> array[int]:
    """Nanoseconds of each call; at least one is made."""
    clock, taken = time.perf_counter_ns, array("q")
    end = clock() + round(seconds * 1e9)
    for lba in islice(places, calls):
        began = clock()
        call(lba, buffer)
        ended = clock()
        taken.append(ended - began)
        if ended >= end:
            break
    return taken


def _part(calls: int | None, part: float) -> int | None:
    return None if calls is None else max(1, math.ceil(calls * part))


def _latency(taken: Sequence[int]) -> Latency:
    """Percentiles by nearest rank: each is a time that some call took."""
    ordered = sorted(taken)
    p50, p99 = (ordered[math.ceil(len(ordered) * part) - 1] for part in (0.5, 0.99))
    return Latency(p50 / 1e9, p99 / 1e9, ordered[-1] / 1e9)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Without Python's garbage collector, whose turn it might be in the middle of a call."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
