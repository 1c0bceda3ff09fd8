"""Reading sysfs and procfs, from folders that are built like the kernel's."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from scsiusb.usb.backend import Code, Device, Strings, UsbError
from scsiusb.usb.system import linux

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="symlinks need a privilege on Windows")

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


def link(path: Path, target: Path) -> None:
    path.symlink_to(os.path.relpath(target, path.parent))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(tmp_path)
    monkeypatch.setattr(linux, "USB_DEVICES", machine.sys / "bus/usb/devices")
    monkeypatch.setattr(linux, "CLASS_BLOCK", machine.sys / "class/block")
    monkeypatch.setattr(linux, "DEV_BLOCK", machine.sys / "dev/block")
    monkeypatch.setattr(linux, "PROC", machine.proc)
    return machine


@pytest.fixture
def partition(machine: Machine) -> Path:
    """/dev/sda1, on the stick."""
    return machine.partition(machine.disk("sda", "8:0"), "sda1", "8:1")


def uses() -> list[str]:
    return linux.uses(DEVICE, 0)


# --- strings and drivers --------------------------------------------------------------------------


def test_strings_are_read_from_sysfs_without_the_line_end(machine: Machine) -> None:
    (machine.usb / "serial").write_bytes(b"4C53\n")
    (machine.usb / "manufacturer").write_bytes("Müller \n".encode())
    (machine.usb / "product").write_bytes(b"Ultra\xff\x1b[2J\n")
    assert linux.strings(DEVICE) == Strings("4C53", "Müller", "Ultra\ufffd\x1b[2J")


def test_missing_and_empty_strings_are_none(machine: Machine) -> None:
    (machine.usb / "serial").write_bytes(b"\n")
    assert linux.strings(DEVICE) == Strings(None, None, None)


def test_the_driver_is_the_one_that_sysfs_links_to(machine: Machine) -> None:
    assert linux.driver(DEVICE, 0) is None
    link(machine.interface / "driver", machine.sys / "bus/usb/drivers/usb-storage")
    assert linux.driver(DEVICE, 0) == "usb-storage"
    assert linux.driver(DEVICE, 1) is None


def test_the_disks_are_those_of_every_logical_unit(machine: Machine) -> None:
    assert linux.disks(DEVICE, 0) == []
    machine.disk("sdc", "8:32", lun=1)
    machine.disk("sdb", "8:16")
    assert linux.disks(DEVICE, 0) == ["sdb", "sdc"]


def test_a_device_that_is_gone_has_no_strings_driver_disks_or_uses(machine: Machine) -> None:
    gone = Device(3, (1,), 2, 0, 0, 0, "high", 1, ())
    assert linux.strings(gone) == Strings()
    assert linux.driver(gone, 0) is None
    assert linux.disks(gone, 0) == []
    assert linux.uses(gone, 0) == []


# --- what uses the disks --------------------------------------------------------------------------


def test_an_unused_disk_has_no_uses(machine: Machine, partition: Path) -> None:
    machine.mount("8:17", "/home")
    machine.mount("0:22", "/proc", "proc", "proc")
    machine.swap("/dev/sdb2")
    assert uses() == []


def test_a_machine_without_procfs_reports_no_uses(partition: Path) -> None:
    assert uses() == []


def test_a_mounted_disk_and_mounted_partitions_are_reported(machine: Machine) -> None:
    first, second = machine.disk("sda", "8:0"), machine.disk("sdb", "8:16", lun=1)
    machine.partition(first, "sda1", "8:1")
    machine.partition(first, "sda2", "8:2")
    machine.mount("8:16", "/mnt/whole")
    machine.mount("8:2", "/mnt/two")
    machine.mount("8:1", "/mnt/one")
    assert second.name == "sdb"
    assert uses() == [
        "/dev/sda1 is mounted on /mnt/one",
        "/dev/sda2 is mounted on /mnt/two",
        "/dev/sdb is mounted on /mnt/whole",
    ]


@pytest.mark.parametrize(
    ("written", "mount_point"),
    [
        (r"/media/My\040Stick", "/media/My Stick"),
        (r"/media/a\011b\012c\134d\043e", "/media/a\tb\nc\\d#e"),
        (r"/media/\134040", r"/media/\040"),
        ("/media/-\\040-\\040-", "/media/- - -"),
        ("/media/Müller", "/media/Müller"),
    ],
)
def test_a_mount_point_is_reported_without_the_kernels_escapes(
    machine: Machine, partition: Path, written: str, mount_point: str
) -> None:
    machine.mount("8:1", written)
    assert uses() == [f"/dev/sda1 is mounted on {mount_point}"]


@pytest.mark.parametrize("character", ["\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_a_mount_point_may_contain_other_line_separators(machine: Machine, partition: Path, character: str) -> None:
    """The kernel escapes only the line feed, and a hostile stick's label becomes a mount point."""
    machine.mount("8:1", f"/media/a{character}b")
    machine.mount("8:1", "/media/c")
    assert uses() == [f"/dev/sda1 is mounted on /media/a{character}b", "/dev/sda1 is mounted on /media/c"]


def test_a_mount_that_is_in_the_table_twice_is_reported_once(machine: Machine, partition: Path) -> None:
    machine.mount("8:1", "/mnt")
    machine.mount("8:1", "/mnt")
    machine.mount("8:1", "/srv")
    assert uses() == ["/dev/sda1 is mounted on /mnt", "/dev/sda1 is mounted on /srv"]


def test_btrfs_is_found_by_its_source_because_its_device_number_is_not_a_disks(
    machine: Machine, partition: Path
) -> None:
    machine.mount("0:45", "/mnt", "btrfs", "/dev/sda1")
    assert uses() == ["/dev/sda1 is mounted on /mnt"]


def test_the_source_may_be_a_link_to_the_disk(machine: Machine, partition: Path, tmp_path: Path) -> None:
    """The paths in /dev/mapper and /dev/disk are links."""
    by_name = tmp_path / "by name"
    by_name.symlink_to("/dev/sda1")
    machine.swap(str(by_name).replace(" ", r"\040"))
    assert uses() == ["/dev/sda1 is used as swap"]


def test_the_device_number_overrides_the_source(machine: Machine, partition: Path) -> None:
    """The source is any text that was passed to mount(2); it may be out of date or wrong."""
    machine.mount("8:1", "/mnt", "ext4", "/dev/root")
    machine.block(machine.sys / "devices/virtual/block/loop0", "7:0")
    machine.mount("7:0", "/srv", "ext4", "/dev/sda1")
    assert uses() == ["/dev/sda1 is mounted on /mnt"]


def test_swap_is_reported(machine: Machine, partition: Path) -> None:
    machine.swap("/dev/sda1", "/dev/zram0")
    assert uses() == ["/dev/sda1 is used as swap"]


# --- devices stacked on the disk ------------------------------------------------------------------


def test_a_mounted_volume_on_a_partition_is_reported_with_the_devices_in_between(
    machine: Machine, partition: Path
) -> None:
    crypt = machine.mapped("dm-0", "253:0", "luks-home", partition)
    machine.mapped("dm-1", "253:1", "vg-root", crypt)
    machine.mount("253:1", "/srv", "ext4", "/dev/mapper/vg-root")
    assert uses() == [
        "/dev/sda1 is held by luks-home, and /dev/dm-0 is held by vg-root, and /dev/dm-1 is mounted on /srv"
    ]


def test_a_volume_that_is_not_mounted_holds_the_partition(machine: Machine, partition: Path) -> None:
    machine.mapped("dm-0", "253:0", "luks-home", partition)
    assert uses() == ["/dev/sda1 is held by luks-home"]


def test_a_raid_over_two_partitions_is_reported_for_each(machine: Machine, partition: Path) -> None:
    second = machine.partition(partition.parent, "sda2", "8:2")
    array = machine.mapped("md0", "9:0", None, partition, second)
    machine.partition(array, "md0p1", "259:0")
    machine.mount("259:0", "/raid", "ext4", "/dev/md0p1")
    assert uses() == [
        "/dev/sda1 is held by md0, and /dev/md0p1 is mounted on /raid",
        "/dev/sda2 is held by md0, and /dev/md0p1 is mounted on /raid",
    ]


def test_swap_on_a_volume_on_the_whole_disk_is_reported(machine: Machine) -> None:
    disk = machine.disk("sda", "8:0")
    machine.mapped("dm-3", "253:3", "vg-swap", disk)
    machine.swap("/dev/dm-3")
    assert uses() == ["/dev/sda is held by vg-swap, and /dev/dm-3 is used as swap"]


# --- holding the disks ----------------------------------------------------------------------------


class Opened:
    """A replacement for `os` that records `open` and `close`; `errors` maps a disk to the errno of its open."""

    def __init__(self, **errors: int) -> None:
        self.errors = errors
        self.flags: set[int] = set()
        self.log: list[str] = []
        self.module = SimpleNamespace(
            open=self.open, close=self.close, O_RDONLY=0, O_EXCL=1, O_NONBLOCK=2, O_CLOEXEC=4, O_WRONLY=8
        )

    def open(self, path: str, flags: int) -> int:
        name = path.removeprefix("/dev/")
        self.flags.add(flags)
        if name in self.errors:
            raise OSError(self.errors[name], "no")
        self.log.append(f"open {name}")
        return ord(name[-1])

    def close(self, descriptor: int) -> None:
        self.log.append(f"close sd{chr(descriptor)}")


def test_the_disks_are_held_exclusively_and_released_even_after_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Opened()
    monkeypatch.setattr(linux, "os", opened.module)
    with pytest.raises(KeyboardInterrupt), linux.exclusive(["sda", "sdb"]):
        assert opened.log == ["open sda", "open sdb"]
        raise KeyboardInterrupt
    assert opened.log == ["open sda", "open sdb", "close sdb", "close sda"]
    assert opened.flags == {1 | 2 | 4}


def test_a_disk_in_use_is_busy_and_the_others_are_released(monkeypatch: pytest.MonkeyPatch) -> None:
    """This happens for a mount in another namespace, which mountinfo does not show."""
    opened = Opened(sdb=errno.EBUSY)
    monkeypatch.setattr(linux, "os", opened.module)
    with pytest.raises(UsbError) as caught, linux.exclusive(["sda", "sdb", "sdc"]):
        pytest.fail("the body must not run")
    assert (caught.value.code, caught.value.detail) == (Code.BUSY, "/dev/sdb is in use by the system")
    assert opened.log == ["open sda", "close sda"]


@pytest.mark.parametrize("error", [errno.EACCES, getattr(errno, "ENOMEDIUM", 123), errno.ENOENT])
def test_a_disk_that_cannot_be_opened_for_another_reason_is_left_out(
    monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    opened = Opened(sda=error)
    monkeypatch.setattr(linux, "os", opened.module)
    with linux.exclusive(["sda", "sdb"]):
        assert opened.log == ["open sdb"]
    assert opened.log == ["open sdb", "close sdb"]


def test_holding_no_disks_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux, "os", None)
    with linux.exclusive([]):
        pass


# --- processes that have the device open ----------------------------------------------------------

NODE = "/dev/bus/usb/001/007"


def test_openers_names_the_other_processes_that_have_the_device_open(machine: Machine) -> None:
    machine.process(12, "python3", "/dev/null", NODE)
    machine.process(13, "bash", "/dev/null", "/dev/bus/usb/001/070")
    machine.process(14, None, NODE)
    machine.process(os.getpid(), "this one", NODE)
    assert sorted(linux.openers(DEVICE)) == ["pid 12 (python3)", "pid 14 (None)"]


def test_a_process_that_cannot_be_read_is_left_out(machine: Machine) -> None:
    (machine.proc / "20").mkdir()
    (machine.proc / "sys").mkdir()
    machine.process(21, "python3", NODE)
    assert linux.openers(DEVICE) == ["pid 21 (python3)"]


def test_a_file_that_a_process_closes_meanwhile_does_not_hide_its_others(machine: Machine) -> None:
    folder = machine.process(12, "python3", *[NODE] * 1)
    for name in ("a", "b", "c", "z"):
        (folder / "fd" / name).write_bytes(b"")  # readlink fails, as for a descriptor that was closed
    assert linux.openers(DEVICE) == ["pid 12 (python3)"]
