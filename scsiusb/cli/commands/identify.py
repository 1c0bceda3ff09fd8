"""Commands that identify a device: inquiry, capacity, luns."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any, Final

import click

from scsiusb.cli import labels
from scsiusb.cli.device import device_argument, device_record, opened
from scsiusb.cli.options import global_options, quoted, settings
from scsiusb.cli.output import show_json, show_record, show_table, size_text
from scsiusb.cli.pages import show_page
from scsiusb.errors import Cancelled, CheckCondition, DeviceClosed, DeviceGone, IllegalRequest, TransportError
from scsiusb.scsi.pages.inquiry import device_type_text
from scsiusb.scsi.pages.vpd import (
    AnyPage,
    BlockLimits,
    DeviceIdentification,
    LogicalBlockProvisioning,
    SupportedPages,
    UnitSerialNumber,
)
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
    "lbpv": LogicalBlockProvisioning.PAGE,
    "provisioning": LogicalBlockProvisioning.PAGE,
}
LUN_TIMEOUT: Final = 3.0  # seconds for INQUIRY and TEST UNIT READY; given, so that a timeout is not tried again
NOT_SUPPORTED: Final = 0x25  # additional sense code: there is no unit at this LUN
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
    help="Show a vital product data page: sv, sn, di, bl, lbpv, or hex.",
)
@global_options
def inquiry_command(device: str | None, lun: int | None, page: int | None) -> None:
    """Show INQUIRY data, or a vital product data (VPD) page.

    \b
    Pages by name: sv (supported pages), sn (unit serial number),
    di (device identification), bl (block limits), lbpv (provisioning).

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
    else:
        show_page(number, page)


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

    A unit that reports an error has the reason. A unit that does not answer costs
    a few seconds.

    \b
    Examples:
      scsiusb luns 2-1
      scsiusb luns 2-1 --json
    """
    with opened(device, lun) as disk:
        unit = disk.unit
        timeout = min(LUN_TIMEOUT, unit.timeout or LUN_TIMEOUT)
        units = [LogicalUnit(unit.transport, n, timeout=timeout) for n in range(unit.transport.max_lun + 1)]
        address = unit.transport.info.address
        rows = [{**row, "address": address} for each in units if (row := _unit_row(each))]
    if settings().json:
        show_json(rows)
    else:
        show_table(("LUN", "vendor", "product", "type", "ready"), [_in_words(row) for row in rows], wrapped=("ready",))


def _in_words(row: dict[str, Any]) -> list[Any]:
    kind = row["peripheral_device_type"]
    ready = f"no: {row['error']}" if row["error"] else row["ready"]
    return [row["lun"], row["vendor"], row["product"], None if kind is None else device_type_text(kind), ready]


def _unit_row(unit: LogicalUnit) -> dict[str, Any] | None:
    """Return a row, with the reason if the unit fails; None if the device reports that there is no unit at this LUN."""
    row: dict[str, Any] = dict.fromkeys(("lun", "vendor", "product", "peripheral_device_type"))
    row |= {"lun": unit.lun, "ready": False, "error": None}
    try:
        data = unit.inquiry()
        if not data.is_present:
            return None
        row |= {"vendor": data.vendor, "product": data.product, "peripheral_device_type": data.peripheral_device_type}
        unit.test_unit_ready(retry=NO_WAIT)
        row["ready"] = True
    except (DeviceGone, DeviceClosed, Cancelled):
        raise
    except (CheckCondition, TransportError) as error:
        if isinstance(error, IllegalRequest) and error.sense.asc == NOT_SUPPORTED:
            return None
        row["error"] = _reason(error)
    return row


def _reason(error: CheckCondition | TransportError) -> str:
    return str(error.sense) if isinstance(error, CheckCondition) else error.what
