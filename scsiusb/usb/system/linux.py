"""Reads sysfs and procfs about an interface, without opening the device: strings, driver, disks."""

from __future__ import annotations

import errno
import os
import sys
import time
from pathlib import Path
from typing import Final

from scsiusb.usb.backend import Device, Strings

USB_DEVICES: Final = Path("/sys/bus/usb/devices")
PROC: Final = Path("/proc")
JUST_PLUGGED: Final = 3.0  # seconds after plugging in, in which the kernel may not have bound a driver yet
DRIVER_TIMEOUT: Final = 1.0  # seconds
ATTEMPTS: Final = 20  # to look into folders that come and go


def interface_path(device: Device, interface: int) -> Path:
    """Return the interface's folder in sysfs."""
    return USB_DEVICES / device.interface_name(interface)


def strings(device: Device) -> Strings:
    """Return the strings that the kernel read when the device was plugged in; every user may read them."""
    folder = USB_DEVICES / device.address
    return Strings(*(read_text(folder / name) for name in ("serial", "manufacturer", "product")))


def connection(device: Device) -> int | None:
    """Return a number of the device's plugging-in, which the kernel gives to no other; None if it is not there."""
    # sysfs makes a new folder, with a new inode number, each time a device is plugged in. The number is read after
    # that: if it is the device's, the folder was the device's before, too.
    folder = USB_DEVICES / device.address
    try:
        inode = os.stat(folder).st_ino
    except OSError:
        return None
    return inode if read_text(folder / "devnum") == str(device.number) else None


def driver(device: Device, interface: int) -> str | None:
    """Return the kernel driver that is bound to the interface; None if there is none."""
    target = read_link(interface_path(device, interface) / "driver")
    return target and os.path.basename(target)


def await_driver(device: Device, interface: int) -> None:
    """Wait until a device that was just plugged in has a driver, DRIVER_TIMEOUT seconds at most."""
    # If the interface was claimed before the kernel had bound its driver, no driver would be bound after the release.
    deadline = time.monotonic() + DRIVER_TIMEOUT
    while driver(device, interface) is None and _is_just_plugged(device) and time.monotonic() < deadline:
        time.sleep(0.02)


def _is_just_plugged(device: Device) -> bool:
    """Return whether the device was plugged in less than JUST_PLUGGED seconds ago; False if it is not known."""
    milliseconds = read_text(USB_DEVICES / device.address / "power" / "connected_duration")
    return milliseconds is not None and int(milliseconds) < JUST_PLUGGED * 1000


def disks(device: Device, interface: int) -> list[str]:
    """Return the kernel's names of the interface's block devices, such as ["sda"]."""
    return sorted(path.name for path in matching(interface_path(device, interface), "host*/target*/*/block/*"))


def node(device: Device) -> str:
    """Return the path of the device's node."""
    return f"/dev/bus/usb/{device.bus:03}/{device.number:03}"


def close_node(device: Device) -> None:
    """Close every descriptor of the device's node that this process has."""
    own = PROC / "self" / "fd"
    for name in os.listdir(own):
        if read_link(own / name) == node(device):
            os.close(int(name))


def openers(device: Device) -> list[str]:
    """Return the other processes that have the device's node open: "pid 12 (python3)".

    Without root's rights, only processes of this user can be seen.
    """
    wanted = node(device)
    return [
        f"pid {folder.name} ({read_text(folder / 'comm')})"
        for folder in matching(PROC, "[0-9]*")
        if int(folder.name) != os.getpid() and wanted in _open_files(folder)
    ]


def _open_files(process: Path) -> set[str]:
    """Return the paths of the files that a process has open; empty if they cannot be seen."""
    try:
        names = os.listdir(process / "fd")
    except OSError:  # it has ended, or is another user's
        return set()
    return {file for name in names if (file := read_link(process / "fd" / name))}


def number_of(found: os.stat_result) -> str:
    """Return the number of the device whose node was looked at, as the kernel writes it: "8:1"."""
    if sys.platform == "win32":
        raise OSError("Windows has no device numbers")
    return f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"


def matching(folder: Path, pattern: str) -> list[Path]:
    """Return the paths in a folder of sysfs or procfs that a pattern matches; none if the folder is not there.

    `Path.glob` raises FileNotFoundError, or ENODEV, if a folder goes while it looks in there: a device was unplugged,
    or a process has ended. Then it looks again, so that nothing else is missed.
    """
    for _ in range(ATTEMPTS):
        try:
            return list(folder.glob(pattern))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV, errno.ENOTDIR, errno.ESRCH):
                raise
    return list(folder.glob(pattern))


def read_link(link: Path) -> str | None:
    """Read a symbolic link; None if it cannot be read."""
    try:
        return os.readlink(link)
    except OSError:
        return None


def read_lines(path: Path) -> list[str]:
    """Read a procfs file's lines; none if it cannot be read."""
    try:
        text = path.read_bytes().decode("utf-8", "replace")
    except OSError:
        return []
    # Not splitlines: it also splits at characters, such as U+2028, that a mount point may contain.
    return [line for line in text.split("\n") if line]


def read_text(path: Path) -> str | None:
    """Read a sysfs or procfs file without the space around its text; None if it is empty or cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None
