"""A backend that records USB transfers as pcapng, in the format of Linux's usbmon, for Wireshark and tshark."""

from __future__ import annotations

import errno
import io
import itertools
import logging
import os
import stat
import threading
import time
from typing import Final

from construct import Bytes, Const, Default, Int8ul, Int16ul, Int32sl, Int32ul, Int64sl, Int64ul, Struct

from scsiusb.base.locks import is_refused
from scsiusb.trace.passing import PassingBackend, PassingHandle
from scsiusb.usb.backend import ENDPOINT_IN, Backend, Code, Device, Handle, UsbError

LINKTYPE_USB_LINUX_MMAPPED: Final = 220
SNAPLEN: Final = 0x10000  # bytes of a transfer's data that are recorded; the rest is dropped
CONTROL: Final = 2
BULK: Final = 3
PRESENT: Final = 0
ABSENT: Final = ord("-")
IN_PROGRESS: Final = -115  # -EINPROGRESS, the status of every submission in usbmon

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
TIMEOUT: Final = 1000  # milliseconds
ERRNO: Final = {
    Code.OK: 0,
    Code.PIPE: errno.EPIPE,
    Code.TIMEOUT: errno.ENOENT,  # Linux's status of a transfer that was cancelled
    Code.INTERRUPTED: errno.ENOENT,
    Code.NO_DEVICE: errno.ENODEV,
    Code.OVERFLOW: 75,  # EOVERFLOW, which some platforms lack
}

MAGIC: Final = b"\x0a\x0d\x0d\x0a"  # the first bytes of a pcapng file

log = logging.getLogger(__name__)


def _create(path: str) -> io.FileIO:
    """Open the file of a trace, and empty it if it holds an older one. Raises OSError."""
    # Not mode "w" alone: an existing file is emptied only after it is known to be a trace, and not, say, an image.
    flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    file = io.FileIO(path, "w", opener=lambda path, _: os.open(path, flags, 0o666))
    try:
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISBLK(mode):
            raise FileExistsError(errno.EEXIST, "it is a disk, not a file for a trace", path)
        if stat.S_ISREG(mode):
            if is_refused(file.fileno(), shared=False):
                raise BlockingIOError(errno.EBUSY, "another trace, or a virtual stick, uses this file", path)
            with open(path, "rb") as before:
                if before.read(len(MAGIC)) not in (MAGIC, b""):
                    raise FileExistsError(errno.EEXIST, "it exists and is not a trace", path)
            file.truncate()
    except BaseException:
        file.close()
        raise
    return file


class Tracing(PassingBackend):
    """A backend that passes every call to another one, and records the transfers of the handles that it opens.

    The trace is written to the file at `path`, which is created; an older trace there is overwritten. `close` closes
    the file but not the other backend. Raises OSError if the file cannot be written, FileExistsError if it is not a
    trace, BlockingIOError if it is in use as one.
    """

    def __init__(self, backend: Backend, path: str) -> None:
        super().__init__(backend)
        self._path = path
        self._file = _create(path)
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._failure: OSError | None = None
        try:
            self._append(SECTION_HEADER.build({}) + INTERFACE_DESCRIPTION.build({}))
        except OSError:
            self._file.close()
            raise

    def open(self, device: Device) -> Handle:
        """See `Backend.open`; the handle's transfers are recorded, after those of its descriptors."""
        handle = _TracingHandle(self._backend.open(device), device, self)
        try:
            handle.record_descriptors()
        except BaseException:
            handle.close()
            raise
        return handle

    def close(self) -> None:
        """Close the file; raises the OSError that ended the recording early, if any."""
        self._file.close()
        if self._failure is not None:
            raise self._failure

    def identify(self) -> int:
        """Return a new number for a transfer, which its submission and its completion share."""
        return next(self._ids)

    def write(self, header: dict[str, int | bytes], data: bytes) -> None:
        """Append a packet; `header` has the fields of `USBMON`, and `data` is empty for a packet without data.

        If the file cannot be written, the recording ends with a warning; `close` raises the error.
        """
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
            except OSError as error:
                # Not raised here: a transfer, above all of a recovery, must not fail because the disk is full.
                log.warning("recording the trace has ended: %s", error)
                self._failure = error

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._path) from error


class _TracingHandle(PassingHandle):
    """A handle that records the transfers."""

    def __init__(self, handle: Handle, device: Device, trace: Tracing) -> None:
        super().__init__(handle)
        self._device = device
        self._trace = trace

    def record_descriptors(self) -> None:
        """Request the descriptors, so that a reader of the trace (such as Wireshark) knows what the endpoints are."""
        for value, length in (DEVICE_DESCRIPTOR, CONFIGURATION_DESCRIPTOR):
            try:
                self.control_in(DEVICE_TO_HOST, GET_DESCRIPTOR, value, 0, length, TIMEOUT)
            except UsbError:
                return

    def control_in(
        self, request_type: int, request: int, value: int, index: int, length: int, timeout_ms: int
    ) -> bytes:
        """See `Handle.control_in`."""
        setup = _setup(request_type, request, value, index, length)
        number = self._submit(CONTROL, ENDPOINT_IN, length, b"", setup)
        try:
            data = self._handle.control_in(request_type, request, value, index, length, timeout_ms)
        except UsbError as error:
            self._complete(number, CONTROL, ENDPOINT_IN, error.code, 0, b"")
            raise
        self._complete(number, CONTROL, ENDPOINT_IN, Code.OK, len(data), data)
        return data

    def control_out(
        self, request_type: int, request: int, value: int, index: int, data: bytes, timeout_ms: int
    ) -> None:
        """See `Handle.control_out`."""
        setup = _setup(request_type, request, value, index, len(data))
        number = self._submit(CONTROL, 0, len(data), data, setup)
        try:
            self._handle.control_out(request_type, request, value, index, data, timeout_ms)
        except UsbError as error:
            self._complete(number, CONTROL, 0, error.code, 0, b"")
            raise
        self._complete(number, CONTROL, 0, Code.OK, len(data), b"")

    def bulk(self, endpoint: int, buffer: memoryview, deadline: float) -> tuple[Code, int]:
        """See `Handle.bulk`; a transfer that an exception interrupts is recorded as cancelled, with no data."""
        is_in = bool(endpoint & ENDPOINT_IN)
        number = self._submit(BULK, endpoint, len(buffer), b"" if is_in else bytes(buffer))
        try:
            code, count = self._handle.bulk(endpoint, buffer, deadline)
        except BaseException:
            self._complete(number, BULK, endpoint, Code.INTERRUPTED, 0, b"")
            raise
        self._complete(number, BULK, endpoint, code, count, bytes(buffer[:count]) if is_in else b"")
        return code, count

    def begun(self, endpoint: int, buffer: memoryview, stream: int) -> int:
        """See `PassingHandle.begun`. The format has no place for the stream; the tags in the data tell it."""
        return self._submit(BULK, endpoint, len(buffer), b"" if endpoint & ENDPOINT_IN else bytes(buffer))

    def ended(self, number: int, endpoint: int, buffer: memoryview, stream: int, code: Code, count: int) -> None:
        """See `PassingHandle.ended`."""
        self._complete(number, BULK, endpoint, code, count, bytes(buffer[:count]) if endpoint & ENDPOINT_IN else b"")

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
