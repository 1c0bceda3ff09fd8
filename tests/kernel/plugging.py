"""Plug and unplug the zoo's devices: QEMU's by its monitor, the kernel's own gadgets by their controller."""

from __future__ import annotations

from pathlib import Path

from . import qmp
from .machine import Device, wait_for

GADGETS = Path("/sys/kernel/config/usb_gadget")


def pull(device: Device) -> None:
    """Have the device pulled; returns before the kernel has noticed."""
    if device.udc:
        _controller(device).write_text("\n")
    else:
        qmp.pull(device)


def insert(device: Device) -> None:
    """Have a device that was pulled plugged in again; returns before the kernel has noticed."""
    if device.udc:
        _controller(device).write_text(device.udc)
    else:
        qmp.insert(device)


def unplug(device: Device) -> None:
    """Pull the device and wait until the kernel has noticed."""
    pull(device)
    wait_for(lambda: not device.present, f"the kernel to notice that {device} is gone")


def plug(device: Device) -> None:
    """Plug in a device that was pulled, and wait until the kernel drives it."""
    insert(device)
    device.wait()


def _controller(device: Device) -> Path:
    """The file that names the controller on which the gadget is; empty: it is on none, as a device that was pulled."""
    return GADGETS / device.name / "UDC"
