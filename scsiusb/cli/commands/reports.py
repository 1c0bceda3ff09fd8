"""Commands that show what a unit reports of itself: opcodes, lba-status, defects, reservations, timestamp, security."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from scsiusb.cli.device import device_argument, device_record, opened
from scsiusb.cli.options import block_number_option, global_options, settings
from scsiusb.cli.output import show_json, show_record, show_table
from scsiusb.scsi.commands.sbc_ranges import STATUSES, Defects, GetLbaStatus, ReadDefectData10
from scsiusb.scsi.commands.spc_reports import (
    RESERVATION_KINDS,
    SECURITY_PROTOCOLS,
    ReadKeys,
    ReadReservation,
    ReportSupportedOpcodes,
    ReportTimestamp,
    SecurityProtocolIn,
    security_protocols,
)


@click.command("opcodes", short_help="List the SCSI commands that a unit supports.")
@device_argument
@global_options
def opcodes_command(device: str | None, lun: int | None) -> None:
    """List the commands that a unit supports (REPORT SUPPORTED OPERATION CODES).

    Few USB devices can tell.

    \b
    Examples:
      scsiusb opcodes 2-1
      scsiusb opcodes 2-1 --json
    """
    with opened(device, lun) as disk:
        kind = disk.inquiry().peripheral_device_type
        found = disk.execute(ReportSupportedOpcodes(device_type=kind))
        device_of = device_record(disk)
    if settings().json:
        show_json({"commands": [asdict(each) for each in found], "device": device_of})
        return
    rows = [
        (
            f"{each.opcode:02X}h" + ("" if each.service_action is None else f"/{each.service_action:02X}h"),
            each.name,
            each.cdb_length,
        )
        for each in sorted(found, key=lambda each: (each.opcode, each.service_action or 0))
    ]
    show_table(("opcode", "name", "CDB bytes"), rows)


@click.command("lba-status", short_help="Show which blocks are mapped.")
@device_argument
@block_number_option("--lba", default="0", help="First block (default 0).")
@global_options
def lba_status_command(device: str | None, lun: int | None, lba: int) -> None:
    """Show which blocks from an LBA on are mapped or unmapped (GET LBA STATUS).

    \b
    Examples:
      scsiusb lba-status 2-1
      scsiusb lba-status 2-1 --lba 1M --json
    """
    with opened(device, lun) as disk:
        found = disk.execute(GetLbaStatus(lba))
        device_of = device_record(disk)
    rows = [{**asdict(each), "status_text": STATUSES.get(each.status, f"status {each.status}")} for each in found]
    if settings().json:
        show_json({"ranges": rows, "device": device_of})
    else:
        show_table(("LBA", "blocks", "status"), [(row["lba"], row["blocks"], row["status_text"]) for row in rows])


@click.command("defects", short_help="List the defects of the medium.")
@device_argument
@click.option("--primary", is_flag=True, help="Those that the manufacturer found, not those found later.")
@global_options
def defects_command(device: str | None, lun: int | None, primary: bool) -> None:
    """List the blocks that the device has replaced (READ DEFECT DATA).

    Disks report them, sticks hardly ever.

    \b
    Examples:
      scsiusb defects 2-1
      scsiusb defects 2-1 --primary --json
    """
    with opened(device, lun) as disk:
        found = disk.execute(ReadDefectData10(primary, not primary))
        device_of = device_record(disk)
    rows = [each.hex() for each in found.descriptors]
    if settings().json:
        show_json({**_defects(found), "descriptors": rows, "device": device_of})
        return
    show_record(_defects(found))
    if rows:
        show_table(("address",), [(row,) for row in rows])


def _defects(found: Defects) -> dict[str, Any]:
    return {"primary": found.primary, "grown": found.grown, "format": found.format, "count": found.count}


@click.command("reservations", short_help="Show who has reserved the unit.")
@device_argument
@global_options
def reservations_command(device: str | None, lun: int | None) -> None:
    """Show the registered keys and the reservation (PERSISTENT RESERVE IN).

    \b
    Examples:
      scsiusb reservations 2-1
      scsiusb reservations 2-1 --json
    """
    with opened(device, lun) as disk:
        keys, held = disk.execute(ReadKeys()), disk.execute(ReadReservation())
        device_of = device_record(disk)
    if settings().json:
        reservation = None if held.key is None else {"key": held.key, "scope": held.scope, "type": held.kind}
        record = {"generation": keys.generation, "keys": keys.keys, "reservation": reservation}
        show_json({**record, "device": device_of})
        return
    kind = RESERVATION_KINDS.get(held.kind, f"type {held.kind}")
    show_record(
        {
            "keys": ", ".join(f"{key:016x}" for key in keys.keys) or "none",
            "reservation": "none" if held.key is None else f"{kind}, by {held.key:016x}",
        }
    )


@click.command("timestamp", short_help="Show the clock of the unit.")
@device_argument
@global_options
def timestamp_command(device: str | None, lun: int | None) -> None:
    """Show the clock of the unit (REPORT TIMESTAMP).

    \b
    Examples:
      scsiusb timestamp 2-1
      scsiusb timestamp 2-1 --json
    """
    with opened(device, lun) as disk:
        found = disk.execute(ReportTimestamp())
        device_of = device_record(disk)
    time = None if found.time is None else found.time.isoformat()
    if settings().json:
        show_json({**asdict(found), "time": time, "device": device_of})
    else:
        show_record({"time": time or f"not set: {found.milliseconds / 1000:.1f} s since power on or reset"})


@click.command("security", short_help="List the security protocols of the unit.")
@device_argument
@global_options
def security_command(device: str | None, lun: int | None) -> None:
    """List the security protocols that a unit supports: TCG, IEEE 1667, ATA password
    (SECURITY PROTOCOL IN). Nothing is unlocked or changed.

    \b
    Examples:
      scsiusb security 2-1
      scsiusb security 2-1 --json
    """
    with opened(device, lun) as disk:
        found = security_protocols(disk.execute(SecurityProtocolIn(0)))
        device_of = device_record(disk)
    rows = [{"protocol": each, "name": SECURITY_PROTOCOLS.get(each, _other(each))} for each in found]
    if settings().json:
        show_json({"protocols": rows, "device": device_of})
    else:
        show_table(("protocol", "name"), [(f"{row['protocol']:02X}h", row["name"]) for row in rows])


def _other(protocol: int) -> str:
    return "vendor specific" if protocol >= 0xF0 else "reserved"
