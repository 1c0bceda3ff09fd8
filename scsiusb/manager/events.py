"""Attach and detach events, and the queue of them that `for` and `async for` read."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Final

from scsiusb.base.copying import Uncopyable
from scsiusb.base.dataclass import dataclass
from scsiusb.base.waits import slice_of
from scsiusb.errors import EventsLost
from scsiusb.usb.interface import InterfaceInfo, matches

if TYPE_CHECKING:
    import asyncio

ATTACHED: Final = "attached"
DETACHED: Final = "detached"
MOST_PENDING: Final = 10_000  # events that wait for one reader

log = logging.getLogger(__name__)

Match = str | Callable[[InterfaceInfo], bool] | None  # a selector as in `scsiusb.open`, a filter function, or all


@dataclass(frozen=True)
class Event:
    """A mass-storage interface was attached or detached."""

    kind: str
    """ATTACHED or DETACHED."""
    device: InterfaceInfo
    generation: int
    """Number of the attach event, counted from 1 by the manager; the detach event of the interface has the same."""
    time: datetime
    """When the manager saw it, with time zone."""


def is_selected(match: Match, info: InterfaceInfo) -> bool:
    """Return whether `match` selects the interface; None selects all. Raises what a filter function raises."""
    if match is None:
        return True
    return matches(info, match) if isinstance(match, str) else bool(match(info))


class Events(Uncopyable):
    """Iterator and asynchronous iterator over events.

    It ends after `timeout` seconds without an event, or when the manager is closed. Raises EventsLost at the place of
    events that were dropped because too many were waiting.
    """

    def __init__(self, timeout: float | None, match: Match) -> None:
        self._timeout = timeout
        self._match = match
        self._pending: deque[Event] = deque()
        self._changed = threading.Condition()
        self._waiters: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self._is_closed = False
        self._has_gap = False

    # --- for the manager ------------------------------------------------------------------------

    def offer(self, event: Event) -> None:
        """Queue the event if the reader's filter selects it. Called with events in order."""
        if not self._wants(event):
            return
        with self._changed:
            if self._has_gap or len(self._pending) >= MOST_PENDING:
                # Until the reader has raised EventsLost: it must not return a later event before it reports the gap.
                self._has_gap = True
            else:
                self._pending.append(event)
            self._wake()

    def _wants(self, event: Event) -> bool:
        """Apply the filter. If a user's filter function raises, log that and do not drop the event."""
        try:
            return is_selected(self._match, event.device)
        except (Exception, SystemExit):
            log.exception("the filter of an iteration over events failed")
            return True

    def close(self) -> None:
        """End the iteration after the pending events."""
        with self._changed:
            self._is_closed = True
            self._wake()

    def after_fork(self) -> None:
        """End the iteration in the child of a fork. The lock is replaced: a thread of the parent may hold it."""
        self._changed = threading.Condition()
        self._pending.clear()
        self._waiters.clear()
        self._is_closed = True

    def _wake(self) -> None:
        self._changed.notify_all()
        for loop, event in self._waiters:
            with suppress(RuntimeError):  # the event loop was closed
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
                self._changed.wait(slice_of(left))

    def __aiter__(self) -> Events:
        return self

    async def __anext__(self) -> Event:
        import asyncio

        with self._changed:  # `wait_for` with a timeout of 0 would not run `_next` at all
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
        """Return the next event, if any. Raises EventsLost at a gap, after the events before it."""
        if self._pending:
            return self._pending.popleft()
        if self._has_gap:
            self._has_gap = False
            raise EventsLost(f"more than {MOST_PENDING} events were waiting")
        return None


class _End(Exception):
    """Ends `_next`: a coroutine that `wait_for` runs cannot raise StopAsyncIteration."""
