"""An exception at every bytecode leaves nothing held: a sample here, the whole in `tools/campaign interrupts`.

Each has a process of its own: an exception that is raised between two instructions of the interpreter can leave it with
a reference too many, which would keep sockets open for the tests after it.
"""

from __future__ import annotations

import os
import signal
from typing import Final

import pytest

from tests.injection.scenarios import SCENARIOS
from tests.sticks import python

SEED: Final = int(os.environ.get("SCSIUSB_INJECTION_SEED", "0"))
"""Chooses the instructions: each seed tries others."""
FAST: Final = 1  # instructions of each scenario
SLOW: Final = 100

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the signals and the ledger of threads are tried on POSIX")


def run(call: str) -> None:
    """Call a function of `trying` in another process; its AssertionError is this test's."""
    status, out, err = python(f"from tests.injection.trying import *\n{call}")
    assert (status, out) == (0, ""), err


@pytest.mark.slow
@pytest.mark.parametrize("error", ["KeyboardInterrupt", "MemoryError"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_an_exception_at_some_bytecodes_leaves_nothing_held(name: str, error: str) -> None:
    run(f"try_exceptions({name!r}, {error}, {FAST}, {SEED})")


@pytest.mark.slow
@pytest.mark.parametrize("error", ["KeyboardInterrupt", "MemoryError"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_an_exception_at_many_bytecodes_leaves_nothing_held(name: str, error: str) -> None:
    run(f"try_exceptions({name!r}, {error}, {SLOW}, {SEED})")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timer")
def test_real_signals_leave_nothing_held_and_come_out() -> None:
    run(f"try_signals({SEED})")
