"""A /sys and a /proc that are built like the kernel's."""

from __future__ import annotations

import os
from pathlib import Path

from scsiusb.usb.backend import Device

DEVICE = Device(1, (1, 4), 7, 0x0781, 0x5581, 0x0100, "high", 1, ())


class Machine:
    """A /sys and a /proc with one USB device on them."""

    def __init__(self, root: Path) -> None:
        self.sys = root / "sys"
        self.proc = root / "proc"
        self.usb = self.sys / "devices" / "pci0000:00" / "usb1" / "1-1.4"
        self.interface = self.usb / "1-1.4:1.0"
        self.interface.mkdir(parents=True)
        self.proc.mkdir()
        for folder in ("bus/usb/devices", "bus/usb/drivers/usb-storage", "class/block", "dev/block"):
            (self.sys / folder).mkdir(parents=True)
        for path in (self.usb, self.interface):
            link(self.sys / "bus/usb/devices" / path.name, path)

    def disk(self, name: str, number: str, lun: int = 0) -> Path:
        return self.block(self.interface / f"host6/target6:0:0/6:0:0:{lun}/block" / name, number)

    def partition(self, disk: Path, name: str, number: str) -> Path:
        path = self.block(disk / name, number)
        (path / "partition").write_text("1\n")
        return path

    def mapped(self, name: str, number: str, label: str | None, *on: Path) -> Path:
        """Stack a device on others: as device-mapper does if it has a label, else as md does."""
        path = self.block(self.sys / "devices/virtual/block" / name, number)
        if label is not None:
            (path / "dm").mkdir()
            (path / "dm" / "name").write_text(f"{label}\n")
        for below in on:
            link(below / "holders" / name, path)
        return path

    def block(self, path: Path, number: str) -> Path:
        (path / "holders").mkdir(parents=True)
        link(self.sys / "class/block" / path.name, path)
        link(self.sys / "dev/block" / number, path)
        return path

    def mount(self, number: str, mount_point: str, kind: str = "vfat", source: str = "none") -> None:
        file = self.proc / "self" / "mountinfo"
        file.parent.mkdir(exist_ok=True)
        line = f"36 25 {number} / {mount_point} rw,nosuid shared:1 - {kind} {source} rw\n"
        file.write_bytes((file.read_bytes() if file.exists() else b"") + line.encode())

    def swap(self, *names: str) -> None:
        lines = [f"{name}\tpartition\t1048572\t\t0\t\t-2\n" for name in names]
        (self.proc / "swaps").write_text("Filename\tType\t\tSize\t\tUsed\t\tPriority\n" + "".join(lines))

    def process(self, pid: int, name: str | None, *files: str) -> Path:
        folder = self.proc / str(pid)
        (folder / "fd").mkdir(parents=True)
        if name is not None:
            (folder / "comm").write_text(f"{name}\n")
        for number, file in enumerate(files):
            (folder / "fd" / str(number)).symlink_to(file)
        return folder

    def loop(self, name: str, number: str, backing_file: str) -> Path:
        path = self.block(self.sys / "devices/virtual/block" / name, number)
        (path / "loop").mkdir()
        (path / "loop" / "backing_file").write_text(f"{backing_file}\n")
        return path

    def btrfs(self, uuid: str, *on: Path) -> None:
        folder = self.sys / "fs/btrfs" / uuid / "devices"
        folder.mkdir(parents=True)
        for path in on:
            link(folder / path.name, path)

    def namespace(self, pid: int, name: str, namespace: str | None, *mounts: tuple[str, str]) -> None:
        """Add a process of another mount namespace; None: this user may not see which one."""
        folder = self.process(pid, name)
        if namespace is not None:
            (folder / "ns").mkdir()
            (folder / "ns" / "mnt").symlink_to(namespace)
        lines = [f"36 25 {number} / {mount_point} rw - vfat none rw\n" for number, mount_point in mounts]
        (folder / "mountinfo").write_text("".join(lines))

    def writes(self, pid: int, name: str, file: str, flags: int = os.O_RDWR) -> None:
        folder = self.process(pid, name, "/dev/null", file)
        (folder / "fdinfo").mkdir()
        (folder / "fdinfo" / "0").write_text("pos:\t0\nflags:\t02\n")
        (folder / "fdinfo" / "1").write_text(f"pos:\t0\nflags:\t0{flags | 0o100000:o}\nmnt_id:\t5\n")


def link(path: Path, target: Path) -> None:
    path.symlink_to(os.path.relpath(target, path.parent))
