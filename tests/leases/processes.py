"""Other processes, for tests in which another process holds a lease and is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

PATIENCE = 30.0  # seconds
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
def running(code: str, *arguments: object, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Start a Python that runs PREAMBLE and the code, and kill it at the end."""
    command = [sys.executable, "-c", PREAMBLE + code, *map(str, arguments)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **{**pipes, **options}) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    """Read the next line of the process's output."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    assert process.wait(PATIENCE) == -signal.SIGKILL
