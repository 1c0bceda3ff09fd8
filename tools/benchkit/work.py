"""A piece of work that every way does alike: commands of one size at given addresses, and the time they took."""

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
WARMING = 8  # small commands that are not timed: another way had the machine before


@dataclass(frozen=True)
class Timing:
    """`p50` and `p99` are of the single commands, in microseconds; `whole`, in seconds, is of a process with its start.

    0 where nobody can tell.
    """

    bytes: int
    seconds: float
    p50: float = 0
    p99: float = 0
    whole: float = 0

    @property
    def speed(self) -> float:
        return self.bytes / 1e6 / self.seconds


@dataclass(frozen=True)
class Slice:
    """Commands of `size` bytes at these addresses, the first `warming` of them once before, without being timed."""

    size: int
    lbas: Sequence[int]
    warming: int = 0

    @property
    def bytes(self) -> int:
        return self.size * len(self.lbas)

    def part(self, share: int) -> Slice:
        """The first of the commands, for what is slow."""
        return Slice(self.size, self.lbas[: max(1, len(self.lbas) // share)], self.warming)


Runner = Callable[[Slice], Timing]
Way = Callable[[Unit, int], AbstractContextManager[Runner]]
"""Opens a unit for commands of a size, and lends what runs slices of them."""


def sequential(unit: Unit, total: int, slices: int, size: int = MIB) -> Iterator[Slice]:
    """So many bytes from the start, and again from the start where the unit ends."""
    blocks = size // unit.block_size
    commands = total // size // slices
    places = unit.size // size // commands
    for number in range(slices):
        first = number % places * commands * blocks
        yield Slice(size, range(first, first + commands * blocks, blocks))


def scattered(unit: Unit, commands: int, slices: int, size: int = SMALL) -> Iterator[Slice]:
    """The same addresses each time."""
    choice = random.Random(SEED)
    blocks = size // unit.block_size
    for _ in range(slices):
        lbas = [choice.randrange(unit.size // size) * blocks for _ in range(commands // slices)]
        yield Slice(size, lbas, WARMING)


def timed(command: Callable[..., object], *arguments: object) -> Runner:
    """Calls `command(lba, *arguments)` for each address."""

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


def together(timings: Sequence[Timing]) -> Timing:
    """Of the slices of a round; the percentiles are the median slice's, `whole` is the mean."""
    return Timing(
        sum(timing.bytes for timing in timings),
        sum(timing.seconds for timing in timings),
        statistics.median(timing.p50 for timing in timings),
        statistics.median(timing.p99 for timing in timings),
        statistics.mean(timing.whole for timing in timings),
    )


def throughput(timing: Timing) -> dict[str, float]:
    return {names.MBS: timing.speed}


def latency(timing: Timing) -> dict[str, float]:
    """Of commands of 4 KiB."""
    return {names.COMMANDS: timing.bytes / SMALL / timing.seconds, names.P50: timing.p50, names.P99: timing.p99}
