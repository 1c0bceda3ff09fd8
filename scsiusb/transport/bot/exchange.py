"""One exchange: CBW, data and CSW in turn, each checked before the next (BOT 5 and 6).

`Exchange.run` is the whole story of a command. It does no I/O: it yields each step, and receives its result.
"""

from __future__ import annotations

import logging
import time
from typing import Final

from scsiusb.base.releases import Releases
from scsiusb.errors import MalformedReply, PhaseError, TransferStalled, TransportError
from scsiusb.quirks.cures import Symptom, remedy
from scsiusb.quirks.model import Quirk
from scsiusb.transport.base import FAILED, GOOD, Call, Completion, Direction, Pause, Story
from scsiusb.transport.bot.formats import (
    CBW_CODEC,
    CSW_CODEC,
    CSW_SIGNATURE,
    FLAG_DATA_IN,
    MAX_CDB,
    MAX_LUN,
    STATUS_PHASE_ERROR,
    least_cdb,
)
from scsiusb.transport.recovery import Synchronizer, note_step
from scsiusb.transport.turns import Turns
from scsiusb.usb.backend import Code
from scsiusb.usb.port import LONGEST_TIMEOUT_MS, Port

CLEAR_HALT: Final = "clear halt"
CSW_AGAIN: Final = "CSW again"
PAUSE: Final = 125e-6  # seconds between CBW and data, for devices that need it; Linux waits as long

CBW_LENGTH: Final = CBW_CODEC.length
CSW_LENGTH: Final = CSW_CODEC.length
CBW_PATCH: Final = CBW_CODEC.values_offset  # the signature before it is written once, when the port is opened
patch_cbw, unpack_csw = CBW_CODEC.pack_values_into, CSW_CODEC.unpack_from

# Module constants: each look into an enumeration costs as much as a call.
monotonic: Final = time.monotonic
OK, PIPE, OVERFLOW = Code.OK, Code.PIPE, Code.OVERFLOW
IN, NONE = Direction.IN, Direction.NONE
LUNS: Final = range(MAX_LUN + 1)
CDB_LENGTHS: Final = range(1, MAX_CDB + 1)
LONGEST: Final = LONGEST_TIMEOUT_MS / 1000


class Exchange:
    """Runs one command at a time, through the two wrappers' buffers, which `releases` gives back."""

    def __init__(self, port: Port, synchronizer: Synchronizer, turns: Turns, releases: Releases) -> None:
        quirks = port.quirks
        self._port = port
        self._synchronizer = synchronizer
        self._turns = turns
        self._tag = 0
        self._least_cdb = least_cdb(port.info.setting.subclass)
        self._bulk_in, self._bulk_out = port.bulk_in.address, port.bulk_out.address
        self.ignore_residue = Quirk.IGNORE_RESIDUE in quirks.flags
        self._signature = quirks.signature or CSW_SIGNATURE
        self._learns_signature = Quirk.ANY_SIGNATURE in quirks.flags and quirks.signature is None
        self._checks_tag = Quirk.IGNORE_TAG not in quirks.flags
        self._pause = Pause(PAUSE) if Quirk.GO_SLOW in quirks.flags else None
        self._good = Completion(GOOD, 0, -1)
        self._cbw = port.memory.allocate(CBW_LENGTH)[:CBW_LENGTH]
        releases.add(self._cbw.release)
        CBW_CODEC.put_constants(self._cbw)
        # Whole packets: a CSW with bytes after it is then seen as such, not as an overflow.
        self._packet = packet = port.bulk_in.max_packet_size
        room = -(-CSW_LENGTH // packet) * packet
        self._csw = port.memory.allocate(room)[:room]
        releases.add(self._csw.release)

    def run(  # noqa: C901 - the whole story of a command, on one page
        self, lun: int, cdb: bytes, direction: Direction, data: memoryview, timeout: float
    ) -> Story[Completion]:
        """Run one command, within a turn; `data` is the whole data phase, empty for none; `timeout` in seconds.

        Raise TransportError where the exchange does not end with a valid and meaningful CSW (BOT 6.3), after the
        recovery of the device; ValueError for what a CBW cannot say.
        """
        device, turns = self._synchronizer, self._turns
        length, size = len(data), len(cdb)
        is_in = direction is IN
        if lun not in LUNS or size not in CDB_LENGTHS or (length and direction is NONE):
            raise ValueError(f"LUN {lun}, {direction}: a CDB of {size} and data of {length} bytes do not fit a CBW")
        turn = turns.holder.get(None)
        if turns.is_closed or (turn is not None and turn.user is not None and turn.user.is_over):
            turns.check(turn)
        if timeout > LONGEST:
            timeout = LONGEST
        try:
            if device.out_of_step:
                yield from device.recover_first(timeout)
            if device.note_exchange is not None:
                device.note_exchange(True)
            device.out_of_step = True  # until the CSW is here; an exception of any kind leaves it so
            try:
                device.owes_data = length > 0 and not is_in
                deadline = monotonic() + timeout
                self._tag = tag = (self._tag + 1) & 0xFFFFFFFF
                if size < self._least_cdb:
                    size = self._least_cdb  # the rest of the CBW is zeros
                patch_cbw(self._cbw, CBW_PATCH, tag, length, FLAG_DATA_IN if is_in else 0, lun, size, cdb)
                code, count = yield self._bulk_out, self._cbw, deadline
                if code is not OK or count != CBW_LENGTH:
                    self._fail_cbw(code, count)
                if self._pause is not None:
                    yield self._pause

                moved, has_more, is_csw, room = 0, False, False, data
                if length:
                    # A CSW in the place of data that is shorter needs room, or it would be lost as a babble. Whole
                    # packets of data go where they belong: more room would only wait for the packet after them.
                    is_tiny = is_in and length < CSW_LENGTH and length % self._packet
                    room = self._csw if is_tiny else data
                    code, moved = yield self._bulk_in if is_in else self._bulk_out, room, deadline
                    if code is not OK:
                        has_more = yield from self._cut_short(code, moved, length, is_in)
                    is_csw = is_in and moved == CSW_LENGTH and self._is_csw(room)
                    if is_tiny and not is_csw:
                        has_more, moved = has_more or moved > length, min(moved, length)
                        data[:moved] = room[:moved]

                if is_csw:  # the device skipped the data phase, without a STALL
                    if room is data:
                        self._csw[:CSW_LENGTH] = data[:moved]
                    count, moved = moved, 0
                else:
                    code, count = yield self._bulk_in, self._csw, deadline
                    device.owes_data = False
                    if code is not OK or not count:
                        count = yield from self._read_csw_again(code, deadline)
                if count == CSW_LENGTH and unpack_csw(self._csw) == (self._signature, tag, 0, GOOD):
                    completion = self._good if moved == self._good.transferred else self._note_good(moved)
                else:
                    completion = self._check_csw(count, length, moved)
                if has_more:
                    raise PhaseError(f"data-in phase: the device sent more than the {length} bytes asked for")
            except BaseException as error:
                # What the device reported in this exchange may not be reported again. Counted without a call: another
                # Ctrl-C could come into it before anything is counted.
                device.losses.count += 1
                device.doubts.count += 1
                if isinstance(error, TransportError):
                    yield from device.fail(cdb, timeout, error)
                raise
        except TransportError as error:
            turns.note(error)
            raise
        if device.failures.count:
            device.failures.note_success(cdb[0])
        device.out_of_step = False
        if device.note_exchange is not None:
            device.note_exchange(False)
        return completion

    def _fail_cbw(self, code: Code, count: int) -> None:
        if code is PIPE:
            self._synchronizer.owes_data = False
            raise TransferStalled("CBW phase: the device refused the command block (STALL)")
        self._port.check(code, "CBW phase")
        raise TransportError(f"CBW phase: only {count} of the {CBW_LENGTH} bytes were sent")

    def _cut_short(self, code: Code, count: int, length: int, is_in: bool) -> Story[bool]:
        """End a data phase that did not move all; return whether the device had more (babble; a CSW follows)."""
        if code is PIPE:  # the normal way to say "less than asked" (BOT 6.7.2, 6.7.3)
            yield from self._clear_halt(is_in)
        elif code is not OVERFLOW or not is_in:
            done = "in phase, {} of {} bytes received" if is_in else "out phase, {} of {} bytes sent"
            self._port.check(code, f"data-{done.format(count, length)}")
        return code is OVERFLOW

    def _clear_halt(self, is_in: bool) -> Story[None]:
        note_step(self._port, CLEAR_HALT, logging.DEBUG)
        yield Call(self._port.clear_halt_in if is_in else self._port.clear_halt_out)

    def _is_csw(self, data: memoryview) -> bool:
        """Return whether the data is this command's CSW: its tag distinguishes it from data that looks like one."""
        signature, tag, _, _ = unpack_csw(data)
        return bool(signature == self._signature and tag == self._tag)

    def _read_csw_again(self, code: Code, deadline: float) -> Story[int]:
        """Read the CSW once more after a STALL or an empty packet (BOT 5.3.3, figure 2); return its length."""
        self._check_csw_code(code)
        if code is PIPE:
            yield from self._clear_halt(True)
        note_step(self._port, CSW_AGAIN, logging.DEBUG)
        code, count = yield self._bulk_in, self._csw, deadline
        if code is PIPE:
            raise TransferStalled("CSW phase: the device stalled twice")
        self._check_csw_code(code)
        return int(count)

    def _check_csw_code(self, code: Code) -> None:
        if code is OVERFLOW:
            raise MalformedReply("CSW phase: the device sent more than a packet")
        if code is not PIPE:
            self._port.check(code, "CSW phase")

    def _check_csw(self, count: int, asked: int, transferred: int) -> Completion:
        """Return what the CSW says; raise MalformedReply or PhaseError for one that is not valid or meaningful."""
        if count != CSW_LENGTH:
            raise MalformedReply(f"CSW phase: {count} bytes came where a CSW has {CSW_LENGTH}")
        signature, tag, residue, status = unpack_csw(self._csw)
        if tag != self._tag and self._checks_tag:
            what = f"CSW phase: the tag is {tag:#x}, the command's is {self._tag:#x}"
            raise MalformedReply(what, self._cure(Symptom.WRONG_TAG))
        if self._learns_signature:
            self._learn_signature(signature)
        if signature != self._signature and signature != CSW_SIGNATURE:
            what = f"CSW phase: the signature is {signature.hex()}, not {self._signature.hex()}"
            raise MalformedReply(what, self._cure(Symptom.WRONG_SIGNATURE))
        if status == STATUS_PHASE_ERROR:
            raise PhaseError("the device reports a phase error")
        if status > FAILED:
            raise MalformedReply(f"CSW phase: the status is {status}")
        # A residue larger than what was asked for is taken as all of it: then no byte of the data counts.
        return Completion(status, min(residue, asked) if residue and not self.ignore_residue else 0, transferred)

    def _cure(self, symptom: Symptom) -> str | None:
        """Return the remedy that names a quirk; None if that quirk applies already."""
        info = self._port.info
        return remedy(symptom, info.vid, info.pid, self._port.quirks.flags) or None

    def _note_good(self, transferred: int) -> Completion:
        """Make the completion of a command that went well, kept for the next one of its size."""
        self._learns_signature = False
        self._good = Completion(GOOD, 0, transferred)
        return self._good

    def _learn_signature(self, signature: bytes) -> None:
        self._learns_signature = False
        self._signature = signature
        if signature != CSW_SIGNATURE:
            self._port.learn(Quirk.ANY_SIGNATURE, f"the first CSW was signed {signature.hex()}", signature)
