"""Start the guest, pass on what its command says, and end it when it dies or hangs."""

from __future__ import annotations

import ctypes
import os
import selectors
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .host import LabError
from .marks import Gate, Log

TIMED_OUT = 124
TAIL = 60  # lines shown of each log when the guest fails
PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Limits:
    """How long the guest may take to boot, how long its command may be silent, and how long it may live: seconds."""

    boot: float
    silence: float
    total: float


@dataclass(frozen=True)
class Boot:
    """How to start a guest: the command that boots it, and that command's environment.

    `console`, if any: a pipe on which the guest's kernel speaks, its end to read and its end to write; the command
    inherits the latter.
    """

    command: list[str]
    environment: Mapping[str, str]
    console: tuple[int, int] | None = None


def interactive(boot: Boot, work: Path) -> int:
    """Hand the terminal to the guest."""
    with _terminal_kept():
        done = subprocess.run(boot.command, cwd=work, env=boot.environment, check=False)
    status = work / "share" / "status"
    return int(status.read_text()) if status.exists() else done.returncode or 1


@contextmanager
def _terminal_kept() -> Iterator[None]:
    """Restore the terminal's mode at the end: a guest that dies leaves another one."""
    if sys.platform != "linux":
        raise NotImplementedError
    mode = termios.tcgetattr(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, mode)


class Guest:
    """A guest that runs one command and ends."""

    def __init__(self, boot: Boot, work: Path, limits: Limits) -> None:
        _adopt_orphans()
        self._work = work
        self._limits = limits
        self._log = (work / "console.log").open("wb")
        self._kernel_log = (work / "kernel.log").open("ab")
        self._process = subprocess.Popen(
            boot.command,
            cwd=work,
            env=boot.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=boot.console[1:] if boot.console else (),
            start_new_session=True,
        )
        self._gates = [Gate(out, self._log) for out in (sys.stdout.buffer, sys.stderr.buffer)]
        streams = self._process.stdout, self._process.stderr
        self._sinks: list[tuple[IO[bytes], Gate | Log]] = [
            (stream, gate) for stream, gate in zip(streams, self._gates, strict=True) if stream is not None
        ]
        if boot.console:
            os.close(boot.console[1])
            self._sinks.append((os.fdopen(boot.console[0], "rb", buffering=0), Log(self._kernel_log)))
        self._born = self._spoke = time.monotonic()

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()
        self._log.close()
        self._kernel_log.close()

    def run(self) -> int:
        """Pass on the command's output until it ends; return its exit status."""
        with selectors.DefaultSelector() as selector:
            for stream, sink in self._sinks:
                selector.register(stream, selectors.EVENT_READ, sink)
            while not is_over([key.data for key in selector.get_map().values()]):
                self._check_limits()
                self._pass_on(selector)
        return self._status()

    def _pass_on(self, selector: selectors.BaseSelector) -> None:
        for key, _ in selector.select(timeout=1.0):
            data = os.read(key.fd, 65536)
            if not data:
                selector.unregister(key.fileobj)
                continue
            if isinstance(key.data, Gate):  # what the kernel says is no sign of life
                self._spoke = time.monotonic()
            key.data.feed(data)

    def _check_limits(self) -> None:
        now = time.monotonic()
        limits = self._limits
        if not self._gates[0].begun and now - self._born > limits.boot:
            raise self._failure(f"the guest did not come up in {limits.boot:.0f} s", TIMED_OUT)
        if self._gates[0].begun and now - self._spoke > limits.silence:
            raise self._failure(f"the guest hangs: silent for {limits.silence:.0f} s", TIMED_OUT)
        if now - self._born > limits.total:
            raise self._failure(f"the guest has run for {limits.total:.0f} s, more than it may", TIMED_OUT)

    def _status(self) -> int:
        try:
            return int((self._work / "share" / "status").read_text())
        except FileNotFoundError:
            raise self._failure("the guest died before its command ended", 125) from None

    def _failure(self, message: str, status: int) -> LabError:
        """Show the end of what the guest's console and its kernel said."""
        self._log.flush()
        self._kernel_log.flush()
        for path in (self._work / "console.log", self._work / "kernel.log"):
            for line in path.read_bytes().splitlines()[-TAIL:] if path.exists() else []:
                sys.stderr.buffer.write(b"guest: " + line + b"\n")
        sys.stderr.flush()
        return LabError(message, status)

    def _kill(self) -> None:
        """End the whole group, and what left it: virtme-ng does not take QEMU along."""
        if sys.platform != "linux":
            raise NotImplementedError
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        with suppress(ChildProcessError):
            while True:
                for pid in _children():
                    os.kill(pid, signal.SIGKILL)  # a child is there until it was waited for
                os.wait()
        for stream, _ in self._sinks:
            stream.close()


def is_over(sinks: list[Gate | Log]) -> bool:
    """Return whether all output has ended, by the sinks of the streams that are still open."""
    gates = [sink for sink in sinks if isinstance(sink, Gate)]
    return all(gate.ended for gate in gates) if gates else not sinks


def _adopt_orphans() -> None:
    """Make this process the parent of QEMU when virtme-ng is gone: not every container's init collects the dead."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def _children() -> list[int]:
    """Return the pids of this process's children, adopted ones too; all of them belong to the guest.

    None where the host's kernel has no such list: then the end of the guest's group must do.
    """
    listing = Path(f"/proc/self/task/{os.getpid()}/children")
    return [int(pid) for pid in listing.read_text().split()] if listing.exists() else []


def keep(work: Path, folder: Path) -> None:
    """Keep what a failed run leaves to read."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in (work / "console.log", work / "kernel.log", work / "share" / "dmesg"):
        if path.exists():
            shutil.copyfile(path, folder / path.name)
