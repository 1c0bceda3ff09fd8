"""Reads sysfs and procfs about an interface's disks (Linux), opening none: node, LUN, size, mount points."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from scsiusb.usb.backend import BlockDisk, Device
from scsiusb.usb.system import linux

USB_DEVICES: Final = Path("/sys/bus/usb/devices")
MOUNTINFO: Final = Path("/proc/self/mountinfo")
SWAPS: Final = Path("/proc/swaps")
SECTOR: Final = 512  # bytes; the unit of `size` in sysfs, whatever the block size is
SWAP: Final = "[SWAP]"  # as lsblk shows it
DEEPEST: Final = 8  # levels of stacked devices; a faulty sysfs could have a cycle
OCTAL_ESCAPE: Final = re.compile(r"\\([0-7]{3})")


def disks(device: Device, interface: int) -> list[BlockDisk]:
    """Return the block devices of the interface's logical units, by LUN; empty while no kernel driver is bound."""
    folder = USB_DEVICES / device.interface_name(interface)
    paths = linux.matching(folder, "host*/target*/*/block/*")
    mounts = _mounts() if paths else {}
    return sorted((_disk(path, mounts) for path in paths), key=lambda disk: (disk.lun, disk.node))


def _disk(path: Path, mounts: dict[str, list[str]]) -> BlockDisk:
    lun = path.parent.parent.name.rpartition(":")[2]  # host:channel:target:lun
    sectors = _text(path / "size")
    points = [point for number in _numbers(path) for point in mounts.get(number, [])]
    return BlockDisk(
        node=f"/dev/{path.name}",
        lun=int(lun) if lun.isdigit() else 0,
        size=int(sectors) * SECTOR if sectors.isdigit() else None,
        mounts=tuple(dict.fromkeys(points)),
    )


def _numbers(path: Path, depth: int = 0) -> Iterator[str]:
    """Yield the device numbers, "8:1", of a block device, its partitions, and what is stacked on them."""
    yield _text(path / "dev")
    if depth < DEEPEST:
        above = [each.parent for each in linux.matching(path, "*/partition")] + linux.matching(path, "holders/*")
        for each in sorted(above):
            yield from _numbers(each, depth + 1)


def _mounts() -> dict[str, list[str]]:
    """Return the mount points by device number (proc(5), mountinfo and swaps)."""
    found: dict[str, list[str]] = {}
    for line in _text(MOUNTINFO).split("\n"):
        fields = line.split(" ")
        if len(fields) > 4:
            found.setdefault(fields[2], []).append(_unescape(fields[4]))
    for line in _text(SWAPS).split("\n")[1:]:
        try:
            number = linux.number_of(os.stat(_unescape(line.split()[0])))
        except (OSError, IndexError):
            continue
        found.setdefault(number, []).append(SWAP)
    return found


def _unescape(text: str) -> str:
    r"""Replace the octal escapes, such as "\040" for a space, that procfs writes into paths."""
    return OCTAL_ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def _text(path: Path) -> str:
    """Read a file of sysfs or procfs; "" if it cannot be read."""
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape").strip()
    except OSError:
        return ""
