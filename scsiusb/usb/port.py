"""An open, claimed interface: acquired step by step, and released once, in the reverse order."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, TypeVar

from scsiusb import ledger
from scsiusb.base.copying import Uncopyable
from scsiusb.base.counter import EventCounter
from scsiusb.base.releases import Releases
from scsiusb.base.text import comparable, printable
from scsiusb.errors import DeviceBusy, DeviceGone, DeviceUnsupported, MalformedReply, TransportError
from scsiusb.quirks.model import Quirk, Quirks
from scsiusb.usb.backend import ENDPOINT_IN, AsyncTransfers, Backend, Code, Endpoint, Handle, UsbError
from scsiusb.usb.buffers import Buffers
from scsiusb.usb.interface import InterfaceInfo, UasPipes, bulk_in, bulk_out, uas_pipes
from scsiusb.usb.translate import translate

PART: Final = 16 * 1024  # bytes; a whole number of packets, and at most what usbfs allocates in one piece
MEMORY_PAUSE: Final = 0.001  # seconds between two attempts
MEMORY_PATIENCE: Final = 0.5  # seconds to wait for memory; begins anew with each part that was moved
NO_MEM: Final = Code.NO_MEM
LONGEST_TIMEOUT_MS: Final = 0x7FFFFFFF  # milliseconds
GET_DESCRIPTOR: Final = 6
DEVICE_DESCRIPTOR: Final = 1
DEVICE_DESCRIPTOR_LENGTH: Final = 18
STRING_DESCRIPTOR: Final = 3
ENGLISH: Final = 0x0409
DESCRIPTOR_TIMEOUT: Final = 1.0  # seconds
LOOK_AGAIN: Final = "look for the devices again"

NO_QUIRKS: Final = Quirks()

T = TypeVar("T")
log = logging.getLogger(__name__)


class Port(Uncopyable):
    """Opens the device, detaches the kernel's driver and claims the interface; `close` undoes all of it.

    The interface's setting is the one that speaks `info.protocol`.

    `before_taking` is called before anything is changed, with whether a kernel driver will be detached.
    `close` is added to `releases` before that. `quirks`: the device's quirks; none by default.
    Raises DeviceBusy if a mounted file system or another program uses the device, AccessDenied, DeviceGone,
    DeviceUnsupported for an interface that cannot be used.
    """

    def __init__(
        self,
        backend: Backend,
        info: InterfaceInfo,
        before_taking: Callable[[bool], None] = lambda is_driven: None,
        releases: Releases | None = None,
        quirks: Quirks = NO_QUIRKS,
    ) -> None:
        self._use(info)
        self.resets = EventCounter()
        self.quirks = quirks
        self._before_taking = before_taking
        self._backend = backend
        uses = backend.uses(info.device, info.interface)
        if uses:
            remedy = "unmount it first, or end the program that uses it"
            raise DeviceBusy(f"{info}: {printable(', '.join(uses))}", remedy)
        self._releases = Releases()
        self.streams = 0
        """How many streams the pipes of UAS have."""
        self._has_streams = False
        try:
            if releases is not None:
                releases.add(self.close)
            self._take()
        except BaseException:
            self.close()
            raise

    def _use(self, info: InterfaceInfo) -> None:
        """Use the interface by the protocol that `info` says. Raise DeviceUnsupported."""
        pipes = uas_pipes(info.setting) if info.protocol == "uas" else None
        self.bulk_in, self.bulk_out = _endpoints(info, pipes)
        self.info = info
        self.pipes = pipes
        """The four pipes of an interface that is used by UAS."""
        self._in, self._out = self.bulk_in.address, self.bulk_out.address

    def __enter__(self) -> Port:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the interface, attach the kernel's driver again, close the handle. May be called again."""
        self._releases.close()

    def after_fork(self) -> None:
        """Forget everything without releasing it; called in the child after a fork, instead of `close`."""
        self._releases.forget()

    def learn(self, quirk: Quirk, why: str, signature: bytes | None = None) -> None:
        """Add a quirk that the device has just shown to `quirks`; it is kept until the device is unplugged."""
        if quirk not in self.quirks or signature not in (None, self.quirks.signature):
            log.info("%s: quirk learned: %s: %s", self.info, quirk.title, why)
        self.quirks = self.quirks.learning(quirk, why, signature)

    def interrupt(self, on: bool) -> None:
        """If `on`, end all bulk transfers, running or begun later, with INTERRUPTED; otherwise stop doing so."""
        self._handle.interrupt(on)

    def read(self, buffer: memoryview, timeout: float) -> tuple[Code, int]:
        """Fill `buffer` from the bulk-in endpoint; return the code, and the bytes received, for any code.

        `timeout` is in seconds.
        """
        return self._transfer(self._in, buffer, time.monotonic() + timeout)

    def write(self, buffer: memoryview, timeout: float) -> tuple[Code, int]:
        """Send `buffer` to the bulk-out endpoint; return the code and the bytes sent.

        `buffer` must be writable, as ctypes takes its address only then. `timeout` is in seconds.
        """
        return self._transfer(self._out, buffer, time.monotonic() + timeout)

    def _transfer(self, endpoint: int, buffer: memoryview, deadline: float) -> tuple[Code, int]:
        done = self._handle.bulk(endpoint, buffer, deadline)
        return done if done[0] is not NO_MEM else self.in_parts(endpoint, buffer, deadline)

    def in_parts(self, endpoint: int, buffer: memoryview, deadline: float) -> tuple[Code, int]:
        """Transfer as `read` or `write`, in parts: the kernel had no memory for all of it at once (NO_MEM).

        NO_MEM for a part is retried for `MEMORY_PATIENCE` seconds, as other transfers free memory when they end.
        """
        done = 0
        enough = min(deadline, time.monotonic() + MEMORY_PATIENCE)
        while done < len(buffer):
            with buffer[done : done + PART] as part:
                code, count = self._handle.bulk(endpoint, part, deadline)
                done += count
                now = time.monotonic()
                if code is NO_MEM and now < enough:
                    time.sleep(MEMORY_PAUSE)
                elif code is not Code.OK or count < len(part):
                    return code, done
                else:
                    enough = min(deadline, now + MEMORY_PATIENCE)
        return Code.OK, done

    def check(self, code: Code, doing: str) -> None:
        """Raise the public error for any code except OK; `doing` begins its text."""
        if code is not Code.OK:
            raise translate(UsbError(code), f"{doing}, {self.info.address}")

    def control_in(self, request_type: int, request: int, value: int, index: int, length: int, timeout: float) -> bytes:
        """Send a control request with data-in; return the data. `timeout` in seconds. Raises TransportError."""
        return self._do(
            f"control request {request:02X}h to",
            lambda: self._handle.control_in(request_type, request, value, index, length, milliseconds(timeout)),
        )

    def control_out(self, request_type: int, request: int, value: int, index: int, data: bytes, timeout: float) -> None:
        """Send a control request with data-out, or without data. `timeout` in seconds. Raises TransportError."""
        self._do(
            f"control request {request:02X}h to",
            lambda: self._handle.control_out(request_type, request, value, index, data, milliseconds(timeout)),
        )

    def clear_halt(self, endpoint: int) -> None:
        """Clear the halt of an endpoint (CLEAR_FEATURE, USB 2.0 9.4.1). Raises TransportError."""
        self._do("clearing a halt of", lambda: self._handle.clear_halt(endpoint))

    def clear_halt_in(self) -> None:
        """Clear the halt of the bulk-in endpoint (CLEAR_FEATURE, USB 2.0 9.4.1). Raises TransportError."""
        self.clear_halt(self.bulk_in.address)

    def clear_halt_out(self) -> None:
        """Clear the halt of the bulk-out endpoint (CLEAR_FEATURE, USB 2.0 9.4.1). Raises TransportError."""
        self.clear_halt(self.bulk_out.address)

    def reset(self) -> None:
        """Reset the device at its port, and select the alternate setting again.

        Raises TransportError; DeviceGone if the device has other descriptors after the reset.
        """
        self.resets.count += 1  # before the reset: an exception, such as Ctrl-C, may come right after it
        try:
            self._handle.reset()
        except UsbError as error:
            if error.code is Code.NOT_FOUND:
                raise DeviceGone(f"{self.info} came back from a port reset as another device") from error
            if error.code is Code.OTHER:
                self._check_still_attached()
            raise translate(error, f"resetting {self.info}") from error
        self._select()

    def change_protocol(self, info: InterfaceInfo, *, reset: bool) -> None:
        """Use the interface by another of its protocols, after a reset if asked for; nothing may be in flight.

        Raise TransportError; it is then used as before.
        """
        before = self.info
        if self.pipes is not None:
            self._free_streams([each.address for each in self.pipes.streaming])
        try:
            self._use(info)
            self.reset() if reset else self._select()
        except BaseException:
            self._use(before)
            raise

    def allocate_streams(self, most: int) -> int:
        """Allocate streams on the pipes of UAS, and return how many, from stream 1; 0 where there can be none.

        May be called again, as after a reset, which ends them. They are freed before the claim is released.
        """
        pipes = self.pipes
        if pipes is None or not all(each.max_streams for each in pipes.streaming):
            return 0
        endpoints = [each.address for each in pipes.streaming]
        if not self._has_streams:
            self._enter("streams")
            self._has_streams = True
            self._releases.add(self._free_streams, endpoints)
        self._free_streams(endpoints)
        try:
            self.streams = self._handle.alloc_streams(endpoints, most)
        except UsbError as error:
            if error.code is Code.NO_DEVICE:
                raise translate(error, f"allocating streams of {self.info}") from error
            log.info("%s: no streams: %s", self.info, error.code.name)
        return self.streams

    def _free_streams(self, endpoints: list[int]) -> None:
        """Free the streams, if there are any; there are none after a reset."""
        self.streams = 0
        with suppress(UsbError):
            self._handle.free_streams(endpoints)

    def _check_still_attached(self) -> None:
        """Raise DeviceGone where the device is being removed.

        Linux's USBDEVFS_RESET fails with EINVAL, OTHER for libusb, where the hub's thread has begun to remove the
        device and usbfs has not noticed yet. Any request after that fails as it should.
        """
        try:
            self._descriptor(DEVICE_DESCRIPTOR, 0, 0, DEVICE_DESCRIPTOR_LENGTH)
        except DeviceGone:
            raise
        except TransportError as error:
            log.info("after a reset that failed: %s", error)

    def check_identity(self) -> None:
        """Read the device's descriptor and serial number again. Raises DeviceGone if it is another device.

        Raises TransportError if they cannot be read.
        """
        device = self._descriptor(DEVICE_DESCRIPTOR, 0, 0, DEVICE_DESCRIPTOR_LENGTH)
        if len(device) < DEVICE_DESCRIPTOR_LENGTH:
            raise MalformedReply(f"the device descriptor of {self.info} has only {len(device)} bytes")
        vid, pid = int.from_bytes(device[8:10], "little"), int.from_bytes(device[10:12], "little")
        serial = self._string(device[16]) if device[16] else ""
        known = comparable(self.info.serial or serial)
        if (vid, pid) != (self.info.vid, self.info.pid) or known != comparable(serial):
            other = f"{vid:04x}:{pid:04x}, serial {serial}"
            raise DeviceGone(f"another device ({other}) answers in the place of {self.info}")

    def _string(self, index: int) -> str:
        """Read a string in the device's first language, which the enumeration also uses (USB 2.0 9.6.7)."""
        languages = self._descriptor(STRING_DESCRIPTOR, 0, 0, 255)
        language = int.from_bytes(languages[2:4], "little") or ENGLISH
        data = self._descriptor(STRING_DESCRIPTOR, index, language, 255)
        return printable(data[2 : (data[0] if data else 0) & ~1].decode("utf-16-le", "replace"))

    def _descriptor(self, kind: int, index: int, language: int, length: int) -> bytes:
        """Send GET_DESCRIPTOR (USB 2.0 9.4.3)."""
        return self.control_in(ENDPOINT_IN, GET_DESCRIPTOR, kind << 8 | index, language, length, DESCRIPTOR_TIMEOUT)

    @property
    def async_transfers(self) -> AsyncTransfers | None:
        """See `Handle.async_transfers`."""
        return self._handle.async_transfers

    def limit_transfer_size(self, size: int) -> int:
        """Return how many bytes one command should move at most: `size`, or less to leave memory to other devices."""
        self.memory.most = most = self._handle.limit_transfer_size(size)
        return most

    def _take(self) -> None:
        """Acquire all. Each release is registered before its acquire: an interrupt between the two must not lose it."""
        info, releases = self.info, self._releases
        self._check_serial()
        self._enter("handle")
        opened: list[Handle] = []
        releases.add(_close, opened)
        # One call, as in `open_into`: between the open and its record no exception can come.
        self._do("opening", lambda: opened.extend(map(self._backend.open, (info.device,))))
        self._handle = handle = opened[0]
        self.bulk = handle.bulk
        """As `Handle.bulk`; NO_MEM is left to the caller, and `in_parts`."""
        self.memory = Buffers(handle.allocate, info.name)
        """The buffers that transfers use: device memory where there is any, until the port is closed."""
        releases.add(self.memory.drain, handle.free)
        is_driven = self._do("asking for the driver of", lambda: handle.driver_active(info.interface))
        self._before_taking(is_driven)
        if is_driven:
            self._enter("driver")
            releases.add(self._give_driver_back)
            self._do("detaching the kernel's driver from", lambda: handle.detach_driver(info.interface))
        self._enter("claim")
        releases.add(self._release)
        self._do("claiming", lambda: handle.claim(info.interface))
        self._select()

    def _check_serial(self) -> None:
        """Raise DeviceGone if another device of the same model has taken the number of this one."""
        known, found = self.info.serial, self._backend.strings(self.info.device).serial
        if known is not None and found is not None and comparable(known) != comparable(printable(found)):
            raise DeviceGone(f"{self.info} was unplugged, and another device has its number now", LOOK_AGAIN)

    def _enter(self, kind: str) -> None:
        """Enter a resource in the ledger; its entry is removed after the release that is registered next."""
        self._releases.hold(ledger.entry(kind, f"of {self.info.name}"))

    def _select(self) -> None:
        """Select the alternate setting of the protocol if there are several: the kernel's driver may select another."""
        choice = sum(setting.interface == self.info.interface for setting in self.info.device.settings)
        if choice > 1:
            info = self.info
            self._do(
                f"selecting {info.protocol.upper()} on",
                lambda: self._handle.set_alternate(info.interface, info.alternate),
            )

    def _release(self) -> None:
        """Release the claim. NOT_FOUND (never claimed) is not logged as a warning."""
        self._quietly("releasing", lambda: self._handle.release(self.info.interface), Code.NOT_FOUND)

    def _give_driver_back(self) -> None:
        """Attach the kernel's driver again. BUSY (never detached) is not a warning; NOT_FOUND (no driver bound) is."""
        doing = "giving the kernel back its driver for"
        self._quietly(doing, lambda: self._handle.attach_driver(self.info.interface), Code.BUSY)

    def _quietly(self, doing: str, action: Callable[[], None], expected: Code) -> None:
        """Run a step of the release and log its error, so that the next steps run. `expected` is logged as debug."""
        try:
            action()
        except UsbError as error:
            level = logging.DEBUG if error.code in (Code.NO_DEVICE, expected) else logging.WARNING
            log.log(level, "%s", translate(error, f"{doing} {self.info}"))

    def _do(self, doing: str, action: Callable[[], T]) -> T:
        try:
            return action()
        except UsbError as error:
            raise translate(error, f"{doing} {self.info}") from error


def _close(opened: list[Handle]) -> None:
    for handle in opened:
        handle.close()


def _endpoints(info: InterfaceInfo, pipes: UasPipes | None) -> tuple[Endpoint, Endpoint]:
    """Return the endpoints that data comes from, and goes to."""
    into, out = bulk_in(info.setting), bulk_out(info.setting)
    if info.unsupported is not None or into is None or out is None:
        raise DeviceUnsupported(f"{info} is not supported: {info.unsupported}; nothing was detached")
    return (into, out) if pipes is None else (pipes.data_in, pipes.data_out)


def milliseconds(seconds: float) -> int:
    """Convert a timeout for libusb: at least 1, as 0 means no limit there, and at most its largest integer."""
    return round(min(max(seconds * 1000, 1), LONGEST_TIMEOUT_MS))
