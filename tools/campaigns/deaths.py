"""The ways in which the worker is killed."""

from __future__ import annotations

import os
import resource
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from campaigns.remains import wardens

if sys.platform != "linux":
    raise ImportError("this campaign runs on Linux only")

CGROUP = Path("/sys/fs/cgroup")
LIMIT = 64 << 20  # bytes that the worker may use in addition to what it shares with its parent
WAYS = ("SIGKILL", "SIGSEGV", "SIGTERM", "SIGHUP", "exit", "memory", "group", "warden")
SIGNALS = {"SIGKILL", "SIGSEGV", "SIGTERM", "SIGHUP"}


@dataclass(frozen=True)
class Victim:
    """The worker: its pid, and the pipe for orders to it."""

    pid: int
    orders: int

    def order(self, what: bytes) -> None:
        """Send an order to the worker."""
        with suppress(BrokenPipeError):
            os.write(self.orders, what)


def kill(victim: Victim, way: str, coin: bool) -> None:
    """Kill in the given way; `coin` chooses between two forms of it."""
    if way == "exit":
        victim.order(b"e")
    elif way == "memory":
        victim.order(b"m")
    elif way == "SIGSEGV" and coin:
        victim.order(b"s")
    elif way == "group":
        os.killpg(victim.pid, signal.SIGKILL)
    elif way == "warden":
        _with_warden(victim, coin)
    else:
        os.kill(victim.pid, signal.Signals[way])


def _with_warden(victim: Victim, warden_first: bool) -> None:
    """Kill the worker and its warden; the second one has hardly any time to act."""
    pids = [*(pid for pid, parent in wardens() if parent == victim.pid), victim.pid]
    for pid in pids if warden_first else reversed(pids):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


class MemoryLimit:
    """A control group whose memory limit the kernel enforces by killing; without one, a limit of the address space."""

    def __init__(self) -> None:
        self._folder: Path | None = CGROUP / "scsiusb-campaign"
        try:
            (CGROUP / "cgroup.subtree_control").write_text("+memory")
            self._folder.mkdir(exist_ok=True)
            (self._folder / "memory.max").write_text(str(LIMIT))
        except OSError:
            self._folder = None

    @property
    def name(self) -> str:
        """What ends the process."""
        return "the kernel's OOM killer" if self._folder else "RLIMIT_AS and abort"

    def apply(self) -> None:
        """Apply the limit to the calling process and its children."""
        if self._folder:
            (self._folder / "cgroup.procs").write_text("0")
            return
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + LIMIT
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    def kills(self) -> int:
        """Return how many processes the kernel has killed in the group."""
        if not self._folder:
            return 0
        lines = (self._folder / "memory.events").read_text().splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)

    def close(self) -> None:
        """Remove the group."""
        if self._folder:
            with suppress(OSError):
                self._folder.rmdir()
