"""Which device the words mean, and opening it."""

from __future__ import annotations

import operator
import re
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Final

from scsiusb.disk import Disk
from scsiusb.errors import DeviceNotFound, DeviceNotUnique
from scsiusb.scsi.unit import LogicalUnit
from scsiusb.transport.bot import MAX_LUN, BulkOnlyTransport
from scsiusb.usb.backend import Backend, UsbError
from scsiusb.usb.interface import InterfaceInfo, find
from scsiusb.usb.port import Port
from scsiusb.usb.translate import translate

if TYPE_CHECKING:
    from scsiusb.usb.trace import Tracing
    from scsiusb.virtual import Bus

VIRTUAL: Final = "virtual:"
SERIAL: Final = "serial="
VID_PID: Final = re.compile(r"([0-9a-fA-F]{4}):([0-9a-fA-F]{4})")


def devices() -> list[InterfaceInfo]:
    """The mass-storage interfaces attached now, also those that we may not open. Opens none of them on Linux."""
    return find(_libusb())


def open(
    device: str | InterfaceInfo | None = None, *, lun: int = 0, timeout: float | None = None, trace: str | None = None
) -> Disk:
    """Opens a device; close the disk, or use it in a `with`, to give it back.

    `device`: an address ("2-1"), "VID:PID", "serial=TEXT", "virtual:FILE", "virtual:" alone, or what `devices`
    returned; None: the only one attached. `timeout`: seconds for every command, None: as each is declared.
    `trace`: a pcapng file that records what goes over the bus.

    Raises DeviceNotFound, DeviceNotUnique, DeviceBusy (mounted, or another program has it), AccessDenied,
    DeviceUnsupported, and the errors of the first commands.
    """
    with ExitStack() as stack:
        if isinstance(device, str) and device.startswith(VIRTUAL):
            backend: Backend = _virtual(device.removeprefix(VIRTUAL))
            device = None
        else:
            backend = _libusb()
        stack.callback(backend.close)
        if trace is not None:
            backend = stack.enter_context(closing(_tracing(backend, trace)))
        disk = open_on(backend, device, lun=lun, timeout=timeout)
        disk.add_resources(stack.pop_all())
        return disk


def open_on(
    backend: Backend, device: str | InterfaceInfo | None = None, *, lun: int = 0, timeout: float | None = None
) -> Disk:
    """As `open`, on a USB stack of the caller's, such as a `virtual.Bus`, which stays the caller's to close."""
    if timeout is not None and not timeout > 0:
        raise ValueError(f"a timeout of {timeout} seconds")
    if not 0 <= operator.index(lun) <= MAX_LUN:
        raise ValueError(f"LUN {lun} is not from 0 to {MAX_LUN}")
    info = device if isinstance(device, InterfaceInfo) else select(find(backend), device)
    with ExitStack() as stack:
        transport = stack.enter_context(closing(BulkOnlyTransport(Port(backend, info))))
        if lun > transport.max_lun:
            raise DeviceNotFound(
                f"{info} has no LUN {lun}, its last is {transport.max_lun}", "run `scsiusb luns` to see them"
            )
        return Disk(LogicalUnit(transport, lun, timeout=timeout), stack.pop_all())


def select(found: list[InterfaceInfo], words: str | None) -> InterfaceInfo:
    """The one interface that `words` mean. Raises DeviceNotFound, DeviceNotUnique."""
    matches = [info for info in found if words is None or _matches(info, words)]
    if len(matches) == 1:
        return matches[0]
    meant = "no device was named and" if words is None else f"{words!r}:"
    if not matches:
        none = "no mass-storage device is attached" if not found else "no attached device matches"
        raise DeviceNotFound(f"{meant} {none}")
    several = ", ".join(f"{info.address} ({info.vid:04x}:{info.pid:04x}, serial {info.serial})" for info in matches)
    raise DeviceNotUnique(f"{meant} {len(matches)} devices match: {several}")


def _matches(info: InterfaceInfo, words: str) -> bool:
    if words.startswith(SERIAL):
        return info.serial == words.removeprefix(SERIAL)
    identity = VID_PID.fullmatch(words)
    if identity:
        return (info.vid, info.pid) == tuple(int(number, 16) for number in identity.groups())
    return words in (info.address, info.device.address, info.name)


def _virtual(path: str) -> Bus:
    """A bus with one stick on it; OSError where the file cannot be opened, ValueError for a size that is none."""
    from scsiusb.virtual import Bus, Stick

    try:
        return Bus(Stick.open_file(path) if path else Stick.formatted())
    except ValueError as error:
        raise ValueError(f"{VIRTUAL}{path}: {error}") from error


def _tracing(backend: Backend, path: str) -> Tracing:
    from scsiusb.usb.trace import Tracing

    return Tracing(backend, path)


def _libusb() -> Backend:
    from scsiusb.usb.libusb import LibusbBackend

    try:
        return LibusbBackend()
    except UsbError as error:
        raise translate(error, "loading libusb") from error
