"""Bulk-Only Transport (USB MSC BOT 1.0): CBW, data and CSW in turn, and reset recovery when they get out of step."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Final

from scsiusb.errors import (
    AccessDenied,
    DeviceBusy,
    DeviceClosed,
    DeviceGone,
    DeviceTimeout,
    MalformedReply,
    PhaseError,
    TransferStalled,
    TransportError,
)
from scsiusb.releases import Releases
from scsiusb.transport.base import FAILED, Completion, Direction
from scsiusb.transport.formats import (
    CBW_CODEC,
    CLASS_INTERFACE_IN,
    CSW_CODEC,
    CSW_SIGNATURE,
    FLAG_DATA_IN,
    GET_MAX_LUN,
    MAX_CDB,
    MAX_LUN,
    STATUS_PHASE_ERROR,
)
from scsiusb.transport.recovery import Failures, Recovery, note_rung, recover
from scsiusb.usb.backend import Code
from scsiusb.usb.port import LONGEST_TIMEOUT, Port
from scsiusb.usb.quirks import Quirk

CONTROL_TIMEOUT: Final = 5.0  # seconds; in a recovery no more than the command had, if that is not too little
LEAST_CONTROL_TIMEOUT: Final = 0.5
CLEAR_HALT: Final = "clear halt"
CSW_AGAIN: Final = "CSW again"

# As Linux has it: larger commands break some high-speed sticks.
MAX_TRANSFER_HIGH_SPEED: Final = 120 * 1024
MAX_TRANSFER_SUPER_SPEED: Final = 1024 * 1024
MAX_TRANSFER_BY_QUIRK: Final = ((Quirk.MAX_SECTORS_64, 64 * 512), (Quirk.MAX_SECTORS_240, 240 * 512))
LONGEST: Final = LONGEST_TIMEOUT / 1000
PAUSE: Final = 125e-6  # seconds between CBW and data for devices that need one, as Linux has it

LUNS: Final = range(MAX_LUN + 1)
CDB_LENGTHS: Final = range(1, MAX_CDB + 1)
CBW_LENGTH: Final = CBW_CODEC.length
CSW_LENGTH: Final = CSW_CODEC.length
CBW_PATCH: Final = CBW_CODEC.values_offset  # its signature stands in the buffer once and for all
patch_cbw, unpack_csw = CBW_CODEC.pack_values_into, CSW_CODEC.unpack_from

# Each look into an enumeration costs as much as a call.
OK: Final = Code.OK
NONE, IN, OUT = Direction.NONE, Direction.IN, Direction.OUT

log = logging.getLogger(__name__)


class BulkOnlyTransport:
    """Owns its port: closing the transport closes it. Safe to use from several threads.

    `note_exchange` is told when a command goes onto the wire (True) and when the device is in step again (False).
    `close` is added to `releases` before anything is sent.
    """

    def __init__(
        self, port: Port, note_exchange: Callable[[bool], None] | None = None, releases: Releases | None = None
    ) -> None:
        self._port = port
        self._note_exchange = note_exchange or _nobody
        self.lock = threading.RLock()
        """Whoever has it keeps other threads' commands out."""
        self._interrupting = threading.RLock()
        self._user: object = None
        self._is_interrupted = False
        self._is_lost = False
        self.shared: dict[int, Any] = {}
        self._tag = 0
        self._out_of_step = False
        self._failures = Failures()
        self._owes_data = self._is_silent = False
        self._thread = 0  # that is in the middle of a command
        self._closed = False
        self.quirks = quirks = port.quirks.flags
        self.ignore_residue = Quirk.IGNORE_RESIDUE in quirks
        self.max_transfer = port.fitting(_max_transfer(port.info.speed, quirks))
        self._signature = port.quirks.signature or CSW_SIGNATURE
        self._learns_signature = Quirk.ANY_SIGNATURE in quirks and port.quirks.signature is None
        self._checks_tag = Quirk.IGNORE_TAG not in quirks
        self._pause = PAUSE if Quirk.GO_SLOW in quirks else 0.0
        self.lends = port.lends
        self._releases = Releases()
        try:
            if releases is not None:
                releases.add(self.close)
            self._prepare()
        except BaseException:
            self._releases.close()
            raise

    def _prepare(self) -> None:
        port, releases = self._port, self._releases
        releases.add(port.close)
        self._cbw = port.lend(CBW_LENGTH)
        releases.add(self._cbw.release)
        CBW_CODEC.put_constants(self._cbw)
        # Whole packets: a CSW with bytes behind it is then seen as one, not as an overflow.
        packet = port.bulk_in.max_packet_size
        self._csw = port.lend(-(-CSW_LENGTH // packet) * packet)
        releases.add(self._csw.release)
        releases.add(self._settle)
        self.max_lun = 0 if Quirk.SINGLE_LUN in self.quirks else self._get_max_lun()

    def execute(self, lun: int, cdb: bytes, direction: Direction, buffer: memoryview, timeout: float) -> Completion:
        """Runs one command (BOT 5.3). Raises TransportError; the device has then been recovered, if it could be."""
        if lun not in LUNS or len(cdb) not in CDB_LENGTHS:
            raise ValueError(f"LUN {lun} and a CDB of {len(cdb)} bytes do not fit a CBW")
        if direction is NONE and len(buffer):
            raise ValueError(f"command {cdb[0]:02X}h: {len(buffer)} bytes of data without a direction")
        with self.lock:
            if self._closed or self._thread:
                self._check_open()
                self._check_not_under_way()
            if self._out_of_step:
                self._recover_first(timeout)
            deadline = time.monotonic() + (timeout if timeout < LONGEST else LONGEST)
            self._note_exchange(True)
            self._out_of_step = True  # until the CSW is here; an exception of any kind leaves it so
            self._thread = threading.get_ident()
            try:
                completion = self._exchange(lun, cdb, direction, buffer, deadline)
            except DeviceGone:
                raise
            except TransportError as error:
                self._failures.note_failure(cdb[0])
                self._after_failure(error, timeout)
                raise
            finally:
                self._thread = 0
            if self._failures.count:
                self._failures.note_success(cdb[0])
            self._out_of_step = False
            self._note_exchange(False)
            return completion

    def begin(self, user: object) -> None:
        """The commands that follow are this user's, until `end`; only for who has `hold`."""
        if self._thread:
            self._check_not_under_way()
        self._user = user

    def end(self) -> None:
        with self._interrupting:
            self._user = None
            if self._is_interrupted and not self._is_lost:
                self._is_interrupted = False
                self._port.interrupt(False)

    def interrupt(self, user: object) -> None:
        """Ends the user's command under way, if there is one: it raises TransportError, and the device is recovered."""
        with self._interrupting:
            if self._user is user:
                self._is_interrupted = True
                self._port.interrupt(True)

    def lose(self) -> None:
        """The device has gone: whatever is under way ends now, and nothing begins."""
        with self._interrupting:
            self._is_lost = True
            self._port.interrupt(True)

    @property
    def is_under_way_here(self) -> bool:
        """Is this thread in the middle of a command (and now in a signal's handler)?"""
        return self._thread == threading.get_ident()

    def abandon(self) -> None:
        """In a fork's child, instead of `close`."""
        self._closed = True
        self._releases.forget()
        self._port.abandon()

    def hold(self) -> AbstractContextManager[object]:
        return self.lock

    @contextmanager
    def probing(self) -> Iterator[Port]:
        """Lends the port for exchanges that break the protocol's rules; the device is recovered behind them."""
        with self.lock:
            self._check_open()
            self._check_not_under_way()
            self._note_exchange(True)
            self._out_of_step = True
            try:
                yield self._port
            finally:
                self._recover(CONTROL_TIMEOUT)

    @property
    def resets(self) -> int:
        """How often the device was reset at its port."""
        return self._port.resets

    def check_identity(self) -> None:
        """Raises DeviceGone where the device that answers now is not the one that was opened."""
        with self.lock:
            self._check_open()
            self._port.check_identity()

    def buffer(self, size: int) -> AbstractContextManager[memoryview]:
        self._check_open()
        return self._port.buffer(size)

    def close(self) -> None:
        """Waits for the command under way, recovers one that was interrupted, closes the port. May be called again."""
        try:
            self._close()
        except BaseException:  # Ctrl-C may have come while we waited for another thread's command
            self._close()
            raise

    def _close(self) -> None:
        with self.lock:
            self._check_not_under_way()
            self._closed = True
            self._releases.close()

    def _check_open(self) -> None:
        if self._closed:
            raise DeviceClosed(f"{self._port.info} was closed")

    def _check_not_under_way(self) -> None:
        """The lock lets its own thread in again: a signal's handler, in the middle of a command."""
        if self._thread:
            raise DeviceBusy(f"a command to {self._port.info} is under way in this thread", "raise an exception first")

    def _exchange(self, lun: int, cdb: bytes, direction: Direction, buffer: memoryview, deadline: float) -> Completion:
        """The three phases (BOT 5.1 to 5.3), with what is only needed when one goes wrong set apart."""
        port, length = self._port, len(buffer)
        self._owes_data = direction is OUT and length > 0
        self._tag = (self._tag + 1) & 0xFFFFFFFF
        flags = FLAG_DATA_IN if direction is IN else 0
        patch_cbw(self._cbw, CBW_PATCH, self._tag, length, flags, lun, len(cdb), cdb)
        code, count = port.write(self._cbw, _left(deadline))
        if code is not OK or count != CBW_LENGTH:
            self._fail_cbw(code, count)
        if self._pause:
            time.sleep(self._pause)
        count, overflow = 0, False
        if direction is IN and length:
            code, count = port.read(buffer, _left(deadline))
            if code is not OK:
                overflow = self._end_data_in(code, count, length)
            if count == CSW_LENGTH and self._is_csw_instead_of_data(buffer, count):
                self._csw[:CSW_LENGTH] = buffer[:count]
                return self._check_csw(count, length, 0)
        elif length:
            code, count = port.write(buffer, _left(deadline))
            if code is not OK:
                self._end_data_out(code, count, length)
            self._owes_data = False
        code, received = port.read(self._csw, _left(deadline))
        if code is not OK or not received:
            received = self._read_csw_again(code, received, deadline)
        completion = self._check_csw(received, length, count)
        if overflow:
            raise PhaseError(f"data-in phase: the device sent more than the {length} bytes asked for")
        return completion

    def _fail_cbw(self, code: Code, count: int) -> None:
        if code is Code.PIPE:
            self._owes_data = False
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

    def _read_csw_again(self, code: Code, count: int, deadline: float) -> int:
        """Once more after a STALL or nothing at all (BOT 5.3.3, figure 2); returns its length."""
        self._check_csw_code(code)
        if code is Code.PIPE:
            self._clear_halt_in()
        note_rung(self._port, CSW_AGAIN, logging.DEBUG)
        code, count = self._port.read(self._csw, _left(deadline))
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
        signature, tag, residue, status = unpack_csw(self._csw)
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

    def _get_max_lun(self) -> int:
        """0 where the device stalls, hangs or lies (BOT 3.2 allows the STALL)."""
        try:
            reply = self._port.control_in(
                CLASS_INTERFACE_IN, GET_MAX_LUN, 0, self._port.info.interface, 1, CONTROL_TIMEOUT
            )
        except (DeviceGone, AccessDenied):
            raise
        except TransportError as error:
            log.info("GET MAX LUN: %s; taken as 0", error)
            return 0
        return reply[0] if len(reply) == 1 and reply[0] <= MAX_LUN else 0

    def _clear_halt_in(self) -> None:
        note_rung(self._port, CLEAR_HALT, logging.DEBUG)
        self._port.clear_halt_in()

    def _after_failure(self, error: TransportError, timeout: float) -> None:
        """Recovers, and lets the error on its way to the caller tell how; DeviceGone says more than that error."""
        self._is_silent = isinstance(error, DeviceTimeout)
        recovery = self._recover(timeout)
        error.tried = recovery.tried
        error.may_repeat = recovery.error is None and not self._is_interrupted
        done = "recovered by" if recovery.error is None else "not recovered by"
        error.what += f" ({done} {' and '.join(recovery.tried)})"

    def _recover_first(self, timeout: float) -> None:
        """Before a command to a device that an earlier one, or another program, left out of step."""
        recovery = self._recover(timeout)
        if recovery.error is not None:
            raise recovery.error

    def _recover(self, timeout: float) -> Recovery:
        """Reset recovery (BOT 5.3.4), then a port reset; raises DeviceGone."""
        seconds = min(CONTROL_TIMEOUT, max(timeout, LEAST_CONTROL_TIMEOUT))
        # A class reset that was followed by another failure did not help, a device that says nothing may not mind it,
        # and one that ignores it in data-out takes the next CBW for data.
        thorough = self._failures.count > 1 or self._owes_data or self._is_silent
        recovery = recover(self._port, seconds, thorough=thorough)
        if recovery.error is None:
            self._owes_data = self._is_silent = False
            self._out_of_step = False
            self._note_exchange(False)
        return recovery

    def _settle(self) -> None:
        """At close: a command that was interrupted must not greet the next driver."""
        if self._out_of_step and not self._is_lost:
            with suppress(DeviceGone):
                self._recover(CONTROL_TIMEOUT)


def _nobody(on: bool) -> None: ...


def _max_transfer(speed: str, quirks: Quirk) -> int:
    by_speed = MAX_TRANSFER_SUPER_SPEED if speed.startswith("super") else MAX_TRANSFER_HIGH_SPEED
    limits = (limit for quirk, limit in MAX_TRANSFER_BY_QUIRK if quirk in quirks)
    return min((by_speed, *limits))


def _left(deadline: float) -> int:
    """Milliseconds, at least one."""
    left = int((deadline - time.monotonic()) * 1000)
    return left if left > 0 else 1
