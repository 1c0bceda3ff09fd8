"""Commands that report the state of a unit: opcodes, defects, lba-status, reservations, timestamp, security."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

import click

from scsiusb.cli.device import device_argument, device_record, opened, refuse_optical
from scsiusb.cli.options import block_number_option, global_options, quoted, settings
from scsiusb.cli.output import say, show, show_json, show_record, show_table
from scsiusb.errors import IllegalRequest
from scsiusb.scsi import catalog
from scsiusb.scsi.commands.sbc_media import DEFECT_FORMATS, GetLbaStatus, ReadDefectData10, ReadDefectData12
from scsiusb.scsi.commands.spc_reserve import (
    PersistentReserveCapabilities,
    PersistentReserveReadKeys,
    PersistentReserveReadReservation,
    ReservationCapabilities,
    type_text,
)
from scsiusb.scsi.commands.spc_security import (
    IEEE_1667,
    TCG,
    SecurityProtocols,
    TcgDiscovery,
    TcgLevel0Discovery,
    protocol_text,
)
from scsiusb.scsi.commands.spc_support import (
    ReportSupportedOperationCodes,
    ReportTimestamp,
    SetTimestamp,
    SupportedCommand,
)

if TYPE_CHECKING:
    from scsiusb.disk.disk import Disk

MOST_STATUSES: Final = 10_000  # rows that lba-status shows


@click.command("opcodes", short_help="List the commands that a device supports.")
@device_argument
@global_options
def opcodes_command(device: str | None, lun: int | None) -> None:
    """List the commands that a device supports, as it says itself.

    Many USB devices do not support the question (exit status 9 or 5).

    \b
    Examples:
      scsiusb opcodes 2-1
      scsiusb opcodes virtual: --json
    """
    with opened(device, lun) as disk:
        refuse_optical(disk, "REPORT SUPPORTED OPERATION CODES")  # SEND KEY there (MMC-6)
        kind = disk.inquiry().peripheral_device_type
        found = _supported(disk)
        device_of = device_record(disk)
    rows = [
        {
            "opcode": each.opcode,
            "service_action": each.service,
            "name": catalog.name_of(each.opcode, each.service, kind),
            "cdb_length": each.cdb_length,
            "nominal": each.nominal,
            "recommended": each.recommended,
        }
        for each in found
    ]
    if settings().json:
        show_json({"commands": rows, "device": device_of})
    else:
        columns = ("opcode", "service", "bytes", "timeout", "name")
        show_table(columns, [_opcode_row(row) for row in rows], wrapped=("name",))


def _supported(disk: Disk) -> tuple[SupportedCommand, ...]:
    """Ask with the timeouts first, which some devices refuse."""
    try:
        return disk.execute(ReportSupportedOperationCodes(timeouts=True)).commands
    except IllegalRequest as error:
        if error.sense.asc == 0x20:  # the command itself is not supported
            raise
        return disk.execute(ReportSupportedOperationCodes()).commands


def _opcode_row(row: dict[str, Any]) -> tuple[Any, ...]:
    service, seconds = row["service_action"], row["recommended"]
    shown = None if service is None else f"{service:02X}h"
    return f"{row['opcode']:02X}h", shown, row["cdb_length"], seconds and f"{seconds} s", row["name"]


@click.command("defects", short_help="List defective blocks.")
@device_argument
@click.option("--primary", is_flag=True, help="Also those that were known at the manufacture.")
@global_options
def defects_command(device: str | None, lun: int | None, primary: bool) -> None:
    """List the defective blocks that the device has replaced (READ DEFECT DATA).

    \b
    Examples:
      scsiusb defects 2-1
      scsiusb defects 2-1 --primary --json
    """
    with opened(device, lun) as disk:
        try:
            found = disk.execute(ReadDefectData12(primary=primary))
        except IllegalRequest:
            found = disk.execute(ReadDefectData10(primary=primary))
        device_of = device_record(disk)
    rows = [asdict(defect) for defect in found.defects]
    if settings().json:
        show_json({**asdict(found), "defects": rows, "device": device_of})
        return
    show_table(("LBA", "cylinder", "head", "sector"), [tuple(row.values()) for row in rows])
    form = DEFECT_FORMATS.get(found.list_format, f"format {found.list_format}")
    say(
        f"{len(rows)} defects, as {form}"
        + (f"; {found.missing} bytes of the list are missing" if found.missing else "")
    )


@click.command("lba-status", short_help="Show which blocks are mapped to the medium.")
@device_argument
@block_number_option("--lba", default="0", help="First block (default 0).")
@global_options
def lba_status_command(device: str | None, lun: int | None, lba: int) -> None:
    """Show which blocks are mapped to the medium, from --lba on (GET LBA STATUS).

    \b
    Examples:
      scsiusb lba-status 2-1
      scsiusb lba-status 2-1 --lba 1M --json
    """
    with opened(device, lun) as disk:
        disk.check_range(lba, 1)
        rows = _statuses(disk, lba)
        device_of = device_record(disk)
    if settings().json:
        show_json({"ranges": rows, "device": device_of})
    else:
        show_table(("LBA", "blocks", "status"), [(row["lba"], row["blocks"], row["status_text"]) for row in rows])


def _statuses(disk: Disk, lba: int) -> list[dict[str, Any]]:
    """Ask until the end of the medium; a device may report a part only. Stop where it makes no progress."""
    rows: list[dict[str, Any]] = []
    while lba < disk.blocks and len(rows) < MOST_STATUSES:
        found = [each for each in disk.execute(GetLbaStatus(lba)) if each.blocks and each.lba + each.blocks > lba]
        if not found:
            break
        rows += [{**asdict(each), "status_text": each.text} for each in found]
        lba = max(each.lba + each.blocks for each in found)
    return rows


@click.command("reservations", short_help="Show persistent reservations.")
@device_argument
@global_options
def reservations_command(device: str | None, lun: int | None) -> None:
    """Show who has reserved the unit (PERSISTENT RESERVE IN).

    \b
    Examples:
      scsiusb reservations 2-1
      scsiusb reservations virtual: --json
    """
    with opened(device, lun) as disk:
        keys = disk.execute(PersistentReserveReadKeys())
        held = disk.execute(PersistentReserveReadReservation())
        able = _capabilities(disk)
        device_of = device_record(disk)
    reservation = None
    if held.key is not None:
        reservation = {"key": held.key, "scope": held.scope, "type": held.kind, "text": type_text(held.kind)}
    if settings().json:
        kinds = None if able is None else asdict(able)
        record = {"generation": keys.generation, "keys": keys.keys, "reservation": reservation, "capabilities": kinds}
        show_json({**record, "device": device_of})
        return
    reserved = f"{held.key:#x}, {type_text(held.kind)}" if held.key is not None else "none"
    shown = {"generation": keys.generation, "keys": ", ".join(map(hex, keys.keys)) or "none", "reservation": reserved}
    if able is not None:
        shown["supported"] = "; ".join(map(type_text, able.kinds)) or "not reported"
    show_record(shown)


def _capabilities(disk: Disk) -> ReservationCapabilities | None:
    try:
        return disk.execute(PersistentReserveCapabilities())
    except IllegalRequest:
        return None


def _moment(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Parse "now" or an ISO 8601 time, without a zone in UTC; return milliseconds since 1970. Raise BadParameter."""
    if value is None:
        return None
    if value == "now":
        return int(time.time() * 1000)
    try:
        moment = datetime.fromisoformat(value)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
        milliseconds = int(moment.timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(f"{quoted(value)} is not now or a time such as 2026-11-26T17:00:00") from error
    if not 0 <= milliseconds < 1 << 48:
        raise click.BadParameter(f"{quoted(value)} is before 1970, or too late for the device's clock")
    return milliseconds


@click.command("timestamp", short_help="Show or set the device's clock.")
@device_argument
@click.option("--set", "moment", metavar="now|TIME", callback=_moment, help="Set it; TIME as in ISO 8601, in UTC.")
@global_options
def timestamp_command(device: str | None, lun: int | None, moment: int | None) -> None:
    """Show or set the clock of the device (REPORT TIMESTAMP, SET TIMESTAMP).

    \b
    Examples:
      scsiusb timestamp 2-1
      scsiusb timestamp 2-1 --set now
    """
    with opened(device, lun) as disk:
        refuse_optical(disk, "SET TIMESTAMP" if moment is not None else "REPORT TIMESTAMP")  # keys there
        if moment is not None:
            disk.execute(SetTimestamp(moment))
        stamp = disk.execute(ReportTimestamp())
        device_of = device_record(disk)
    if settings().json:
        text = _stamp_text(stamp.milliseconds, stamp.origin) if stamp.origin else None
        record = {"timestamp": stamp.milliseconds, "timestamp_origin": stamp.origin, "time": text}
        show_json({**record, "device": device_of})
    else:
        show_record({"timestamp": _stamp_text(stamp.milliseconds, stamp.origin), "origin": stamp.text})


def _stamp_text(milliseconds: int, origin: int) -> str:
    if not origin:
        return f"{milliseconds / 1000} s since the power-on"
    try:
        return datetime.fromtimestamp(milliseconds / 1000, timezone.utc).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):  # a device may say any time
        return f"{milliseconds} ms since 1970"


@click.command("security", short_help="Show security protocols: TCG, IEEE 1667.")
@device_argument
@global_options
def security_command(device: str | None, lun: int | None) -> None:
    """Show the security protocols of a device, and whether it encrypts and is locked.

    Lists SECURITY PROTOCOL IN's protocols, among them IEEE 1667, and does TCG's
    level 0 discovery, which changes nothing.

    \b
    Examples:
      scsiusb security 2-1
      scsiusb security 2-1 --json
    """
    with opened(device, lun) as disk:
        refuse_optical(disk, "SECURITY PROTOCOL IN")  # SEND EVENT in older drives (MMC-2), which takes data instead
        protocols = disk.execute(SecurityProtocols())
        found = disk.execute(TcgLevel0Discovery()) if TCG in protocols else None
        device_of = device_record(disk)
    rows = [{"protocol": each, "name": protocol_text(each)} for each in protocols]
    if settings().json:
        tcg = None if found is None else _tcg_record(found)
        show_json({"protocols": rows, "ieee_1667": IEEE_1667 in protocols, "tcg": tcg, "device": device_of})
        return
    show_table(("protocol", "name"), [(f"{row['protocol']:02X}h", row["name"]) for row in rows])
    if found is not None:
        show("")
        show_record({"locked": found.locked, "locking enabled": found.locking_enabled})
        show(", ".join(feature.name for feature in found.features))


def _tcg_record(found: TcgDiscovery) -> dict[str, Any]:
    features = [{**asdict(feature), "name": feature.name} for feature in found.features]
    return {**asdict(found), "features": features, "locked": found.locked, "locking_enabled": found.locking_enabled}
