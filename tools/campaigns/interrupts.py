"""An exception at every bytecode of the driver, and real signals at random moments: nothing may be left held."""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections import Counter
from typing import Any

from campaigns.report import Report

ERRORS = (KeyboardInterrupt, MemoryError)
SLOWER = 1.2  # times the duration of a scenario: so late may a signal come


def run(options: argparse.Namespace, report: Report) -> None:
    """Try each scenario with each error, then the signals."""
    from tests.injection.scenarios import SCENARIOS, quiet

    with quiet():
        for name in SCENARIOS:
            for error in ERRORS:
                inject_all(name, error, options, report)
    if options.signals:
        signal_all(options, report)


def inject_all(name: str, error: type[BaseException], options: argparse.Namespace, report: Report) -> None:
    """Raise the error at every n-th instruction, until the time is over or the scenario has no more of them."""
    from tests.injection.scenarios import inject

    began, tried, count = time.monotonic(), 0, 1 + options.seed % options.every
    faults: list[str] = []
    while time.monotonic() - began < options.seconds:
        raised, found = inject(name, error, count)
        faults += [f"{name}: {error.__name__} at {raised.where}: {fault}" for fault in found]
        if raised.at < 0:
            break
        tried += 1
        count += options.every
    report.line(faults, scenario=name, error=error.__name__, tried=tried, last=count, every=options.every)
    report.summary["exceptions"] = report.summary.get("exceptions", 0) + tried


def signal_all(options: argparse.Namespace, report: Report) -> None:
    """Send the signals in a child process, which reports through a pipe."""
    if sys.platform == "win32":
        raise NotImplementedError
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.close(reading)
            with os.fdopen(writing, "w") as out:
                json.dump(signals(options.signals, options.seed), out)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as answers:
        text = answers.read()
    _, status = os.waitpid(child, 0)
    facts: dict[str, Any] = (
        json.loads(text) if text else {"faults": [f"the child ended with status {status}"], "signals": 0}
    )
    report.line(facts.pop("faults"), **facts)
    report.summary["signals"] = facts["signals"]
    report.words.append(f"{facts['signals']} signals")


def signals(number: int, seed: int) -> dict[str, Any]:
    """Interrupt scenarios until so many signals have come in the driver; return the figures."""
    from tests.injection.scenarios import SCENARIOS, alarm, quiet

    choice = random.Random(seed)
    where: Counter[str] = Counter()
    faults: list[str] = []
    durations: dict[str, float] = {}
    runs = 0
    with quiet():
        for name in SCENARIOS:
            began = time.monotonic()
            alarm(name, 0)
            alarm(name, 60)
            durations[name] = (time.monotonic() - began) * SLOWER
        while where.total() < number:
            name = choice.choice(tuple(SCENARIOS))
            made, found = alarm(name, choice.uniform(0, durations[name]))
            runs += 1
            faults += [f"{name}: a signal at {made.where}: {fault}" for fault in found]
            if made.where:
                where[made.where] += 1
    return {"signals": where.total(), "runs": runs, "places": len(where), "faults": faults}
