"""A bar for each of several disks that a job writes at once, on a terminal; they fit any width."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from scsiusb.cli.output import size_text

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table

    from scsiusb.imaging.events import TargetProgress, TargetsProgress

SPEED_FROM: Final = 60  # columns of a terminal that has room for the speed of each disk
BAR_FROM: Final = 44  # columns of one that has room for bars
LEAST_TIME: Final = 0.5  # seconds after which a speed is worth showing
ENDED: Final = ("complete", "failed")


class TargetBars:
    """What the terminal shows of a job on several disks: a line for the phase, and one for each disk."""

    def __init__(self) -> None:
        self._last: TargetsProgress | None = None
        self._starts: dict[tuple[int, str], tuple[float, int]] = {}
        """When each disk began each phase, and the bytes of it that were done then."""

    def update(self, progress: TargetsProgress) -> None:
        """Show this from now on."""
        self._last = progress
        now = time.monotonic()
        for at, target in enumerate(progress.targets):
            self._starts.setdefault((at, target.phase), (now, target.done))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the lines for a terminal of that width."""
        from rich.text import Text

        if self._last is None:
            return
        yield Text(self._head(self._last), no_wrap=True, overflow="ellipsis")
        yield self._table(self._last, options.max_width)

    def _head(self, progress: TargetsProgress) -> str:
        total = "" if progress.total is None else f" of {size_text(progress.total)}"
        failed = sum(target.error is not None for target in progress.targets)
        also = f", {failed} of {len(progress.targets)} failed" if failed else ""
        return f"{progress.phase}: {size_text(progress.done)}{total}{also}{self._time_left(progress)}"

    def _time_left(self, progress: TargetsProgress) -> str:
        speeds = [self._speed(at, each) for at, each in enumerate(progress.targets) if each.phase == progress.phase]
        slowest = min(filter(None, speeds), default=0.0)
        if progress.total is None or not slowest:
            return ""
        seconds = int((progress.total - progress.done) / slowest)
        return f", {seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02} left"

    def _speed(self, at: int, target: TargetProgress) -> float:
        """Return the bytes in a second since the phase began; 0 if that is not known yet."""
        began, before = self._starts[at, target.phase]
        seconds = time.monotonic() - began
        return (target.done - before) / seconds if seconds >= LEAST_TIME else 0.0

    def _table(self, progress: TargetsProgress, width: int) -> Table:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        has_bar, has_speed = width >= BAR_FROM, width >= SPEED_FROM
        names = [each.address if each.serial is None else f"{each.address} {each.serial}" for each in progress.targets]
        table = Table.grid(padding=(0, 1, 0, 0))
        table.add_column(width=min(max(map(len, names)), width // 3), no_wrap=True)
        table.add_column(width=9, no_wrap=True)
        table.add_column(ratio=1, no_wrap=True)
        table.expand = True
        for at, (name, target) in enumerate(zip(names, progress.targets, strict=True)):
            if target.error is not None:
                rest: Text | Table = Text(str(target.error), style="red")
            else:
                speed = self._speed(at, target) if has_speed and target.phase == progress.phase else None
                rest = Table.grid(padding=(0, 1, 0, 0))
                rest.expand = True
                rest.add_column(ratio=1, no_wrap=True)
                rest.add_column(width=5, justify="right", no_wrap=True)
                total = None if target.phase in ENDED else progress.total
                bar = ProgressBar(total=total, completed=target.done) if has_bar and total else Text("")
                cells: list[Text | ProgressBar] = [bar, Text(f"{target.done * 100 // total} %" if total else "")]
                if speed is not None:
                    rest.add_column(width=11, justify="right", no_wrap=True)
                    cells.append(Text(f"{speed / 1e6:.1f} MB/s" if speed else ""))
                rest.add_row(*cells)
            table.add_row(Text(name), Text(target.phase), rest)
        return table
