"""A handle of a virtual device, with the semantics of libusb over Linux's usbfs."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Sequence

from scsiusb.base.copying import Uncopyable
from scsiusb.usb.backend import Code, UsbError
from scsiusb.virtual.bus.connection import Connection
from scsiusb.virtual.bus.transfers import VirtualTransfers
from scsiusb.virtual.device.function import Hang, Stall
from scsiusb.virtual.stick import CancelToken

_SETUP = struct.Struct("<BBHHH")
_RECIPIENT, _TO_INTERFACE, _TO_ENDPOINT = 0x1F, 1, 2
_SET_INTERFACE = (0x01, 11)
_CLEAR_FEATURE = (0x02, 1)
_GET_DESCRIPTOR = 6


class VirtualHandle(Uncopyable):
    """An open virtual device; see `Handle`. Closing releases its claims but binds no kernel driver, like usbfs."""

    def __init__(self, connection: Connection) -> None:
        self.async_transfers = VirtualTransfers(self)
        self.stalled: set[int] = set()
        """Endpoints of which no asynchronous transfer moves on, because one was answered by a STALL."""
        self._connection = connection
        self._buffers: dict[int, memoryview] = {}
        self._lock = threading.Lock()
        self._token = CancelToken(connection.token)
        self.is_open = True

    @property
    def outstanding(self) -> int:
        """The number of buffers that were allocated and not freed."""
        with self._lock:
            return len(self._buffers)

    def _check(self) -> Connection:
        if self._connection.is_disconnected or not self.is_open:
            raise UsbError(Code.NO_DEVICE)
        return self._connection

    def _check_claimed(self, interface: int | None) -> None:
        if interface is None or self._check().claims.get(interface) is not self:
            raise UsbError(Code.NOT_FOUND, f"interface {interface} is not claimed")

    # --- interfaces -----------------------------------------------------------------------------

    def claim(self, interface: int) -> None:
        """See `Handle.claim`; NOT_FOUND without such an interface, BUSY if a driver or another handle has it."""
        connection = self._check()
        with connection.lock:
            if not connection.has(interface):
                raise UsbError(Code.NOT_FOUND)
            if connection.driver(interface) or connection.claims.get(interface, self) is not self:
                raise UsbError(Code.BUSY)
            connection.claims[interface] = self

    def release(self, interface: int) -> None:
        """See `Handle.release`; NOT_FOUND if it is not claimed."""
        connection = self._check()
        with connection.lock:
            self._check_claimed(interface)
            del connection.claims[interface]
            connection.streams.clear()

    def set_alternate(self, interface: int, alternate: int) -> None:
        """See `Handle.set_alternate`; NOT_FOUND if the interface is not claimed or has no such setting."""
        connection = self._check()
        with connection.lock:
            self._check_claimed(interface)
            connection.streams.clear()
            try:
                self._control(*_SET_INTERFACE, alternate, interface)
            except Stall:
                raise UsbError(Code.NOT_FOUND) from None

    def driver_active(self, interface: int) -> bool:
        """See `Handle.driver_active`."""
        return self._check().driver(interface) is not None

    def detach_driver(self, interface: int) -> None:
        """See `Handle.detach_driver`; NOT_FOUND if no driver is bound."""
        connection = self._check()
        with connection.lock:
            connection.unbind(interface)

    def attach_driver(self, interface: int) -> None:
        """See `Handle.attach_driver`; BUSY if the interface is claimed or has a driver, NOT_FOUND if none matches."""
        connection = self._check()
        with connection.lock:
            if connection.driver(interface) or interface in connection.claims:
                raise UsbError(Code.BUSY)
            if not connection.bind(interface):
                raise UsbError(Code.NOT_FOUND)

    # --- transfers ------------------------------------------------------------------------------

    def clear_halt(self, endpoint: int) -> None:
        """See `Handle.clear_halt`; NOT_FOUND unless the endpoint's interface is claimed."""
        self._request(*_CLEAR_FEATURE, 0, endpoint, 0, b"")
        self.stalled.discard(endpoint)

    def reset(self) -> None:
        """See `Handle.reset`."""
        connection = self._check()
        with connection.lock:
            connection.reset()
        self.stalled.clear()

    def control_in(
        self, request_type: int, request: int, value: int, index: int, length: int, timeout_ms: int
    ) -> bytes:
        """See `Handle.control_in`."""
        return self._request(request_type, request, value, index, length, b"", timeout_ms)

    def control_out(
        self, request_type: int, request: int, value: int, index: int, data: bytes, timeout_ms: int
    ) -> None:
        """See `Handle.control_out`."""
        self._request(request_type, request, value, index, len(data), data, timeout_ms)

    def _request(
        self, request_type: int, request: int, value: int, index: int, length: int, data: bytes, timeout_ms: int = 1000
    ) -> bytes:
        connection = self._check()
        # usbfs requires a claim for requests to an interface or endpoint, except GET_DESCRIPTOR.
        recipient = request_type & _RECIPIENT
        if recipient == _TO_INTERFACE and request != _GET_DESCRIPTOR:
            self._check_claimed(index & 0xFF)
        elif recipient == _TO_ENDPOINT and index & 0x7F:
            self._check_claimed(connection.interface_of_endpoint(index & 0xFF))
        try:
            return self._control(request_type, request, value, index, data, length)
        except Hang:
            code = connection.stick.wait_unanswered(max(timeout_ms, 1) / 1000, connection.token)
            raise UsbError(code) from None
        except Stall:
            raise UsbError(Code.PIPE) from None
        except struct.error as error:
            raise UsbError(Code.INVALID_PARAM, str(error)) from None

    def _control(
        self, request_type: int, request: int, value: int, index: int, data: bytes = b"", length: int = 0
    ) -> bytes:
        return self._check().stick.control(_SETUP.pack(request_type, request, value, index, length), data)

    def bulk(self, endpoint: int, buffer: memoryview, deadline: float) -> tuple[Code, int]:
        """See `Handle.bulk`; NOT_FOUND unless the endpoint's interface is claimed."""
        refusal = self.refusal(endpoint)
        if refusal is not None:
            return refusal, 0
        timeout = max(deadline - time.monotonic(), 0.001)
        return self._connection.stick.transfer(endpoint, buffer.cast("B"), timeout, self._token)

    def refusal(self, endpoint: int, stream: int = 0) -> Code | None:
        """Return the code that a transfer to the endpoint, or to a stream of it, ends with at once, if any."""
        connection = self._connection
        if connection.is_disconnected or not self.is_open:
            return Code.NO_DEVICE
        interface = connection.interface_of_endpoint(endpoint)
        if interface is None or connection.claims.get(interface) is not self:
            return Code.NOT_FOUND
        if stream > connection.streams.get(endpoint, 0):
            return Code.INVALID_PARAM
        return self._token.code

    def step(self, endpoint: int, rest: memoryview, stream: int) -> tuple[Code | None, int, bool]:
        """See `Stick.step`."""
        return self._connection.stick.step(endpoint, rest, stream)

    def await_change(self, seconds: float) -> None:
        """Wait until something has changed on the device, `seconds` at most."""
        self._connection.stick.await_change(seconds)

    def alloc_streams(self, endpoints: Sequence[int], count: int) -> int:
        """See `Handle.alloc_streams`; refused below SuperSpeed, and by a stick whose `host_has_streams` is False."""
        connection = self._check()
        selected = connection.stick.alternates.items()
        settings = [each for each in connection.settings if (each.interface, each.alternate) in selected]
        found = [each for setting in settings for each in setting.endpoints if each.address in endpoints]
        if not connection.stick.host_has_streams:
            raise UsbError(Code.NOT_SUPPORTED)
        granted = min([count, *(each.max_streams for each in found)])
        if connection.device().speed not in ("super", "super-plus") or granted < 1 or count < 2:
            raise UsbError(Code.INVALID_PARAM)
        for endpoint in endpoints:
            self._check_claimed(connection.interface_of_endpoint(endpoint))
            if endpoint in connection.streams:
                raise UsbError(Code.INVALID_PARAM)
        connection.streams.update(dict.fromkeys(endpoints, granted))
        return granted

    def free_streams(self, endpoints: Sequence[int]) -> None:
        """See `Handle.free_streams`."""
        streams = self._check().streams
        if any(endpoint not in streams for endpoint in endpoints):
            raise UsbError(Code.NOT_FOUND)
        for endpoint in endpoints:
            del streams[endpoint]

    def interrupt(self, on: bool) -> None:
        """See `Handle.interrupt`."""
        self._connection.stick.cancel_transfers(self._token, Code.INTERRUPTED if on else None)

    # --- buffers --------------------------------------------------------------------------------

    def limit_transfer_size(self, size: int) -> int:
        """See `Handle.limit_transfer_size`; there is no limit here."""
        return size

    def allocate(self, size: int) -> memoryview:
        """See `Handle.allocate`."""
        buffer = memoryview(bytearray(size))
        with self._lock:
            self._buffers[id(buffer)] = buffer
        return buffer

    def free(self, buffer: memoryview) -> None:
        """See `Handle.free`; also releases the view, so that a later use of it fails. ValueError for other buffers."""
        with self._lock:
            if self._buffers.pop(id(buffer), None) is None:
                raise ValueError("the buffer was not allocated by this handle, or was freed already")
        buffer.release()

    def close(self) -> None:
        """See `Handle.close`."""
        connection = self._connection
        with connection.lock:
            self.is_open = False
            for interface in [each for each, owner in connection.claims.items() if owner is self]:
                del connection.claims[interface]
