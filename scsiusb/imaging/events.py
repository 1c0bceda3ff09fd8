"""What a job reports while it runs, for a progress bar or for a user interface of the caller's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

READING = "reading"
WRITING = "writing"
VERIFYING = "verifying"
COMPARING = "comparing"
MARKING = "marking"
PROBING = "probing"
SAMPLING = "sampling"


class Progress(NamedTuple):
    """How far a job has come."""

    phase: str
    """What it does now: "reading", "writing", "verifying", "comparing" and so on; of a rescue, "copying" and so on."""
    done: int
    """Bytes of this phase that are done, with those of an earlier run."""
    total: int | None
    """Bytes of this phase; None where that is not known before the end, as of most compressed images."""


OnProgress = Callable[[Progress], object]
"""Called from the thread that called the job, with each piece that is done: up to a few hundred times a second."""


def ignore(progress: Progress) -> None:
    """Do nothing with the progress."""
