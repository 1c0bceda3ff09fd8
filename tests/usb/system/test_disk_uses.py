"""What uses a disk, seen in a /sys and a /proc that are built like the kernel's."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from scsiusb.usb.backend import Code, UsbError
from scsiusb.usb.system import disk_uses, disk_writers

from .machine import DEVICE, Machine, link

if sys.platform == "win32":
    pytest.skip("symlinks need a privilege on Windows", allow_module_level=True)


@pytest.fixture
def partition(machine: Machine) -> Path:
    """/dev/sda1, on the stick."""
    return machine.partition(machine.disk("sda", "8:0"), "sda1", "8:1")


def uses() -> list[str]:
    return disk_uses.uses(DEVICE, 0)


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


# --- loop devices, bcache, btrfs ------------------------------------------------------------------


def test_a_mount_through_a_loop_device_on_the_disk_is_reported(machine: Machine, partition: Path) -> None:
    machine.loop("loop0", "7:0", "/dev/sda1")
    machine.mount("7:0", "/mnt")
    assert uses() == ["/dev/sda1 is held by loop0, and /dev/loop0 is mounted on /mnt"]


def test_a_loop_device_that_is_not_mounted_holds_the_disk(machine: Machine, partition: Path) -> None:
    machine.loop("loop3", "7:3", "/dev/sda")
    assert uses() == ["/dev/sda is held by loop3"]


def test_swap_and_partitions_on_a_loop_device_are_reported(machine: Machine, partition: Path) -> None:
    loop = machine.loop("loop0", "7:0", "/dev/sda")
    machine.partition(loop, "loop0p1", "259:0")
    machine.swap("/dev/loop0p1")
    assert uses() == ["/dev/sda is held by loop0, and /dev/loop0p1 is used as swap"]


def test_a_loop_device_on_a_file_or_on_another_disk_holds_nothing(machine: Machine, partition: Path) -> None:
    machine.loop("loop0", "7:0", "/srv/dev/sda1")
    machine.loop("loop1", "7:1", "/dev/sdb1")
    machine.block(machine.sys / "devices/virtual/block/loop2", "7:2")  # a loop device that is not set up
    assert uses() == []


@pytest.mark.parametrize(("number", "held"), [("8:1", ["/dev/sda1 is held by loop0"]), ("", []), ("8:99", [])])
def test_what_the_loop_device_itself_says_overrides_the_path(
    machine: Machine, partition: Path, monkeypatch: pytest.MonkeyPatch, number: str, held: list[str]
) -> None:
    """The path is what the node was called where the loop device was set up: in a container, any name."""
    machine.loop("loop0", "7:0", "/dev/sda1" if not held else "/tmp/my-node")
    monkeypatch.setattr(disk_uses, "_loop_number", lambda name: number)
    assert uses() == held


def test_a_holder_that_only_the_stacked_device_names_is_reported(machine: Machine, partition: Path) -> None:
    array = machine.block(machine.sys / "devices/virtual/block/md0", "9:0")
    (array / "slaves").mkdir()
    link(array / "slaves" / "sda1", partition)
    assert uses() == ["/dev/sda1 is held by md0"]


def test_a_cycle_in_a_faulty_sysfs_ends(machine: Machine, partition: Path) -> None:
    crypt = machine.mapped("dm-0", "253:0", "a", partition)
    link(crypt / "holders" / "sda1", partition)
    assert uses() == ["/dev/sda1 is held by a, and /dev/dm-0 is held by sda1"]


def test_bcache_shows_on_a_cache_device_that_has_no_holder(machine: Machine, partition: Path) -> None:
    (partition / "bcache").mkdir()
    assert uses() == ["/dev/sda1 is used by bcache"]


def test_each_disk_of_a_mounted_btrfs_is_in_use(machine: Machine, partition: Path) -> None:
    """mountinfo names one disk only, which may be another one."""
    other = machine.block(machine.sys / "devices/pci/block/sdb", "8:16")
    machine.btrfs("0c9e", other, partition)
    machine.mount("0:45", "/mnt", "btrfs", "/dev/sdb")
    assert uses() == ["/dev/sda1 belongs to the mounted btrfs 0c9e"]


# --- other processes ------------------------------------------------------------------------------


@pytest.mark.parametrize("namespace", ["mnt:[4026532201]", None])
def test_a_mount_in_another_mount_namespace_is_reported(
    machine: Machine, partition: Path, namespace: str | None
) -> None:
    machine.mount("8:17", "/home")
    machine.namespace(12, "containerd", namespace, ("8:1", "/data"))
    machine.namespace(13, "sleep", namespace, ("8:1", "/data"))
    assert uses() == ["/dev/sda1 is mounted on /data (in another mount namespace, that of pid 12 (containerd))"]


def test_a_mount_that_this_process_sees_is_reported_once(machine: Machine, partition: Path) -> None:
    machine.mount("8:1", "/mnt")
    machine.namespace(12, "a service", None, ("8:1", "/mnt"), ("8:1", "/run/other"))
    assert uses() == ["/dev/sda1 is mounted on /mnt"]


def test_a_volume_that_is_mounted_in_another_namespace_is_reported(machine: Machine, partition: Path) -> None:
    machine.mapped("dm-0", "253:0", "luks", partition)
    machine.namespace(12, "sh", "mnt:[1]", ("253:0", "/x"))
    where = "in another mount namespace, that of pid 12 (sh)"
    assert uses() == [f"/dev/sda1 is held by luks, and /dev/dm-0 is mounted on /x ({where})"]


def test_a_program_that_writes_to_the_disk_is_reported(machine: Machine, partition: Path) -> None:
    machine.writes(12, "qemu", "/dev/sda1")
    machine.writes(13, "blkid", "/dev/sda", os.O_RDONLY)
    machine.writes(14, "dd", "/dev/sdaa1", os.O_WRONLY)
    assert uses() == ["/dev/sda1 is open for writing in pid 12 (qemu)"]


def test_a_program_that_opened_the_node_while_the_partitions_were_read_again_is_reported(
    machine: Machine, partition: Path
) -> None:
    machine.writes(12, "dd", "/dev/sda1 (deleted)")
    assert uses() == ["/dev/sda1 is open for writing in pid 12 (dd)"]


def test_a_program_that_writes_through_the_generic_node_is_reported(machine: Machine, partition: Path) -> None:
    (machine.interface / "host6/target6:0:0/6:0:0:0/scsi_generic/sg2").mkdir(parents=True)
    machine.writes(12, "sg_write", "/dev/sg2", os.O_WRONLY)
    assert uses() == ["/dev/sg2 is open for writing in pid 12 (sg_write)"]


def test_a_program_that_writes_through_the_block_layers_generic_node_is_reported(
    machine: Machine, partition: Path
) -> None:
    (machine.interface / "host6/target6:0:0/6:0:0:0/bsg/6:0:0:0").mkdir(parents=True)
    machine.writes(12, "sg_dd", "/dev/bsg/6:0:0:0")
    assert uses() == ["/dev/bsg/6:0:0:0 is open for writing in pid 12 (sg_dd)"]


@pytest.mark.parametrize(
    ("kind", "number", "is_use"),
    [("ext4", "b 8:1", True), ("overlay", "b 8:1", True), ("ext4", "b 8:9", False), ("ext4", "c 8:1", False)],
)
def test_a_program_that_writes_by_a_node_of_another_name_is_reported(
    machine: Machine, partition: Path, monkeypatch: pytest.MonkeyPatch, kind: str, number: str, is_use: bool
) -> None:
    """As in a container, which may have the node under any name."""
    (partition / "dev").write_text("8:1\n")
    machine.writes(12, "qemu", "/disks/guest")
    (machine.proc / "12/mountinfo").write_text(f"5 1 8:9 / / rw shared:1 - {kind} /dev/root rw\n")
    monkeypatch.setattr(disk_writers, "_number", lambda path: number)
    assert uses() == ["/disks/guest is open for writing in pid 12 (qemu)"] * is_use


def test_a_file_that_a_network_serves_is_not_asked_what_it_is(
    machine: Machine, partition: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.writes(12, "qemu", "/far/file")
    (machine.proc / "12/mountinfo").write_text("5 1 0:55 / /far rw - nfs4 host:/ rw\n")
    monkeypatch.setattr(disk_writers, "_number", None)
    assert uses() == []


MAPPED = "7f00-7f01 {} 00000000 00:06 224                        {}\n"


@pytest.mark.parametrize("count", [None, "2"])
def test_a_program_that_has_the_disk_in_its_memory_without_a_descriptor_is_reported(
    machine: Machine, partition: Path, count: str | None
) -> None:
    for pid, permissions, file in ((12, "rw-s", "/dev/sda1"), (13, "r--s", "/dev/sda"), (14, "rw-s", "/dev/sdaa")):
        machine.process(pid, "lmdb")
        (machine.proc / str(pid) / "maps").write_text(MAPPED.format(permissions, file))
    if count is not None:
        (machine.sys / "module/usb_storage").mkdir(parents=True)
        (machine.sys / "module/usb_storage/refcnt").write_text(f"{count}\n")
    assert uses() == ["/dev/sda1 is mapped for writing in pid 12 (lmdb)"]


def test_a_driver_that_is_built_in_says_nothing_of_what_is_open(machine: Machine, partition: Path) -> None:
    machine.process(12, "lmdb")
    (machine.proc / "12/maps").write_text(MAPPED.format("rw-s", "/dev/sda"))
    (machine.sys / "module/usb_storage/parameters").mkdir(parents=True)
    (machine.sys / "module/uas").mkdir()
    (machine.sys / "module/uas/refcnt").write_text("0\n")
    assert uses() == ["/dev/sda is mapped for writing in pid 12 (lmdb)"]


def test_memory_is_not_searched_where_the_drivers_count_says_that_nothing_is_open(
    machine: Machine, partition: Path
) -> None:
    machine.process(12, "lmdb")
    (machine.proc / "12/maps").write_text(MAPPED.format("rw-s", "/dev/sda"))
    (machine.sys / "module/usb_storage").mkdir(parents=True)
    (machine.sys / "module/usb_storage/refcnt").write_text("0\n")
    assert uses() == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("usb_gadget/g/functions/mass_storage.0/lun.0/file", "/dev/sda1\n"),
        ("target/core/fileio_0/disk/info", "Status: ACTIVATED\n  TCM FILEIO ID: 0   File: /dev/sda1  Size: 5\n"),
        ("nvmet/subsystems/n/namespaces/1/device_path", "/dev/sda1\n"),
    ],
)
def test_a_disk_that_the_kernel_exports_is_reported(machine: Machine, partition: Path, path: str, text: str) -> None:
    for each, content in ((path, text), ("usb_gadget/h/functions/mass_storage.1/lun.0/file", "/dev/sdaa\n")):
        (machine.sys / "kernel/config" / each).parent.mkdir(parents=True)
        (machine.sys / "kernel/config" / each).write_text(content)
    assert uses() == [f"/dev/sda1 is exported by the kernel: {path}"]


def test_a_descriptor_whose_flags_cannot_be_read_does_not_count(machine: Machine, partition: Path) -> None:
    machine.process(12, "gone", "/dev/sda")
    assert uses() == []


def test_without_disks_nothing_is_searched(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_uses, "_Stack", None)
    assert uses() == []


# --- holding the disks ----------------------------------------------------------------------------


class Opened:
    """A replacement for `os` that records `open` and `close`; `errors` maps a disk to the errno of its open."""

    def __init__(self, **errors: int) -> None:
        self.errors = errors
        self.flags: set[int] = set()
        self.log: list[str] = []
        self.minor = 0
        functions = {"open": self.open, "close": self.close, "fstat": self.fstat}
        self.module = SimpleNamespace(O_EXCL=os.O_EXCL, **functions)

    def open(self, path: str, flags: int) -> int:
        name = path.removeprefix("/dev/")
        self.flags.add(flags)
        if name in self.errors:
            raise OSError(self.errors[name], "no")
        self.log.append(f"open {name}")
        return ord(name[-1])

    def close(self, descriptor: int) -> None:
        self.log.append(f"close sd{chr(descriptor)}")

    def fstat(self, descriptor: int) -> SimpleNamespace:
        return SimpleNamespace(st_rdev=os.makedev(8, self.minor))


@pytest.fixture
def warned(machine: Machine, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The log, with /dev/sda in sysfs."""
    (machine.disk("sda", "8:0") / "dev").write_text("8:0\n")
    return caplog


def hold(opened: Opened, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(disk_uses, "os", opened.module)
    with disk_uses.exclusive(list(names)):
        opened.log.append("held")


def test_the_disks_are_held_exclusively_and_released_even_after_an_exception(
    warned: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Opened()
    monkeypatch.setattr(disk_uses, "os", opened.module)
    with pytest.raises(KeyboardInterrupt), disk_uses.exclusive(["sda", "sdb"]):
        assert opened.log == ["open sda", "open sdb"]
        raise KeyboardInterrupt
    assert opened.log == ["open sda", "open sdb", "close sdb", "close sda"]
    assert opened.flags == {os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK | os.O_CLOEXEC}
    assert warned.messages == []


def test_a_disk_in_use_is_busy_and_the_others_are_released(
    warned: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This happens for a use that sysfs and procfs do not show, such as ZFS."""
    opened = Opened(sdb=errno.EBUSY)
    with pytest.raises(UsbError) as caught:
        hold(opened, monkeypatch, "sda", "sdb", "sdc")
    assert (caught.value.code, caught.value.detail) == (Code.BUSY, "/dev/sdb is in use by the system")
    assert opened.log == ["open sda", "close sda"]


@pytest.mark.parametrize("error", sorted(disk_uses.HELD_BY_NO_OTHER))
def test_an_error_that_comes_after_the_kernels_search_for_holders_is_no_use(
    warned: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    opened = Opened(sda=error)
    hold(opened, monkeypatch, "sda", "sdb")
    assert opened.log == ["open sdb", "held", "close sdb"]
    assert warned.messages == []


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINVAL, errno.EROFS])
def test_a_disk_is_not_taken_where_the_open_fails_for_a_reason_that_says_nothing_about_its_use(
    warned: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    opened = Opened(sdb=error)
    with pytest.raises(UsbError, match="cannot find out whether /dev/sdb is in use: no"):
        hold(opened, monkeypatch, "sda", "sdb")
    assert opened.log == ["open sda", "close sda"]


@pytest.mark.parametrize(
    ("error", "why"), [(errno.EACCES, "may not open"), (errno.EPERM, "may not open"), (errno.ENOENT, "does not exist")]
)
def test_a_use_that_cannot_be_known_is_warned_of_once(
    warned: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, error: int, why: str
) -> None:
    for _ in range(2):
        hold(Opened(sda=error), monkeypatch, "sda")
    (message,) = warned.messages
    assert "/dev/sda" in message
    assert why in message


def test_a_node_of_another_device_is_warned_of(
    warned: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Opened()
    opened.minor = 16
    hold(opened, monkeypatch, "sda")
    (message,) = warned.messages
    assert "its node is another device's" in message


def test_a_disk_that_has_gone_is_left_out(warned: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Opened(sdz=errno.ENOENT)
    hold(opened, monkeypatch, "sdz")
    assert opened.log == ["held"]
    assert warned.messages == []


def test_holding_no_disks_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_uses, "os", None)
    with disk_uses.exclusive([]):
        pass
