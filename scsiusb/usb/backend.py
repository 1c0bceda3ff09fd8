"""The device seam: what a USB stack must offer, be it libusb or the virtual stick."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from enum import IntEnum
from typing import Any, Protocol

from scsiusb.base.dataclass import dataclass

ENDPOINT_IN = 0x80  # bEndpointAddress bit 7 (USB 2.0 table 9-13)
TRANSFER_TYPE = 0x03  # bmAttributes bits 1..0
BULK = 0x02


class Code(IntEnum):
    """What a transfer or request came to: `enum libusb_error`."""

    OK = 0
    IO = -1
    INVALID_PARAM = -2
    ACCESS = -3
    NO_DEVICE = -4
    NOT_FOUND = -5
    BUSY = -6
    TIMEOUT = -7
    OVERFLOW = -8
    PIPE = -9
    INTERRUPTED = -10
    NO_MEM = -11
    NOT_SUPPORTED = -12
    OTHER = -99

    @classmethod
    def _missing_(cls, value: object) -> Code:
        """A newer libusb may have codes that we do not know."""
        return cls.OTHER


class UsbError(Exception):
    """A request failed with `code`; never leaves `usb/`, where `port.py` turns it into the public error."""

    def __init__(self, code: Code, detail: str = "") -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail


@dataclass(frozen=True)
class Endpoint:
    """An endpoint descriptor (USB 2.0 9.6.6)."""

    address: int  # bEndpointAddress
    attributes: int  # bmAttributes
    max_packet_size: int  # wMaxPacketSize

    @property
    def is_bulk_in(self) -> bool:
        return self.attributes & TRANSFER_TYPE == BULK and bool(self.address & ENDPOINT_IN)

    @property
    def is_bulk_out(self) -> bool:
        return self.attributes & TRANSFER_TYPE == BULK and not self.address & ENDPOINT_IN


@dataclass(frozen=True)
class Setting:
    """One alternate setting of one interface (USB 2.0 9.6.5)."""

    interface: int  # bInterfaceNumber
    alternate: int  # bAlternateSetting
    interface_class: int  # bInterfaceClass
    subclass: int  # bInterfaceSubClass
    protocol: int  # bInterfaceProtocol
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True)
class Device:
    """A device as the bus shows it now: a value that holds nothing. (bus, number) names one plugging-in of it."""

    bus: int
    ports: tuple[int, ...]  # the way from the root hub
    number: int  # the address that the bus gave it; another one after each replug
    vid: int  # idVendor
    pid: int  # idProduct
    release: int  # bcdDevice
    speed: str  # "low", "full", "high", "super", "super-plus", "unknown"
    configuration: int  # bConfigurationValue of the active configuration, 0: none
    settings: tuple[Setting, ...]  # every alternate setting of the active configuration

    @property
    def address(self) -> str:
        """As the kernel prints it: `2-1`, `1-1.4`; a root hub, which has no ports, is `usb1`."""
        ports = ".".join(map(str, self.ports))
        return f"{self.bus}-{ports}" if ports else f"usb{self.bus}"

    def interface_name(self, interface: int) -> str:
        """As the kernel prints it: `2-1:1.0`."""
        return f"{self.address}:{self.configuration}.{interface}"


@dataclass(frozen=True)
class Strings:
    """The device's string descriptors; None where it has none or we may not ask."""

    serial: str | None = None
    manufacturer: str | None = None
    product: str | None = None


Step = tuple[int, memoryview]  # an endpoint, and the buffer to fill from it or to send to it


def chain(
    bulk: Callable[[int, memoryview, int], tuple[Code, int]], steps: Sequence[Step], deadline: float
) -> tuple[int, Code, int]:
    """A `Handle.chain` for handles that have only `bulk`."""
    last = len(steps) - 1
    for number, (endpoint, buffer) in enumerate(steps):
        code, count = bulk(endpoint, buffer, max(1, int((deadline - time.monotonic()) * 1000)))
        if number == last or code is not Code.OK or count != len(buffer):
            return number, code, count
    raise ValueError("a chain of no steps")


class AsyncTransfers(Protocol):
    """Bulk transfers of a handle that one thread looks after together with those of other handles.

    Buffers stay where they are until their transfer has ended. Only for who keeps other transfers of the handle out.
    """

    def fileno(self) -> int:
        """Of the descriptor that polls as writable, or in error, when a transfer may have ended."""

    def submit(self, endpoint: int, buffer: memoryview) -> Any:
        """Begins a transfer; what it returns stands for it below. Raises UsbError."""

    def handle_events(self, transfer: Any = None) -> None:
        """Takes note of what has ended; waits, for a millisecond at most, only if that is this transfer."""

    def outcome(self, transfer: Any) -> tuple[Code, int] | None:
        """As `Handle.bulk`, once; None while it is under way."""

    def cancel(self, transfer: Any) -> tuple[Code, int]:
        """Ends it, within seconds; TIMEOUT if it had not ended by itself."""


class Handle(Protocol):
    """An open device. Every method raises `UsbError`, except `bulk`, which returns its code, and `close`.

    Timeouts are in milliseconds, at least 1.
    """

    @property
    def async_transfers(self) -> AsyncTransfers | None:
        """None where the platform, or the kind of handle, has only `bulk`."""

    def claim(self, interface: int) -> None: ...
    def release(self, interface: int) -> None: ...
    def set_alternate(self, interface: int, alternate: int) -> None: ...
    def driver_active(self, interface: int) -> bool: ...
    def detach_driver(self, interface: int) -> None: ...
    def attach_driver(self, interface: int) -> None: ...
    def clear_halt(self, endpoint: int) -> None: ...

    def reset(self) -> None:
        """Resets the device at its port; claims survive, alternate settings return to 0.

        NOT_FOUND: the device came back as another one, and this handle is dead.
        """

    def control_in(
        self, request_type: int, request: int, value: int, index: int, length: int, timeout_ms: int
    ) -> bytes:
        """A control request with data-in; returns the bytes that came, at most `length`."""

    def control_out(
        self, request_type: int, request: int, value: int, index: int, data: bytes, timeout_ms: int
    ) -> None: ...

    def bulk(self, endpoint: int, buffer: memoryview, timeout_ms: int) -> tuple[Code, int]:
        """Moves bytes between `buffer` (writable, contiguous bytes) and the endpoint, in the endpoint's direction.

        Returns what it came to and how many bytes were moved: the count is true whatever the code is.
        Interrupted by an exception (KeyboardInterrupt), the transfer is cancelled before this propagates it.
        """

    def chain(self, steps: Sequence[Step], deadline: float) -> tuple[int, Code, int]:
        """As `bulk` for each step in turn, until one does not move all of its buffer; `deadline`: by `time.monotonic`.

        Returns the number of the last step that was begun, from 0, and what `bulk` would for it.
        """

    def interrupt(self, on: bool) -> None:
        """True: bulk transfers under way, and those begun later, end with INTERRUPTED at once. False: no longer."""

    def limit_transfer_size(self, size: int) -> int:
        """Bytes that one command should move at most, `size` or less, so that there is memory for other devices."""

    def allocate(self, size: int) -> memoryview:
        """A writable buffer that is quick to transfer to and from: device memory where there is any.

        Give it back with `free`, before `close`.
        """

    def free(self, buffer: memoryview) -> None: ...

    def close(self) -> None:
        """Closes the handle; also when the device is gone, and when called again."""


class Hotplug(Protocol):
    """Notices that devices came or left; for one thread that waits, and others that wake it."""

    def wait(self, timeout: float) -> bool:
        """Returns when something may have changed (True), or after `wake` or `timeout` seconds (perhaps False)."""

    def wake(self) -> None:
        """Ends the wait under way, or else the next one."""

    def close(self) -> None:
        """Only when nobody waits."""


class Backend(Protocol):
    """A USB stack."""

    @property
    def identity(self) -> Hashable:
        """Equal for backends that reach the same devices."""

    @property
    def is_shared(self) -> bool:
        """Can other processes reach the devices?"""

    def devices(self) -> Sequence[Device]:
        """The devices on all buses now. Opens none of them."""

    def strings(self, device: Device) -> Strings: ...

    def driver(self, device: Device, interface: int) -> str | None:
        """The kernel driver bound to the interface; None: no driver, or the platform does not tell."""

    def uses(self, device: Device, interface: int) -> Sequence[str]:
        """What on this machine uses the disks behind the interface: "/dev/sda1 is mounted on /mnt", …"""

    def open(self, device: Device) -> Handle:
        """Opens exactly this plugging-in of the device, else raises `UsbError` (NO_DEVICE, ACCESS, …)."""

    def watch(self) -> Hotplug:
        """Begins to watch; what changes from here on is noticed."""

    def after_fork(self, device: Device) -> None:
        """In a fork's child: drops the copies of whatever handles of the device the parent has; those stay open."""

    def close(self) -> None: ...
