"""Asynchronous transfers to a virtual device, which move on whenever the host looks."""

from __future__ import annotations

import time
import weakref
from typing import TYPE_CHECKING

from scsiusb.usb.backend import Code, UsbError

if TYPE_CHECKING:
    from scsiusb.virtual.bus.handle import VirtualHandle

_WAIT = 0.05  # seconds at most between two looks


class Transfer:
    """One transfer: what is left of its buffer, and its result once it has ended."""

    def __init__(self, endpoint: int, buffer: memoryview, stream: int) -> None:
        self.endpoint, self.stream = endpoint, stream
        self.buffer = buffer.cast("B")
        self.done = 0
        self.code: Code | None = None


class VirtualTransfers:
    """The asynchronous transfers of one handle; see `AsyncTransfers`. None can be polled: there is no descriptor."""

    def __init__(self, handle: VirtualHandle) -> None:
        self._of = weakref.ref(handle)  # the handle refers to this object: no cycle
        self._pending: list[Transfer] = []

    @property
    def _handle(self) -> VirtualHandle:
        handle = self._of()
        if handle is None:
            raise UsbError(Code.NO_DEVICE)
        return handle

    def fileno(self) -> int:
        """See `AsyncTransfers.fileno`."""
        return -1

    def submit(self, endpoint: int, buffer: memoryview, held: list[Transfer], stream: int = 0) -> None:
        """See `AsyncTransfers.submit`."""
        code = self._handle.refusal(endpoint, stream)
        if code is not None:
            raise UsbError(code)
        transfer = Transfer(endpoint, buffer, stream)
        held.append(transfer)
        self._pending.append(transfer)

    def handle_events(self, held: list[Transfer] | None = None) -> None:
        """See `AsyncTransfers.handle_events`."""
        self._advance()

    def await_events(self, seconds: float) -> None:
        """See `AsyncTransfers.await_events`."""
        deadline = time.monotonic() + seconds
        while self._pending and not self._advance():
            left = deadline - time.monotonic()
            if left <= 0:
                return
            self._handle.await_change(min(left, _WAIT))

    def outcome(self, held: list[Transfer]) -> tuple[Code, int] | None:
        """See `AsyncTransfers.outcome`."""
        transfer = held[0]
        if transfer.code is None:
            return None
        held.clear()
        return transfer.code, transfer.done

    def cancel(self, held: list[Transfer]) -> tuple[Code, int]:
        """See `AsyncTransfers.cancel`."""
        transfer = held.pop()
        if transfer in self._pending:
            self._pending.remove(transfer)
        return transfer.code or Code.TIMEOUT, transfer.done

    def _advance(self) -> bool:
        """Move each transfer on as far as it goes; return whether one has ended."""
        ended = [each for each in tuple(self._pending) if self._move(each)]
        self._pending = [each for each in self._pending if each not in ended]
        return bool(ended)

    def _move(self, transfer: Transfer) -> bool:
        transfer.code = self._handle.refusal(transfer.endpoint, transfer.stream)
        waits = transfer.endpoint in self._handle.stalled
        while transfer.code is None and not waits:
            rest = transfer.buffer[transfer.done :]
            transfer.code, count, waits = self._handle.step(transfer.endpoint, rest, transfer.stream)
            transfer.done += count
        if transfer.code is Code.PIPE:
            self._handle.stalled.add(transfer.endpoint)
        return transfer.code is not None
