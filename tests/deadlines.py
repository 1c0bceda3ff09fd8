"""Deadlines for transfers."""

from __future__ import annotations

import time


def within(timeout_ms: int) -> float:
    """Return the deadline so many milliseconds from now, by `time.monotonic`."""
    return time.monotonic() + timeout_ms / 1000
