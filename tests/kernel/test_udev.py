"""The udev rule of the package tags mass-storage devices for the user at the seat, and no other devices."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .machine import USB, Device

SHIPPED = Path(__file__).parents[2] / "udev" / "70-scsiusb.rules"
INSTALLED = Path("/run/udev/rules.d") / SHIPPED.name


@pytest.fixture
def rule() -> Iterator[None]:
    INSTALLED.write_text(SHIPPED.read_text())
    subprocess.run(["udevadm", "control", "--reload"], check=True)
    yield
    INSTALLED.unlink()
    subprocess.run(["udevadm", "control", "--reload"], check=True)


def tags(folder: Path) -> set[str]:
    """Return the tags that udev gives the device now; the property TAGS also has all its earlier tags."""
    done = subprocess.run(["udevadm", "test", folder], capture_output=True, text=True, check=True)
    lines = (done.stdout + done.stderr).splitlines()
    found = [line.partition("=")[2] for line in lines if line.strip().startswith("CURRENT_TAGS=")]
    return {tag for line in found for tag in line.split(":") if tag}


@pytest.mark.usefixtures("rule")
def test_the_rule_is_for_mass_storage_and_nothing_else(zoo: dict[str, Device]) -> None:
    for name, device in zoo.items():
        assert "uaccess" in tags(device.folder), name
    for hub in USB.glob("devices/usb*"):
        assert "uaccess" not in tags(hub.resolve())


def test_without_the_rule_nothing_is_tagged(stick: Device) -> None:
    assert "uaccess" not in tags(stick.folder)
