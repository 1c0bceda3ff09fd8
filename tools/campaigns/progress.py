"""The state of a worker in shared memory that outlives it: its phase, and the journal of its writes."""

from __future__ import annotations

import ctypes
import mmap
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum

MOST_ENTRIES = 8192
BLOCK = 512


class Phase(IntEnum):
    """What the worker is doing."""

    STARTING = 0
    OPENING = 1
    IDLE = 2
    READING = 3
    WRITING = 4
    FLUSHING = 5
    CLOSING = 6


class Done(IntEnum):
    """How far an entry of the journal came."""

    BEGUN = 0
    ACKNOWLEDGED = 1


class _Entry(ctypes.Structure):
    _fields_ = (
        ("blocks", ctypes.c_uint32),  # 0: a flush
        ("lba", ctypes.c_uint32),
        ("seed", ctypes.c_uint32),
        ("done", ctypes.c_uint32),
    )


class _Shared(ctypes.Structure):
    _fields_ = (
        ("phase", ctypes.c_uint32),
        ("rounds", ctypes.c_uint32),
        ("actions", ctypes.c_uint32),
        ("entries", ctypes.c_uint32),
        ("seconds", ctypes.c_double * len(Phase)),
        ("times", ctypes.c_uint32 * len(Phase)),
        ("journal", _Entry * MOST_ENTRIES),
    )


@dataclass(frozen=True)
class Entry:
    """A write, or a flush if it has no blocks."""

    lba: int
    blocks: int
    seed: int
    is_acknowledged: bool

    def data(self) -> bytes:
        """Return what was written."""
        return pattern(self.seed, self.blocks)


def pattern(seed: int, blocks: int) -> bytes:
    """Return content of so many blocks, determined by the seed."""
    return random.Random(seed).randbytes(blocks * BLOCK)


class Progress:
    """Created before the fork; written by the child, read by the parent, also after the child has died."""

    def __init__(self) -> None:
        self._shared = _Shared.from_buffer(mmap.mmap(-1, ctypes.sizeof(_Shared)))

    # --- for the worker --------------------------------------------------------------------------

    @contextmanager
    def during(self, phase: Phase) -> Iterator[None]:
        """Set the phase, and add up the time spent in it."""
        shared, began = self._shared, time.monotonic()
        shared.phase = phase
        yield
        shared.phase = Phase.IDLE
        shared.seconds[phase] += time.monotonic() - began
        shared.times[phase] += 1

    def begin(self, lba: int, blocks: int, seed: int) -> int:
        """Add a write or a flush to the journal; return its number, for `acknowledge`."""
        number: int = self._shared.entries
        entry = self._shared.journal[number]
        entry.lba, entry.blocks, entry.seed = lba, blocks, seed
        self._shared.entries = number + 1
        return number

    def acknowledge(self, number: int) -> None:
        """Record that a write or a flush succeeded."""
        self._shared.journal[number].done = Done.ACKNOWLEDGED

    @property
    def is_full(self) -> bool:
        """Whether the journal has no room for another write and flush."""
        return bool(self._shared.entries >= MOST_ENTRIES - 2)

    def count_action(self) -> None:
        """Count an action."""
        self._shared.actions += 1

    def count_round(self) -> None:
        """Count a round: opening, actions, closing."""
        self._shared.rounds += 1

    # --- for the parent --------------------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        """What the worker is doing, or was when it died."""
        return Phase(self._shared.phase)

    @property
    def actions(self) -> int:
        """Number of actions."""
        return int(self._shared.actions)

    @property
    def rounds(self) -> int:
        """Number of rounds."""
        return int(self._shared.rounds)

    def spent(self, phase: Phase) -> tuple[float, int]:
        """Return the total of seconds in a phase, and how often it was entered."""
        return float(self._shared.seconds[phase]), int(self._shared.times[phase])

    def journal(self) -> list[Entry]:
        """Return all entries of the journal."""
        entries = (self._shared.journal[number] for number in range(self._shared.entries))
        return [Entry(each.lba, each.blocks, each.seed, each.done == Done.ACKNOWLEDGED) for each in entries]
