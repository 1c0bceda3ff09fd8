"""Errors of units that know no such command: what the device does not have, and by which dialects it was asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from scsiusb.errors import IllegalRequest

OTHER_WAYS: Final = "--via names another dialect of its bridge; `scsiusb health` says what can be seen without"


@contextmanager
def refusals_named(what: str, names: Sequence[str]) -> Iterator[None]:
    """Say in the error of a unit that knows no such command what it does not have, and by which dialects."""
    try:
        yield
    except IllegalRequest as error:
        error.what = f"the device has no {what} (asked by {' and '.join(names)}): {error.sense}"
        error.remedy = OTHER_WAYS
        raise
