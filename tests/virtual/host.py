"""A host that drives a stick through its handle, and packs all bytes itself, without the code under test."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from scsiusb.usb.backend import Code, Device
from scsiusb.virtual import Bus, Stick, VirtualHandle
from tests.deadlines import within

IN, OUT = 0x81, 0x02
TIMEOUT = 50


@dataclass(frozen=True)
class Result:
    """The result of the three phases of a command."""

    data: bytes
    code: Code  # of the data phase; OK if there was none
    moved: int  # bytes of the data phase
    status: int
    residue: int


def cbw(tag: int, length: int, flags: int, lun: int, cdb: bytes, cdb_length: int | None = None) -> bytes:
    """Return a CBW (BOT 1.0 table 5.1)."""
    return struct.pack(
        "<4sIIBBB16s", b"USBC", tag, length, flags, lun, len(cdb) if cdb_length is None else cdb_length, cdb
    )


class Host:
    """The host's side of Bulk-Only Transport; the only error recovery is to clear a halt before the CSW.

    Unless `attentions`, the unit attentions of power-on are cleared at first.
    """

    def __init__(self, stick: Stick, interface: int = 0, attentions: bool = False, bus: Bus | None = None) -> None:
        self.stick = stick
        self.bus = bus or Bus(stick)
        self.device: Device = self.bus.devices()[0]
        self.handle: VirtualHandle = self.bus.open(self.device)
        if self.handle.driver_active(interface):
            self.handle.detach_driver(interface)
        self.handle.claim(interface)
        self.tag = 0
        if not attentions:
            for lun in range(len(stick.units)):
                self.sense(lun)

    def write(self, data: bytes, timeout_ms: int = TIMEOUT) -> tuple[Code, int]:
        return self.handle.bulk(OUT, memoryview(bytearray(data)), within(timeout_ms))

    def read(self, length: int, timeout_ms: int = TIMEOUT) -> tuple[Code, bytes]:
        buffer = bytearray(length)
        code, count = self.handle.bulk(IN, memoryview(buffer), within(timeout_ms))
        return code, bytes(buffer[:count])

    def command(self, cdb: bytes, length: int = 0, flags: int = 0x80, lun: int = 0) -> None:
        self.tag += 1
        assert self.write(cbw(self.tag, length, flags, lun, cdb)) == (Code.OK, 31)

    def csw(self) -> tuple[int, int]:
        """Receive the CSW and return status and residue; a halt is cleared once."""
        code, data = self.read(13)
        if code is Code.PIPE:
            self.handle.clear_halt(IN)
            code, data = self.read(13)
        assert code is Code.OK
        signature, tag, residue, status = struct.unpack("<4sIIB", data)
        assert (signature, tag) == (b"USBS", self.tag)
        return status, residue

    def do(self, cdb: bytes, length: int = 0, out: bytes | None = None, lun: int = 0) -> Result:
        """Execute a command with data-in of `length` bytes, with data-out `out`, or without data."""
        self.command(cdb, length if out is None else len(out), 0x80 if out is None else 0, lun)
        code, data, moved = Code.OK, b"", 0
        if out is not None:
            code, moved = self.write(out)
            if code is Code.PIPE:
                self.handle.clear_halt(OUT)
        elif length:
            code, data = self.read(length)
            moved = len(data)
            if code is Code.PIPE:
                self.handle.clear_halt(IN)
        status, residue = self.csw()
        return Result(data, code, moved, status, residue)

    def data(self, cdb: bytes, length: int, lun: int = 0) -> bytes:
        """Return the data of a data-in command, which must succeed."""
        result = self.do(cdb, length, lun=lun)
        assert result.status == 0
        return result.data

    def ok(self, cdb: bytes, out: bytes | None = None, lun: int = 0) -> None:
        result = self.do(cdb, out=out, lun=lun)
        assert (result.status, result.residue) == (0, 0)

    def sense(self, lun: int = 0) -> tuple[int, int, int]:
        """Return key, ASC and ASCQ by REQUEST SENSE."""
        data = self.data(bytes((0x03, 0, 0, 0, 18, 0)), 18, lun)
        assert len(data) == 18
        assert data[0] & 0x7F == 0x70
        assert data[7] == 10
        return data[2] & 0x0F, data[12], data[13]

    def fails(self, cdb: bytes, length: int = 0, out: bytes | None = None, lun: int = 0) -> tuple[int, int, int]:
        """Return the sense of a command, which must fail with no data moved."""
        result = self.do(cdb, length, out, lun)
        assert result.status == 1
        assert result.residue == (length if out is None else len(out))
        return self.sense(lun)


def cdb10(opcode: int, lba: int, blocks: int, flags: int = 0) -> bytes:
    return struct.pack(">BBIxHx", opcode, flags, lba, blocks)


def cdb16(opcode: int, lba: int, blocks: int, flags: int = 0) -> bytes:
    return struct.pack(">BBQIxx", opcode, flags, lba, blocks)
