"""The check command: run the conformance checks on a device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from statistics import median
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from scsiusb.base.text import printable
from scsiusb.cli.ask import confirm, require_terminal
from scsiusb.cli.device import device_argument, device_record, name_of, opened
from scsiusb.cli.options import completions, global_options, number_option, settings
from scsiusb.cli.output import counted, show, show_json, show_table
from scsiusb.conformance.device_under_test import Area
from scsiusb.conformance.engine import TIMEOUT, Report, run
from scsiusb.conformance.outcome import Check, Result, Verdict
from scsiusb.conformance.table import CHECKS, GROUPS
from scsiusb.errors import ScsiUsbError
from scsiusb.transport.base import Transport

MARKS: Final = {Verdict.PASS: "ok", Verdict.FAIL: "!!", Verdict.WARN: " ?", Verdict.SKIP: "--"}
WIDTH: Final = max(map(len, CHECKS))
NAME_A_RANGE: Final = "give --destructive --lba N --blocks N"
TOPICS: Final = {check.name: topic for topic, checks in GROUPS.items() for check in checks}


def _complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return completions([(check.name, check.demand) for check in CHECKS.values()], incomplete)


@click.command("check", short_help="Check a device against the specifications.")
@device_argument
@click.option(
    "--only",
    metavar="NAME",
    multiple=True,
    shell_complete=_complete,
    help="Run only this check, or a pattern (case-*); may be repeated.",
)
@click.option(
    "--skip",
    metavar="NAME",
    multiple=True,
    shell_complete=_complete,
    help="Skip this check, or a pattern; may be repeated.",
)
@click.option("--list", "listing", is_flag=True, help="List the checks; needs no device.")
@click.option("--destructive", is_flag=True, help="Also run the checks that write, in a range of blocks.")
@number_option("--lba", help="First block that may be overwritten.")
@number_option("--blocks", help="Number of blocks that may be overwritten; 4 are enough.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@global_options
def check_command(
    device: str | None,
    lun: int | None,
    only: tuple[str, ...],
    skip: tuple[str, ...],
    listing: bool,
    destructive: bool,
    lba: int | None,
    blocks: int | None,
    yes: bool,
) -> None:
    """Check that a device conforms to the USB and SCSI specifications.

    For developers of devices. Each failed check shows what was requested, what
    came, what was expected, and the section of the specification. With --json,
    the packets of each check are included.

    Only reads, and changes no settings, unless --destructive is given: then the
    blocks in the range are overwritten, and their content is restored. The device
    is recovered before and after each check. The timeout of each transfer is 2 s,
    unless --timeout is given.

    Marks: ok passed, !! failed, ? warning (a recommendation), -- skipped. The
    exit status is 0 if no check failed, 99 if one failed or all were skipped.

    \b
    Examples:
      scsiusb check 2-1
      scsiusb check 2-1 --only 'case-*' --json
      scsiusb check 2-1 --destructive --lba 2048 --blocks 8
      scsiusb check --list
    """
    chosen = _chosen(only, skip)
    if listing:
        _list(chosen)
        return
    area = _area(destructive, lba, blocks)
    if area and not yes:
        require_terminal("the checks that write")
    with opened(device, lun, protocol="bot") as disk:
        if area:
            disk.check_range(area.lba, area.blocks)
            if not yes:
                _ask(device, area)
        transport = disk.unit.transport
        report = _run(transport, disk.unit.lun, chosen, area)
        if area is None:
            report.results[:] = map(_with_hint, report.results)
    if settings().json:
        device_of = device_record(disk)
        show_json({"device": device_of, "address": device_of["address"], "lun": device_of["lun"], **_record(report)})
    else:
        show(_summary(report))
    _judge(report)


def _chosen(only: Sequence[str], skip: Sequence[str]) -> list[Check]:
    for pattern in (*only, *skip):
        if not any(fnmatchcase(name, pattern) for name in CHECKS):
            raise click.UsageError(f"there is no check {printable(pattern)!r} in the list of `scsiusb check --list`")
    chosen = [check for check in CHECKS.values() if not only or _is_like(check, only)]
    return [check for check in chosen if not _is_like(check, skip)]


def _is_like(check: Check, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(check.name, pattern) for pattern in patterns)


def _list(checks: Sequence[Check]) -> None:
    rows = [(check.name, check.section, check.severity.value, check.destructive, check.demand) for check in checks]
    columns = ("check", "section", "severity", "destructive", "demand")
    if settings().json:
        show_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        show_table(columns, rows, wrapped=("demand",), optional=("section", "severity", "destructive"))


def _area(destructive: bool, lba: int | None, blocks: int | None) -> Area | None:
    if destructive != (lba is not None) or destructive != (blocks is not None):
        raise click.UsageError("--destructive, --lba and --blocks must be used together")
    if lba is None or blocks is None:
        return None
    if not blocks:
        raise click.UsageError("--blocks must be at least 1")
    return Area(lba, blocks)


def _ask(device: str | None, area: Area) -> None:
    place = f"LBA {area.lba} to {area.lba + area.blocks - 1}"
    confirm(f"Overwrite {place} of {name_of(device)}, and restore the content afterwards?")


def _run(transport: Transport, lun: int, checks: Sequence[Check], area: Area | None) -> Report:
    timeout = settings().timeout or TIMEOUT
    on_result = _ignore if settings().json else lambda result: _show(_with_hint(result) if area is None else result)
    return run(transport, lun, checks, timeout=timeout, area=area, on_result=on_result)


def _with_hint(result: Result) -> Result:
    """Add the options for a range to a result that was skipped because no range was given."""
    if not result.check.destructive or result.verdict is not Verdict.SKIP:
        return result
    return replace(result, detail=f"{result.detail}; {NAME_A_RANGE}")


def _ignore(result: Result) -> None:
    """Print nothing: JSON is printed once, at the end."""


def _show(result: Result) -> None:
    check = result.check
    detail = printable(result.detail)
    if result.verdict in (Verdict.FAIL, Verdict.WARN):
        show(f"{MARKS[result.verdict]}  {check.name:<{WIDTH}}  {check.section}: {check.demand}")
        show(f"{'':<{WIDTH + 6}}{detail}")
    else:
        show(f"{MARKS[result.verdict]}  {check.name:<{WIDTH}}  {detail}")


def _record(report: Report) -> dict[str, Any]:
    counts = {verdict.value: report.count(verdict) for verdict in Verdict}
    latency = {command: _latency(seconds) for command, seconds in report.latencies.items()}
    rows = [_row(result) for result in report.results]
    return {**counts, "ended": report.ended or None, "latency": latency, "checks": rows}


def _latency(seconds: Sequence[float]) -> dict[str, Any]:
    return {"count": len(seconds), "median": round(median(seconds), 6), "most": round(max(seconds), 6)}


def _row(result: Result) -> dict[str, Any]:
    check = result.check
    return {
        "check": check.name,
        "topic": TOPICS[check.name],
        "section": check.section,
        "severity": check.severity.value,
        "demand": check.demand,
        "verdict": result.verdict.value,
        "detail": result.detail,
        "seconds": round(result.seconds, 6),
        "evidence": result.evidence,
    }


def _summary(report: Report) -> str:
    warnings = counted(report.count(Verdict.WARN), "warning")
    passed, failed, skipped = (report.count(verdict) for verdict in (Verdict.PASS, Verdict.FAIL, Verdict.SKIP))
    return f"{passed} passed, {failed} failed, {warnings}, {skipped} skipped"


def _judge(report: Report) -> None:
    """Raise ScsiUsbError if the run ended early, a check failed, or no check was run."""
    failed, made = report.count(Verdict.FAIL), len(report.results)
    if report.ended:
        raise ScsiUsbError(f"the run ended after {counted(made, 'check')}: {report.ended}", "see the last check")
    if failed:
        raise ScsiUsbError(f"{failed} of {counted(made, 'check')} failed", "see the lines that begin with !!")
    if report.count(Verdict.SKIP) == made:
        why = "see the lines that begin with --" if made else "--only and --skip leave no check"
        raise ScsiUsbError("no check could be run", why)
