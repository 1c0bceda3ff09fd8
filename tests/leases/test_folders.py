"""Leases are put into folders that no other user can write to; without such a folder there is no lease."""

from __future__ import annotations

import logging
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scsiusb.errors import DeviceBusy
from scsiusb.leases import folders, lease
from scsiusb.leases.folders import Folder
from scsiusb.leases.lease import Lease, holder, leases
from scsiusb.usb.interface import InterfaceInfo
from tests.leases.leasing import NOBODY, acquire_among_readers, is_root
from tests.leases.usbfs import Usbfs
from tests.usb.libusb.watched import Scene

if sys.platform == "win32":
    pytest.skip("descriptors of folders", allow_module_level=True)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_all_users_may_read_roots_leases_and_only_the_user_their_own(
    folder: Path, info: InterfaceInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.umask(0o077)
    try:
        for is_root, modes in ((True, (0o755, 0o644)), (False, (0o700, 0o600))):
            monkeypatch.setattr(folders, "is_root", lambda is_root=is_root: is_root)
            held = Lease.acquire(info)
            assert held.path is not None
            assert (mode(folder), mode(held.path)) == modes
            held.release()
    finally:
        os.umask(before)


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The runtime folder and the temporary one."""
    monkeypatch.setattr(folders, "own", lambda: [tmp_path / "first", tmp_path / "second"])
    monkeypatch.setattr(folders, "RUN", tmp_path / "run")
    monkeypatch.setattr(folders, "_all_users", lambda: iter(()))
    return tmp_path / "first", tmp_path / "second"


def a_file(path: Path) -> None:
    path.write_text("")


def a_link(path: Path) -> None:
    path.with_name("elsewhere").mkdir()
    path.symlink_to("elsewhere")


def a_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def open_to_all(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


@pytest.mark.parametrize("make", [a_file, a_link, a_dangling_link, open_to_all])
def test_a_folder_that_is_not_safe_is_not_used(two: tuple[Path, Path], info: InterfaceInfo, make: Any) -> None:
    first, second = two
    make(first)
    held = Lease.acquire(info)
    assert held.path is not None
    assert held.path.parent == second
    assert [seen.record for seen in leases()] == [held.record]
    held.release()
    assert not first.is_dir() or list(first.iterdir()) == []


@is_root
@pytest.mark.parametrize("whose", ["first", "."])
def test_another_users_folder_is_not_used(
    two: tuple[Path, Path], info: InterfaceInfo, whose: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This happens with `sudo -E`, or if another user has created the folder."""
    first, second = two
    first = first / "sub"
    monkeypatch.setattr(folders, "own", lambda: [first, second])
    first.mkdir(parents=True)
    os.chown(first if whose == "first" else first.parent, NOBODY, NOBODY)
    held = Lease.acquire(info)
    assert held.path is not None
    assert held.path.parent == second
    held.release()


def test_a_folder_where_nothing_can_be_written_is_not_used(
    two: tuple[Path, Path], info: InterfaceInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is simulated: root may write everywhere."""
    first, second = two
    real = Folder.open

    def refuse(self: Folder, name: str, flags: int, mode: int = 0o600, into: list[int] | None = None) -> int:
        if self.path == first and flags & os.O_CREAT:
            raise OSError(30, "Read-only file system")
        return real(self, name, flags, mode, into)

    monkeypatch.setattr(Folder, "open", refuse)
    monkeypatch.setattr(Folder, "create_unnamed", no_unnamed_files)
    held = Lease.acquire(info)
    assert held.path is not None
    assert held.path.parent == second
    held.release()


def no_unnamed_files(self: Folder, into: list[int]) -> int:
    raise OSError(95, "Operation not supported")


def test_leases_work_where_files_without_a_name_are_not_supported(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Folder, "create_unnamed", no_unnamed_files)
    acquire_among_readers(Scene().info)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("places", [["file"], []], ids=["no good folder", "no folder"])
def test_without_any_folder_the_device_is_used_without_a_lease(
    info: InterfaceInfo,
    folder: Path,
    places: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    a_file(folder.with_name("file"))
    monkeypatch.setattr(folders, "own", lambda: [folder.with_name(name) for name in places])
    held = Lease.acquire(info)
    assert held.path is None
    assert [entry.levelno for entry in caplog.records] == [logging.WARNING]
    held.record_driver("uas")
    assert held.record.driver == "uas"
    held.note_command(True)
    assert not held.in_command
    held.release()


def test_a_live_lease_in_another_folder_of_ours_counts(two: tuple[Path, Path], info: InterfaceInfo) -> None:
    held = Lease.acquire(info, two[1])
    with pytest.raises(DeviceBusy, match=f"pid {os.getpid()} "):
        Lease.acquire(info)
    held.release()


@pytest.fixture
def theirs(folder: Path, info: InterfaceInfo, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lease]:
    """A live lease of another user's, NOBODY's, in a folder that root sees."""
    theirs = folder.with_name("theirs")
    held = Lease.acquire(info, theirs)
    assert held.path is not None
    monkeypatch.setattr(folders, "_all_users", lambda: iter([(theirs, NOBODY)]))
    assert leases() == []  # the folder must belong to NOBODY, but is root's
    for path in (theirs, held.path):
        os.chown(path, NOBODY, NOBODY)
    yield held
    held.after_fork()


@pytest.fixture
def usb(theirs: Lease, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Usbfs:
    """Linux with the device of that lease, which all users may open."""
    assert theirs.record is not None
    record = theirs.record
    usb = Usbfs(tmp_path, "usbfs", record.name, record.number)
    ids = {
        "idVendor": f"{record.vendor_id:04x}",
        "idProduct": f"{record.product_id:04x}",
        "serial": record.serial or "",
    }
    for attribute, value in ids.items():
        (usb.device / attribute).write_text(f"{value}\n")
    usb.node.chmod(0o666)
    monkeypatch.setattr(lease, "Kernel", lambda: usb.kernel)
    return usb


@is_root
@pytest.mark.skipif(sys.platform != "linux", reason="usbfs is Linux's")
def test_root_sees_another_users_lease_but_can_take_the_interface(
    usb: Usbfs, theirs: Lease, info: InterfaceInfo
) -> None:
    assert [seen.state for seen in leases()] == ["live"]
    assert holder(info) == theirs.record
    ours = Lease.acquire(info)
    ours.release()


@is_root
@pytest.mark.skipif(sys.platform != "linux", reason="usbfs is Linux's")
@pytest.mark.parametrize("wrong", ["node", "serial", "idVendor", "devnum", "gone"])
def test_root_does_not_believe_another_users_lease_of_a_device_that_he_cannot_hold(
    usb: Usbfs, theirs: Lease, info: InterfaceInfo, wrong: str
) -> None:
    if wrong == "node":
        usb.node.chmod(0o600)
    elif wrong == "gone":
        usb.unplug()
    else:
        (usb.device / wrong).write_text("1234\n")
    assert leases() == []
    assert holder(info) is None


def test_own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "user", lambda: 1000)
    monkeypatch.setattr(folders, "USERS", tmp_path)
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/tmp")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "1000").mkdir()
    temporary = Path("/tmp/scsiusb-1000")
    if sys.platform == "linux":
        assert folders.own() == [tmp_path / "scsiusb", tmp_path / "1000" / "scsiusb", temporary]
        for useless in ("", "relative", str(tmp_path / "missing")):
            monkeypatch.setenv("XDG_RUNTIME_DIR", useless)
            assert folders.own() == [tmp_path / "1000" / "scsiusb", temporary]
    monkeypatch.setattr(folders, "user", lambda: 0)
    assert folders.own() == [folders.RUN / "scsiusb", Path("/tmp/scsiusb-0")]


@is_root
def test_root_sees_every_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "USERS", tmp_path / "user")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    for name in ("user/1000/scsiusb", "user/x", "scsiusb-1001", "scsiusb-1x", "scsiusb-1002"):
        (tmp_path / name).mkdir(parents=True)
        if name != "scsiusb-1002":
            os.chown(tmp_path / name, 1001, 1001)
    found = [(tmp_path / "user/1000/scsiusb", 1000), (tmp_path / "scsiusb-1001", 1001)]
    assert list(folders._all_users()) == found


@is_root
def test_folders_that_another_user_made_do_not_hide_a_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "USERS", tmp_path / "user")
    monkeypatch.setattr(folders, "PASSWD", tmp_path / "passwd")
    monkeypatch.setattr(folders, "MAX_SCANNED", 50)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    for uid in (1000, 1001, *range(100000, 100400)):
        (tmp_path / f"scsiusb-{uid}").mkdir()
        os.chown(tmp_path / f"scsiusb-{uid}", uid if uid < 2000 else NOBODY, NOBODY)
    (tmp_path / "passwd").write_text("root:x:0:0::/:/bin/sh\nnonsense\nus:x:1000:1000::/:\nyou:x:1001:1:::\n")
    assert [owner for _, owner in folders._all_users()] == [1000, 1001]


def test_a_folder_in_a_users_own_file_system_is_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "USERS", tmp_path / "user")
    monkeypatch.setattr(folders, "MOUNTINFO", tmp_path / "mountinfo")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "none"))
    for uid in ("1000", "1001", "1002"):
        (tmp_path / "user" / uid / "scsiusb").mkdir(parents=True)
    lines = [
        f"25 1 0:3 / {tmp_path}/user/1000 rw - tmpfs tmpfs rw",
        f"26 1 0:4 / {tmp_path}/user/1001/scsiusb rw - fuse.sshfs x rw",
        f"27 1 0:5 / {tmp_path}/user/1002 rw - fuse x rw",
    ]
    (tmp_path / "mountinfo").write_text("\n".join(lines) + "\n")
    assert [owner for _, owner in folders._all_users()] == [1000]


def test_a_symbolic_link_with_the_name_of_a_lease_is_not_followed(two: tuple[Path, Path], info: InterfaceInfo) -> None:
    first, second = two
    first.mkdir(mode=0o700)
    (first / "victim").write_text("keep me")
    (first / "001-002-0.json").symlink_to("victim")
    held = Lease.acquire(info)
    assert held.path is not None
    assert held.path.parent == second
    held.release()
    assert (first / "victim").read_text() == "keep me"
