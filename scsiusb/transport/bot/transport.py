"""Bulk-Only Transport (USB MSC BOT 1.0): the exchange within a turn, and reset recovery when it fails."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from scsiusb.base.copying import Uncopyable
from scsiusb.base.releases import Releases
from scsiusb.errors import AccessDenied, DeviceGone, DeviceTimeout, TransportError
from scsiusb.quirks.cures import Symptom, remedy
from scsiusb.quirks.model import Quirk
from scsiusb.transport.base import Polled, Scope, Story, leaving
from scsiusb.transport.bot.exchange import Exchange
from scsiusb.transport.bot.formats import CLASS_INTERFACE_IN, GET_MAX_LUN, MAX_LUN
from scsiusb.transport.bot.reset_recovery import CONTROL_TIMEOUT, Synchronizer
from scsiusb.transport.drivers import Driver, PolledStory
from scsiusb.transport.turns import Turn, Turns, User
from scsiusb.usb.port import Port

# As Linux has it: larger commands break some high-speed sticks.
MAX_TRANSFER_HIGH_SPEED: Final = 120 * 1024
MAX_TRANSFER_SUPER_SPEED: Final = 1024 * 1024
MAX_TRANSFER_BY_QUIRK: Final = ((Quirk.MAX_SECTORS_64, 64 * 512), (Quirk.MAX_SECTORS_240, 240 * 512))

R = TypeVar("R")
log = logging.getLogger(__name__)


class BulkOnlyTransport(Uncopyable):
    """Owns its port: closing the transport closes it. Safe to use from several threads.

    `note_exchange` is called when a command goes onto the wire (True) and when the device is in step again (False).
    `close` is added to `releases` before anything is sent.
    """

    def __init__(
        self, port: Port, note_exchange: Callable[[bool], None] | None = None, releases: Releases | None = None
    ) -> None:
        self._port = port
        self.turns = turns = Turns(port.info, port.interrupt)
        self._synchronizer = Synchronizer(port, turns, note_exchange)
        self._driver = driver = Driver(port.bulk, port.in_parts)
        self.drive = driver.drive
        self.shared: dict[int, Any] = {}
        self.quirks = quirks = port.quirks.flags
        self.max_transfer = port.limit_transfer_size(_max_transfer(port.info.speed, quirks))
        self.memory = port.memory
        self.resets = port.resets
        self.losses = self._synchronizer.losses
        self.doubts = self._synchronizer.doubts
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
        self._exchange = exchange = Exchange(port, self._synchronizer, self.turns, releases)
        self.exchange = exchange.run
        releases.add(self._synchronizer.settle)
        self.max_lun = 0 if Quirk.SINGLE_LUN in self.quirks else self._get_max_lun()

    # --- stories --------------------------------------------------------------------------------

    def turn(self, user: User | None = None) -> Turn:
        """Return a turn of `user`, who may interrupt its commands, or be over before they begin; not yet taken."""
        return Turn(self.turns, user)

    # --- drivers --------------------------------------------------------------------------------

    @property
    def descriptor(self) -> int | None:
        """See `Transport.descriptor`."""
        transfers = self._port.async_transfers
        return None if transfers is None else transfers.fileno()

    def poll(self, story: Story[R], wake: Callable[[], None], scope: Scope) -> Polled[R]:
        """See `Transport.poll`."""
        transfers = self._port.async_transfers
        if transfers is None:
            raise ValueError(f"{self._port.info} cannot be polled")
        return PolledStory(story, transfers, self.turns, self._driver, wake, scope)

    # --- the rest -------------------------------------------------------------------------------

    @property
    def ignore_residue(self) -> bool:
        """See `Transport.ignore_residue`."""
        return self._exchange.ignore_residue

    @ignore_residue.setter
    def ignore_residue(self, ignored: bool) -> None:
        self._exchange.ignore_residue = ignored

    def after_fork(self) -> None:
        """Forget everything without releasing it; called in the child after a fork, instead of `close`."""
        self.turns.after_fork()
        self._releases.forget()
        self._port.after_fork()

    @contextmanager
    def _own_turn(self, user: User | None = None) -> Iterator[None]:
        """For what is done within a turn, but is no story."""
        turn = self.turn(user)
        with leaving(turn):
            turn.enter()
            yield

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

    def check_identity(self, user: User | None = None) -> None:
        """See `Transport.check_identity`."""
        with self._own_turn(user):
            self.turns.check(self.turns.current)
            self._port.check_identity()

    def close(self) -> None:
        """Wait for the command that is running, recover from one that was interrupted, close the port.

        May be called again. Raise DeviceBusy in a signal handler that interrupted a command of this thread.
        """
        try:
            self._close()
        except BaseException:  # Ctrl-C may have come during the wait for another thread's command
            self._close()
            raise

    def _close(self) -> None:
        with self._own_turn():
            self.turns.is_closed = True
            self._releases.close()

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


def _max_transfer(speed: str, quirks: Quirk) -> int:
    by_speed = MAX_TRANSFER_SUPER_SPEED if speed.startswith("super") else MAX_TRANSFER_HIGH_SPEED
    limits = (limit for quirk, limit in MAX_TRANSFER_BY_QUIRK if quirk in quirks)
    return min((by_speed, *limits))
