"""The fake kernel of these tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from scsiusb.usb.system import disk_uses, disk_writers, linux

from .machine import Machine


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(tmp_path)
    monkeypatch.setattr(linux, "USB_DEVICES", machine.sys / "bus/usb/devices")
    monkeypatch.setattr(disk_uses, "CLASS_BLOCK", machine.sys / "class/block")
    monkeypatch.setattr(disk_writers, "CLASS_BLOCK", machine.sys / "class/block")
    monkeypatch.setattr(disk_writers, "CONFIG", machine.sys / "kernel/config")
    monkeypatch.setattr(disk_writers, "MODULE", machine.sys / "module")
    monkeypatch.setattr(disk_uses, "DEV_BLOCK", machine.sys / "dev/block")
    monkeypatch.setattr(linux, "PROC", machine.proc)
    monkeypatch.setattr(disk_uses, "BTRFS", machine.sys / "fs/btrfs")
    monkeypatch.setattr(disk_uses, "DEV", tmp_path / "dev")
    monkeypatch.setattr(disk_uses, "_warned", set())
    return machine
