"""Node, LUN, size and mount points of an interface's disks, read from folders that are built like the kernel's."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from scsiusb.usb.backend import BlockDisk, Device
from scsiusb.usb.system import block_nodes

if sys.platform == "win32":
    pytest.skip("colons in names", allow_module_level=True)

DEVICE = Device(1, (1, 4), 7, 0x0781, 0x5581, 0x0100, "high", 1, ())


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(block_nodes, "USB_DEVICES", tmp_path)
    monkeypatch.setattr(block_nodes, "MOUNTINFO", tmp_path / "mountinfo")
    monkeypatch.setattr(block_nodes, "SWAPS", tmp_path / "swaps")
    return tmp_path


def disk(machine: Path, name: str, number: str, lun: int = 0, sectors: str = "16384") -> Path:
    path = machine / "1-1.4:1.0" / "host6/target6:0:0" / f"6:0:0:{lun}" / "block" / name
    path.mkdir(parents=True)
    (path / "dev").write_text(f"{number}\n")
    (path / "size").write_text(f"{sectors}\n")
    return path


def partition(disk: Path, name: str, number: str) -> Path:
    path = disk / name
    path.mkdir()
    (path / "dev").write_text(f"{number}\n")
    (path / "partition").write_text("1\n")
    return path


def found(interface: int = 0) -> list[BlockDisk]:
    return block_nodes.disks(DEVICE, interface)


def test_no_disk_without_a_driver(machine: Path) -> None:
    assert found() == []


def test_each_logical_unit_has_its_disk_in_the_order_of_the_luns(machine: Path) -> None:
    disk(machine, "sdb", "8:16", lun=1, sectors="8")
    disk(machine, "sdc", "8:32", lun=0)
    assert found() == [BlockDisk("/dev/sdc", 0, 16384 * 512), BlockDisk("/dev/sdb", 1, 8 * 512)]
    assert found(1) == []


def test_mounts_of_the_disk_its_partitions_and_what_is_stacked_on_them(machine: Path) -> None:
    part = partition(disk(machine, "sda", "8:0"), "sda1", "8:1")
    mapped = machine / "dm-0"
    mapped.mkdir()
    (mapped / "dev").write_text("253:0")
    (part / "holders").mkdir()
    (part / "holders" / "dm-0").symlink_to(mapped)
    line = "36 25 {} / {} rw shared:1 - vfat none rw\n"
    mounts = [("8:1", r"/media/My\040Stick"), ("253:0", "/mnt"), ("8:1", r"/media/My\040Stick"), ("8:17", "/home")]
    (machine / "mountinfo").write_text("".join(line.format(*mount) for mount in mounts))
    (each,) = found()
    assert each.mounts == ("/media/My Stick", "/mnt")


def test_swap_is_shown_as_lsblk_does(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number = os.stat("/dev/null").st_rdev
    disk(machine, "sda", f"{os.major(number)}:{os.minor(number)}")
    (machine / "swaps").write_text("Filename Type Size Used Priority\n/dev/null partition 8 0 -2\n/dev/none x\n")
    assert found()[0].mounts == ("[SWAP]",)


def test_files_that_cannot_be_read_are_unknown(machine: Path) -> None:
    path = disk(machine, "sda", "8:0")
    (path / "size").unlink()
    assert found() == [BlockDisk("/dev/sda", 0, None)]
