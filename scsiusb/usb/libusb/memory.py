"""Device memory, of which usbfs has little for all programs together: each device gets a fair part of it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Final

LIMIT: Final = Path("/sys/module/usbcore/parameters/usbfs_memory_mb")  # 0: none
SHARE: Final = 8  # of what is left, one part for the next device
LEAST: Final = 64 * 1024  # bytes; commands of less cost more time than ordinary memory does
ALWAYS: Final = 4096  # bytes, for a CBW or a CSW: no device can do without them


class DeviceMemory:
    """Keeps account of a process's. An eighth of the limit is left to transfers from ordinary memory, and to others."""

    def __init__(self, limit: int | None) -> None:
        """`limit` in bytes; None: there is none to keep to."""
        self._lock = threading.Lock()
        self._left = limit if limit is None else limit * 7 // 8

    def reserve(self, size: int) -> int:
        """Bytes for a command: `size`, or less, as others will need the rest; 0 where too little is left."""
        with self._lock:
            if self._left is None:
                return size
            part = max(self._left, 0) // SHARE
            granted = min(size, part - part % LEAST)
            self._left -= granted
            return granted

    def allocate(self, size: int) -> bool:
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
