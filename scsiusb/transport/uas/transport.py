"""USB Attached SCSI (T10 UAS-3): streams at SuperSpeed, ready information units below it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Final

from scsiusb.base.releases import Releases
from scsiusb.errors import AccessDenied, DeviceGone, DeviceUnsupported, TransportError
from scsiusb.quirks.model import Quirk
from scsiusb.transport.base import GOOD, Completion, Direction, Request, Story
from scsiusb.transport.bot.transport import last_lun
from scsiusb.transport.choice import needs_small_commands
from scsiusb.transport.port_transport import PortTransport, largest_transfer
from scsiusb.transport.recovery import CONTROL_TIMEOUT, Rung, Trouble
from scsiusb.transport.turns import User
from scsiusb.transport.uas.exchange import UasExchange
from scsiusb.transport.uas.tasks import Tasks
from scsiusb.usb.interface import InterfaceInfo
from scsiusb.usb.port import Port

DEPTH: Final = 16
"""Streams to ask for: as many as the devices at hand have, and as usbfs has memory for."""
MAX_TRANSFER_HIGH_SPEED: Final = 120 * 1024
MAX_TRANSFER_ASM1053: Final = 240 * 512
MOST_LUNS: Final = 16  # as many as BOT can have; no device with more is known
REPORT_LUNS: Final = bytes.fromhex("a00000000000000000880000")  # SPC-4 6.33; room for 16 of them

log = logging.getLogger(__name__)


def what_lacks(port: Port) -> str | None:
    """Return what the bus or the platform lacks for UAS; None if nothing: the streams are then allocated."""
    if port.async_transfers is None:
        return "this platform has no transfers that UAS can use"
    if port.info.speed.startswith("super") and not port.streams and not port.allocate_streams(DEPTH):
        return "this bus has no streams, which UAS needs at SuperSpeed"
    return None


class UasTransport(PortTransport):
    """Commands with a status of their own, and sense in it. See `PortTransport` for the arguments.

    One command is under way at a time, or several of one user. `other`: the interface as it is used by BOT, which takes
    the place of UAS if the device fails by it; None if it must not. Raises DeviceUnsupported where the bus or the
    platform has no streams.
    """

    def __init__(
        self,
        port: Port,
        note_exchange: Callable[[bool], None] | None = None,
        releases: Releases | None = None,
        other: InterfaceInfo | None = None,
    ) -> None:
        self._other = other
        most = largest_transfer(port, MAX_TRANSFER_HIGH_SPEED)
        if needs_small_commands(port.info):
            most = min(most, MAX_TRANSFER_ASM1053)
        super().__init__(port, self._steps, most, note_exchange, releases)

    def _steps(self, timeout: float, trouble: Trouble) -> Sequence[Rung]:
        return self._exchange.ladder(timeout, trouble)

    def _prepare(self) -> None:
        port, releases = self._port, self._releases
        lack = what_lacks(port)
        if lack is not None or port.async_transfers is None:
            raise DeviceUnsupported(f"{port.info}: {lack}")
        tasks = Tasks(port, port.async_transfers, port.memory.allocate)
        releases.add(tasks.release)
        tasks.streams = port.streams
        exchange = UasExchange(port, tasks, self._synchronizer, self.turns, releases, self._other)
        self._exchange = exchange
        self.exchange = exchange.run
        self._tasks = tasks
        releases.add(self._synchronizer.settle)
        self.max_lun = 0 if self.quirks & (Quirk.SINGLE_LUN | Quirk.NO_REPORT_LUNS) else self._last_lun()

    @property
    def depth(self) -> int:
        """See `Transport.depth`."""
        return 1 if self._exchange.successor is not None else self._tasks.depth

    def exchange_many(
        self, lun: int, requests: Sequence[Request], direction: Direction, timeout: float, depth: int | None = None
    ) -> Story[list[tuple[Completion, bytes]]]:
        """See `Transport.exchange_many`."""
        return self._exchange.run_many(lun, requests, direction, timeout, depth)

    @property
    def ignore_residue(self) -> bool:
        """See `Transport.ignore_residue`: nothing reports a residue here; it is what did not go over the wire."""
        successor = self._exchange.successor
        return successor is not None and successor.ignore_residue

    @ignore_residue.setter
    def ignore_residue(self, ignored: bool) -> None:
        if self._exchange.successor is not None:
            self._exchange.successor.ignore_residue = ignored

    def probing(self, user: User | None = None) -> AbstractContextManager[Port]:
        """Raise DeviceUnsupported by UAS: the exchanges that break the protocol's rules are those of BOT."""
        if self._exchange.successor is not None:
            return super().probing(user)
        raise DeviceUnsupported(
            f"{self._port.info} is used by UAS, and this needs Bulk-Only Transport", "use --transport bot"
        )

    def _last_lun(self) -> int:
        """Return the largest LUN, which UAS has no request for; 0 where the device does not list its units."""
        reply = bytearray(8 + 8 * MOST_LUNS)
        try:
            with memoryview(reply) as room:
                story = self.exchange(0, REPORT_LUNS, Direction.IN, room, CONTROL_TIMEOUT)
                completion = self.drive(story)
        except (DeviceGone, AccessDenied):
            raise
        except TransportError as error:
            if self._other is None:
                log.info("REPORT LUNS: %s; one unit is assumed", error)
                return 0
            if self._exchange.successor is None:
                self._exchange.change_to_bot()
            return last_lun(self._port)
        if self._exchange.successor is not None:
            return last_lun(self._port)
        if completion.status != GOOD:
            return 0
        count = min(int.from_bytes(reply[:4], "big"), completion.transferred - 8) // 8
        luns = [reply[8 + 8 * at : 16 + 8 * at] for at in range(max(count, 0))]
        return max((lun[1] for lun in luns if lun[0] == 0 and lun[1] < MOST_LUNS), default=0)
