"""What Linux's sysfs and procfs tell about an interface without opening it: strings, driver, disks and their users."""

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
JUST_PLUGGED: Final = 3.0  # seconds in which the kernel may still be on its way to a driver
DRIVER_PATIENCE: Final = 1.0


def interface_path(device: Device, interface: int) -> Path:
    return USB_DEVICES / device.interface_name(interface)


def strings(device: Device) -> Strings:
    """The strings that the kernel read when the device was plugged in; anybody may see them."""
    folder = USB_DEVICES / device.address
    return Strings(*(_text(folder / name) for name in ("serial", "manufacturer", "product")))


def driver(device: Device, interface: int) -> str | None:
    target = _target(interface_path(device, interface) / "driver")
    return target and os.path.basename(target)


def await_driver(device: Device, interface: int) -> None:
    """Lets the kernel come to the end of a plugging-in: a driver that came after us would never be given back."""
    deadline = time.monotonic() + DRIVER_PATIENCE
    while driver(device, interface) is None and _is_just_plugged(device) and time.monotonic() < deadline:
        time.sleep(0.02)


def _is_just_plugged(device: Device) -> bool:
    milliseconds = _text(USB_DEVICES / device.address / "power" / "connected_duration")
    return milliseconds is not None and int(milliseconds) < JUST_PLUGGED * 1000


def disks(device: Device, interface: int) -> list[str]:
    """The kernel's names of the block devices behind the interface: ["sda"]."""
    return sorted(path.name for path in interface_path(device, interface).glob("host*/target*/*/block/*"))


def uses(device: Device, interface: int) -> list[str]:
    """What uses the disks: mounts, swap, and holders such as LVM, dm-crypt and md, with what uses those."""
    table = _uses_by_block_device()
    return [use for disk in disks(device, interface) for use in _uses_of(disk, table, "")]


@contextmanager
def exclusive(names: list[str]) -> Iterator[None]:
    """Holds the disks as a mount would, so that nobody can mount them meanwhile; UsbError(BUSY) if somebody has.

    Sees what mountinfo does not show: mounts in other namespaces. Where we may not open the disk, it does nothing.
    """
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
    return f"/dev/bus/usb/{device.bus:03}/{device.number:03}"


def close_node(device: Device) -> None:
    """Closes every descriptor of the device's node that this process has."""
    own = PROC / "self" / "fd"
    for name in os.listdir(own):
        if _target(own / name) == node(device):
            os.close(int(name))


def openers(device: Device) -> list[str]:
    """The processes that have the device node open, as far as we may look: "pid 12 (python3)"."""
    wanted = node(device)
    return [
        f"pid {folder.name} ({_text(folder / 'comm')})"
        for folder in PROC.glob("[0-9]*")
        if int(folder.name) != os.getpid() and wanted in _open_files(folder)
    ]


def _open_files(process: Path) -> set[str]:
    try:
        names = os.listdir(process / "fd")
    except OSError:  # it ended, or is not ours to look at
        return set()
    return {file for name in names if (file := _target(process / "fd" / name))}


def _target(link: Path) -> str | None:
    try:
        return os.readlink(link)
    except OSError:
        return None


def _uses_of(name: str, table: dict[str, list[str]], within: str) -> Iterator[str]:
    """The uses of a block device, of its partitions, and of the devices stacked on it."""
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
    table: dict[str, list[str]] = {}
    for name, use in (*_mounts(), *_swaps()):
        uses_of_name = table.setdefault(name, [])
        if use not in uses_of_name:
            uses_of_name.append(use)
    return table


def _mounts() -> Iterator[tuple[str, str]]:
    """By device number, and by source too: btrfs shows a number of its own (proc(5), mountinfo)."""
    for line in _lines(PROC / "self" / "mountinfo"):
        fields, _, rest = line.partition(" - ")
        number, mount_point = fields.split(" ")[2], _unescape(fields.split(" ")[4])
        source = _unescape(rest.split(" ")[1])
        use = f"is mounted on {mount_point}"
        by_number = _target(DEV_BLOCK / number)
        if by_number is not None:
            yield os.path.basename(by_number), use
        elif source.startswith("/dev/"):
            yield os.path.basename(os.path.realpath(source)), use


def _swaps() -> Iterator[tuple[str, str]]:
    for line in _lines(PROC / "swaps")[1:]:
        yield os.path.basename(os.path.realpath(_unescape(line.split()[0]))), "is used as swap"


def _unescape(text: str) -> str:
    return OCTAL_ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_bytes().decode("utf-8", "replace")
    except OSError:
        return []
    return [line for line in text.split("\n") if line]  # splitlines ends one at some characters of a mount point's


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None
