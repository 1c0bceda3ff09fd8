"""Measured values by round, and what is computed from them: medians, and medians of ratios."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Name = tuple[str, str]  # the key and the measure of a figure


@dataclass
class Samples:
    """Values by name and round, in the order in which they were added."""

    values: dict[Name, dict[int, float]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    """The last error of each key."""

    def add(self, key: str, number: int, figures: Mapping[str, float]) -> None:
        """Add the figures of one round."""
        for measure, value in figures.items():
            self.values.setdefault((key, measure), {})[number] = value

    def fail(self, key: str, error: str) -> None:
        """Record an error in place of figures."""
        self.errors[key] = error

    def of(self, name: Name) -> list[float]:
        """Return the values of a figure, one per round."""
        return list(self.values.get(name, {}).values())

    def median(self, name: Name) -> float | None:
        """Return the median of a figure; None if it was not measured."""
        values = self.of(name)
        return statistics.median(values) if values else None

    def ratios(self, upper: Name, lower: Name) -> list[float]:
        """Return upper / lower for each round in which both were measured."""
        above, below = self.values.get(upper, {}), self.values.get(lower, {})
        return [above[number] / below[number] for number in above if below.get(number)]

    def as_json(self) -> dict[str, Any]:
        """Return the values as JSON types: by key and measure, with null for a round that is missing."""
        found: dict[str, Any] = {}
        for (key, measure), values in self.values.items():
            rounds = [values.get(number) for number in range(max(values) + 1)]
            found.setdefault(key, {})[measure] = {"median": statistics.median(values.values()), "rounds": rounds}
        return found


def from_json(figures: Mapping[str, Any]) -> Samples:
    """Return the samples that `Samples.as_json` returned."""
    samples = Samples()
    for key, measures in figures.items():
        for measure, found in measures.items():
            rounds = enumerate(found["rounds"])
            samples.values[key, measure] = {number: value for number, value in rounds if value is not None}
    return samples


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Return median, minimum and maximum."""
    return statistics.median(values), min(values), max(values)


def subjects(samples: Samples) -> Iterator[tuple[str, list[Name]]]:
    """Yield each subject with its figures, in the order of the samples; in a key, the way follows the colon."""
    found: dict[str, list[Name]] = {}
    for key, measure in samples.values:
        found.setdefault(key.partition(":")[0], []).append((key, measure))
    yield from found.items()
