"""What programs left behind is put right by whoever comes next, as far as they may."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from scsiusb.leases import folders, warden_main
from scsiusb.leases import orphans as recovery
from scsiusb.leases.folders import Folder
from scsiusb.leases.lease import Record, leases
from scsiusb.leases.orphans import Recovered, recover
from scsiusb.leases.warden_main import GONE, Kernel
from tests.leases.processes import HOLD, WAIT, kill, line, running
from tests.leases.usbfs import RECORD, Usbfs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nothing is taken from a kernel elsewhere")

NOBODY = 65534


class Scene:
    """A device that was left behind, and a folder of leases."""

    def __init__(self, root: Path) -> None:
        self.usbfs = Usbfs(root)
        self.folder = root / "leases"
        self.folder.mkdir(mode=0o700)

    def orphan(self, in_command: int = 0, **changes: Any) -> Record:
        record = replace(RECORD, **{"pid": 0x7FFFFFFF, **changes})
        text = json.dumps({"in_command": in_command, **asdict(record)}) + "\n"
        (self.folder / record.file_name).write_text(text)
        return record

    @property
    def left(self) -> list[str]:
        return os.listdir(self.folder)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    made = Scene(tmp_path)
    monkeypatch.setattr(folders, "own", lambda: [made.folder])
    monkeypatch.setattr(folders, "RUN", tmp_path / "run")
    monkeypatch.setattr(folders, "_all_users", lambda: iter(()))
    monkeypatch.setattr(recovery, "Kernel", lambda: made.usbfs.kernel)
    for name in ("CLAIM_PATIENCE", "BIND_PATIENCE", "LOCK_PATIENCE"):
        monkeypatch.setattr(warden_main, name, 0.05)
    return made


def test_an_orphan_is_given_back_and_its_lease_removed(scene: Scene) -> None:
    record = scene.orphan()
    assert recover() == [Recovered(record, "kernel driver usb-storage is bound again", ok=True)]
    assert scene.usbfs.driver == "usb-storage"
    assert "reset" not in scene.usbfs.names
    assert scene.left == []
    assert recover() == []


def test_one_in_mid_command_has_its_port_reset(scene: Scene) -> None:
    scene.orphan(in_command=1)
    assert recover()[0].ok
    assert "reset" in scene.usbfs.names


def test_one_without_a_driver_before_has_none_after(scene: Scene) -> None:
    scene.orphan(driver=None)
    assert recover()[0].ok
    assert scene.usbfs.driver is None
    assert scene.left == []


def test_of_a_device_that_is_gone_only_the_lease_goes(scene: Scene) -> None:
    record = scene.orphan(number=8)
    assert recover() == [Recovered(record, GONE, ok=True)]
    assert scene.usbfs.steps == []
    assert scene.left == []


def test_of_another_boot_only_the_lease_goes(scene: Scene) -> None:
    record = scene.orphan(boot="0123-4567")
    assert recover() == [Recovered(record, GONE, ok=True)]
    assert scene.usbfs.steps == []


def test_what_lives_is_left_alone(scene: Scene) -> None:
    with running(HOLD + WAIT, scene.folder) as process:
        assert line(process) == "ready"
        assert recover() == []
        assert len(scene.left) == 1
        kill(process)
    (recovered,) = recover()
    assert (recovered.record.pid, recovered.done, recovered.ok) == (process.pid, GONE, True)
    assert scene.left == []


@pytest.mark.parametrize("words", ["2-1", "2-1:1.0"])
def test_only_the_device_that_is_meant(scene: Scene, words: str) -> None:
    scene.orphan()
    other = scene.orphan(address="2-2", name="2-2:1.0", number=9)
    assert recover("2-10") == []
    assert [each.record.address for each in recover(words)] == ["2-1"]
    assert scene.left == [other.file_name]


def test_what_somebody_is_putting_right_is_left_to_them(scene: Scene) -> None:
    record = scene.orphan()
    with (scene.folder / record.file_name).open("rb") as file:
        assert folders.try_lock(file.fileno())
        assert recover() == []
        assert scene.usbfs.steps == []
    assert recover()[0].ok


def test_whoever_only_shares_the_lock_keeps_nobody_from_it(scene: Scene) -> None:
    record = scene.orphan()
    with (scene.folder / record.file_name).open("rb") as file:
        assert folders.try_lock(file.fileno(), shared=True)
        assert recover()[0].ok
    assert scene.left == []


def claimed(scene: Scene) -> None:
    scene.usbfs.bind("usbfs")


def forbidden(scene: Scene) -> None:
    scene.usbfs.fail["claim"] = errno.EACCES


def driverless(scene: Scene) -> None:
    scene.usbfs.takes = None


@pytest.mark.parametrize(
    ("trouble", "done"),
    [
        (claimed, "another program uses it by now"),
        (forbidden, "permission denied"),
        (driverless, "no kernel driver takes it"),
    ],
)
def test_what_could_not_be_put_right_stays_an_orphan(scene: Scene, trouble: Callable[[Scene], None], done: str) -> None:
    record = scene.orphan()
    trouble(scene)
    assert recover() == [Recovered(record, done, ok=False)]
    assert [seen.state for seen in leases()] == ["orphaned"]


@pytest.fixture
def foreign(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The leases are root's, and we are somebody else: nothing can be removed."""

    def refuse(self: Folder, name: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Folder, "unlink", refuse)


@pytest.mark.usefixtures("foreign")
def test_what_is_right_already_is_not_told_again_where_the_lease_cannot_be_removed(scene: Scene) -> None:
    scene.orphan()
    assert recover()[0].ok
    assert recover() == []
    scene.usbfs.unplug()
    assert recover() == []


def test_only_mass_storage_is_touched(scene: Scene) -> None:
    """The lease may be a malicious user's, who would have root bind a driver to something else."""
    scene.orphan()
    (scene.usbfs.interface / "bInterfaceClass").write_text("03\n")
    recover()
    assert scene.usbfs.steps == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_puts_every_users_right(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = scene.orphan()
    for path in (scene.folder, scene.folder / record.file_name):
        os.chown(path, NOBODY, NOBODY)
    monkeypatch.setattr(folders, "own", lambda: [tmp_path / "own"])
    monkeypatch.setattr(folders, "_all_users", lambda: iter([(scene.folder, NOBODY)]))
    assert recover()[0].ok
    assert scene.left == []
    monkeypatch.setattr(folders, "_all_users", lambda: iter([(scene.folder, NOBODY - 1)]))
    scene.orphan()
    assert recover() == []


def test_rubbish_is_no_matter(scene: Scene) -> None:
    (scene.folder / "002-007-0.json").write_bytes(b"\xff" * 100)
    assert recover() == []


def test_elsewhere_than_on_linux_only_the_lease_is_removed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "ON_LINUX", False)
    monkeypatch.setattr(recovery, "ON_WINDOWS", True)
    monkeypatch.setattr(recovery, "lock_for_recovery", None)
    record = scene.orphan()
    assert recover() == [Recovered(record, "its record is removed", ok=True)]
    assert scene.left == []


def test_a_real_kernel_is_asked_about_what_is_not_there(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "Kernel", Kernel)
    scene.orphan(address="250-1", name="250-1:1.0", bus=250)
    assert [each.done for each in recover()] == [GONE]


def test_no_descriptor_is_left_open(scene: Scene) -> None:
    before = len(os.listdir("/proc/self/fd"))
    scene.orphan()
    recover()
    recover()
    assert len(os.listdir("/proc/self/fd")) == before
