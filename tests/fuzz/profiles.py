"""How many examples hypothesis tries: few in `tools/test fast`, all in a full run, more by SCSIUSB_FUZZ."""

from __future__ import annotations

import os
from typing import Any, Final

from hypothesis import HealthCheck, settings

FACTOR: Final = int(os.environ.get("SCSIUSB_FUZZ", "1"))
FULL: Final = 100  # examples of a test that does not choose their number
FAST: Final = 25


def register() -> None:
    """Make the profiles `full`, which is the default, and `fast`, for `--hypothesis-profile`.

    Neither has a deadline, as a busy machine would miss it.
    """
    slow = [HealthCheck.too_slow]
    settings.register_profile("full", max_examples=FULL, deadline=None, suppress_health_check=slow)
    settings.register_profile("fast", settings.get_profile("full"), max_examples=FAST, derandomize=True, database=None)
    settings.load_profile("full")


def quick(examples: int, **more: Any) -> settings:
    """Return settings for `examples` in a full run and fewer in a fast one, the same ones each time.

    SCSIUSB_FUZZ asks for so many times more of them, and for others each time.
    """
    share = settings().max_examples / FULL
    return settings(
        max_examples=max(1, round(examples * share)) * FACTOR,
        derandomize=FACTOR == 1,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
        **more,
    )
