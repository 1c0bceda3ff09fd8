"""A program that exits without closing what it opened: everything is released, and the exit status is right."""

from __future__ import annotations

import signal
import sys

import pytest

from tests.sticks import python

BUS = """
import atexit, os, signal, sys, threading, scsiusb
from scsiusb.opening import open_on
from scsiusb.virtual import Bus, Memory, Stick, Unit
from tests.sticks import InterceptedBus, hangs_at, stick

bus = InterceptedBus(stick(64))

@atexit.register
def report_leaks():  # registered first, so it runs last
    print("left:", len(scsiusb.ledger.outstanding()), len(bus.handles), bus.driver(bus.devices()[0], 0))
    sys.stdout.flush()
"""
CLEAN = "left: 0 0 usb-storage\n"


def end_of(script: str) -> tuple[int, str, str]:
    status, out, err = python(f"{BUS}\n{script}")
    assert "Traceback" not in err, err
    assert "Exception ignored" not in err, err
    return status, out, err


@pytest.mark.parametrize(
    "script",
    [
        "disk = open_on(bus); disk.read(0, 1)",
        "disk = open_on(bus); other = open_on(bus); disk.write(0, bytes(512))",
        "manager = scsiusb.Manager(bus)",
        "manager = scsiusb.Manager(bus); disk = manager.open(); del manager",
        "disk = open_on(bus); cycle = [disk]; cycle.append(cycle)",
        "disk = open_on(bus, on_gone=print); bus.unplug(bus.devices()[0]); bus.plug(stick(1))",
        "disk = open_on(bus); sys.exit(0)",
    ],
)
def test_what_is_open_at_exit_is_released(script: str) -> None:
    status, out, _ = end_of(script)
    assert (status, out[-len(CLEAN) :]) == (0, CLEAN)


@pytest.mark.parametrize(
    ("script", "held"),
    [("disk = open_on(bus)", 8), ("manager = scsiusb.Manager(bus); disk = manager.open()", 11)],
    ids=["disk first", "manager first"],
)
def test_the_report_on_stderr_has_the_place_of_each_open(script: str, held: int) -> None:
    _, _, err = end_of(script)
    assert "scsiusb: ledger: process " in err
    assert f"holds {held} resources:" in err
    assert "client of 1-1:1.0, acquired at <string>:" in err


def test_a_command_of_a_daemon_thread_is_ended() -> None:
    script = """
disk = open_on(bus)
disk.read(0, 1)
reached = threading.Event()
bus.wire.intercept = hangs_at(0x28, reached)
def work():
    try:
        disk.read(0, 1)
    except scsiusb.DeviceClosed:
        pass
threading.Thread(target=work, daemon=True).start()
reached.wait()
"""
    assert end_of(script)[:2] == (0, CLEAN)


def test_a_thread_that_is_not_a_daemon_may_run_to_its_end() -> None:
    script = """
def work():
    with open_on(bus) as disk:
        for turn in range(50):
            disk.read(turn, 1)
threading.Thread(target=work).start()
"""
    assert end_of(script) == (0, CLEAN, "")


def test_an_object_that_cannot_be_closed_does_not_keep_the_others_open() -> None:
    script = """
from scsiusb.manager.process import PROCESS
class Bad:
    def close(self): raise RuntimeError("a bug")
    def after_fork(self): pass
bad = [Bad() for _ in range(3)]
for each in bad: PROCESS.close_at_exit(each)
disk = open_on(bus)
"""
    status, out, err = python(f"{BUS}\n{script}")
    assert (status, out) == (0, CLEAN)
    assert err.count("RuntimeError: a bug") == 3


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM to catch")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_handler_that_raises_during_a_command(number: signal.Signals) -> None:
    script = f"""
def end(number, frame): sys.exit(5)
signal.signal({int(number)}, end)
with open_on(bus) as disk:
    disk.read(0, 1)
    reached = threading.Event()
    bus.wire.intercept = hangs_at(0x28, reached)
    print("ready", flush=True)
    disk.read(0, 1)
"""
    status, out, err = python(f"{BUS}\n{script}", signal_at="ready", number=number)
    assert (status, out, err) == (5, f"ready\n{CLEAN}", "")
