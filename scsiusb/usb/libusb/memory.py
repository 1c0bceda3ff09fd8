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
MAX_CHANGES: Final = 100
ALWAYS_GRANTED: Final = 4096  # bytes; a CBW or a CSW, without which a device cannot be used at all


class DeviceMemory:
    """The account of this process's device memory, in bytes; safe to use from several threads and signal handlers.

    An eighth of the limit is left to transfers from ordinary memory and to other programs.
    """

    def __init__(self, limit: int | None) -> None:
        """Open the account with `limit` bytes; None if there is no limit."""
        # A signal's handler may close a device in the middle of any method: it must not wait for a lock that its own
        # thread has, nor change a number between another method's reading and writing it. So changes are appended.
        self._lock = threading.RLock()
        self._changes = None if limit is None else [limit * 7 // 8]
        self._folding = threading.Lock()  # never waited for

    @property
    def left(self) -> int | None:
        """Return the bytes that are left; None if there is no limit."""
        return None if self._changes is None else sum(self._changes)

    def reserve(self, size: int) -> int:
        """Reserve memory for a device's commands and return the bytes granted.

        This is `size`, or less, so that something is left for other devices: a multiple of MIN_DEVICE_MEMORY; 0 if too
        little is left.
        """
        with self._lock:
            left = self.left
            if left is None:
                return size
            part = max(left, 0) // SHARE
            granted = min(size, part - part % MIN_DEVICE_MEMORY)
            self._change(-granted)
            return granted

    def allocate(self, size: int) -> bool:
        """Take `size` bytes without a reservation; return False if too little is left."""
        with self._lock:
            left = self.left
            if left is not None and size > max(left, ALWAYS_GRANTED):
                return False
            self._change(-size)
            return True

    def give_back(self, size: int) -> None:
        """Return bytes that `reserve` or `allocate` granted."""
        self._change(size)

    def _change(self, size: int) -> None:
        changes = self._changes
        if changes is None:
            return
        changes.append(size)
        if len(changes) > MAX_CHANGES and self._folding.acquire(blocking=False):
            try:
                count = len(changes)
                changes[:count] = [sum(changes[:count])]
            finally:
                self._folding.release()


def usbfs_limit() -> int | None:
    """Read usbfs's memory limit, in bytes; None if there is no limit, or no usbfs."""
    try:
        return int(LIMIT.read_text()) * 1024 * 1024 or None
    except (OSError, ValueError):
        return None
