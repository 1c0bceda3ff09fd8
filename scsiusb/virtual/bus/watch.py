"""Tells one waiting thread that sticks were plugged or unplugged."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Watch:
    """What `Backend.watch` returns for a virtual bus."""

    def __init__(self, forget: Callable[[Watch], None]) -> None:
        self._forget = forget
        self._event = threading.Event()

    def note(self) -> None:
        self._event.set()

    def wait(self, timeout: float) -> bool:
        happened = self._event.wait(timeout)
        self._event.clear()
        return happened

    def wake(self) -> None:
        self._event.set()

    def close(self) -> None:
        self._forget(self)
