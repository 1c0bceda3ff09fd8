"""What came and left, in order: events, and the queue of them that `for` and `async for` read."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Final

from scsiusb.base.dataclass import dataclass
from scsiusb.errors import EventsLost
from scsiusb.usb.interface import InterfaceInfo, matches

if TYPE_CHECKING:
    import asyncio

ATTACHED: Final = "attached"
DETACHED: Final = "detached"
MOST_PENDING: Final = 10_000

log = logging.getLogger(__name__)

Match = str | Callable[[InterfaceInfo], bool] | None


@dataclass(frozen=True)
class Event:
    """A mass-storage interface came or left."""

    kind: str
    """"attached" or "detached"."""
    device: InterfaceInfo
    generation: int
    """Grows with every plugging-in that the manager sees; both events of one plugging-in have the same."""
    time: datetime


def is_meant(match: Match, info: InterfaceInfo) -> bool:
    if match is None:
        return True
    return matches(info, match) if isinstance(match, str) else bool(match(info))


class Events:
    """An iterator and an asynchronous iterator; ends after `timeout` seconds without an event, or with the manager."""

    def __init__(self, timeout: float | None, match: Match) -> None:
        self._timeout = timeout
        self._match = match
        self._pending: deque[Event] = deque()
        self._changed = threading.Condition()
        self._waiters: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self._is_closed = False
        self._is_short = False

    # --- for the manager ------------------------------------------------------------------------

    def offer(self, event: Event) -> None:
        if not self._wants(event):
            return
        with self._changed:
            if self._is_short or len(self._pending) >= MOST_PENDING:
                self._is_short = True  # until the reader knows; what came after the gap must not come before the news
            else:
                self._pending.append(event)
            self._wake()

    def _wants(self, event: Event) -> bool:
        """A filter of the user's may raise: that is reported, and the event is shown."""
        try:
            return is_meant(self._match, event.device)
        except (Exception, SystemExit):
            log.exception("the filter of an iteration over events failed")
            return True

    def close(self) -> None:
        """Ends the iteration, once what is pending was read."""
        with self._changed:
            self._is_closed = True
            self._wake()

    def after_fork(self) -> None:
        """In a fork's child: the lock may be held by a thread that is not here."""
        self._changed = threading.Condition()
        self._pending.clear()
        self._waiters.clear()
        self._is_closed = True

    def _wake(self) -> None:
        self._changed.notify_all()
        for loop, event in self._waiters:
            with suppress(RuntimeError):  # the loop was closed with its reader
                loop.call_soon_threadsafe(event.set)

    # --- for the reader -------------------------------------------------------------------------

    def __iter__(self) -> Events:
        return self

    def __next__(self) -> Event:
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        with self._changed:
            while True:
                event = self._take()
                if event is not None:
                    return event
                left = None if deadline is None else deadline - time.monotonic()
                if self._is_closed or (left is not None and left <= 0):
                    raise StopIteration
                self._changed.wait(left)

    def __aiter__(self) -> Events:
        return self

    async def __anext__(self) -> Event:
        import asyncio

        with self._changed:  # a timeout of 0 leaves no time to look
            event = self._take()
        if event is not None:
            return event
        try:
            return await asyncio.wait_for(self._next(), self._timeout)
        except (asyncio.TimeoutError, _End):
            raise StopAsyncIteration from None

    async def _next(self) -> Event:
        import asyncio

        changed = asyncio.Event()
        waiter = asyncio.get_running_loop(), changed
        try:
            while True:
                with self._changed:
                    event = self._take()
                    if event is not None:
                        return event
                    if self._is_closed:
                        raise _End
                    changed.clear()
                    self._waiters.add(waiter)
                await changed.wait()
        finally:
            with self._changed:
                self._waiters.discard(waiter)

    def _take(self) -> Event | None:
        """The next one, if there is one; the events before a gap come first."""
        if self._pending:
            return self._pending.popleft()
        if self._is_short:
            self._is_short = False
            raise EventsLost(f"more than {MOST_PENDING} events were waiting")
        return None


class _End(Exception):
    """StopAsyncIteration may not leave a coroutine that `wait_for` runs."""
