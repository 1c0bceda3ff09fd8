"""All checks, by topic, in the order in which they run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import Final

from scsiusb.conformance.checks import (
    blocks,
    cases,
    descriptors,
    identity,
    modes,
    recovering,
    requests,
    sensing,
    wrappers,
    writing,
)
from scsiusb.conformance.outcome import Check

GROUPS: Final[Mapping[str, Sequence[Check]]] = MappingProxyType(
    {
        "descriptors": descriptors.CHECKS,
        "control requests": requests.CHECKS,
        "the thirteen cases": cases.CHECKS,
        "wrappers": wrappers.CHECKS,
        "sense": sensing.CHECKS,
        "identity": identity.CHECKS,
        "modes": modes.CHECKS,
        "blocks": blocks.CHECKS,
        "recovery and timing": recovering.CHECKS,
        "writing": writing.CHECKS,
    }
)
CHECKS: Final[Mapping[str, Check]] = MappingProxyType(
    {check.name: check for check in chain.from_iterable(GROUPS.values())}
)
