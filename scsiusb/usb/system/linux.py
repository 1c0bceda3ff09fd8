"""Reads sysfs and procfs about an interface, without opening the device: strings, driver, disks and their users."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from scsiusb.usb.backend import Code, Device, Strings, UsbError

USB_DEVICES: Final = Path("/sys/bus/usb/devices")
CLASS_BLOCK: Final = Path("/sys/class/block")
DEV_BLOCK: Final = Path("/sys/dev/block")
PROC: Final = Path("/proc")
OCTAL_ESCAPE: Final = re.compile(r"\\([0-7]{3})")
JUST_PLUGGED: Final = 3.0  # seconds after plugging in, in which the kernel may not have bound a driver yet
DRIVER_TIMEOUT: Final = 1.0  # seconds


def interface_path(device: Device, interface: int) -> Path:
    """Return the interface's folder in sysfs."""
    return USB_DEVICES / device.interface_name(interface)


def strings(device: Device) -> Strings:
    """Return the strings that the kernel read when the device was plugged in; every user may read them."""
    folder = USB_DEVICES / device.address
    return Strings(*(_text(folder / name) for name in ("serial", "manufacturer", "product")))


def driver(device: Device, interface: int) -> str | None:
    """Return the kernel driver that is bound to the interface; None if there is none."""
    target = _target(interface_path(device, interface) / "driver")
    return target and os.path.basename(target)


def await_driver(device: Device, interface: int) -> None:
    """Wait until a device that was just plugged in has a driver, DRIVER_TIMEOUT seconds at most."""
    # If the interface was claimed before the kernel had bound its driver, no driver would be bound after the release.
    deadline = time.monotonic() + DRIVER_TIMEOUT
    while driver(device, interface) is None and _is_just_plugged(device) and time.monotonic() < deadline:
        time.sleep(0.02)


def _is_just_plugged(device: Device) -> bool:
    """Return whether the device was plugged in less than JUST_PLUGGED seconds ago; False if it is not known."""
    milliseconds = _text(USB_DEVICES / device.address / "power" / "connected_duration")
    return milliseconds is not None and int(milliseconds) < JUST_PLUGGED * 1000


def disks(device: Device, interface: int) -> list[str]:
    """Return the kernel's names of the interface's block devices, such as ["sda"]."""
    return sorted(path.name for path in interface_path(device, interface).glob("host*/target*/*/block/*"))


def uses(device: Device, interface: int) -> list[str]:
    """Describe what uses the interface's disks, one use a string.

    Uses are mounts, swap, and holders such as LVM, dm-crypt and md, with what uses those.
    """
    table = _uses_by_block_device()
    return [use for disk in disks(device, interface) for use in _uses_of(disk, table, "")]


@contextmanager
def exclusive(names: list[str]) -> Iterator[None]:
    """Hold the disks as a mount does, so that they cannot be mounted meanwhile. Raises UsbError: BUSY.

    `names` are those that `disks` returns. A disk that this user may not open is left out.
    """
    # O_EXCL on a block device also fails for what mountinfo does not show: mounts in other namespaces.
    with ExitStack() as stack:
        for name in names:
            try:
                descriptor = os.open(f"/dev/{name}", os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                if error.errno == errno.EBUSY:
                    raise UsbError(Code.BUSY, f"/dev/{name} is in use by the system") from error
            else:
                stack.callback(os.close, descriptor)
        yield


def node(device: Device) -> str:
    """Return the path of the device's node."""
    return f"/dev/bus/usb/{device.bus:03}/{device.number:03}"


def close_node(device: Device) -> None:
    """Close every descriptor of the device's node that this process has."""
    own = PROC / "self" / "fd"
    for name in os.listdir(own):
        if _target(own / name) == node(device):
            os.close(int(name))


def openers(device: Device) -> list[str]:
    """Return the other processes that have the device's node open: "pid 12 (python3)".

    Without root's rights, only processes of this user can be seen.
    """
    wanted = node(device)
    return [
        f"pid {folder.name} ({_text(folder / 'comm')})"
        for folder in PROC.glob("[0-9]*")
        if int(folder.name) != os.getpid() and wanted in _open_files(folder)
    ]


def _open_files(process: Path) -> set[str]:
    """Return the paths of the files that a process has open; empty if they cannot be seen."""
    try:
        names = os.listdir(process / "fd")
    except OSError:  # it has ended, or is another user's
        return set()
    return {file for name in names if (file := _target(process / "fd" / name))}


def _target(link: Path) -> str | None:
    """Read a symbolic link; None if it cannot be read."""
    try:
        return os.readlink(link)
    except OSError:
        return None


def _uses_of(name: str, table: dict[str, list[str]], within: str) -> Iterator[str]:
    """Yield the uses of a block device, of its partitions, and of the devices stacked on it.

    `within` is the start of each text: how this device is stacked on a disk.
    """
    node = f"{within}/dev/{name}"
    for use in table.get(name, []):
        yield f"{node} {use}"
    folder = CLASS_BLOCK / name
    for partition in sorted(folder.glob(f"{name}*/partition")):
        yield from _uses_of(partition.parent.name, table, within)
    for holder in sorted(folder.glob("holders/*")):
        label = _text(holder / "dm" / "name") or holder.name
        above = list(_uses_of(holder.name, table, f"{node} is held by {label}, and "))
        yield from above or [f"{node} is held by {label}"]


def _uses_by_block_device() -> dict[str, list[str]]:
    """Return the mounts and swaps of each block device, by its kernel name."""
    table: dict[str, list[str]] = {}
    for name, use in (*_mounts(), *_swaps()):
        uses_of_name = table.setdefault(name, [])
        if use not in uses_of_name:
            uses_of_name.append(use)
    return table


def _mounts() -> Iterator[tuple[str, str]]:
    """Yield the block device and the use of each mount (proc(5), mountinfo)."""
    for line in _lines(PROC / "self" / "mountinfo"):
        fields, _, rest = line.partition(" - ")
        number, mount_point = fields.split(" ")[2], _unescape(fields.split(" ")[4])
        source = _unescape(rest.split(" ")[1])
        use = f"is mounted on {mount_point}"
        # The device number counts first: the source is any text that the caller of mount(2) passed. btrfs shows a
        # number that is no block device's: then only the source is left.
        by_number = _target(DEV_BLOCK / number)
        if by_number is not None:
            yield os.path.basename(by_number), use
        elif source.startswith("/dev/"):
            yield os.path.basename(os.path.realpath(source)), use


def _swaps() -> Iterator[tuple[str, str]]:
    """Yield the block device and the use of each swap area (proc(5), swaps)."""
    for line in _lines(PROC / "swaps")[1:]:
        yield os.path.basename(os.path.realpath(_unescape(line.split()[0]))), "is used as swap"


def _unescape(text: str) -> str:
    r"""Replace the octal escapes, such as "\040" for a space, that procfs writes into paths."""
    return OCTAL_ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def _lines(path: Path) -> list[str]:
    """Read a procfs file's lines; none if it cannot be read."""
    try:
        text = path.read_bytes().decode("utf-8", "replace")
    except OSError:
        return []
    # Not splitlines: it also splits at characters, such as U+2028, that a mount point may contain.
    return [line for line in text.split("\n") if line]


def _text(path: Path) -> str | None:
    """Read a sysfs or procfs file without the space around its text; None if it is empty or cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None
