"""Leases across PID namespaces that share the folder of the leases: a pid of another namespace means nothing here.

As with containers that have the host's /run, or `unshare -p`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from scsiusb.base.locks import is_refused, try_lock
from scsiusb.errors import DeviceBusy
from scsiusb.leases.lease import Lease, holder, leases
from scsiusb.leases.orphans import recover
from scsiusb.leases.record import is_running, parse, record_of
from scsiusb.usb.interface import InterfaceInfo
from tests.forkserver import Process, environment
from tests.leases.leasing import NOBODY, is_root, orphan, record_in, rewrite
from tests.leases.processes import HOLD, PREAMBLE, WAIT, kill, line, running, wait_for

if sys.platform != "linux":
    pytest.skip("PID namespaces are Linux's", allow_module_level=True)

FOREIGN = 1  # the inode of no PID namespace


@contextlib.contextmanager
def held_elsewhere(folder: Path) -> Iterator[tuple[Process, Path]]:
    """Hold a lease in another process, and forge its record: of another PID namespace, with a pid that is free here."""
    with running(HOLD + WAIT, folder) as process:
        assert line(process) == "ready"
        (path,) = folder.iterdir()
        rewrite(path, pid=0x7FFFFFFE, pid_namespace=FOREIGN)
        yield process, path


# --- with a forged namespace ----------------------------------------------------------------------


def test_a_lease_has_the_namespace_of_its_pid(folder: Path, held: Lease) -> None:
    assert held.path is not None
    assert record_in(held.path).pid_namespace == os.stat("/proc/self/ns/pid").st_ino


def test_a_live_lease_of_another_namespace_is_live_and_stays(folder: Path, info: InterfaceInfo) -> None:
    with held_elsewhere(folder) as (_, path):
        before = path.read_bytes()
        assert [seen.state for seen in leases()] == ["live"]
        assert recover() == []
        with pytest.raises(DeviceBusy, match="held by pid 2147483646 of another PID namespace"):
            Lease.acquire(info)
        with pytest.raises(DeviceBusy, match="another PID namespace"):
            Lease.acquire(info, folder)
        found = holder(info)
        assert found is not None
        assert found.pid_namespace == FOREIGN
        assert path.read_bytes() == before


def test_an_orphan_of_another_namespace_is_recovered(folder: Path, info: InterfaceInfo) -> None:
    """Its pid is the pid of a process here, which is another one."""
    with held_elsewhere(folder) as (process, path):
        rewrite(path, pid=os.getpid())
        kill(process)
        assert [seen.state for seen in leases()] == ["orphaned"]
        assert [recovered.ok for recovered in recover()] == [True]
        assert not path.exists()
    Lease.acquire(info).release()


def test_the_same_pid_in_another_namespace_is_another_process(folder: Path, info: InterfaceInfo) -> None:
    mine = record_of(info)
    assert is_running(mine)
    assert is_running(replace(mine, pid_namespace=FOREIGN, pid=0x7FFFFFFE)), "only its lock shows whether it is running"
    assert not is_running(replace(mine, pid_namespace=FOREIGN, boot="0123-4567"))


def test_a_record_without_a_namespace_is_judged_by_its_pid(folder: Path, info: InterfaceInfo) -> None:
    """As an older version wrote it, or a kernel without namespaces."""
    path = orphan(folder)
    text = path.read_text()
    assert '"pid_namespace": ' in text
    rewrite(path, pid_namespace=None)
    assert [seen.state for seen in leases()] == ["orphaned"]
    rewrite(path, without="pid_namespace")
    assert parse(path.read_bytes()) == replace(record_in(path), pid_namespace=None)
    assert [seen.state for seen in leases()] == ["orphaned"]


@is_root
def test_a_lock_of_a_stranger_does_not_keep_a_lease_of_another_namespace_alive(
    folder: Path, info: InterfaceInfo
) -> None:
    """Any user may read, and so lock, root's leases."""
    with held_elsewhere(folder) as (process, path):
        kill(process)
    path.chmod(0o644)
    with open(path, "rb") as file:
        child = os.fork()
        if child == 0:
            os.setuid(NOBODY)
            try_lock(file.fileno())
            signal.pause()
    try:
        wait_for(lambda: is_refused_here(path), "the stranger's lock")
        assert [seen.state for seen in leases()] == ["orphaned"]
        Lease.acquire(info).release()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def is_refused_here(path: Path) -> bool:
    """Return whether another process has locked the file."""
    with open(path, "rb") as file:
        return is_refused(file.fileno(), shared=True)


def test_start_times_are_not_compared_where_proc_shows_another_namespace(
    info: InterfaceInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`unshare -p` without a /proc of its own: /proc/PID is a process of the other namespace."""
    readlink = os.readlink
    monkeypatch.setattr(os, "readlink", lambda path: "1" if path == "/proc/self" else readlink(path))
    mine = record_of(info)
    assert mine.started is None
    assert is_running(replace(mine, started=1))


# --- with a real one ------------------------------------------------------------------------------

CAN_UNSHARE = sys.platform == "linux" and os.geteuid() == 0 and shutil.which("unshare") is not None
in_namespace = pytest.mark.skipif(
    not CAN_UNSHARE and "SCSIUSB_ALL_TESTS" not in os.environ, reason="needs root and unshare"
)
FOLDERS = """
from scsiusb.errors import DeviceBusy
from scsiusb.leases import folders, lease, orphans
folders.own = lambda: [folder]
folders.RUN = folder / "none"
folders._all_users = lambda: iter(())
"""
TAKE = (
    FOLDERS
    + """
say("seen", *[seen.state for seen in lease.leases()])
say("recovered", len(orphans.recover()))
try:
    say("taken by", Lease.acquire(info).record.pid)
except DeviceBusy as error:
    say("refused", "another PID namespace" in str(error))
"""
)


def unshared(code: str, folder: Path, *options: str) -> subprocess.Popen[str]:
    """Run PREAMBLE and the code in a PID namespace of its own."""
    command = ["unshare", "--pid", "--fork", "--kill-child", *options, sys.executable, "-c", PREAMBLE + code]
    return subprocess.Popen(
        [*command, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
    )


@pytest.mark.slow
@in_namespace
@pytest.mark.parametrize("options", [["--mount-proc"], []], ids=["own /proc", "shared /proc"])
def test_a_lease_held_outside_is_neither_recovered_nor_taken_in_a_namespace(folder: Path, options: list[str]) -> None:
    with running(HOLD + WAIT, folder) as process:
        assert line(process) == "ready"
        (path,) = folder.iterdir()
        with unshared(TAKE, folder, *options) as inside:
            said, _ = inside.communicate(timeout=60)
        assert said.splitlines() == ["seen live", "recovered 0", "refused True"]
        assert path.exists()


@in_namespace
@pytest.mark.parametrize("options", [["--mount-proc"], []], ids=["own /proc", "shared /proc"])
def test_a_lease_held_in_a_namespace_is_neither_recovered_nor_taken_outside(
    folder: Path, info: InterfaceInfo, options: list[str]
) -> None:
    with unshared(HOLD + WAIT, folder, *options) as inside:
        assert inside.stdout is not None
        assert inside.stdout.readline().strip() == "ready"
        (path,) = folder.iterdir()
        assert record_in(path).pid < 10
        assert [seen.state for seen in leases()] == ["live"]
        assert recover() == []
        with pytest.raises(DeviceBusy, match="another PID namespace"):
            Lease.acquire(info)
        inside.kill()
        inside.wait()  # its child has got the signal by then; else it might see the end of its input first, and release
    wait_for(lambda: [seen.state for seen in leases()] == ["orphaned"], "the end of the namespace")
    Lease.acquire(info).release()


@pytest.mark.slow
@in_namespace
def test_two_namespaces_with_the_same_pids_know_each_other_apart(folder: Path) -> None:
    with unshared(HOLD + WAIT, folder, "--mount-proc") as one:
        assert one.stdout is not None
        assert one.stdout.readline().strip() == "ready"
        with unshared(TAKE, folder, "--mount-proc") as other:
            said, _ = other.communicate(timeout=60)
        assert said.splitlines() == ["seen live", "recovered 0", "refused True"]
        one.kill()
