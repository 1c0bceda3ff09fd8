"""What a dead process may have left on the machine: leases, wardens, descriptors, warnings of the kernel."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from scsiusb.leases.lease import leases
from scsiusb.leases.warden_main import DEAD, started
from tests.kernel.kernel_log import ALARM, KernelLog

if sys.platform != "linux":
    raise ImportError("this campaign runs on Linux only")

PROC = Path("/proc")
WARDEN = b"warden_main.py"
NODES = "/dev/bus/usb/"
OOM = re.compile(r"invoked oom-killer"), re.compile(r"Killed process|oom_reaper")


def remains() -> list[str]:
    """Return what should not exist while no process uses a device. The warden of a living process is no remains."""
    found = [f"a lease, {seen.path.name}, {seen.state}" for seen in leases()]
    found += [f"a warden, pid {pid}" for pid, of in wardens() if not _is_alive(of)]
    return found + [f"an open {name} of pid {pid}" for pid, name in holders()]


def _is_alive(pid: int) -> bool:
    return started(pid) not in (None, DEAD)


def wardens() -> Iterator[tuple[int, int]]:
    """Yield the pid of each warden and of the process that started it, except zombies: they have no command line."""
    for folder in _processes():
        with suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            scripts = [number for number, word in enumerate(words) if word.endswith(WARDEN)]
            if scripts:
                yield int(folder.name), int(words[scripts[0] + 1])


def holders() -> Iterator[tuple[int, str]]:
    """Yield each process that has a USB device open, and the device."""
    for folder in _processes():
        with suppress(OSError):
            for link in os.scandir(folder / "fd"):
                name = _target(link.path)
                if name.startswith(NODES):
                    yield int(folder.name), name


def _processes() -> Iterator[Path]:
    return (PROC / name for name in os.listdir(PROC) if name.isdecimal())


def _target(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


class Complaints:
    """The kernel's alarms since the last call, except those of an out-of-memory kill, which the campaign causes."""

    def __init__(self) -> None:
        self._log = KernelLog()

    def new(self) -> list[str]:
        """Return the new alarms."""
        return complaints(message.text for message in self._log.new())


def complaints(lines: Iterable[str]) -> list[str]:
    """Return the lines that are alarms, except those of an out-of-memory kill."""
    found = []
    in_oom = False
    for line in lines:
        in_oom = (in_oom or bool(OOM[0].search(line))) and not OOM[1].search(line)
        if not in_oom and ALARM.search(line):
            found.append(line)
    return found
