"""Reads the commands from a pcapng file that Linux's usbmon filled, by Wireshark, tcpdump, or `Tracing`."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, Final, NamedTuple

from scsiusb.base.packing import parsed
from scsiusb.errors import MalformedReply
from scsiusb.trace.conversation import Conversation, Exchange
from scsiusb.trace.recorder import BULK, CONTROL, GET_DESCRIPTOR, LINKTYPE_USB_LINUX_MMAPPED, PRESENT, USBMON
from scsiusb.trace.uas_conversation import PIPE_COMMAND, UasConversation, is_command, pipes_in
from scsiusb.usb.backend import ENDPOINT_IN

LINKTYPE_USB_LINUX: Final = 189  # with a header of 48 bytes
SECTION, INTERFACE, PACKET = 0x0A0D0D0A, 1, 6  # block types (pcapng 4)
LITTLE_ENDIAN: Final = 0x1A2B3C4D
LARGEST_BLOCK: Final = 1 << 26  # bytes
SUBMITTED, COMPLETED = ord("S"), ord("C")
HEADERS: Final = {LINKTYPE_USB_LINUX_MMAPPED: 64, LINKTYPE_USB_LINUX: 48}
CONFIGURATION: Final = 2  # descriptor type, in the upper byte of wValue
WORDS: Final = {  # what Linux's statuses of a transfer mean (Documentation/driver-api/usb/error-codes.rst)
    -2: "cancelled",
    -19: "the device is gone",
    -32: "stall",
    -62: "no answer",
    -71: "protocol error",
    -75: "more data than asked for",
    -84: "CRC error",
    -104: "cancelled",
    -108: "the device is gone",
    -110: "timeout",
    -121: "short",
}
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
    devices: dict[tuple[int, int], _Traced] = {}
    for header, data in _packets(file):
        traced = devices.setdefault((header.bus, header.device), _Traced())
        for ended in traced.take(header, data):
            yield Told(header.bus, header.device, ended)
    for (bus, device), traced in devices.items():
        for ended in traced.cut_off():
            yield Told(bus, device, ended)


class _Traced:
    """The transfers of one device, which may be used by Bulk-Only Transport and by UAS, one after the other.

    Both conversations take all bulk transfers: what is not of its protocol, neither takes for a command.
    """

    def __init__(self) -> None:
        self._bot = Conversation()
        self._uas = UasConversation({})
        self._asked = 0
        """The transfer that requests a configuration descriptor."""

    def take(self, header: _Header, data: bytes) -> Iterator[Exchange]:
        """Take a packet; yield the commands that it ended."""
        if header.transfer == CONTROL:
            self._control(header, data)
        elif header.transfer == BULK:
            at = header.seconds + header.microseconds / 1e6
            if header.event == SUBMITTED:
                yield from self._submitted(header, data, at)
            elif header.event == COMPLETED:
                yield from self._completed(header, data, at)

    def cut_off(self) -> Iterator[Exchange]:
        """Yield the commands that have not ended."""
        yield from _given(self._bot.cut_off())
        yield from self._uas.cut_off()

    def _control(self, header: _Header, data: bytes) -> None:
        """Learn the endpoints from a configuration descriptor."""
        request, kind = header.setup[1], header.setup[3]
        if header.event == SUBMITTED and header.has_setup and (request, kind) == (GET_DESCRIPTOR, CONFIGURATION):
            self._asked = header.number
        elif header.event == COMPLETED and header.number == self._asked:
            self._uas.pipes.update(pipes_in(data))

    def _submitted(self, header: _Header, data: bytes, at: float) -> Iterator[Exchange]:
        is_out = not header.endpoint & ENDPOINT_IN
        if is_out and not self._bot.is_open and is_command(data):
            self._uas.pipes.setdefault(header.endpoint, PIPE_COMMAND)
        if is_out and self._uas.pipes.get(header.endpoint) == PIPE_COMMAND:
            yield from _given(self._bot.cut_off())
        elif is_out:
            yield from _given(self._bot.sent(data, header.length, at))
        yield from _given(self._uas.begun(header.number, header.endpoint, data, header.length, 0, at))

    def _completed(self, header: _Header, data: bytes, at: float) -> Iterator[Exchange]:
        problem = WORDS.get(header.status, f"status {header.status}") if header.status else ""
        if problem:
            self._bot.failed(problem)
        if header.endpoint & ENDPOINT_IN:
            yield from _given(self._bot.received(data, header.length, at))
        yield from _given(self._uas.ended(header.number, header.endpoint, data, header.length, at, problem))


def _given(exchange: Exchange | None) -> Iterator[Exchange]:
    if exchange is not None:
        yield exchange


class _Header(NamedTuple):
    """What is used of usbmon's header."""

    number: int
    event: int
    transfer: int
    endpoint: int
    device: int
    bus: int
    seconds: int
    microseconds: int
    status: int
    length: int
    has_setup: bool
    setup: bytes


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
    found = parsed(USBMON, packet[:48].ljust(USBMON.sizeof(), b"\0"))
    return _Header(
        found.id,
        found.event,
        found.transfer,
        found.endpoint,
        found.device,
        found.bus,
        found.seconds,
        found.microseconds,
        found.status,
        found.length,
        found.setup_flag == PRESENT,
        found.setup,
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
