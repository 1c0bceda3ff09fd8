"""A piece of work that every way performs: commands of one size at given addresses, and the time they took."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from benchkit import names
from tests.kernel.machine import Unit

MIB = 1 << 20
SMALL = 4096
SEED = 5
WARMING = 8  # small commands that are not timed, because another way used the machine just before


@dataclass(frozen=True)
class Timing:
    """What a slice took.

    `p50` and `p99` are percentiles of the single commands, in microseconds; `whole` is the time of the process with its
    start, in seconds. They are 0 where they were not measured.
    """

    bytes: int
    seconds: float
    p50: float = 0
    p99: float = 0
    whole: float = 0

    @property
    def speed(self) -> float:
        """Megabytes (1e6) per second."""
        return self.bytes / 1e6 / self.seconds


@dataclass(frozen=True)
class Slice:
    """Commands of `size` bytes at these addresses; the first `warming` of them are run once before, without timing."""

    size: int
    lbas: Sequence[int]
    warming: int = 0

    @property
    def bytes(self) -> int:
        """The bytes that the timed commands transfer."""
        return self.size * len(self.lbas)

    def part(self, share: int) -> Slice:
        """Return the first 1 / `share` of the commands, at least one: for slow ways."""
        return Slice(self.size, self.lbas[: max(1, len(self.lbas) // share)], self.warming)


Runner = Callable[[Slice], Timing]
Way = Callable[[Unit, int], AbstractContextManager[Runner]]
"""A context manager that opens a unit for commands of a size in bytes, and yields a function that runs a slice."""


def sequential(unit: Unit, total: int, slices: int, size: int = MIB) -> Iterator[Slice]:
    """Yield slices of `total` bytes together, from the start of the unit, and again from the start at its end."""
    blocks = size // unit.block_size
    commands = total // size // slices
    places = unit.size // size // commands
    for number in range(slices):
        first = number % places * commands * blocks
        yield Slice(size, range(first, first + commands * blocks, blocks))


def scattered(unit: Unit, commands: int, slices: int, size: int = SMALL) -> Iterator[Slice]:
    """Yield slices at random addresses; the same addresses on each call."""
    choice = random.Random(SEED)
    blocks = size // unit.block_size
    for _ in range(slices):
        lbas = [choice.randrange(unit.size // size) * blocks for _ in range(commands // slices)]
        yield Slice(size, lbas, WARMING)


def timed(command: Callable[..., object], *arguments: object) -> Runner:
    """Return a runner that calls `command(lba, *arguments)` for each address."""

    def run(piece: Slice) -> Timing:
        for lba in piece.lbas[: piece.warming]:
            command(lba, *arguments)
        each = []
        clock = time.perf_counter
        began = last = clock()
        for lba in piece.lbas:
            command(lba, *arguments)
            now = clock()
            each.append(now - last)
            last = now
        each.sort()
        p50, p99 = (each[(len(each) - 1) * percent // 100] * 1e6 for percent in (50, 99))
        return Timing(piece.bytes, last - began, p50, p99)

    return run


def combined(timings: Sequence[Timing]) -> Timing:
    """Combine the slices of a round: sums of bytes and seconds, medians of the percentiles, the mean of `whole`."""
    return Timing(
        sum(timing.bytes for timing in timings),
        sum(timing.seconds for timing in timings),
        statistics.median(timing.p50 for timing in timings),
        statistics.median(timing.p99 for timing in timings),
        statistics.mean(timing.whole for timing in timings),
    )


def throughput(timing: Timing) -> dict[str, float]:
    """Return the speed."""
    return {names.MBS: timing.speed}


def latency(timing: Timing) -> dict[str, float]:
    """Return commands per second and percentiles, for commands of 4 KiB."""
    return {names.COMMANDS: timing.bytes / SMALL / timing.seconds, names.P50: timing.p50, names.P99: timing.p99}
