"""A progress bar on stderr, only on a terminal and only for transfers that take some time; how far a transfer came."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from scsiusb.cli.failure import Terminated

if TYPE_CHECKING:
    from rich.progress import TaskID

    from scsiusb.imaging.events import OnProgress, Progress

WORTH_SHOWING: Final = 4 * 1024 * 1024  # bytes


@contextmanager
def progress(doing: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with the number of bytes transferred since the last call; None: total not known."""
    if (total is not None and total <= WORTH_SHOWING) or not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(True), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(doing, total=total)
        yield lambda count: bar.advance(task, count)


@contextmanager
def job_progress() -> Iterator[OnProgress]:
    """Yield a function that shows a job's progress as a bar for each phase, only on a terminal."""
    if not sys.stderr.isatty():
        yield lambda progress: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(True), TransferSpeedColumn())
    with Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def show(progress: Progress) -> None:
            if progress.phase not in tasks:
                tasks[progress.phase] = bar.add_task(progress.phase, completed=progress.done, total=progress.total)
            bar.update(tasks[progress.phase], completed=progress.done, total=progress.total)

        yield show


@contextmanager
def interruptible(reached: Callable[[], str]) -> Iterator[None]:
    """Add to Ctrl-C, and to other signals that end the process, how far the command came; `failure_of` shows it."""
    try:
        yield
    except (KeyboardInterrupt, Terminated) as error:
        error.args = (reached(),)
        raise
