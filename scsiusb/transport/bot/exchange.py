"""The three phases of a command: CBW, data and CSW in turn, each checked before the next (BOT 5 and 6)."""

from __future__ import annotations

import logging
import time
from typing import Final

from scsiusb.base.releases import Releases
from scsiusb.errors import MalformedReply, PhaseError, TransferStalled, TransportError
from scsiusb.quirks.model import Quirk
from scsiusb.transport.base import FAILED, GOOD, Completion, Direction
from scsiusb.transport.bot.formats import CBW_CODEC, CSW_CODEC, CSW_SIGNATURE, FLAG_DATA_IN, STATUS_PHASE_ERROR
from scsiusb.transport.bot.reset_recovery import note_rung
from scsiusb.usb.backend import Code, Step
from scsiusb.usb.port import Port

CLEAR_HALT: Final = "clear halt"
CSW_AGAIN: Final = "CSW again"
PAUSE: Final = 125e-6  # seconds between CBW and data for devices that need one, as Linux has it

CBW_LENGTH: Final = CBW_CODEC.length
CSW_LENGTH: Final = CSW_CODEC.length
CBW_PATCH: Final = CBW_CODEC.values_offset  # its signature stands in the buffer once and for all
monotonic: Final = time.monotonic
patch_cbw, unpack_csw = CBW_CODEC.pack_values_into, CSW_CODEC.unpack_from

# Each look into an enumeration costs as much as a call.
OK, NO_MEM = Code.OK, Code.NO_MEM
IN, OUT = Direction.IN, Direction.OUT


class Phases:
    """Owns the buffers of both wrappers, which are given back by `releases`; one command at a time."""

    def __init__(self, port: Port, releases: Releases) -> None:
        quirks = port.quirks
        self._port = port
        self._chain = port.chain
        self._tag = 0
        self.deadline = 0.0
        """When the command must have ended, by `time.monotonic`."""
        self._direction = IN
        self.data = memoryview(b"")
        self._into, self._out = port.bulk_in.address, port.bulk_out.address
        self.owes_data = False
        """Does the device, as far as we know, still wait for data-out?"""
        self.ignore_residue = Quirk.IGNORE_RESIDUE in quirks.flags
        self._signature = quirks.signature or CSW_SIGNATURE
        self._learns_signature = Quirk.ANY_SIGNATURE in quirks.flags and quirks.signature is None
        self._good = Completion(GOOD, 0, 0)
        self._checks_tag = Quirk.IGNORE_TAG not in quirks.flags
        self.pause = PAUSE if Quirk.GO_SLOW in quirks.flags else 0.0
        self.cbw = port.memory.allocate(CBW_LENGTH)[:CBW_LENGTH]
        releases.add(self.cbw.release)
        CBW_CODEC.put_constants(self.cbw)
        # Whole packets: a CSW with bytes behind it is then seen as one, not as an overflow.
        packet = port.bulk_in.max_packet_size
        csw_room = -(-CSW_LENGTH // packet) * packet
        self.csw = port.memory.allocate(csw_room)[:csw_room]
        releases.add(self.csw.release)
        self._first, self._last = (self._out, self.cbw), (self._into, self.csw)
        self.steps: tuple[Step, ...] = ()
        """Of the command that `begin` has ready: CBW, data if there is any, CSW."""

    def begin(self, lun: int, cdb: bytes, direction: Direction, buffer: memoryview, timeout: float) -> None:
        """Has the CBW ready. Then `move` the `steps`, or do so yourself."""
        self.deadline = monotonic() + timeout
        self._direction, self.data = direction, buffer
        length = len(buffer)
        self._tag = tag = (self._tag + 1) & 0xFFFFFFFF
        if direction is IN:
            flags, endpoint = FLAG_DATA_IN, self._into
        else:
            flags, endpoint = 0, self._out
            self.owes_data = length > 0
        self.steps = (self._first, (endpoint, buffer), self._last) if length else (self._first, self._last)
        patch_cbw(self.cbw, CBW_PATCH, tag, length, flags, lun, len(cdb), cdb)

    def move(self) -> tuple[int, Code, int]:
        """The steps one after the other, to the last or the first that is not whole; go on `after` that."""
        if self.pause:
            return 0, *self._port.write(self.cbw, _left(self.deadline))
        return self._chain(self.steps, self.deadline)

    def after(self, number: int, code: Code, count: int) -> Completion:
        """Goes on behind the step of that number, for which a `Handle.bulk` returned these."""
        if code is NO_MEM:
            code, count = self._port.in_parts(*self.steps[number], _left(self.deadline))
        if self.steps[number] is self._last:
            self.owes_data = False
            return self._after_csw(code, count, len(self.data))
        if number:
            return self._after_data(code, count)
        return self._after_cbw(code, count)

    def _after_cbw(self, code: Code, count: int) -> Completion:
        if code is not OK or count != CBW_LENGTH:
            self._fail_cbw(code, count)
        if self.pause:
            time.sleep(self.pause)
        buffer = self.data
        if not len(buffer):
            return self._end(0, False)
        move = self._port.read if self._direction is IN else self._port.write
        return self._after_data(*move(buffer, _left(self.deadline)))

    def _after_data(self, code: Code, count: int) -> Completion:
        if self._direction is IN:
            return self._after_data_in(code, count)
        if code is not OK:
            self._end_data_out(code, count, len(self.data))
        self.owes_data = False
        return self._end(count, False)

    def _after_data_in(self, code: Code, count: int) -> Completion:
        length, overflow = len(self.data), False
        if code is not OK:
            overflow = self._end_data_in(code, count, length)
        if count == CSW_LENGTH and self._is_csw_instead_of_data(self.data, count):
            self.csw[:CSW_LENGTH] = self.data[:count]
            return self._check_csw(count, length, 0)
        return self._end(count, overflow)

    def _end(self, transferred: int, overflow: bool) -> Completion:
        code, count = self._port.read(self.csw, _left(self.deadline))
        return self._after_csw(code, count, transferred, overflow)

    def _after_csw(self, code: Code, count: int, transferred: int, overflow: bool = False) -> Completion:
        if count == CSW_LENGTH and code is OK and not overflow:
            if unpack_csw(self.csw) == (self._signature, self._tag, 0, GOOD) and not self._learns_signature:
                if transferred != self._good.transferred:
                    self._good = Completion(GOOD, 0, transferred)
                return self._good
        elif code is not OK or not count:
            count = self._read_csw_again(code)
        completion = self._check_csw(count, len(self.data), transferred)
        if overflow:
            raise PhaseError(f"data-in phase: the device sent more than the {len(self.data)} bytes asked for")
        return completion

    def _fail_cbw(self, code: Code, count: int) -> None:
        if code is Code.PIPE:
            self.owes_data = False
            raise TransferStalled("CBW phase: the device refused the command block (STALL)")
        self._port.check(code, "CBW phase")
        raise TransportError(f"CBW phase: only {count} of the {CBW_LENGTH} bytes were sent")

    def _end_data_in(self, code: Code, count: int, length: int) -> bool:
        """The phase was cut short; returns whether the device had more (a babble; the CSW still follows)."""
        if code is Code.PIPE:  # the normal way to say "less than asked" (BOT 6.7.2)
            self._clear_halt_in()
        elif code is not Code.OVERFLOW:
            self._port.check(code, f"data-in phase, {count} of {length} bytes here")
        return code is Code.OVERFLOW

    def _end_data_out(self, code: Code, count: int, length: int) -> None:
        if code is not Code.PIPE:
            self._port.check(code, f"data-out phase, {count} of {length} bytes sent")
        note_rung(self._port, CLEAR_HALT, logging.DEBUG)  # the device takes no more (BOT 6.7.3)
        self._port.clear_halt_out()

    def _is_csw_instead_of_data(self, buffer: memoryview, count: int) -> bool:
        """The device skipped the data phase without a STALL; the tag tells its CSW from data that looks like one."""
        if len(buffer) <= count:
            return False
        signature, tag, _, _ = unpack_csw(buffer)
        return bool(signature == self._signature and tag == self._tag)

    def _read_csw_again(self, code: Code) -> int:
        """Once more after a STALL or nothing at all (BOT 5.3.3, figure 2); returns its length."""
        self._check_csw_code(code)
        if code is Code.PIPE:
            self._clear_halt_in()
        note_rung(self._port, CSW_AGAIN, logging.DEBUG)
        code, count = self._port.read(self.csw, _left(self.deadline))
        if code is Code.PIPE:
            raise TransferStalled("CSW phase: the device stalled twice")
        self._check_csw_code(code)
        return count

    def _check_csw_code(self, code: Code) -> None:
        if code is Code.OVERFLOW:
            raise MalformedReply("CSW phase: the device sent more than a packet")
        if code is not Code.PIPE:
            self._port.check(code, "CSW phase")

    def _check_csw(self, count: int, asked: int, transferred: int) -> Completion:
        """Is the CSW valid, and what does it say (BOT 6.3)?"""
        if count != CSW_LENGTH:
            raise MalformedReply(f"CSW phase: {count} bytes came where a CSW has {CSW_LENGTH}")
        signature, tag, residue, status = unpack_csw(self.csw)
        if tag != self._tag and self._checks_tag:
            raise MalformedReply(f"CSW phase: the tag is {tag:#x}, the command's is {self._tag:#x}")
        if self._learns_signature:
            self._learn_signature(signature)
        if signature != self._signature and signature != CSW_SIGNATURE:
            raise MalformedReply(f"CSW phase: the signature is {signature.hex()}, not {self._signature.hex()}")
        if status == STATUS_PHASE_ERROR:
            raise PhaseError("the device reports a phase error")
        if status > FAILED:
            raise MalformedReply(f"CSW phase: the status is {status}")
        # A residue beyond what was asked for is nonsense; so read, no byte of the data counts.
        return Completion(status, min(residue, asked) if residue and not self.ignore_residue else 0, transferred)

    def _learn_signature(self, signature: bytes) -> None:
        self._learns_signature = False
        self._signature = signature
        if signature != CSW_SIGNATURE:
            self._port.learn(Quirk.ANY_SIGNATURE, f"the first CSW was signed {signature.hex()}", signature)

    def _clear_halt_in(self) -> None:
        note_rung(self._port, CLEAR_HALT, logging.DEBUG)
        self._port.clear_halt_in()


def _left(deadline: float) -> int:
    """Milliseconds, at least one."""
    left = int((deadline - time.monotonic()) * 1000)
    return left if left > 0 else 1
