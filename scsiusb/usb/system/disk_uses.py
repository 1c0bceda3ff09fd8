"""Finds out what on this machine uses a disk (Linux): mounts, swap, stacked devices, programs that write to it.

A disk that is in use must not be taken from the kernel. Each kind of use shows in another place:

| use | where it shows |
| --- | --- |
| mount | /proc/PID/mountinfo, of a process in each mount namespace |
| swap | /proc/swaps |
| device-mapper, md, bcache | `holders` of the disk in sysfs, or `slaves` of the stacked device |
| bcache's cache device | the folder `bcache` of the disk in sysfs |
| loop device | `loop/backing_file` in sysfs; for root, the loop device itself |
| btrfs on several disks | /sys/fs/btrfs; mountinfo names only one of them |
| program that writes | see `disk_writers` |
| ZFS, file systems whose namespace has no process | only an exclusive open of the disk: see `exclusive` |
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
import struct
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from scsiusb.usb.backend import Code, Device, UsbError
from scsiusb.usb.system import disk_writers, linux
from scsiusb.usb.system.linux import read_lines, read_link, read_text

CLASS_BLOCK: Final = Path("/sys/class/block")
DEV_BLOCK: Final = Path("/sys/dev/block")
BTRFS: Final = Path("/sys/fs/btrfs")
DEV: Final = Path("/dev")
READ: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
OCTAL_ESCAPE: Final = re.compile(r"\\([0-7]{3})")
# include/uapi/linux/loop.h: LOOP_GET_STATUS64 fills in `struct loop_info64`; lo_rdevice is its third field, the
# number of the block device that the loop device reads, 0 if it reads a file.
LOOP_GET_STATUS64: Final = 0x4C05
LOOP_INFO: Final = struct.Struct("=QQQ208x")
# The kernel looks for other holders before it does anything that can fail in one of these ways, so they show that
# there is no other holder: no medium, the disk is being removed, the disk does not work.
HELD_BY_NO_OTHER: Final = frozenset((getattr(errno, "ENOMEDIUM", 123), errno.ENXIO, errno.ENODEV, errno.EIO))
NOT_PERMITTED: Final = frozenset((errno.EACCES, errno.EPERM))

log = logging.getLogger(__name__)
_warned: set[str] = set()


def uses(device: Device, interface: int) -> list[str]:
    """Describe what uses the interface's disks, one use a string; empty if no use was found."""
    disks = linux.disks(device, interface)
    if not disks:
        return []
    found = _Stack()
    uses = [use for disk in disks for use in found.uses_of(disk)]
    return uses or list(disk_writers.writers(list(found.seen), linux.interface_path(device, interface)))


@contextmanager
def exclusive(names: list[str]) -> Iterator[None]:
    """Hold the disks as a mount does, so that they cannot be mounted meanwhile.

    `names` are those that `linux.disks` returns. Raises UsbError: BUSY if a disk is in use; OTHER if that cannot be
    found out although this user may open the disk. If this user may not open it, a warning is logged, once a disk.
    """
    # O_EXCL on a block device also fails for uses that do not show elsewhere, such as ZFS.
    with ExitStack() as stack:
        for name in names:
            try:
                descriptor = os.open(f"/dev/{name}", READ | os.O_EXCL)
            except OSError as error:
                _explain(name, error)
            else:
                stack.callback(os.close, descriptor)
                _check_node(name, descriptor)
        yield


def _explain(name: str, error: OSError) -> None:
    """Raise UsbError if the error of an exclusive open means that the disk may be in use."""
    if error.errno == errno.EBUSY:
        raise UsbError(Code.BUSY, f"/dev/{name} is in use by the system") from error
    if error.errno in HELD_BY_NO_OTHER:
        return
    if error.errno in NOT_PERMITTED:
        _warn(name, "this user may not open it")
    elif error.errno == errno.ENOENT:
        if (CLASS_BLOCK / name).exists():  # a container has no such node
            _warn(name, "its node does not exist here")
    else:
        raise UsbError(Code.OTHER, f"cannot find out whether /dev/{name} is in use: {error.strerror}") from error


def _check_node(name: str, descriptor: int) -> None:
    """Warn if the node that was opened is not the disk's, as can happen in a container."""
    expected = read_text(CLASS_BLOCK / name / "dev")
    if expected is not None and expected != linux.number_of(os.fstat(descriptor)):
        _warn(name, "its node is another device's")


def _warn(name: str, why: str) -> None:
    """Log that a use of the disk may have been missed; once for each disk and reason."""
    if f"{name} {why}" not in _warned:
        _warned.add(f"{name} {why}")
        what = f"cannot find out whether something that is not shown to this process uses /dev/{name}"
        log.warning("%s: %s; make sure that no other user or container uses it", what, why)


class _Stack:
    """The block devices of the machine, with what is stacked on each; read once."""

    def __init__(self) -> None:
        self.seen: dict[str, None] = {}
        """Disks, partitions and stacked devices that `uses_of` has come to."""
        self._table = _uses_by_block_device()
        self._btrfs = {path.name: path.parent.parent.name for path in linux.matching(BTRFS, "*/devices/*")}
        self._above: dict[str, list[str]] = {}
        for path in linux.matching(CLASS_BLOCK, "*/slaves/*"):
            self._put(path.name, path.parent.parent.name)
        for path in linux.matching(CLASS_BLOCK, "loop*/loop/backing_file"):
            below = _below_loop(path)
            if below is not None:
                self._put(below, path.parent.parent.name)

    def uses_of(self, name: str, within: str = "", below: tuple[str, ...] = ()) -> Iterator[str]:
        """Yield the uses of a block device, of its partitions, and of the devices stacked on it.

        `within` is the start of each text: how this device is stacked on a disk; `below` are the devices under it.
        """
        if name in below:  # a cycle, which only a faulty sysfs has
            return
        self.seen[name] = None
        node, below = f"{within}/dev/{name}", (*below, name)
        for use in self._direct_uses(name):
            yield f"{node} {use}"
        folder = CLASS_BLOCK / name
        for partition in sorted(linux.matching(folder, f"{name}*/partition")):
            yield from self.uses_of(partition.parent.name, within, below)
        holders = [path.name for path in sorted(linux.matching(folder, "holders/*"))]
        for holder in dict.fromkeys((*holders, *sorted(self._above.get(name, [])))):
            label = read_text(CLASS_BLOCK / holder / "dm" / "name") or holder
            above = list(self.uses_of(holder, f"{node} is held by {label}, and ", below))
            yield from above or [f"{node} is held by {label}"]

    def _put(self, below: str, above: str) -> None:
        self._above.setdefault(below, []).append(above)

    def _direct_uses(self, name: str) -> Iterator[str]:
        """Yield mounts, swap, and the use as a part of a file system or cache that has several parts."""
        yield from self._table.get(name, [])
        if name in self._btrfs and name not in self._table:
            yield f"belongs to the mounted btrfs {self._btrfs[name]}"
        if (CLASS_BLOCK / name / "bcache").is_dir():
            yield "is used by bcache"


def _below_loop(backing_file: Path) -> str | None:
    """Return the kernel's name of the block device that a loop device reads; None if it reads a file."""
    path = read_text(backing_file) or ""
    number = _loop_number(backing_file.parent.parent.name)
    if number is None and path.startswith("/dev/"):  # only there: a stat on a network's file system can hang
        number = _block_number(path)
    below = read_link(DEV_BLOCK / number) if number else None
    # If this process has no such node, the name must do.
    return os.path.basename(below or path) if below or (number is None and path.startswith("/dev/")) else None


def _loop_number(name: str) -> str | None:
    """Ask a loop device for the number of the block device that it reads, "8:1"; "" for a file.

    None if this user may not ask.
    """
    if sys.platform != "linux":
        return None
    import fcntl

    try:
        descriptor = os.open(DEV / name, READ)
    except OSError:
        return None
    try:
        number: int = LOOP_INFO.unpack(fcntl.ioctl(descriptor, LOOP_GET_STATUS64, bytes(LOOP_INFO.size)))[2]
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return f"{os.major(number)}:{os.minor(number)}" if number else ""


def _block_number(node: str) -> str | None:
    """Return the number of the block device whose node this is, "8:1"; None if it is none."""
    try:
        found = os.stat(node)
    except (OSError, ValueError):
        return None
    return linux.number_of(found) if stat.S_ISBLK(found.st_mode) else None


# --- mounts and swap ------------------------------------------------------------------------------


def _uses_by_block_device() -> dict[str, list[str]]:
    """Return the mounts and swaps of each block device, by its kernel name."""
    table: dict[str, list[str]] = {}
    for name, use in (*_mounts(linux.PROC / "self" / "mountinfo"), *_swaps()):
        _add(table, name, use)
    elsewhere: dict[str, list[str]] = {}
    for process in _one_process_of_each_mount_namespace():
        where = f"in another mount namespace, that of pid {process.name} ({read_text(process / 'comm')})"
        for name, use in _mounts(process / "mountinfo"):
            if name not in table:  # else it is named already, by a path that this process can see
                _add(elsewhere, name, f"{use} ({where})")
    return {**elsewhere, **table}


def _add(table: dict[str, list[str]], name: str, use: str) -> None:
    uses_of_name = table.setdefault(name, [])
    if use not in uses_of_name:
        uses_of_name.append(use)


def _one_process_of_each_mount_namespace() -> Iterator[Path]:
    """Yield /proc/PID of a process of each mount namespace but this process's.

    Any user may read every process's mountinfo, but not to which namespace it belongs: then each one is yielded whose
    table of mounts differs from those before.
    """
    seen: set[object] = {read_link(linux.PROC / "self" / "ns" / "mnt"), _table(linux.PROC / "self")}
    for process in sorted(linux.matching(linux.PROC, "[0-9]*"), key=lambda path: (len(path.name), path.name)):
        namespace = read_link(process / "ns" / "mnt")
        if namespace is not None and namespace in seen:
            continue
        table = _table(process)
        is_new = bool(table) and table not in seen
        seen |= {namespace, table}
        if is_new:
            yield process


def _table(process: Path) -> bytes:
    """Return the process's table of mounts; empty if it cannot be read."""
    try:
        return (process / "mountinfo").read_bytes()
    except OSError:
        return b""


def _mounts(mountinfo: Path) -> Iterator[tuple[str, str]]:
    """Yield the block device and the use of each mount (proc(5), mountinfo)."""
    for line in read_lines(mountinfo):
        fields, _, rest = line.partition(" - ")
        number, mount_point = fields.split(" ")[2], _unescape(fields.split(" ")[4])
        source = _unescape(rest.split(" ")[1])
        use = f"is mounted on {mount_point}"
        # The device number counts first: the source is any text that the caller of mount(2) passed. btrfs shows a
        # number that is no block device's: then only the source is left.
        by_number = read_link(DEV_BLOCK / number)
        if by_number is not None:
            yield os.path.basename(by_number), use
        elif source.startswith("/dev/"):
            yield os.path.basename(os.path.realpath(source)), use


def _swaps() -> Iterator[tuple[str, str]]:
    """Yield the block device and the use of each swap area (proc(5), swaps)."""
    for line in read_lines(linux.PROC / "swaps")[1:]:
        yield os.path.basename(os.path.realpath(_unescape(line.split()[0]))), "is used as swap"


def _unescape(text: str) -> str:
    r"""Replace the octal escapes, such as "\040" for a space, that procfs writes into paths."""
    return OCTAL_ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)
