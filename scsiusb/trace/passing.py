"""A backend that passes every call to another one, and a handle that does; those that watch what goes by derive."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from scsiusb.usb.backend import Backend, BlockDisk, Code, Device, Handle, Hotplug, Strings


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


class PassingHandle:
    """A handle that passes every call to another one."""

    async_transfers = None  # all transfers go through `bulk`, which derived classes watch

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self.claim = handle.claim
        self.release = handle.release
        self.set_alternate = handle.set_alternate
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
