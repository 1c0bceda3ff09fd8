"""A backend that passes every call to another one, and a handle that does; those that watch what goes by derive."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from scsiusb.usb.backend import (
    AsyncTransfers,
    Backend,
    BlockDisk,
    Code,
    Device,
    Handle,
    Hotplug,
    Strings,
    UsbError,
)

Begun = Callable[[int, memoryview, int], int]
"""Called with the endpoint, the buffer and the stream."""
Ended = Callable[[int, int, memoryview, int, Code, int], None]
"""Called with the number, the endpoint, the buffer, the stream, the result and the bytes moved."""


class PassingBackend:
    """A backend that passes every call to another one. It closes nothing of it."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def devices(self) -> Sequence[Device]:
        """See `Backend.devices`."""
        return self._backend.devices()

    def strings(self, device: Device) -> Strings:
        """See `Backend.strings`."""
        return self._backend.strings(device)

    def driver(self, device: Device, interface: int) -> str | None:
        """See `Backend.driver`."""
        return self._backend.driver(device, interface)

    def uses(self, device: Device, interface: int) -> Sequence[str]:
        """See `Backend.uses`."""
        return self._backend.uses(device, interface)

    def disks(self, device: Device, interface: int) -> Sequence[BlockDisk]:
        """See `Backend.disks`."""
        return self._backend.disks(device, interface)

    @property
    def identity(self) -> Hashable:
        """See `Backend.identity`; that of the other backend."""
        return self._backend.identity

    @property
    def is_shared(self) -> bool:
        """See `Backend.is_shared`."""
        return self._backend.is_shared

    def watch(self) -> Hotplug:
        """See `Backend.watch`."""
        return self._backend.watch()

    def after_fork(self, device: Device) -> None:
        """See `Backend.after_fork`."""
        self._backend.after_fork(device)

    def close(self) -> None:
        """Do nothing: the other backend is closed by its owner."""


class WatchedTransfers:
    """Asynchronous transfers that are passed to others, and told of when they begin and when they have ended."""

    def __init__(self, transfers: AsyncTransfers, begun: Begun, ended: Ended) -> None:
        """`begun` gives a number for the transfer, which `ended` is called with."""
        self._transfers = transfers
        self._begun, self._ended = begun, ended
        self._under_way: dict[int, tuple[int, int, memoryview, int]] = {}  # by the id of `held`, which the caller keeps
        self.handle_events = transfers.handle_events
        self.await_events = transfers.await_events

    def fileno(self) -> int:
        """See `AsyncTransfers.fileno`; none, so that no loop polls what is watched."""
        return -1

    def submit(self, endpoint: int, buffer: memoryview, held: list[Any], stream: int = 0) -> None:
        """See `AsyncTransfers.submit`."""
        number = self._begun(endpoint, buffer, stream)
        self._under_way[id(held)] = number, endpoint, buffer, stream
        try:
            self._transfers.submit(endpoint, buffer, held, stream)
        except UsbError as error:
            self._tell(held, error.code, 0)
            raise

    def outcome(self, held: list[Any]) -> tuple[Code, int] | None:
        """See `AsyncTransfers.outcome`."""
        answer = self._transfers.outcome(held)
        if answer is not None:
            self._tell(held, *answer)
        return answer

    def cancel(self, held: list[Any]) -> tuple[Code, int]:
        """See `AsyncTransfers.cancel`."""
        answer = self._transfers.cancel(held)
        self._tell(held, *answer)
        return answer

    def _tell(self, held: list[Any], code: Code, count: int) -> None:
        known = self._under_way.pop(id(held), None)
        if known is not None:
            number, endpoint, buffer, stream = known
            self._ended(number, endpoint, buffer, stream, code, count)


class PassingHandle:
    """A handle that passes every call to another one; derived classes watch its transfers."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self.claim = handle.claim
        self.release = handle.release
        self.set_alternate = handle.set_alternate
        self.alloc_streams = handle.alloc_streams
        self.free_streams = handle.free_streams
        self.driver_active = handle.driver_active
        self.detach_driver = handle.detach_driver
        self.attach_driver = handle.attach_driver
        self.clear_halt = handle.clear_halt
        self.reset = handle.reset
        self.limit_transfer_size = handle.limit_transfer_size
        self.allocate = handle.allocate
        self.free = handle.free
        self.interrupt = handle.interrupt
        self.close = handle.close

    @property
    def async_transfers(self) -> AsyncTransfers | None:
        """See `Handle.async_transfers`; made anew each time, as it refers to this handle."""
        transfers = self._handle.async_transfers
        return None if transfers is None else WatchedTransfers(transfers, self.begun, self.ended)

    def control_in(
        self, request_type: int, request: int, value: int, index: int, length: int, timeout_ms: int
    ) -> bytes:
        """See `Handle.control_in`."""
        return self._handle.control_in(request_type, request, value, index, length, timeout_ms)

    def control_out(
        self, request_type: int, request: int, value: int, index: int, data: bytes, timeout_ms: int
    ) -> None:
        """See `Handle.control_out`."""
        self._handle.control_out(request_type, request, value, index, data, timeout_ms)

    def bulk(self, endpoint: int, buffer: memoryview, deadline: float) -> tuple[Code, int]:
        """See `Handle.bulk`."""
        return self._handle.bulk(endpoint, buffer, deadline)

    def begun(self, endpoint: int, buffer: memoryview, stream: int) -> int:
        """Take note of an asynchronous transfer that begins; return a number for it."""
        return 0

    def ended(self, number: int, endpoint: int, buffer: memoryview, stream: int, code: Code, count: int) -> None:
        """Take note of an asynchronous transfer that has ended."""
