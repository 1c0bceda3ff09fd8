"""Translates libusb's codes into public errors; this is the only place that does."""

from __future__ import annotations

import os
from typing import Final

from scsiusb.base.releases import close_all, open_into
from scsiusb.errors import (
    AccessDenied,
    DeviceBusy,
    DeviceGone,
    DeviceTimeout,
    DeviceUnsupported,
    TransferStalled,
    TransportError,
)
from scsiusb.usb.backend import Code, UsbError

WORDS: Final[dict[Code, tuple[type[TransportError], str, str | None]]] = {
    Code.IO: (TransportError, "the transfer failed", None),
    Code.INVALID_PARAM: (TransportError, "libusb refused the request as invalid", "report this as a bug of scsiusb"),
    Code.ACCESS: (AccessDenied, "permission denied", None),
    Code.NO_DEVICE: (DeviceGone, "the device is gone", None),
    Code.NOT_FOUND: (TransportError, "there is no such interface or endpoint", None),
    Code.BUSY: (DeviceBusy, "the device is in use", None),
    Code.TIMEOUT: (DeviceTimeout, "the device did not answer in time", None),
    Code.OVERFLOW: (TransportError, "the device sent more data than was requested", None),
    Code.PIPE: (TransferStalled, "the device stalled", None),
    Code.INTERRUPTED: (TransportError, "the transfer was interrupted", "try again"),
    Code.NO_MEM: (
        TransportError,
        "the kernel has no memory for the transfer",
        "raise /sys/module/usbcore/parameters/usbfs_memory_mb, or close other USB programs",
    ),
    Code.NOT_SUPPORTED: (
        DeviceUnsupported,
        "the platform cannot do this",
        "on Windows, give the device the WinUSB driver (see the README)",
    ),
    Code.OTHER: (TransportError, "libusb reports an unknown error", None),
}
# What libusb reports if it could not open a file: it does not say why.
WITHOUT_FILE: Final = (Code.IO, Code.OTHER, Code.NO_MEM, Code.NOT_SUPPORTED)
ENOUGH_DESCRIPTORS: Final = 12  # libusb's context and its hotplug need about eight


def translate(error: UsbError, doing: str) -> TransportError:
    """Return the public error for `error`, which occurred while `doing` something: "opening 2-1"."""
    kind, words, remedy = WORDS[error.code]
    if error.code in WITHOUT_FILE and _free_descriptors() < ENOUGH_DESCRIPTORS:
        kind, words = TransportError, f"{words}, and this process may open hardly any more files"
        remedy = "raise the limit of open files (ulimit -n), or close some"
    detail = f" ({error.detail})" if error.detail else ""
    return kind(f"{doing}: {words}{detail}", remedy)


def _free_descriptors() -> int:
    """Return how many files this process can open, as far as ENOUGH_DESCRIPTORS."""
    opened: list[int] = []
    try:
        while len(opened) < ENOUGH_DESCRIPTORS:
            open_into(opened, os.open, os.devnull, os.O_RDONLY)
    except OSError:
        return len(opened)
    finally:
        close_all(opened)
    return ENOUGH_DESCRIPTORS
