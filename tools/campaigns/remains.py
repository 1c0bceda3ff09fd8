"""What a dead process may have left on the machine: leases, wardens, descriptors, complaints of the kernel."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from scsiusb.leases.lease import leases
from scsiusb.leases.warden_main import DEAD, started

PROC = Path("/proc")
WARDEN = b"warden_main.py"
NODES = "/dev/bus/usb/"
ALARM = re.compile(r"\b(BUG|Oops|WARNING|general protection fault|Call Trace|KASAN|blocked for more than)\b")
OOM = re.compile(r"invoked oom-killer"), re.compile(r"Killed process|oom_reaper")


def remains() -> list[str]:
    """Nothing of this may be there when nobody uses a device; the warden of a process that lives is as it should be."""
    found = [f"a lease, {seen.path.name}, {seen.state}" for seen in leases()]
    found += [f"a warden, pid {pid}" for pid, of in wardens() if not _lives(of)]
    return found + [f"an open {name} of pid {pid}" for pid, name in holders()]


def _lives(pid: int) -> bool:
    return started(pid) not in (None, DEAD)


def wardens() -> Iterator[tuple[int, int]]:
    """The pids of all wardens and of those who started them; the dead that nobody waited for have no command line."""
    for folder in _processes():
        with suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            scripts = [number for number, word in enumerate(words) if word.endswith(WARDEN)]
            if scripts:
                yield int(folder.name), int(words[scripts[0] + 1])


def holders() -> Iterator[tuple[int, str]]:
    """Who has an USB device open."""
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


class KernelLog:
    """The kernel's complaints since the last look; those that belong to a wanted lack of memory are none."""

    def __init__(self) -> None:
        self._fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.lseek(self._fd, 0, os.SEEK_END)

    def complaints(self) -> list[str]:
        return complaints(self._lines())

    def _lines(self) -> Iterator[str]:
        while True:
            try:
                yield os.read(self._fd, 8192).decode(errors="replace").partition(";")[2].rstrip()
            except BlockingIOError:
                return
            except BrokenPipeError:  # the ring went over unread messages: go on with the oldest there is
                continue


def complaints(lines: Iterator[str]) -> list[str]:
    found = []
    in_oom = False
    for line in lines:
        in_oom = (in_oom or bool(OOM[0].search(line))) and not OOM[1].search(line)
        if not in_oom and ALARM.search(line):
            found.append(line)
    return found
