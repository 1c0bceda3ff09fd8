"""Whose turn it is on a device: one command at a time, its interruption, and the end of all of them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final, Protocol

from scsiusb.base.waits import SLICE
from scsiusb.errors import DeviceBusy, DeviceClosed, TransportError

PATIENCE: Final = 0.01  # seconds; a waiter that has waited longer gets the turn next: a busy thread starves no other
get_ident: Final = threading.get_ident


class User(Protocol):
    """Who sends commands."""

    @property
    def is_over(self) -> bool:
        """Whether it was closed, cancelled, or its device has gone."""

    def check(self, cause: BaseException | None = None) -> None:
        """Raise the error that says why it is over, if it is."""

    def note(self, error: TransportError) -> None:
        """Take note that a command failed; raise an error that says more, if there is one."""


class Turn:
    """The right to use a device, of one command. Made before it is taken, so that `leave` can always be registered."""

    thread = 0
    """The thread whose frames run the command; 0 while it waits in the hands of a poll loop."""
    finish: Callable[[], None] | None = None
    """Moves a polled command on until it leaves, for a thread that wants the turn."""
    since = 0.0
    """When it began to wait."""
    wake: SimpleQueue[None] | None = None
    has_left = False
    """Whether it is over: it must not be given the turn any more. Set under the lock."""

    def __init__(self, turns: Turns, user: User | None) -> None:
        self._turns = turns
        self.user = user

    def try_enter(self) -> bool:
        """Take the turn if it is free."""
        self.thread = get_ident()
        return self._turns.holder.setdefault(None, self) is self

    def enter(self) -> None:
        """Wait for the turn and take it.

        Raise DeviceBusy if this thread has it: in a signal handler. Raise what the user's `check` raises.
        """
        self.since = time.monotonic()
        self.wake = SimpleQueue()  # reentrant: a signal handler may come at any point
        waiting = self._turns.waiting
        waiting.append(self)
        try:
            while not self.try_enter():
                if self.user is not None and self.user.is_over:
                    self.user.check()
                self._turns.wait(self.wake)
        finally:
            waiting.remove(self)

    def leave(self) -> None:
        """Give the turn to the next; nothing if it was not taken. May be called again: see `Turn.leave` in `base`."""
        turns = self._turns
        with turns.interrupting:
            self.has_left = True
            self.finish = None  # it refers to the polled story, which refers to this turn
            if turns.holder.get(None) is not self:
                return
            if turns.is_interrupted:
                turns.end_interruption()
            del turns.holder[None]
        if turns.waiting:
            turns.call_next()


class Turns:
    """Gives the turn to one after the other.

    The holder is set by one atomic call of a dict, not under a lock: a signal handler, or the garbage collector, that
    comes in between finds either no holder or the true one, and never a lock that its own thread has.
    """

    def __init__(self, name: object, interrupt: Callable[[bool], None]) -> None:
        """`interrupt`: ends bulk transfers at once (True), until further notice (False). `name`: for errors."""
        self._name = name
        self._interrupt = interrupt
        self.holder: dict[None, Turn] = {}
        self.waiting: deque[Turn] = deque()
        self.interrupting = threading.RLock()
        """Held while an interruption begins or ends, so that it meets the turn that it is meant for."""
        self.is_interrupted = False
        self.is_lost = False
        self.is_closed = False

    @property
    def current(self) -> Turn | None:
        """The turn that is taken, if any."""
        return self.holder.get(None)

    @property
    def is_here(self) -> bool:
        """Whether this thread is in the middle of a command, and now in a signal handler or in `__del__`."""
        turn = self.current
        return turn is not None and turn.thread == get_ident()

    def check(self, turn: Turn | None) -> None:
        """Raise what forbids the turn's command to begin, if anything does."""
        if turn is not None and turn.user is not None and turn.user.is_over:
            turn.user.check()  # it may know better why it is closed: the device has gone
        if self.is_closed:
            raise DeviceClosed(f"{self._name} was closed")

    def note(self, error: TransportError) -> None:
        """Let the user of the current turn take note of an error; raise one that says more, if there is one."""
        turn = self.current
        if turn is not None and turn.user is not None:
            turn.user.note(error)

    def wait(self, wake: SimpleQueue[None]) -> None:
        """Wait until the turn may be free, or move the polled command on that has it."""
        turn = self.current
        if turn is None or turn.wake is wake:  # or it was assigned to the waiter since it last tried
            return
        if turn.thread == get_ident():
            raise DeviceBusy(*self.busy_here())
        finish = turn.finish
        if finish is not None and not turn.thread:
            finish()
            if self.current is not turn:
                return
        try:
            wake.get(timeout=SLICE)
        except Empty:
            return

    def call_next(self) -> None:
        """Wake the waiter that has waited longest.

        If it has waited more than PATIENCE seconds, assign the turn to it now, if the turn is free.
        """
        try:
            turn = self.waiting[0]
        except IndexError:
            return
        if time.monotonic() - turn.since > PATIENCE:
            with self.interrupting:
                if not turn.has_left:  # it may have taken the turn by itself meanwhile, and left it again
                    self.holder.setdefault(None, turn)
        if turn.wake is not None:
            turn.wake.put(None)

    def interrupt(self) -> None:
        """End the command that has the turn if its user is over: it raises TransportError, and the device is recovered.

        A user becomes over before this is called: a command that begins in between finds that by itself.
        """
        with self.interrupting:
            turn = self.current
            if turn is not None and turn.user is not None and turn.user.is_over:
                self.is_interrupted = True
                self._interrupt(True)

    def end_interruption(self) -> None:
        """Let bulk transfers begin again, unless the device has gone; under the lock."""
        if not self.is_lost:
            self._interrupt(False)
            self.is_interrupted = False  # after it: `leave` repeats both if Ctrl-C comes in between

    def lose(self) -> None:
        """End the command that is running, and let none begin: the device has gone."""
        with self.interrupting:
            self.is_lost = True
            self._interrupt(True)

    def busy_here(self) -> tuple[str, str]:
        """Return what is wrong, and what to do, when a signal handler wants the device in the middle of a command."""
        what = f"{self._name} cannot be used from a signal handler while a command is running in this thread"
        return what, "set a flag in the handler and act on it after the command"

    def after_fork(self) -> None:
        """Reset the state in the child after a fork.

        Close the turns, forget their holder and waiters, and replace the lock, which a thread of the parent may hold.
        """
        self.is_closed = True
        self.interrupting = threading.RLock()
        self.holder.clear()
        self.waiting.clear()
