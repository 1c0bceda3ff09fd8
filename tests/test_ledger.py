"""The ledger: its entries, its dump, tracing, and what it writes at exit or on a signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from scsiusb import ledger
from scsiusb.opening import open_on
from scsiusb.virtual import Bus
from tests.sticks import python, run_all, stick

needs_signals = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="there is no SIGUSR1")


@pytest.fixture(autouse=True)
def no_trace() -> Iterator[None]:
    yield
    ledger.trace(False)


def test_an_entry_has_the_resource_the_thread_the_time_and_the_place() -> None:
    entry = ledger.acquire("handle", "of 1-1:1.0")
    line = sys._getframe().f_lineno - 1
    assert ledger.outstanding() == [entry]
    assert (entry.kind, entry.what, entry.owner, entry.place) == (
        "handle",
        "of 1-1:1.0",
        "MainThread",
        f"test_ledger.py:{line}",
    )
    assert str(entry).startswith(f"handle of 1-1:1.0, acquired at test_ledger.py:{line} by MainThread at ")
    entry.release()


def test_a_release_removes_one_entry_once() -> None:
    entries = [ledger.acquire("claim", "of the same") for _ in range(2)]
    entries[0].release()
    entries[0].release()
    assert ledger.outstanding() == entries[1:]
    entries[1].release()
    assert ledger.outstanding() == []


def test_the_places_are_in_the_users_code_oldest_first() -> None:
    bus = Bus(stick(16))
    with open_on(bus):
        line = sys._getframe().f_lineno - 1
        held = ledger.outstanding()
    kinds = [entry.kind for entry in held]
    assert kinds == ["hotplug", "thread", "handle", "driver", "claim", "memory", "memory", "client"]
    assert {entry.place for entry in held} == {f"test_ledger.py:{line}"}
    assert [entry.since for entry in held] == sorted(entry.since for entry in held)
    assert ledger.outstanding() == []


def test_the_dump_is_readable_text() -> None:
    assert ledger.dump() == "nothing is held"
    entry = ledger.acquire("lease", "of 1-1:1.0")
    assert "holds 1 resource:\n  lease of 1-1:1.0, acquired at test_ledger.py:" in ledger.dump()
    other = ledger.acquire("handle", "of 1-1:1.0")
    assert "holds 2 resources:" in ledger.dump()
    entry.release()
    other.release()


def test_tracing_writes_each_acquire_and_release_with_its_backtrace(capsys: pytest.CaptureFixture[str]) -> None:
    ledger.trace()
    entry = ledger.acquire("claim", "of 1-1:1.0")
    assert any("test_tracing_writes" in line for line in entry.backtrace)
    assert "test_tracing_writes" in ledger.dump()
    entry.release()
    ledger.trace(False)
    ledger.acquire("claim", "unseen").release()
    written = capsys.readouterr().err.splitlines()
    assert written[0].startswith("scsiusb: ledger: acquired claim of 1-1:1.0, acquired at test_ledger.py:")
    (released,) = (at for at, line in enumerate(written) if line.startswith("scsiusb: ledger: released"))
    assert " claim of 1-1:1.0 in MainThread at test_ledger.py:" in written[released]
    assert any("test_tracing_writes" in line for line in written[released + 1 :])
    assert all(line.startswith("scsiusb: ledger: ") for line in written)


def test_without_tracing_no_backtrace_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("traceback.format_stack", None)
    entry = ledger.acquire("claim", "of 1-1:1.0")
    assert entry.backtrace == ()
    entry.release()


def test_a_closed_or_missing_stream_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger.trace()
    for stream in (None, open("/dev/null" if sys.platform != "win32" else "nul")):  # noqa: SIM115
        monkeypatch.setattr(sys, "stderr", stream)
        if stream is not None:
            stream.close()
        ledger.acquire("claim", "of 1-1:1.0").release()


def test_many_threads_may_use_it_at_once() -> None:
    def work() -> None:
        for _ in range(500):
            ledger.acquire("claim", threading.current_thread().name).release()
            ledger.outstanding()

    run_all(*[work] * 8)
    assert ledger.outstanding() == []


# --- in a separate process ------------------------------------------------------------------------

OPEN = """
import os, signal, sys, scsiusb
disk = scsiusb.open("virtual:")
"""


def test_at_exit_what_is_still_held_is_written_and_released() -> None:
    status, out, err = python(
        f"""{OPEN}
import atexit
@atexit.register
def after_all():  # registered last, it runs first
    print(len(scsiusb.ledger.outstanding()))
"""
    )
    assert (status, out) == (0, "8\n")
    assert "scsiusb: ledger: process " in err
    assert "holds 8 resources:" in err
    assert "claim of 1-1:1.0, acquired at <string>:3" in err
    assert "Traceback" not in err


def test_at_exit_nothing_is_written_if_nothing_is_held() -> None:
    assert python(f"{OPEN}\ndisk.close()") == (0, "", "")


def test_the_environment_turns_tracing_on() -> None:
    status, _, err = python(f"{OPEN}\ndisk.close()", SCSIUSB_TRACE="other,ledger")
    assert status == 0
    assert "acquired handle of 1-1:1.0" in err
    assert 'File "<string>", line 3' in err
    assert "released handle of 1-1:1.0" in err


def test_the_import_has_no_side_effect() -> None:
    script = "import scsiusb.ledger, signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    environment = {**os.environ, "SCSIUSB_TRACE": "ledger"}
    ended = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "True\n", "")


@needs_signals
def test_the_signal_dumps_it_and_the_program_continues() -> None:
    script = f"""{OPEN}
os.kill(os.getpid(), signal.SIGUSR1)
print(disk.blocks > 0)
disk.close()
"""
    status, out, err = python(script)
    assert (status, out) == (0, "True\n")
    assert "holds 8 resources:" in err


@needs_signals
def test_a_signal_that_the_program_handles_is_not_taken() -> None:
    script = f"""
import signal
signal.signal(signal.SIGUSR1, lambda number, frame: print("mine"))
{OPEN}
os.kill(os.getpid(), signal.SIGUSR1)
disk.close()
"""
    assert python(script) == (0, "mine\n", "")
