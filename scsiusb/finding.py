"""Finds attached devices, and selects one of them by the text that a user gave."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Final

from scsiusb.errors import DeviceNotFound, DeviceNotUnique
from scsiusb.usb.interface import NODE, SERIAL, VID_PID, InterfaceInfo, find, matches

if TYPE_CHECKING:
    from scsiusb.usb.backend import Backend

ON_LINUX: Final = sys.platform == "linux"
VIRTUAL: Final = "virtual:"
ADDRESS: Final = re.compile(r"usb[0-9]+|[0-9]+-[0-9]+(\.[0-9]+)*(:[0-9]+\.[0-9]+)?")
PAIR: Final = re.compile(r"[0-9a-fA-F]{1,4}:[0-9a-fA-F]{1,4}")


def devices() -> list[InterfaceInfo]:
    """Return the attached mass-storage interfaces, also those that cannot be opened. On Linux, opens no device."""
    return find(real_usb())


def select(found: list[InterfaceInfo], words: str | None) -> InterfaceInfo:
    """Return the one interface that `words` select; None: the only one. Raises DeviceNotFound, DeviceNotUnique."""
    wanted = resolve(words)
    selected = [info for info in found if wanted is None or matches(info, wanted)]
    selected = [info for info in selected if info.unsupported is None] or selected
    if len(selected) == 1:
        return selected[0]
    subject = "no device was named and" if words is None else f"{words!r}:"
    if not selected:
        if words is not None and words.startswith(NODE) and not ON_LINUX:
            what = f"{words!r}: no attached device matches: disks are found by their nodes on Linux only"
            raise DeviceNotFound(what, "give an address such as 2-1, VID:PID or serial=TEXT")
        if words is not None and not is_selector(words):
            raise DeviceNotFound(f"{words!r}: no attached device matches: it is not a DEVICE", not_a_device(words))
        none = "no mass-storage device is attached" if not found else "no attached device matches"
        raise DeviceNotFound(f"{subject} {none}")
    several = ", ".join(f"{info.address} ({info.vid:04x}:{info.pid:04x}, serial {info.serial})" for info in selected)
    raise DeviceNotUnique(f"{subject} {len(selected)} devices match: {several}")


def resolve(words: str | None) -> str | None:
    """Return the words; a link to a node, such as one in /dev/disk/by-id, as the node."""
    return os.path.realpath(words) if words is not None and words.startswith(NODE) else words


def is_selector(words: str) -> bool:
    """Return whether the words have one of the forms of a DEVICE."""
    forms = (NODE, SERIAL, VIRTUAL)
    return words.startswith(forms) or bool(ADDRESS.fullmatch(words) or VID_PID.fullmatch(words))


def not_a_device(words: str) -> str:
    """Return the remedy to show if `words` has none of the forms of a DEVICE."""
    if words.strip() and os.path.exists(words):
        return f"did you mean {VIRTUAL}{words}?"
    if PAIR.fullmatch(words):
        return "write VID:PID with four hex digits each, such as 0123:0456"
    return f"give an address such as 2-1, VID:PID, serial=TEXT, /dev/sdX or {VIRTUAL}FILE"


def lun_of(info: InterfaceInfo, words: str | None) -> int | None:
    """Return the LUN that the words select, if they are the node of a disk."""
    node = resolve(words)
    return next((disk.lun for disk in info.disks if disk.node == node), None)


def real_usb() -> Backend:
    """Return the backend for libusb, which is loaded now. Raises ScsiUsbError if it is not installed or fails."""
    from scsiusb.usb.libusb.backend import libusb

    return libusb()
