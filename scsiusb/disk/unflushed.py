"""Blocks that were written and are not flushed yet: a reset, a change of medium or a deferred error may lose them."""

from __future__ import annotations

import threading
from collections.abc import Iterable

Mark = tuple[int, int]
"""The unit's counts of resets and of lost writes when a block was written; a plain tuple, as each write makes one."""


class Unflushed:
    """The lowest counts at which an unflushed block was written, over all calls of all threads.

    What a flush is about stays unflushed until it is `settled`: no exception that comes in between loses it. `settled`
    and `told` are set by assignments: Python looks for signals before and after a call, but not after these.
    """

    settled = 0
    """The number of a flush: what was written before it and the ones before began is flushed, or lost for good."""
    told = 0
    """The count of lost writes that a flush has raised; it does so once."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # reentrant: a signal handler may close the disk
        self._calls: dict[object, Mark] = {}
        self._ended: Mark | None = None
        """That of the calls that have returned."""
        self._flushing: dict[int, Mark] = {}
        """That of all that was written before each flush, by its number."""
        self._flushes = 0

    @property
    def since(self) -> Mark | None:
        """The lowest counts among the unflushed blocks; None if nothing is unflushed."""
        with self._lock:
            flushing = (mark for number, mark in self._flushing.items() if number > self.settled)
            return _lowest((*self._calls.values(), self._ended, *flushing))

    def note(self, call: object, mark: Mark) -> None:
        """Record that `call` wrote a block; `mark` has the counts when the call began."""
        with self._lock:
            self._calls.setdefault(call, mark)

    def renew(self, call: object, mark: Mark) -> None:
        """Record that `call` wrote all of its blocks again, since the counts are those of `mark`."""
        with self._lock:
            self._calls[call] = mark

    def end(self, call: object) -> None:
        """Record that `call` has returned; the blocks that it wrote stay unflushed."""
        with self._lock:
            mark, ended = self._calls.get(call), self._ended
            if mark is None:
                return
            if mark != ended and (ended is None or mark[0] < ended[0] or mark[1] < ended[1]):
                self._ended = _lowest((mark, ended))
            del self._calls[call]

    def begin_flush(self) -> tuple[int, Mark | None]:
        """Return the number of a flush that begins, and `since`."""
        with self._lock:
            self._flushes += 1
            since = self.since
            if since is not None:
                self._flushing[self._flushes] = since
            self._ended = None  # after the line before: Ctrl-C may come between the two
            self._calls.clear()
            for number in [number for number in self._flushing if number <= self.settled]:
                del self._flushing[number]
            return self._flushes, since

    def take(self) -> None:
        """Forget all: nothing is unflushed after this."""
        with self._lock:
            self._ended = None
            self._calls.clear()
            self._flushing.clear()


def _lowest(marks: Iterable[Mark | None]) -> Mark | None:
    """Return the lowest of each count; None if there is no mark."""
    known = [mark for mark in marks if mark is not None]
    if not known:
        return None
    return min(resets for resets, _ in known), min(lost_writes for _, lost_writes in known)
