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
REPLUG = "re-plug"
# Of one disk of several:
FLUSHING = "flushing"
WAITING = "waiting"
UNPLUG = "unplug"
PLUG_IN = "plug in"
COMPLETE = "complete"
FAILED = "failed"


class Progress(NamedTuple):
    """How far a job has come."""

    phase: str
    """What it does now: "reading", "writing", "verifying", "comparing" and so on; of a rescue, "copying" and so on."""
    done: int
    """Bytes of this phase that are done, with those of an earlier run."""
    total: int | None
    """Bytes of this phase; None where that is not known before the end, as of most compressed images."""


class TargetProgress(NamedTuple):
    """How far a job has come with one of its disks."""

    address: str
    """Where it was when the job began."""
    serial: str | None
    phase: str
    """One of "writing", "flushing", "verifying", "waiting" (for other disks), "complete", "failed"; of a re-plug
    "unplug", then "plug in", for which the job waits."""
    done: int
    """Bytes of the phase that are done, of as many as in the event."""
    error: Exception | None
    """Why it failed."""


class TargetsProgress(Progress):
    """How far a job on one or several disks has come: `restore` and `clone` pass it to the caller's `progress`.

    `targets` has a TargetProgress for each disk, in the order in which they were given. In the phase "re-plug" `done`
    and `total` are numbers of disks.
    """

    targets: tuple[TargetProgress, ...]

    def __new__(
        cls, phase: str, done: int, total: int | None, targets: tuple[TargetProgress, ...] = ()
    ) -> TargetsProgress:
        """Make it as a Progress, with the disks."""
        made = super().__new__(cls, phase, done, total)
        made.targets = targets
        return made


OnProgress = Callable[[Progress], object]
"""Called from the thread that called the job, with each piece that is done: up to a few hundred times a second."""


def ignore(progress: Progress) -> None:
    """Do nothing with the progress."""
