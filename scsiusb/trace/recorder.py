"""Records what goes over the bus as pcapng, in the form of Linux's usbmon, which Wireshark and tshark decode."""

from __future__ import annotations

import errno
import itertools
import logging
import threading
import time
from collections.abc import Hashable, Sequence
from typing import Final

from construct import Bytes, Const, Default, Int8ul, Int16ul, Int32sl, Int32ul, Int64sl, Int64ul, Struct

from scsiusb.usb.backend import ENDPOINT_IN, Backend, Code, Device, Handle, Hotplug, Step, Strings, UsbError, chain

LINKTYPE_USB_LINUX_MMAPPED: Final = 220
SNAPLEN: Final = 0x10000  # bytes of a transfer that are kept
CONTROL: Final = 2
BULK: Final = 3
PRESENT: Final = 0
ABSENT: Final = ord("-")
IN_PROGRESS: Final = -115  # -EINPROGRESS, as usbmon has it in every submission

SECTION_HEADER: Final = Struct(  # pcapng, section 4.1
    Const(0x0A0D0D0A, Int32ul),
    Const(28, Int32ul),
    Const(0x1A2B3C4D, Int32ul),
    Const(1, Int16ul),
    Const(0, Int16ul),
    Const(-1, Int64sl),
    Const(28, Int32ul),
)
INTERFACE_DESCRIPTION: Final = Struct(  # section 4.2
    Const(1, Int32ul),
    Const(20, Int32ul),
    Const(LINKTYPE_USB_LINUX_MMAPPED, Int16ul),
    Const(0, Int16ul),
    Const(0, Int32ul),
    Const(20, Int32ul),
)
ENHANCED_PACKET: Final = Struct(  # section 4.3, without the padding and the length at its end
    Const(6, Int32ul),
    "total" / Int32ul,
    Const(0, Int32ul),
    "high" / Int32ul,
    "low" / Int32ul,
    "captured" / Int32ul,
    "length" / Int32ul,
)
USBMON: Final = Struct(  # Documentation/usb/usbmon.rst, struct mon_bin_hdr
    "id" / Int64ul,
    "event" / Int8ul,
    "transfer" / Int8ul,
    "endpoint" / Int8ul,
    "device" / Int8ul,
    "bus" / Int16ul,
    "setup_flag" / Int8ul,
    "data_flag" / Int8ul,
    "seconds" / Int64sl,
    "microseconds" / Int32sl,
    "status" / Int32sl,
    "length" / Int32ul,
    "captured" / Int32ul,
    "setup" / Bytes(8),
    Default(Bytes(16), bytes(16)),
)
SETUP: Final = Struct(  # USB 2.0 table 9-2
    "request_type" / Int8ul, "request" / Int8ul, "value" / Int16ul, "index" / Int16ul, "length" / Int16ul
)

DEVICE_TO_HOST: Final = 0x80
GET_DESCRIPTOR: Final = 6
DEVICE_DESCRIPTOR: Final = (0x0100, 18)
CONFIGURATION_DESCRIPTOR: Final = (0x0200, 512)
TIMEOUT: Final = 1000
ERRNO: Final = {
    Code.OK: 0,
    Code.PIPE: errno.EPIPE,
    Code.TIMEOUT: errno.ENOENT,  # what a transfer that was taken back ends with
    Code.INTERRUPTED: errno.ENOENT,
    Code.NO_DEVICE: errno.ENODEV,
    Code.OVERFLOW: 75,  # EOVERFLOW, which not every platform has
}

log = logging.getLogger(__name__)


class Tracing:
    """A backend that records all that the handles it opens do; `close` closes the file, not the backend below."""

    def __init__(self, below: Backend, path: str) -> None:
        self._below = below
        self._path = path
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115 - closed in close()
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._failure: OSError | None = None
        try:
            self._append(SECTION_HEADER.build({}) + INTERFACE_DESCRIPTION.build({}))
        except OSError:
            self._file.close()
            raise

    def devices(self) -> Sequence[Device]:
        return self._below.devices()

    def strings(self, device: Device) -> Strings:
        return self._below.strings(device)

    def driver(self, device: Device, interface: int) -> str | None:
        return self._below.driver(device, interface)

    def uses(self, device: Device, interface: int) -> Sequence[str]:
        return self._below.uses(device, interface)

    def open(self, device: Device) -> Handle:
        handle = _TracingHandle(self._below.open(device), device, self)
        try:
            handle.introduce()
        except BaseException:
            handle.close()
            raise
        return handle

    @property
    def identity(self) -> Hashable:
        return self._below.identity

    @property
    def is_shared(self) -> bool:
        return self._below.is_shared

    def watch(self) -> Hotplug:
        return self._below.watch()

    def after_fork(self, device: Device) -> None:
        self._below.after_fork(device)

    def close(self) -> None:
        """Raises the OSError that ended the recording early, if one did."""
        self._file.close()
        if self._failure is not None:
            raise self._failure

    def identify(self) -> int:
        """A number for a transfer; its submission and its completion have the same."""
        return next(self._ids)

    def write(self, header: dict[str, int | bytes], data: bytes) -> None:
        """Appends a packet; `data` is empty where there is none."""
        nanoseconds = time.time_ns()
        kept = data[:SNAPLEN]
        seconds, rest = divmod(nanoseconds, 10**9)
        packet = USBMON.build(
            {**header, "seconds": seconds, "microseconds": rest // 1000, "captured": len(kept)}
        ) + bytes(kept)
        stamp = nanoseconds // 1000
        total = ENHANCED_PACKET.sizeof() + (len(packet) + 3) // 4 * 4 + 4
        lengths = {"total": total, "captured": len(packet), "length": len(packet) - len(kept) + len(data)}
        block = ENHANCED_PACKET.build({**lengths, "high": stamp >> 32, "low": stamp & 0xFFFFFFFF})
        with self._lock:
            if self._failure is not None:
                return
            try:
                self._append(block + packet + bytes(-len(packet) % 4) + Int32ul.build(total))
            except OSError as error:  # the device's exchange goes on: recovery must not fail for want of disk space
                log.warning("the trace ends here: %s", error)
                self._failure = error

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._path) from error


class _TracingHandle:
    """Does what the handle below does, and writes it down."""

    async_transfers = None

    def __init__(self, below: Handle, device: Device, trace: Tracing) -> None:
        self._below = below
        self._device = device
        self._trace = trace
        self.claim = below.claim
        self.release = below.release
        self.set_alternate = below.set_alternate
        self.driver_active = below.driver_active
        self.detach_driver = below.detach_driver
        self.attach_driver = below.attach_driver
        self.clear_halt = below.clear_halt
        self.reset = below.reset
        self.limit_transfer_size = below.limit_transfer_size
        self.allocate = below.allocate
        self.free = below.free
        self.interrupt = below.interrupt
        self.close = below.close

    def introduce(self) -> None:
        """Asks for the descriptors, so that whoever reads the trace knows what the endpoints are."""
        for value, length in (DEVICE_DESCRIPTOR, CONFIGURATION_DESCRIPTOR):
            try:
                self.control_in(DEVICE_TO_HOST, GET_DESCRIPTOR, value, 0, length, TIMEOUT)
            except UsbError:
                return

    def control_in(
        self, request_type: int, request: int, value: int, index: int, length: int, timeout_ms: int
    ) -> bytes:
        setup = _setup(request_type, request, value, index, length)
        number = self._submit(CONTROL, ENDPOINT_IN, length, b"", setup)
        try:
            data = self._below.control_in(request_type, request, value, index, length, timeout_ms)
        except UsbError as error:
            self._complete(number, CONTROL, ENDPOINT_IN, error.code, 0, b"")
            raise
        self._complete(number, CONTROL, ENDPOINT_IN, Code.OK, len(data), data)
        return data

    def control_out(
        self, request_type: int, request: int, value: int, index: int, data: bytes, timeout_ms: int
    ) -> None:
        setup = _setup(request_type, request, value, index, len(data))
        number = self._submit(CONTROL, 0, len(data), data, setup)
        try:
            self._below.control_out(request_type, request, value, index, data, timeout_ms)
        except UsbError as error:
            self._complete(number, CONTROL, 0, error.code, 0, b"")
            raise
        self._complete(number, CONTROL, 0, Code.OK, len(data), b"")

    def bulk(self, endpoint: int, buffer: memoryview, timeout_ms: int) -> tuple[Code, int]:
        inward = bool(endpoint & ENDPOINT_IN)
        number = self._submit(BULK, endpoint, len(buffer), b"" if inward else bytes(buffer))
        try:
            code, count = self._below.bulk(endpoint, buffer, timeout_ms)
        except BaseException:
            self._complete(number, BULK, endpoint, Code.INTERRUPTED, 0, b"")
            raise
        self._complete(number, BULK, endpoint, code, count, bytes(buffer[:count]) if inward else b"")
        return code, count

    def chain(self, steps: Sequence[Step], deadline: float) -> tuple[int, Code, int]:
        return chain(self.bulk, steps, deadline)

    def _submit(self, transfer: int, endpoint: int, length: int, data: bytes, setup: bytes = b"") -> int:
        number = self._trace.identify()
        self._write(number, "S", transfer, endpoint, IN_PROGRESS, length, data, setup)
        return number

    def _complete(self, number: int, transfer: int, endpoint: int, code: Code, length: int, data: bytes) -> None:
        self._write(number, "C", transfer, endpoint, -ERRNO.get(code, errno.EPROTO), length, data, b"")

    def _write(
        self, number: int, event: str, transfer: int, endpoint: int, status: int, length: int, data: bytes, setup: bytes
    ) -> None:
        missing = ord("<") if endpoint & ENDPOINT_IN else ord(">")
        header: dict[str, int | bytes] = {
            "id": number,
            "event": ord(event),
            "transfer": transfer,
            "endpoint": endpoint,
            "device": self._device.number,
            "bus": self._device.bus,
            "setup_flag": PRESENT if setup else ABSENT,
            "data_flag": PRESENT if data else missing,
            "status": status,
            "length": length,
            "setup": setup or bytes(8),
        }
        self._trace.write(header, data)


def _setup(request_type: int, request: int, value: int, index: int, length: int) -> bytes:
    fields = {"request_type": request_type, "request": request, "value": value, "index": index, "length": length}
    setup: bytes = SETUP.build(fields)
    return setup
