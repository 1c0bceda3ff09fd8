"""Ways that take turns: each has its device open all the time, and does a slice of the work, a moment at a time.

What slows the machine for a second then slows all of them.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import scsiusb
from benchkit.programs import ProgramFailed
from benchkit.work import Runner, Slice, Timing, Way, together
from tests.kernel.machine import Unit

SETTLING = 2.0  # seconds: the warden, a Python of its own, starts slowly under emulation
FAILURES = (
    scsiusb.ScsiUsbError,
    ProgramFailed,
    OSError,
    ValueError,
    AssertionError,
    subprocess.SubprocessError,
    LookupError,
    RuntimeError,
)


@dataclass(frozen=True)
class Contestant:
    key: str
    unit: Unit
    way: Way
    share: int  # of the work that it does: one in so many


@dataclass(frozen=True)
class Subject:
    """What all do: `slices` gives those of a round, the same ones each time."""

    contestants: Sequence[Contestant]
    size: int
    slices: Callable[[], Iterable[Slice]]
    figures: Callable[[Timing], Mapping[str, float]]


@dataclass(frozen=True)
class Result:
    """Of a contestant in a round."""

    key: str
    number: int
    outcome: Mapping[str, float] | Exception


def contest(subject: Subject, rounds: int) -> Iterator[Result]:
    """Each one's figures, round by round. Who fails is out, and the others go on."""
    with ExitStack() as stack:
        running: dict[Contestant, Runner] = {}
        for each in subject.contestants:
            try:
                running[each] = stack.enter_context(each.way(each.unit, subject.size))
            except FAILURES as error:
                yield Result(each.key, 0, error)
        time.sleep(SETTLING)
        first = next(iter(subject.slices()))  # the emulator translates what it has not met yet
        _, failed = _round(running, [first])
        yield from _out(running, failed, 0)
        for number in range(rounds):
            timings, failed = _round(running, subject.slices())
            yield from _out(running, failed, number)
            for each in running:
                yield Result(each.key, number, subject.figures(together(timings[each])))


def _round(
    running: Mapping[Contestant, Runner], slices: Iterable[Slice]
) -> tuple[Mapping[Contestant, Sequence[Timing]], Mapping[Contestant, Exception]]:
    """Each slice by each in turn; another one begins each time."""
    timings: dict[Contestant, list[Timing]] = {each: [] for each in running}
    failed: dict[Contestant, Exception] = {}
    order = list(running)
    for piece in slices:
        for each in order:
            if each in failed:
                continue
            try:
                timings[each].append(running[each](piece.part(each.share)))
            except FAILURES as error:
                failed[each] = error
        order = order[1:] + order[:1]
    return timings, failed


def _out(running: dict[Contestant, Runner], failed: Mapping[Contestant, Exception], number: int) -> Iterator[Result]:
    for each, error in failed.items():
        del running[each]
        yield Result(each.key, number, error)
