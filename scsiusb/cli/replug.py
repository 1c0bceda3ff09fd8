"""The options for a re-plug before disks are read back, and what is said to the person who does it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import click

from scsiusb.cli.options import F, quoted, settings
from scsiusb.cli.output import say

if TYPE_CHECKING:
    from collections.abc import Callable

    from scsiusb.imaging.events import Progress, TargetProgress, TargetsProgress

REPLUG = "re-plug"
TEXTS = {
    "unplug": "unplug {who}, and plug it in again, within {wait:g} seconds",
    "plug in": "{who} is unplugged; plug it in again",
    "waiting": "{who} is back",
}


def replug_options(function: F) -> F:
    """Add --replug and --wait."""
    wait = click.option(
        "--wait", metavar="S", type=float, default=60.0, callback=_seconds, help="Seconds for that (default 60)."
    )
    replug = click.option("--replug", is_flag=True, help="Ask for a re-plug before reading back, in place of a reset.")
    return replug(wait(function))


def _seconds(context: click.Context, parameter: click.Parameter, value: float) -> float:
    """Return the value. Raise BadParameter for one that is no number of seconds."""
    if not 0 < value < float("inf"):
        raise click.BadParameter(f"{quoted(str(value))} is not a time in seconds, above 0")
    return value


class Asking:
    """Shows a job's progress, and says on stderr which devices to unplug: as text, under --json as an object a line."""

    def __init__(self, show: Callable[[Progress], object], wait: float) -> None:
        self._show = show
        self._wait = wait
        self._said: dict[str, str] = {}

    def __call__(self, progress: Progress) -> None:
        """Take the progress."""
        self._show(progress)
        if progress.phase == REPLUG:
            for target in cast("TargetsProgress", progress).targets:
                if self._said.get(target.address) != target.phase and target.phase in TEXTS:
                    self._said[target.address] = target.phase
                    self._say(target)

    def _say(self, target: TargetProgress) -> None:
        address, serial, phase, *_ = target
        if settings().json:
            event: dict[str, Any] = {"event": phase, "address": address, "serial": serial, "seconds": self._wait}
            say(json.dumps(event))
        else:
            who = address if serial is None else f"{address}, serial {serial}"
            say(TEXTS[phase].format(who=who, wait=self._wait))
