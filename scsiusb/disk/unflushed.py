"""Blocks that were written and are not flushed yet: a reset of the unit, or a change of its medium, may lose them."""

from __future__ import annotations

import threading


class Unflushed:
    """The unit's count of `cache_losses` when the oldest unflushed block was written, over all calls of all threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # reentrant: a signal handler may close the disk
        self._since: int | None = None
        self._calls: dict[object, int] = {}

    @property
    def since(self) -> int | None:
        """The lowest count of losses among the unflushed blocks; None if nothing is unflushed."""
        with self._lock:
            known = [*self._calls.values(), *([] if self._since is None else [self._since])]
            return min(known, default=None)

    def note(self, call: object, losses: int) -> None:
        """Record that `call` wrote a block; `losses` is the unit's count when the call began."""
        with self._lock:
            self._calls.setdefault(call, losses)

    def renew(self, call: object, losses: int) -> None:
        """Record that `call` wrote all of its blocks again, since the unit's count is `losses`."""
        with self._lock:
            self._calls[call] = losses

    def end(self, call: object) -> None:
        """Record that `call` has returned; the blocks that it wrote stay unflushed."""
        with self._lock:
            self.add(self._calls.pop(call, None))

    def add(self, since: int | None) -> None:
        """Record blocks as unflushed, as their flush failed; `since` as `take` returned it."""
        with self._lock:
            if since is not None and (self._since is None or since < self._since):
                self._since = since

    def take(self) -> int | None:
        """Return `since`, and forget it: nothing is unflushed after this."""
        with self._lock:
            since, self._since = self.since, None
            self._calls.clear()
            return since
