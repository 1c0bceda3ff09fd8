"""Bulk-Only Transport (USB MSC BOT 1.0): the exchange within a turn, and reset recovery when it fails."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Final

from scsiusb.base.releases import Releases
from scsiusb.errors import AccessDenied, DeviceGone, DeviceTimeout, TransportError
from scsiusb.quirks.cures import Symptom, remedy
from scsiusb.quirks.model import Quirk
from scsiusb.transport.bot.exchange import Exchange
from scsiusb.transport.bot.formats import CLASS_INTERFACE_IN, GET_MAX_LUN, MAX_LUN
from scsiusb.transport.bot.reset_recovery import ladder
from scsiusb.transport.port_transport import PortTransport, largest_transfer
from scsiusb.transport.recovery import CONTROL_TIMEOUT
from scsiusb.usb.port import Port

# As Linux has it: larger commands break some high-speed sticks.
MAX_TRANSFER_HIGH_SPEED: Final = 120 * 1024

log = logging.getLogger(__name__)


class BulkOnlyTransport(PortTransport):
    """One command at a time, each with a CBW, its data and a CSW. See `PortTransport` for the arguments."""

    def __init__(
        self, port: Port, note_exchange: Callable[[bool], None] | None = None, releases: Releases | None = None
    ) -> None:
        most = largest_transfer(port, MAX_TRANSFER_HIGH_SPEED)
        super().__init__(port, partial(ladder, port), most, note_exchange, releases)

    def _prepare(self) -> None:
        port, releases = self._port, self._releases
        self._exchange = exchange = Exchange(port, self._synchronizer, self.turns, releases)
        self.exchange = exchange.run
        releases.add(self._synchronizer.settle)
        self.max_lun = last_lun(port)

    @property
    def ignore_residue(self) -> bool:
        """See `Transport.ignore_residue`."""
        return self._exchange.ignore_residue

    @ignore_residue.setter
    def ignore_residue(self, ignored: bool) -> None:
        self._exchange.ignore_residue = ignored


def last_lun(port: Port) -> int:
    """Ask for the largest LUN (BOT 3.2, which allows a STALL); 0 where the device stalls, hangs or answers nonsense."""
    info, quirks = port.info, port.quirks.flags
    if Quirk.SINGLE_LUN in quirks:
        return 0
    try:
        reply = port.control_in(CLASS_INTERFACE_IN, GET_MAX_LUN, 0, info.interface, 1, CONTROL_TIMEOUT)
    except (DeviceGone, AccessDenied):
        raise
    except DeviceTimeout as error:
        advice = remedy(Symptom.MAX_LUN_UNANSWERED, info.vid, info.pid, quirks)
        log.warning("GET MAX LUN: %s; taken as 0; %s", error.what, advice)
        return 0
    except TransportError as error:
        log.info("GET MAX LUN: %s; taken as 0", error)
        return 0
    return reply[0] if len(reply) == 1 and reply[0] <= MAX_LUN else 0
