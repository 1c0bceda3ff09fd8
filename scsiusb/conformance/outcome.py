"""The declaration of a check, and its possible outcomes."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any

from scsiusb.base.copying import PicklableError
from scsiusb.base.dataclass import dataclass

if TYPE_CHECKING:
    from scsiusb.conformance.device_under_test import DeviceUnderTest


class Severity(Enum):
    """How strict a demand is."""

    MUST = "must"  # a device that fails the check violates the specification
    SHOULD = "should"  # the specification recommends it, or most hosts tolerate the deviation


class Verdict(Enum):
    """The outcome of a check."""

    PASS = "pass"
    FAIL = "fail"
    WARN = "warn"  # as FAIL, for a check of severity SHOULD
    SKIP = "skip"  # cannot be checked on this device


class Violation(PicklableError):
    """The device does not meet the demand: what was requested, what came, and what was expected."""

    def __init__(self, asked: str, came: str, expected: str) -> None:
        super().__init__(f"{asked}: {came}; expected {expected}")


class NotApplicable(Exception):
    """The check cannot be made on this device; the message is the reason."""


@dataclass(frozen=True)
class Check:
    """One demand of a specification, and the function that checks it.

    `function` returns what it saw, or raises Violation or NotApplicable.
    """

    name: str
    section: str
    demand: str
    function: Callable[[DeviceUnderTest], str]
    severity: Severity = Severity.MUST
    needs_medium: bool = False
    destructive: bool = False
    """The check writes, or could make a broken device write; it runs only in a range of blocks that the user gives."""


@dataclass(frozen=True)
class Result:
    """The result of one check, with the packets that were exchanged as evidence."""

    check: Check
    verdict: Verdict
    detail: str
    evidence: tuple[dict[str, Any], ...] = ()
    seconds: float = 0.0
