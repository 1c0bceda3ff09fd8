"""The part that runs in the guest: prints one JSON object per line, for each figure of each round."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchkit.cases import QUICK, Case, Extent, cases, subjects
from benchkit.turns import FAILURES, Result, Subject, contest


def measure(parts: Sequence[str], rounds: int, quick: bool) -> None:
    """Measure the parts, in turns where they have ways to compare; print each result at once."""
    _print(machine={"guest kernel": platform.release(), "python": platform.python_version()})
    extent = QUICK if quick else Extent()
    for part in parts:
        for subject in subjects(part, extent):
            _contest(subject, rounds)
    todo = [case for part in parts for case in cases(part, extent)]
    for number in range(rounds):
        for case in todo:
            if number == 0 or not case.once:
                _measure(case, number, rounds)


def _contest(subject: Subject, rounds: int) -> None:
    """Measure a subject. An error outside of all turns, as in closing, is reported under the subject's name."""
    began = time.monotonic()
    try:
        for result in contest(subject, rounds):
            _report(result, rounds, time.monotonic() - began)
    except FAILURES as error:
        title = subject.contestants[0].key.partition(":")[0]
        _report(Result(title, rounds - 1, error), rounds, time.monotonic() - began)


def _measure(case: Case, number: int, rounds: int) -> None:
    began = time.monotonic()
    outcome: Mapping[str, float] | Exception
    try:
        outcome = case.run()
    except FAILURES as error:
        outcome = error
    _report(Result(case.key, number, outcome), rounds, time.monotonic() - began)


def _report(result: Result, rounds: int, seconds: float) -> None:
    """Report a result on stdout as JSON and on stderr as text."""
    outcome = result.outcome
    if isinstance(outcome, Exception):
        words = f"{type(outcome).__name__}: {outcome}"
        _print(key=result.key, round=result.number, error=words)
    else:
        words = ", ".join(f"{value:.1f} {measure}" for measure, value in outcome.items())
        _print(key=result.key, round=result.number, figures=outcome)
    line = f"round {result.number + 1} of {rounds}, {seconds:4.1f} s: {result.key}: {words}"
    print(line, file=sys.stderr, flush=True)


def _print(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)
