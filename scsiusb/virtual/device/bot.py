"""The device's side of Bulk-Only Transport (USB MSC BOT 1.0)."""

from __future__ import annotations

import struct
from enum import Enum

from scsiusb.base.dataclass import dataclass
from scsiusb.usb.backend import Endpoint
from scsiusb.virtual.device.function import Answer, Halts, Setup, Stall
from scsiusb.virtual.target.target import Target
from scsiusb.virtual.target.task import Direction, Parameters, Task

CBW = struct.Struct("<IIIBBB16s")
_CSW = struct.Struct("<IIIB")
_CBW_SIGNATURE = 0x43425355
_CSW_SIGNATURE = 0x53425355
_RESERVED_FLAGS, _RESERVED_LUN, _RESERVED_LENGTH = 0x7F, 0xF0, 0xE0
_PASSED, _FAILED, _PHASE_ERROR = 0, 1, 2

BULK_ONLY_MASS_STORAGE_RESET = (0x21, 0xFF)
GET_MAX_LUN = (0xA1, 0xFE)


class DataIn(Enum):
    """How the device ends the data phase when it has less data than the host asked for (BOT 6.7.2)."""

    STALL = "stall"  # halts the endpoint after its data
    SHORT = "short"  # sends a short or empty packet
    PAD = "pad"  # sends zeros up to the length that the host asked for


class DataOut(Enum):
    """What the device does when the host has more data than the command needs (BOT 6.7.3)."""

    STALL = "stall"  # halts the endpoint after the data that it needs
    DISCARD = "discard"  # receives all data and ignores the rest


@dataclass(frozen=True)
class BotOptions:
    """The behaviour that BOT leaves to the device."""

    data_in: DataIn = DataIn.STALL
    data_out: DataOut = DataOut.STALL
    has_max_lun: bool = True  # a device with one unit may answer GET MAX LUN with STALL (BOT 3.2)


class Phase(Enum):
    """What the device does next: receive a CBW, move data, or send a CSW."""

    COMMAND = 0
    DATA_IN = 1
    DATA_OUT = 2
    STATUS = 3
    BROKEN = 4  # after an invalid CBW, until reset recovery (BOT 6.6.1)


class Bot(Halts):
    """The function of a Bulk-Only Transport interface: receives a CBW, moves the command's data, sends a CSW."""

    def __init__(self, bulk_in: Endpoint, bulk_out: Endpoint, target: Target, bot_options: BotOptions) -> None:
        super().__init__()
        self._in, self._out, self._target, self._bot_options = bulk_in, bulk_out, target, bot_options
        self._wait_for_cbw()

    def _wait_for_cbw(self) -> None:
        self._phase = Phase.COMMAND
        self._cbw = b""
        self._tag = self._transfer_length = 0
        self._moved = self._sent = 0  # bytes of the command's data; bytes sent in the data phase, with padding
        self._task = self._source = Task()  # the source is the task, then the CSW
        self._left = 0  # bytes of the source that are still to be sent, or that the host may still send
        self._wanted = 0  # bytes of the task that are still to be moved
        self._empty_packets = 0  # to be sent before anything else
        self._surplus = 0  # bytes more than the host announced; always 0 in a device without faults
        self._is_phase_error = False
        self._data_in, self._data_out = self._bot_options.data_in, self._bot_options.data_out

    def reset(self) -> None:
        """See `Function.reset`."""
        self._halted.clear()
        self._wait_for_cbw()

    # --- halts and class requests ---------------------------------------------------------------

    def clear_halt(self, endpoint: int) -> None:
        """See `Function.clear_halt`; after an invalid CBW without effect until the class reset (BOT 6.6.1)."""
        if self._phase is not Phase.BROKEN:
            self._halted.discard(endpoint)

    def control(self, setup: Setup, data: bytes) -> bytes:
        """See `Function.control`; supports the class reset (BOT 3.1) and GET MAX LUN (BOT 3.2)."""
        request = (setup.request_type, setup.request)
        if request == BULK_ONLY_MASS_STORAGE_RESET and not (setup.value or setup.length):
            self._wait_for_cbw()  # does not change the halts (BOT 3.1)
            return b""
        if request == GET_MAX_LUN and self._bot_options.has_max_lun and not setup.value and setup.length == 1:
            return bytes((len(self._target.units) - 1,))
        raise Stall

    # --- the command ----------------------------------------------------------------------------

    def receive(self, endpoint: int, data: memoryview, stream: int = 0) -> tuple[Answer, int]:
        """See `Function.receive`; answers NAK unless the device expects a CBW or data."""
        if endpoint in self._halted:
            return Answer.STALL, 0
        if self._phase is Phase.COMMAND:
            return Answer.MORE, self._receive_command(data)
        if self._phase is Phase.DATA_OUT:
            return Answer.MORE, self._receive_data(data)
        return Answer.NAK, 0

    def _receive_command(self, data: memoryview) -> int:
        """Receive one packet of a CBW; an endpoint with small packets (full speed) may need several."""
        packet = data[: self._out.max_packet_size]
        cbw = self._cbw + packet
        if len(packet) == self._out.max_packet_size and len(cbw) < CBW.size:
            self._cbw = cbw
        else:
            self._begin(cbw)
        return len(packet)

    def _begin(self, cbw: bytes) -> None:
        self._wait_for_cbw()
        if not is_valid(cbw):
            self._phase = Phase.BROKEN
            self._halted |= {self._in.address, self._out.address}
            return
        _, self._tag, self._transfer_length, flags, lun, length, cdb = CBW.unpack(cbw)
        self._task = self._execute(lun, cdb[:length])
        self._begin_data(bool(flags & 0x80))

    def _execute(self, lun: int, cdb: bytes) -> Task:
        return self._target.execute(lun, cdb)

    def _begin_data(self, is_in: bool) -> None:
        if self._transfer_length == 0:
            self._begin_none()
        elif is_in:
            self._begin_in()
        else:
            self._begin_out()

    def _begin_none(self) -> None:
        """Start a command for which the host expects no data: cases 1 to 3 (BOT 6.7.1)."""
        self._is_phase_error = self._task.length > 0
        self._begin_status()

    def _begin_in(self) -> None:
        """Start a command for which the host expects data-in: cases 4 to 8 (BOT 6.7.2)."""
        wrong_way = self._task.direction is Direction.OUT and self._task.length > 0
        self._wanted = 0 if wrong_way else min(self._task.length, self._transfer_length)
        self._is_phase_error = wrong_way or self._task.length > self._transfer_length
        self._phase, self._source = Phase.DATA_IN, self._task
        pads = (self._surplus or self._data_in is DataIn.PAD) and not self._is_phase_error
        self._left = self._transfer_length + self._surplus if pads else self._wanted
        if not self._left:
            self._end_data_in(0)

    def _begin_out(self) -> None:
        """Start a command for which the host sends data-out: cases 9 to 13 (BOT 6.7.3).

        If the host has less data than the command needs, nothing is written.
        """
        wrong_way = self._task.direction is Direction.IN and self._task.length > 0
        needed = self._task.length
        if self._task.takes_less:
            needed = min(needed, self._transfer_length)
        self._is_phase_error = wrong_way or needed > self._transfer_length
        self._wanted = 0 if self._is_phase_error else needed
        self._phase, self._left = Phase.DATA_OUT, self._transfer_length + self._surplus
        if not self._wanted:
            self._end_data_out()

    # --- the data -------------------------------------------------------------------------------

    def send(self, endpoint: int, room: memoryview, stream: int = 0) -> tuple[Answer, int]:
        """See `Function.send`; answers NAK unless there is data or a CSW to send."""
        if endpoint in self._halted:
            return Answer.STALL, 0
        if self._empty_packets:
            self._empty_packets -= 1
            return Answer.SHORT, 0
        if self._phase in (Phase.DATA_IN, Phase.STATUS):
            return self._send(room)
        return Answer.NAK, 0

    def _send(self, room: memoryview) -> tuple[Answer, int]:
        """Send whole packets of the source; of a packet that does not fit into `room`, the rest is lost (babble)."""
        packet = self._in.max_packet_size
        count = min(len(room), self._left)
        sent = self._fill(room[:count])
        lost = 0
        if sent == count and self._left > count:
            lost = self._count_lost(count, self._left - count)
            self._fill(memoryview(bytearray(lost)))
        self._left = 0 if sent < count else self._left - count - lost
        if not self._left:
            self._all_sent(sent + lost)
        if lost:
            return Answer.BABBLE, sent
        return (Answer.SHORT if sent % packet else Answer.MORE), sent

    def _count_lost(self, count: int, rest: int) -> int:
        """Return how many of the `rest` bytes are lost because the host had room for `count` bytes only."""
        if rest <= self._surplus:  # the host reads no more data: drop all of it, so that the CSW follows
            return rest
        packet = self._in.max_packet_size
        return min(packet - count % packet, rest) if count % packet or not count else 0

    def _fill(self, room: memoryview) -> int:
        """Fill `room` from the source, then with zeros; return fewer bytes than `room` has if the command fails."""
        if self._phase is Phase.STATUS:
            return self._source.read(room)
        data = room[: self._wanted]
        sent = self._source.read(data) if data else 0
        self._wanted -= len(data)
        self._moved += sent
        if sent == len(data) and sent < len(room):
            room[sent:] = bytes(len(room) - sent)
            sent = len(room)
        self._sent += sent
        return sent

    def _all_sent(self, last: int) -> None:
        if self._phase is Phase.STATUS:
            self._wait_for_cbw()
        else:
            self._end_data_in(last)

    def _end_data_in(self, last: int) -> None:
        """End the data-in phase; if it has less than the host asked for, as `_data_in` says.

        `last` is the number of bytes that were just sent: after whole packets, an empty packet ends the transfer.
        """
        if self._sent < self._transfer_length:
            if self._data_in is DataIn.SHORT:
                self._empty_packets += last % self._in.max_packet_size == 0
            else:
                self._halted.add(self._in.address)
        self._begin_status()

    def _receive_data(self, data: memoryview) -> int:
        """Receive the packets that hold data of the task, or with DISCARD the rest of what the host announced."""
        if self._wanted:
            used = min(len(data), self._wanted)
            self._task.write(data[:used])
            self._wanted -= used
            self._moved += used
        else:
            used = min(len(data), self._left)
        packet = self._out.max_packet_size
        taken = min(len(data), -(-used // packet) * packet)
        self._is_phase_error |= taken > self._left
        self._left = max(self._left - taken, 0)
        if not self._wanted:
            self._end_data_out()
        return taken

    def _end_data_out(self) -> None:
        """Stall the rest of the data-out, or continue to discard it, after the last byte that the task needs."""
        if not self._left:
            self._begin_status()
        elif self._data_out is DataOut.STALL:
            self._halted.add(self._out.address)
            self._begin_status()

    # --- the status -----------------------------------------------------------------------------

    def _begin_status(self) -> None:
        passed = self._task.end()
        status = _PHASE_ERROR if self._is_phase_error else _PASSED if passed else _FAILED
        self._put_status(_CSW.pack(_CSW_SIGNATURE, self._tag, self._transfer_length - self._moved, status))

    def _put_status(self, csw: bytes) -> None:
        self._phase, self._source, self._left = Phase.STATUS, Parameters(csw, len(csw)), len(csw)


def is_valid(cbw: bytes) -> bool:
    """Return whether a CBW is valid (BOT 6.2.1) and meaningful: no reserved bit set, a CDB of 1 to 16 bytes (6.2.2)."""
    if len(cbw) != CBW.size:
        return False
    signature, _, _, flags, lun, length, _ = CBW.unpack(cbw)
    reserved = flags & _RESERVED_FLAGS or lun & _RESERVED_LUN or length & _RESERVED_LENGTH
    return bool(signature == _CBW_SIGNATURE and not reserved and 1 <= length <= 16)
