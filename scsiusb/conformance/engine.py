"""Run the checks of the table on a device, recover the device before and after each, and collect the results."""

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

TIMEOUT: Final = 2.0  # seconds for each transfer: a device that does not respond for this long has failed
VERDICTS: Final = {Severity.MUST: Verdict.FAIL, Severity.SHOULD: Verdict.WARN}


@dataclass
class Report:
    """The results of the checks, in order."""

    results: list[Result] = field(default_factory=list)
    ended: str = ""
    """Why the run ended before all checks were made; empty if it did not."""
    latencies: dict[str, list[float]] = field(default_factory=dict)
    """Seconds from CBW to CSW of each exchange that ended with a CSW, by command."""

    def count(self, verdict: Verdict) -> int:
        """Return how many checks had this verdict."""
        return sum(result.verdict is verdict for result in self.results)

    @property
    def failed(self) -> list[str]:
        """The names of the checks that failed."""
        return [result.check.name for result in self.results if result.verdict is Verdict.FAIL]

    @property
    def warned(self) -> list[str]:
        """The names of the checks that gave a warning."""
        return [result.check.name for result in self.results if result.verdict is Verdict.WARN]


def run(
    transport: Transport,
    lun: int,
    checks: Iterable[Check],
    *,
    timeout: float = TIMEOUT,
    area: Area | None = None,
    on_result: Callable[[Result], object] = lambda result: None,
) -> Report:
    """Run checks on one logical unit; call `on_result` with each result as it comes.

    `timeout` is in seconds, for each transfer; `area` is the range that destructive checks may overwrite. If the device
    is unplugged or cannot be recovered, the run ends early with the reason in `Report.ended`. Raises DeviceClosed, and
    DeviceUnsupported if the transport has no port to lend.
    """
    report = Report()

    def keep(result: Result) -> None:
        report.results.append(result)
        on_result(result)

    try:
        with transport.probing() as port:
            exchange = Exchange(port, lun, timeout)
            report.latencies = exchange.latencies
            device = DeviceUnderTest(exchange, transport.max_lun, area)
            device.prepare()
            for check in checks:
                _run_one(device, check, keep)
    except DeviceGone as error:
        report.ended = f"the device has gone: {error.what}"
    except (DeviceDead, MediumChanged, NotPutBack) as error:
        report.ended = str(error)
    except (DeviceClosed, DeviceUnsupported):
        raise
    except TransportError as error:
        report.ended = f"the device could not be recovered: {error.what}"
    return report


def _run_one(device: DeviceUnderTest, check: Check, keep: Callable[[Result], None]) -> None:
    """Run one check and pass its result to `keep`, also if the run must end."""
    device.exchange.clear_evidence()
    began = time.monotonic()
    try:
        result = _evaluate(device, check)
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
        note = device.revive()
    except (DeviceDead, TransportError) as error:
        keep(_failed(result, f"after the check, the device was dead: {error}"))
        raise
    if device.stale:
        left = f"reset recovery left {device.stale} bytes of it in bulk-in, which were read and dropped"
        result = replace(result, detail=f"{result.detail}; {left}")
    keep(_failed(result, note) if note else result)


def _evaluate(device: DeviceUnderTest, check: Check) -> Result:
    """Run one check and turn what it raises into a verdict."""
    if check.needs_medium and not device.is_ready:
        return Result(check, Verdict.SKIP, f"the unit is not ready; insert a medium ({device.not_ready})")
    if check.destructive and device.area is None:
        return Result(check, Verdict.SKIP, "the check may write, and no range of blocks was given")
    try:
        return Result(check, Verdict.PASS, check.function(device))
    except NotApplicable as reason:
        return Result(check, Verdict.SKIP, str(reason))
    except Violation as violation:
        return Result(check, VERDICTS[check.severity], str(violation))
    except (DeviceGone, DeviceClosed):
        raise
    except TransportError as error:
        return Result(check, VERDICTS[check.severity], f"{error.what}; expected a reply")


def _result(device: DeviceUnderTest, check: Check, verdict: Verdict, detail: str, began: float) -> Result:
    return Result(check, verdict, detail, tuple(device.exchange.evidence), time.monotonic() - began)


def _failed(result: Result, note: str) -> Result:
    """Turn a result into a failure: a check that leaves the device unresponsive has failed, whatever it found."""
    detail = f"{result.detail}; {note}" if result.verdict is not Verdict.PASS else note
    return replace(result, verdict=Verdict.FAIL, detail=detail)
