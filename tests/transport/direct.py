"""A transport without USB: it passes commands to a SCSI target in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NoReturn, TypeVar

from scsiusb.base.counter import EventCounter
from scsiusb.errors import Cancelled, DeviceClosed, DeviceUnsupported
from scsiusb.quirks.model import Quirk
from scsiusb.transport.base import FAILED, GOOD, Completion, Direction, Polled, Request, Scope, Story
from scsiusb.transport.drivers import Driver
from scsiusb.transport.helper import Helper
from scsiusb.usb.interface import InterfaceInfo, find
from scsiusb.usb.port import Port
from scsiusb.virtual import Bus, Stick, Unit
from scsiusb.virtual.target.target import Target

R = TypeVar("R")


def _no_transfer(endpoint: int, buffer: memoryview, deadline: float) -> NoReturn:
    raise AssertionError("there is no bus here")


class DirectTurn:
    """A lock that one thread has at a time, for one command after the other."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self._is_taken = False

    def try_enter(self) -> bool:
        self._is_taken = self._lock.acquire(blocking=False)
        return self._is_taken

    def enter(self) -> None:
        self._is_taken = self._lock.acquire()

    def leave(self) -> None:
        if self._is_taken:
            self._is_taken = False
            self._lock.release()


class DirectScope:
    """The commands of the thread that is in `run`; those before the cancellation end by themselves."""

    def __init__(self, local: threading.local) -> None:
        self._local = local
        self.is_cancelled = False

    def run(self, function: Callable[..., R], *arguments: object) -> R:
        self._local.scope = self
        try:
            return function(*arguments)
        finally:
            del self._local.scope

    def cancel(self) -> None:
        self.is_cancelled = True


NO_SCOPE = DirectScope(threading.local())


class PlainMemory:
    """Memory of the process. It owns no view, so that every block is copied."""

    @contextmanager
    def lend(self, size: int) -> Iterator[memoryview]:
        with memoryview(bytearray(size)) as view:
            yield view

    def owns(self, view: memoryview) -> bool:
        return False


class DirectTransport:
    """Implements the `Transport` protocol and nothing else."""

    def __init__(self, *units: Unit) -> None:
        self._target = Target(units)
        self._lock = threading.RLock()
        self._is_closed = False
        self._local = threading.local()
        self.info: InterfaceInfo = find(Bus(Stick(units)))[0]
        self.max_lun = len(units) - 1
        self.max_transfer = 64 * 1024
        self.shared: dict[int, Any] = {}
        self.quirks = Quirk.NONE
        self.ignore_residue = False
        self.is_here = False
        self.resets = EventCounter()
        self.losses = EventCounter()
        self.doubts = EventCounter()
        self.memory = PlainMemory()
        self.descriptor: int | None = None
        self.drive = Driver(_no_transfer, _no_transfer).drive

    def __str__(self) -> str:
        return "a target in this process"

    def check(self) -> None:
        if self._is_closed:
            raise DeviceClosed("the target was closed")
        if getattr(self._local, "scope", NO_SCOPE).is_cancelled:
            raise Cancelled("cancelled")

    def turn(self) -> DirectTurn:
        return DirectTurn(self._lock)

    def exchange(
        self, lun: int, cdb: bytes, direction: Direction, buffer: memoryview, timeout: float
    ) -> Story[Completion]:
        yield from ()  # a story without a step
        self.check()
        task = self._target.execute(lun, cdb)
        moved = min(task.length, len(buffer))
        if direction is Direction.IN:
            moved = task.read(buffer[:moved]) if moved else 0
        elif direction is Direction.OUT and moved:
            task.write(buffer[:moved])
        return Completion(GOOD if task.end() else FAILED, len(buffer) - moved, moved)

    def poll(self, story: Story[R], helper: Helper, scope: Scope) -> Polled[R]:
        raise DeviceUnsupported("a target in this process has nothing to poll")

    def scope(self) -> DirectScope:
        return DirectScope(self._local)

    def check_identity(self) -> None:
        self.check()

    depth = 1

    def exchange_many(
        self, lun: int, requests: Sequence[Request], direction: Direction, timeout: float, depth: int | None = None
    ) -> Story[list[tuple[Completion, bytes]]]:
        raise NotImplementedError

    def reset_port(self) -> None:
        raise DeviceUnsupported("a target in this process has no port")

    def probing(self) -> AbstractContextManager[Port]:
        raise DeviceUnsupported("a target in this process has no port")

    def close(self) -> None:
        self._is_closed = True
