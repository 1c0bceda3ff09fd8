"""Descriptors as dataclasses and as bytes, and how a host parses the bytes (USB 2.0 9.6, USB 3.2 9.6)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from typing import NamedTuple

from scsiusb.base.dataclass import dataclass
from scsiusb.usb.backend import BULK, TRANSFER_TYPE, Endpoint, Setting

DEVICE, CONFIGURATION, STRING, INTERFACE, ENDPOINT, DEVICE_QUALIFIER, OTHER_SPEED = range(1, 8)
BOS = 0x0F
SS_ENDPOINT_COMPANION = 0x30
PIPE_USAGE = 0x24
HID_REPORT = 0x22
ENGLISH = 0x0409

MASS_STORAGE = 0x08  # bInterfaceClass
HID = 0x03
SCSI = 0x06  # bInterfaceSubClass: SCSI transparent command set
BOT = 0x50  # bInterfaceProtocol
UAS = 0x62

_INTERRUPT = 0x03
_DEVICE = struct.Struct("<BBHBBBBHHHBBBB")
_CONFIGURATION = struct.Struct("<BBHBBBBB")
_INTERFACE = struct.Struct("<BBBBBBBBB")
_ENDPOINT = struct.Struct("<BBBBHB")


class _Speed(NamedTuple):
    usb: int  # bcdUSB
    packet_0: int  # bMaxPacketSize0; an exponent since USB 3.0
    bulk: int  # the largest wMaxPacketSize of a bulk endpoint
    power: int  # bMaxPower


_SPEEDS: Mapping[str, _Speed] = {
    "full": _Speed(0x0110, 64, 64, 250),
    "high": _Speed(0x0200, 64, 512, 250),
    "super": _Speed(0x0300, 9, 1024, 112),
    "super-plus": _Speed(0x0310, 9, 1024, 112),
}

_USB_2_EXTENSION = bytes((7, 0x10, 0x02, 0x02, 0, 0, 0))  # LPM
_SUPERSPEED = bytes((10, 0x10, 0x03, 0, 0x0E, 0, 1, 10, 0xFF, 0x07))
_SUPERSPEED_PLUS = struct.pack("<BBBxIHxxII", 20, 0x10, 0x0A, 1, 0x1100, 0x000A4030, 0x000A40B0)


@dataclass(frozen=True)
class Identity:
    """The device descriptor's identity fields, and the device's speed; a string that is None has no descriptor.

    `speed` is "full", "high", "super" or "super-plus". Raises ValueError for another speed, for numbers that do not
    fit 16 bits, and for strings of more than 126 UTF-16 code units.
    """

    vid: int = 0x1209
    pid: int = 0x0001
    release: int = 0x0100
    serial: str | None = "0123456789AB"  # at least twelve hexadecimal digits (BOT 4.1.1)
    manufacturer: str | None = "scsiusb"
    product: str | None = "Virtual Stick"
    speed: str = "high"

    def __post_init__(self) -> None:
        if self.speed not in _SPEEDS:
            raise ValueError(f"speed {self.speed!r} is not supported; use one of {', '.join(_SPEEDS)}")
        for number in (self.vid, self.pid, self.release):
            if not 0 <= number <= 0xFFFF:
                raise ValueError(f"{number:#x} does not fit into 16 bits; use 0 to 0xffff")
        for text in (self.serial, self.manufacturer, self.product):
            if text is not None and len(text.encode("utf-16-le", "surrogatepass")) > 252:
                raise ValueError(f"{text!r} does not fit into a string descriptor; use at most 126 characters")


@dataclass(frozen=True)
class EndpointDescriptor:
    """An endpoint; `max_packet_size` is in bytes, None: the largest of a bulk endpoint at the device's speed."""

    address: int
    attributes: int = BULK
    max_packet_size: int | None = None
    interval: int = 0
    max_streams: int = 0  # of the SuperSpeed companion descriptor, as an exponent of 2
    extra: bytes = b""  # class-specific descriptors that follow it


@dataclass(frozen=True)
class InterfaceDescriptor:
    """One alternate setting of an interface."""

    number: int
    alternate: int
    interface_class: int
    subclass: int
    protocol: int
    endpoints: tuple[EndpointDescriptor, ...]
    extra: bytes = b""  # class-specific descriptors that follow it
    class_descriptors: Mapping[int, bytes] = field(default_factory=dict)  # for GET_DESCRIPTOR, by type


def bot_interface(number: int = 0, alternate: int = 0, *, address: int = 1) -> InterfaceDescriptor:
    """Return a Bulk-Only Transport interface: bulk IN endpoint number `address`, bulk OUT number `address` + 1."""
    endpoints = (EndpointDescriptor(0x80 | address), EndpointDescriptor(address + 1))
    return InterfaceDescriptor(number, alternate, MASS_STORAGE, SCSI, BOT, endpoints)


def uas_interface(number: int = 0, alternate: int = 1, *, address: int = 1) -> InterfaceDescriptor:
    """Return a USB Attached SCSI interface: four pipes, each with a pipe usage descriptor (UAS 6.2.4).

    The endpoint numbers are `address` to `address` + 3.
    """
    pipes = ((address + 3, 1, 0), (0x80 | address + 2, 2, 4), (0x80 | address, 3, 4), (address + 1, 4, 4))
    endpoints = tuple(
        EndpointDescriptor(pipe, max_streams=streams, extra=bytes((4, PIPE_USAGE, usage, 0)))
        for pipe, usage, streams in pipes
    )
    return InterfaceDescriptor(number, alternate, MASS_STORAGE, SCSI, UAS, endpoints)


_REPORT = bytes.fromhex("0600ff 0901 a101 0902 150026ff00 7508 9508 8102 c0")  # vendor-defined: eight bytes of input


def hid_interface(number: int = 0, *, address: int = 8) -> InterfaceDescriptor:
    """Return a HID interface that never sends a report, for composite devices; `address` is its endpoint number."""
    hid = struct.pack("<BBHBBBH", 9, 0x21, 0x0111, 0, 1, HID_REPORT, len(_REPORT))
    endpoint = EndpointDescriptor(0x80 | address, _INTERRUPT, 8, 10)
    return InterfaceDescriptor(number, 0, HID, 0, 0, (endpoint,), hid, {0x21: hid, HID_REPORT: _REPORT})


def _string_index(text: str | None, index: int) -> int:
    return 0 if text is None else index


def _endpoint(endpoint: EndpointDescriptor, speed: str) -> bytes:
    size = _SPEEDS[speed].bulk if endpoint.max_packet_size is None else endpoint.max_packet_size
    body = _ENDPOINT.pack(7, ENDPOINT, endpoint.address, endpoint.attributes, size, endpoint.interval)
    if speed.startswith("super"):
        periodic = size if endpoint.attributes & TRANSFER_TYPE == _INTERRUPT else 0
        body += struct.pack("<BBBBH", 6, SS_ENDPOINT_COMPANION, 0, endpoint.max_streams, periodic)
    return body + endpoint.extra


def _interface(interface: InterfaceDescriptor, speed: str) -> bytes:
    head = _INTERFACE.pack(
        9,
        INTERFACE,
        interface.number,
        interface.alternate,
        len(interface.endpoints),
        interface.interface_class,
        interface.subclass,
        interface.protocol,
        0,
    )
    return head + interface.extra + b"".join(_endpoint(endpoint, speed) for endpoint in interface.endpoints)


@dataclass(frozen=True)
class Descriptors:
    """The descriptors that the device returns to GET_DESCRIPTOR, as bytes."""

    identity: Identity
    interfaces: tuple[InterfaceDescriptor, ...]

    def device(self) -> bytes:
        """Return the device descriptor (USB 2.0 9.6.1)."""
        identity, speed = self.identity, _SPEEDS[self.identity.speed]
        strings = (
            _string_index(identity.manufacturer, 1),
            _string_index(identity.product, 2),
            _string_index(identity.serial, 3),
        )
        head = (18, DEVICE, speed.usb, 0, 0, 0, speed.packet_0)
        return _DEVICE.pack(*head, identity.vid, identity.pid, identity.release, *strings, 1)

    def configuration(self, speed: str | None = None, kind: int = CONFIGURATION) -> bytes:
        """Return the configuration descriptor, followed by its interfaces and endpoints (USB 2.0 9.6.3).

        `speed` None is the device's own; `kind` is bDescriptorType.
        """
        speed = speed or self.identity.speed
        body = b"".join(_interface(interface, speed) for interface in self.interfaces)
        numbers = {interface.number for interface in self.interfaces}
        return _CONFIGURATION.pack(9, kind, 9 + len(body), len(numbers), 1, 0, 0x80, _SPEEDS[speed].power) + body

    def qualifier(self) -> bytes | None:
        """Return the device qualifier; None unless the device runs at high speed (USB 2.0 9.6.2)."""
        return struct.pack("<BBHBBBBBB", 10, DEVICE_QUALIFIER, 0x0200, 0, 0, 0, 64, 1, 0) if self._is_high else None

    def other_speed(self) -> bytes | None:
        """Return the configuration at full speed; None unless the device runs at high speed (USB 2.0 9.6.4)."""
        return self.configuration("full", OTHER_SPEED) if self._is_high else None

    @property
    def _is_high(self) -> bool:
        return self.identity.speed == "high"

    def bos(self) -> bytes | None:
        """Return the binary device object store; None below SuperSpeed (USB 3.2 9.6.2)."""
        capabilities = {
            "super": (_USB_2_EXTENSION, _SUPERSPEED),
            "super-plus": (_USB_2_EXTENSION, _SUPERSPEED, _SUPERSPEED_PLUS),
        }.get(self.identity.speed, ())
        body = b"".join(capabilities)
        return struct.pack("<BBHB", 5, BOS, 5 + len(body), len(capabilities)) + body if body else None

    def string(self, index: int) -> bytes | None:
        """Return a string descriptor, or None; index 0 lists the languages (USB 2.0 9.6.7)."""
        if index == 0:
            return struct.pack("<BBH", 4, STRING, ENGLISH)
        identity = self.identity
        text = {1: identity.manufacturer, 2: identity.product, 3: identity.serial}.get(index)
        if text is None:
            return None
        body = text.encode("utf-16-le", "surrogatepass")  # as a hostile device could send them
        return bytes((2 + len(body), STRING)) + body

    def class_descriptor(self, interface: int, kind: int) -> bytes | None:
        """Return an interface's class-specific descriptor of type `kind`, or None."""
        found = (each.class_descriptors.get(kind) for each in self.interfaces if each.number == interface)
        return next(found, None)


def parse_settings(configuration: bytes) -> tuple[Setting, ...]:
    """Return the alternate settings that a host finds in a configuration descriptor, up to the first malformed part."""
    settings: list[Setting] = []
    for descriptor in _split(configuration[: int.from_bytes(configuration[2:4], "little")]):
        kind = descriptor[1]
        if kind == INTERFACE and len(descriptor) >= _INTERFACE.size:
            _, _, number, alternate, _, code, subclass, protocol, _ = _INTERFACE.unpack_from(descriptor)
            settings.append(Setting(number, alternate, code, subclass, protocol, ()))
        elif kind == ENDPOINT and len(descriptor) >= _ENDPOINT.size and settings:
            _, _, address, attributes, size, _ = _ENDPOINT.unpack_from(descriptor)
            endpoint = Endpoint(address, attributes, size & 0x7FF)
            settings[-1] = replace(settings[-1], endpoints=(*settings[-1].endpoints, endpoint))
        elif kind in (PIPE_USAGE, SS_ENDPOINT_COMPANION) and settings and settings[-1].endpoints:
            *others, last = settings[-1].endpoints
            last = replace(last, **_extra(kind, descriptor))
            settings[-1] = replace(settings[-1], endpoints=(*others, last))
    return tuple(settings)


def _extra(kind: int, descriptor: bytes) -> dict[str, int]:
    """Return what a descriptor that follows an endpoint's says of it, as fields of `Endpoint`."""
    if kind == PIPE_USAGE:
        return {"pipe": descriptor[2]} if len(descriptor) >= 3 else {}
    exponent = descriptor[3] & 0x1F if len(descriptor) >= 4 else 0
    return {"max_streams": 1 << min(exponent, 16) if exponent else 0}


def _split(configuration: bytes) -> Iterator[bytes]:
    """Yield each descriptor, up to the first with an impossible length."""
    at = 0
    while at + 2 <= len(configuration) and 2 <= configuration[at] <= len(configuration) - at:
        yield configuration[at : at + configuration[at]]
        at += configuration[at]


def parse_identity(device: bytes) -> tuple[int, int, int]:
    """Return idVendor, idProduct and bcdDevice of a device descriptor."""
    vid, pid, release = _DEVICE.unpack(device)[7:10]
    return vid, pid, release


def check_layout(interfaces: Sequence[InterfaceDescriptor]) -> None:
    """Raise ValueError unless the interfaces can be in one device (USB 2.0 9.6.5).

    Each alternate setting must have one descriptor, each interface a setting 0, and no endpoint may be in two
    interfaces.
    """
    settings = [(interface.number, interface.alternate) for interface in interfaces]
    if not settings or len(set(settings)) != len(settings):
        raise ValueError("no interface, or two with the same number and alternate setting; change one of them")
    if any((number, 0) not in settings for number, _ in settings):
        raise ValueError("an interface has no alternate setting 0; add it")
    owners: dict[int, int] = {}
    for interface in interfaces:
        for endpoint in interface.endpoints:
            if owners.setdefault(endpoint.address, interface.number) != interface.number:
                raise ValueError(f"endpoint {endpoint.address:#04x} is in two interfaces; give one another address")
