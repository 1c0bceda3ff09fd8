"""Commands that identify a device: inquiry, capacity, luns."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Final

import click

from scsiusb.cli import labels
from scsiusb.cli.device import device_argument, device_record, opened
from scsiusb.cli.options import global_options, quoted, settings
from scsiusb.cli.output import hex_dump, say, show, show_json, show_record, show_table, size_text
from scsiusb.cli.pages import page_record, problems_in, show_page
from scsiusb.errors import (
    Cancelled,
    CheckCondition,
    DeviceClosed,
    DeviceGone,
    DeviceUnsupported,
    IllegalRequest,
    MalformedReply,
    ScsiUsbError,
    TransportError,
)
from scsiusb.quirks.model import Quirk
from scsiusb.scsi.commands.spc import InquiryVpdBytes
from scsiusb.scsi.pages.inquiry import ADDITIONAL_LENGTH, LEAST_LENGTH, STANDARD_LENGTH, InquiryData, device_type_text
from scsiusb.scsi.pages.vpd import (
    BlockLimits,
    DeviceIdentification,
    LogicalBlockProvisioning,
    SupportedPages,
    UnitSerialNumber,
    parse_page,
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
@click.option("--all", "everything", is_flag=True, help="Show the standard data and each page that the unit has.")
@click.option("--hex", "as_hex", is_flag=True, help="Show the bytes, not what they mean.")
@global_options
def inquiry_command(device: str | None, lun: int | None, page: int | None, everything: bool, as_hex: bool) -> None:
    """Show INQUIRY data, or a vital product data (VPD) page, or all of them.

    \b
    Pages by name: sv (supported pages), sn (unit serial number),
    di (device identification), bl (block limits), lbpv (provisioning).

    \b
    Examples:
      scsiusb inquiry 2-1
      scsiusb inquiry 2-1 --page sv
      scsiusb inquiry 2-1 --page b1 --json
      scsiusb inquiry 2-1 --all
      scsiusb inquiry 2-1 --page di --hex
    """
    if everything and page is not None:
        raise click.UsageError("--all and --page do not go together; give one of them")
    with opened(device, lun) as disk:
        device_of = device_record(disk)
        data = _inquiry(disk.unit, everything) if page is None else None
        standard = _standard(disk.unit) if as_hex and page is None else None
        numbers = _supported(disk.unit) if everything else [] if page is None else [page]
        pages = {number: _page(disk.unit, number, is_listed=everything) for number in numbers}
    if settings().json:
        record = {} if data is None else asdict(data)
        if standard is not None:
            record["hex"] = standard.hex()
        show_json({**record, **_pages_record(pages, everything, as_hex), "device": device_of})
        return
    if standard is not None:
        show(hex_dump(standard))
    elif data is not None:
        show_record(labels.inquiry_words(data))
    for number, found in pages.items():
        if everything:
            show(f"\npage {labels.page_name(number)}")
        _show_page(number, found, as_hex)


def _inquiry(unit: LogicalUnit, everything: bool) -> InquiryData:
    """Return the standard data; with `everything` also what is after the usual length: the version descriptors."""
    if everything and Quirk.NO_INQUIRY not in unit.transport.quirks:
        return InquiryData.parse(_standard(unit))
    return unit.inquiry()


def _standard(unit: LogicalUnit) -> bytes:
    """Return the bytes of the standard data, as many as it says it has; those that come by the usual length, if not."""
    if Quirk.NO_INQUIRY in unit.transport.quirks:
        raise DeviceUnsupported("the device cannot take INQUIRY (a quirk)", "its data are not asked for")
    data = unit.execute(InquiryVpdBytes(0, STANDARD_LENGTH, evpd=False))
    whole = data[ADDITIONAL_LENGTH] + LEAST_LENGTH if len(data) >= LEAST_LENGTH else 0
    if whole > len(data):
        with suppress(CheckCondition):  # what is there is enough
            return unit.execute(InquiryVpdBytes(0, whole, evpd=False))
    return data


def _supported(unit: LogicalUnit) -> list[int]:
    """Return the pages that the unit lists; none if it has no such list."""
    try:
        found = unit.vpd(SupportedPages.PAGE)
    except IllegalRequest:
        return []
    return sorted({*found.pages, SupportedPages.PAGE}) if isinstance(found, SupportedPages) else []


def _page(unit: LogicalUnit, number: int, *, is_listed: bool) -> bytes | ScsiUsbError:
    """Return the bytes of a page. Of one in a list that cannot be read, return why: the others are shown."""
    try:
        data = unit.vpd_bytes(number)
        parse_page(data, number)
    except (CheckCondition, MalformedReply) as error:
        if not is_listed:
            raise
        return error.with_traceback(None)
    return data


def _pages_record(pages: dict[int, bytes | ScsiUsbError], everything: bool, as_hex: bool) -> dict[str, Any]:
    found = {number: _page_record(number, page, as_hex) for number, page in pages.items()}
    if everything:
        return {"pages": {f"{number:02x}": page for number, page in found.items()}}
    return next(iter(found.values()), {})


def _page_record(number: int, page: bytes | ScsiUsbError, as_hex: bool) -> dict[str, Any]:
    if isinstance(page, ScsiUsbError):
        return {"page": number, "error": str(page)}
    return {"page": number, "hex": page.hex()} if as_hex else page_record(number, parse_page(page, number))


def _show_page(number: int, page: bytes | ScsiUsbError, as_hex: bool) -> None:
    if isinstance(page, ScsiUsbError):
        show(f"cannot be read: {page}")
    elif as_hex:
        show(hex_dump(page))
    else:
        parsed = parse_page(page, number)
        show_page(number, parsed)
        for problem in problems_in(parsed):
            say(f"scsiusb: warning: page {number:02X}h: {problem}")


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
