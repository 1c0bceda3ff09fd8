"""A device of another author, imitated: the mass-storage class of the package `usbip` 0.7.0 on PyPI.

Its bulk-in is a queue. A command puts data and CSW there at once, and only a port reset empties it: a class reset and
CLEAR_FEATURE do not. So each check that recovers in the middle of a command leaves the rest of it for the next one.
It ignores the page code of INQUIRY without EVPD, and the page of MODE SENSE.
"""

from __future__ import annotations

from collections import deque

from scsiusb.virtual import Memory, Stick, Unit
from scsiusb.virtual.device.bot import BULK_ONLY_MASS_STORAGE_RESET, CBW, GET_MAX_LUN
from scsiusb.virtual.device.function import Answer, Setup, Stall

Sense = tuple[int, int, int]
NO_SENSE: Sense = (0, 0, 0)
INVALID_OPCODE: Sense = (5, 0x20, 0)
INVALID_FIELD: Sense = (5, 0x24, 0)
LBA_OUT_OF_RANGE: Sense = (5, 0x21, 0)


class QueueingFunction:
    """The function of that device; see the module. `packet` is the largest packet, `keeps` also survives a port reset.

    `accepts` are operation codes of commands that it does not have, and ends with status 0.
    """

    def __init__(self, medium: Memory, bulk_in: int, packet: int) -> None:
        self.medium, self.bulk_in, self.packet = medium, bulk_in, packet
        self.keeps = False
        self.accepts: set[int] = set()
        self.queue: deque[bytes] = deque()
        self._halted: set[int] = set()
        self._sense = NO_SENSE
        self._pending: tuple[int, int, int, bytearray] | None = None  # a WRITE: tag, LBA, length, data

    # --- the protocol of a function ---

    def reset(self) -> None:
        self._halted.clear()
        self._pending = None
        if not self.keeps:
            self.queue.clear()

    def is_halted(self, endpoint: int) -> bool:
        return endpoint in self._halted

    def halt(self, endpoint: int) -> None:
        self._halted.add(endpoint)

    def clear_halt(self, endpoint: int) -> None:
        self._halted.discard(endpoint)

    def control(self, setup: Setup, data: bytes) -> bytes:
        request = (setup.request_type, setup.request)
        if request == BULK_ONLY_MASS_STORAGE_RESET:
            self._pending = None
            return b""
        if request == GET_MAX_LUN:
            return b"\0"
        raise Stall

    def send(self, endpoint: int, room: memoryview, stream: int = 0) -> tuple[Answer, int]:
        if endpoint in self._halted:
            return Answer.STALL, 0
        if not self.queue:
            return Answer.NAK, 0
        chunk = self.queue.popleft()
        sent = chunk[: len(room)]
        room[: len(sent)] = sent
        if len(chunk) > len(sent):
            self.queue.appendleft(chunk[len(sent) :])
        return Answer.SHORT, len(sent)

    def receive(self, endpoint: int, data: memoryview, stream: int = 0) -> tuple[Answer, int]:
        if endpoint in self._halted:
            return Answer.STALL, 0
        if self._pending is not None:
            self._write(bytes(data))
        elif len(data) == CBW.size and bytes(data[:4]) == b"USBC":
            _, tag, length, flags, _, cdb_length, cdb = CBW.unpack(data)
            self._command(tag, length, bool(flags & 0x80), cdb[: cdb_length & 0x1F])
        return Answer.MORE, len(data)

    # --- the commands ---

    def _command(self, tag: int, length: int, is_in: bool, cdb: bytes) -> None:
        if not cdb:
            return
        if cdb[0] == 0x2A:
            self._pending = (tag, int.from_bytes(cdb[2:6], "big"), int.from_bytes(cdb[7:9], "big") * 512, bytearray())
            return
        data = self._data(cdb)
        if isinstance(data, tuple):
            self._sense, failed, sent = data, 1, b""
        else:
            failed, sent = 0, data[:length]
        if sent:
            self.queue.append(sent)
        elif length and data != b"":
            self._halted.add(self.bulk_in if is_in else 0)
        self._csw(tag, length - len(sent) if data != b"" else 0, failed)

    def _write(self, data: bytes) -> None:
        assert self._pending is not None
        tag, lba, length, got = self._pending
        got += data
        if len(got) >= length:
            self.medium.write(lba * 512, memoryview(got[:length]))
            self._pending = None
            self._csw(tag, 0, 0)

    def _csw(self, tag: int, residue: int, status: int) -> None:
        self.queue.append(b"USBS" + tag.to_bytes(4, "little") + residue.to_bytes(4, "little") + bytes([status]))

    def _data(self, cdb: bytes) -> bytes | Sense:
        """Return the data of a command, all of it whatever its allocation length; or the sense data of its failure."""
        if cdb[0] in (0x00, 0x1B, 0x1E, 0x35) or cdb[0] in self.accepts:
            return b""
        last = self.medium.blocks - 1
        capacity = last.to_bytes(8, "big") + (512).to_bytes(4, "big")
        fixed: dict[int, bytes] = {
            0x1A: bytes((3, 0, 0, 0)),
            0x5A: bytes((0, 6, 0, 0, 0, 0, 0, 0)),
            0x25: capacity[4:],
            0x9E: capacity + bytes(20),
        }
        if cdb[0] == 0x12:
            return self._inquiry(cdb)
        if cdb[0] == 0x03:
            (key, asc, ascq), self._sense = self._sense, NO_SENSE
            return bytes((0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq, 0, 0, 0, 0))
        if cdb[0] == 0x28:
            lba, blocks = int.from_bytes(cdb[2:6], "big"), int.from_bytes(cdb[7:9], "big")
            return self._read(lba * 512, blocks * 512)
        return fixed.get(cdb[0], INVALID_OPCODE)

    def _inquiry(self, cdb: bytes) -> bytes | Sense:
        if not cdb[1] & 1:
            return bytes((0, 0x80, 4, 2, 31, 0, 0, 0)) + b"USB-IP  DISK            0001"
        pages = {0x00: bytes((0, 0, 0, 2, 0, 0x80)), 0x80: b"\0\x80\0\x100123456789ABCDEF"}
        return pages.get(cdb[2], INVALID_FIELD)

    def _read(self, offset: int, length: int) -> bytes | Sense:
        if offset + length > self.medium.blocks * 512:
            return LBA_OUT_OF_RANGE
        return bytes(self.medium.data[offset : offset + length])


def queueing(medium: Memory | None = None) -> tuple[Stick, QueueingFunction]:
    """Return a stick that is such a device, and its function."""
    medium = medium or Memory(bytes(range(256)) * 2 * 256)
    stick = Stick([Unit(medium)])
    ((key, setting),) = [((each.interface, each.alternate), each) for each in stick.settings]
    endpoint = next(each for each in setting.endpoints if each.is_bulk_in)
    function = QueueingFunction(medium, endpoint.address, endpoint.max_packet_size)
    stick._functions[key] = function
    return stick, function
