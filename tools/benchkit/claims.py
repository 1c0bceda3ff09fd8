"""The table of claims: bounds for figures and for ratios of figures."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchkit import names
from benchkit.names import key
from benchkit.samples import Name, Samples

AT_LEAST = "≥"
AT_MOST = "≤"


@dataclass(frozen=True)
class Claim:
    """A bound for `upper` divided by `lower`, or for `upper` alone."""

    item: int  # number in the list of requirements
    title: str
    upper: Name
    lower: Name | None
    relation: str
    bound: float

    def measured(self, samples: Samples) -> float | None:
        """Return the median over the rounds; None if it was not measured."""
        values = samples.ratios(self.upper, self.lower) if self.lower else samples.of(self.upper)
        return statistics.median(values) if values else None

    def holds(self, value: float) -> bool:
        """Report whether a value is within the bound."""
        return value >= self.bound if self.relation == AT_LEAST else value <= self.bound


@dataclass(frozen=True)
class Verdict:
    """A claim and the value that was measured."""

    claim: Claim
    value: float

    @property
    def held(self) -> bool:
        """Whether the value is within the bound."""
        return self.claim.holds(self.value)

    @property
    def wanted(self) -> str:
        """The bound as text."""
        return f"{self.claim.relation} {self.claim.bound:g}"

    def as_json(self) -> dict[str, Any]:
        """Return the verdict as JSON types."""
        return {
            "item": self.claim.item,
            "title": self.claim.title,
            "measured": self.value,
            "wanted": self.wanted,
            "held": self.held,
        }


def verdicts(samples: Samples) -> list[Verdict]:
    """Return the verdicts on the claims for which there are figures."""
    found = ((claim, claim.measured(samples)) for claim in CLAIMS)
    return [Verdict(claim, value) for claim, value in found if value is not None]


def _ratios(
    item: int, subject: str, way: str, measure: str, bounds: tuple[tuple[str, float], ...], relation: str = AT_LEAST
) -> Iterator[Claim]:
    for other, bound in bounds:
        title = f"{subject}: {way} / {other}"
        yield Claim(item, title, (key(subject, way), measure), (key(subject, other), measure), relation, bound)


def _alone(item: int, subject: str, way: str, measure: str, relation: str, bound: float) -> Claim:
    return Claim(item, f"{subject}: {way}, {measure}", (key(subject, way), measure), None, relation, bound)


READ_BOUNDS = ((names.DD, 1.2), (names.C, 0.9), (names.PYUSB, 5.0), (names.SG_DD, 10.0))
WRITE_BOUNDS = ((names.DD, 1.5), (names.C, 0.9))
RANDOM_BOUNDS = ((names.PREAD, 1.0), (names.C, 0.7), (names.PYUSB, 1.5))
REFUSED_BOUNDS = ((names.C_ORDINARY, 0.95),)
LEAST_SHARE = 0.5  # the slowest device's speed, relative to the fastest
MANY = 16
START_BOUNDS = (("scsiusb --version", 5), ("scsiusb list --json", 10), ("scsiusb inquiry virtual: --json", 10))
START_BASE = "python -c pass"

CLAIMS: tuple[Claim, ...] = (
    *_ratios(1, "read, stick", names.SCSIUSB, names.MBS, READ_BOUNDS),
    *_ratios(1, "read, gadget", names.SCSIUSB, names.MBS, READ_BOUNDS),
    *_ratios(1, "read to a file", names.CLI, names.MBS, ((names.DD, 0.9),)),
    *_ratios(2, "write, stick", names.SCSIUSB, names.MBS, WRITE_BOUNDS),
    *_ratios(2, "write, gadget", names.SCSIUSB, names.MBS, WRITE_BOUNDS),
    *_ratios(2, "write from a file", names.CLI, names.MBS, ((names.DD, 1.2),)),
    *_ratios(3, "random 4 KiB read, stick", names.SCSIUSB, names.COMMANDS, RANDOM_BOUNDS),
    *_ratios(3, "random 4 KiB read, gadget", names.SCSIUSB, names.COMMANDS, RANDOM_BOUNDS),
    _alone(4, "own cost", "readinto 4 KiB", names.COST, AT_MOST, 15),
    *_ratios(5, "read, stick", names.REFUSED, names.MBS, REFUSED_BOUNDS),
    *_ratios(5, "read, gadget", names.REFUSED, names.MBS, REFUSED_BOUNDS),
    *_ratios(5, "write, stick", names.REFUSED, names.MBS, REFUSED_BOUNDS),
    *_ratios(5, "write, gadget", names.REFUSED, names.MBS, REFUSED_BOUNDS),
    _alone(6, "10 GiB", names.STREAM, names.PEAK, AT_MOST, 60),
    _alone(6, "10 GiB", names.CLI, names.PEAK, AT_MOST, 60),
    *(
        claim
        for way in (names.READ_MANY, names.READ_MANY_RAISED)
        for claim in (
            *_ratios(6, f"{MANY} devices", way, names.MBS, ((names.DD, 0.9),)),
            _alone(6, f"{MANY} devices", way, names.EVEN, AT_LEAST, LEAST_SHARE),
        )
    ),
    *(
        claim
        for way, bound in START_BOUNDS
        for claim in _ratios(7, "start", way, names.MILLISECONDS, ((START_BASE, bound),), AT_MOST)
    ),
)
