"""A lease is held by one process, tells who that is, and is an orphan as soon as that process is dead."""

from __future__ import annotations

import os
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scsiusb.errors import DeviceBusy
from scsiusb.leases import folders, lease, record
from scsiusb.leases.lease import Lease, Record, holder, leases
from scsiusb.leases.record import runs
from scsiusb.leases.warden_main import DEAD, Holding, Kernel, locked_by_the_living, started
from scsiusb.usb.interface import InterfaceInfo
from tests.leases.leasing import NOBODY, acquire_among_readers, is_root, on_linux, orphan
from tests.leases.processes import HOLD, WAIT, kill, line, running, wait_for
from tests.usb.libusb.watched import Scene

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="descriptors of folders")


# --- one holder -----------------------------------------------------------------------------------


def test_a_lease_says_who_holds_what(held: Lease, info: InterfaceInfo) -> None:
    assert held.path is not None
    assert held.path.name == "001-002-0.json"
    (seen,) = leases()
    assert seen == lease.Seen(held.record, "live", held.path, in_command=False)
    assert held.record.pid == os.getpid()
    assert held.record.command.startswith(sys.orig_argv[0])
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
        held.note_command(value)
        assert held.in_command is value
        assert leases()[0].in_command is value
    held.record_driver("uas")
    assert leases()[0].in_command
    held.release()
    held.note_command(True)
    assert not held.in_command


def test_many_readers_never_make_an_acquire_fail(folder: Path, info: InterfaceInfo) -> None:
    acquire_among_readers(info)


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


@pytest.fixture
def given_back(monkeypatch: pytest.MonkeyPatch) -> list[Holding]:
    """What was given back in recovery's place, always with success."""
    done: list[Holding] = []

    def give_back(kernel: Kernel, holding: Holding) -> tuple[bool, str]:
        done.append(holding)
        return True, "bound"

    monkeypatch.setattr(lease, "ON_LINUX", True)
    monkeypatch.setattr(lease, "give_back", give_back)
    return done


@pytest.mark.parametrize("in_command", [0, 1])
def test_an_orphan_that_recovery_missed_is_put_right_before_it_is_taken_over(
    folder: Path, info: InterfaceInfo, given_back: list[Holding], in_command: int
) -> None:
    """Its process may have died just after recovery had looked."""
    orphan(folder, driver="uas", in_command=in_command)
    (seen,) = leases()
    assert seen.state == "orphaned"
    assert holder(info) is None
    held = Lease.acquire(info)
    assert [(each.had_driver, each.in_command) for each in given_back] == [(True, bool(in_command))]
    assert (held.record.driver, held.record.pid, held.in_command) == (None, os.getpid(), False)
    (seen,) = leases()
    assert (seen.state, seen.record) == ("live", held.record)
    held.release()
    assert list(folder.iterdir()) == []


def test_an_orphan_that_cannot_be_put_right_stays_one(
    folder: Path, info: InterfaceInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "ON_LINUX", True)
    monkeypatch.setattr(lease, "give_back", lambda kernel, holding: (False, "permission denied"))
    path = orphan(folder, driver="uas")
    before = path.read_text()
    with pytest.raises(DeviceBusy, match=r"left behind by pid .*: permission denied; run `sudo scsiusb recover`"):
        Lease.acquire(info)
    assert path.read_text() == before


@pytest.mark.parametrize("change", [{"boot": "0123-4567"}, {"serial": "another"}, {"vendor_id": 1}], ids=str)
def test_an_orphan_of_another_plugging_in_tells_nothing_about_the_driver(
    folder: Path, info: InterfaceInfo, change: dict[str, Any]
) -> None:
    orphan(folder, driver="uas", **change)
    held = Lease.acquire(info)
    assert held.record.driver is None
    held.release()


def test_a_kill_in_mid_command_can_be_seen(folder: Path) -> None:
    with running(HOLD + "lease.note_command(True)\n" + WAIT, folder) as process:
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
    for let_go in (held.after_fork, held.release):
        child = os.fork()
        if child == 0:
            let_go()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert [seen.state for seen in leases()] == ["live"]
        held.note_command(True)
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
    assert told[1:] == [(None, ["orphaned"]), (None, ["orphaned"])]


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
