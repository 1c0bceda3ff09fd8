"""Options that the commands share: the global options, DEVICE and --lun, numbers."""

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
MULTIPLE: Final = re.compile(r"([0-9]{1,32})([kKmMgGtT])")
POWERS: Final = {"K": 10, "M": 20, "G": 30, "T": 40}
LONGEST_TIMEOUT: Final = 1_000_000.0  # seconds; libusb has milliseconds in 32 bits
TRANSPORTS: Final = ("auto", "bot", "uas")
ALL: Final = "all"  # in place of a number of blocks
SHOWN: Final = 40  # characters of an invalid value in an error message


@dataclass
class Settings:
    """The values of the global options, given before or after the command."""

    json: bool = False
    verbosity: int = 0
    trace: str | None = None
    timeout: float | None = None
    quirks: str | None = None
    transport: str = "auto"
    words: tuple[str, ...] = ()
    """The command line itself."""


def quoted(value: str) -> str:
    """Return an invalid value in quotes for an error message, shortened if it is long."""
    return repr(value if len(value) <= SHOWN else f"{value[:SHOWN]}…")


def whole_number(text: str) -> int:
    """Parse an integer, decimal, or hex with 0x; it may be negative. Raise ValueError."""
    match = NUMBER.fullmatch(text)
    if match is None:
        raise ValueError(f"{quoted(text)} is not a whole number, such as 2048 or 0x800")
    value = int(match[2], 16) if match[2] else int(match[3])
    return -value if match[1] else value


def number(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Parse the value of an option: a non-negative integer, decimal, or hex with 0x. Raises BadParameter."""
    if value is None:
        return None
    try:
        found = whole_number(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    if value.startswith("-"):
        raise click.BadParameter(f"{value} is negative")
    return found


def number_option(*names: str, **attributes: Any) -> Callable[[F], F]:
    """Return a decorator that adds an option with a non-negative integer."""
    return click.option(*names, metavar="N", callback=number, **attributes)


def block_number(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Parse a number of blocks, also with K, M, G or T for 2^10, 2^20, … of them. Raises BadParameter."""
    match = None if value is None else MULTIPLE.fullmatch(value)
    if match is None:
        return number(context, parameter, value)
    return int(match[1]) << POWERS[match[2].upper()]


def count_or_all(context: click.Context, parameter: click.Parameter, value: str) -> int | None:
    """Parse a number of blocks; None for the word `all`. Raises BadParameter."""
    return None if value == ALL else block_number(context, parameter, value)


def block_number_option(*names: str, **attributes: Any) -> Callable[[F], F]:
    """Return a decorator that adds an option with a number of blocks."""
    return click.option(*names, metavar="N", callback=block_number, **attributes)


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
    """Return the settings of the running command."""
    return click.get_current_context().find_root().ensure_object(Settings)


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Store an option that was given. One that was not given must not undo the same option before the command."""
    kept = context.find_root().ensure_object(Settings)
    if parameter.name == "timeout" and value is not None:
        kept.timeout = _seconds(value)
    elif parameter.name == "quirks" and value:
        # The first match is used, and the last row that was given for a device must take effect.
        rows = ",".join(reversed(",".join(map(_quirk_rows, value)).split(",")))
        kept.quirks = rows if kept.quirks is None else f"{rows},{kept.quirks}"
    elif parameter.name == "trace" and value == "-":
        raise click.UsageError("--trace - would write to stdout, which has the result: give a file")
    elif parameter.name == "verbosity":
        kept.verbosity += value
    elif parameter.name and value not in (None, False, ()):
        setattr(kept, parameter.name, value)


def global_options(function: F) -> F:
    """Add the options that every command accepts."""
    shared: dict[str, Any] = {"expose_value": False, "callback": _keep, "is_eager": True}
    for option in (
        click.option("--timeout", metavar="S", help="Timeout of a device command, in seconds.", **shared),
        click.option("--quirks", metavar="VID:PID:LETTERS", multiple=True, help="Quirk flags for a device.", **shared),
        click.option(
            "--transport",
            type=click.Choice(TRANSPORTS),
            help="The protocol: by default UAS where it is possible, else BOT.",
            **shared,
        ),
        click.option("--trace", metavar="FILE.pcapng", help="Record the USB transfers in a file.", **shared),
        click.option(
            "-v",
            "--verbose",
            "verbosity",
            count=True,
            help="Log each command; -vv logs everything.",
            **shared,
        ),
        click.option("--json", is_flag=True, help="Print the result as JSON.", **shared),
        click.version_option(__version__, message="scsiusb %(version)s"),
    ):
        function = option(function)
    return function


def completions(words: list[tuple[str, str]], incomplete: str) -> list[CompletionItem]:
    """Return the words that start with what was typed, with their help texts."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(word, help=text) for word, text in words if word.startswith(incomplete)]
