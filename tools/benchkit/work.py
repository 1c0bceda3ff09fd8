"""A piece of work that every way does alike: commands of one size at given addresses, and the time they took."""

from __future__ import annotations

import random
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchkit import names
from tests.kernel.machine import Unit

MIB = 1 << 20
SMALL = 4096
SEED = 5
WARMING = 32  # commands that are not timed, as many as in ceiling.c: the emulator translates what it has not met yet


@dataclass(frozen=True)
class Timing:
    """`p50` and `p99` are of the single commands, in microseconds; 0 where nobody can tell."""

    bytes: int
    seconds: float
    p50: float = 0
    p99: float = 0

    @property
    def speed(self) -> float:
        return self.bytes / 1e6 / self.seconds


@dataclass(frozen=True)
class Work:
    """On a unit whose content may be overwritten if it is done by writing."""

    unit: Unit
    size: int
    lbas: Sequence[int]

    @property
    def bytes(self) -> int:
        return self.size * len(self.lbas)

    @property
    def blocks(self) -> int:
        """Of all commands together."""
        return self.bytes // self.unit.block_size

    def part(self, share: int) -> Work:
        """The first of the commands, for what is slow."""
        return Work(self.unit, self.size, self.lbas[: max(1, len(self.lbas) // share)])

    @contextmanager
    def addresses(self) -> Iterator[Path]:
        """The addresses in a file, as the program in C reads them."""
        with tempfile.NamedTemporaryFile() as file:
            array("I", self.lbas).tofile(file)
            file.flush()
            yield Path(file.name)


def sequential(unit: Unit, total: int, size: int = MIB) -> Work:
    blocks = size // unit.block_size
    return Work(unit, size, range(0, min(total, unit.size) // unit.block_size, blocks))


def scattered(unit: Unit, commands: int, size: int = SMALL) -> Work:
    """The same addresses each time."""
    choice = random.Random(SEED)
    blocks = size // unit.block_size
    return Work(unit, size, [choice.randrange(unit.size // size) * blocks for _ in range(commands)])


def timed(work: Work, command: Callable[..., object], *arguments: object) -> Timing:
    """Calls `command(lba, *arguments)` for each address, the first few once before that."""
    for lba in work.lbas[:WARMING]:
        command(lba, *arguments)
    each = []
    clock = time.perf_counter
    began = last = clock()
    for lba in work.lbas:
        command(lba, *arguments)
        now = clock()
        each.append(now - last)
        last = now
    each.sort()
    p50, p99 = (each[(len(each) - 1) * percent // 100] * 1e6 for percent in (50, 99))
    return Timing(work.bytes, last - began, p50, p99)


def throughput(timing: Timing) -> dict[str, float]:
    return {names.MBS: timing.speed}


def latency(timing: Timing) -> dict[str, float]:
    """Of commands of 4 KiB."""
    return {names.COMMANDS: timing.bytes / SMALL / timing.seconds, names.P50: timing.p50, names.P99: timing.p99}
