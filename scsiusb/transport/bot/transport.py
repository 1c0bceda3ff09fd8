"""Bulk-Only Transport (USB MSC BOT 1.0): the exchange within a turn, and reset recovery when it fails."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from scsiusb.transport.turns import User
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
        self.max_lun = 0 if Quirk.SINGLE_LUN in self.quirks else self._get_max_lun()

    @property
    def ignore_residue(self) -> bool:
        """See `Transport.ignore_residue`."""
        return self._exchange.ignore_residue

    @ignore_residue.setter
    def ignore_residue(self, ignored: bool) -> None:
        self._exchange.ignore_residue = ignored

    @contextmanager
    def probing(self, user: User | None = None) -> Iterator[Port]:
        """See `Transport.probing`."""
        with self._own_turn(user):
            self.turns.check(self.turns.current)
            self._synchronizer.begin()
            try:
                yield self._port
            finally:
                self.losses.count += 1  # what the device said in exchanges of the caller's own is not known here
                self.doubts.count += 1
                self._synchronizer.recover(CONTROL_TIMEOUT)

    def _get_max_lun(self) -> int:
        """Return 0 where the device stalls, hangs or answers nonsense (BOT 3.2 allows the STALL)."""
        try:
            reply = self._port.control_in(
                CLASS_INTERFACE_IN, GET_MAX_LUN, 0, self._port.info.interface, 1, CONTROL_TIMEOUT
            )
        except (DeviceGone, AccessDenied):
            raise
        except DeviceTimeout as error:
            info = self._port.info
            advice = remedy(Symptom.MAX_LUN_UNANSWERED, info.vid, info.pid, self.quirks)
            log.warning("GET MAX LUN: %s; taken as 0; %s", error.what, advice)
            return 0
        except TransportError as error:
            log.info("GET MAX LUN: %s; taken as 0", error)
            return 0
        return reply[0] if len(reply) == 1 and reply[0] <= MAX_LUN else 0
