"""The command logs: shows log pages."""

from __future__ import annotations

from typing import Any

import click

from scsiusb.cli.device import device_argument, device_record, opened
from scsiusb.cli.options import global_options, settings
from scsiusb.cli.output import hex_dump, say, show, show_json, show_record, show_table
from scsiusb.scsi.commands.spc_parameters import LogSense
from scsiusb.scsi.pages.log import SUPPORTED, LogPage, LogParameter, page_called, page_name


def _page(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    try:
        return None if value is None else page_called(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command("logs", short_help="Show log pages: errors, temperature, self-tests.")
@device_argument
@click.option("--page", metavar="NAME|HEX", callback=_page, help="A page: temperature, self-tests, …, or d; 19,20.")
@click.option("--all", "is_all", is_flag=True, help="All pages that the unit has.")
@global_options
def logs_command(device: str | None, lun: int | None, page: tuple[int, int] | None, is_all: bool) -> None:
    """List the log pages of a unit, or show one of them, or all (LOG SENSE).

    Few USB sticks have any; disks and SSDs have more.

    \b
    Examples:
      scsiusb logs 2-1
      scsiusb logs 2-1 --page temperature
      scsiusb logs 2-1 --all --json
    """
    if page is not None and is_all:
        raise click.UsageError("--page and --all cannot be used together")
    with opened(device, lun) as disk:
        first = disk.execute(LogSense(*(page or (SUPPORTED, 0))))
        rest = [each for each in first.pages if each != (SUPPORTED, 0)] if is_all else []
        found = [disk.execute(LogSense(*each)) for each in rest] if is_all else [first]
        device_of = device_record(disk)
    if settings().json:
        records = {each.name: log_record(each) for each in found}
        show_json({**(records if page is None and is_all else log_record(first)), "device": device_of})
        return
    for each in found:
        show_log(each)
        for problem in each.problems:
            say(f"scsiusb: warning: {problem}")


def log_record(page: LogPage) -> dict[str, Any]:
    """Return a page as names and values for JSON."""
    record: dict[str, Any] = {"page": page.code, "subpage": page.subpage, "name": page.name}
    if page.code == SUPPORTED:
        rows = [{"page": code, "subpage": subpage, "name": page_name(code, subpage)} for code, subpage in page.pages]
        return {**record, "pages": rows, "problems": page.problems}
    parameters = [_parameter_record(each) for each in page.parameters]
    return {**record, "parameters": parameters, "problems": page.problems}


def _parameter_record(each: LogParameter) -> dict[str, Any]:
    entries = {"entries": each.entries} if each.entries else {}
    return {"code": each.code, "name": each.name, **each.values, **entries, "data": each.data}


def show_log(page: LogPage) -> None:
    """Print a page."""
    if page.code == SUPPORTED:
        rows = [(f"{code:02x}" + (f",{sub:02x}" if sub else ""), page_name(code, sub)) for code, sub in page.pages]
        show_table(("page", "name"), rows)
    else:
        show(f"{page.name} ({page.code:02X}h)")
        for each in page.parameters:
            values = ", ".join(value if name == "value" else f"{name} {value}" for name, value in _texts(each.values))
            show(f"  {each.name}: {values}" if values else f"  {each.name}:\n{hex_dump(each.data)}")
            for entry in each.entries:
                show("")
                show_record({name.replace("_", " "): _entry_text(name, value) for name, value in entry.items()})


def _entry_text(name: str, value: int) -> str:
    return f"{value:016x}" if name.endswith("address") else str(value)


def _texts(values: dict[str, int]) -> list[tuple[str, str]]:
    return [(name, str(value)) for name, value in values.items()]
