"""Which devices are attached, and which of them the words of a user mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from scsiusb.errors import DeviceNotFound, DeviceNotUnique
from scsiusb.usb.interface import InterfaceInfo, find, matches

if TYPE_CHECKING:
    from scsiusb.usb.backend import Backend

VIRTUAL: Final = "virtual:"


def devices() -> list[InterfaceInfo]:
    """The mass-storage interfaces attached now, also those that we may not open. Opens none of them on Linux."""
    return find(real_usb())


def select(found: list[InterfaceInfo], words: str | None) -> InterfaceInfo:
    """The one interface that `words` mean. Raises DeviceNotFound, DeviceNotUnique."""
    meeting = [info for info in found if words is None or matches(info, words)]
    if len(meeting) == 1:
        return meeting[0]
    meant = "no device was named and" if words is None else f"{words!r}:"
    if not meeting:
        none = "no mass-storage device is attached" if not found else "no attached device matches"
        raise DeviceNotFound(f"{meant} {none}")
    several = ", ".join(f"{info.address} ({info.vid:04x}:{info.pid:04x}, serial {info.serial})" for info in meeting)
    raise DeviceNotUnique(f"{meant} {len(meeting)} devices match: {several}")


def real_usb() -> Backend:
    """libusb, which is loaded only when it is needed. Raises ScsiUsbError where it cannot be had."""
    from scsiusb.usb.libusb.backend import libusb

    return libusb()
