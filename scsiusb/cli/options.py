"""What the commands share: the global options, DEVICE and --lun, numbers."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from scsiusb._version import __version__
from scsiusb.base.dataclass import dataclass

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMPLETION_VARIABLE: Final = "_SCSIUSB_COMPLETE"
F = TypeVar("F", bound=Callable[..., Any])
LEVELS: Final = (logging.WARNING, logging.INFO, logging.DEBUG)
NUMBER: Final = re.compile(r"(-?)(?:0[xX]([0-9a-fA-F]{1,32})|([0-9]{1,32}))")
LONGEST_TIMEOUT: Final = 1_000_000.0  # libusb counts milliseconds in 32 bits
SHOWN: Final = 40  # characters of a wrong value


@dataclass
class Settings:
    """What the global options say, given before or after the command."""

    json: bool = False
    verbosity: int = 0
    trace: str | None = None
    timeout: float | None = None
    quirks: str | None = None


def quoted(value: str) -> str:
    """A wrong value as an error shows it."""
    return repr(value if len(value) <= SHOWN else f"{value[:SHOWN]}…")


def number(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """An option's callback: a whole number, not negative; decimal, or hex with 0x."""
    if value is None:
        return None
    match = NUMBER.fullmatch(value)
    if match is None:
        raise click.BadParameter(f"{quoted(value)} is not a whole number, such as 2048 or 0x800")
    if match[1]:
        raise click.BadParameter(f"{value} is negative")
    return int(match[2], 16) if match[2] else int(match[3])


def number_option(*names: str, **attributes: Any) -> Callable[[F], F]:
    return click.option(*names, metavar="N", callback=number, **attributes)


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= LONGEST_TIMEOUT:
        raise click.BadParameter(f"{quoted(value)} is not a time in seconds, above 0 and at most {LONGEST_TIMEOUT:.0f}")
    return seconds


def _quirk_rows(value: str) -> str:
    from scsiusb.quirks.user import EXAMPLE, parse_rows

    try:
        rows = parse_rows(value, "--quirks")
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if not rows:
        raise click.UsageError(f"--quirks: {quoted(value)} is not {EXAMPLE}")
    return value


def settings() -> Settings:
    """The settings of the command that runs."""
    return click.get_current_context().find_root().ensure_object(Settings)


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Stores an option that was given; one that was not must not undo the same one on the other side."""
    kept = context.find_root().ensure_object(Settings)
    if parameter.name == "timeout" and value is not None:
        kept.timeout = _seconds(value)
    elif parameter.name == "quirks" and value:
        rows = ",".join(reversed(",".join(map(_quirk_rows, value)).split(",")))  # the last word counts, found first
        kept.quirks = rows if kept.quirks is None else f"{rows},{kept.quirks}"
    elif parameter.name == "verbosity":
        kept.verbosity += value
    elif parameter.name and value not in (None, False, ()):
        setattr(kept, parameter.name, value)


def global_options(function: F) -> F:
    """Adds the options that every command takes."""
    shared: dict[str, Any] = {"expose_value": False, "callback": _keep, "is_eager": True}
    for option in (
        click.option("--timeout", metavar="S", help="Seconds that a command to the device may take.", **shared),
        click.option(
            "--quirks", metavar="VID:PID:LETTERS", multiple=True, help="What a device needs care for.", **shared
        ),
        click.option("--trace", metavar="FILE.pcapng", help="Record what goes over the bus.", **shared),
        click.option("-v", "--verbose", "verbosity", count=True, help="Say more; -vv says all.", **shared),
        click.option("--json", is_flag=True, help="Print JSON.", **shared),
        click.version_option(__version__, message="scsiusb %(version)s"),
    ):
        function = option(function)
    return function


def completions(words: list[tuple[str, str]], incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(word, help=text) for word, text in words if word.startswith(incomplete)]
