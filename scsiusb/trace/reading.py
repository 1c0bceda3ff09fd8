"""Reads the commands from a pcapng file that Linux's usbmon filled, by Wireshark, tcpdump, or `Tracing`."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, Final, NamedTuple

from scsiusb.errors import MalformedReply
from scsiusb.trace.conversation import Conversation, Exchange
from scsiusb.trace.recorder import BULK, LINKTYPE_USB_LINUX_MMAPPED, USBMON
from scsiusb.usb.backend import ENDPOINT_IN

LINKTYPE_USB_LINUX: Final = 189  # with a header of 48 bytes
SECTION, INTERFACE, PACKET = 0x0A0D0D0A, 1, 6  # block types (pcapng 4)
LITTLE_ENDIAN: Final = 0x1A2B3C4D
LARGEST_BLOCK: Final = 1 << 26  # bytes
SUBMITTED, COMPLETED = ord("S"), ord("C")
HEADERS: Final = {LINKTYPE_USB_LINUX_MMAPPED: 64, LINKTYPE_USB_LINUX: 48}
NOT_PCAPNG: Final = "give a pcapng file of USB packets from Linux, such as `--trace` makes"


class Told(NamedTuple):
    """A command of a device."""

    bus: int
    device: int
    exchange: Exchange


def read_commands(file: BinaryIO) -> Iterator[Told]:
    """Yield each command, in the order of their ends; one that has none comes when the next begins, or last.

    Raise MalformedReply for what is no such file, and where it ends within a block.
    """
    conversations: dict[tuple[int, int], Conversation] = {}
    for header, data in _packets(file):
        bus, device = header.bus, header.device
        if header.transfer != BULK:
            continue
        conversation = conversations.setdefault((bus, device), Conversation())
        at = header.seconds + header.microseconds / 1e6
        ended = None
        if header.event == COMPLETED and header.status:
            conversation.failed(f"status {header.status}")
        if header.event == SUBMITTED and not header.endpoint & ENDPOINT_IN:
            ended = conversation.sent(data, header.length, at)
        elif header.event == COMPLETED and header.endpoint & ENDPOINT_IN:
            ended = conversation.received(data, header.length, at)
        if ended is not None:
            yield Told(bus, device, ended)
    for (bus, device), conversation in conversations.items():
        rest = conversation.cut_off()
        if rest is not None:
            yield Told(bus, device, rest)


class _Header(NamedTuple):
    """What is used of usbmon's header."""

    event: int
    transfer: int
    endpoint: int
    device: int
    bus: int
    seconds: int
    microseconds: int
    status: int
    length: int


def _packets(file: BinaryIO) -> Iterator[tuple[_Header, bytes]]:
    headers: list[int] = []  # length of the header of each interface's packets; 0: others than USB
    for kind, body in _blocks(file):
        if kind == SECTION:
            headers = []
        elif kind == INTERFACE and len(body) >= 2:
            headers.append(HEADERS.get(int.from_bytes(body[:2], "little"), 0))
        elif kind == PACKET and len(body) >= 20:
            interface, _, _, captured, _ = struct.unpack_from("<5I", body)
            size = headers[interface] if interface < len(headers) else 0
            packet = body[20 : 20 + captured]
            if size and len(packet) >= size:
                yield _header(packet), packet[size:]


def _header(packet: bytes) -> _Header:
    found = USBMON.parse(packet[:48].ljust(USBMON.sizeof(), b"\0"))
    return _Header(
        found.event,
        found.transfer,
        found.endpoint,
        found.device,
        found.bus,
        found.seconds,
        found.microseconds,
        found.status,
        found.length,
    )


def _blocks(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield the type and the body of each block."""
    is_first = True
    while head := file.read(8):
        kind, length = struct.unpack("<2I", head.ljust(8, b"\0"))
        if (is_first and kind != SECTION) or length % 4 or not 12 <= length <= LARGEST_BLOCK:
            raise MalformedReply("the bytes are no pcapng file" if is_first else "a block has no length", NOT_PCAPNG)
        body = file.read(length - 8)
        if len(body) < length - 8:
            raise MalformedReply(f"the file ends within a block of {length} bytes", NOT_PCAPNG)
        if kind == SECTION and int.from_bytes(body[:4], "little") != LITTLE_ENDIAN:
            raise MalformedReply("the file is of a machine with another byte order", NOT_PCAPNG)
        is_first = False
        yield kind, body[:-4]
