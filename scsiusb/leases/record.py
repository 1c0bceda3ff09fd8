"""The record in a lease, and the parser that checks it: a lease may be any user's file."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from scsiusb.base.dataclass import dataclass
from scsiusb.base.text import printable
from scsiusb.leases.folders import ON_WINDOWS, user
from scsiusb.leases.warden_main import DEAD, MAX_MESSAGE_SIZE, Holding, started
from scsiusb.usb.interface import InterfaceInfo, bulk_in, bulk_out

MAX_COMMAND_LENGTH: Final = 200
PID_NAMESPACE: Final = "/proc/self/ns/pid"
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Record:
    """The content of a lease: the process, the interface that it holds, and the kernel driver that it detached."""

    pid: int
    started: int | None
    """When the process was started, in the kernel's ticks since boot; None where the system does not report it."""
    boot: str | None
    """The kernel's boot id; None where there is none."""
    command: str
    """The command line, at most 200 printable characters."""
    since: str
    """When the lease was taken: ISO 8601 with seconds and time zone."""
    address: str
    """See `InterfaceInfo.address`."""
    name: str
    """The kernel's name of the interface: "2-1:1.0"."""
    bus: int
    number: int
    """The device's number on the bus; together with `bus` it identifies one plugging-in of the device."""
    interface: int
    """bInterfaceNumber"""
    vendor_id: int
    product_id: int
    serial: str | None
    driver: str | None
    """The kernel driver that was detached; None if none was bound."""
    bulk_in: int
    """bEndpointAddress"""
    bulk_out: int
    uid: int | None
    """The user's id; None on Windows."""
    pid_namespace: int | None
    """The inode of the PID namespace that `pid` is a number of; None where there are none."""

    @property
    def file_name(self) -> str:
        """Return the name of the lease's file: "002-007-0.json"."""
        return file_name(self.bus, self.number, self.interface)


def is_running(record: Record) -> bool:
    """Return whether the record's process is still running.

    Always True on Windows, and for a process of another PID namespace: there only the lock shows it.
    """
    if ON_WINDOWS:
        return True
    if not of_this_boot(record):
        return False
    if is_foreign(record):
        return True
    try:
        os.kill(record.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's process: it is running
        pass
    # The pid may be another process's by now: then its start time differs.
    now = started(record.pid)
    return now != DEAD and (None in (now, record.started) or now == record.started)


def is_foreign(record: Record) -> bool:
    """Return whether the record's pid is of another PID namespace, such as a container's, and so means nothing here."""
    return None not in (record.pid_namespace, here := _pid_namespace()) and record.pid_namespace != here


def process_of(record: Record) -> str:
    """Return the record's process in words: "pid 7 (python x.py)"."""
    where = " of another PID namespace" if is_foreign(record) else ""
    return f"pid {record.pid}{where} ({record.command})"


def of_this_boot(record: Record) -> bool:
    """Return whether the record was written since the machine was started; True where that is not known."""
    return None in (record.boot, boot := _boot()) or record.boot == boot


def is_surely_of_this_boot(record: Record) -> bool:
    """Return whether the record was written since the machine was started; False where that is not known."""
    return record.boot is not None and record.boot == _boot()


def file_name(bus: int, number: int, interface: int) -> str:
    """Return the name of the lease's file of an interface: "BUS-NUMBER-INTERFACE.json"."""
    return f"{bus:03d}-{number:03d}-{interface}.json"


def record_of(info: InterfaceInfo) -> Record:
    """Return a record of this process as the interface's holder, with no driver detached yet."""
    into, out = bulk_in(info.setting), bulk_out(info.setting)
    return Record(
        pid=os.getpid(),
        started=started(os.getpid()),
        boot=_boot(),
        command=printable(" ".join(sys.orig_argv))[:MAX_COMMAND_LENGTH],
        since=datetime.now().astimezone().isoformat(timespec="seconds"),
        address=info.address,
        name=info.name,
        bus=info.device.bus,
        number=info.device.number,
        interface=info.interface,
        vendor_id=info.vid,
        product_id=info.pid,
        serial=info.serial,
        driver=None,
        bulk_in=into.address if into else 0,
        bulk_out=out.address if out else 0,
        uid=None if ON_WINDOWS else user(),
        pid_namespace=_pid_namespace(),
    )


def holding_of(record: Record, lease: Path | None) -> Holding:
    """Return what the warden must know of the record.

    The lease's path is left out if it makes the message too long; then the warden assumes that a command was in
    progress.
    """
    holding = Holding(
        name=record.name,
        bus=record.bus,
        number=record.number,
        interface=record.interface,
        bulk_in=record.bulk_in,
        bulk_out=record.bulk_out,
        had_driver=record.driver is not None,
    )
    holding.lease = None if lease is None else os.fsencode(lease)
    if len(holding.message()) > MAX_MESSAGE_SIZE:
        holding.lease = None
    return holding


def _boot() -> str | None:
    """Read the kernel's boot id, which changes with each start of the machine."""
    try:
        return BOOT_ID.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None


def _pid_namespace() -> int | None:
    """Return the inode of this process's PID namespace (pid_namespaces(7)); None where there are none."""
    try:
        return os.stat(PID_NAMESPACE).st_ino
    except OSError:
        return None


def parse(text: bytes) -> Record | None:
    """Parse a lease's first line; None unless every field has a valid value.

    The text is not trusted: recovery, which may run as root, acts on the result.
    """
    line, end, _ = text.partition(b"\n")
    try:
        found: Any = json.loads(line) if end else None
    except (ValueError, RecursionError):  # json raises RecursionError for deeply nested brackets
        return None
    if isinstance(found, dict):
        found.setdefault("pid_namespace", None)  # a lease of an older version has none
    if not isinstance(found, dict) or not all(name in found and good(found[name]) for name, good in FIELDS.items()):
        return None
    record = Record(**{field.name: found[field.name] for field in fields(Record)})
    # The names end up in sysfs paths: they must be of the same bus and device as the numbers.
    fits = record.name.startswith((f"{record.bus}-", f"usb{record.bus}:"))
    return record if fits and record.address in (record.name, record.name.partition(":")[0]) else None


def _integer(lowest: int, highest: int) -> Callable[[object], bool]:
    # `isinstance` would take a bool for an int.
    return lambda value: type(value) is int and lowest <= value <= highest


def _matching(pattern: str) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and bool(re.fullmatch(pattern, value, re.ASCII))


def _printable(longest: int) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and len(value) <= longest and value.isprintable()


def _or_none(good: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or good(value)


INTERFACE_NAME: Final = r"(usb\d{1,3}|\d{1,3}-\d{1,3}(\.\d{1,3}){0,6}):\d{1,3}\.\d{1,3}"
FIELDS: Final[dict[str, Callable[[object], bool]]] = {
    "in_command": _integer(0, 1),
    "pid": _integer(1, 0x7FFFFFFF),
    "started": _or_none(_integer(0, 1 << 63)),
    "boot": _or_none(_matching(r"[0-9a-f-]{1,64}")),
    "command": _printable(MAX_COMMAND_LENGTH),
    "since": _matching(r"[0-9T:.+-]{1,40}"),
    "address": _printable(64),
    "name": _matching(INTERFACE_NAME),
    "bus": _integer(0, 999),
    "number": _integer(0, 999),
    "interface": _integer(0, 255),
    "vendor_id": _integer(0, 0xFFFF),
    "product_id": _integer(0, 0xFFFF),
    "serial": _or_none(_printable(255)),
    "driver": _or_none(_printable(64)),
    "bulk_in": _integer(0, 0xFF),
    "bulk_out": _integer(0, 0xFF),
    "uid": _or_none(_integer(0, 0xFFFFFFFF)),
    "pid_namespace": _or_none(_integer(1, 1 << 64)),
}
