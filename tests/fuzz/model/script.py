"""Sequences of steps: made from bytes, played, and shortened where they fail."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, Final, NamedTuple

from tests.fuzz.devices import Bytes
from tests.fuzz.faults import Choose, any_fault, any_host_fault
from tests.fuzz.model.cards import BLOCKS
from tests.fuzz.model.play import CANCEL_WAIT, COMMANDS, playing
from tests.fuzz.model.world import Setup

MOST_STEPS: Final = 60
LENGTH: Final = (60, 260)  # bytes of a sequence that is made from a seed
SHRINKING: Final = 30.0  # seconds


class Step(NamedTuple):
    """A method of `Play`, and its arguments."""

    name: str
    arguments: tuple[Any, ...] = ()


class Script(NamedTuple):
    """A whole sequence."""

    setup: Setup
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        """Return Python that plays it."""
        lines = [f"Setup{tuple(self.setup)},", *(f"made.{step.name}{_show(step.arguments)}" for step in self.steps)]
        return "\n".join(f"    {line}" for line in lines)


def _show(arguments: tuple[Any, ...]) -> str:
    return f"({', '.join(map(repr, arguments))})"


Maker = Callable[[Choose], tuple[Any, ...]]


def _extent(choose: Choose) -> tuple[int, int]:
    lba = choose(range(BLOCKS - 4))
    return lba, min(1 + choose(range(20)), BLOCKS - 4 - lba)


def _client(choose: Choose) -> int:
    return int(choose((0, 0, 1, 1, 2)))


def _slot(choose: Choose) -> int:
    return int(choose((0, 0, 0, 1)))


def _cancel(choose: Choose) -> tuple[int, float]:
    return choose((-1, -1, 0, 1, 2, 3, 4, 5, 7)), choose((CANCEL_WAIT, CANCEL_WAIT, 0))


EVENTS: Final = ("swap", "swap", "swap", "take_out", "put_in", "power_on", "power_on", "ctrl-c", "ctrl-c")
MAKERS: Final[tuple[tuple[int, str, Maker], ...]] = (
    (6, "read", lambda choose: (_client(choose), *_extent(choose))),
    (1, "capacity", lambda choose: (_client(choose),)),
    (6, "write", lambda choose: (_client(choose), *_extent(choose))),
    (5, "flush", lambda choose: (_client(choose),)),
    (2, "execute", lambda choose: (_client(choose), choose(range(len(COMMANDS))))),
    (1, "reopen", lambda choose: (_client(choose),)),
    (1, "race", lambda choose: (choose((0, 1)), choose((0, 1)))),
    (2, "begin_reading", lambda choose: (_client(choose), *_extent(choose))),
    (2, "begin_writing", lambda choose: (_client(choose), choose(range(BLOCKS - 8)))),
    (6, "advance", lambda choose: (choose(range(4)),)),
    (2, "finish_stream", lambda choose: (choose(range(4)),)),
    (2, "begin_many", lambda choose: (choose((0, 1)), choose((2, 2, 2, 0)), choose((0, 0, 8)))),
    (4, "advance_many", lambda choose: (1 + choose(range(3)),)),
    (1, "finish_many", lambda choose: ()),
    (2, "async_read", lambda choose: (*_extent(choose), *_cancel(choose))),
    (1, "async_write", lambda choose: (*_extent(choose), *_cancel(choose))),
    (4, "swap", lambda choose: (_slot(choose),)),
    (1, "take_out", lambda choose: (_slot(choose),)),
    (1, "put_in", lambda choose: (_slot(choose), choose((0, 1)))),
    (2, "power_on", lambda choose: (_slot(choose),)),
    (1, "unplug", lambda choose: (_slot(choose),)),
    (1, "reset", lambda choose: (_client(choose), choose(("port", "class")))),
    (6, "later", lambda choose: (choose(range(12)), choose(EVENTS), _slot(choose))),
    (9, "fault", lambda choose: (_slot(choose), any_fault(choose))),
    (2, "host_fault", lambda choose: (any_host_fault(choose),)),
    (2, "heal", lambda choose: ()),
)
STEPS: Final = tuple((name, make) for weight, name, make in MAKERS for _ in range(weight))
SETUPS: Final = tuple(
    Setup(polled, removable, loses, (BLOCKS, second))
    for polled in (True, False)
    for removable in (True, True, True, False)
    for loses in (True, True, False)
    for second in (BLOCKS, BLOCKS, BLOCKS - 4)
)


def script_of(data: bytes) -> Script:
    """Return the sequence that the bytes stand for."""
    source = Bytes(data)

    def choose(some: Sequence[Any]) -> Any:
        return some[source.number() % len(some)]

    setup = choose(SETUPS)
    steps: list[Step] = []
    while source.left and len(steps) < MOST_STEPS:
        name, make = choose(STEPS)
        steps.append(Step(name, make(choose)))
    return Script(setup, tuple(steps))


def bytes_of(seed: int) -> bytes:
    """Return the bytes of the sequence with that seed."""
    random = Random(seed)
    return random.randbytes(random.randint(*LENGTH))


def run(script: Script) -> None:
    """Play a sequence. Raises what its first step that fails raises, an AssertionError for a broken property."""
    with playing(script.setup) as made:
        for step in script.steps:
            getattr(made, step.name)(*step.arguments)
            made.check_cards()


def play(data: bytes, name: str = "") -> None:
    """Play the sequence that the bytes stand for. If it fails, shorten it, and raise AssertionError with the script."""
    script = script_of(data)
    error = failure_of(script)
    if error is None:
        return
    shortest, last = shorten(script, error)
    what = f"{type(last).__name__}: {last}"
    raise AssertionError(f"{name or data.hex()} fails, and so does this script:\n{shortest}\n{what}") from last


def failure_of(script: Script) -> Exception | None:
    """Return what goes wrong in a sequence."""
    try:
        run(script)
    except Exception as error:  # noqa: BLE001 - whatever it is, it must not happen
        return error
    return None


def shorten(script: Script, error: Exception) -> tuple[Script, Exception]:
    """Drop steps, first many at once, as long as the sequence still fails; return it and its failure."""
    until = time.monotonic() + SHRINKING
    size = len(script.steps)
    while size:
        for start in _from_the_end(script.steps, size):
            shorter = script._replace(steps=script.steps[:start] + script.steps[start + size :])
            found = failure_of(shorter)
            if found is not None and type(found) is type(error):
                script, error = shorter, found
            if time.monotonic() > until:
                return script, error
        size //= 2
    return script, error


def _from_the_end(steps: Sequence[Step], size: int) -> Iterator[int]:
    """Yield where to cut: the last steps first, which most often do not matter."""
    yield from range(max(len(steps) - size, 0), -1, -size)
