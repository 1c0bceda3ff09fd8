"""How a check is declared, and what can come of one."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any

from scsiusb.base.dataclass import dataclass

if TYPE_CHECKING:
    from scsiusb.conformance.device_under_test import DeviceUnderTest


class Severity(Enum):
    MUST = "must"  # a device that does otherwise violates the specification
    SHOULD = "should"  # it may, but hosts will not like it


class Verdict(Enum):
    PASS = "pass"
    FAIL = "fail"
    WARN = "warn"  # as `fail`, of a check that is only a `should`
    SKIP = "skip"  # cannot be told of this device


class Violation(Exception):
    """The device does not do what the check demands: what was asked of it, what came, what would be right."""

    def __init__(self, asked: str, came: str, expected: str) -> None:
        super().__init__(f"{asked}: {came}; expected {expected}")


class NotApplicable(Exception):
    """The check cannot be made on this device, for a reason."""


@dataclass(frozen=True)
class Check:
    """One demand of a specification. `function` makes the device show whether it meets it.

    It returns what was seen, raises Violation, or NotApplicable where this device cannot show it.
    """

    name: str
    section: str
    demand: str
    function: Callable[[DeviceUnderTest], str]
    severity: Severity = Severity.MUST
    needs_medium: bool = False
    destructive: bool = False
    """Writes, or could make a broken device write: runs only in a range of blocks that the user names."""


@dataclass(frozen=True)
class Result:
    """What came of one check, with everything that went over the wire for it."""

    check: Check
    verdict: Verdict
    detail: str
    evidence: tuple[dict[str, Any], ...] = ()
    seconds: float = 0.0
