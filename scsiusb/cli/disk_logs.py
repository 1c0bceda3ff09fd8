"""The logs of a disk on the terminal: errors, self-tests, statistics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from scsiusb.cli.options import settings
from scsiusb.cli.output import show, show_json, show_table

if TYPE_CHECKING:
    from scsiusb.ata.smart_logs import ErrorLog, PastTest
    from scsiusb.disk.disk import Disk

SAT: Final = "sat"


class Shown(NamedTuple):
    """A log as a record and as a table; `none` is for one without rows."""

    record: dict[str, Any]
    titles: tuple[str, ...]
    rows: list[tuple[object, ...]]
    none: str


def _errors(disk: Disk, via: str | None) -> Shown:
    from scsiusb.ata.smart_logs import read_errors

    return _of_errors(read_errors(disk.unit, via))


def _extended_errors(disk: Disk, via: str | None) -> Shown:
    from scsiusb.ata.general_logs import read_extended_errors

    return _of_errors(read_extended_errors(disk.unit))


def _of_errors(found: ErrorLog) -> Shown:
    rows = [(each.number, each.hours, each.what, each.lba, _code_text(each.command)) for each in found.errors]
    none = f"no error is in the log; {found.count} in its life"
    return Shown(asdict(found), ("number", "hours", "error", "LBA", "command"), list(rows), none)


def _code_text(code: int | None) -> str | None:
    return None if code is None else f"{code:02X}h"


def _self_tests(disk: Disk, via: str | None) -> Shown:
    from scsiusb.ata.smart_logs import read_self_tests

    return _of_tests(read_self_tests(disk.unit, via))


def _extended_tests(disk: Disk, via: str | None) -> Shown:
    from scsiusb.ata.general_logs import read_extended_tests

    return _of_tests(read_extended_tests(disk.unit))


def _of_tests(tests: tuple[PastTest, ...]) -> Shown:
    rows = [(each.hours, each.kind, each.result, each.lba) for each in tests]
    record = {"self_tests": [asdict(each) for each in tests]}
    return Shown(record, ("hours", "test", "result", "first bad LBA"), list(rows), "no self-test is in the log")


def _statistics(disk: Disk, via: str | None) -> Shown:
    from scsiusb.ata.statistics import NAMES, read_statistics

    found = read_statistics(disk.unit)
    record: dict[str, Any] = {}
    for each in found:
        page = record.setdefault(NAMES[each.page].replace(" ", "_"), {})
        page[each.name] = {"value": each.value, "normalized": each.normalized, "limit_met": each.met}
    rows = [(NAMES[each.page], each.name.replace("_", " "), each.value, "met" if each.met else None) for each in found]
    return Shown({"statistics": record}, ("page", "statistic", "value", "limit"), list(rows), "the disk keeps none")


def _queue_error(disk: Disk, via: str | None) -> Shown:
    from scsiusb.ata.general_logs import read_queue_error

    found = read_queue_error(disk.unit)
    rows = [] if found.tag is None else [(found.tag, found.what, found.lba, f"{found.status:02X}h")]
    return Shown(asdict(found), ("tag", "error", "LBA", "status"), list(rows), "no queued command has failed")


def _directory(disk: Disk, via: str | None) -> Shown:
    from scsiusb.ata.log_directory import log_name, sizes_of_logs

    found = sizes_of_logs(disk.unit)
    logs = [{"address": address, "name": log_name(address), "pages": pages} for address, pages in found.items()]
    rows = [(f"{address:02X}h", log_name(address), pages) for address, pages in found.items()]
    return Shown({"logs": logs}, ("address", "log", "pages"), list(rows), "the disk has no logs")


ANY_DISK: Final[dict[str, Callable[[Disk, str | None], Shown]]] = {"errors": _errors, "self-tests": _self_tests}
BY_48_BITS: Final[dict[str, Callable[[Disk, str | None], Shown]]] = {
    "errors-ext": _extended_errors,
    "self-tests-ext": _extended_tests,
    "statistics": _statistics,
    "ncq": _queue_error,
    "directory": _directory,
}
LOGS: Final = (*ANY_DISK, *BY_48_BITS)


def show_log(disk: Disk, via: str | None, log: str, device_of: dict[str, Any]) -> None:
    """Read a log, one of `LOGS`, and print it."""
    if log in BY_48_BITS and via not in (None, SAT):
        raise click.UsageError(f"--log {log} needs commands of 48 bits, which --via {via} does not have")
    shown = {**ANY_DISK, **BY_48_BITS}[log](disk, via)
    if settings().json:
        show_json({**shown.record, "device": device_of})
    elif shown.rows:
        show_table(shown.titles, shown.rows)
    else:
        show(shown.none)
