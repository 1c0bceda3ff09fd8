"""The list command. It needs only USB, and loads no SCSI module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from scsiusb.cli.device import attached
from scsiusb.cli.options import global_options, settings
from scsiusb.cli.output import identity_of, say, show_json, show_table, size_text

if TYPE_CHECKING:
    from scsiusb.usb.interface import InterfaceInfo

COLUMNS: Final = ("address", "vid:pid", "serial", "device", "disk", "size", "used by")
ELASTIC: Final = ("serial", "device", "used by")


@click.command("list", short_help="List the attached devices.")
@global_options
def list_command() -> None:
    """List the attached mass-storage interfaces, also those that cannot be opened.

    Size, disk and mount points are those that Linux knows; no device is opened.

    \b
    Examples:
      scsiusb list
      scsiusb list --json
    """
    rows = [_listed(info) for info in attached()]
    if settings().json:
        show_json(rows)
    elif rows:
        show_table(COLUMNS, [cells for row in rows for cells in _cells(row)], elastic=ELASTIC, optional=("vid:pid",))
        for row in rows:
            if row["unsupported"]:
                say(f"{row['address']} cannot be opened: {row['unsupported']}")
    else:
        say("no mass-storage device is attached")


def _listed(info: InterfaceInfo) -> dict[str, Any]:
    first = info.disks[0] if info.disks else None
    return {
        **identity_of(info),
        "protocol": info.protocol,
        "speed": info.speed,
        "driver": info.driver,
        "lease": _lease(info),
        "disk": first and first.node,
        "bytes": first and first.size,
        "mounts": [mount for disk in info.disks for mount in disk.mounts],
        "disks": [{"lun": d.lun, "disk": d.node, "bytes": d.size, "mounts": d.mounts} for d in info.disks],
        "unsupported": info.unsupported,
    }


def _cells(row: dict[str, Any]) -> list[list[Any]]:
    """Return the table rows of a device: one for each of its disks, which names the device only once."""
    name = " ".join(filter(None, (row["manufacturer"], row["product"]))) or None
    who = [row["address"], f"{row['vid']}:{row['pid']}", row["serial"], name]
    if not row["disks"]:
        return [[*who, None, None, _used_by(row)]]
    places = [[each["disk"], _size(each["bytes"]), ", ".join(each["mounts"])] for each in row["disks"]]
    first = [*who, *places[0][:2], places[0][2] or _used_by(row)]
    return [first, *([""] * len(who) + place for place in places[1:])]


def _size(count: int | None) -> str | None:
    return None if count is None else size_text(count)


def _used_by(row: dict[str, Any]) -> str | None:
    lease, driver = row["lease"], row["driver"]
    if row["unsupported"]:
        return "not supported"
    return f"{driver}, pid {lease['pid']}" if lease else driver


def _lease(info: InterfaceInfo) -> dict[str, Any] | None:
    from scsiusb.leases.lease import holder

    record = holder(info)
    if record is None:
        return None
    return {"pid": record.pid, "command": record.command, "since": record.since}
