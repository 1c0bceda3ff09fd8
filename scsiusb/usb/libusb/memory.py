"""Shares out usbfs memory among the devices of this process.

usbfs limits the memory of all transfers of all programs together (16 MB by default), and a transfer that exceeds the
limit fails with ENOMEM. Device memory, which saves the kernel a copy, counts as long as it is allocated; other buffers
count only during a transfer.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Final

LIMIT: Final = Path("/sys/module/usbcore/parameters/usbfs_memory_mb")  # 0 means no limit
SHARE: Final = 8  # the next device gets one eighth of what is left
MIN_DEVICE_MEMORY: Final = 64 * 1024  # bytes; smaller commands would lose more time than device memory saves
ALWAYS_GRANTED: Final = 4096  # bytes; a CBW or a CSW, without which a device cannot be used at all


class DeviceMemory:
    """The account of this process's device memory, in bytes; safe to use from several threads.

    An eighth of the limit is left to transfers from ordinary memory and to other programs.
    """

    def __init__(self, limit: int | None) -> None:
        """Open the account with `limit` bytes; None if there is no limit."""
        self._lock = threading.Lock()
        self._left = limit if limit is None else limit * 7 // 8

    def reserve(self, size: int) -> int:
        """Reserve memory for a device's commands and return the bytes granted.

        This is `size`, or less, so that something is left for other devices: a multiple of MIN_DEVICE_MEMORY; 0 if too
        little is left.
        """
        with self._lock:
            if self._left is None:
                return size
            part = max(self._left, 0) // SHARE
            granted = min(size, part - part % MIN_DEVICE_MEMORY)
            self._left -= granted
            return granted

    def allocate(self, size: int) -> bool:
        """Take `size` bytes without a reservation; return False if too little is left."""
        with self._lock:
            if self._left is None:
                return True
            if size > max(self._left, ALWAYS_GRANTED):
                return False
            self._left -= size
            return True

    def give_back(self, size: int) -> None:
        """Return bytes that `reserve` or `allocate` granted."""
        with self._lock:
            if self._left is not None:
                self._left += size


def usbfs_limit() -> int | None:
    """Read usbfs's memory limit, in bytes; None if there is no limit, or no usbfs."""
    try:
        return int(LIMIT.read_text()) * 1024 * 1024 or None
    except (OSError, ValueError):
        return None
