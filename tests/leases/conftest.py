"""Fixtures: an interface to lease, the only folder for leases, and a lease that is held there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scsiusb.leases import folders, lease
from scsiusb.leases.lease import Lease
from scsiusb.usb.interface import InterfaceInfo
from tests.leases.processes import HOLD, WAIT, kill, line, running
from tests.usb.libusb.watched import Scene

MID_COMMAND = "lease.record_driver('usb-storage'); lease.note_command(True)\n"


@pytest.fixture
def info() -> InterfaceInfo:
    return Scene().info


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder for leases."""
    path = tmp_path / "leases"
    monkeypatch.setattr(folders, "own", lambda: [path])
    monkeypatch.setattr(folders, "RUN", tmp_path / "run")
    monkeypatch.setattr(folders, "_all_users", lambda: iter(()))
    return path


@pytest.fixture
def held(folder: Path, info: InterfaceInfo) -> Iterator[Lease]:
    held = Lease.acquire(info)
    yield held
    held.release()


@pytest.fixture
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RECOVERY_TIMEOUT", 0.05)


@pytest.fixture
def dead(tmp_path: Path) -> tuple[Path, int]:
    """The lease of a process that was killed during a command, and that process's pid."""
    with running(HOLD + MID_COMMAND + WAIT, tmp_path / "leases") as process:
        assert line(process) == "ready"
        kill(process)
    (path,) = (tmp_path / "leases").iterdir()
    return path, process.pid
