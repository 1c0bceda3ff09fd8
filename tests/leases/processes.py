"""Other processes, for what only another process can do: hold a lease and be killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

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
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.005)


@contextmanager
def running(code: str, *arguments: object, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A Python that runs PREAMBLE and the code, up to its first line of output; it is killed in the end."""
    command = [sys.executable, "-c", PREAMBLE + code, *map(str, arguments)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **{**pipes, **options}) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    """The next line that it says."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    assert process.wait(PATIENCE) == -signal.SIGKILL
