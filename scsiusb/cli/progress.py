"""A progress bar on stderr, only on a terminal and only for transfers that take some time; how far a transfer came."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final, cast

from scsiusb.cli.failure import RUN_AGAIN, Terminated
from scsiusb.cli.target_bars import TargetBars

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from scsiusb.imaging.events import OnProgress, Progress, TargetsProgress

WORTH_SHOWING: Final = 4 * 1024 * 1024  # bytes


@contextmanager
def progress(doing: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with the number of bytes transferred since the last call; None: total not known."""
    if (total is not None and total <= WORTH_SHOWING) or not sys.stderr.isatty():
        yield lambda count: None
        return
    with _new_bars() as bar:
        task = bar.add_task(doing, total=total)
        yield lambda count: bar.advance(task, count)


@contextmanager
def percent_bar(doing: str) -> Iterator[Callable[[float | None], None]]:
    """Yield a function that shows, on a terminal, how much of an operation is done, 0 to 1; None: not known."""
    if not sys.stderr.isatty():
        yield lambda part: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(doing, total=None)

        def update(part: float | None) -> None:
            bar.update(task, total=None if part is None else 1.0, completed=part or 0.0)

        yield update


@contextmanager
def job_progress(*, least: int | None = None) -> Iterator[OnProgress]:
    """Yield a function that shows a job's progress as a bar for each phase, on a terminal.

    `least`: bytes that a phase with a bar has more than, by default as many as take some time.
    """
    with ExitStack() as held:
        bars = _Bars(held, WORTH_SHOWING if least is None else least)
        yield bars.show if sys.stderr.isatty() else _ignore


def _ignore(progress: Progress) -> None: ...


class _Bars:
    """A bar for each phase of a job."""

    def __init__(self, held: ExitStack, least: int) -> None:
        self._held = held
        self._least = least
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}
        self._targets: TargetBars | None = None

    def show(self, progress: Progress) -> None:
        """Show how far a phase has come."""
        phase, done, total = progress
        if total is not None and total <= self._least:
            return
        if len(getattr(progress, "targets", ())) > 1:
            self._show_targets(cast("TargetsProgress", progress))
            return
        if self._bars is None:
            self._bars = self._held.enter_context(_new_bars())
        if phase not in self._tasks:
            self._tasks[phase] = self._bars.add_task(phase, total=total)
        self._bars.update(self._tasks[phase], completed=done, total=total)

    def _show_targets(self, progress: TargetsProgress) -> None:
        if self._targets is None:
            from rich.console import Console
            from rich.live import Live

            self._targets = TargetBars()
            self._held.enter_context(Live(self._targets, console=Console(stderr=True), transient=True))
        self._targets.update(progress)


def _new_bars() -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(True), TransferSpeedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)


@contextmanager
def interruptible(reached: Callable[[], str], then: str = RUN_AGAIN) -> Iterator[None]:
    """Add to Ctrl-C, and to other signals that end the process, how far the command came, and what to do then.

    `then` is empty where `reached` says that. `failure_of` shows both.
    """
    try:
        yield
    except (KeyboardInterrupt, Terminated) as error:
        error.args = (reached(), then)
        raise
