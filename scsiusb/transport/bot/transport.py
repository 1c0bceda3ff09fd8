"""Bulk-Only Transport (USB MSC BOT 1.0): one command at a time, whose it is, and reset recovery when it goes wrong."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, Protocol

from scsiusb.base.releases import Releases
from scsiusb.errors import (
    AccessDenied,
    DeviceBusy,
    DeviceClosed,
    DeviceGone,
    DeviceTimeout,
    TransportError,
)
from scsiusb.quirks.model import Quirk
from scsiusb.transport.base import Completion, Direction
from scsiusb.transport.bot.exchange import Phases
from scsiusb.transport.bot.formats import CLASS_INTERFACE_IN, GET_MAX_LUN, MAX_CDB, MAX_LUN
from scsiusb.transport.bot.reset_recovery import Failures, Recovery, recover
from scsiusb.usb.backend import AsyncTransfers, Code
from scsiusb.usb.port import LONGEST_TIMEOUT_MS, Port

CONTROL_TIMEOUT: Final = 5.0  # seconds; in a recovery no more than the command had, if that is not too little
LEAST_CONTROL_TIMEOUT: Final = 0.5

# As Linux has it: larger commands break some high-speed sticks.
MAX_TRANSFER_HIGH_SPEED: Final = 120 * 1024
MAX_TRANSFER_SUPER_SPEED: Final = 1024 * 1024
MAX_TRANSFER_BY_QUIRK: Final = ((Quirk.MAX_SECTORS_64, 64 * 512), (Quirk.MAX_SECTORS_240, 240 * 512))
LONGEST: Final = LONGEST_TIMEOUT_MS / 1000

LUNS: Final = range(MAX_LUN + 1)
CDB_LENGTHS: Final = range(1, MAX_CDB + 1)
NONE: Final = Direction.NONE
get_ident: Final = threading.get_ident

log = logging.getLogger(__name__)


class User(Protocol):
    """Whose command it is."""

    @property
    def is_over(self) -> bool: ...

    def check(self) -> None:
        """Raises, where it is over, what its user should know."""


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
        self._user: User | None = None
        self._is_interrupted = False
        self._is_lost = False
        self.shared: dict[int, Any] = {}
        self._out_of_step = False
        self._failures = Failures()
        self._is_silent = False
        self._thread = 0  # that is in the middle of a command
        self._closed = False
        self.quirks = quirks = port.quirks.flags
        self.max_transfer = port.limit_transfer_size(_max_transfer(port.info.speed, quirks))
        self.memory = port.memory
        self.resets = port.resets
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
        self._phases = Phases(port, releases)
        releases.add(self._settle)
        self.max_lun = 0 if Quirk.SINGLE_LUN in self.quirks else self._get_max_lun()

    def execute(
        self,
        lun: int,
        cdb: bytes,
        direction: Direction,
        buffer: memoryview,
        timeout: float,
        user: User | None = None,
    ) -> Completion:
        """Runs one command (BOT 5.3). Raises TransportError; the device has then been recovered, if it could be.

        It is the command of `user`, who may `interrupt` it, or be over before it begins.
        """
        if lun not in LUNS or len(cdb) not in CDB_LENGTHS:
            raise ValueError(f"LUN {lun} and a CDB of {len(cdb)} bytes do not fit a CBW")
        if direction is NONE and len(buffer):
            raise ValueError(f"command {cdb[0]:02X}h: {len(buffer)} bytes of data without a direction")
        with self.lock:
            if self._closed or self._thread:
                self._check_open()
                self._check_not_under_way()
            self._user = user
            try:
                if user is not None and user.is_over:  # behind: whoever ends it now finds it here
                    user.check()
                if self._out_of_step:
                    self._recover_first(timeout)
                self._set_out(lun, cdb, direction, buffer, timeout)
                number, code, count = self._phases.move()
                return self.conclude(cdb, timeout, number, code, count)
            finally:
                self._dismiss_user()

    def _set_out(self, lun: int, cdb: bytes, direction: Direction, buffer: memoryview, timeout: float) -> None:
        self._note_exchange(True)
        self._out_of_step = True  # until the CSW is here; an exception of any kind leaves it so
        self._thread = get_ident()
        self._phases.begin(lun, cdb, direction, buffer, timeout if timeout < LONGEST else LONGEST)

    def conclude(self, cdb: bytes, timeout: float, number: int, code: Code, count: int) -> Completion:
        """Goes on with a command that was begun: see `Phases.after`. Raises as `execute`."""
        try:
            completion = self._phases.after(number, code, count)
        except TransportError as error:
            self._fail(cdb, timeout, error)
            raise
        finally:
            self._thread = 0
        self._succeed(cdb)
        return completion

    def _succeed(self, cdb: bytes) -> None:
        if self._failures.count:
            self._failures.note_success(cdb[0])
        self._out_of_step = False
        self._note_exchange(False)

    def _fail(self, cdb: bytes, timeout: float, error: TransportError) -> None:
        """Recovers, and lets the error on its way to the caller tell how; DeviceGone says more than that error."""
        if isinstance(error, DeviceGone):
            return
        self._failures.note_failure(cdb[0])
        self._is_silent = isinstance(error, DeviceTimeout)
        recovery = self._recover(timeout)
        error.tried = recovery.tried
        error.may_repeat = recovery.error is None and not self._is_interrupted
        done = "recovered by" if recovery.error is None else "not recovered by"
        error.what += f" ({done} {' and '.join(recovery.tried)})"

    def _dismiss_user(self) -> None:
        self._thread = 0  # also where an exception came before anything was sent
        with self._interrupting:
            self._user = None
            if self._is_interrupted and not self._is_lost:
                self._is_interrupted = False
                self._port.interrupt(False)

    # --- commands that are looked after together with those of other devices ---------------------

    @property
    def async_transfers(self) -> AsyncTransfers | None:
        """For moving the phases of many devices in one thread; None where the platform, or the handle, cannot."""
        return self._port.async_transfers

    def begin(
        self, lun: int, cdb: bytes, direction: Direction, buffer: memoryview, timeout: float, user: User
    ) -> Phases | None:
        """The first half of `execute`, up to where the CBW would be sent; then `conclude` and `release` it.

        None where `execute` would have to wait, to recover the device, or to raise.
        """
        if not self.lock.acquire(blocking=False):
            return None
        if self._closed or self._thread:
            self.lock.release()
            return None
        self._user = user
        if self._out_of_step or user.is_over:
            self.release()
            return None
        try:
            self._set_out(lun, cdb, direction, buffer, timeout)
        except BaseException:
            self.release()
            raise
        return self._phases

    def release(self) -> None:
        """Lets others have the device. A command that was not concluded leaves it out of step."""
        self._dismiss_user()
        self.lock.release()

    @property
    def ignore_residue(self) -> bool:
        return self._phases.ignore_residue

    @ignore_residue.setter
    def ignore_residue(self, ignored: bool) -> None:
        self._phases.ignore_residue = ignored

    def interrupt(self, user: User) -> None:
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

    def busy_here(self) -> tuple[str, str]:
        """What is wrong, and what to do, when a signal handler wants the device in the middle of a command."""
        what = f"{self._port.info} cannot be used from a signal handler while a command is running in this thread"
        return what, "set a flag in the handler and act on it after the command"

    def after_fork(self) -> None:
        """In a fork's child, instead of `close`."""
        self._closed = True
        self._releases.forget()
        self._port.after_fork()

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

    def check_identity(self) -> None:
        """Raises DeviceGone where the device that answers now is not the one that was opened."""
        with self.lock:
            self._check_open()
            self._port.check_identity()

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
            raise DeviceBusy(*self.busy_here())

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

    def _recover_first(self, timeout: float) -> None:
        """Before a command to a device that an earlier one, or another program, left out of step."""
        error = self._recover(timeout).error
        try:
            if error is not None:
                raise error
        finally:
            del error  # this frame is in its traceback

    def _recover(self, timeout: float) -> Recovery:
        """Reset recovery (BOT 5.3.4), then a port reset; raises DeviceGone."""
        seconds = min(CONTROL_TIMEOUT, max(timeout, LEAST_CONTROL_TIMEOUT))
        # A class reset that was followed by another failure did not help, a device that says nothing may not mind it,
        # and one that ignores it in data-out takes the next CBW for data.
        thorough = self._failures.count > 1 or self._phases.owes_data or self._is_silent
        recovery = recover(self._port, seconds, thorough=thorough)
        if recovery.error is None:
            self._phases.owes_data = self._is_silent = False
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
