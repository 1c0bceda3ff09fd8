"""An exception at every bytecode leaves nothing held: a sample here, the whole in `tools/campaign interrupts`."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from random import Random
from typing import Final

import pytest

from tests.injection.scenarios import SCENARIOS, alarm, inject, instructions, quiet

SEED: Final = int(os.environ.get("SCSIUSB_INJECTION_SEED", "0"))
"""Chooses the instructions: each seed tries others."""
FAST: Final = 2  # instructions of each scenario
SLOW: Final = 100
SIGNALS: Final = 30
LONGEST: Final = 0.02  # seconds until a signal

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the signals and the ledger of threads are tried on POSIX")


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    with quiet():
        yield


def try_some(name: str, error: type[BaseException], count: int) -> None:
    """Raise the error at `count` instructions, one in each equal part of all of them."""
    part = max(instructions(name) // count, 1)
    offset = Random(SEED).randrange(part)
    for number in range(count):
        raised, faults = inject(name, error, 1 + number * part + offset)
        assert not faults, f"{error.__name__} at {raised.where}"


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("name", SCENARIOS)
def test_an_exception_at_some_bytecodes_leaves_nothing_held(name: str, error: type[BaseException]) -> None:
    try_some(name, error, FAST)


@pytest.mark.slow
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("name", SCENARIOS)
def test_an_exception_at_many_bytecodes_leaves_nothing_held(name: str, error: type[BaseException]) -> None:
    try_some(name, error, SLOW)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timer")
def test_real_signals_leave_nothing_held_and_come_out() -> None:
    random = Random(SEED)
    for _ in range(SIGNALS):
        name = random.choice(tuple(SCENARIOS))
        made, faults = alarm(name, random.uniform(0, LONGEST))
        assert not faults, f"{name}, a signal at {made.where}"
