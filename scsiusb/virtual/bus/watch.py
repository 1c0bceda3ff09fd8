"""Hotplug notification of a virtual bus."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Watch:
    """A notification to one waiting thread that sticks were plugged in or unplugged; see `Hotplug`."""

    def __init__(self, remove: Callable[[Watch], None]) -> None:
        self._remove = remove
        self._event = threading.Event()

    def note(self) -> None:
        """Report a change to the waiting thread; called by the bus."""
        self._event.set()

    def wait(self, timeout: float) -> bool:
        """See `Hotplug.wait`; returns True also after `wake`."""
        happened = self._event.wait(timeout)
        self._event.clear()
        return happened

    def wake(self) -> None:
        """See `Hotplug.wake`."""
        self._event.set()

    def close(self) -> None:
        """See `Hotplug.close`."""
        self._remove(self)
