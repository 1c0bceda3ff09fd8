"""What was written and is not flushed yet: since which reset of the unit, which may have emptied its cache."""

from __future__ import annotations

import threading


class Unflushed:
    """Knows the unit's `resets` when the oldest unflushed block was written, of all calls of all threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal's handler may close the disk
        self._since: int | None = None
        self._calls: dict[object, int] = {}

    @property
    def since(self) -> int | None:
        """None: nothing is unflushed."""
        with self._lock:
            known = [*self._calls.values(), *([] if self._since is None else [self._since])]
            return min(known, default=None)

    def note(self, call: object, resets: int) -> None:
        """A block was written, by a call that had begun when the unit's `resets` were these."""
        with self._lock:
            self._calls.setdefault(call, resets)

    def renew(self, call: object, resets: int) -> None:
        """All blocks of the call were written again since."""
        with self._lock:
            self._calls[call] = resets

    def end(self, call: object) -> None:
        with self._lock:
            self.add(self._calls.pop(call, None))

    def add(self, since: int | None) -> None:
        """A flush of blocks that were written since then failed."""
        with self._lock:
            if since is not None and (self._since is None or since < self._since):
                self._since = since

    def take(self) -> int | None:
        """As `since`; nothing is unflushed behind it."""
        with self._lock:
            since, self._since = self.since, None
            self._calls.clear()
            return since
