"""Recovery gives back the devices of dead programs, as far as the user may do that."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from scsiusb.leases import folders, warden_main
from scsiusb.leases import orphans as recovery
from scsiusb.leases import record as record_module
from scsiusb.leases.folders import Folder
from scsiusb.leases.lease import Record, leases
from scsiusb.leases.orphans import Recovered, recover
from scsiusb.leases.warden_main import GONE, Kernel
from tests.leases.processes import HOLD, WAIT, kill, line, running
from tests.leases.usbfs import RECORD, Usbfs

if sys.platform != "linux":
    pytest.skip("only Linux has kernel drivers to detach", allow_module_level=True)

NOBODY = 65534
BOOT = record_module._boot()


class Scene:
    """A device that a dead program held, and a folder of leases."""

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
    def remaining(self) -> list[str]:
        return os.listdir(self.folder)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    made = Scene(tmp_path)
    monkeypatch.setattr(folders, "own", lambda: [made.folder])
    monkeypatch.setattr(folders, "RUN", tmp_path / "run")
    monkeypatch.setattr(folders, "_all_users", lambda: iter(()))
    monkeypatch.setattr(recovery, "Kernel", lambda: made.usbfs.kernel)
    for name in ("CLAIM_TIMEOUT", "BIND_TIMEOUT", "LOCK_TIMEOUT"):
        monkeypatch.setattr(warden_main, name, 0.05)
    return made


def test_an_orphan_is_given_back_and_its_lease_removed(scene: Scene) -> None:
    record = scene.orphan()
    assert recover() == [Recovered(record, "kernel driver usb-storage is bound again", ok=True)]
    assert scene.usbfs.driver == "usb-storage"
    assert "reset" not in scene.usbfs.names
    assert scene.remaining == []
    assert recover() == []


def test_an_orphan_with_a_command_in_progress_gets_a_port_reset(scene: Scene) -> None:
    scene.orphan(in_command=1)
    assert recover()[0].ok
    assert "reset" in scene.usbfs.names


def test_an_orphan_without_a_driver_before_has_none_after(scene: Scene) -> None:
    scene.orphan(driver=None)
    assert recover()[0].ok
    assert scene.usbfs.driver is None
    assert scene.remaining == []


def test_for_a_device_that_is_gone_only_the_lease_is_removed(scene: Scene) -> None:
    record = scene.orphan(number=8)
    assert recover() == [Recovered(record, GONE, ok=True)]
    assert scene.usbfs.steps == []
    assert scene.remaining == []


def test_for_an_orphan_of_another_boot_only_the_lease_is_removed(scene: Scene) -> None:
    record = scene.orphan(boot="0123-4567")
    assert recover() == [Recovered(record, GONE, ok=True)]
    assert scene.usbfs.steps == []


def test_a_live_lease_is_not_touched(scene: Scene) -> None:
    with running(HOLD + WAIT, scene.folder) as process:
        assert line(process) == "ready"
        assert recover() == []
        assert len(scene.remaining) == 1
        kill(process)
    (recovered,) = recover()
    assert (recovered.record.pid, recovered.done, recovered.ok) == (process.pid, GONE, True)
    assert scene.remaining == []


@pytest.mark.parametrize("words", ["2-1", "2-1:1.0"])
def test_only_the_named_device_is_recovered(scene: Scene, words: str) -> None:
    scene.orphan()
    other = scene.orphan(address="2-2", name="2-2:1.0", number=9)
    assert recover("2-10") == []
    assert [each.record.address for each in recover(words)] == ["2-1"]
    assert scene.remaining == [other.file_name]


def test_an_orphan_that_another_process_is_recovering_is_not_touched(scene: Scene) -> None:
    record = scene.orphan()
    with (scene.folder / record.file_name).open("rb") as file:
        assert folders.try_lock(file.fileno())
        assert recover() == []
        assert scene.usbfs.steps == []
    assert recover()[0].ok


def test_a_shared_lock_does_not_prevent_recovery(scene: Scene) -> None:
    record = scene.orphan()
    with (scene.folder / record.file_name).open("rb") as file:
        assert folders.try_lock(file.fileno(), shared=True)
        assert recover()[0].ok
    assert scene.remaining == []


def claimed(scene: Scene) -> None:
    scene.usbfs.bind("usbfs")


def forbidden(scene: Scene) -> None:
    scene.usbfs.fail["claim"] = errno.EACCES


def driverless(scene: Scene) -> None:
    scene.usbfs.takes = None


@pytest.mark.parametrize(
    ("obstacle", "done"),
    [
        (claimed, "another program uses it"),
        (forbidden, "permission denied"),
        (driverless, "no kernel driver takes it"),
    ],
)
def test_a_device_that_could_not_be_given_back_stays_an_orphan(
    scene: Scene, obstacle: Callable[[Scene], None], done: str
) -> None:
    record = scene.orphan()
    obstacle(scene)
    assert recover() == [Recovered(record, done, ok=False)]
    assert [seen.state for seen in leases()] == ["orphaned"]


@pytest.fixture
def foreign(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases that this user may not remove, as root's."""

    def refuse(self: Folder, name: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Folder, "unlink", refuse)


@pytest.mark.usefixtures("foreign")
def test_a_recovered_device_is_reported_once_if_its_lease_cannot_be_removed(scene: Scene) -> None:
    scene.orphan()
    assert recover()[0].ok
    assert recover() == []
    scene.usbfs.unplug()
    assert recover() == []


def test_only_mass_storage_is_touched(scene: Scene) -> None:
    """A malicious user could write a lease by which root would bind a driver to another kind of device."""
    scene.orphan()
    (scene.usbfs.interface / "bInterfaceClass").write_text("03\n")
    recover()
    assert scene.usbfs.steps == []


@pytest.fixture
def another_users(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Record]:
    """Writes an orphan of a user who may open the device's node, with changes."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    monkeypatch.setattr(folders, "own", lambda: [tmp_path / "own"])
    monkeypatch.setattr(folders, "_all_users", lambda: iter([(scene.folder, NOBODY)]))
    scene.usbfs.node.chmod(0o666)

    def write(**changes: Any) -> Record:
        record = scene.orphan(**{"boot": BOOT, **changes})
        for path in (scene.folder, scene.folder / record.file_name):
            os.chown(path, NOBODY, NOBODY)
        return record

    return write


def test_root_recovers_every_users_orphans(scene: Scene, another_users: Callable[..., Record]) -> None:
    another_users()
    assert recover()[0].ok
    assert scene.remaining == []
    assert scene.usbfs.driver == "usb-storage"


FORGED = [
    {"boot": None},
    {"boot": "0123-4567"},
    {"vendor_id": 0x0951},
    {"product_id": 0x1666},
    {"serial": "4C54"},
    {"serial": None},
    {"number": 8},
    {"interface": 1},
]


@pytest.mark.parametrize("changes", FORGED, ids=str)
def test_root_leaves_an_orphan_of_another_user_alone_that_does_not_fit_the_device(
    scene: Scene, another_users: Callable[..., Record], changes: dict[str, Any]
) -> None:
    record = another_users(**changes)
    assert recover() == []
    assert scene.usbfs.steps == []
    assert scene.remaining == [record.file_name]


def test_root_does_nothing_for_a_user_who_may_not_open_the_device(
    scene: Scene, another_users: Callable[..., Record]
) -> None:
    """Else any user could have a driver bound to an interface that was left without one on purpose."""
    another_users()
    scene.usbfs.node.chmod(0o664)
    assert recover() == []
    assert scene.usbfs.steps == []


@pytest.mark.parametrize("driver", ["usbfs", "usb-storage"])
def test_root_leaves_a_device_alone_that_another_users_program_or_a_driver_has(
    scene: Scene, another_users: Callable[..., Record], driver: str
) -> None:
    """A claim is waited for only where root's own lease says that its process is dead."""
    another_users()
    scene.usbfs.bind(driver)
    assert recover() == []
    assert scene.usbfs.steps == []


def test_root_waits_for_no_lock_of_another_users(
    scene: Scene, another_users: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", None)
    names = [another_users(number=number).file_name for number in (7, *range(9, 30))]
    with ExitStack() as stack:
        for name in names:
            file = stack.enter_context((scene.folder / name).open("rb"))
            assert folders.try_lock(file.fileno())
        assert recover() == []
    assert scene.usbfs.steps == []


STRANGER = (
    "import fcntl, os, sys; file = open(sys.argv[1], 'rb'); os.setuid(65534); fcntl.flock(file, fcntl.LOCK_EX)\n"
    "print('locked', flush=True); sys.stdin.read()"
)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_waits_for_no_lock_that_another_user_has_on_roots_lease(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every user may read root's leases, and so lock them."""
    record = scene.orphan()
    command = [sys.executable, "-c", STRANGER, str(scene.folder / record.file_name)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as stranger:
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == "locked\n"
        monkeypatch.setattr(warden_main, "LOCK_TIMEOUT", 1e9)
        assert recover()[0].ok
        assert scene.remaining == []
        stranger.communicate("")


def test_a_file_with_random_bytes_is_ignored(scene: Scene) -> None:
    (scene.folder / "002-007-0.json").write_bytes(b"\xff" * 100)
    assert recover() == []


def test_on_other_platforms_than_linux_only_the_lease_is_removed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "ON_LINUX", False)
    monkeypatch.setattr(recovery, "ON_WINDOWS", True)
    monkeypatch.setattr(recovery, "lock_for_recovery", None)
    record = scene.orphan()
    assert recover() == [Recovered(record, "its record is removed", ok=True)]
    assert scene.remaining == []


def test_a_device_that_the_real_kernel_does_not_have_is_gone(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "Kernel", Kernel)
    scene.orphan(address="250-1", name="250-1:1.0", bus=250)
    assert [each.done for each in recover()] == [GONE]


def test_no_descriptor_is_left_open(scene: Scene) -> None:
    before = len(os.listdir("/proc/self/fd"))
    scene.orphan()
    recover()
    recover()
    assert len(os.listdir("/proc/self/fd")) == before
