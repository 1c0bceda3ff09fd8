"""The command group: loads each command when it is asked for, and turns every error into one line and a status."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import FrameType
from typing import Any, Final

import click

from scsiusb.cli import status
from scsiusb.cli.options import LEVELS, Settings, global_options

COMMANDS: Final = {  # in the order of --help
    "list": "scsiusb.cli.identify",
    "inquiry": "scsiusb.cli.identify",
    "capacity": "scsiusb.cli.identify",
    "luns": "scsiusb.cli.identify",
    "sense": "scsiusb.cli.identify",
    "read": "scsiusb.cli.blocks",
    "write": "scsiusb.cli.blocks",
    "raw": "scsiusb.cli.control",
    "eject": "scsiusb.cli.control",
    "completion": "scsiusb.cli.completion",
}
TERMINATING: Final = ("SIGTERM", "SIGHUP")


class LazyGroup(click.Group):
    """Imports a command's module only when that command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(COMMANDS[cmd_name]), f"{cmd_name}_command")
        return command


EXAMPLES: Final = """
\b
Examples:
  scsiusb list
  scsiusb inquiry 2-1
  scsiusb read 2-1 --lba 0 --blocks 2048 -o first-megabyte.img
  scsiusb write 2-1 --lba 0 -i image.img --verify
  scsiusb inquiry virtual:          no hardware needed

\b
DEVICE is an address (2-1, 1-1.4), VID:PID, serial=TEXT, virtual:FILE or
virtual: (a small stick in memory). With one device attached, leave it out.
"""


@click.group(cls=LazyGroup, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@global_options
def scsiusb() -> None:
    """Drive USB mass-storage devices in user space."""


def run(arguments: Sequence[str]) -> int:
    """Runs the command line; returns the exit status. Prints at most one line of error."""
    with _terminating_signals(), _logging() as handler:
        try:
            context: Settings = Settings()
            result = scsiusb.main(
                list(arguments), prog_name="scsiusb", standalone_mode=False, obj=context, default_map=None
            )
            sys.stdout.flush()
        except click.exceptions.Exit as exit_:
            return exit_.exit_code
        except click.UsageError as error:
            return _fail(_sentence(error), status.USAGE, _help_hint(error))
        except click.ClickException as error:
            return _fail(_sentence(error), status.CANNOT_OPEN)
        except (KeyboardInterrupt, click.Abort):
            return _fail("interrupted", status.INTERRUPTED)
        except BrokenPipeError:
            return _drop_stdout()
        except Exception as error:  # noqa: BLE001 - a traceback is never what a user should see
            return _fail_with(error, handler)
    return result if isinstance(result, int) else status.GOOD


def _fail_with(error: Exception, handler: logging.Handler) -> int:
    known = status.status_of(error)
    if known == status.CANNOT_OPEN and isinstance(error, OSError) and error.filename:
        return _fail(f"{error.filename}: {error.strerror}", known)
    if isinstance(error, OSError) and error.errno and not hasattr(error, "what"):
        return _fail(f"the output: {error.strerror}", known)
    logging.getLogger("scsiusb").debug("traceback", exc_info=error)
    if known == status.OTHER and not hasattr(error, "what"):
        return _fail(f"{type(error).__name__}: {error}", known, "report this with the output of -vv")
    return _fail(str(error), known)


def _fail(what: str, exit_status: int, remedy: str = "") -> int:
    line = f"{what}; {remedy}" if remedy else what
    click.echo(f"scsiusb: error: {' '.join(line.split())}", err=True)
    return exit_status


def _sentence(error: click.ClickException) -> str:
    return error.format_message().rstrip(".")


def _help_hint(error: click.UsageError) -> str:
    path = error.ctx.command_path if error.ctx else "scsiusb"
    return f"run `{path} --help`"


def _drop_stdout() -> int:
    """Whoever read our output has gone; nobody is left to tell."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return status.BROKEN_PIPE


@contextmanager
def _terminating_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind as Ctrl-C does, so that every `with` gives its device back."""

    def unwind(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    previous: dict[int, Any] = {}
    for name in TERMINATING:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            previous[number] = signal.signal(number, unwind)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Lines(logging.Handler):
    """Log records as lines on stderr, as verbose as the settings say."""

    def emit(self, record: logging.LogRecord) -> None:
        context = click.get_current_context(silent=True)
        wanted = context.find_root().ensure_object(Settings).verbosity if context else 0
        if record.levelno >= LEVELS[min(wanted, len(LEVELS) - 1)]:
            click.echo(f"scsiusb: {record.levelname.lower()}: {self.format(record)}", err=True)


@contextmanager
def _logging() -> Iterator[logging.Handler]:
    logger, handler = logging.getLogger("scsiusb"), _Lines()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
