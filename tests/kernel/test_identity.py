"""scsiusb reports the same about a device as sg3-utils does through the kernel."""

from __future__ import annotations

from typing import Any

import pytest

import scsiusb
from scsiusb.scsi.commands.spc import ModeSense10
from scsiusb.scsi.pages.vpd import BlockLimits, DeviceIdentification, SupportedPages, UnitSerialNumber

from . import oracles
from .command import scsiusb as cli
from .machine import Device, Unit, units, zoo

EVERY = units()
WITH_MEDIUM = units(medium=True)
WITHOUT_MEDIUM = units(medium=False)
BOT_DEVICES = [device for device in zoo().values() if device.driver == "usb-storage"]
SPEEDS = {480: "high", 5000: "super"}


def test_list_shows_every_device_and_opens_none(zoo: dict[str, Device]) -> None:
    rows: list[dict[str, Any]] = cli("list", "--json").json()
    by_serial = {row["serial"]: row for row in rows}
    assert len(rows) == len(zoo)
    for device in zoo.values():
        row = by_serial[device.serial]
        assert row["address"] == device.address
        assert row["driver"] == device.driver
        assert row["protocol"] == ("uas" if device.driver == "uas" else "bot")
        assert row["speed"] == SPEEDS[device.speed]
        assert row["vid"] == (device.folder / "idVendor").read_text().strip()
        assert row["pid"] == (device.folder / "idProduct").read_text().strip()
        assert row["lease"] is None


@pytest.mark.parametrize("unit", EVERY, ids=str)
def test_inquiry_agrees_with_sg_inq_field_by_field(unit: Unit) -> None:
    wanted = oracles.inquiry(unit.device.wait().units[unit.lun].sg)
    with scsiusb.open(unit.device.address, lun=unit.lun) as disk:
        data = disk.inquiry()
    assert (data.vendor, data.product, data.revision) == (wanted.vendor, wanted.product, wanted.revision)
    assert data.peripheral_device_type == wanted.fields["PDT"]
    assert data.peripheral_qualifier == wanted.fields["PQual"]
    assert data.removable == bool(wanted.fields["RMB"])
    assert data.response_data_format == wanted.fields["Resp_data_format"]
    assert data.version == wanted.raw[2]


@pytest.mark.parametrize("unit", WITH_MEDIUM, ids=str)
def test_capacity_agrees_with_sg_readcap(unit: Unit) -> None:
    wanted = oracles.readcap(unit.device.wait().units[unit.lun].sg)
    with scsiusb.open(unit.device.address, lun=unit.lun) as disk:
        assert (disk.blocks, disk.block_size) == wanted == (unit.blocks, unit.block_size)


@pytest.mark.parametrize("device", BOT_DEVICES, ids=str)
def test_luns_agree_with_sg_luns_and_sg_raw(device: Device) -> None:
    device.wait()
    wanted = [unit.lun for unit in device.units]
    if device.kind == "usb-bot":  # the other devices do not support REPORT LUNS
        assert sorted(oracles.luns(device.units[0].sg)) == wanted
    rows: list[dict[str, Any]] = cli("luns", device.address, "--json").json()
    assert [row["lun"] for row in rows] == wanted
    device.wait()
    for row, unit in zip(rows, device.units, strict=True):
        seen = oracles.inquiry(unit.sg)
        assert (row["vendor"], row["product"]) == (seen.vendor, seen.product)
        assert row["peripheral_device_type"] == seen.fields["PDT"]
        assert row["ready"] == (unit.path is not None)


@pytest.mark.qemu("the kernel's gadget has no VPD pages")
def test_vpd_pages_agree_with_sg_vpd(stick: Device) -> None:
    sg = stick.units[0].sg
    wanted = {page: oracles.vpd(sg, page) for page in (0x00, 0x80, 0x83, 0xB0)}
    limits = oracles.block_limits(sg)
    with scsiusb.open(stick.address) as disk:
        supported, serial, names, blocks = (disk.unit.vpd(page) for page in wanted)
    assert isinstance(supported, SupportedPages)
    assert bytes(supported.pages) == wanted[0x00][4:]
    assert isinstance(serial, UnitSerialNumber)
    assert serial.serial == wanted[0x80][4:].decode().strip()
    assert isinstance(names, DeviceIdentification)
    assert b"".join(name.value for name in names.designators) in wanted[0x83].replace(wanted[0x83][4:8], b"", 1)
    assert isinstance(blocks, BlockLimits)
    assert blocks.max_transfer == limits["Maximum transfer length"]
    assert blocks.optimal_transfer == limits["Optimal transfer length"]


@pytest.mark.parametrize("name", ["stick", "gadget-high"])
def test_mode_pages_agree_with_sg_modes(zoo: dict[str, Device], name: str) -> None:
    device = zoo[name].wait()
    for unit in device.units:
        short, long = oracles.modes(unit.sg, six=True), oracles.modes(unit.sg)
        with scsiusb.open(device.address, lun=unit.lun) as disk:
            six, ten = disk.unit.mode_sense(), disk.execute(ModeSense10())
        device.wait()
        assert {page.code: page.body for page in six.pages} == {code: data[2:] for code, data in short.pages.items()}
        assert {page.code: page.body for page in ten.pages} == {code: data[2:] for code, data in long.pages.items()}
        assert six.write_protected == ten.write_protected == unit.read_only == bool(long.fields["WP"])


@pytest.mark.parametrize("unit", WITHOUT_MEDIUM, ids=str)
def test_without_a_medium_read_and_capacity_fail_and_inquiry_works(unit: Unit) -> None:
    words = (unit.device.address, "--lun", unit.lun)
    for command in ("capacity", "read"):
        ended = cli(command, *words)
        assert ended.status == 2
        assert "no medium" in ended.err
        assert ended.err.startswith("scsiusb: error: ")
        assert ended.err.count("\n") == 1
        assert ended.out == b""
    assert cli("inquiry", *words, "--json").json()["removable"] is True


def test_sense_texts_are_those_of_sg_decode_sense() -> None:
    from scsiusb.scsi.additional_sense import ADDITIONAL_SENSE

    for asc, ascq in list(ADDITIONAL_SENSE)[::25]:
        data = bytes([0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq, 0, 0, 0, 0])
        assert scsiusb.Sense.parse(data).text.lower() in oracles.decode_sense(data).lower()


def test_raw_inquiry_equals_that_of_sg_inq(stick: Device) -> None:
    wanted = oracles.inquiry(stick.units[0].sg).raw
    reply = cli("raw", stick.address, "12 00 00 00 24 00", "--in", "36", "--json").json()
    assert reply.pop("device")["address"] == stick.address
    assert reply == {"status": 0, "residue": 0, "sense": None, "data": wanted.hex()}
