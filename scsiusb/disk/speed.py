"""Measures how fast a disk reads and writes: throughput, latency and CPU time, by access pattern and call size."""

from __future__ import annotations

import gc
import math
import random
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice, repeat
from typing import Final, NamedTuple

from scsiusb.disk.at_once import ROUNDS, Piece, sending
from scsiusb.disk.disk import Disk
from scsiusb.disk.medium import READ as READING

KIB: Final = 1024
SIZES: Final = tuple(4 * KIB << power for power in range(0, 11, 2))  # 4 KiB to 4 MiB
READ, WRITE = "read", "write"
SEQUENTIAL, RANDOM = "sequential", "random"
PATTERNS: Final = (SEQUENTIAL, RANDOM)
WARM_UP: Final = 0.1  # the warm-up's share of a measurement's time and calls
WAKING: Final = 0.5  # the same for the reads before the first measurement


class Extent(NamedTuple):
    """A range of blocks."""

    lba: int
    blocks: int


class Case(NamedTuple):
    """What one measurement measures."""

    direction: str
    """READ or WRITE."""
    pattern: str
    """SEQUENTIAL or RANDOM."""
    size: int
    """Bytes per call."""
    depth: int = 0
    """Commands in flight, each of `size` bytes; 0: one call after the other."""


@dataclass(frozen=True)
class Plan:
    """What to measure, where, and for how long."""

    extent: Extent
    sizes: Sequence[int] = SIZES
    """Bytes per call; `unfit` returns which sizes cannot be measured."""
    patterns: Sequence[str] = PATTERNS
    writes: bool = False
    """Also measure writes, of random bytes: all of the extent may be overwritten."""
    seconds: float = 1.0
    """A measurement ends with the first call that ends after this time."""
    calls: int | None = None
    """It ends earlier after this many calls; None: no limit."""
    depths: Sequence[int] = ()
    """Measure reads with so many commands in flight, in place of calls; at most `Transport.depth`."""
    seed: int = 0
    """Equal seeds give the same blocks in the same order, and the same data."""

    @property
    def cases(self) -> list[Case]:
        """The cases, in the order of measurement."""
        directions = (READ, WRITE) if self.writes else (READ,)
        kinds = [(each, size) for each in _pairs(directions, self.patterns) for size in self.sizes]
        return [Case(*each, size, depth) for each, size in kinds for depth in self.depths or (0,)]

    @property
    def case_seconds(self) -> float:
        """Seconds that a case takes, with its warm-up, if each call is short."""
        return self.seconds * (1 + WARM_UP)


def _pairs(first: Sequence[str], second: Sequence[str]) -> Iterator[tuple[str, str]]:
    return ((one, other) for one in first for other in second)


class Latency(NamedTuple):
    """Latency of calls, in seconds."""

    p50: float
    p99: float
    max: float


@dataclass(frozen=True)
class Figures:
    """Results of one measurement."""

    size: int
    """Bytes per call."""
    calls: int
    commands: int
    """Commands that the calls were split into."""
    seconds: float
    """From the first call to the end of the last one, or of the flush after it."""
    flush_seconds: float | None
    """The part of `seconds` for the flush; None if nothing was written."""
    cpu_seconds: float
    """CPU time of this process during the measurement, in user space and in the kernel."""
    latency: Latency
    is_device_memory: bool
    """Whether the buffer was device memory, which the kernel transfers without a copy."""

    @property
    def bytes(self) -> int:
        """Bytes moved by all calls."""
        return self.calls * self.size

    @property
    def mb_per_s(self) -> float:
        """Throughput in 10^6 bytes per second."""
        return self.bytes / 1e6 / self.seconds

    @property
    def commands_per_s(self) -> float:
        """Commands per second."""
        return self.commands / self.seconds

    @property
    def cpu_per_command(self) -> float:
        """CPU time per command, in seconds."""
        return self.cpu_seconds / self.commands


def unfit(disk: Disk, extent: Extent, size: int) -> str | None:
    """Return why calls of `size` bytes cannot be measured in the extent; None if they can."""
    block = disk.block_size
    if size < block:
        return f"smaller than a block of {block} bytes"
    if size % block:
        return f"no whole number of blocks of {block} bytes"
    return "larger than the range" if size > extent.blocks * block else None


def whole_commands(disk: Disk, extent: Extent) -> Extent:
    """Return the extent without the blocks that are each moved by a separate command: calls would differ."""
    lba, blocks = extent
    end = min(lba + blocks, max(disk.medium().alone_from, lba + 1))
    return Extent(lba, end - lba)


class Bench:
    """Measures the cases of a plan on a disk, one at a time. The methods raise as `Disk.readinto` and `Disk.write`."""

    def __init__(self, disk: Disk, plan: Plan) -> None:
        """Raise OutOfRange for an extent that the medium does not have."""
        disk.check_range(*plan.extent)
        self._disk = disk
        self._plan = plan
        self._sweep = _Sweep(plan.extent)

    def try_out(self) -> None:
        """Make the smallest call in each direction, so that an error comes before the first measurement.

        Reads for half a measurement's time, as the device, the bus and the processor may be in a power-saving state.
        """
        plan = self._plan
        for direction in dict.fromkeys(case.direction for case in plan.cases):
            part = WAKING if direction == READ else 0
            with self._call(direction, min(plan.sizes)) as (call, buffer):
                _repeat(call, buffer, repeat(plan.extent.lba), plan.seconds * part, _part(plan.calls, part))

    def measure(self, case: Case) -> Figures:
        """Measure one case, after a warm-up that does the same for a tenth of the time."""
        if case.depth:
            return self._measure_at_once(case)
        plan, disk = self._plan, self._disk
        places = self._places(case)
        with self._call(case.direction, case.size) as (call, buffer):
            _repeat(call, buffer, places, plan.seconds * WARM_UP, _part(plan.calls, WARM_UP))
            flush = disk.flush if case.direction == WRITE else None
            if flush:
                flush()
            with _garbage_collector_off():
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

    def _measure_at_once(self, case: Case) -> Figures:
        """Measure reads with several commands in flight; latency is that of `depth` commands together."""
        plan, disk = self._plan, self._disk
        places = self._places(case)
        with disk.buffer(case.size) as buffer:
            reads = partial(_read_together, disk, case.depth, buffer)
            _repeat_batches(reads, places, case.depth, plan.seconds * WARM_UP, _part(plan.calls, WARM_UP))
            with _garbage_collector_off():
                cpu, began = time.process_time(), time.perf_counter()
                taken = _repeat_batches(reads, places, case.depth, plan.seconds, plan.calls)
                ended = time.perf_counter()
                cpu = time.process_time() - cpu
            return Figures(
                size=case.size,
                calls=len(taken) * case.depth * ROUNDS,
                commands=len(taken) * case.depth * ROUNDS,
                seconds=ended - began,
                flush_seconds=None,
                cpu_seconds=cpu,
                latency=_latency([each // ROUNDS for each in taken]),
                is_device_memory=not isinstance(buffer.obj, bytearray),
            )

    @contextmanager
    def _call(self, direction: str, size: int) -> Iterator[tuple[_Call, memoryview]]:
        """Yield the function to time, and its buffer, filled with random bytes for writes: some devices skip zeros."""
        with self._disk.buffer(size) as buffer:
            if direction == WRITE:
                buffer[:] = random.Random(self._plan.seed).randbytes(size)
            yield self._disk.write if direction == WRITE else self._disk.readinto, buffer

    def _places(self, case: Case) -> Iterator[int]:
        """Return an endless iterator over the LBAs of the case's calls."""
        blocks = case.size // self._disk.block_size
        if case.pattern == SEQUENTIAL:
            return self._sweep.places(blocks)
        return _scattered(self._plan.extent, blocks, random.Random(f"{self._plan.seed} {case}"))


_Call = Callable[[int, memoryview], int]


def commands_per_call(disk: Disk, size: int) -> int:
    """Return how many commands a call of `size` bytes is split into."""
    return -(-size // (disk.block_size * disk.max_blocks))


class _Sweep:
    """Places of sequential calls. Each size continues where the last one ended, as a cache may hold earlier blocks."""

    def __init__(self, extent: Extent) -> None:
        self._extent = extent
        self._next = 0  # block, counted from the extent's start

    def places(self, blocks: int) -> Iterator[int]:
        """Yield the LBAs of calls of `blocks` blocks, without end; after the extent's end, start again."""
        slots = self._extent.blocks // blocks
        slot = -(-self._next // blocks) % slots
        while True:
            self._next = (slot + 1) * blocks
            yield self._extent.lba + slot * blocks
            slot = (slot + 1) % slots


def _scattered(extent: Extent, blocks: int, chance: random.Random) -> Iterator[int]:
    """Yield random LBAs, aligned to `blocks` from the extent's start, all equally likely."""
    fraction, slots = chance.random, extent.blocks // blocks  # local names: this runs within the time measured
    while True:
        yield extent.lba + int(fraction() * slots) * blocks


def _repeat(call: _Call, buffer: memoryview, places: Iterable[int], seconds: float, calls: int | None) -> array[int]:
    """Make calls until the time or their number is reached, at least one; return the nanoseconds of each."""
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


def _read_together(disk: Disk, depth: int, buffer: memoryview, lbas: Sequence[int]) -> None:
    """Read these places, all into the same buffer: what is read is of no interest. Raise if one cannot be read."""
    medium, unit = disk.medium(), disk.unit
    blocks = len(buffer) // medium.block_size
    story = sending(unit, READING, medium, [Piece(lba, blocks, buffer) for lba in lbas], depth)
    for lba, is_read in zip(lbas, unit.transport.drive(story), strict=True):
        if not is_read:
            disk.mover.move_one(READING, medium, lba, buffer)


def _repeat_batches(
    read: Callable[[Sequence[int]], None], places: Iterator[int], depth: int, seconds: float, calls: int | None
) -> array[int]:
    """Read batches until the time or the number of reads is reached, at least one; return the nanoseconds of each."""
    clock, taken = time.perf_counter_ns, array("q")
    end = clock() + round(seconds * 1e9)
    while not taken or (clock() < end and (calls is None or len(taken) * depth * ROUNDS < calls)):
        batch = list(islice(places, depth * ROUNDS))
        began = clock()
        read(batch)
        taken.append(clock() - began)
    return taken


def _part(calls: int | None, part: float) -> int | None:
    return None if calls is None else max(1, math.ceil(calls * part))


def _latency(taken: Sequence[int]) -> Latency:
    """Compute percentiles by nearest rank: each is the time of an actual call."""
    ordered = sorted(taken)
    p50, p99 = (ordered[math.ceil(len(ordered) * part) - 1] for part in (0.5, 0.99))
    return Latency(p50 / 1e9, p99 / 1e9, ordered[-1] / 1e9)


@contextmanager
def _garbage_collector_off() -> Iterator[None]:
    """Turn off Python's garbage collector, which could run in the middle of a call."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
