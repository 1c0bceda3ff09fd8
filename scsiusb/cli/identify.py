"""Commands that tell what is there: list, inquiry, capacity, luns, sense."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

import click

from scsiusb.cli.options import device_argument, global_options, settings
from scsiusb.cli.output import show_json, show_record, show_table, size_text
from scsiusb.cli.session import opened
from scsiusb.devices import devices
from scsiusb.errors import NotReady
from scsiusb.scsi.unit import LogicalUnit
from scsiusb.scsi.vpd import BlockLimits, DeviceIdentification, SupportedPages, UnitSerialNumber, VpdPage
from scsiusb.usb.interface import InterfaceInfo

PAGE_NAMES: Final = {  # sg_vpd's abbreviations beside words
    "sv": SupportedPages.PAGE,
    "supported": SupportedPages.PAGE,
    "sn": UnitSerialNumber.PAGE,
    "serial": UnitSerialNumber.PAGE,
    "di": DeviceIdentification.PAGE,
    "identification": DeviceIdentification.PAGE,
    "bl": BlockLimits.PAGE,
    "limits": BlockLimits.PAGE,
}
LAST_PAGE: Final = 0xFF


def _page_number(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    if value is None or value in PAGE_NAMES:
        return PAGE_NAMES.get(value or "")
    try:
        page = int(value, 16)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no page: {', '.join(PAGE_NAMES)} or hex digits") from None
    if not 0 <= page <= LAST_PAGE:
        raise click.BadParameter(f"{value!r} is not from 0 to ff")
    return page


@click.command("list")
@global_options
def list_command() -> None:
    """List the mass-storage interfaces that are attached."""
    rows = [_listed(info) for info in devices()]
    if settings().json:
        show_json(rows)
    elif rows:
        columns = ("address", "vid:pid", "serial", "manufacturer", "product", "protocol", "speed", "driver")
        show_table(
            columns, [[f"{row['vid']}:{row['pid']}" if c == "vid:pid" else row[c] for c in columns] for row in rows]
        )
    else:
        click.echo("no mass-storage device is attached", err=True)


def _listed(info: InterfaceInfo) -> dict[str, Any]:
    return {
        "address": info.address,
        "vid": f"{info.vid:04x}",
        "pid": f"{info.pid:04x}",
        "serial": info.serial,
        "manufacturer": info.manufacturer,
        "product": info.product,
        "protocol": info.protocol,
        "speed": info.speed,
        "driver": info.driver,
        "lease": None,
    }


@click.command("inquiry")
@device_argument
@click.option(
    "--page",
    metavar="NAME|HEX",
    callback=_page_number,
    help="A vital product data page: sv, sn, di, bl, or its number in hex.",
)
@global_options
def inquiry_command(device: str | None, lun: int, page: int | None) -> None:
    """Who the unit is, or one of its vital product data pages."""
    with opened(device, lun) as disk:
        record = asdict(disk.inquiry()) if page is None else _page_record(disk.unit, page)
    if settings().json:
        show_json(record)
    else:
        show_record(record)


def _page_record(unit: LogicalUnit, number: int) -> dict[str, Any]:
    page = unit.vpd(number)
    if isinstance(page, VpdPage):
        return asdict(page)
    return {"page": number, **asdict(page)}


@click.command("capacity")
@device_argument
@global_options
def capacity_command(device: str | None, lun: int) -> None:
    """How large the medium is."""
    with opened(device, lun) as disk:
        record = {"blocks": disk.blocks, "block_size": disk.block_size, "bytes": disk.size}
    if settings().json:
        show_json(record)
    else:
        show_record({**record, "bytes": f"{record['bytes']} ({size_text(record['bytes'])})"})


@click.command("luns")
@device_argument
@global_options
def luns_command(device: str | None, lun: int) -> None:
    """The logical units of the device."""
    with opened(device, lun) as disk:
        transport = disk.unit.transport
        units = [LogicalUnit(transport, number, timeout=disk.unit.timeout) for number in range(transport.max_lun + 1)]
        rows = [row for unit in units if (row := _unit_row(unit))]
    if settings().json:
        show_json(rows)
    else:
        show_table(("LUN", "vendor", "product", "type", "ready"), [list(row.values()) for row in rows])


def _unit_row(unit: LogicalUnit) -> dict[str, Any] | None:
    """None where the device says that there is no unit at this LUN."""
    data = unit.inquiry()
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
        unit.test_unit_ready()
    except NotReady:
        return False
    return True


@click.command("sense")
@device_argument
@global_options
def sense_command(device: str | None, lun: int) -> None:
    """What the unit has to say of its state (REQUEST SENSE)."""
    with opened(device, lun) as disk:
        sense = disk.unit.request_sense()
    record = {
        "key": sense.key,
        "key_text": sense.key_text,
        "asc": sense.asc,
        "ascq": sense.ascq,
        "text": sense.text,
        "information": sense.information,
        "deferred": sense.deferred,
        "raw": sense.raw,
    }
    if settings().json:
        show_json(record)
    else:
        show_record({"sense": str(sense), "raw": sense.raw})
