"""The messages of USB/IP as bytes, all big-endian (Linux's Documentation/usb/usbip_protocol.rst)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from scsiusb.base.dataclass import dataclass

VERSION: Final = 0x0111
DEVLIST, IMPORT = 0x8005, 0x8003  # OP_REQ_…; the reply has bit 15 clear
GOOD, DEVICE_BUSY, NO_SUCH_DEVICE = 0, 2, 4  # of a reply: the numbers that Linux's tools have words for

CMD_SUBMIT, CMD_UNLINK, RET_SUBMIT, RET_UNLINK = 1, 2, 3, 4
SHORT_NOT_OK, ZERO_PACKET = 0x0001, 0x0040  # transfer_flags, as in struct urb
NOT_ISOCHRONOUS = (0, 0xFFFFFFFF)  # number_of_packets: Linux sends the one, the documentation has the other

# Linux's error numbers, whatever the machine that this runs on has.
EINVAL, EPIPE, EPROTO, EOVERFLOW, ECONNRESET, ESHUTDOWN, EREMOTEIO = -22, -32, -71, -75, -104, -108, -121

BUS_NUMBER, DEVICE_NUMBER = 1, 2
DEVICE_ID: Final = BUS_NUMBER << 16 | DEVICE_NUMBER
LONGEST: Final = 16 << 20  # bytes of one transfer: what Linux lets a program have under way by default

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

# As `enum usb_device_speed` has them; vhci_hcd takes nothing above SuperSpeed from most kernels.
_SPEEDS = {"low": 1, "full": 2, "high": 3, "super": 5, "super-plus": 5}


class Malformed(Exception):
    """The other side does not keep to the protocol: there is no way on with it."""


@dataclass(frozen=True)
class Submit:
    """USBIP_CMD_SUBMIT without its data."""

    seqnum: int
    endpoint: int  # with the direction in bit 7
    flags: int
    length: int
    packets: int
    setup: bytes

    @property
    def is_in(self) -> bool:
        return bool(self.endpoint & 0x80)

    @property
    def payload(self) -> int:
        """How many bytes follow."""
        return 0 if self.is_in else self.length


@dataclass(frozen=True)
class Unlink:
    """USBIP_CMD_UNLINK."""

    seqnum: int
    target: int  # the seqnum of what is to be given up


@dataclass(frozen=True)
class Exported:
    """What a client is told of the device before it attaches it."""

    bus_id: str
    speed: str
    vid: int
    pid: int
    release: int
    interfaces: Sequence[tuple[int, int, int]]  # class, subclass, protocol

    def record(self) -> bytes:
        path = f"/sys/devices/virtual/scsiusb/usb{BUS_NUMBER}/{self.bus_id}".encode()
        place = (path, self.bus_id.encode(), BUS_NUMBER, DEVICE_NUMBER, _SPEEDS[self.speed])
        return _DEVICE.pack(*place, self.vid, self.pid, self.release, 0, 0, 0, 1, 1, len(self.interfaces))

    def devlist(self) -> bytes:
        """OP_REP_DEVLIST with this device only."""
        interfaces = b"".join(_INTERFACE.pack(*each) for each in self.interfaces)
        return reply(DEVLIST, GOOD) + _COUNT.pack(1) + self.record() + interfaces


def reply(code: int, status: int, body: bytes = b"") -> bytes:
    return REQUEST.pack(VERSION, code & 0x7FFF, status) + body


def bus_id(field: bytes | bytearray) -> bytes:
    return bytes(field).partition(b"\0")[0]


def parse_command(header: bytes | bytearray) -> Submit | Unlink:
    """Raises `Malformed`."""
    command, seqnum, device, direction, number = _BASIC.unpack_from(header)
    if device != DEVICE_ID:
        raise Malformed(f"a command for device {device:#x}")
    if command == CMD_UNLINK:
        return Unlink(seqnum, _UNLINK.unpack_from(header, _BASIC.size)[0])
    if command != CMD_SUBMIT:
        raise Malformed(f"command {command:#x}")
    flags, length, _, packets, _, setup = _SUBMIT.unpack_from(header, _BASIC.size)
    if direction > 1 or number > 15:
        raise Malformed(f"direction {direction} of endpoint {number}")
    if length > LONGEST:
        raise Malformed(f"a transfer of {length} bytes, and {LONGEST} is the most")
    if packets not in NOT_ISOCHRONOUS:
        raise Malformed(f"{packets} isochronous packets, and no such endpoint")
    return Submit(seqnum, direction << 7 | number, flags, length, packets, setup)


def ret_submit(submit: Submit, status: int, moved: int, data: bytes | memoryview = b"") -> bytes:
    head = _RETURN.pack(RET_SUBMIT, submit.seqnum, 0, 0, 0, status, moved, 0, submit.packets, 0)
    return b"".join((head, data))


def ret_unlink(unlink: Unlink, status: int) -> bytes:
    return _RETURN.pack(RET_UNLINK, unlink.seqnum, 0, 0, 0, status, 0, 0, 0, 0)
