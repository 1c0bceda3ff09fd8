"""A lease is held by one process, tells who that is, and is an orphan as soon as that process is dead."""

from __future__ import annotations

import json
import logging
import os
import signal
import stat
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scsiusb.errors import DeviceBusy
from scsiusb.manager import folders, lease, record
from scsiusb.manager.folders import Folder
from scsiusb.manager.lease import Lease, Record, holder, leases
from scsiusb.manager.record import LONGEST_COMMAND, parse, runs
from scsiusb.manager.warden_main import DEAD, locked_by_the_living, started
from scsiusb.usb.interface import InterfaceInfo
from tests.manager.processes import HOLD, WAIT, kill, line, running, wait_for
from tests.manager.usbfs import RECORD
from tests.usb.watched import Scene

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="descriptors of folders")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")

NOBODY = 65534
is_root = pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="needs root")


@pytest.fixture
def info() -> InterfaceInfo:
    return Scene().info


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder for leases that there is."""
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
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RECOVERY_PATIENCE", 0.05)


def orphan(folder: Path, **changes: Any) -> Path:
    """A lease whose process is dead."""
    with running(HOLD + WAIT, folder) as process:
        assert line(process) == "ready"
        kill(process)
    (path,) = folder.iterdir()
    if changes:
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}) + "\n")
    return path


def of(path: Path) -> Record:
    found = parse(path.read_bytes())
    assert found is not None
    return found


# --- one holder -----------------------------------------------------------------------------------


def test_a_lease_says_who_holds_what(held: Lease, info: InterfaceInfo) -> None:
    assert held.path is not None
    assert held.path.name == "001-002-0.json"
    (seen,) = leases()
    assert seen == lease.Seen(held.record, "live", held.path, in_command=False)
    assert held.record.pid == os.getpid()
    assert "pytest" in held.record.command
    assert (held.record.address, held.record.name) == ("1-1", "1-1:1.0")
    assert (held.record.vendor_id, held.record.product_id, held.record.serial) == (info.vid, info.pid, info.serial)
    assert (held.record.bulk_in, held.record.bulk_out) == (0x81, 0x02)
    assert held.record.uid == os.geteuid()
    assert holder(info) == held.record


def test_a_second_acquire_is_told_who_has_it(held: Lease, info: InterfaceInfo) -> None:
    with pytest.raises(DeviceBusy) as error:
        Lease.acquire(info)
    assert f"is held by pid {os.getpid()} ({held.record.command}) since {held.record.since}" in str(error.value)


def test_another_process_is_told_too(folder: Path, held: Lease) -> None:
    code = "try: Lease.acquire(info, folder)\nexcept Exception as error: say(type(error).__name__, error)\n"
    with running(code, folder) as other:
        assert line(other).startswith(f"DeviceBusy {Scene().info} is held by pid {os.getpid()} (")
    assert held.path is not None
    assert held.path.exists()


def test_after_release_nothing_is_there_and_it_may_be_released_again(held: Lease, info: InterfaceInfo) -> None:
    held.release()
    held.release()
    assert leases() == []
    assert holder(info) is None
    Lease.acquire(info).release()


def test_release_closes_every_descriptor(info: InterfaceInfo, folder: Path) -> None:
    before = os.listdir("/dev/fd")
    Lease.acquire(info).release()
    assert leases() == []
    assert len(os.listdir("/dev/fd")) == len(before)


def test_release_after_the_folder_was_swept_leaves_the_next_ones_lease_alone(held: Lease, info: InterfaceInfo) -> None:
    assert held.path is not None
    held.path.unlink()
    second = Lease.acquire(info)
    held.release()
    assert [seen.record for seen in leases()] == [second.record]
    second.release()


def test_the_driver_is_written_down_in_place(held: Lease) -> None:
    for name in ("usb-storage-with-a-long-name", "uas"):
        held.record_driver(name)
        (seen,) = leases()
        assert seen.record.driver == held.record.driver == name
        assert seen.state == "live"
    held.record_driver(None)
    assert leases()[0].record.driver is None


def test_that_a_command_is_under_way_is_seen_from_outside_and_survives_the_driver(held: Lease) -> None:
    for value in (True, False, True):
        held.in_command = value
        assert held.in_command is value
        assert leases()[0].in_command is value
    held.record_driver("uas")
    assert leases()[0].in_command
    held.release()
    held.in_command = True
    assert not held.in_command


def test_many_readers_never_make_an_acquire_fail(folder: Path, info: InterfaceInfo) -> None:
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            leases()

    readers = [threading.Thread(target=look) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(50):
            held = Lease.acquire(info)
            assert holder(info) == held.record
            held.release()
    finally:
        stop.set()
        for reader in readers:
            reader.join()


def test_of_many_processes_one_has_it(folder: Path) -> None:
    code = """
say('ready')
sys.stdin.readline()
try:
    lease = Lease.acquire(info, folder)
except Exception as error:
    say(type(error).__name__)
else:
    say('held')
    sys.stdin.readline()
"""
    with running(code, folder) as a, running(code, folder) as b, running(code, folder) as c:
        for process in (a, b, c):
            assert line(process) == "ready"
        for process in (a, b, c):
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        assert sorted(map(line, (a, b, c))) == ["DeviceBusy", "DeviceBusy", "held"]


# --- death ----------------------------------------------------------------------------------------


def test_a_killed_holder_leaves_an_orphan_that_the_next_takes_over_with_its_driver(
    folder: Path, info: InterfaceInfo
) -> None:
    orphan(folder, driver="uas")
    (seen,) = leases()
    assert seen.state == "orphaned"
    assert holder(info) is None
    held = Lease.acquire(info)
    assert held.record.driver == "uas"
    assert held.record.pid == os.getpid()
    held.record_driver(None)  # there is none to detach: it was detached before
    (seen,) = leases()
    assert (seen.state, seen.record) == ("live", held.record)
    assert held.record.driver == "uas"
    held.release()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("change", [{"boot": "0123-4567"}, {"serial": "another"}, {"vendor_id": 1}], ids=str)
def test_an_orphan_of_another_plugging_in_tells_nothing_about_the_driver(
    folder: Path, info: InterfaceInfo, change: dict[str, Any]
) -> None:
    orphan(folder, driver="uas", **change)
    held = Lease.acquire(info)
    assert held.record.driver is None
    held.release()


def test_a_kill_in_mid_command_can_be_seen(folder: Path) -> None:
    with running(HOLD + "lease.in_command = True\n" + WAIT, folder) as process:
        assert line(process) == "ready"
        assert leases()[0].state == "live"
        kill(process)
    assert [(seen.state, seen.in_command) for seen in leases()] == [("orphaned", True)]


@on_linux
def test_a_kill_at_any_moment_leaves_a_whole_lease_or_none(folder: Path) -> None:
    code = "say('ready')\nwhile True:\n    " + HOLD.strip() + "\n    lease.record_driver('uas')\n    lease.release()\n"
    folder.mkdir(mode=0o700)
    for round_ in range(8):
        with running(code, folder) as process:
            assert line(process) == "ready"
            threading.Event().wait(0.002 * round_)  # another moment each time
            kill(process)
        assert [seen.state for seen in leases()] == ["orphaned"] * len(list(folder.iterdir()))


@on_linux
@pytest.mark.usefixtures("impatient")
def test_a_forks_child_keeps_no_lease_alive(folder: Path, info: InterfaceInfo) -> None:
    """Where the child was forked by C code, which does not let go of it."""
    code = HOLD + "if os.fork() == 0:\n    sys.stdin.read()\n    os._exit(0)\nsay('ready')\nsignal.pause()\n"
    with running(code, folder) as process:
        assert line(process) == "ready"
        assert leases()[0].state == "live"
        kill(process)
        assert leases()[0].state == "orphaned"
        held = Lease.acquire(info)
        assert [seen.record for seen in leases()] == [held.record]
        assert leases()[0].state == "live"
        held.release()


def test_a_forks_child_that_lets_go_leaves_the_parents_lease_alone(held: Lease) -> None:
    for let_go in (held.abandon, held.release):
        child = os.fork()
        if child == 0:
            let_go()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert [seen.state for seen in leases()] == ["live"]
        held.in_command = True
        assert leases()[0].in_command


@pytest.mark.usefixtures("impatient")
def test_a_device_that_somebody_gives_back_now_is_waited_for(folder: Path, info: InterfaceInfo) -> None:
    path = orphan(folder)
    descriptor = os.open(path, os.O_RDONLY)
    assert folders.try_lock(descriptor)
    try:
        assert leases()[0].state == "orphaned"
        if sys.platform == "linux":
            assert locked_by_the_living(descriptor)
        with pytest.raises(DeviceBusy):  # it never came back
            Lease.acquire(info)
    finally:
        os.close(descriptor)
    Lease.acquire(info).release()


@on_linux
@pytest.mark.usefixtures("impatient")
def test_whoever_shares_the_lock_of_an_orphan_keeps_nobody_out(folder: Path, info: InterfaceInfo) -> None:
    path = orphan(folder)
    descriptor = os.open(path, os.O_RDONLY)
    assert folders.try_lock(descriptor, shared=True)
    assert not locked_by_the_living(descriptor)
    held = Lease.acquire(info)
    assert leases()[0].state == "live"
    held.release()
    os.close(descriptor)


@pytest.mark.usefixtures("folder")
def test_a_process_is_known_by_its_start_too(info: InterfaceInfo) -> None:
    here = record.record_of(info)
    assert runs(here)
    assert runs(replace(here, started=None))
    assert not runs(replace(here, boot="0123-4567"))
    with running(WAIT, "-") as process:
        assert line(process) == "ready"
        assert runs(replace(here, pid=process.pid, started=started(process.pid)))
        if sys.platform == "linux":
            assert not runs(replace(here, pid=process.pid))
        process.kill()
        wait_for(lambda: started(process.pid) in (DEAD, None), "its end")
        assert not runs(replace(here, pid=process.pid, started=None)) or sys.platform != "linux"
        process.wait()
        assert not runs(replace(here, pid=process.pid, started=None))


def test_whoever_is_to_know_of_it_knows_before_it_can_be_seen(folder: Path, info: InterfaceInfo) -> None:
    told: list[tuple[str | None, list[str]]] = []

    def tell(record: Record, path: Path) -> None:
        assert path == folder / record.file_name
        told.append((record.driver, [seen.state for seen in leases()]))

    Lease.acquire(info, tell=tell).release()
    assert told == [(None, [])]
    orphan(folder, driver="uas")
    Lease.acquire(info, tell=tell).release()
    assert told[1:] == [(None, ["orphaned"]), ("uas", ["orphaned"])]


@is_root
@on_linux
@pytest.mark.usefixtures("impatient")
def test_another_user_who_locks_roots_orphan_keeps_nobody_out(folder: Path, info: InterfaceInfo) -> None:
    path = orphan(folder)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with open(path, "rb") as file:
            os.setuid(NOBODY)
            assert folders.try_lock(file.fileno())
            os.write(writing, b".")
            signal.pause()
    os.read(reading, 1)
    held = Lease.acquire(info)
    assert leases()[0].state == "live"
    held.release()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reading)
    os.close(writing)


# --- folders --------------------------------------------------------------------------------------


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_everybody_sees_what_root_holds_and_nobody_else_what_a_user_does(
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
    """As with `sudo -E`, or where somebody was there first."""
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
    """As root, who may write everywhere, it is said to be so."""
    first, second = two
    real = Folder.open

    def refuse(self: Folder, name: str, flags: int, mode: int = 0o600) -> int:
        if self.path == first and flags & os.O_CREAT:
            raise OSError(30, "Read-only file system")
        return real(self, name, flags, mode)

    monkeypatch.setattr(Folder, "open", refuse)
    monkeypatch.setattr(Folder, "create_unnamed", no_unnamed_files)
    held = Lease.acquire(info)
    assert held.path is not None
    assert held.path.parent == second
    held.release()


def no_unnamed_files(self: Folder) -> int:
    raise OSError(95, "Operation not supported")


def test_where_there_are_no_files_without_a_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Folder, "create_unnamed", no_unnamed_files)
    test_many_readers_never_make_an_acquire_fail(folder, Scene().info)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("places", [["file"], []], ids=["no good folder", "no folder"])
def test_without_any_folder_the_device_is_used_all_the_same(
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
    held.in_command = True
    assert not held.in_command
    held.release()


def test_a_live_lease_in_another_folder_of_ours_counts(two: tuple[Path, Path], info: InterfaceInfo) -> None:
    held = Lease.acquire(info, two[1])
    with pytest.raises(DeviceBusy, match=f"pid {os.getpid()} "):
        Lease.acquire(info)
    held.release()


@is_root
def test_another_users_lease_is_seen_by_root_but_keeps_root_from_nothing(
    folder: Path, info: InterfaceInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = folder.with_name("theirs")
    held = Lease.acquire(info, theirs)
    assert held.path is not None
    monkeypatch.setattr(folders, "_all_users", lambda: iter([(theirs, NOBODY)]))
    assert leases() == []  # it says that it is nobody's
    for path in (theirs, held.path):
        os.chown(path, NOBODY, NOBODY)
    assert [seen.state for seen in leases()] == ["live"]
    assert holder(info) == held.record
    ours = Lease.acquire(info)
    ours.release()
    held.abandon()


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


def test_root_sees_every_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "USERS", tmp_path / "user")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    for name in ("user/1000/scsiusb", "user/x", "scsiusb-1001", "scsiusb-1x"):
        (tmp_path / name).mkdir(parents=True)
    found = [(tmp_path / "user/1000/scsiusb", 1000), (tmp_path / "scsiusb-1001", 1001)]
    assert list(folders._all_users()) == found


# --- what may be anybody's work -------------------------------------------------------------------

GOOD = replace(RECORD, boot="0c15-ab", uid=1000)


def text(**changes: Any) -> bytes:
    return json.dumps({"in_command": 0, **asdict(GOOD), **changes}).encode() + b"\n"


def test_what_was_written_is_read() -> None:
    assert parse(text()) == GOOD
    assert parse(text() + b"the rest of a longer one\n") == GOOD
    assert parse(text(new="from a later version")) == GOOD
    nothing: Any = dict.fromkeys(("started", "boot", "serial", "driver", "uid"))
    assert parse(text(**nothing)) == replace(GOOD, **nothing)
    assert parse(text(address="2-1:1.0")) == replace(GOOD, address="2-1:1.0")


HOSTILE: dict[str, list[object]] = {
    "pid": [0, -1, True, 1.5, "1", None, [1], {}, 1 << 31],
    "started": [-1, "x", 1e99],
    "boot": ["../..", "", 5],
    "command": ["a\x1b[2J", "a\n", "x" * (LONGEST_COMMAND + 1), None, 7],
    "since": ["\x07", "yesterday", ""],
    "address": ["2-2", "../2-1", "", None, "2-1:1.1"],
    "name": ["2-1", "3-1:1.0", "../../etc/passwd", "2-1/:1.0", "2-1:1.0/..", "٢-1:1.0", "2-1:1.0\n", None],
    "bus": [3, -1, "2"],
    "number": [-1, 1000, None],
    "interface": [256, "0"],
    "vendor_id": [65536, "x"],
    "product_id": [-1],
    "serial": ["\x00", "x" * 256, 5],
    "driver": ["a\x1b", "x" * 65, 0],
    "bulk_in": [256, -1],
    "bulk_out": ["x"],
    "uid": [-1, 1 << 32],
    "in_command": [2, "0", None],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in HOSTILE.items() for value in values])
def test_a_field_that_cannot_be_right_makes_it_no_lease(name: str, value: object) -> None:
    assert parse(text(**{name: value})) is None


@pytest.mark.parametrize("name", list(asdict(GOOD)))
def test_a_field_that_is_missing_makes_it_no_lease(name: str) -> None:
    fields = {key: value for key, value in json.loads(text()).items() if key != name}
    assert parse(json.dumps(fields).encode() + b"\n") is None


@given(st.binary())
def test_any_bytes_are_a_lease_or_none(content: bytes) -> None:
    assert parse(content) is None
    assert parse(content + b"\n") is None


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists), st.sampled_from(list(HOSTILE)))
def test_any_json_is_a_lease_or_none(value: object, name: str) -> None:
    assert parse(json.dumps(value).encode() + b"\n") is None
    found = parse(text(**{name: value}))
    assert found is None or (found.command + (found.serial or "") + (found.driver or "")).isprintable()


@pytest.mark.parametrize("content", [b"", text()[:-1], b"[" * 60000 + b"\n", b"9" * 60000 + b"\n"])
def test_what_is_cut_or_endless_is_no_lease(content: bytes) -> None:
    assert parse(content) is None


def test_what_is_no_lease_is_left_out_and_untouched(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    name = "002-007-0.json"
    (folder / "elsewhere.json").write_bytes(text())
    (folder / "002-007-00.json").write_bytes(text())
    (folder / "folder.json").mkdir()
    os.mkfifo(folder / "003-001-0.json")
    (folder / "004-001-0.json").symlink_to("elsewhere.json")
    with (folder / "005-001-0.json").open("wb") as file:
        file.truncate(1 << 40)
    os.link(folder / "elsewhere.json", folder / name)
    before = sorted(folder.iterdir())
    assert leases() == []
    assert sorted(folder.iterdir()) == before
    (folder / "elsewhere.json").unlink()
    assert [seen.record for seen in leases()] == [GOOD]


@is_root
def test_a_file_of_another_user_in_the_folder_is_no_lease(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    path = folder / GOOD.file_name
    path.write_bytes(text())
    os.chown(path, NOBODY, NOBODY)
    assert leases() == []


@pytest.mark.parametrize("content", [b"", b"\xff", text(), b"x" * 100000])
def test_rubbish_in_the_place_is_written_over(folder: Path, info: InterfaceInfo, content: bytes) -> None:
    folder.mkdir(mode=0o700)
    (folder / "001-002-0.json").write_bytes(content)
    held = Lease.acquire(info)
    assert [seen.record for seen in leases()] == [held.record]
    held.release()
    assert list(folder.iterdir()) == []


def test_a_link_in_the_place_is_not_followed(two: tuple[Path, Path], info: InterfaceInfo) -> None:
    first, second = two
    first.mkdir(mode=0o700)
    (first / "victim").write_text("keep me")
    (first / "001-002-0.json").symlink_to("victim")
    held = Lease.acquire(info)
    assert held.path is not None
    assert held.path.parent == second
    held.release()
    assert (first / "victim").read_text() == "keep me"


def test_the_command_can_be_printed(info: InterfaceInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["python", "a\x1b[2J\n\udcff", "x" * 500])
    command = record.record_of(info).command
    assert command.isprintable()
    assert len(command) == LONGEST_COMMAND
