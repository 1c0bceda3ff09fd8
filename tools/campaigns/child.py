"""Forks of the campaign's process, which has imported everything and has never used libusb."""

from __future__ import annotations

import atexit
import ctypes
import os
import select
import sys
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from importlib import import_module
from tempfile import TemporaryFile
from typing import NoReturn

import libusb_package

if sys.platform != "linux":
    raise ImportError("this campaign runs on Linux only")

TIMEOUT = 60.0  # seconds for a command


def warm_up() -> None:
    """Import what each fork would import, which takes seconds under emulation, by using a virtual stick."""
    for name in (
        "usb.backend.libusb1",
        "scsiusb.usb.libusb.backend",
        "scsiusb.usb.libusb.hotplug",
        "scsiusb.leases.warden",
    ):
        import_module(name)
    ctypes.CDLL(str(libusb_package.get_library_path()))
    from scsiusb.cli.app import run

    with TemporaryFile("w+") as discarded, redirect_stdout(discarded):
        for words in (["read", "virtual:", "--lba", "0", "--blocks", "1"], ["recover", "--json"]):
            if run(words):
                raise RuntimeError(f"scsiusb {' '.join(words)} does not work")


@dataclass(frozen=True)
class CommandResult:
    """The result of a command."""

    status: int
    out: bytes
    err: str


class Child:
    """A fork with its own process group; its output goes to files in memory."""

    def __init__(self, run: Callable[[], int]) -> None:
        self._out, self._err = (os.memfd_create(name, os.MFD_CLOEXEC) for name in ("out", "err"))
        self.pid = os.fork()
        if not self.pid:
            _run_child(run, self._out, self._err)
        with suppress(OSError):  # the child does it too, maybe later than it is to be killed by it; or it is dead
            os.setpgid(self.pid, self.pid)
        self.descriptor = os.pidfd_open(self.pid)
        self._status: int | None = None

    def is_dead(self, seconds: float = 0.0) -> bool:
        """Wait at most so many seconds for it to die; report whether it has."""
        return self._status is not None or bool(select.select([self.descriptor], [], [], seconds)[0])

    def wait(self) -> CommandResult:
        """Return how it ended. A negative status is the signal that killed it."""
        if self._status is None:
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return CommandResult(self._status, _content(self._out), _content(self._err).decode(errors="replace").strip())

    def close(self) -> None:
        """Close the descriptors."""
        for descriptor in (self._out, self._err, self.descriptor):
            os.close(descriptor)


def _content(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def _run_child(run: Callable[[], int], out: int, err: int) -> NoReturn:
    """Run the function and end as the interpreter ends; never return into the parent's code."""
    status = 70
    try:
        os.setpgid(0, 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        status = run()
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except BaseException as error:  # noqa: BLE001 - no exception may reach the parent's code
        with suppress(OSError):
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(status)


def scsiusb(*words: object) -> CommandResult:
    """Run a command of the command line in a fork, which saves the start of Python."""

    def run() -> int:
        from scsiusb.cli.app import run

        return run([str(word) for word in words])

    child = Child(run)
    try:
        if not child.is_dead(TIMEOUT):
            os.kill(child.pid, 9)
        return child.wait()
    finally:
        child.close()
