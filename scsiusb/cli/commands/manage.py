"""Commands about who holds what: leases, recover."""

from __future__ import annotations

from contextlib import closing
from typing import Any, Final

import click

from scsiusb.cli.device import complete_attached
from scsiusb.cli.options import global_options, settings
from scsiusb.cli.output import counted, say, show_json, show_table
from scsiusb.errors import AccessDenied, DeviceNotFound, ScsiUsbError, TransportError
from scsiusb.finding import select
from scsiusb.leases import lease
from scsiusb.leases import orphans as recovery
from scsiusb.leases.folders import is_root
from scsiusb.leases.lease import Seen
from scsiusb.leases.record import Record
from scsiusb.usb.backend import Backend, Code, UsbError
from scsiusb.usb.diagnosis import USBFS_DRIVER
from scsiusb.usb.interface import SERIAL, VID_PID, InterfaceInfo, find
from scsiusb.usb.libusb.backend import libusb
from scsiusb.usb.translate import translate

ORPHANED: Final = "orphaned"
LEASE_COLUMNS: Final = ("address", "serial", "state", "pid", "since", "driver", "user", "command")
RECOVERED_COLUMNS: Final = ("address", "serial", "driver", "done")

Row = dict[str, Any]


@click.command("leases", short_help="Who holds which device.")
@global_options
def leases_command() -> None:
    """Who holds which device, and what was left behind.

    A lease is "live" while its program runs. One is "orphaned" when its program
    ended without giving the device back; the next scsiusb command does that.

    \b
    Examples:
      scsiusb leases
      scsiusb leases --json
    """
    rows = [_leased(seen) for seen in lease.leases()]
    if settings().json:
        show_json(rows)
    elif rows:
        show_table(LEASE_COLUMNS, [[row[column] for column in LEASE_COLUMNS] for row in rows])
    else:
        say("no scsiusb program holds a device")
    orphans = sum(row["state"] == ORPHANED for row in rows)
    if orphans and not settings().json:
        say(f"{counted(orphans, 'device')} left behind; run `scsiusb recover`")


def _leased(seen: Seen) -> Row:
    record = seen.record
    return {
        "pid": record.pid,
        "command": record.command,
        "address": record.address,
        "serial": record.serial,
        "since": record.since,
        "state": seen.state,
        "driver": record.driver,
        "user": _user(record.uid),
    }


def _user(uid: int | None) -> str | None:
    try:
        from pwd import getpwuid

        return None if uid is None else getpwuid(uid).pw_name
    except (ImportError, KeyError):  # Windows; a user of another machine's or container's
        return str(uid)


@click.command("recover", short_help="Give back what a program left behind.")
@click.argument("device", required=False, shell_complete=complete_attached)
@global_options
def recover_command(device: str | None) -> None:
    """Give the kernel back what programs left behind.

    Without DEVICE, all that scsiusb programs left behind. With DEVICE, only
    that one, also where another program took it from the kernel's driver and
    left it so. A device that a program still uses is left alone.

    \b
    Examples:
      scsiusb recover
      scsiusb recover 2-1
    """
    rows = [_row(each) for each in recovery.recover()] if device is None else _recover(device)
    if settings().json:
        show_json(rows)
    elif rows:
        show_table(RECOVERED_COLUMNS, [[row[column] for column in RECOVERED_COLUMNS] for row in rows])
    else:
        say("nothing to give back")
    left = [row for row in rows if not row["ok"]]
    if left:
        raise _failure(left)


def _row(recovered: recovery.Recovered) -> Row:
    record = recovered.record
    return _told(record, record.pid, record.driver, recovered.done, ok=recovered.ok)


def _told(of: Record | InterfaceInfo, pid: int | None, driver: str | None, done: str, *, ok: bool) -> Row:
    return {"address": of.address, "serial": of.serial, "pid": pid, "driver": driver, "done": done, "ok": ok}


def _failure(left: list[Row]) -> ScsiUsbError:
    """Root lacks no permission: then it is the device."""
    what = ", ".join(f"{row['address']} could not be given back: {row['done']}" for row in left)
    if is_root():
        return TransportError(what)
    return AccessDenied(what, "run `sudo scsiusb recover`")


# --- DEVICE -------------------------------------------------------------------------------------


def _recover(words: str) -> list[Row]:
    """What was left behind by that name, be the device attached or not; else the attached device."""
    seen = [each for each in lease.leases() if _names(words, each.record)]
    orphans = {each.record.address for each in seen if each.state == ORPHANED}
    if orphans:
        return [_row(each) for address in sorted(orphans) for each in recovery.recover(address)]
    with closing(libusb()) as backend:
        info = _attached(backend, words)
        reason = _left_alone(info)
        if reason is None:
            return _bind(backend, info)
        say(f"{info.address} is left alone: {reason}")
        return []


def _names(words: str, record: Record) -> bool:
    """As DEVICE names an attached device."""
    if words.startswith(SERIAL):
        return record.serial == words.removeprefix(SERIAL)
    identity = VID_PID.fullmatch(words)
    if identity:
        return (record.vendor_id, record.product_id) == tuple(int(number, 16) for number in identity.groups())
    return words in (record.address, record.name, record.name.partition(":")[0])


def _attached(backend: Backend, words: str) -> InterfaceInfo:
    try:
        return select(find(backend), words)
    except DeviceNotFound as error:
        what = f"{error.what}, and nothing of that name was left behind"
        raise DeviceNotFound(what, "run `scsiusb list` and `scsiusb leases`") from error


def _left_alone(info: InterfaceInfo) -> str | None:
    """Why there is nothing to give back; None: nobody has the interface."""
    holder = lease.holder(info)
    if holder is not None:
        return f"pid {holder.pid} ({holder.command}) has it"
    if info.driver == USBFS_DRIVER:
        return "a program has it"
    return f"the kernel's {info.driver} has it" if info.driver else None


def _bind(backend: Backend, info: InterfaceInfo) -> list[Row]:
    """Lets the kernel find a driver, as it does when the device is plugged in."""
    try:
        with closing(backend.open(info.device)) as handle:
            handle.attach_driver(info.interface)
    except UsbError as error:
        if error.code is Code.NOT_SUPPORTED:  # a platform where no driver was ever taken away
            return []
        if error.code is Code.ACCESS:
            return [_told(info, None, None, "permission denied", ok=False)]
        if error.code is not Code.NOT_FOUND:
            raise translate(error, f"giving the kernel back its driver for {info}") from error
    driver = backend.driver(info.device, info.interface)
    done = f"kernel driver {driver} is bound again" if driver else "no kernel driver takes it"
    return [_told(info, None, driver, done, ok=driver is not None)]
