"""Measures several ways in turns: each has its device open all the time, and performs one slice of the work per turn.

Whatever slows the machine down for a second then affects all ways alike.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import scsiusb
from benchkit.programs import ProgramFailed
from benchkit.work import Runner, Slice, Timing, Way, combined
from tests.kernel.machine import Unit

SETTLING = 2.0  # seconds: the warden, another Python process, starts slowly under emulation
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
    """One way to do the work, on its device."""

    key: str
    unit: Unit
    way: Way
    share: int  # it does 1 / share of the work


@dataclass(frozen=True)
class Subject:
    """What all contestants do: `slices` returns the slices of a round, the same ones on each call."""

    contestants: Sequence[Contestant]
    size: int
    slices: Callable[[], Iterable[Slice]]
    figures: Callable[[Timing], Mapping[str, float]]


@dataclass(frozen=True)
class Result:
    """What a contestant measured in one round, or the error that ended it."""

    key: str
    number: int
    outcome: Mapping[str, float] | Exception


def contest(subject: Subject, rounds: int) -> Iterator[Result]:
    """Yield the figures of each contestant, round by round. A contestant that fails is dropped; the others go on."""
    with ExitStack() as stack:
        running: dict[Contestant, Runner] = {}
        for each in subject.contestants:
            try:
                running[each] = stack.enter_context(each.way(each.unit, subject.size))
            except FAILURES as error:
                yield Result(each.key, 0, error)
        time.sleep(SETTLING)
        first = next(iter(subject.slices()))  # not timed: the emulator translates code on its first run
        _, failed = _round(running, [first])
        yield from _drop(running, failed, 0)
        for number in range(rounds):
            timings, failed = _round(running, subject.slices())
            yield from _drop(running, failed, number)
            for each in running:
                yield Result(each.key, number, subject.figures(combined(timings[each])))


def _round(
    running: Mapping[Contestant, Runner], slices: Iterable[Slice]
) -> tuple[Mapping[Contestant, Sequence[Timing]], Mapping[Contestant, Exception]]:
    """Run each slice with each contestant in turn; the order rotates, so that no one is always first."""
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


def _drop(running: dict[Contestant, Runner], failed: Mapping[Contestant, Exception], number: int) -> Iterator[Result]:
    """Remove the contestants that failed, and yield their errors."""
    for each, error in failed.items():
        del running[each]
        yield Result(each.key, number, error)
