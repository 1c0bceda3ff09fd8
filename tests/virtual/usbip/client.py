"""A USB/IP client that packs and unpacks all messages itself, without the code of the server."""

from __future__ import annotations

import socket
import struct

from scsiusb.virtual.usbip.server import Server
from tests.sticks import PATIENCE
from tests.virtual.host import cbw

IN, OUT = 0x81, 0x02
EINVAL, EPIPE, EPROTO, EOVERFLOW, ECONNRESET, ESHUTDOWN, EREMOTEIO = -22, -32, -71, -75, -104, -108, -121
SHORT_NOT_OK, ZERO_PACKET = 1, 0x40
SUBMIT, UNLINK = 1, 2
DEVICE = 0x10002
END_OF_STREAM = b""


class Client:
    """A connection to the server, with the role of a host controller."""

    def __init__(self, server: Server) -> None:
        self.socket = socket.create_connection((server.host, server.port), PATIENCE)
        self.seqnum = 0
        self.tag = 0

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def receive(self, count: int) -> bytes:
        """Receive `count` bytes, or fewer if the server closes the connection."""
        data = b""
        while len(data) < count:
            try:
                piece = self.socket.recv(count - len(data))
            except ConnectionError:
                return data
            if not piece:
                return data
            data += piece
        return data

    def request(self, code: int, body: bytes = b"", version: int = 0x0111) -> tuple[int, int, int]:
        self.socket.sendall(struct.pack(">HHI", version, code, 0) + body)
        return struct.unpack(">HHI", self.receive(8))

    def attach(self, bus_id: bytes = b"1-1") -> bytes:
        assert self.request(0x8003, bus_id.ljust(32, b"\0")) == (0x0111, 3, 0)
        return self.receive(312)

    # --- URBs -----------------------------------------------------------------------------------

    def submit(self, endpoint: int, length: int = 0, data: bytes = b"", flags: int = 0, setup: bytes = bytes(8)) -> int:
        self.seqnum += 1
        size = length if endpoint & 0x80 else len(data)
        head = struct.pack(">IIIII", SUBMIT, self.seqnum, DEVICE, endpoint >> 7, endpoint & 0x7F)
        self.socket.sendall(head + struct.pack(">IIIII8s", flags, size, 0, 0xFFFFFFFF, 0, setup) + data)
        return self.seqnum

    def unlink(self, target: int) -> int:
        self.seqnum += 1
        self.socket.sendall(struct.pack(">IIIIII24x", UNLINK, self.seqnum, DEVICE, 0, 0, target))
        return self.seqnum

    def answer(self, is_in: bool = True) -> tuple[int, int, int, bytes]:
        """Receive an answer: command, seqnum, status and data (for OUT, as many zeros as bytes were moved)."""
        head = self.receive(48)
        command, seqnum, _, _, _, status, moved = struct.unpack_from(">IIIIIiI", head)
        if command == 4:
            return command, seqnum, status, b""
        assert command == 3
        return command, seqnum, status, self.receive(moved) if is_in else bytes(moved)

    def move(
        self, endpoint: int, length: int = 0, data: bytes = b"", flags: int = 0, setup: bytes = bytes(8)
    ) -> tuple[int, bytes]:
        """Submit a URB and return its status and data; the next answer must be for this URB."""
        seqnum = self.submit(endpoint, length, data, flags, setup)
        command, answered, status, moved = self.answer(bool(endpoint & 0x80))
        assert (command, answered) == (3, seqnum)
        return status, moved

    def control_in(self, kind: int, request: int, value: int, index: int, length: int) -> tuple[int, bytes]:
        return self.move(0x80, length, setup=struct.pack("<BBHHH", kind, request, value, index, length))

    def control_out(self, kind: int, request: int, value: int, index: int, data: bytes = b"") -> int:
        setup = struct.pack("<BBHHH", kind, request, value, index, len(data))
        return self.move(0, data=data, setup=setup)[0]

    # --- Bulk-Only Transport --------------------------------------------------------------------

    def command(self, cdb: bytes, length: int, flags: int = 0x80) -> None:
        self.tag += 1
        assert self.move(OUT, data=cbw(self.tag, length, flags, 0, cdb)) == (0, bytes(31))

    def csw(self) -> tuple[int, int]:
        status, data = self.move(IN, 13)
        assert status == 0
        signature, tag, residue, passed = struct.unpack("<4sIIB", data)
        assert (signature, tag) == (b"USBS", self.tag)
        return passed, residue

    def configure(self) -> Client:
        """Attach and configure the device, and clear the unit attention of power-on."""
        self.attach()
        assert self.control_out(0, 9, 1, 0) == 0
        self.command(bytes(6), 0)
        assert self.csw() == (1, 0)
        return self
