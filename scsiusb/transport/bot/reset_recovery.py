"""The recovery steps of Bulk-Only Transport: class reset with clear-halt, then port reset (BOT 5.3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from scsiusb.quirks.model import Quirk
from scsiusb.transport.bot.formats import CLASS_INTERFACE_OUT, MASS_STORAGE_RESET
from scsiusb.transport.recovery import PORT_RESET, Rung, Trouble
from scsiusb.usb.port import Port

CLASS_RESET: Final = "class reset"


def ladder(port: Port, timeout: float, trouble: Trouble) -> Sequence[Rung]:
    """Return the steps, the gentlest first; `timeout`: seconds for each control request.

    The port is reset also where a class reset was followed by another failure, where the device says nothing (it may
    ignore a class reset, too), and where it waits for data-out (it would take the next CBW for data).
    """
    by_port = Rung(PORT_RESET, port.reset)
    if Quirk.NO_CLASS_RESET in port.quirks:
        return (by_port,)
    return Rung(CLASS_RESET, partial(_reset_class, port, timeout), not any(trouble)), by_port


def _reset_class(port: Port, timeout: float) -> None:
    """Do a reset recovery (BOT 5.3.4): class reset, then CLEAR_FEATURE HALT for both endpoints."""
    port.control_out(CLASS_INTERFACE_OUT, MASS_STORAGE_RESET, 0, port.info.interface, b"", timeout)
    port.clear_halt_in()
    port.clear_halt_out()
