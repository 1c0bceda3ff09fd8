"""What a lease says, who it is about, and the reading of one that may be anybody's work."""

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
from scsiusb.leases.warden_main import DEAD, LONGEST_MESSAGE, Holding, started
from scsiusb.usb.interface import InterfaceInfo, bulk_in, bulk_out

LONGEST_COMMAND: Final = 200
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Record:
    """What a lease says: who holds which interface of which device, and what was taken from the kernel for it."""

    pid: int
    started: int | None
    """When the process was started, in the kernel's ticks; None where the system does not tell."""
    boot: str | None
    """The kernel's boot id."""
    command: str
    since: str
    """ISO 8601, seconds."""
    address: str
    name: str
    """The kernel's name of the interface: "2-1:1.0"."""
    bus: int
    number: int
    """With `bus`, it names one plugging-in of the device."""
    interface: int
    vendor_id: int
    product_id: int
    serial: str | None
    driver: str | None
    """The kernel driver that was detached; None: none was bound."""
    bulk_in: int
    """bEndpointAddress"""
    bulk_out: int
    uid: int | None

    @property
    def file_name(self) -> str:
        return file_name(self.bus, self.number, self.interface)


def runs(record: Record) -> bool:
    """Whether the process that the record names still is that process."""
    if ON_WINDOWS:
        return True  # the lock tells
    if not of_this_boot(record):
        return False
    try:
        os.kill(record.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    now = started(record.pid)
    return now != DEAD and (None in (now, record.started) or now == record.started)


def of_this_boot(record: Record) -> bool:
    return None in (record.boot, boot := _boot()) or record.boot == boot


def file_name(bus: int, number: int, interface: int) -> str:
    return f"{bus:03d}-{number:03d}-{interface}.json"


def record_of(info: InterfaceInfo) -> Record:
    into, out = bulk_in(info.setting), bulk_out(info.setting)
    return Record(
        pid=os.getpid(),
        started=started(os.getpid()),
        boot=_boot(),
        command=printable(" ".join(sys.orig_argv))[:LONGEST_COMMAND],
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
    )


def holding_of(record: Record, lease: Path | None) -> Holding:
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
    if len(holding.message()) > LONGEST_MESSAGE:
        holding.lease = None
    return holding


def _boot() -> str | None:
    try:
        return BOOT_ID.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None


def parse(text: bytes) -> Record | None:
    """A lease's first line, which may be anybody's work: None unless each field is what it should be."""
    line, end, _ = text.partition(b"\n")
    try:
        found: Any = json.loads(line) if end else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not all(name in found and good(found[name]) for name, good in FIELDS.items()):
        return None
    record = Record(**{field.name: found[field.name] for field in fields(Record)})
    fits = record.name.startswith((f"{record.bus}-", f"usb{record.bus}:"))
    return record if fits and record.address in (record.name, record.name.partition(":")[0]) else None


def _whole(lowest: int, highest: int) -> Callable[[object], bool]:
    return lambda value: type(value) is int and lowest <= value <= highest


def _matching(pattern: str) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and bool(re.fullmatch(pattern, value, re.ASCII))


def _printable(longest: int) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and len(value) <= longest and value.isprintable()


def _or_none(good: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or good(value)


INTERFACE_NAME: Final = r"(usb\d{1,3}|\d{1,3}-\d{1,3}(\.\d{1,3}){0,6}):\d{1,3}\.\d{1,3}"
FIELDS: Final[dict[str, Callable[[object], bool]]] = {
    "in_command": _whole(0, 1),
    "pid": _whole(1, 0x7FFFFFFF),
    "started": _or_none(_whole(0, 1 << 63)),
    "boot": _or_none(_matching(r"[0-9a-f-]{1,64}")),
    "command": _printable(LONGEST_COMMAND),
    "since": _matching(r"[0-9T:.+-]{1,40}"),
    "address": _printable(64),
    "name": _matching(INTERFACE_NAME),
    "bus": _whole(0, 999),
    "number": _whole(0, 999),
    "interface": _whole(0, 255),
    "vendor_id": _whole(0, 0xFFFF),
    "product_id": _whole(0, 0xFFFF),
    "serial": _or_none(_printable(255)),
    "driver": _or_none(_printable(64)),
    "bulk_in": _whole(0, 0xFF),
    "bulk_out": _whole(0, 0xFF),
    "uid": _or_none(_whole(0, 0xFFFFFFFF)),
}
