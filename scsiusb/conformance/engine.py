"""Runs the checks of the table on a device, each from a device in step, and judges what comes of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import field, replace
from typing import Final

from scsiusb.base.dataclass import dataclass
from scsiusb.conformance.device_under_test import Area, DeviceDead, DeviceUnderTest, MediumChanged, NotPutBack
from scsiusb.conformance.exchange import Exchange
from scsiusb.conformance.outcome import Check, NotApplicable, Result, Severity, Verdict, Violation
from scsiusb.errors import DeviceClosed, DeviceGone, DeviceUnsupported, TransportError
from scsiusb.transport.base import Transport

TIMEOUT: Final = 2.0  # seconds for each transfer: a device that has nothing to say for so long is stuck
VERDICTS: Final = {Severity.MUST: Verdict.FAIL, Severity.SHOULD: Verdict.WARN}


@dataclass
class Report:
    """What came of the checks, in order."""

    results: list[Result] = field(default_factory=list)
    ended: str = ""
    """Why not all of them were made, if so."""
    latencies: dict[str, list[float]] = field(default_factory=dict)
    """Seconds from CBW to CSW of each exchange that came to its end, by command."""

    def count(self, verdict: Verdict) -> int:
        return sum(result.verdict is verdict for result in self.results)

    @property
    def failed(self) -> list[str]:
        """The names of the checks that failed."""
        return [result.check.name for result in self.results if result.verdict is Verdict.FAIL]

    @property
    def warned(self) -> list[str]:
        return [result.check.name for result in self.results if result.verdict is Verdict.WARN]


def run(
    transport: Transport,
    lun: int,
    checks: Iterable[Check],
    *,
    timeout: float = TIMEOUT,
    area: Area | None = None,
    tell: Callable[[Result], object] = lambda result: None,
) -> Report:
    """Makes the checks and tells each result as it comes. An unplugged or dead device ends it with what was found."""
    report = Report()

    def keep(result: Result) -> None:
        report.results.append(result)
        tell(result)

    try:
        with transport.probing() as port:
            exchange = Exchange(port, lun, timeout)
            report.latencies = exchange.latencies
            device = DeviceUnderTest(exchange, transport.max_lun, area)
            device.prepare()
            for check in checks:
                _make(device, check, keep)
    except DeviceGone as error:
        report.ended = f"the device has gone: {error.what}"
    except (DeviceDead, MediumChanged, NotPutBack) as error:
        report.ended = str(error)
    except (DeviceClosed, DeviceUnsupported):
        raise
    except TransportError as error:
        report.ended = f"the device could not be recovered: {error.what}"
    return report


def _make(device: DeviceUnderTest, check: Check, keep: Callable[[Result], None]) -> None:
    device.exchange.begin()
    began = time.monotonic()
    try:
        result = _judged(device, check)
    except DeviceGone as error:
        keep(_result(device, check, Verdict.FAIL, f"the device left the bus: {error.what}", began))
        raise
    except MediumChanged as error:
        keep(_result(device, check, Verdict.SKIP, str(error), began))
        raise
    except NotPutBack as error:
        keep(_result(device, check, Verdict.FAIL, str(error), began))
        raise
    result = replace(result, evidence=tuple(device.exchange.evidence), seconds=time.monotonic() - began)
    try:
        trouble = device.revive()
    except (DeviceDead, TransportError) as error:
        keep(_worse(result, f"afterwards the device was dead: {error}"))
        raise
    keep(_worse(result, trouble) if trouble else result)


def _judged(device: DeviceUnderTest, check: Check) -> Result:
    if check.needs_medium and not device.is_ready:
        return Result(check, Verdict.SKIP, "the unit is not ready: is there a medium?")
    if check.destructive and device.area is None:
        return Result(check, Verdict.SKIP, "it may write, and no range of blocks was named for that")
    try:
        return Result(check, Verdict.PASS, check.function(device))
    except NotApplicable as reason:
        return Result(check, Verdict.SKIP, str(reason))
    except Violation as violation:
        return Result(check, VERDICTS[check.severity], str(violation))
    except (DeviceGone, DeviceClosed):
        raise
    except TransportError as error:
        return Result(check, VERDICTS[check.severity], f"{error.what}; expected an answer")


def _result(device: DeviceUnderTest, check: Check, verdict: Verdict, detail: str, began: float) -> Result:
    return Result(check, verdict, detail, tuple(device.exchange.evidence), time.monotonic() - began)


def _worse(result: Result, trouble: str) -> Result:
    """Whatever the check found, a device that it leaves dead fails it."""
    detail = f"{result.detail}; {trouble}" if result.verdict is not Verdict.PASS else trouble
    return replace(result, verdict=Verdict.FAIL, detail=detail)
