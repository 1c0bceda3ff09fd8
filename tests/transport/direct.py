"""A transport without USB: it passes commands to a SCSI target in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from scsiusb.errors import Cancelled, DeviceClosed, DeviceUnsupported
from scsiusb.quirks.model import Quirk
from scsiusb.transport.base import FAILED, GOOD, Completion, Direction, Polling
from scsiusb.usb.interface import InterfaceInfo, find
from scsiusb.usb.port import Port, ResetCounter
from scsiusb.virtual import Bus, Stick, Unit
from scsiusb.virtual.target.target import Target


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
        self._is_closed = self._is_cancelled = False
        self.info: InterfaceInfo = find(Bus(Stick(units)))[0]
        self.max_lun = len(units) - 1
        self.max_transfer = 64 * 1024
        self.shared: dict[int, Any] = {}
        self.quirks = Quirk.NONE
        self.ignore_residue = False
        self.resets = ResetCounter()
        self.memory = PlainMemory()
        self.polling: Polling | None = None

    def __str__(self) -> str:
        return "a target in this process"

    def check(self) -> None:
        if self._is_closed:
            raise DeviceClosed("the target was closed")
        if self._is_cancelled:
            raise Cancelled("cancelled")

    def execute(self, lun: int, cdb: bytes, direction: Direction, buffer: memoryview, timeout: float) -> Completion:
        with self._lock:
            self.check()
            task = self._target.execute(lun, cdb)
            moved = min(task.length, len(buffer))
            if direction is Direction.IN:
                moved = task.read(buffer[:moved]) if moved else 0
            elif direction is Direction.OUT and moved:
                task.write(buffer[:moved])
            return Completion(GOOD if task.end() else FAILED, len(buffer) - moved, moved)

    def hold(self) -> AbstractContextManager[object]:
        return self._lock

    @contextmanager
    def cancellable(self) -> Iterator[Callable[[], None]]:
        def cancel() -> None:
            self._is_cancelled = True

        try:
            yield cancel
        finally:
            self._is_cancelled = False

    def check_identity(self) -> None:
        self.check()

    def probing(self) -> AbstractContextManager[Port]:
        raise DeviceUnsupported("a target in this process has no port")

    def close(self) -> None:
        self._is_closed = True
