"""The way back into step after a failed exchange, rung by rung: class reset with halts, then a reset of the port."""

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
    """What was tried, in order, and why the last of it failed; no error: the device is in step."""

    tried: tuple[str, ...]
    error: TransportError | None = None


class Failures:
    """How many exchanges failed in a row, but for other commands that succeeded meanwhile."""

    def __init__(self) -> None:
        self.count = 0
        self._opcode = -1
        self._others_succeed = False

    def note_success(self, opcode: int) -> None:
        if opcode == self._opcode:
            self.count = 0
        else:
            self._others_succeed = True

    def note_failure(self, opcode: int) -> None:
        if self._others_succeed and opcode != self._opcode:
            self.count = 0
        self.count += 1
        self._opcode = opcode
        self._others_succeed = False


def recover(port: Port, timeout: float, *, thorough: bool) -> Recovery:
    """Brings the device into step; `thorough`: with a port reset also where it took the class reset.

    `timeout` of a control request. Raises DeviceGone.
    """
    tried: list[str] = []
    error: TransportError | None = None
    has_helped = False
    for rung in (PORT_RESET,) if Quirk.NO_CLASS_RESET in port.quirks else (CLASS_RESET, PORT_RESET):
        tried.append(rung)
        note_rung(port, rung)
        try:
            _climb(port, rung, timeout)
        except DeviceGone:
            raise
        except TransportError as failure:
            log.warning("the %s of %s failed: %s", rung, port.info, failure.what)
            error = type(failure)(failure.what, failure.remedy)  # anew: this frame is in that one's traceback
        else:
            has_helped = True
            if not thorough:
                break
    return Recovery(tuple(tried), None if has_helped else error)


def note_rung(port: Port, rung: str, level: int = logging.INFO) -> None:
    """Records carry the rung as an attribute, for who counts them."""
    log.log(level, "%s: %s", port.info, rung, extra={"rung": rung})


def _climb(port: Port, rung: str, timeout: float) -> None:
    if rung == PORT_RESET:
        port.reset()
        return
    port.control_out(CLASS_INTERFACE_OUT, MASS_STORAGE_RESET, 0, port.info.interface, b"", timeout)
    port.clear_halt_in()
    port.clear_halt_out()
