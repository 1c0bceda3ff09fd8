"""What stands between a program and its USB devices on this machine: libusb, device nodes, memory, sandboxes."""

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
USBFS_DRIVER: Final = "usbfs"  # what the kernel calls the driver of an interface that a program has claimed


class _Version(ctypes.Structure):
    """struct libusb_version"""

    _fields_ = [
        *((name, ctypes.c_uint16) for name in ("major", "minor", "micro", "nano")),
        ("rc", ctypes.c_char_p),
        ("describe", ctypes.c_char_p),
    ]


class Library(NamedTuple):
    """The libusb that is loaded."""

    version: str
    path: str
    has_hotplug: bool


def library() -> Library:
    """Loads libusb; raises ScsiUsbError, OSError or ImportError where that fails."""
    backend = load()
    if backend is None:
        raise translate(UsbError(Code.NOT_SUPPORTED, "libusb cannot be loaded"), "loading libusb")
    lib = backend.lib
    lib.libusb_get_version.restype = ctypes.POINTER(_Version)
    said = lib.libusb_get_version().contents
    version = f"{said.major}.{said.minor}.{said.micro}.{said.nano}{(said.rc or b'').decode()}"
    return Library(version, str(lib._name), bool(lib.libusb_has_capability(HAS_HOTPLUG)))


class Sandbox(Enum):
    """Where this system runs, if not on a machine of its own."""

    CONTAINER = "a container"
    WSL = "Windows Subsystem for Linux"


def sandbox() -> Sandbox | None:
    if "microsoft" in _text(KERNEL_RELEASE).lower():
        return Sandbox.WSL
    if os.environ.get("container") or any(mark.exists() for mark in CONTAINER_MARKS):  # noqa: SIM112 - its name
        return Sandbox.CONTAINER
    return None


def missing_folders() -> list[Path]:
    """Those that Linux's USB shows itself in and that are not here."""
    return [folder for folder in (linux.USB_DEVICES, NODES) if not folder.is_dir()]


def try_node(device: Device) -> None:
    """Opens the device as libusb does; raises OSError where we may not.

    access(2) would not do: a container's root has every permission, and is refused all the same.
    """
    os.close(os.open(linux.node(device), os.O_RDWR | getattr(os, "O_CLOEXEC", 0)))


def try_open(backend: Backend, device: Device) -> UsbError | None:
    """What keeps libusb from opening the device; for platforms without device nodes."""
    try:
        backend.open(device).close()
    except UsbError as error:
        return error
    return None


def memory_limit() -> int | None:
    """MB that all programs' transfers may take together; 0: no limit; None: the system does not tell."""
    text = _text(LIMIT).strip()
    return int(text) if text.isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
