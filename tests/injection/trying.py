"""Tries scenarios with exceptions and signals, in a process of its own: see `test_injection`."""

from __future__ import annotations

from random import Random
from typing import Final

from tests.injection.scenarios import SCENARIOS, alarm, inject, instructions, quiet

SIGNALS: Final = 30
LONGEST: Final = 0.02  # seconds until a signal


def try_exceptions(name: str, error: type[BaseException], count: int, seed: int) -> None:
    """Raise the error at `count` instructions, one in each equal part of all of them. Raise AssertionError."""
    with quiet():
        part = max(instructions(name, error) // count, 1)
        offset = Random(seed).randrange(part)
        for number in range(count):
            raised, faults = inject(name, error, 1 + number * part + offset)
            assert not faults, f"{error.__name__} at {raised.where}: {faults}"


def try_signals(seed: int) -> None:
    """Send SIGNALS signals at random moments of random scenarios. Raise AssertionError."""
    chance = Random(seed)
    with quiet():
        for _ in range(SIGNALS):
            name = chance.choice(tuple(SCENARIOS))
            made, faults = alarm(name, chance.uniform(0, LONGEST))
            assert not faults, f"{name}, a signal at {made.where}: {faults}"
