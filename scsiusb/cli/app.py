"""The command group: load a command when it is used; turn its outcome into an exit status and one error line."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib import import_module
from typing import Final

import click

from scsiusb.cli import status
from scsiusb.cli.failure import error_record, failure_of
from scsiusb.cli.options import COMPLETION_VARIABLE, Settings, global_options
from scsiusb.cli.output import OUTPUT, naming, say, show
from scsiusb.cli.process import drop_what_cannot_be_written, flush, log_lines, prepare_streams, unwinding_signals

COMMANDS: Final = {  # in the order of --help
    "list": "scsiusb.cli.commands.listing",
    "inquiry": "scsiusb.cli.commands.identify",
    "capacity": "scsiusb.cli.commands.identify",
    "luns": "scsiusb.cli.commands.identify",
    "partitions": "scsiusb.cli.commands.volume",
    "ls": "scsiusb.cli.commands.files",
    "cat": "scsiusb.cli.commands.files",
    "get": "scsiusb.cli.commands.files",
    "put": "scsiusb.cli.commands.files",
    "mkdir": "scsiusb.cli.commands.files",
    "rm": "scsiusb.cli.commands.files",
    "mkfs": "scsiusb.cli.commands.files",
    "read": "scsiusb.cli.commands.blocks",
    "write": "scsiusb.cli.commands.blocks",
    "dump": "scsiusb.cli.commands.imaging",
    "restore": "scsiusb.cli.commands.imaging",
    "clone": "scsiusb.cli.commands.imaging",
    "compare": "scsiusb.cli.commands.imaging",
    "probe": "scsiusb.cli.commands.probe",
    "rescue": "scsiusb.cli.commands.rescue",
    "erase": "scsiusb.cli.commands.erase",
    "scan": "scsiusb.cli.commands.scan",
    "sense": "scsiusb.cli.commands.control",
    "raw": "scsiusb.cli.commands.control",
    "command": "scsiusb.cli.commands.command",
    "ready": "scsiusb.cli.commands.power",
    "start": "scsiusb.cli.commands.power",
    "stop": "scsiusb.cli.commands.power",
    "load": "scsiusb.cli.commands.power",
    "eject": "scsiusb.cli.commands.control",
    "lock": "scsiusb.cli.commands.power",
    "unlock": "scsiusb.cli.commands.power",
    "sync": "scsiusb.cli.commands.power",
    "health": "scsiusb.cli.commands.health",
    "smart": "scsiusb.cli.commands.health",
    "modes": "scsiusb.cli.commands.modes",
    "logs": "scsiusb.cli.commands.logs",
    "decode": "scsiusb.cli.commands.decode",
    "opcodes": "scsiusb.cli.commands.reports",
    "defects": "scsiusb.cli.commands.reports",
    "lba-status": "scsiusb.cli.commands.reports",
    "reservations": "scsiusb.cli.commands.reports",
    "timestamp": "scsiusb.cli.commands.reports",
    "security": "scsiusb.cli.commands.reports",
    "buffer": "scsiusb.cli.commands.buffer",
    "toc": "scsiusb.cli.commands.optical",
    "features": "scsiusb.cli.commands.optical",
    "disc": "scsiusb.cli.commands.optical",
    "format": "scsiusb.cli.commands.medium",
    "sanitize": "scsiusb.cli.commands.medium",
    "ata-security": "scsiusb.cli.commands.ata_security",
    "unmap": "scsiusb.cli.commands.medium",
    "write-same": "scsiusb.cli.commands.medium",
    "reassign": "scsiusb.cli.commands.medium",
    "watch": "scsiusb.cli.commands.watch",
    "leases": "scsiusb.cli.commands.manage",
    "recover": "scsiusb.cli.commands.manage",
    "check": "scsiusb.cli.commands.check",
    "bench": "scsiusb.cli.commands.bench",
    "doctor": "scsiusb.cli.commands.doctor",
    "quirks": "scsiusb.cli.commands.quirks",
    "virtual": "scsiusb.cli.commands.virtual",
    "completion": "scsiusb.cli.commands.completion",
}


GROUPS: Final = {  # the titles of --help, and the first command under each
    "Devices": "list",
    "Partitions and files": "partitions",
    "Blocks and images": "read",
    "The unit and its medium": "sense",
    "Reports": "modes",
    "Optical drives": "toc",
    "Change the medium": "format",
    "Programs and tests": "watch",
}


class LazyGroup(click.Group):
    """Command group that imports the module of a command only when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands in the order of --help."""
        return list(COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands in groups, each with a title."""
        names = list(COMMANDS)
        starts = [names.index(first) for first in GROUPS.values()]
        width = formatter.width - 6 - max(map(len, names))
        for title, start, end in zip(GROUPS, starts, [*starts[1:], len(names)], strict=True):
            with formatter.section(title):
                formatter.write_dl([(name, self._help_of(ctx, name, width)) for name in names[start:end]])

    def _help_of(self, ctx: click.Context, name: str, width: int) -> str:
        command = self.get_command(ctx, name)
        return "" if command is None else command.get_short_help_str(width)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command, or None if there is no such command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(COMMANDS[cmd_name]), f"{cmd_name.replace('-', '_')}_command")
        return command


EXAMPLES: Final = """
\b
Examples:
  scsiusb list
  scsiusb inquiry 2-1
  scsiusb read 2-1 --lba 0 --blocks 2048 -o first-megabyte.img
  scsiusb write 2-1 --lba 0 -i image.img --verify
  scsiusb inquiry virtual:          (needs no hardware)

\b
DEVICE is an address (2-1, 1-1.4), VID:PID, serial=TEXT, /dev/sdX,
virtual:FILE, or virtual: (a small stick in memory); the latter two can have
options: virtual:FILE?luns=2&fault=nak@csw. DEVICE can be omitted if only one
device is attached.
"""


@click.group(
    cls=LazyGroup,
    epilog=EXAMPLES,
    no_args_is_help=False,
    invoke_without_command=True,
    subcommand_metavar="COMMAND [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@global_options
@click.pass_context
def scsiusb(context: click.Context) -> None:
    """Drive USB mass-storage devices in user space."""
    if context.invoked_subcommand is None:
        show(context.get_help())


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return the exit status; print at most one error line. Raises nothing."""
    settings = Settings(words=tuple(arguments))
    prepare_streams()
    with unwinding_signals(), log_lines(settings):
        try:
            result = _call(list(arguments), settings)
            flush()
        except BaseException as error:  # noqa: BLE001 - a user must never see a traceback
            return _fail(error, settings.json or "--json" in arguments)
    return result if isinstance(result, int) else status.GOOD


def _call(arguments: list[str], settings: Settings) -> object:
    instruction = os.environ.get(COMPLETION_VARIABLE)
    if instruction:
        from scsiusb.cli.shells import complete

        with naming(OUTPUT):
            return complete(scsiusb, instruction)
    with naming(OUTPUT), scsiusb.make_context("scsiusb", arguments, obj=settings) as context:
        return scsiusb.invoke(context)


def _fail(error: BaseException, as_json: bool) -> int:
    failure = failure_of(error)
    drop_what_cannot_be_written()
    if failure.what:
        say(json.dumps(error_record(error, failure)) if as_json else failure.line)
    return failure.status
