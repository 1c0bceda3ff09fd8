"""The interface between scsiusb and a USB stack, which is libusb or the virtual bus."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from enum import IntEnum
from typing import Any, Protocol

from scsiusb.base.dataclass import dataclass

SLOWED_USB = 0x0210  # bcdUSB of a SuperSpeed device in one of the modes of USB 2.0
PIPE_USAGE = 0x24  # bDescriptorType of the pipe usage descriptor (UAS 5.2.3.3)
SS_ENDPOINT_COMPANION = 0x30  # bDescriptorType (USB 3.2 9.6.7)
MAX_STREAMS = 0x1F  # bmAttributes bits 4..0 of the companion of a bulk endpoint: an exponent of 2
ENDPOINT_IN = 0x80  # bEndpointAddress bit 7 (USB 2.0 table 9-13)
TRANSFER_TYPE = 0x03  # bmAttributes bits 1..0
BULK = 0x02


ABANDONED: set[int] = set()
"""The ids of objects whose memory the kernel may still write to, for a transfer that it does not give back.

Such an object is kept alive, so no other object gets its id. Its memory must not be used for anything else.
"""


class Code(IntEnum):
    """The result of a transfer or request: `enum libusb_error`."""

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
        """Return OTHER for a code that is not known, as a newer libusb may have."""
        return cls.OTHER


class UsbError(Exception):
    """A request failed with `code`; `detail` says more, or is empty.

    Users never get this error: `usb/port.py` and `usb/interface.py` translate it into a public one.
    """

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
    pipe: int = 0  # bPipeID of the pipe usage descriptor that follows it (UAS 5.2.3.3); 0 if there is none
    max_streams: int = 0  # how many streams it has (USB 3.2 9.6.7); 0 if none

    @property
    def is_bulk_in(self) -> bool:
        """Return whether this is a bulk endpoint from the device to the host."""
        return self.attributes & TRANSFER_TYPE == BULK and bool(self.address & ENDPOINT_IN)

    @property
    def is_bulk_out(self) -> bool:
        """Return whether this is a bulk endpoint from the host to the device."""
        return self.attributes & TRANSFER_TYPE == BULK and not self.address & ENDPOINT_IN


def endpoint_extras(extra: bytes) -> tuple[int, int]:
    """Return `pipe` and `max_streams` of an endpoint, from the descriptors that follow its own.

    Lengths that cannot be true end the search: a device may say anything.
    """
    pipe = streams = at = 0
    while at + 4 <= len(extra) and 2 <= extra[at] <= len(extra) - at:
        length, kind = extra[at], extra[at + 1]
        if kind == PIPE_USAGE and length >= 3:
            pipe = extra[at + 2]
        elif kind == SS_ENDPOINT_COMPANION and length >= 4 and extra[at + 3] & MAX_STREAMS:
            streams = 1 << min(extra[at + 3] & MAX_STREAMS, 16)
        at += length
    return pipe, streams


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
    """A device on the bus: a value that holds no resource. `identity` identifies one plugging-in of it."""

    bus: int
    ports: tuple[int, ...]  # the port numbers from the root hub to the device
    number: int  # the device's address on the bus; another one each time it is plugged in
    vid: int  # idVendor
    pid: int  # idProduct
    release: int  # bcdDevice
    speed: str  # "low", "full", "high", "super", "super-plus", "unknown"
    configuration: int  # bConfigurationValue of the active configuration; 0 if there is none
    settings: tuple[Setting, ...]  # every alternate setting of the active configuration, else of the first one
    connection: int | None = None  # another one each time a device is plugged in, on any port; None: not known
    usb: int = 0  # bcdUSB; 0: not known

    @property
    def identity(self) -> tuple[object, ...]:
        """Return a value that differs for another device, or plugging-in, with the same bus and device number.

        Linux gives a number again after 127 others, Windows and macOS may do so at once.
        """
        return self.bus, self.number, self.ports, self.vid, self.pid, self.release, self.connection

    @property
    def is_slowed(self) -> bool:
        """Return whether the device could do SuperSpeed, and does not: it then says USB 2.10 (USB 3.2 9.6.1)."""
        return self.speed in ("full", "high") and self.usb >= SLOWED_USB

    @property
    def address(self) -> str:
        """Return the kernel's name of the device: `2-1`, `1-1.4`; a root hub, which has no ports, is `usb1`."""
        ports = ".".join(map(str, self.ports))
        return f"{self.bus}-{ports}" if ports else f"usb{self.bus}"

    def interface_name(self, interface: int) -> str:
        """Return the kernel's name of an interface (bInterfaceNumber): `2-1:1.0`."""
        return f"{self.address}:{self.configuration}.{interface}"


@dataclass(frozen=True)
class Strings:
    """The device's string descriptors; None if it has none or they cannot be read."""

    serial: str | None = None
    manufacturer: str | None = None
    product: str | None = None


@dataclass(frozen=True)
class BlockDisk:
    """A disk that the system has made of a logical unit, as it was when it was looked for."""

    node: str  # "/dev/sda"
    lun: int = 0
    size: int | None = None  # bytes; None if it is not known
    mounts: tuple[str, ...] = ()  # mount points of the disk, its partitions and what is stacked on them


class AsyncTransfers(Protocol):
    """Asynchronous bulk transfers of one handle, so that one thread can have many, on one handle or on many.

    The caller must keep a buffer alive until its transfer has ended, and must not use `Handle.bulk` meanwhile.

    A transfer is kept in a list of the caller's, `held`: before it is submitted, until its buffer is free again. An
    exception such as KeyboardInterrupt, at any moment, loses none: the caller passes the list to `cancel`.
    """

    def fileno(self) -> int:
        """Return a descriptor for `poll`: it is writable, or in error, when a transfer may have ended. -1: none is."""

    def submit(self, endpoint: int, buffer: memoryview, held: list[Any], stream: int = 0) -> None:
        """Begin a transfer, and put it into `held`, which is empty. Raises UsbError; then it is still empty.

        `stream`: the stream of the endpoint that it is for, from 1; 0 for an endpoint without streams.
        """

    def handle_events(self, held: list[Any] | None = None) -> None:
        """Process what has ended. Does not block; with a transfer in `held`, waits a millisecond at most for it."""

    def await_events(self, seconds: float) -> None:
        """Wait until something has ended, `seconds` and a tenth of a second at most, and process it."""

    def outcome(self, held: list[Any]) -> tuple[Code, int] | None:
        """Return what `Handle.bulk` would, and empty `held`; None while the transfer is in progress."""

    def cancel(self, held: list[Any]) -> tuple[Code, int]:
        """Cancel a transfer, return its outcome within seconds, and empty `held`.

        TIMEOUT if it had not ended by itself.
        """


class Handle(Protocol):
    """An open device.

    Every method raises `UsbError`, except `bulk`, which returns a code, and `close`. Interfaces are
    bInterfaceNumber, endpoints bEndpointAddress. Timeouts are in milliseconds, at least 1; `bulk` has a deadline.
    """

    @property
    def async_transfers(self) -> AsyncTransfers | None:
        """Return the asynchronous transfers; None if the platform or the kind of handle does not support them."""

    def claim(self, interface: int) -> None:
        """Claim the interface for this program. UsbError: BUSY if a driver or another program has it."""

    def release(self, interface: int) -> None:
        """Release the claimed interface."""

    def set_alternate(self, interface: int, alternate: int) -> None:
        """Select an alternate setting of the claimed interface (SET_INTERFACE, USB 2.0 9.4.10). It ends streams."""

    def alloc_streams(self, endpoints: Sequence[int], count: int) -> int:
        """Allocate streams 1 to the returned number, at most `count`, on each of the claimed interface's endpoints.

        UsbError: NOT_SUPPORTED where this platform has no streams, other codes where the bus or its driver refuses.
        """

    def free_streams(self, endpoints: Sequence[int]) -> None:
        """Free the streams of the endpoints. UsbError: NOT_FOUND if there are none."""

    def driver_active(self, interface: int) -> bool:
        """Return whether a kernel driver is bound to the interface."""

    def detach_driver(self, interface: int) -> None:
        """Detach the kernel driver. UsbError: BUSY if the system uses the device, as with a mounted file system."""

    def attach_driver(self, interface: int) -> None:
        """Have the kernel bind its driver to the released interface."""

    def clear_halt(self, endpoint: int) -> None:
        """Clear the endpoint's halt and reset its data toggle (CLEAR_FEATURE, USB 2.0 9.4.1)."""

    def reset(self) -> None:
        """Reset the device at its port; claims survive, alternate settings return to 0.

        UsbError: NOT_FOUND if the device came back with other descriptors; then this handle can only be closed.
        """

    def control_in(
        self, request_type: int, request: int, value: int, index: int, length: int, timeout_ms: int
    ) -> bytes:
        """Send a control request with data-in; return the bytes that the device sent, at most `length`."""

    def control_out(
        self, request_type: int, request: int, value: int, index: int, data: bytes, timeout_ms: int
    ) -> None:
        """Send a control request with data-out, or without data."""

    def bulk(self, endpoint: int, buffer: memoryview, deadline: float) -> tuple[Code, int]:
        """Move bytes between `buffer` (writable, contiguous bytes) and the endpoint, in the endpoint's direction.

        `deadline` by `time.monotonic`: one for all transfers of a command, so that none needs the time to be computed.
        Returns the result and the number of bytes moved, which is true for any code. If an exception such as
        KeyboardInterrupt comes, the transfer is cancelled before the exception is raised.
        """

    def interrupt(self, on: bool) -> None:
        """End bulk transfers in progress with INTERRUPTED, and new ones too, until this is called with False."""

    def limit_transfer_size(self, size: int) -> int:
        """Return how many bytes one command should move at most: `size`, or less to leave memory to other devices."""

    def allocate(self, size: int) -> memoryview:
        """Return a writable buffer of `size` bytes that is fast to transfer to and from.

        Return it with `free` before `close`.
        """

    def free(self, buffer: memoryview) -> None:
        """Free a buffer of `allocate`; it cannot be used after that."""

    def close(self) -> None:
        """Close the handle, even if the device is gone. May be called again."""


class Hotplug(Protocol):
    """Notices that devices were plugged in or unplugged. One thread waits; any thread may wake it."""

    def wait(self, timeout: float) -> bool:
        """Wait for a change, `timeout` seconds at most, or until `wake`; return True if something may have changed."""

    def wake(self) -> None:
        """End the wait in progress; if there is none, the next wait ends at once."""

    def close(self) -> None:
        """Stop watching. Must not be called while a thread waits."""


class Backend(Protocol):
    """A USB stack."""

    @property
    def identity(self) -> Hashable:
        """Return a value that is equal for backends with the same devices."""

    @property
    def is_shared(self) -> bool:
        """Return whether other processes can use the devices too."""

    def devices(self) -> Sequence[Device]:
        """Return the devices on all buses, without opening any. Raises UsbError."""

    def strings(self, device: Device) -> Strings:
        """Return the device's string descriptors, as far as they can be read."""

    def driver(self, device: Device, interface: int) -> str | None:
        """Return the kernel driver bound to the interface; None if there is none, or it is not known."""

    def uses(self, device: Device, interface: int) -> Sequence[str]:
        """Describe what on this machine uses the interface's disks: "/dev/sda1 is mounted on /mnt", …"""

    def disks(self, device: Device, interface: int) -> Sequence[BlockDisk]:
        """Return the system's disks of the interface, as far as they are known without opening anything."""

    def open(self, device: Device) -> Handle:
        """Open the device. Raises `UsbError`: ACCESS, …

        NO_DEVICE if it was unplugged since, even if it is back, or another device has its number.
        """

    def watch(self) -> Hotplug:
        """Begin to watch for devices; changes from now on are noticed. Raises UsbError."""

    def after_fork(self, device: Device) -> None:
        """Close, in a forked child, the copies of the parent's handles of the device; those of the parent stay open."""

    def close(self) -> None:
        """Release what the backend holds. Its devices and handles must not be used after that."""
