"""Checks of the USB descriptors: they must fit Bulk-Only Transport and be consistent (USB 2.0 9.6, BOT 4)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from scsiusb.conformance.device_under_test import DeviceUnderTest
from scsiusb.conformance.outcome import Check, NotApplicable, Violation
from scsiusb.errors import TransferStalled
from scsiusb.usb.interface import SUBCLASSES

GET_DESCRIPTOR: Final = 6
DEVICE, CONFIGURATION, STRING, INTERFACE, ENDPOINT, QUALIFIER, BOS = 1, 2, 3, 4, 5, 6, 15
DEVICE_LENGTH: Final = 18
HEADER: Final = 9  # of a configuration
PACKET_SIZES: Final = {
    "full": (8, 16, 32, 64),
    "high": (512,),
    "super": (1024,),
    "super-plus": (1024,),
}
DIGITS: Final = frozenset("0123456789ABCDEF")
LEAST_DIGITS: Final = 12
INTERFACE_ASSOCIATIONS: Final = (0xEF, 0x02, 0x01)  # class, subclass and protocol of a composite device
LARGEST: Final = 4096  # bytes; usbfs refuses more
BOS_SINCE: Final = 0x0201  # bcdUSB


class Descriptor(NamedTuple):
    """One descriptor of a configuration or a BOS."""

    kind: int
    body: bytes  # all of it, length and type included


def descriptor(device: DeviceUnderTest, kind: int, length: int, index: int = 0, language: int = 0) -> bytes:
    """Return what GET_DESCRIPTOR returns, at most `length` bytes (USB 2.0 9.4.3). Raises TransportError."""
    return device.exchange.request_in(0x80, GET_DESCRIPTOR, kind << 8 | index, language, length)


def parts(data: bytes) -> Iterator[Descriptor]:
    """Yield the descriptors in `data` one after another. Raises Violation where a length does not fit."""
    at = 0
    while at + 2 <= len(data):
        length = data[at]
        if length < 2 or at + length > len(data):
            raise Violation(
                "GET_DESCRIPTOR of the configuration",
                f"a descriptor of {length} bytes at byte {at} of {len(data)}",
                "descriptors that follow each other up to wTotalLength",
            )
        yield Descriptor(data[at + 1], data[at : at + length])
        at += length


def device(device: DeviceUnderTest) -> str:
    """Check the device descriptor: length, type, class, number of configurations."""
    asked = "GET_DESCRIPTOR of the device, 18 bytes"
    data = descriptor(device, DEVICE, DEVICE_LENGTH)
    if len(data) != DEVICE_LENGTH or data[0] != DEVICE_LENGTH or data[1] != DEVICE:
        raise Violation(asked, f"{len(data)} bytes, {data[:2].hex(' ')} first", "18 bytes that begin with 12 01")
    classes = tuple(data[4:7])
    if classes != (0, 0, 0) and classes != INTERFACE_ASSOCIATIONS:
        raise Violation(
            asked, f"device class {bytes(classes).hex(' ')}", "00 00 00: the class is in the interface (BOT 4.1)"
        )
    if not data[17]:
        raise Violation(asked, "no configurations", "bNumConfigurations of at least 1")
    return f"bcdUSB {data[3]:x}.{data[2]:02x}, class in the interface, configurations: {data[17]}"


def configuration(device: DeviceUnderTest) -> str:
    """Check the length of the configuration descriptor and its counts of interfaces and endpoints."""
    asked = "GET_DESCRIPTOR of the configuration"
    head = descriptor(device, CONFIGURATION, HEADER)
    total = int.from_bytes(head[2:4], "little")
    data = descriptor(device, CONFIGURATION, LARGEST)
    if len(data) != total:
        raise Violation(asked, f"{len(data)} bytes, wTotalLength {total}", "as many bytes as wTotalLength")
    found = list(parts(data))
    interfaces = [part.body for part in found if part.kind == INTERFACE]
    if any(len(body) < 9 for body in interfaces):
        raise Violation(asked, "an interface descriptor of fewer than 9 bytes", "9 bytes")
    numbers = {body[2] for body in interfaces}
    if len(numbers) != data[4]:
        raise Violation(asked, f"bNumInterfaces {data[4]}, but {len(numbers)} interfaces", "equal numbers")
    _count_endpoints(asked, found)
    return f"{total} bytes, {len(found)} descriptors, {len(numbers)} interfaces"


def _count_endpoints(asked: str, found: list[Descriptor]) -> None:
    announced = sum(part.body[4] for part in found if part.kind == INTERFACE)
    found_count = sum(part.kind == ENDPOINT for part in found)
    if announced != found_count:
        raise Violation(asked, f"sum of bNumEndpoints {announced}, but {found_count} endpoints", "equal numbers")


def qualifier(device: DeviceUnderTest) -> str:
    """Check the length and type of the device qualifier. NotApplicable at other speeds than high."""
    if device.info.speed != "high":
        raise NotApplicable(f"the device runs at {device.info.speed} speed")
    try:
        data = descriptor(device, QUALIFIER, 10)
    except TransferStalled as error:
        raise NotApplicable("STALL: the device supports high speed only") from error
    if len(data) != 10 or data[:2] != bytes((10, QUALIFIER)):
        raise Violation("GET_DESCRIPTOR of the device qualifier", data.hex(" "), "10 bytes that begin with 0a 06")
    return "10 bytes"


def bos(device: DeviceUnderTest) -> str:
    """Check the length of the BOS descriptor and its count of device capabilities."""
    release = int.from_bytes(descriptor(device, DEVICE, DEVICE_LENGTH)[2:4], "little")
    if release < BOS_SINCE:
        raise NotApplicable(f"bcdUSB is {release >> 8:x}.{release & 0xFF:02x}")
    asked = "GET_DESCRIPTOR of the BOS"
    data = descriptor(device, BOS, LARGEST)
    total = int.from_bytes(data[2:4], "little")
    if data[:2] != bytes((5, BOS)) or len(data) != total:
        raise Violation(
            asked, f"{len(data)} bytes, wTotalLength {total}", "05 0f first, and as many bytes as wTotalLength"
        )
    count = sum(1 for _ in parts(data)) - 1
    if count != data[4]:
        raise Violation(asked, f"bNumDeviceCaps {data[4]}, but {count} capabilities", "equal numbers")
    return f"{count} device capabilities"


def subclass(device: DeviceUnderTest) -> str:
    """Check the interface descriptor's subclass."""
    value = device.info.setting.subclass
    asked = "the interface descriptor"
    if not value or value not in SUBCLASSES:
        raise Violation(
            asked, f"bInterfaceSubClass {value:02X}h", "06h (SCSI) or another command set of the Mass Storage overview"
        )
    return f"bInterfaceSubClass {value:02X}h, {SUBCLASSES[value]}; bInterfaceProtocol 50h"


def endpoints(device: DeviceUnderTest) -> str:
    """Check that there is one bulk endpoint for each direction, numbered 1 to 15."""
    found = device.info.setting.endpoints
    into = [each.address for each in found if each.is_bulk_in]
    out = [each.address for each in found if each.is_bulk_out]
    came = f"bulk-in {bytes(into).hex(' ') or 'none'}, bulk-out {bytes(out).hex(' ') or 'none'}"
    if len(into) != 1 or len(out) != 1 or not (into[0] & 0xF and out[0] & 0xF):
        raise Violation("the interface's endpoints", came, "exactly one bulk-in and one bulk-out, numbered 1 to 15")
    return came


def packet_sizes(device: DeviceUnderTest) -> str:
    """Check wMaxPacketSize of both bulk endpoints against the sizes of the speed."""
    legal = PACKET_SIZES.get(device.info.speed)
    if legal is None:
        raise NotApplicable(f"no packet sizes are known for {device.info.speed} speed")
    sizes = [each.max_packet_size for each in (device.exchange.port.bulk_in, device.exchange.port.bulk_out)]
    if not set(sizes) <= set(legal):
        raise Violation(
            f"wMaxPacketSize of the bulk endpoints at {device.info.speed} speed",
            " and ".join(map(str, sizes)),
            " or ".join(map(str, legal)),
        )
    return f"{sizes[0]} and {sizes[1]} bytes at {device.info.speed} speed"


def serial_number(device: DeviceUnderTest) -> str:
    """Check the length and the characters of the serial number."""
    index = descriptor(device, DEVICE, DEVICE_LENGTH)[16:17]
    asked = "the device's serial number"
    if index in (b"", b"\0"):
        raise Violation(asked, "iSerialNumber 0: no serial number", "at least 12 digits")
    text = _string(device, index[0], _language(device)) or ""
    if len(text) < LEAST_DIGITS or not set(text) <= DIGITS:
        raise Violation(asked, ascii(text), "at least 12 characters, all of them 0 to 9 and A to F")
    return f"{len(text)} digits"


def strings(device: DeviceUnderTest) -> str:
    """Read each string that the device descriptor refers to, in the first language."""
    indexes = [index for index in descriptor(device, DEVICE, DEVICE_LENGTH)[14:17] if index]
    if not indexes:
        raise NotApplicable("the device has no strings")
    language = _language(device)
    found = [_string(device, index, language) for index in indexes]
    return f"{len(found)} strings in language {language:04X}h"


def _language(device: DeviceUnderTest) -> int:
    data = _whole_string(device, 0, 0)
    if len(data) < 4:
        raise Violation("GET_DESCRIPTOR of string 0", data.hex(" "), "at least one language")
    return int.from_bytes(data[2:4], "little")


def _string(device: DeviceUnderTest, index: int, language: int) -> str:
    return _whole_string(device, index, language)[2:].decode("utf-16-le", "replace")


def _whole_string(device: DeviceUnderTest, index: int, language: int) -> bytes:
    data = descriptor(device, STRING, 255, index, language)
    if len(data) < 2 or data[0] != len(data) or data[1] != STRING or data[0] % 2:
        raise Violation(
            f"GET_DESCRIPTOR of string {index}",
            f"{len(data)} bytes, {data[:2].hex(' ')} first",
            "an even bLength equal to the number of bytes, and type 03",
        )
    return data


CHECKS: Final = (
    Check(
        "device-descriptor",
        "USB 2.0 9.6.1",
        "The device descriptor must have 18 bytes, and the device class must be 00h (class in the interface) or EFh.",
        device,
    ),
    Check(
        "configuration-descriptor",
        "USB 2.0 9.6.3",
        "wTotalLength, bNumInterfaces and bNumEndpoints must match the descriptors that the device returns.",
        configuration,
    ),
    Check(
        "device-qualifier",
        "USB 2.0 9.6.2",
        "A high-speed device must return a device qualifier of 10 bytes, or stall the request.",
        qualifier,
    ),
    Check(
        "bos-descriptor",
        "USB 3.2 9.6.2",
        "A device of USB 2.01 or later must return a BOS descriptor whose counts match its content.",
        bos,
    ),
    Check("interface-subclass", "BOT 4.3", "bInterfaceSubClass must be the code of a command set.", subclass),
    Check(
        "bulk-endpoints", "BOT 4.4", "The interface must have exactly one bulk-in and one bulk-out endpoint.", endpoints
    ),
    Check(
        "packet-size",
        "USB 2.0 5.8.3",
        "wMaxPacketSize of the bulk endpoints must be a value allowed at this speed.",
        packet_sizes,
    ),
    Check(
        "string-descriptors",
        "USB 2.0 9.6.7",
        "Each string that the device descriptor refers to must exist and be well-formed.",
        strings,
    ),
    Check(
        "serial-number",
        "BOT 4.1.1",
        "The serial number must have at least 12 characters, all of them 0 to 9 or A to F.",
        serial_number,
    ),
)
