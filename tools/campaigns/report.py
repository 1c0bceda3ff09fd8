"""The output of a campaign: a JSON object for each step, a summary, and a verdict."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any, TextIO


class Report:
    """Collects the faults, and what the summary consists of."""

    def __init__(self, campaign: str, seed: int, out: TextIO) -> None:
        self._campaign = campaign
        self._seed = seed
        self._out = out
        self._began = time.monotonic()
        self.faults: list[str] = []
        self.summary: dict[str, Any] = {}
        self.words: list[str] = []
        """The figures of the verdict: "200 kills", "0 stale"."""

    def line(self, faults: Sequence[str] = (), **facts: Any) -> None:
        """Print the facts of one step, and the faults that were found in it."""
        self.faults += faults
        self._print({**facts, "ok": not faults, "faults": list(faults)})

    def close(self) -> int:
        """Print the summary and the verdict; return the exit status."""
        held = not self.faults
        seconds = round(time.monotonic() - self._began, 1)
        plain = {"campaign": self._campaign, "seed": self._seed, "held": held, "seconds": seconds}
        self._print({**plain, **self.summary, "faults": self.faults[:20], "fault_count": len(self.faults)})
        verdict = "passed" if held else f"FAILED, {len(self.faults)} faults, the first: {self.faults[0]}"
        words = ", ".join([f"seed {self._seed}", *self.words, f"{seconds:.0f} s"])
        print(f"{self._campaign} campaign ({words}): {verdict}", file=sys.stderr, flush=True)
        return 0 if held else 1

    def _print(self, facts: dict[str, Any]) -> None:
        print(json.dumps(facts), file=self._out, flush=True)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, 95th percentile and maximum."""
    if not values:
        return {}
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    found = {"median": statistics.median(ordered), "p95": p95, "max": ordered[-1]}
    return {name: round(value, 4) for name, value in found.items()}


def in_words(values: Sequence[float]) -> str:
    """Return median and maximum as text; the values are seconds."""
    found = spread(values)
    return f"{found['median']:.3f} s (median) to {found['max']:.3f} s" if found else "never"
