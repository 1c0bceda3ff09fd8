"""How many examples hypothesis tries: few in the fast tests, SCSIUSB_FUZZ times as many by hand."""

from __future__ import annotations

import os
from typing import Any, Final

from hypothesis import HealthCheck, settings

FACTOR: Final = int(os.environ.get("SCSIUSB_FUZZ", "1"))


def quick(examples: int, **more: Any) -> settings:
    """Return settings that try the same examples each time, unless SCSIUSB_FUZZ asks for more."""
    return settings(
        max_examples=examples * FACTOR,
        derandomize=FACTOR == 1,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
        **more,
    )
