"""The list command. It needs only USB, and loads no SCSI module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from scsiusb.cli.device import attached
from scsiusb.cli.options import global_options, settings
from scsiusb.cli.output import identity_of, say, show_json, show_table

if TYPE_CHECKING:
    from scsiusb.usb.interface import InterfaceInfo


@click.command("list", short_help="List the attached devices.")
@global_options
def list_command() -> None:
    """List the attached mass-storage interfaces.

    \b
    Examples:
      scsiusb list
      scsiusb list --json
    """
    rows = [_listed(info) for info in attached()]
    if settings().json:
        show_json(rows)
    elif rows:
        columns = ("address", "vid:pid", "serial", "manufacturer", "product", "protocol", "speed", "driver")
        cells = [{**row, "vid:pid": f"{row['vid']}:{row['pid']}", "driver": _used_by(row)} for row in rows]
        show_table(columns, [[row[column] for column in columns] for row in cells])
    else:
        say("no mass-storage device is attached")


def _listed(info: InterfaceInfo) -> dict[str, Any]:
    return {
        **identity_of(info),
        "protocol": info.protocol,
        "speed": info.speed,
        "driver": info.driver,
        "lease": _lease(info),
    }


def _used_by(row: dict[str, Any]) -> str | None:
    lease, driver = row["lease"], row["driver"]
    return f"{driver}, pid {lease['pid']}" if lease else driver


def _lease(info: InterfaceInfo) -> dict[str, Any] | None:
    from scsiusb.leases.lease import holder

    record = holder(info)
    if record is None:
        return None
    return {"pid": record.pid, "command": record.command, "since": record.since}
