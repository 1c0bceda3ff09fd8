"""A lease is held by one process, names it, and is an orphan as soon as that process is dead."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from scsiusb.errors import DeviceBusy
from scsiusb.leases import folders, lease, record
from scsiusb.leases.folders import Folder
from scsiusb.leases.lease import Lease, Record, holder, leases
from scsiusb.leases.record import file_name, is_running
from scsiusb.leases.warden_main import DEAD, Holding, Kernel, is_locked_by_running_process, started
from scsiusb.usb.interface import InterfaceInfo
from tests.interrupts import CtrlC
from tests.leases.leasing import NOBODY, acquire_among_readers, is_root, on_linux, orphan
from tests.leases.processes import HOLD, WAIT, kill, line, running, wait_for
from tests.sticks import PATIENCE
from tests.usb.libusb.watched import Scene

if sys.platform == "win32":
    pytest.skip("descriptors of folders", allow_module_level=True)


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


def test_a_second_acquire_names_the_holder(held: Lease, info: InterfaceInfo) -> None:
    with pytest.raises(DeviceBusy) as error:
        Lease.acquire(info)
    assert f"is held by pid {os.getpid()} ({held.record.command}) since {held.record.since}" in str(error.value)


def test_another_process_gets_the_holders_name_too(folder: Path, held: Lease) -> None:
    code = "try: Lease.acquire(info, folder)\nexcept Exception as error: say(type(error).__name__, error)\n"
    with running(code, folder) as other:
        assert line(other).startswith(f"DeviceBusy {Scene().info} is held by pid {os.getpid()} (")
    assert held.path is not None
    assert held.path.exists()


def test_release_removes_the_lease_and_may_be_called_again(held: Lease, info: InterfaceInfo) -> None:
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


def test_release_after_the_folder_was_cleaned_does_not_remove_the_next_lease(held: Lease, info: InterfaceInfo) -> None:
    assert held.path is not None
    held.path.unlink()
    second = Lease.acquire(info)
    held.release()
    assert [seen.record for seen in leases()] == [second.record]
    second.release()


def test_on_windows_a_file_that_is_being_read_is_removed_a_moment_later(
    held: Lease, info: InterfaceInfo, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows removes no file that is open, in this process or another one."""

    def unlink(folder: Folder, name: str) -> None:
        assert held._descriptor is None
        tries.append(name)
        if len(tries) < 3:
            raise PermissionError(errno.EACCES, "in use by another process")
        original(folder, name)

    tries: list[str] = []
    original = Folder.unlink
    monkeypatch.setattr(lease, "ON_WINDOWS", True)
    monkeypatch.setattr(Folder, "unlink", unlink)
    monkeypatch.setattr(lease, "READER_TIMEOUT", PATIENCE)
    held.release()
    assert len(tries) == 3
    assert list(folder.iterdir()) == []


def test_on_windows_a_file_that_is_read_for_long_stays_and_is_taken_over(
    held: Lease, info: InterfaceInfo, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unlink(folder: Folder, name: str) -> None:
        raise PermissionError(errno.EACCES, "in use by another process")

    with monkeypatch.context() as patch:
        patch.setattr(lease, "ON_WINDOWS", True)
        patch.setattr(Folder, "unlink", unlink)
        patch.setattr(lease, "READER_TIMEOUT", 0.03)
        held.release()
    assert [seen.state for seen in leases()] == ["orphaned"]
    Lease.acquire(info).release()
    assert list(folder.iterdir()) == []


def test_the_driver_is_written_down_in_place(held: Lease) -> None:
    for name in ("usb-storage-with-a-long-name", "uas"):
        held.record_driver(name)
        (seen,) = leases()
        assert seen.record.driver == held.record.driver == name
        assert seen.state == "live"
    held.record_driver(None)
    assert leases()[0].record.driver is None


def test_a_command_in_progress_is_visible_in_the_file_and_survives_record_driver(held: Lease) -> None:
    for value in (True, False, True):
        held.note_command(value)
        assert held.in_command is value
        assert leases()[0].in_command is value
    held.record_driver("uas")
    assert leases()[0].in_command
    held.release()
    held.note_command(True)
    assert not held.in_command


@pytest.mark.slow
def test_many_readers_never_make_an_acquire_fail(folder: Path, info: InterfaceInfo) -> None:
    acquire_among_readers(info)


def test_only_one_of_many_processes_gets_the_lease(folder: Path) -> None:
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
    """The holdings passed to a `give_back` that always succeeds."""
    done: list[Holding] = []

    def give_back(kernel: Kernel, holding: Holding) -> tuple[bool, str]:
        done.append(holding)
        return True, "bound"

    monkeypatch.setattr(lease, "ON_LINUX", True)
    monkeypatch.setattr(lease, "give_back", give_back)
    return done


@pytest.mark.parametrize("in_command", [0, 1])
def test_an_orphan_that_recovery_missed_is_given_back_before_it_is_taken_over(
    folder: Path, info: InterfaceInfo, given_back: list[Holding], in_command: int
) -> None:
    """Its process may die just after recovery has read the leases."""
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


def test_an_orphan_that_cannot_be_given_back_stays_one(
    folder: Path, info: InterfaceInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "ON_LINUX", True)
    monkeypatch.setattr(lease, "give_back", lambda kernel, holding: (False, "permission denied"))
    path = orphan(folder, driver="uas")
    before = path.read_text()
    with pytest.raises(
        DeviceBusy, match=r"held by pid .* which died, .*: permission denied; run `sudo scsiusb recover`"
    ):
        Lease.acquire(info)
    assert path.read_text() == before


@pytest.mark.parametrize("change", [{"boot": "0123-4567"}, {"serial": "another"}, {"vendor_id": 1}], ids=str)
def test_the_driver_in_an_orphan_of_another_plugging_in_is_ignored(
    folder: Path, info: InterfaceInfo, change: dict[str, Any]
) -> None:
    orphan(folder, driver="uas", **change)
    held = Lease.acquire(info)
    assert held.record.driver is None
    held.release()


def test_a_kill_during_a_command_is_visible_in_the_lease(folder: Path) -> None:
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
@pytest.mark.usefixtures("short_timeouts")
def test_a_forked_child_keeps_no_lease_alive(folder: Path, info: InterfaceInfo) -> None:
    """As when C code forks: the child does not close the lease."""
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


def test_closing_the_lease_in_a_forked_child_does_not_affect_the_parents(held: Lease) -> None:
    for close in (held.after_fork, held.release):
        child = os.fork()
        if child == 0:
            close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert [seen.state for seen in leases()] == ["live"]
        held.note_command(True)
        assert leases()[0].in_command


@pytest.mark.usefixtures("short_timeouts")
def test_acquire_waits_for_another_process_that_is_recovering_the_device(folder: Path, info: InterfaceInfo) -> None:
    path = orphan(folder)
    descriptor = os.open(path, os.O_RDONLY)
    assert folders.try_lock(descriptor)
    try:
        assert leases()[0].state == "orphaned"
        if sys.platform == "linux":
            assert is_locked_by_running_process(descriptor)
        with pytest.raises(DeviceBusy):  # the other process did not finish in time
            Lease.acquire(info)
    finally:
        os.close(descriptor)
    Lease.acquire(info).release()


@on_linux
@pytest.mark.usefixtures("short_timeouts")
def test_a_shared_lock_on_an_orphan_does_not_prevent_acquire(folder: Path, info: InterfaceInfo) -> None:
    path = orphan(folder)
    descriptor = os.open(path, os.O_RDONLY)
    assert folders.try_lock(descriptor, shared=True)
    assert not is_locked_by_running_process(descriptor)
    held = Lease.acquire(info)
    assert leases()[0].state == "live"
    held.release()
    os.close(descriptor)


@pytest.mark.usefixtures("folder")
def test_a_process_is_identified_by_its_start_time_too(info: InterfaceInfo) -> None:
    here = record.record_of(info)
    assert is_running(here)
    assert is_running(replace(here, started=None))
    assert not is_running(replace(here, boot="0123-4567"))
    with running(WAIT, "-") as process:
        assert line(process) == "ready"
        assert is_running(replace(here, pid=process.pid, started=started(process.pid)))
        if sys.platform == "linux":
            assert not is_running(replace(here, pid=process.pid))
        process.kill()
        wait_for(lambda: started(process.pid) in (DEAD, None), "its end")
        assert not is_running(replace(here, pid=process.pid, started=None)) or sys.platform != "linux"
        process.wait()
        assert not is_running(replace(here, pid=process.pid, started=None))


def test_tell_is_called_before_the_lease_can_be_seen(folder: Path, info: InterfaceInfo) -> None:
    calls: list[tuple[str | None, list[str]]] = []

    def notify(record: Record, path: Path) -> None:
        assert path == folder / record.file_name
        calls.append((record.driver, [seen.state for seen in leases()]))

    Lease.acquire(info, notify=notify).release()
    assert calls == [(None, [])]
    orphan(folder, driver="uas")
    Lease.acquire(info, notify=notify).release()
    assert calls[1:] == [(None, ["orphaned"]), (None, ["orphaned"])]


@is_root
@on_linux
@pytest.mark.usefixtures("short_timeouts")
def test_another_users_lock_on_roots_orphan_does_not_prevent_acquire(folder: Path, info: InterfaceInfo) -> None:
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


# --- Ctrl-C -----------------------------------------------------------------------------------------


def is_of_leases(frame: FrameType) -> bool:
    """Return whether the frame runs code of `leases` or `base`, but not in `__del__`, where Python ignores errors."""
    if os.path.basename(os.path.dirname(frame.f_code.co_filename)) not in ("leases", "base"):
        return False
    callers = (frame, frame.f_back, frame.f_back and frame.f_back.f_back)
    return not any(caller is not None and caller.f_code.co_name == "__del__" for caller in callers)


@pytest.mark.slow
@on_linux
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # its last reference closes it
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("is_orphan_there", [False, True], ids=["a new file", "an orphan's file"])
def test_ctrl_c_at_any_bytecode_of_acquiring_leaves_no_lease_and_no_descriptor(
    folder: Path, info: InterfaceInfo, is_orphan_there: bool
) -> None:
    Lease.acquire(info).release()
    text = b"not a lease\n"
    number, held = 1, None
    while held is None:
        if is_orphan_there:
            (folder / file_name(info.device.bus, info.device.number, info.interface)).write_bytes(text)
        before = len(os.listdir("/proc/self/fd"))
        held = CtrlC(is_of_leases, number).run(lambda: Lease.acquire(info))
        if held is None:
            assert len(os.listdir("/proc/self/fd")) == before, f"a descriptor was left after bytecode {number}"
            Lease.acquire(info).release()  # the device is not busy
            assert list(folder.iterdir()) == []
        number += 7 if number > 50 else 1  # each of the first ones, then some of each function
    held.release()
    assert number > 300
