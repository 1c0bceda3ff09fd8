"""The messages of USB/IP as bytes, all big-endian (Linux's Documentation/usb/usbip_protocol.rst)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from scsiusb.base.dataclass import dataclass

VERSION: Final = 0x0111
DEVLIST, IMPORT = 0x8005, 0x8003  # OP_REQ_…; the reply has bit 15 clear
GOOD, DEVICE_BUSY, NO_SUCH_DEVICE = 0, 2, 4  # status of a reply; Linux's tools have messages for these numbers

CMD_SUBMIT, CMD_UNLINK, RET_SUBMIT, RET_UNLINK = 1, 2, 3, 4
SHORT_NOT_OK, ZERO_PACKET = 0x0001, 0x0040  # transfer_flags, as in struct urb
NOT_ISOCHRONOUS = (0, 0xFFFFFFFF)  # number_of_packets: Linux sends 0, the documentation says FFFFFFFFh

# Linux's error numbers, also on other platforms.
EINVAL, EPIPE, EPROTO, EOVERFLOW, ECONNRESET, ESHUTDOWN, EREMOTEIO = -22, -32, -71, -75, -104, -108, -121

BUS_NUMBER, DEVICE_NUMBER = 1, 2
DEVICE_ID: Final = BUS_NUMBER << 16 | DEVICE_NUMBER
CONFIGURATIONS: Final = 1  # bNumConfigurations
MAX_TRANSFER: Final = 16 << 20  # bytes; Linux's default limit for all of usbfs (usbfs_memory_mb)

REQUEST: Final = struct.Struct(">HHI")
BUS_ID_SIZE: Final = 32
HEADER_SIZE: Final = 48
_COUNT = struct.Struct(">I")
_DEVICE = struct.Struct(">256s32sIIIHHHBBBBBB")
_INTERFACE = struct.Struct(">BBBx")
_BASIC = struct.Struct(">IIIII")
_SUBMIT = struct.Struct(">IIIII8s")
_UNLINK = struct.Struct(">I24x")
_RETURN = struct.Struct(">IIIIIiIIII8x")

# The values of Linux's `enum usb_device_speed`. Super-plus is reported as SuperSpeed: vhci_hcd of most kernels supports
# nothing faster.
_SPEEDS = {"low": 1, "full": 2, "high": 3, "super": 5, "super-plus": 5}


class Malformed(Exception):
    """A violation of the protocol by the client; the connection must be closed."""


@dataclass(frozen=True)
class Submit:
    """A USBIP_CMD_SUBMIT message without its data; `length` is in bytes."""

    seqnum: int
    endpoint: int  # with the direction in bit 7
    flags: int
    length: int
    packets: int
    setup: bytes

    @property
    def is_in(self) -> bool:
        """Whether the transfer is from device to host."""
        return bool(self.endpoint & 0x80)

    @property
    def payload(self) -> int:
        """The number of data bytes that follow the message."""
        return 0 if self.is_in else self.length


@dataclass(frozen=True)
class Unlink:
    """A USBIP_CMD_UNLINK message."""

    seqnum: int
    target: int  # the seqnum of the transfer to cancel


@dataclass(frozen=True)
class Exported:
    """The description of the device that clients get before they attach it."""

    bus_id: str
    speed: str
    vid: int
    pid: int
    release: int
    interfaces: Sequence[tuple[int, int, int]]  # class, subclass, protocol

    def record(self, configuration: int) -> bytes:
        """Return the 312 bytes that describe the device in OP_REP_DEVLIST and OP_REP_IMPORT.

        `configuration` is the value of the one that is selected now, 0 for none: a client that trusts a 1 here sends no
        SET_CONFIGURATION, and its transfers fail.
        """
        path = f"/sys/devices/virtual/scsiusb/usb{BUS_NUMBER}/{self.bus_id}".encode()
        place = (path, self.bus_id.encode(), BUS_NUMBER, DEVICE_NUMBER, _SPEEDS[self.speed])
        ids = (self.vid, self.pid, self.release, 0, 0, 0)
        return _DEVICE.pack(*place, *ids, configuration, CONFIGURATIONS, len(self.interfaces))

    def devlist(self, configuration: int) -> bytes:
        """Return OP_REP_DEVLIST with this device only; `configuration` as for `record`."""
        interfaces = b"".join(_INTERFACE.pack(*each) for each in self.interfaces)
        return reply(DEVLIST, GOOD) + _COUNT.pack(1) + self.record(configuration) + interfaces


def reply(code: int, status: int, body: bytes = b"") -> bytes:
    """Return the reply (OP_REP_…) to the request `code`."""
    return REQUEST.pack(VERSION, code & 0x7FFF, status) + body


def bus_id(field: bytes | bytearray) -> bytes:
    """Return the bus id in a zero-padded field."""
    return bytes(field).partition(b"\0")[0]


def parse_command(header: bytes | bytearray) -> Submit | Unlink:
    """Parse the header (48 bytes) of a command; raises `Malformed` if it is not valid."""
    command, seqnum, device, direction, number = _BASIC.unpack_from(header)
    if device != DEVICE_ID:
        raise Malformed(f"a command for device {device:#x}")
    if command == CMD_UNLINK:
        return Unlink(seqnum, _UNLINK.unpack_from(header, _BASIC.size)[0])
    if command != CMD_SUBMIT:
        raise Malformed(f"an unknown command, {command:#x}")
    flags, length, _, packets, _, setup = _SUBMIT.unpack_from(header, _BASIC.size)
    if direction > 1 or number > 15:
        raise Malformed(f"direction {direction} of endpoint {number}")
    if length > MAX_TRANSFER:
        raise Malformed(f"a transfer of {length} bytes; the limit is {MAX_TRANSFER}")
    if packets not in NOT_ISOCHRONOUS:
        raise Malformed(f"{packets} isochronous packets; the device has no isochronous endpoint")
    return Submit(seqnum, direction << 7 | number, flags, length, packets, setup)


def ret_submit(submit: Submit, status: int, moved: int, data: bytes | memoryview = b"") -> bytes:
    """Return USBIP_RET_SUBMIT; `status` is 0 or an error number, `moved` the bytes moved, `data` the data-in."""
    head = _RETURN.pack(RET_SUBMIT, submit.seqnum, 0, 0, 0, status, moved, 0, submit.packets, 0)
    return b"".join((head, data))


def ret_unlink(unlink: Unlink, status: int) -> bytes:
    """Return USBIP_RET_UNLINK; `status` is ECONNRESET if the transfer was cancelled, 0 if it had ended before."""
    return _RETURN.pack(RET_UNLINK, unlink.seqnum, 0, 0, 0, status, 0, 0, 0, 0)
