"""Device memory, drivers and disks are released on the real kernel, also after an unplug."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import scsiusb
from scsiusb.scsi.commands.sbc import Read16

from .machine import Device, Unit, units
from .plugging import plug, unplug

WITH_MEDIUM = units(medium=True)
MIB = 1 << 20


def device_memory() -> list[int]:
    """Return the sizes of the usbfs memory that this process has mapped."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    spans = [line.split()[0].split("-") for line in lines if "/dev/bus/usb/" in line]
    return [int(end, 16) - int(start, 16) for start, end in spans]


def test_device_memory_is_used_and_released(stick: Device) -> None:
    assert device_memory() == []
    with scsiusb.open(stick.address) as disk:
        disk.read(0, 2048)
        assert max(device_memory()) >= MIB
    assert device_memory() == []


def test_the_data_is_the_same_without_device_memory(stick: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "scsiusb.usb.libusb.backend.LibusbHandle.allocate", lambda self, size: memoryview(bytearray(size)), raising=True
    )
    with scsiusb.open(stick.address) as disk:
        assert disk.read(7, 5000) == stick.units[0].backing(7, 5000)
        assert device_memory() == []


@pytest.mark.parametrize("unit", WITH_MEDIUM, ids=str)
def test_the_kernel_reads_the_disk_after_a_command_and_after_an_error(unit: Unit) -> None:
    unit.device.wait()
    with scsiusb.open(unit.device.address, lun=unit.lun) as disk:
        disk.read(0, 1)
    unit.device.wait()
    assert unit.kernel_read(0, 8) == unit.backing(0, 8)
    with pytest.raises(scsiusb.CheckCondition), scsiusb.open(unit.device.address, lun=unit.lun) as disk:
        disk.execute(Read16(unit.blocks, 1, block_size=unit.block_size))
    unit.device.wait()
    assert unit.kernel_read(0, 8) == unit.backing(0, 8)


@pytest.fixture
def pulled(scratch: Device) -> Iterator[Device]:
    """The scratch stick, plugged in again after the test."""
    yield scratch
    if not scratch.present:
        plug(scratch)


def test_a_device_unplugged_during_a_read_is_gone_and_works_after_a_replug(pulled: Device) -> None:
    gone = threading.Event()
    disk = scsiusb.open(pulled.address)
    reading = threading.Event()

    def read() -> None:
        with pytest.raises(scsiusb.DeviceGone):
            while True:
                disk.read(0, 2048)
                reading.set()
        gone.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert reading.wait(60)
    unplug(pulled)
    assert gone.wait(60)
    reader.join()
    with pytest.raises(scsiusb.DeviceGone):
        disk.read(0, 1)
    disk.close()
    disk.close()
    assert device_memory() == []
    plug(pulled)
    with pytest.raises(scsiusb.DeviceClosed):
        disk.read(0, 1)
    with scsiusb.open(pulled.address) as again:
        assert again.read(0, 64) == pulled.units[0].backing(0, 64)


def test_eight_threads_on_one_disk_get_the_right_data(stick: Device) -> None:
    unit = stick.units[0]
    wrong: list[tuple[int, int]] = []

    def read(disk: scsiusb.Disk, number: int) -> None:
        for at in range(20):
            lba = (number * 1000 + at * 37) % (unit.blocks - 300)
            if disk.read(lba, 1 + at * 13) != unit.backing(lba, 1 + at * 13):
                wrong.append((number, lba))

    with scsiusb.open(stick.address) as disk:
        threads = [threading.Thread(target=read, args=(disk, number)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
