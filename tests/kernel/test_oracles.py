"""The lab is correct: devices, kernel, sg3-utils and backing files agree, without scsiusb."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from . import oracles
from .machine import Device, Unit, units
from .plugging import plug, unplug
from .qmp import QmpError, qmp

assert sys.platform == "linux"

EVERY = units()
WITH_MEDIUM = units(medium=True)
WITHOUT_MEDIUM = [unit for unit in units(medium=False) if unit.lun == 0 or unit.device.kind == "gadget"]
CHUNK = 1 << 20


def vendor(device: Device) -> str:
    return "SCSIUSB" if device.kind == "gadget" else "QEMU"


@pytest.mark.parametrize("unit", EVERY, ids=str)
def test_inquiry_names_what_was_plugged_in(unit: Unit) -> None:
    reply = oracles.inquiry(unit.sg)
    assert reply.vendor == vendor(unit.device)
    assert reply.fields["PDT"] == {"disk": 0, "cdrom": 5}[unit.type] == reply.raw[0] & 0x1F
    assert reply.fields["RMB"] == unit.removable == reply.raw[1] >> 7
    assert reply.raw[8:16].decode().strip() == reply.vendor
    assert reply.raw[16:32].decode().strip() == reply.product
    assert reply.raw[32:36].decode().strip() == reply.revision


@pytest.mark.parametrize("unit", WITH_MEDIUM, ids=str)
def test_capacity_is_the_backing_files_size(unit: Unit) -> None:
    assert unit.path is not None
    assert unit.path.stat().st_size == unit.size
    assert oracles.readcap(unit.sg) == (unit.blocks, unit.block_size)


@pytest.mark.parametrize("unit", WITHOUT_MEDIUM, ids=str)
def test_without_a_medium_the_unit_is_not_ready(unit: Unit) -> None:
    assert oracles.ready(unit.sg) == 2
    with pytest.raises(oracles.OracleError) as failure:
        oracles.readcap(unit.sg)
    assert failure.value.status == 2


@pytest.mark.parametrize("unit", WITH_MEDIUM, ids=str)
def test_the_kernel_reads_the_bytes_of_the_backing_file(unit: Unit) -> None:
    offsets = {offset for start, length in unit.regions for offset in (start, start + length - CHUNK)} or {0}
    for offset in offsets:
        lba, blocks = offset // unit.block_size, CHUNK // unit.block_size
        assert unit.kernel_read(lba, blocks) == unit.backing(lba, blocks)


def test_content_is_random_where_the_zoo_says(huge: Unit) -> None:
    boundary = (2 << 40) // 512
    assert any(offset < 2 << 40 < offset + length for offset, length in huge.regions)
    assert huge.backing(boundary - 8, 8) != bytes(8 * 512) != huge.backing(boundary, 8)


@pytest.mark.qemu("the kernel's gadget has no REPORT LUNS")
def test_luns_of_one_device_are_three(multi: Device) -> None:
    assert sorted(oracles.luns(multi.units[0].sg)) == [0, 1, 2]


@pytest.mark.parametrize("name", ["gadget-high", "gadget-super"])
def test_gadgets_run_at_both_speeds_at_once(zoo: dict[str, Device], name: str) -> None:
    assert int((zoo[name].folder / "speed").read_text()) == zoo[name].speed == {"gadget-high": 480}.get(name, 5000)


@pytest.mark.qemu("a device that speaks UAS")
def test_uas_is_driven_by_uas(uas: Device) -> None:
    assert uas.bound() == "uas"
    assert (uas.interface / "bInterfaceProtocol").read_text().strip() == "62"


def test_mode_sense_shows_write_protection_and_the_cache(gadget_high: Device, stick: Device) -> None:
    assert [oracles.modes(unit.sg, six=True).fields["WP"] for unit in gadget_high.units] == [0, 1]
    caching = oracles.modes(stick.units[0].sg).pages[8]
    assert caching[2] & 4, "WCE: QEMU's disks and the kernel's gadget have a write cache"


@pytest.mark.qemu("the kernel's gadget has no VPD pages")
def test_vpd_pages_carry_the_serial_number(stick: Device) -> None:
    sg = stick.units[0].sg
    assert {0x00, 0x80, 0x83, 0xB0} <= set(oracles.supported_pages(sg))
    assert oracles.vpd(sg, 0x80)[4:].decode() == stick.serial
    assert oracles.vpd_names(sg, 0x80)["Unit serial number"] == stick.serial
    assert oracles.block_limits(sg)["Maximum transfer length"] > 0


def test_raw_commands_and_sense_text(stick: Device) -> None:
    unit = stick.units[0]
    assert oracles.raw(unit.sg, bytes([0x28, 0, 0, 0, 0, 5, 0, 0, 2, 0]), 1024) == unit.backing(5, 2)
    no_medium = bytes([0x70, 0, 2, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x3A, 0, 0, 0, 0, 0])
    assert "Medium not present" in oracles.decode_sense(no_medium)


@pytest.mark.parametrize("name", ["scratch", "gadget-super"])
def test_a_write_is_in_the_backing_file_when_the_kernel_has_flushed_it(zoo: dict[str, Device], name: str) -> None:
    unit = zoo[name].units[0]
    lba, data = 1000, os.urandom(8 * unit.block_size)
    before, after = unit.backing(lba - 8, 8), unit.backing(lba + 8, 8)
    with unit.node.open("r+b", buffering=0) as file:
        os.pwrite(file.fileno(), data, lba * unit.block_size)
        os.fsync(file.fileno())
    assert unit.backing(lba - 8, 24) == before + data + after


def test_the_fat_stick_mounts(fat: Device, tmp_path: Path) -> None:
    partition = fat.units[0].partition
    subprocess.run(["mount", "-t", "vfat", partition, tmp_path], check=True)
    try:
        (tmp_path / "hello.txt").write_text("hello\n")
        assert (tmp_path / "hello.txt").read_text() == "hello\n"
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.parametrize("name", ["scratch", "empty", "multi"])
def test_devices_can_be_pulled_and_plugged(zoo: dict[str, Device], name: str) -> None:
    unplug(zoo[name])
    assert zoo[name].bound() is None
    plug(zoo[name])
    assert oracles.inquiry(zoo[name].units[0].sg).vendor == vendor(zoo[name])


@pytest.mark.qemu("QEMU's monitor")
def test_the_monitor_answers_and_refuses() -> None:
    assert qmp("query-status")["running"] is True
    with pytest.raises(QmpError, match="nothing-of-the-kind"):
        qmp("device_del", id="nothing-of-the-kind")
