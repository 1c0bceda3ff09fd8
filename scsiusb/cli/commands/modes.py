"""The command modes: shows mode pages by the names of their fields, and changes fields."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import click

from scsiusb.cli.ask import confirm, require_terminal
from scsiusb.cli.device import device_argument, device_record, name_of, opened
from scsiusb.cli.failure import Refused
from scsiusb.cli.options import global_options, quoted, settings
from scsiusb.cli.output import hex_dump, say, show, show_json, show_table
from scsiusb.scsi.modes import PageValues, change_page, read_pages
from scsiusb.scsi.pages.mode_pages import page_called, page_with

if TYPE_CHECKING:
    from scsiusb.disk.disk import Disk

SETTING: Final = re.compile(r"([A-Za-z][A-Za-z0-9_]*)=(0[xX][0-9a-fA-F]{1,8}|[0-9]{1,10})")
COLUMNS: Final = ("field", "current", "changeable", "default", "saved", "meaning")


def _settings(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    """Parse NAME=VALUE, also several with commas between. Raise BadParameter."""
    found: dict[str, int] = {}
    for word in ",".join(values).split(",") if values else ():
        match = SETTING.fullmatch(word.strip())
        if match is None:
            raise click.BadParameter(f"{quoted(word)} is not NAME=NUMBER, such as WCE=0")
        if match[1].upper() in found:
            raise click.BadParameter(f"{match[1]} is given twice")
        found[match[1].upper()] = int(match[2], 0) if match[2][:2].lower() == "0x" else int(match[2])
    return found


def _page(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    try:
        return None if value is None else page_called(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command("modes", short_help="Show mode pages, and change their fields.")
@device_argument
@click.option(
    "--page", metavar="NAME|HEX", callback=_page, help="Only this page: caching, control, power, …, or 8; a,1."
)
@click.option(
    "--set", "changes", metavar="NAME=N", multiple=True, callback=_settings, help="Change a field; repeatable."
)
@click.option("--save", is_flag=True, help="With --set: keep the change also without power.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation of --save.")
@global_options
def modes_command(
    device: str | None, lun: int | None, page: tuple[int, int] | None, changes: dict[str, int], save: bool, yes: bool
) -> None:
    """Show the mode pages of a unit: fields with their current, default and saved
    values, and whether they can be changed; or change some.

    Names are those of sdparm. A change is read back, and nothing but the named
    fields is changed. Without --save, it is undone by pulling the device out.

    \b
    Examples:
      scsiusb modes 2-1
      scsiusb modes 2-1 --page caching
      scsiusb modes 2-1 --set WCE=0 --save
      scsiusb modes 2-1 --set WCE=0 --save --yes
    """
    if save and not changes:
        raise click.UsageError("--save needs --set NAME=VALUE")
    where = _place_of(changes, page) if changes else page
    if save and not yes:
        require_terminal("--save")
    with opened(device, lun) as disk:
        if save and not yes:
            unit = disk.inquiry()
            confirm(f"Set {_text(changes)} in {unit.vendor} {unit.product}, {name_of(device)}, also without power?")
        if changes and where is not None:
            _change(disk, where, changes, save)
        found = read_pages(disk.unit, *(() if where is None else where))
        device_of = device_record(disk)
    if settings().json:
        problems = {"problems": found.problems} if found.problems else {}
        show_json({**{each.name: _record(each) for each in found}, **problems, "device": device_of})
        return
    for each in found:
        _show(each)
    for problem in found.problems:
        say(f"scsiusb: warning: {problem}")
    if changes:
        say(f"changed: {_text(changes)}{', and saved' if save else ''}")


def _text(changes: dict[str, int]) -> str:
    return ", ".join(f"{name}={value}" for name, value in changes.items())


def _change(disk: Disk, where: tuple[int, int], changes: dict[str, int], save: bool) -> None:
    """Change the fields of a page. Raise Refused for those that it does not have, or does not let change."""
    try:
        change_page(disk.unit, *where, changes, save=save)
    except ValueError as error:
        page = f"{where[0]:x},{where[1]:x}" if where[1] else f"{where[0]:x}"
        remedy = f"`scsiusb modes --page {page}` shows which fields it has, and which are changeable"
        raise Refused(str(error), remedy) from error


def _place_of(changes: dict[str, int], page: tuple[int, int] | None) -> tuple[int, int]:
    """Return the page that has the fields. Raise Refused where it is not one."""
    if page is not None:
        return page
    try:
        found = {(each.code, each.subpage) for each in map(page_with, changes)}
    except ValueError as error:
        what, _, remedy = str(error).partition("; ")
        raise Refused(what, remedy) from error
    if len(found) > 1:
        raise Refused("the fields are in several pages", "give one --set command for each page")
    return found.pop()


def _record(page: PageValues) -> dict[str, Any]:
    """Return the fields as names and values; of a page that is not known, its bytes."""
    if page.layout is not None:
        return {name: asdict(values) for name, values in page.fields.items()}
    kinds = {"current": page.current, "changeable": page.changeable, "default": page.default, "saved": page.saved}
    return {"bytes": {name: data.hex() if data else None for name, data in kinds.items()}}


def _show(page: PageValues) -> None:
    number = f"{page.code:02X}h" + (f", subpage {page.subpage:02X}h" if page.subpage else "")
    show(f"{page.name} ({number})")
    if page.layout is None:
        show(hex_dump(page.current))
        return
    texts = {each.name: each.text for each in page.layout.fields}
    rows = [
        (name, each.current, _yes(each.changeable), each.default, each.saved, texts[name])
        for name, each in page.fields.items()
    ]
    show_table(COLUMNS, rows, wrapped=("meaning",))
    show("")


def _yes(value: bool | None) -> str | None:
    return None if value is None else "yes" if value else "no"
