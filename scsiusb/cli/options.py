"""What the commands share: the global options, DEVICE and --lun, numbers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import click
from click.shell_completion import CompletionItem

from scsiusb._version import __version__

F = TypeVar("F", bound=Callable[..., Any])
LEVELS: Final = (logging.WARNING, logging.INFO, logging.DEBUG)


@dataclass
class Settings:
    """What the global options say, given before or after the command."""

    json: bool = False
    verbosity: int = 0
    trace: str | None = None
    timeout: float | None = None


def number(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """An option's callback: a whole number, not negative; decimal, or hex with 0x."""
    if value is None:
        return None
    try:
        parsed = int(value, 0)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a whole number") from None
    if parsed < 0:
        raise click.BadParameter(f"{value} is negative")
    return parsed


def number_option(*names: str, **attributes: Any) -> Callable[[F], F]:
    return click.option(*names, metavar="N", callback=number, **attributes)


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise click.BadParameter(f"{value!r} is not a time in seconds above 0")
    return seconds


def settings() -> Settings:
    """The settings of the command that runs."""
    return click.get_current_context().find_root().ensure_object(Settings)


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Stores an option that was given; one that was not must not undo the same one on the other side."""
    if value and parameter.name:
        kept = context.find_root().ensure_object(Settings)
        setattr(kept, parameter.name, _seconds(value) if parameter.name == "timeout" else value)


def global_options(function: F) -> F:
    """Adds the options that every command takes."""
    shared: dict[str, Any] = {"expose_value": False, "callback": _keep, "is_eager": True}
    for option in (
        click.option("--timeout", metavar="S", help="Seconds that a command to the device may take.", **shared),
        click.option("--trace", metavar="FILE.pcapng", help="Record what goes over the bus.", **shared),
        click.option("-v", "--verbose", "verbosity", count=True, help="Say more; -vv says all.", **shared),
        click.option("--json", is_flag=True, help="Print JSON.", **shared),
        click.version_option(__version__, message="scsiusb %(version)s"),
    ):
        function = option(function)
    return function


def _complete_device(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from scsiusb.devices import VIRTUAL, devices
    from scsiusb.errors import ScsiUsbError

    try:
        found = [(info.address, str(info)) for info in devices()]
    except ScsiUsbError:
        found = []
    words = [*found, (VIRTUAL, "a small stick in memory")]
    return [CompletionItem(word, help=text) for word, text in words if word.startswith(incomplete)]


def device_argument(function: F) -> F:
    """DEVICE and --lun."""
    function = number_option("--lun", default="0", help="The logical unit (default 0).")(function)
    return click.argument("device", required=False, shell_complete=_complete_device)(function)
