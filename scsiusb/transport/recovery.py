"""Whether the device is in step with the host, and how it is brought back after a failed exchange."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple

from scsiusb.base.counter import EventCounter
from scsiusb.errors import DeviceGone, DeviceTimeout, TransportError
from scsiusb.transport.base import Call, Story
from scsiusb.transport.turns import Turns
from scsiusb.usb.port import Port

PORT_RESET: Final = "port reset"
CONTROL_TIMEOUT: Final = 5.0  # seconds; in a recovery no more than the command had, if that is not too little
LEAST_CONTROL_TIMEOUT: Final = 0.5

log = logging.getLogger(__name__)


class Trouble(NamedTuple):
    """What is known of a device that is out of step."""

    is_repeated: bool  # more than one exchange has failed
    owes_data: bool  # it still waits for data-out, as far as is known
    is_silent: bool  # it did not answer in time


class Rung(NamedTuple):
    """One way to recover a device: its name, and the function that does it, which raises TransportError."""

    name: str
    climb: Callable[[], object]
    is_enough: bool = True  # whether the device is recovered if it works; else the next one is taken, too


Ladder = Callable[[float, Trouble], Sequence[Rung]]
"""Gives the rungs of a protocol, the gentlest first, the port reset last; it takes the seconds for each request."""


class Recovery(NamedTuple):
    """The recovery steps taken, in order, and the error of the last one; no error: the device is recovered."""

    tried: tuple[str, ...]
    error: TransportError | None = None


class Failures:
    """Count of exchanges that failed.

    It returns to 0 when the opcode that failed last succeeds. It restarts at 1 when a different opcode fails, if an
    opcode other than the one that failed last has succeeded since.
    """

    def __init__(self) -> None:
        self.count = 0
        self._opcode = -1
        self._others_succeed = False

    def note_success(self, opcode: int) -> None:
        """Record an exchange that worked; `opcode` is the command's."""
        if opcode == self._opcode:
            self.count = 0
        else:
            self._others_succeed = True

    def note_failure(self, opcode: int) -> None:
        """Record an exchange that failed."""
        if self._others_succeed and opcode != self._opcode:
            self.count = 0
        self.count += 1
        self._opcode = opcode
        self._others_succeed = False


class Synchronizer:
    """Knows whether the device is in step with the host, between two commands, and brings it back."""

    def __init__(self, port: Port, turns: Turns, ladder: Ladder, note_exchange: Callable[[bool], None] | None) -> None:
        self._port = port
        self._turns = turns
        self._ladder = ladder
        self.note_exchange = note_exchange
        self.out_of_step = False
        """Set from before the command goes out until its status was accepted, or the device was recovered."""
        self.owes_data = False
        """Whether the device, as far as is known, still waits for data-out."""
        self.failures = Failures()
        self.losses = EventCounter()
        """Exchanges that did not end with an accepted status."""
        self.doubts = EventCounter()
        """The same, and resets that a unit reported."""
        self._is_silent = False

    def begin(self) -> None:
        """Take note that something goes onto the wire."""
        if self.note_exchange is not None:
            self.note_exchange(True)
        self.out_of_step = True

    def recover_first(self, timeout: float) -> Story[None]:
        """Recover before a command, where an earlier one, or another program, left the device out of step."""
        error = (yield Call(partial(self.recover, timeout))).error
        try:
            if error is not None:
                raise error
        finally:
            del error  # this frame is in its traceback

    def fail(self, cdb: bytes, timeout: float, error: TransportError) -> Story[None]:
        """Recover after a failed exchange, and add to the error how; raise DeviceGone, which says more than that."""
        if isinstance(error, DeviceGone):
            return
        self.failures.note_failure(cdb[0])
        self._is_silent = isinstance(error, DeviceTimeout)
        recovery = yield Call(partial(self.recover, timeout))
        error.tried = recovery.tried
        error.may_repeat = recovery.error is None and not self._turns.is_interrupted
        done = "recovered by" if recovery.error is None else "not recovered by"
        error.what += f" ({done} {' and '.join(recovery.tried)})"

    def recover(self, timeout: float) -> Recovery:
        """Climb the protocol's ladder as far as needed; it blocks. Raise DeviceGone."""
        seconds = min(CONTROL_TIMEOUT, max(timeout, LEAST_CONTROL_TIMEOUT))
        trouble = Trouble(self.failures.count > 1, self.owes_data, self._is_silent)
        recovery = recover(self._port, self._ladder(seconds, trouble))
        if recovery.error is None:
            self._note_recovered()
        return recovery

    def _note_recovered(self) -> None:
        self.owes_data = self._is_silent = self.out_of_step = False
        if self.note_exchange is not None:
            self.note_exchange(False)

    def reset(self) -> None:
        """Reset the device at its port; recover it if that fails. Raise the error that the reset had."""
        *_, by_port = self._ladder(CONTROL_TIMEOUT, Trouble(is_repeated=True, owes_data=False, is_silent=False))
        self.begin()
        try:
            by_port.climb()
        except TransportError as error:
            if not isinstance(error, DeviceGone):
                self.recover(CONTROL_TIMEOUT)
            raise
        finally:
            self.losses.count += 1  # what a unit had still to say, the reset may have ended
            self.doubts.count += 1
        self._note_recovered()

    def settle(self) -> None:
        """On close, recover the device if a command was interrupted: the next driver expects it in step."""
        if self.out_of_step and not self._turns.is_lost:
            with suppress(DeviceGone):
                self.recover(CONTROL_TIMEOUT)


def recover(port: Port, rungs: Sequence[Rung]) -> Recovery:
    """Recover by the first step that works and is enough. Raise DeviceGone; other errors are in the result."""
    tried: list[str] = []
    error: TransportError | None = None
    has_helped = False
    for rung in rungs:
        tried.append(rung.name)
        note_step(port, rung.name)
        try:
            rung.climb()
        except DeviceGone:
            raise
        except TransportError as failure:
            log.info("the %s of %s failed: %s", rung.name, port.info, failure.what)
            error = type(failure)(
                failure.what, failure.remedy
            )  # a copy: the traceback of `failure` refers to this frame
        else:
            has_helped = True
            if rung.is_enough:
                break
    return Recovery(tuple(tried), None if has_helped else error)


def note_step(port: Port, step: str, level: int = logging.INFO) -> None:
    """Log a recovery step, which is also the record's attribute `recovery_step`, for programs that count them."""
    log.log(level, "%s: %s", port.info, step, extra={"recovery_step": step})
