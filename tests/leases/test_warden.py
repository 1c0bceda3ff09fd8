"""The warden outlives its process, gives back its devices, removes the lease, and ends."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from scsiusb.leases import warden, warden_main
from scsiusb.leases.warden import Warden
from scsiusb.leases.warden_main import DEAD, started
from tests.leases.leasing import record_in
from tests.leases.processes import HOLD, WAIT, kill, line, running, wait_for
from tests.leases.usbfs import RECORD, with_lease
from tests.sticks import PATIENCE

if sys.platform != "linux":
    pytest.skip("the warden is Linux's", allow_module_level=True)

START = "warden = Warden(*sys.argv[2:4])\nwarden.hold(lease.record, lease.path)\nsay(warden.pid)\n"


@pytest.fixture(autouse=True)
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CLAIM_TIMEOUT", "BIND_TIMEOUT", "LOCK_TIMEOUT"):
        monkeypatch.setattr(warden_main, name, 0.05)


def ended(pid: int) -> bool:
    return started(pid) in (None, DEAD)


@pytest.fixture
def place(tmp_path: Path) -> list[Path]:
    """The folder of leases, and a /sys and a /dev without any device."""
    return [tmp_path / "leases", tmp_path / "sys", tmp_path / "dev"]


def left(place: list[Path]) -> list[str]:
    return os.listdir(place[0])


def assert_settled(place: list[Path], pid: int) -> None:
    wait_for(lambda: left(place) == [], "the lease to be removed")
    wait_for(lambda: ended(pid), "the warden to end")


def test_the_warden_acts_when_its_process_is_killed_and_ends(place: list[Path]) -> None:
    with running(HOLD + START + WAIT, *place) as process:
        pid = int(line(process))
        assert line(process) == "ready"
        assert not ended(pid)
        kill(process)
    assert_settled(place, pid)


def test_a_kill_right_after_hold_finds_a_warden(place: list[Path]) -> None:
    with running(HOLD + START + "os.kill(os.getpid(), 9)\n", *place) as process:
        pid = int(line(process))
        process.wait()
    assert_settled(place, pid)


@pytest.mark.parametrize(
    "code", ["os._exit(3)", "os.kill(os.getpid(), signal.SIGSEGV)", "os.execv('/bin/true', ['x'])"]
)
def test_the_warden_acts_however_the_process_ends(place: list[Path], code: str) -> None:
    with running(HOLD + START + code + "\n", *place) as process:
        pid = int(line(process))
        process.wait()
    assert_settled(place, pid)


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGTSTP]
)
def test_signals_do_not_end_the_warden_even_while_it_starts(place: list[Path], number: signal.Signals) -> None:
    code = START + f"for _ in range(50): os.kill(warden.pid, {int(number)})\n"
    with running(HOLD + code + WAIT, *place) as process:
        pid = int(line(process))
        assert line(process) == "ready"
        for _ in range(100):
            os.kill(pid, number)
        kill(process)
    assert_settled(place, pid)


def test_a_kill_of_the_whole_process_group_does_not_reach_the_warden(place: list[Path]) -> None:
    with running(HOLD + START + WAIT, *place, session=True) as process:
        pid = int(line(process))
        assert line(process) == "ready"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert_settled(place, pid)


def test_after_close_the_warden_ends_and_does_nothing(place: list[Path]) -> None:
    with running(HOLD + START + "warden.drop(lease.record); warden.close()\n" + WAIT, *place) as process:
        pid = int(line(process))
        assert line(process) == "ready"
        wait_for(lambda: ended(pid), "the warden to end")
        assert len(left(place)) == 1
        kill(process)
    assert len(left(place)) == 1


def test_a_dropped_holding_is_not_given_back(place: list[Path]) -> None:
    with running(HOLD + START + "warden.drop(lease.record)\n" + WAIT, *place) as process:
        pid = int(line(process))
        assert line(process) == "ready"
        kill(process)
        wait_for(lambda: ended(pid), "the warden to end")
    assert len(left(place)) == 1


@pytest.mark.slow
def test_the_warden_notices_the_death_although_a_forked_child_lives_on(place: list[Path]) -> None:
    """As when C code forks: the child keeps the warden's socket and the lease's lock."""
    code = "if os.fork() == 0:\n    say('child')\n    sys.stdin.read()\n    os._exit(0)\nsignal.pause()\n"
    with running(HOLD + START + code, *place) as process:
        pid = int(line(process))
        assert line(process) == "child"
        kill(process)
        assert_settled(place, pid)


def test_a_forked_child_can_start_another_warden(place: list[Path]) -> None:
    code = """
if os.fork() == 0:
    lease.after_fork(); warden.after_fork()
    assert warden.pid is None
    warden.hold(lease.record, None)
    say(warden.pid)
    os._exit(0)
os.wait()
"""
    with running(HOLD + START + code + WAIT, *place) as process:
        pid, childs = int(line(process)), int(line(process))
        assert line(process) == "ready"
        assert pid != childs
        wait_for(lambda: ended(childs), "the child's warden to end")
        assert not ended(pid)
        assert len(left(place)) == 1
        kill(process)
    assert_settled(place, pid)


def test_a_killed_warden_is_replaced_by_one_that_gets_all_holdings(place: list[Path]) -> None:
    code = START + "sys.stdin.readline()\nwarden.hold(RECORD, None)\nsay(warden.pid)\n" + WAIT
    code = "from tests.leases.usbfs import RECORD\n" + HOLD + code
    with running(code, *place) as process:
        first = int(line(process))
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: ended(first), "its end")
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        second = int(line(process))
        assert second != first
        assert line(process) == "ready"
        kill(process)
    assert_settled(place, second)


def test_a_warden_killed_together_with_its_process_leaves_an_orphan(place: list[Path]) -> None:
    with running(HOLD + START + WAIT, *place) as process:
        pid = int(line(process))
        assert line(process) == "ready"
        process.send_signal(signal.SIGSTOP)
        os.kill(pid, signal.SIGKILL)
        kill(process)
    assert len(left(place)) == 1


PYTHON = sys.executable


@pytest.fixture
def watched(place: list[Path]) -> Iterator[Warden]:
    made = Warden(str(place[1]), str(place[2]))
    yield made
    pid = made.pid
    made._held.clear()
    made.close()
    made.close()
    if pid is not None:
        wait_for(lambda: ended(pid), "the warden to end")


def test_no_warden_is_started_before_the_first_hold(watched: Warden) -> None:
    watched.drop(RECORD)
    watched.close()
    assert watched.pid is None


def test_the_warden_is_not_a_child_and_inherits_nothing(watched: Warden, place: list[Path]) -> None:
    with (place[1].parent / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        watched.hold(RECORD, None)
    pid = watched.pid
    assert pid is not None
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    with suppress(ChildProcessError):  # the tests may have other children, which live
        assert os.waitpid(-1, os.WNOHANG) == (0, 0)
    assert os.getsid(pid) != os.getsid(0)
    wait_for(lambda: os.path.basename(os.readlink(f"/proc/{pid}/cwd")) == "", "it to be in /")
    files = {name: os.readlink(f"/proc/{pid}/fd/{name}") for name in ("0", "1", "2")}
    assert files.pop("0").startswith("socket:")
    assert set(files.values()) == {"/dev/null"}
    assert Path(f"/proc/{pid}/environ").read_bytes() in (b"", b"PWD=/\0")
    assert not any("open" in os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink())
    status = Path(f"/proc/{pid}/status").read_text()
    blocked = next(int(entry.split()[1], 16) for entry in status.splitlines() if entry.startswith("SigBlk"))
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGTSTP):
        assert blocked >> (number - 1) & 1


def test_the_signal_mask_is_restored(watched: Warden) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    watched.hold(RECORD, None)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_a_sigchld_handler_that_waits_for_all_children_does_no_harm(
    watched: Warden, caplog: pytest.LogCaptureFixture
) -> None:
    reaped: list[int] = []

    def reap(number: int, frame: object) -> None:
        try:
            while True:
                pid, _ = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                reaped.append(pid)
        except ChildProcessError:
            pass

    before = signal.signal(signal.SIGCHLD, reap)
    try:
        watched.hold(RECORD, None)
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert watched.pid is not None
    assert watched.pid not in reaped
    assert caplog.records == []


def test_one_warden_for_all_threads(watched: Warden) -> None:
    def use(number: int) -> None:
        record = replace(RECORD, number=number)
        for _ in range(20):
            watched.hold(record, None)
            pids.add(watched.pid)
            watched.drop(record)

    pids: set[int | None] = set()
    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pids) == 1


@pytest.mark.slow
def test_a_broken_connection_does_not_kill_a_program_with_the_default_sigpipe_action(place: list[Path]) -> None:
    code = """
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
os.kill(warden.pid, 9)
while os.path.exists(f"/proc/{warden.pid}"): time.sleep(0.01)
warden.drop(lease.record)
lease.release()
"""
    with running(HOLD + START + code + WAIT, *place) as process:
        line(process)
        assert line(process) == "ready"


def test_a_file_under_the_number_of_the_closed_socket_is_never_written_to(place: list[Path], tmp_path: Path) -> None:
    """A program that becomes a daemon closes all descriptors and opens others."""
    code = """
os.closerange(3, 1000)
files = [open(folder.with_name('file'), 'wb') for _ in range(10)]
warden.drop(lease.record); warden.hold(lease.record, None); warden.close(); warden.after_fork()
for file in files: file.close()
"""
    with running(HOLD + START + code + WAIT, *place) as process:
        line(process)
        assert line(process) == "ready"
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.parametrize(
    "how",
    [
        "no interpreter",
        "no interpreter known",
        "frozen",
        "embedded",
        "embedded in a program with such a name",
        "no shell",
        "no program",
        "a shell that says nothing",
    ],
)
def test_if_no_warden_can_be_started_one_warning_is_logged(
    how: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    changes: dict[str, tuple[object, str, object]] = {
        "no interpreter": (sys, "executable", ""),
        "no interpreter known": (sys, "executable", None),
        "frozen": (sys, "frozen", True),
        "embedded": (sys, "executable", "/bin/sh"),
        "embedded in a program with such a name": (sys, "executable", other_program(tmp_path)),
        "no shell": (warden, "SHELL", "/nowhere/sh"),
        "no program": (warden_main, "__spec__", None),
        "a shell that says nothing": (warden, "SHELL", "/bin/true"),
    }
    target, name, value = changes[how]
    monkeypatch.setattr(target, name, value, raising=False)
    made = Warden()
    made.hold(RECORD, None)
    made.hold(replace(RECORD, number=8), None)
    made.drop(RECORD)
    made.close()
    assert made.pid is None
    assert [entry.levelno for entry in caplog.records] == [logging.WARNING]
    assert "scsiusb recover" in caplog.text
    assert not (tmp_path / "started").exists()


def other_program(folder: Path) -> str:
    """A program with "py" in its name that embeds Python, and does something else when it is started."""
    path = folder / "happy"
    path.write_text(f"#!/bin/sh\ntouch {folder}/started\n")
    path.chmod(0o755)
    return str(path)


def test_a_start_that_fails_is_not_tried_again_at_each_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = []

    def start(self: Warden) -> None:
        starts.append(self)
        raise OSError("no")

    monkeypatch.setattr(Warden, "_start", start)
    made = Warden()
    for _ in range(3):
        made.hold(RECORD, None)
        made.drop(RECORD)
    assert len(starts) == 1
    monkeypatch.setattr(warden, "RETRY_INTERVAL", 0.0)
    made._not_before = 0.0
    for _ in range(3):
        made.hold(RECORD, None)
    assert len(starts) == 4


def wrapper(folder: Path, way: str) -> str:
    """A shell script to be used in the place of Python."""
    path = folder / "python-wrapper"
    path.write_text(f"#!/bin/sh\n{way.replace('$PYTHON', sys.executable)}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("way", ['exec "$PYTHON" "$@"', '"$PYTHON" "$@"', '"$PYTHON" "$@"; exit 0', '("$PYTHON" "$@")'])
def test_a_wrapper_of_python_may_be_a_script_that_does_not_exec(
    place: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", wrapper(tmp_path, way))
    made = Warden(*map(str, place[1:]))
    made.hold(RECORD, None)
    assert made.pid is not None
    assert warden_main.__file__.rpartition("/")[2].encode() in Path(f"/proc/{made.pid}/cmdline").read_bytes()
    assert Path(f"/proc/{made.pid}/exe").samefile(PYTHON), "the wrapper's pid would be of no use"
    made.drop(RECORD)
    pid = made.pid
    made.close()
    wait_for(lambda: ended(pid), "the warden to end")
    assert caplog.text == ""


BROKEN = {
    "ends": "exit 1",
    "ends later": "sleep 0.05; exit 1",
    "without input": '"$PYTHON" "$@" </dev/null',
    "without arguments": '"$PYTHON" -c pass',
    "without descriptors": '"$PYTHON" -c "import subprocess, sys; subprocess.run(sys.argv[1:])" "$PYTHON" "$@"',
    "not a program": "",
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_wrapper_that_runs_no_warden_is_a_warning_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a confirmation from the warden nothing would show it, until a crash leaves the disk without driver."""
    monkeypatch.setattr(sys, "executable", wrapper(tmp_path, BROKEN[how]))
    made = Warden()
    made.hold(RECORD, None)
    made.hold(RECORD, None)
    assert made.pid is None
    assert [entry.levelno for entry in caplog.records] == [logging.WARNING]
    assert "python-wrapper" in caplog.text
    assert "scsiusb recover" in caplog.text
    made.drop(RECORD)
    made.close()


def test_a_warden_is_not_ended_while_something_is_held(place: list[Path]) -> None:
    made = Warden(*map(str, place[1:]))
    made.hold(RECORD, None)
    made.close()
    assert made.pid is not None
    assert made._socket is not None
    made.drop(RECORD)
    made.close()
    assert made.pid is None


def test_on_other_platforms_than_linux_nothing_is_started_or_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(warden, "ON_LINUX", False)
    made = Warden()
    made.hold(RECORD, None)
    made.drop(RECORD)
    made.close()
    assert made.pid is None
    assert caplog.records == []


def test_a_warden_that_starts_after_the_death_of_its_process_acts(place: list[Path], dead: tuple[Path, int]) -> None:
    """Here no process has the pid any more, and the socket is kept open."""
    path, pid = dead
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.send(with_lease(path).message())
        since = record_in(path).started
        words = [str(pid), str(since), str(place[1]), str(place[2])]
        command = [sys.executable, "-I", "-S", warden_main.__file__, *words]
        subprocess.run(command, stdin=theirs.fileno(), check=True, timeout=PATIENCE)
    assert not path.exists()


def test_messages_before_a_connection_that_was_reset_count(place: list[Path], dead: tuple[Path, int]) -> None:
    """The process died before it read an answer: the kernel reports that before the messages that still wait."""
    path, pid = dead
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        with ours:
            ours.send(with_lease(path).message())
            theirs.send(b"an answer that nobody reads")
        words = [str(pid), str(record_in(path).started), str(place[1]), str(place[2])]
        command = [sys.executable, "-I", "-S", warden_main.__file__, *words]
        subprocess.run(command, stdin=theirs.fileno(), check=True, timeout=PATIENCE)
    assert not path.exists()


def test_a_pid_that_another_process_has_by_now_counts_as_dead(place: list[Path], dead: tuple[Path, int]) -> None:
    path, _ = dead
    with running(WAIT, "-") as other:
        assert line(other) == "ready"
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            ours.send(with_lease(path).message())
            command = [sys.executable, "-I", "-S", warden_main.__file__, str(other.pid), "1", *map(str, place[1:])]
            subprocess.run(command, stdin=theirs.fileno(), check=True, timeout=PATIENCE)
    assert path.exists()  # the lease names another process


@pytest.mark.slow
def test_leases_of_a_live_process_are_not_touched_by_a_warden_that_lost_its_connection(place: list[Path]) -> None:
    with running(HOLD + START + "warden._socket.close()\n" + WAIT, *place) as process:
        pid = int(line(process))
        assert line(process) == "ready"
        wait_for(lambda: ended(pid), "the warden to end")
        assert len(left(place)) == 1


def test_the_warden_imports_only_small_modules() -> None:
    code = f"import sys; exec(open({warden_main.__file__!r}).read(), {{'__name__': 'x'}}); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"re", "json", "typing", "logging", "subprocess", "scsiusb", "threading"} & set(loaded.split())


def test_a_kill_while_the_lease_is_created_leaves_no_lease(place: list[Path]) -> None:
    code = """
warden = Warden(*sys.argv[2:4])
def notify(*words):
    warden.hold(*words)
    say(warden.pid)
lease = Lease.acquire(info, folder, notify)
os.kill(os.getpid(), 9)
"""
    with running(code, *place) as process:
        pid = int(line(process))
        process.wait()
    assert_settled(place, pid)
