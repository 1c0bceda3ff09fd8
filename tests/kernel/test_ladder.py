"""Error recovery on a real kernel: port resets, retried writes, and a device that never answers."""

from __future__ import annotations

from pathlib import Path

import pytest

import scsiusb
from scsiusb import RetryPolicy
from scsiusb.errors import TransportError, UnitAttention

from .kernel_log import KernelLog
from .served import served

pytestmark = pytest.mark.native("no device of QEMU's takes part: under emulation they only take longer")

OLD, NEW = b"\x11" * 512, b"\x22" * 512
PATIENT = 15.0  # seconds for a command that is answered, in a guest that may be busy


def driver_of(interface: Path) -> str | None:
    link = interface / "driver"
    return link.readlink().name if link.exists() else None


@pytest.mark.parametrize("speed", ["high", "super"])
def test_a_port_reset_keeps_the_interface_claimed_and_no_kernel_driver_is_bound(
    kernel_log: KernelLog, speed: str
) -> None:
    with served(speed=speed) as device:
        with scsiusb.open(device.address) as disk:
            before = disk.read(0, 8)
            kernel_log.new()
            device.stick.faults.add("stall@cbw,opcode=28")
            device.stick.faults.add("reset-stalls")
            assert disk.read(0, 8) == before
            said = "".join(message.text for message in kernel_log.new())
            assert "reset" in said
            assert "usb-storage" not in said
            assert driver_of(device.interface) == "usbfs"
        device.device.wait()
        assert driver_of(device.interface) == "usb-storage"


def test_an_interrupted_write_is_on_the_medium_after_its_retry() -> None:
    with served() as device, scsiusb.open(device.address, timeout=PATIENT) as disk:
        disk.unit.retry = RetryPolicy(timeouts=1)
        for fault in ("stall=512@data", "nak@csw", "signature@csw", "extra=512@csw"):
            disk.write(8, OLD * 8)
            disk.flush()
            device.stick.faults.add(f"{fault},opcode=2A")
            disk.write(8, NEW * 8)
            disk.flush()
            assert disk.read(8, 8) == NEW * 8


def test_a_device_that_never_answers_is_an_error_and_is_released() -> None:
    with served() as device:
        disk = scsiusb.open(device.address)
        disk.read(0, 1)
        disk.unit.timeout = 2
        for fault in ("nak@cbw,times=always", "reset-hangs"):
            device.stick.faults.add(fault)
        with pytest.raises(TransportError):
            disk.read(0, 1)
        device.stick.faults.clear()
        disk.close()
        device.device.wait()
        assert scsiusb.ledger.outstanding() == []


def test_a_reset_between_two_writes_makes_the_flush_fail() -> None:
    with served() as device:
        disk = scsiusb.open(device.address)
        disk.write(8, NEW)
        device.stick.faults.add("stall@cbw,opcode=28")
        device.stick.faults.add("reset-stalls")
        disk.read(0, 1)
        with pytest.raises(UnitAttention, match="reset before the written blocks were flushed"):
            disk.close()
