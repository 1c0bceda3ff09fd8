"""Other processes, for tests in which another process holds a lease and is killed."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.forkserver import Process, start
from tests.sticks import PATIENCE

PREAMBLE = """
import os, signal, sys, time
from pathlib import Path
from scsiusb.leases.lease import Lease
from scsiusb.leases.warden import Warden
from tests.usb.libusb.watched import Scene

def say(*words):
    print(*words, flush=True)

folder = Path(sys.argv[1])
info = Scene().info
"""
HOLD = "lease = Lease.acquire(info, folder)\n"
WAIT = "say('ready')\nsys.stdin.read()\n"


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"timed out waiting for {what}"
        time.sleep(0.005)


@contextmanager
def running(code: str, *arguments: object, session: bool = False) -> Iterator[Process]:
    """Run PREAMBLE and the code in another process, which is killed in the end."""
    with start(PREAMBLE + code, *arguments, session=session) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: Process) -> str:
    """Read the next line of the process's output."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def kill(process: Process) -> None:
    process.kill()
    status = process.wait(PATIENCE)
    if sys.platform != "win32":
        assert status == -signal.SIGKILL
