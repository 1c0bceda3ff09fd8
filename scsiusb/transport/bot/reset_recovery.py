"""Error recovery after a failed exchange: class reset with clear-halt, then port reset (BOT 5.3.4)."""

from __future__ import annotations

import logging
from typing import Final, NamedTuple

from scsiusb.errors import DeviceGone, TransportError
from scsiusb.quirks.model import Quirk
from scsiusb.transport.bot.formats import CLASS_INTERFACE_OUT, MASS_STORAGE_RESET
from scsiusb.usb.port import Port

CLASS_RESET: Final = "class reset"
PORT_RESET: Final = "port reset"

log = logging.getLogger(__name__)


class Recovery(NamedTuple):
    """The recovery steps taken, in order, and the error of the last one; no error: the device is recovered."""

    tried: tuple[str, ...]
    error: TransportError | None = None


class Failures:
    """Count of consecutive exchanges that failed.

    A success of the command that failed resets the count; so does a failure of another command after any success.
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


def recover(port: Port, timeout: float, *, thorough: bool) -> Recovery:
    """Recover the device; if `thorough`, do a port reset even if the class reset worked.

    `timeout`: seconds for each control request. Raises DeviceGone; other errors are in the result.
    """
    tried: list[str] = []
    error: TransportError | None = None
    has_helped = False
    for step in (PORT_RESET,) if Quirk.NO_CLASS_RESET in port.quirks else (CLASS_RESET, PORT_RESET):
        tried.append(step)
        note_step(port, step)
        try:
            _run_step(port, step, timeout)
        except DeviceGone:
            raise
        except TransportError as failure:
            log.warning("the %s of %s failed: %s", step, port.info, failure.what)
            error = type(failure)(
                failure.what, failure.remedy
            )  # a copy: the traceback of `failure` refers to this frame
        else:
            has_helped = True
            if not thorough:
                break
    return Recovery(tuple(tried), None if has_helped else error)


def note_step(port: Port, step: str, level: int = logging.INFO) -> None:
    """Log a recovery step, which is also the record's attribute `recovery_step`, for programs that count them."""
    log.log(level, "%s: %s", port.info, step, extra={"recovery_step": step})


def _run_step(port: Port, step: str, timeout: float) -> None:
    if step == PORT_RESET:
        port.reset()
        return
    # Reset recovery (BOT 5.3.4): class reset, then CLEAR_FEATURE HALT for both endpoints.
    port.control_out(CLASS_INTERFACE_OUT, MASS_STORAGE_RESET, 0, port.info.interface, b"", timeout)
    port.clear_halt_in()
    port.clear_halt_out()
