"""Finds attached devices, and selects one of them by the text that a user gave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from scsiusb.errors import DeviceNotFound, DeviceNotUnique
from scsiusb.usb.interface import InterfaceInfo, find, matches

if TYPE_CHECKING:
    from scsiusb.usb.backend import Backend

VIRTUAL: Final = "virtual:"


def devices() -> list[InterfaceInfo]:
    """Return the attached mass-storage interfaces, also those that cannot be opened. On Linux, opens no device."""
    return find(real_usb())


def select(found: list[InterfaceInfo], words: str | None) -> InterfaceInfo:
    """Return the one interface that `words` select; None: the only one. Raises DeviceNotFound, DeviceNotUnique."""
    selected = [info for info in found if words is None or matches(info, words)]
    if len(selected) == 1:
        return selected[0]
    subject = "no device was named and" if words is None else f"{words!r}:"
    if not selected:
        none = "no mass-storage device is attached" if not found else "no attached device matches"
        raise DeviceNotFound(f"{subject} {none}")
    several = ", ".join(f"{info.address} ({info.vid:04x}:{info.pid:04x}, serial {info.serial})" for info in selected)
    raise DeviceNotUnique(f"{subject} {len(selected)} devices match: {several}")


def real_usb() -> Backend:
    """Return the backend for libusb, which is loaded now. Raises ScsiUsbError if it is not installed or fails."""
    from scsiusb.usb.libusb.backend import libusb

    return libusb()
