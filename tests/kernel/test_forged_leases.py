"""Nothing that another user puts in place of a lease makes root do anything to a device, or wait."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

import scsiusb
from scsiusb.leases.orphans import recover
from scsiusb.leases.record import file_name, record_of
from scsiusb.leases.warden_main import started

from .command import NOBODY, as_user
from .command import scsiusb as cli
from .conftest import Figures
from .machine import USB, Device

assert sys.platform == "linux"

pytestmark = pytest.mark.native("under emulation they take minutes")

USER = 1000
DEAD = 0x7FFFFFF0  # more than the kernel's greatest pid
MANY = 300  # each, if it were waited for, a second
TIMEOUT = 120  # seconds for a program
LOCK = """
import fcntl, os, sys
held = [os.open(path.path, os.O_RDWR) for path in os.scandir(sys.argv[1])]
for descriptor in held:
    fcntl.flock(descriptor, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


def folder_of(user: int) -> Path:
    return Path(tempfile.gettempdir()) / f"scsiusb-{user}"


@pytest.fixture
def folders() -> Iterator[Callable[[int], Path]]:
    """Makes a user's folder for leases."""
    made: list[Path] = []

    def make(user: int) -> Path:
        folder = folder_of(user)
        made.append(folder)
        shutil.rmtree(folder, ignore_errors=True)  # an earlier test's program may have run as that user
        folder.mkdir(mode=0o700)
        os.chown(folder, user, user)
        return folder

    yield make
    for folder in made:
        shutil.rmtree(folder)


@pytest.fixture
def unbound(scratch: Device) -> Iterator[Device]:
    """The scratch stick, whose driver the administrator has unbound, with a node that only root may open."""
    (scratch.interface / "driver" / "unbind").write_text(scratch.interface.name)
    mode = node(scratch).stat().st_mode
    node(scratch).chmod(0o600)
    yield scratch
    node(scratch).chmod(mode)
    (USB / "drivers_probe").write_text(scratch.interface.name)
    scratch.wait()


def node(device: Device) -> Path:
    bus, number = (int((device.folder / name).read_text()) for name in ("busnum", "devnum"))
    return Path(f"/dev/bus/usb/{bus:03}/{number:03}")


def forge(folder: Path, device: Device, **changes: Any) -> Path:
    """Write a lease of a dead process for the device, right but for the changes, as the folder's owner."""
    (info,) = (info for info in scsiusb.devices() if info.serial == device.serial)
    owner = folder.stat().st_uid
    record = replace(record_of(info), pid=DEAD, started=1, uid=owner, driver="usb-storage", **changes)
    path = folder / record_of(info).file_name
    path.write_text(json.dumps({"in_command": 1, **asdict(record)}) + "\n")
    os.chown(path, owner, owner)
    path.chmod(0o600)
    return path


def assert_root_does_nothing(device: Device, other: Device) -> None:
    """Run what looks for orphans, as root; nothing may be sent to the device, and no driver bound."""
    before = (device.folder / "urbnum").read_text()
    assert recover() == []
    assert cli("recover", "--json").json() == []
    (row,) = (row for row in cli("list", "--json").json() if row["address"] == device.address)
    assert (row["driver"], row["lease"]) == (None, None)
    assert cli("read", other.address, "--lba", 5, "--blocks", 3).ok().out == other.units[0].backing(5, 3)
    assert device.bound() is None
    assert (device.folder / "urbnum").read_text() == before


WRONG: dict[str, dict[str, Any]] = {
    "boot": {"boot": "5c51-another"},
    "no boot": {"boot": None},
    "serial": {"serial": "4C53"},
    "no serial": {"serial": None},
    "vendor": {"vendor_id": 0x0781},
    "product": {"product_id": 0x5581},
    "number": {"number": 126},
    "bus": {"bus": 99},
    "interface": {"interface": 1},
    "another's name": {"name": "1-1:1.0"},
    "no name": {"name": ""},
    "a path for a name": {"name": "../../../bus/usb/devices/usb1"},
}


def test_a_lease_of_a_user_who_may_not_open_the_device_does_nothing(
    unbound: Device, stick: Device, folders: Callable[[int], Path]
) -> None:
    forge(folders(NOBODY), unbound)
    assert_root_does_nothing(unbound, stick)


@pytest.mark.parametrize("changes", WRONG.values(), ids=WRONG)
def test_a_lease_that_is_not_of_this_device_does_nothing(
    unbound: Device, stick: Device, folders: Callable[[int], Path], changes: dict[str, Any]
) -> None:
    node(unbound).chmod(0o666)
    forge(folders(NOBODY), unbound, **changes)
    assert_root_does_nothing(unbound, stick)


def test_a_right_lease_of_a_user_who_may_open_the_device_is_believed(
    unbound: Device, folders: Callable[[int], Path]
) -> None:
    node(unbound).chmod(0o666)
    forge(folders(NOBODY), unbound)
    assert [each.ok for each in recover()] == [True]
    assert unbound.bound() == "usb-storage"


def locked(folder: Path) -> subprocess.Popen[str]:
    """Start a program of the folder's owner that locks all files there until its input ends."""
    words = [*as_user(folder.stat().st_uid), sys.executable, "-c", LOCK, str(folder)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    return process


def test_leases_that_a_user_has_locked_are_not_waited_for(
    unbound: Device, stick: Device, folders: Callable[[int], Path], figures: Figures
) -> None:
    node(unbound).chmod(0o666)
    folder = folders(NOBODY)
    right = forge(folder, unbound)
    text = json.loads(right.read_text())
    for number in range(MANY):
        path = folder / file_name(90, number, 0)
        path.write_text(json.dumps({**text, "bus": 90, "number": number}) + "\n")
        os.chown(path, NOBODY, NOBODY)
    with locked(folder) as locker:
        for words in (["list"], ["recover"], ["read", stick.address, "--lba", "0"]):
            began = time.monotonic()
            command = [sys.executable, "-m", "scsiusb", *words]
            done = subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=False)
            figures.add(
                f"root's scsiusb {words[0]}, {MANY + 1} leases being locked by a user", time.monotonic() - began
            )
            assert done.returncode == 0, done.stderr
            assert unbound.bound() is None
        locker.communicate(timeout=TIMEOUT)
    assert [each.ok for each in recover()] == [True]  # its lock was what kept root from it
    assert unbound.bound() == "usb-storage"


def test_a_live_lease_of_a_user_who_may_not_open_the_device_does_not_keep_root_from_recovery(
    unbound: Device, folders: Callable[[int], Path]
) -> None:
    path = forge(folders(NOBODY), unbound)
    with locked(path.parent) as locker:
        text = json.loads(path.read_text())
        path.write_text(json.dumps({**text, "pid": locker.pid, "started": started(locker.pid)}) + "\n")
        assert cli("leases", "--json").json() == []
        assert [row["ok"] for row in cli("recover", unbound.address, "--json").json()] == [True]
        assert unbound.bound() == "usb-storage"
        locker.communicate(timeout=TIMEOUT)


def _fifo(path: Path) -> None:
    os.mkfifo(path, 0o600)


def _endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _of_root(path: Path) -> None:
    """A link to a file that only root may read."""
    path.symlink_to("/etc/shadow")


@pytest.mark.parametrize("make", [_fifo, _endless, _sparse, _loop, _of_root, Path.mkdir])
def test_what_is_no_file_with_a_lease_in_it_is_not_waited_for(
    unbound: Device, stick: Device, folders: Callable[[int], Path], make: Callable[[Path], None]
) -> None:
    node(unbound).chmod(0o666)
    path = forge(folders(NOBODY), unbound)
    path.unlink()
    make(path)
    os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    assert_root_does_nothing(unbound, stick)


def test_a_folder_that_is_a_link_to_anothers_is_not_used(
    unbound: Device, stick: Device, folders: Callable[[int], Path]
) -> None:
    """The lease in it is right, and its owner may open the device; the folder's name is another user's."""
    node(unbound).chmod(0o666)
    elsewhere = folders(NOBODY)
    forge(elsewhere, unbound)
    moved = elsewhere.with_name("elsewhere")
    elsewhere.rename(moved)
    elsewhere.symlink_to(moved)
    os.chown(elsewhere, NOBODY, NOBODY, follow_symlinks=False)
    try:
        assert_root_does_nothing(unbound, stick)
    finally:
        elsewhere.unlink()
        moved.rename(elsewhere)


def test_folders_of_another_user_do_not_hide_a_users_lease(unbound: Device, folders: Callable[[int], Path]) -> None:
    node(unbound).chmod(0o666)
    forge(folders(USER), unbound)
    crowd = [folder_of(100_000 + number) for number in range(4 * MANY)]
    try:
        for folder in crowd:
            folder.mkdir()
            os.chown(folder, NOBODY, NOBODY)
        assert [each.ok for each in recover()] == [True]
        assert unbound.bound() == "usb-storage"
    finally:
        for folder in crowd:
            folder.rmdir()
