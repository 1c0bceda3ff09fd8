"""What every transport that owns a port has: turns, drivers, recovery, and its end in the right order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, TypeVar

from scsiusb.base.copying import Uncopyable
from scsiusb.base.releases import Releases
from scsiusb.quirks.model import Quirk
from scsiusb.transport.base import Completion, Direction, Polled, Request, Scope, Story, leaving
from scsiusb.transport.drivers import Driver, PolledStory
from scsiusb.transport.helper import Helper
from scsiusb.transport.recovery import CONTROL_TIMEOUT, Ladder, Synchronizer
from scsiusb.transport.turns import Turn, Turns, User
from scsiusb.usb.port import Port

MAX_TRANSFER_SUPER_SPEED: Final = 1024 * 1024  # as Linux has it
MAX_TRANSFER_BY_QUIRK: Final = ((Quirk.MAX_SECTORS_64, 64 * 512), (Quirk.MAX_SECTORS_240, 240 * 512))

R = TypeVar("R")


class PortTransport(Uncopyable):
    """Owns its port: closing the transport closes it. Safe to use from several threads.

    `ladder`: the protocol's recovery steps. `note_exchange` is called when a command goes onto the wire (True) and when
    the device is in step again (False). `close` is added to `releases` before anything is sent. A protocol derives from
    it, and has `exchange` and the rest of `Transport`.
    """

    def __init__(
        self,
        port: Port,
        ladder: Ladder,
        most: int,
        note_exchange: Callable[[bool], None] | None,
        releases: Releases | None,
    ) -> None:
        self._port = port
        self.turns = turns = Turns(port.info, port.interrupt)
        self._synchronizer = Synchronizer(port, turns, ladder, note_exchange)
        self._driver = driver = Driver(port.bulk, port.in_parts)
        self.drive = driver.drive
        self.shared: dict[int, Any] = {}
        self.quirks = port.quirks.flags
        self.max_transfer = port.limit_transfer_size(most)
        self.memory = port.memory
        self.resets = port.resets
        self.losses = self._synchronizer.losses
        self.doubts = self._synchronizer.doubts
        self._releases = Releases()
        try:
            if releases is not None:
                releases.add(self.close)
            self._releases.add(port.close)
            self._prepare()
        except BaseException:
            self._releases.close()
            raise

    max_lun: int
    exchange: Callable[[int, bytes, Direction, memoryview, float], Story[Completion]]

    @property
    def depth(self) -> int:
        """See `Transport.depth`."""
        return 1

    def exchange_many(
        self, lun: int, requests: Sequence[Request], direction: Direction, timeout: float, depth: int | None = None
    ) -> Story[list[tuple[Completion, bytes]]]:
        """See `Transport.exchange_many`; where `depth` is 1, there is none."""
        raise NotImplementedError

    @property
    def ignore_residue(self) -> bool:
        """See `Transport.ignore_residue`."""
        raise NotImplementedError

    @ignore_residue.setter
    def ignore_residue(self, ignored: bool) -> None:
        raise NotImplementedError

    def probing(self, user: User | None = None) -> AbstractContextManager[Port]:
        """See `Transport.probing`."""
        return self._lent(user)

    @contextmanager
    def _lent(self, user: User | None) -> Iterator[Port]:
        with self._own_turn(user):
            self.turns.check(self.turns.current)
            self._synchronizer.begin()
            try:
                yield self._port
            finally:
                self.losses.count += 1  # what the device said in exchanges of the caller's own is not known here
                self.doubts.count += 1
                self._synchronizer.recover(CONTROL_TIMEOUT)

    def _prepare(self) -> None:
        """Make what exchanges need, ask the device what they depend on; `_releases` undoes it, and settles first."""
        raise NotImplementedError

    # --- stories --------------------------------------------------------------------------------

    def turn(self, user: User | None = None) -> Turn:
        """Return a turn of `user`, who may interrupt its commands, or be over before they begin; not yet taken."""
        return Turn(self.turns, user)

    # --- drivers --------------------------------------------------------------------------------

    @property
    def descriptor(self) -> int | None:
        """See `Transport.descriptor`."""
        transfers = self._port.async_transfers
        return None if transfers is None or transfers.fileno() < 0 else transfers.fileno()

    def poll(self, story: Story[R], helper: Helper, scope: Scope) -> Polled[R]:
        """See `Transport.poll`."""
        transfers = self._port.async_transfers
        if transfers is None:
            raise ValueError(f"{self._port.info} cannot be polled")
        return PolledStory(story, transfers, self.turns, self._driver, helper, scope)

    # --- the rest -------------------------------------------------------------------------------

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

    def check_identity(self, user: User | None = None) -> None:
        """See `Transport.check_identity`."""
        with self._own_turn(user):
            self.turns.check(self.turns.current)
            self._port.check_identity()

    def reset_port(self, user: User | None = None) -> None:
        """See `Transport.reset_port`."""
        with self._own_turn(user):
            self.turns.check(self.turns.current)
            self._synchronizer.reset()

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


def largest_transfer(port: Port, at_high_speed: int) -> int:
    """Return the bytes that one command may move at most: by the bus's speed, and by the device's quirks."""
    by_speed = MAX_TRANSFER_SUPER_SPEED if port.info.speed.startswith("super") else at_high_speed
    limits = (limit for quirk, limit in MAX_TRANSFER_BY_QUIRK if quirk in port.quirks.flags)
    return min((by_speed, *limits))
