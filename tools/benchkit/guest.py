"""The part that runs in the guest: every case once in each round, a JSON object a line for whoever started it."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import scsiusb
from benchkit.cases import QUICK, Case, Extent, cases
from benchkit.programs import ProgramFailed

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


def measure(parts: Sequence[str], rounds: int, quick: bool) -> None:
    _print(machine={"guest kernel": platform.release(), "python": platform.python_version()})
    extent = QUICK if quick else Extent()
    todo = [case for part in parts for case in cases(part, extent)]
    for number in range(rounds):
        for case in todo:
            if number == 0 or not case.once:
                _measure(case, number, rounds)


def _measure(case: Case, number: int, rounds: int) -> None:
    began = time.monotonic()
    try:
        figures = case.run()
    except FAILURES as error:
        said = f"{type(error).__name__}: {error}"
        _print(key=case.key, round=number, error=said)
    else:
        said = ", ".join(f"{value:.1f} {measure}" for measure, value in figures.items())
        _print(key=case.key, round=number, figures=figures)
    seconds = time.monotonic() - began
    print(f"round {number + 1} of {rounds}, {seconds:4.1f} s: {case.key}: {said}", file=sys.stderr, flush=True)


def _print(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)
