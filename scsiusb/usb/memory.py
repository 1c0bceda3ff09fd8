"""Device memory, of which usbfs has little for all programs together: each device gets a fair part of it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Final

LIMIT: Final = Path("/sys/module/usbcore/parameters/usbfs_memory_mb")  # 0: none
LATER: Final = 8  # of what is left, one part for a device that was not expected
LEAST: Final = 64 * 1024  # bytes; commands of less cost more time than ordinary memory does
ALWAYS: Final = 4096  # bytes, for a CBW or a CSW: no device can do without them


class DeviceMemory:
    """Keeps account of a process's. An eighth of the limit is left to transfers from ordinary memory, and to others."""

    def __init__(self, limit: int | None) -> None:
        """`limit` in bytes; None: there is none to keep to."""
        self._lock = threading.Lock()
        self._left = limit if limit is None else limit * 7 // 8
        self._attached = self._served = 0

    def expect(self, devices: int) -> None:
        """So many are attached, each of which may want some."""
        with self._lock:
            self._attached = devices

    def promise(self, size: int) -> int:
        """Bytes for a device's command: `size`, or the same part that others will have; 0 where that is too little."""
        with self._lock:
            if self._left is None:
                return size
            others = max(self._attached - self._served, 0)
            part = max(self._left, 0) // (others or LATER)
            granted = min(size, part - part % LEAST)
            self._left -= granted
            self._served += 1
            return granted

    def withdraw(self, size: int) -> None:
        """The device needs no more; so much of what it was promised was not taken."""
        with self._lock:
            if self._left is not None:
                self._left += size
                self._served -= 1

    def take(self, size: int) -> bool:
        """May so much be allocated?"""
        with self._lock:
            if self._left is None:
                return True
            if size > max(self._left, ALWAYS):
                return False
            self._left -= size
            return True

    def give_back(self, size: int) -> None:
        with self._lock:
            if self._left is not None:
                self._left += size


def usbfs_limit() -> int | None:
    """Bytes; None where there is no limit, or no usbfs."""
    try:
        return int(LIMIT.read_text()) * 1024 * 1024 or None
    except (OSError, ValueError):
        return None
