"""Commands about devices that processes use: leases, recover."""

from __future__ import annotations

import sys
from contextlib import closing, suppress
from typing import Any, Final

import click

from scsiusb.cli.device import complete_attached
from scsiusb.cli.options import global_options, settings
from scsiusb.cli.output import counted, say, show_json, show_table
from scsiusb.errors import AccessDenied, DeviceNotFound, ScsiUsbError, TransportError
from scsiusb.finding import is_selector, select
from scsiusb.leases import lease
from scsiusb.leases import orphans as recovery
from scsiusb.leases.folders import is_root
from scsiusb.leases.lease import Seen
from scsiusb.leases.record import Record, process_of
from scsiusb.usb.backend import Backend, Code, UsbError
from scsiusb.usb.diagnosis import USBFS_DRIVER
from scsiusb.usb.interface import SERIAL, VID_PID, InterfaceInfo, find
from scsiusb.usb.libusb.backend import libusb
from scsiusb.usb.translate import translate

ORPHANED: Final = "orphaned"
LEASE_COLUMNS: Final = ("address", "serial", "state", "pid", "since", "driver", "user", "command")
RECOVERED_COLUMNS: Final = ("address", "serial", "driver", "done")

Row = dict[str, Any]


@click.command("leases", short_help="Show which process uses which device.")
@global_options
def leases_command() -> None:
    """Show which scsiusb process uses which device (its lease).

    A lease is "live" while the process runs. It is "orphaned" if the process
    ended without giving the device back to the kernel; the next scsiusb command
    that uses devices gives it back.

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
        say("no scsiusb process uses a device")
    orphans = sum(row["state"] == ORPHANED for row in rows)
    if orphans and not settings().json:
        say(f"{counted(orphans, 'device')} not given back to the kernel; run `scsiusb recover`")


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
    if uid is not None and sys.platform != "win32":
        from pwd import getpwuid

        with suppress(KeyError):  # a user of another machine or container
            return getpwuid(uid).pw_name
    return None if uid is None else str(uid)


@click.command("recover", short_help="Give devices back to the kernel.")
@click.argument("device", required=False, shell_complete=complete_attached)
@global_options
def recover_command(device: str | None) -> None:
    """Give devices back to the kernel after a process that used them has died.

    Without DEVICE, all orphaned devices of scsiusb processes. With DEVICE, only
    that one, even if another program detached the kernel's driver from it. A
    device that is still in use is not changed.

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
    return _make_row(record, record.pid, record.driver, recovered.done, ok=recovered.ok)


def _make_row(of: Record | InterfaceInfo, pid: int | None, driver: str | None, done: str, *, ok: bool) -> Row:
    return {"address": of.address, "serial": of.serial, "pid": pid, "driver": driver, "done": done, "ok": ok}


def _failure(left: list[Row]) -> ScsiUsbError:
    """Return the error for devices that could not be given back; for root, missing permission is not the cause."""
    what = ", ".join(f"{row['address']} could not be given back: {row['done']}" for row in left)
    if is_root():
        return TransportError(what)
    return AccessDenied(what, "run `sudo scsiusb recover`")


# --- DEVICE -------------------------------------------------------------------------------------


def _recover(name: str) -> list[Row]:
    """Recover the orphans of that name, even if the device is not attached; else the attached device."""
    seen = [each for each in lease.leases() if _matches(name, each.record)]
    orphans = {each.record.address for each in seen if each.state == ORPHANED}
    rows = [_row(each) for address in sorted(orphans) for each in recovery.recover(address)]
    if rows:
        return rows
    with closing(libusb()) as backend:
        try:
            info = _attached(backend, name)
        except DeviceNotFound:
            if orphans:  # its device has gone, and another process removes its lease
                return []
            raise
        reason = _used_by(info)
        if reason is None:
            return _bind(backend, info)
        say(f"{info.address} is not changed: {reason}")
        return []


def _matches(name: str, record: Record) -> bool:
    """Return whether DEVICE refers to the device of a lease."""
    if name.startswith(SERIAL):
        return record.serial == name.removeprefix(SERIAL)
    identity = VID_PID.fullmatch(name)
    if identity:
        return (record.vendor_id, record.product_id) == tuple(int(number, 16) for number in identity.groups())
    return name in (record.address, record.name, record.name.partition(":")[0])


def _attached(backend: Backend, name: str) -> InterfaceInfo:
    try:
        return select(find(backend), name)
    except DeviceNotFound as error:
        if name.strip() and not is_selector(name):
            raise
        what = f"{error.what}, and there is no orphaned device of that name"
        raise DeviceNotFound(what, "run `scsiusb list` and `scsiusb leases`") from error


def _used_by(info: InterfaceInfo) -> str | None:
    """Return who uses the interface, or None if it is unused."""
    holder = lease.holder(info)
    if holder is not None:
        return f"{process_of(holder)} uses it"
    if info.driver == USBFS_DRIVER:
        return "a program uses it"
    return f"the kernel driver {info.driver} uses it" if info.driver else None


def _bind(backend: Backend, info: InterfaceInfo) -> list[Row]:
    """Let the kernel bind a driver, as it does when the device is plugged in."""
    try:
        with closing(backend.open(info.device)) as handle:
            handle.attach_driver(info.interface)
    except UsbError as error:
        if error.code is Code.NOT_SUPPORTED:  # a platform where drivers are never detached
            return []
        if error.code is Code.ACCESS:
            return [_make_row(info, None, None, "permission denied", ok=False)]
        if error.code is not Code.NOT_FOUND:
            raise translate(error, f"binding a kernel driver to {info}") from error
    driver = backend.driver(info.device, info.interface)
    done = f"kernel driver {driver} is bound again" if driver else "no kernel driver accepts it"
    return [_make_row(info, None, driver, done, ok=driver is not None)]
