"""How long hypothesis tries: little in the fast tests, SCSIUSB_FUZZ times as much by hand."""

from __future__ import annotations

import os
from typing import Any, Final

from hypothesis import HealthCheck, settings

FACTOR: Final = int(os.environ.get("SCSIUSB_FUZZ", "1"))


def quick(examples: int, **more: Any) -> settings:
    """The same examples every time, unless SCSIUSB_FUZZ asks for more of them."""
    return settings(
        max_examples=examples * FACTOR,
        derandomize=FACTOR == 1,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
        **more,
    )
