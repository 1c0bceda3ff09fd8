"""Finds out what may keep a program from its USB devices: libusb, device nodes, memory limits, containers."""

from __future__ import annotations

import ctypes
import os
from enum import Enum
from pathlib import Path
from typing import Final, NamedTuple

from scsiusb.usb.backend import Backend, Code, Device, UsbError
from scsiusb.usb.libusb.hotplug import HAS_HOTPLUG
from scsiusb.usb.libusb.library import load
from scsiusb.usb.libusb.memory import LIMIT
from scsiusb.usb.system import linux
from scsiusb.usb.translate import translate

NODES: Final = Path("/dev/bus/usb")
KERNEL_RELEASE: Final = Path("/proc/sys/kernel/osrelease")
CONTAINER_MARKS: Final = (Path("/.dockerenv"), Path("/run/.containerenv"), Path("/run/systemd/container"))
USBFS_DRIVER: Final = "usbfs"  # sysfs shows this driver for an interface that a program has claimed


class _Version(ctypes.Structure):
    """`struct libusb_version`."""

    _fields_ = [
        *((name, ctypes.c_uint16) for name in ("major", "minor", "micro", "nano")),
        ("rc", ctypes.c_char_p),
        ("describe", ctypes.c_char_p),
    ]


class Library(NamedTuple):
    """The version and path of the loaded libusb, and whether it reports hotplug events here."""

    version: str
    path: str
    has_hotplug: bool


def library() -> Library:
    """Load libusb and describe it. Raises ScsiUsbError, OSError or ImportError if it cannot be loaded."""
    backend = load()
    if backend is None:
        raise translate(UsbError(Code.NOT_SUPPORTED, "libusb cannot be loaded"), "loading libusb")
    lib = backend.lib
    lib.libusb_get_version.restype = ctypes.POINTER(_Version)
    found = lib.libusb_get_version().contents
    version = f"{found.major}.{found.minor}.{found.micro}.{found.nano}{(found.rc or b'').decode()}"
    return Library(version, str(lib._name), bool(lib.libusb_has_capability(HAS_HOTPLUG)))


class Sandbox(Enum):
    """A kind of environment that hides USB devices from its programs."""

    CONTAINER = "a container"
    WSL = "Windows Subsystem for Linux"


def sandbox() -> Sandbox | None:
    """Return the kind of sandbox that this process runs in; None if it is not known to be in one."""
    if "microsoft" in _text(KERNEL_RELEASE).lower():
        return Sandbox.WSL
    if os.environ.get("container") or any(mark.exists() for mark in CONTAINER_MARKS):  # noqa: SIM112 - its name
        return Sandbox.CONTAINER
    return None


def missing_folders() -> list[Path]:
    """Return the folders of Linux's USB support that do not exist here: those of sysfs and of the device nodes."""
    return [folder for folder in (linux.USB_DEVICES, NODES) if not folder.is_dir()]


def try_node(device: Device) -> None:
    """Open the device's node as libusb does, and close it. Raises OSError if that is not permitted."""
    # Not access(2): it says yes to a container's root, whose open is then refused.
    os.close(os.open(linux.node(device), os.O_RDWR | getattr(os, "O_CLOEXEC", 0)))


def try_open(backend: Backend, device: Device) -> UsbError | None:
    """Open the device and close it; return the error if that fails. For platforms without device nodes."""
    try:
        backend.open(device).close()
    except UsbError as error:
        return error
    return None


def memory_limit() -> int | None:
    """Return the limit for the transfers of all programs, in MB; 0 if there is no limit, None if it is not known."""
    text = _text(LIMIT).strip()
    return int(text) if text.isdecimal() else None


def _text(path: Path) -> str:
    """Read a file; "" if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
