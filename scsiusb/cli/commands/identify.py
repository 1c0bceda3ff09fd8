"""Commands that identify a device: inquiry, capacity, luns."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any, Final

import click

from scsiusb.cli import labels
from scsiusb.cli.device import device_argument, device_record, opened
from scsiusb.cli.options import global_options, quoted, settings
from scsiusb.cli.output import hex_dump, show, show_json, show_record, show_table, size_text
from scsiusb.errors import CheckCondition, IllegalRequest
from scsiusb.scsi.pages.inquiry import device_type_text
from scsiusb.scsi.pages.vpd import AnyPage, BlockLimits, DeviceIdentification, SupportedPages, UnitSerialNumber, VpdPage
from scsiusb.scsi.retry import NO_WAIT
from scsiusb.scsi.unit import LogicalUnit

PAGE_NAMES: Final = {  # the abbreviations of sg_vpd, and words
    "sv": SupportedPages.PAGE,
    "supported": SupportedPages.PAGE,
    "sn": UnitSerialNumber.PAGE,
    "serial": UnitSerialNumber.PAGE,
    "di": DeviceIdentification.PAGE,
    "identification": DeviceIdentification.PAGE,
    "bl": BlockLimits.PAGE,
    "limits": BlockLimits.PAGE,
}
PAGE_HEX: Final = re.compile(r"(?:0[xX])?([0-9a-fA-F]{1,2})[hH]?")


def _page_number(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    match = PAGE_HEX.fullmatch(value)
    if match is not None:
        return int(match[1], 16)
    if value.lower() not in PAGE_NAMES:
        raise click.BadParameter(f"{quoted(value)} is not a page: {', '.join(PAGE_NAMES)} or 0 to ff in hex")
    return PAGE_NAMES[value.lower()]


@click.command("inquiry", short_help="Show INQUIRY data.")
@device_argument
@click.option(
    "--page",
    metavar="NAME|HEX",
    callback=_page_number,
    help="Show a vital product data page: sv, sn, di, bl, or hex.",
)
@global_options
def inquiry_command(device: str | None, lun: int | None, page: int | None) -> None:
    """Show INQUIRY data, or a vital product data (VPD) page.

    \b
    Pages by name: sv (supported pages), sn (unit serial number),
    di (device identification), bl (block limits).

    \b
    Examples:
      scsiusb inquiry 2-1
      scsiusb inquiry 2-1 --page sv
      scsiusb inquiry 2-1 --page b1 --json
    """
    with opened(device, lun) as disk:
        if page is None:
            data = disk.inquiry()
            record, shown = {**asdict(data), "device": device_record(disk)}, labels.inquiry_words(data)
        else:
            found = disk.unit.vpd(page)
        device_of = device_record(disk)
    if page is not None:
        _show_page(page, found, device_of)
    elif settings().json:
        show_json(record)
    else:
        show_record(shown)


def _show_page(number: int, page: AnyPage, device: dict[str, Any]) -> None:
    if settings().json:
        show_json({"page": number, **asdict(page), "device": device})
    elif isinstance(page, SupportedPages):
        show_table(labels.SUPPORTED_COLUMNS, labels.supported_rows(page))
    elif isinstance(page, DeviceIdentification):
        show_table(labels.DESIGNATOR_COLUMNS, [labels.designator_row(entry) for entry in page.designators])
    elif isinstance(page, VpdPage):
        show(f"page {labels.page_name(number)}")
        if page.body:
            show(hex_dump(page.body))
    else:
        show_record(labels.page_words(page))


@click.command("capacity", short_help="Show the capacity of the medium.")
@device_argument
@global_options
def capacity_command(device: str | None, lun: int | None) -> None:
    """Show the capacity of the medium: number of blocks and block size.

    \b
    Examples:
      scsiusb capacity 2-1
      scsiusb capacity virtual: --json
    """
    with opened(device, lun) as disk:
        record = {"blocks": disk.blocks, "block_size": disk.block_size, "bytes": disk.size}
        device_of = device_record(disk)
    if settings().json:
        show_json({**record, "device": device_of})
    else:
        size = f"{record['bytes']} ({size_text(record['bytes'])})"
        show_record({"blocks": record["blocks"], "block size": record["block_size"], "bytes": size})


@click.command("luns", short_help="List the logical units of a device.")
@device_argument
@global_options
def luns_command(device: str | None, lun: int | None) -> None:
    """List the logical units of a device, and whether they are ready.

    \b
    Examples:
      scsiusb luns 2-1
      scsiusb luns 2-1 --json
    """
    with opened(device, lun) as disk:
        unit = disk.unit
        units = [LogicalUnit(unit.transport, n, timeout=unit.timeout) for n in range(unit.transport.max_lun + 1)]
        rows = [row for each in units if (row := _unit_row(each))]
    if settings().json:
        show_json(rows)
    else:
        show_table(("LUN", "vendor", "product", "type", "ready"), [_in_words(row) for row in rows])


def _in_words(row: dict[str, Any]) -> list[Any]:
    return list({**row, "peripheral_device_type": device_type_text(row["peripheral_device_type"])}.values())


def _unit_row(unit: LogicalUnit) -> dict[str, Any] | None:
    """Return a row, or None if the device reports that there is no unit at this LUN."""
    try:
        data = unit.inquiry()
    except IllegalRequest:
        return None
    if not data.is_present:
        return None
    return {
        "lun": unit.lun,
        "vendor": data.vendor,
        "product": data.product,
        "peripheral_device_type": data.peripheral_device_type,
        "ready": _is_ready(unit),
    }


def _is_ready(unit: LogicalUnit) -> bool:
    try:
        unit.test_unit_ready(retry=NO_WAIT)
    except CheckCondition:
        return False
    return True
