"""Hotplug notification of a virtual bus."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue


class Watch:
    """A notification to one waiting thread that sticks were plugged in or unplugged; see `Hotplug`."""

    def __init__(self, remove: Callable[[Watch], None]) -> None:
        self._remove = remove
        self._notes: SimpleQueue[None] = SimpleQueue()  # not an Event: a signal's handler could wait for its lock

    def note(self) -> None:
        """Report a change to the waiting thread; called by the bus."""
        self._notes.put(None)

    def wait(self, timeout: float) -> bool:
        """See `Hotplug.wait`; returns True also after `wake`."""
        happened = False
        with suppress(Empty):
            self._notes.get(timeout=timeout)
            happened = True
            while True:  # the others, which are reported by the same return
                self._notes.get_nowait()
        return happened

    def wake(self) -> None:
        """See `Hotplug.wake`."""
        self._notes.put(None)

    def close(self) -> None:
        """See `Hotplug.close`."""
        self._remove(self)
