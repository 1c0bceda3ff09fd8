"""Devices with wrong, inconsistent and hostile descriptors, on the real kernel and libusb."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

import pytest

import scsiusb
from scsiusb.errors import ScsiUsbError
from scsiusb.usb.interface import InterfaceInfo
from scsiusb.virtual import Identity, Memory, Stick, Unit
from scsiusb.virtual.device.descriptors import CONFIGURATION, Descriptors
from scsiusb.virtual.faults.descriptor_faults import DESCRIPTOR_FAULTS
from tests.fuzz.mutate import mutate

from .command import scsiusb as run
from .kernel_log import KernelLog
from .machine import wait_for
from .served import Served, serving

assert sys.platform == "linux"

pytestmark = pytest.mark.native("no device of QEMU's takes part: under emulation they only take longer")

DECIDED = re.compile(r"unable to enumerate USB device|no configuration chosen|can't set config|not attached")
ENUMERATION = 120.0  # seconds; the kernel tries several times to enumerate a device with bad descriptors
BLOCK = b"scsiusb " * 64
SPOILED = range(10)
GARBAGE = range(1, 6)


@dataclass(frozen=True)
class Spoiled(Descriptors):
    """The configuration descriptor with random changes."""

    seed: int = 0

    def configuration(self, speed: str | None = None, kind: int = CONFIGURATION) -> bytes:
        return mutate(super().configuration(speed, kind), Random(self.seed))


def identity(number: int) -> Identity:
    return Identity(serial=f"{0x5C52_0000_0000 + number:012X}")


@contextmanager
def attached(stick: Stick) -> Iterator[Served]:
    """Attach the stick and wait until the kernel has configured or rejected it."""
    log = KernelLog()
    decided = False
    try:
        with stick, serving(stick, wait=False) as device:
            configured = device.folder / "bConfigurationValue"

            def is_settled() -> bool:
                nonlocal decided
                decided = decided or any(DECIDED.search(message.text) for message in log.new())
                return decided or (configured.exists() and bool(configured.read_text().strip()))

            wait_for(is_settled, f"the kernel to decide about {device.address}", ENUMERATION)
            yield device
    finally:
        log.close()


def survives(device: Served) -> None:
    """Check that listing and opening end in time, with a result or an error of scsiusb, and leave nothing open."""
    listed = run("list", "--json").json()
    found = scsiusb.devices()
    assert {each["address"] for each in listed} == {info.address for info in found}
    for info in found:
        assert str(info).isprintable()
    ours = [info for info in found if info.device.address == device.address]
    for info in ours:
        _opens_or_raises(info)
    if not ours:
        with pytest.raises(ScsiUsbError):
            scsiusb.open(device.address, timeout=5)
    assert scsiusb.ledger.outstanding() == []


def _opens_or_raises(info: InterfaceInfo) -> None:
    driver, message = info.driver, ""
    try:
        with scsiusb.open(info, timeout=5) as disk:
            assert disk.inquiry().vendor == "scsiusb"
            assert disk.read(1, 1) == BLOCK
    except ScsiUsbError as error:
        message = str(error)
    assert message.isprintable()
    now = next((each for each in scsiusb.devices() if each.device == info.device), info)
    assert now.driver == driver, "the kernel's driver was not bound again"


@pytest.mark.parametrize("name", [*DESCRIPTOR_FAULTS, *(f"garbage:{seed}" for seed in GARBAGE)])
def test_a_wrong_descriptor_is_survived(name: str) -> None:
    number = [*DESCRIPTOR_FAULTS].index(name) if name in DESCRIPTOR_FAULTS else 100 + int(name.partition(":")[2])
    stick = Stick([Unit(Memory(BLOCK * 64))], identity(number), faults=[f"descriptor={name}"])
    with attached(stick) as device:
        survives(device)


@pytest.mark.parametrize("seed", SPOILED)
def test_a_spoiled_configuration_is_survived(seed: int) -> None:
    stick = Stick([Unit(Memory(BLOCK * 64))], identity(200 + seed))
    expected = stick.descriptors
    stick.descriptors = Spoiled(expected.identity, expected.interfaces, seed)
    with attached(stick) as device:
        survives(device)


def test_a_device_whose_descriptors_are_right_again_works() -> None:
    with Stick([Unit(Memory(BLOCK * 64))], identity(300), faults=["descriptor=no-endpoints"]) as stick:
        with serving(stick, wait=False) as device:
            wait_for((device.folder / "bConfigurationValue").exists, f"the kernel to configure {device.address}")
            (info,) = (info for info in scsiusb.devices() if info.device.address == device.address)
            assert info.unsupported is not None
            with pytest.raises(scsiusb.DeviceUnsupported, match="bulk endpoints"):
                scsiusb.open(device.address)
        stick.faults.clear()
        with serving(stick) as device, scsiusb.open(device.address, timeout=20) as disk:
            assert disk.read(1, 1) == BLOCK
