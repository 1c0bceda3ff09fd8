"""What was measured, round by round, and what follows from it: medians, and medians of ratios."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Name = tuple[str, str]  # of a figure: its key and its measure


@dataclass
class Samples:
    """Values by name and round, in the order in which they came."""

    values: dict[Name, dict[int, float]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    """The last one of each key."""

    def add(self, key: str, number: int, figures: Mapping[str, float]) -> None:
        for measure, value in figures.items():
            self.values.setdefault((key, measure), {})[number] = value

    def fail(self, key: str, error: str) -> None:
        self.errors[key] = error

    def of(self, name: Name) -> list[float]:
        return list(self.values.get(name, {}).values())

    def median(self, name: Name) -> float | None:
        values = self.of(name)
        return statistics.median(values) if values else None

    def ratios(self, upper: Name, lower: Name) -> list[float]:
        """Round by round, where both are known."""
        above, below = self.values.get(upper, {}), self.values.get(lower, {})
        return [above[number] / below[number] for number in above if below.get(number)]

    def as_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for (key, measure), values in self.values.items():
            rounds = [values.get(number) for number in range(max(values) + 1)]
            found.setdefault(key, {})[measure] = {"median": statistics.median(values.values()), "rounds": rounds}
        return found


def from_json(figures: Mapping[str, Any]) -> Samples:
    samples = Samples()
    for key, measures in figures.items():
        for measure, found in measures.items():
            rounds = enumerate(found["rounds"])
            samples.values[key, measure] = {number: value for number, value in rounds if value is not None}
    return samples


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, least and most."""
    return statistics.median(values), min(values), max(values)


def subjects(samples: Samples) -> Iterator[tuple[str, list[Name]]]:
    """The figures of each subject, as they came; the way is what follows the colon."""
    found: dict[str, list[Name]] = {}
    for key, measure in samples.values:
        found.setdefault(key.partition(":")[0], []).append((key, measure))
    yield from found.items()
