"""Finds what writes to a disk without a mount (Linux): programs, and the parts of the kernel that export a disk.

Programs show in /proc/PID/fd and /proc/PID/maps, those of other users only to root. A node may have any name, such as
in a container: its number counts. What the kernel exports, to another machine, shows in configfs.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from scsiusb.usb.system import linux
from scsiusb.usb.system.linux import read_lines, read_link, read_text

CLASS_BLOCK: Final = Path("/sys/class/block")
CONFIG: Final = Path("/sys/kernel/config")
MODULE: Final = Path("/sys/module")
DRIVERS: Final = ("usb_storage", "uas")
GENERIC: Final = {"scsi_generic": "/dev/", "bsg": "/dev/bsg/"}
"""Other nodes by which programs write, as sysfs has them below a unit, and their folder."""
EXPORTS: Final = (
    "usb_gadget/*/functions/mass_storage.*/lun.*/file",
    "target/core/fileio_*/*/info",
    "nvmet/subsystems/*/namespaces/*/device_path",
)
"""Files in configfs that have the path of what the kernel exports, as a word."""
UNLIKELY: Final = ("/proc/", "/sys/", "/dev/pts/", "/dev/shm/", "/dev/null", "/memfd:")
LOCAL: Final = frozenset(
    ("devtmpfs", "tmpfs", "ramfs", "rootfs", "overlay", "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs")
)
"""File systems whose files can be asked for their kind without a wait: one of a network can hang."""


def writers(names: Sequence[str], interface: Path) -> Iterator[str]:
    """Describe what writes to the block devices of these names, or to the units of the interface, one use a string.

    `interface` is the interface's folder in sysfs. This process counts, too.
    """
    generic = [
        (path, prefix + path.name)
        for kind, prefix in GENERIC.items()
        for path in linux.matching(interface, f"host*/target*/*/{kind}/*")
    ]
    nodes = {f"/dev/{name}" for name in names} | {node for _, node in generic}
    numbers = {f"b {read_text(CLASS_BLOCK / name / 'dev')}" for name in names}
    numbers |= {f"c {read_text(path / 'dev')}" for path, _ in generic}
    may_be_mapped = _may_be_open()
    for process in linux.matching(linux.PROC, "[0-9]*"):
        uses = {f"{file} is open for writing": None for file in _open_nodes(process, nodes, numbers)}
        if may_be_mapped:
            uses |= {f"{file} is mapped for writing": None for file in _mapped_nodes(process, nodes)}
        for use in uses:
            yield f"{use} in pid {process.name} ({read_text(process / 'comm')})"
    for pattern in EXPORTS:
        for path in sorted(linux.matching(CONFIG, pattern)):
            words = [word for word in (read_text(path) or "").split() if word.startswith("/dev/")]
            for node in nodes.intersection(map(os.path.realpath, words)):
                yield f"{node} is exported by the kernel: {path.relative_to(CONFIG)}"


def _open_nodes(process: Path, nodes: set[str], numbers: set[str]) -> Iterator[str]:
    """Yield the paths by which a process has one of the nodes open for writing."""
    try:
        descriptors = os.listdir(process / "fd")
    except OSError:  # it has ended, or is another user's
        return
    for descriptor in descriptors:
        # A node that was opened while the partition table was being read again is shown as deleted, yet the
        # descriptor is the new partition's.
        file = (read_link(process / "fd" / descriptor) or "").removesuffix(" (deleted)")
        if file not in nodes and (not file.startswith("/") or file.startswith(UNLIKELY)):
            continue
        flags, mount = _fdinfo(process / "fdinfo" / descriptor)
        if not flags & (os.O_WRONLY | os.O_RDWR):
            continue
        if file in nodes or (_is_local(process, mount) and _number(process / "fd" / descriptor) in numbers):
            yield file


def _fdinfo(path: Path) -> tuple[int, str]:
    """Return a descriptor's flags, and the number of the mount that its file is on (proc(5), fdinfo)."""
    found = dict(line.split(":", 1) for line in read_lines(path) if ":" in line)
    return int(found.get("flags", "0").strip(), 8), found.get("mnt_id", "").strip()


def _is_local(process: Path, mount: str) -> bool:
    """Return whether a mount that the process sees is of a file system in `LOCAL`."""
    for line in read_lines(process / "mountinfo"):
        if line.startswith(f"{mount} "):
            return line.partition(" - ")[2].partition(" ")[0] in LOCAL
    return False


def _number(path: Path) -> str | None:
    """Return the number of the device that an open file is a node of: "b 8:0", or "c 21:0"; None if it is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    kind = "b" if stat.S_ISBLK(found.st_mode) else "c" if stat.S_ISCHR(found.st_mode) else None
    return f"{kind} {linux.number_of(found)}" if kind else None


def _may_be_open() -> bool:
    """Return whether a USB disk may be open: it holds its driver's module then; one that is built in has no count."""
    counts = [read_text(MODULE / name / "refcnt") for name in DRIVERS if (MODULE / name).is_dir()]
    return not counts or any(count != "0" for count in counts)


def _mapped_nodes(process: Path, nodes: set[str]) -> Iterator[str]:
    """Yield the nodes that a process has mapped into its memory, to write (proc(5), maps): it needs no descriptor."""
    try:
        text = (process / "maps").read_bytes().decode("utf-8", "replace")
    except OSError:
        return
    if not any(node in text for node in nodes):  # reading each line would take long
        return
    for line in text.split("\n"):
        parts = line.split(maxsplit=5)
        if len(parts) == 6 and parts[1][1:4:2] == "ws" and (file := parts[5].removesuffix(" (deleted)")) in nodes:
            yield file
