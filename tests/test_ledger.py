"""The ledger: who holds what, since where; and what it tells, when and to whom."""

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


def test_an_entry_says_what_who_when_and_where() -> None:
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


def test_a_release_strikes_out_one_entry_once() -> None:
    entries = [ledger.acquire("claim", "of the same") for _ in range(2)]
    entries[0].release()
    entries[0].release()
    assert ledger.outstanding() == entries[1:]
    entries[1].release()
    assert ledger.outstanding() == []


def test_the_places_are_those_of_the_users_code_oldest_first() -> None:
    bus = Bus(stick(16))
    with open_on(bus):
        line = sys._getframe().f_lineno - 1
        held = ledger.outstanding()
    kinds = [entry.kind for entry in held]
    assert kinds == ["hotplug", "thread", "handle", "driver", "claim", "memory", "memory", "client"]
    assert {entry.place for entry in held} == {f"test_ledger.py:{line}"}
    assert [entry.since for entry in held] == sorted(entry.since for entry in held)
    assert ledger.outstanding() == []


def test_the_dump_is_for_people() -> None:
    assert ledger.dump() == "nothing is held"
    entry = ledger.acquire("lease", "of 1-1:1.0")
    assert "holds 1 resource:\n  lease of 1-1:1.0, acquired at test_ledger.py:" in ledger.dump()
    other = ledger.acquire("handle", "of 1-1:1.0")
    assert "holds 2 resources:" in ledger.dump()
    entry.release()
    other.release()


def test_tracing_tells_each_acquire_with_its_backtrace_and_each_release(capsys: pytest.CaptureFixture[str]) -> None:
    ledger.trace()
    entry = ledger.acquire("claim", "of 1-1:1.0")
    assert any("test_tracing_tells" in line for line in entry.backtrace)
    assert "test_tracing_tells" in ledger.dump()
    entry.release()
    ledger.trace(False)
    ledger.acquire("claim", "unseen").release()
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("scsiusb: ledger: acquired claim of 1-1:1.0, acquired at test_ledger.py:")
    (released,) = (at for at, line in enumerate(said) if line.startswith("scsiusb: ledger: released"))
    assert " claim of 1-1:1.0 in MainThread at test_ledger.py:" in said[released]
    assert any("test_tracing_tells" in line for line in said[released + 1 :])
    assert all(line.startswith("scsiusb: ledger: ") for line in said)


def test_without_tracing_no_backtrace_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("traceback.format_stack", None)
    entry = ledger.acquire("claim", "of 1-1:1.0")
    assert entry.backtrace == ()
    entry.release()


def test_a_stream_that_is_closed_or_missing_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger.trace()
    for stream in (None, open("/dev/null" if sys.platform != "win32" else "nul")):  # noqa: SIM115
        monkeypatch.setattr(sys, "stderr", stream)
        if stream is not None:
            stream.close()
        ledger.acquire("claim", "of 1-1:1.0").release()


def test_many_threads_write_it_at_once() -> None:
    def work() -> None:
        for _ in range(500):
            ledger.acquire("claim", threading.current_thread().name).release()
            ledger.outstanding()

    run_all(*[work] * 8)
    assert ledger.outstanding() == []


# --- in a process of its own ----------------------------------------------------------------------

OPEN = """
import os, signal, sys, scsiusb
disk = scsiusb.open("virtual:")
"""


def test_at_exit_it_tells_what_is_still_held_and_all_of_it_is_given_back() -> None:
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


def test_at_exit_it_is_silent_where_nothing_is_held() -> None:
    assert python(f"{OPEN}\ndisk.close()") == (0, "", "")


def test_the_environment_turns_tracing_on() -> None:
    status, _, err = python(f"{OPEN}\ndisk.close()", SCSIUSB_TRACE="other,ledger")
    assert status == 0
    assert "acquired handle of 1-1:1.0" in err
    assert 'File "<string>", line 3' in err
    assert "released handle of 1-1:1.0" in err


def test_the_import_alone_does_nothing() -> None:
    script = "import scsiusb.ledger, signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    environment = {**os.environ, "SCSIUSB_TRACE": "ledger"}
    ended = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "True\n", "")


@needs_signals
def test_a_signal_dumps_it_and_the_program_goes_on() -> None:
    script = f"""{OPEN}
os.kill(os.getpid(), signal.SIGUSR1)
print(disk.blocks > 0)
disk.close()
"""
    status, out, err = python(script)
    assert (status, out) == (0, "True\n")
    assert "holds 8 resources:" in err


@needs_signals
def test_a_signal_that_the_program_uses_itself_stays_its_own() -> None:
    script = f"""
import signal
signal.signal(signal.SIGUSR1, lambda number, frame: print("mine"))
{OPEN}
os.kill(os.getpid(), signal.SIGUSR1)
disk.close()
"""
    assert python(script) == (0, "mine\n", "")
