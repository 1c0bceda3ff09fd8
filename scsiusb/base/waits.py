"""Waits that Ctrl-C ends on every platform.

On Windows, Ctrl-C does not end a wait for a lock, a queue or a thread; on other systems than Linux, that depends on the
system's threads (see Python's `Lock.acquire`). There a wait is made in slices, and a signal's handler runs between two.
"""

from __future__ import annotations

import sys
import threading
import time
from contextlib import AbstractContextManager
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

T = TypeVar("T")

NEEDS_SLICES: Final = sys.platform != "linux"
SLICE: Final = 0.1  # seconds of one wait


def slice_of(left: float | None) -> float | None:
    """Return how long the next wait may last, of the `left` seconds; None means without end."""
    if not NEEDS_SLICES:
        return left
    return SLICE if left is None else min(left, SLICE)


def take(queue: SimpleQueue[T]) -> T:
    """Wait for the next item of the queue, and return it."""
    while True:
        try:
            return queue.get(timeout=slice_of(None))
        except Empty:
            continue


def join(thread: threading.Thread, timeout: float | None = None) -> None:
    """Wait until the thread has ended, `timeout` seconds at most."""
    deadline = None if timeout is None else time.monotonic() + timeout
    left = timeout
    while thread.is_alive() and (left is None or left > 0):
        thread.join(slice_of(left))
        left = None if deadline is None else deadline - time.monotonic()


def result_of(future: Future[T]) -> T:
    """Wait until the future is done; return its result, or raise its error."""
    from concurrent.futures import wait  # takes a while to import

    while not future.done():
        wait((future,), slice_of(None))
    return future.result()


def long_lock() -> AbstractContextManager[object]:
    """Return a reentrant lock for a `with`, one that may be held while a device answers: waited for in slices."""
    return _SlicedLock() if NEEDS_SLICES else threading.RLock()


class _SlicedLock:
    """A reentrant lock that is waited for in slices. After Ctrl-C in `__enter__` it is not held."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        taken: list[bool] = []
        try:
            while True not in taken:
                taken.extend(map(self._lock.acquire, (True,), (SLICE,)))  # one call: see `open_into`
        except BaseException:
            if True in taken:
                self._lock.release()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.release()
