"""Helpers for the tests of leases: marks, an orphan, and the record in a file."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from scsiusb.leases.lease import Lease, Record, holder, leases
from scsiusb.leases.record import parse
from scsiusb.usb.interface import InterfaceInfo
from tests.leases.processes import HOLD, WAIT, kill, line, running

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
NOBODY = 65534
is_root = pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="needs root")


def orphan(folder: Path, **changes: Any) -> Path:
    """A lease whose process is dead."""
    with running(HOLD + WAIT, folder) as process:
        assert line(process) == "ready"
        kill(process)
    (path,) = folder.iterdir()
    if changes:
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}) + "\n")
    return path


def rewrite(path: Path, *, without: str = "", **changes: Any) -> None:
    """Change fields of a lease in its file, and remove the field `without`."""
    found = {**json.loads(path.read_text().partition("\n")[0]), **changes}
    found.pop(without, None)
    path.write_text(json.dumps(found) + "\n")


def record_in(path: Path) -> Record:
    found = parse(path.read_bytes())
    assert found is not None
    return found


def acquire_among_readers(info: InterfaceInfo) -> None:
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            leases()

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(50):
            held = Lease.acquire(info)
            assert holder(info) == held.record
            held.release()
    finally:
        stop.set()
        for reader in readers:
            reader.join()
