"""What every test relies on: Ctrl-C works, also where whoever started pytest ignores it."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """A shell without job control starts what runs in the background deaf to SIGINT, and children inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
