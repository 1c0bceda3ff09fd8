"""Commands about the virtual stick: serving it over USB/IP."""

from __future__ import annotations

import ipaddress
import json
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.shell_completion import CompletionItem

from scsiusb.cli import status
from scsiusb.cli.failure import Refused, Terminated, wrong_size
from scsiusb.cli.options import completions, global_options, number_option, quoted, settings
from scsiusb.cli.output import say, show
from scsiusb.errors import ScsiUsbError

if TYPE_CHECKING:
    from scsiusb.virtual import Fault, Stick
    from scsiusb.virtual.usbip.server import Server

LOOPBACK: Final = "127.0.0.1"
PORT: Final = "3240"  # USB/IP's, as IANA has it
SPEEDS: Final = ["full", "high", "super"]
TURN: Final = 0.2  # seconds; on Windows a longer wait keeps Ctrl-C from getting through
SIZE: Final = re.compile(r"([1-9][0-9]{0,18})(|[kKmMgGtT])(?:i?[bB])?")
POWERS: Final = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
LARGEST: Final = 1 << 62


def _size(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    match = SIZE.fullmatch(value)
    size = int(match[1]) << POWERS[match[2].lower()] if match else 0
    if not 0 < size <= LARGEST:
        raise click.BadParameter(f"{quoted(value)} is not a size, such as 64M or 3T")
    return size


def _hex_16(context: click.Context, parameter: click.Parameter, value: str) -> int:
    if not re.fullmatch(r"(0[xX])?[0-9a-fA-F]{1,4}", value):
        raise click.BadParameter(f"{quoted(value)} is not a number of four hex digits")
    return int(value, 16)


def _faults(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> list[Fault]:
    from scsiusb.virtual import Fault

    faults = []
    for text in value:
        try:
            faults.append(Fault.parse(text))
        except ValueError as error:
            raise click.BadParameter(f"{quoted(text)}: {error}") from error
    return faults


def _complete_fault(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from scsiusb.virtual import KINDS

    return completions([(kind.name, kind.about) for kind in KINDS.values()], incomplete)


@click.group("virtual", no_args_is_help=False, short_help="A USB stick made of software.")
@global_options
def virtual_command() -> None:
    """A USB stick made of software, for those who write or test drivers.

    \b
    Examples:
      scsiusb virtual serve stick.img
      scsiusb virtual serve --help
    """


class WithFaults(click.Command):
    """A command whose help ends with the list of faults."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from scsiusb.virtual import KINDS

        with formatter.section("Faults"):
            formatter.write_dl([(kind.usage, kind.about) for kind in KINDS.values()])


@virtual_command.command("serve", cls=WithFaults, short_help="Export it over USB/IP.")
@click.argument("file", type=click.Path())
@number_option("--port", default=PORT, show_default=True, help="Where to listen; 0 takes a free port.")
@click.option("--host", metavar="ADDRESS", default=LOOPBACK, show_default=True, help="The address to listen on.")
@click.option(
    "--fault",
    "faults",
    metavar="TEXT",
    multiple=True,
    callback=_faults,
    help="What it does wrong.",
    shell_complete=_complete_fault,
)
@click.option("--create", metavar="SIZE", callback=_size, help="Make FILE, which must not be there, of that size.")
@number_option("--block-size", default="512", show_default=True, help="Bytes in a block.")
@click.option("--read-only", is_flag=True, help="The medium cannot be written.")
@click.option("--removable/--no-removable", default=True, help="What INQUIRY says of the medium.")
@click.option("--vid", metavar="HEX", default="1209", callback=_hex_16, show_default=True, help="idVendor.")
@click.option("--pid", metavar="HEX", default="0001", callback=_hex_16, show_default=True, help="idProduct.")
@click.option("--serial", metavar="TEXT", default="0123456789AB", show_default=True, help="The serial number.")
@click.option("--speed", type=click.Choice(SPEEDS), default="high", show_default=True, help="Of its bus.")
@global_options
def serve(file: str, port: int, host: str, create: int | None, **stick: Any) -> int:
    """Export a stick, whose blocks are FILE's, over USB/IP until Ctrl-C or SIGTERM.

    A kernel attaches it as a device of its own, with bus id 1-1; one at a time.
    With -v it says who attaches it and which commands come.

    --fault is NAME[=VALUE][@PHASE], and behind it, each after a comma, any of
    command=K, opcode=HH, lba=N[-M], lun=N, over=N, cdb=HEX and times=N|always.
    Without a condition it is for the next command. It may be repeated.

    \b
    Examples:
      scsiusb virtual serve --create 64M stick.img
      sudo modprobe vhci-hcd; sudo usbip attach -r 127.0.0.1 -b 1-1
      scsiusb virtual serve stick.img --fault stall@csw,command=20 -v
    """
    _refuse_what_is_the_clients()
    if port > 0xFFFF:
        raise click.BadParameter(f"{port} is not from 0 to 65535", param_hint="'--port'")
    try:
        with _file(file, create), _stick(file, **stick) as device, _listening(device, host, port) as server:
            _announce(file, server)
            while not server.join(TURN):
                pass
    except KeyboardInterrupt:
        return status.INTERRUPTED  # how serving ends: no news
    except Terminated as error:
        return status.GOOD if error.number == signal.SIGTERM else status.SIGNALLED + error.number
    raise ScsiUsbError(f"{file} is not served any more: the server has ended")


def _refuse_what_is_the_clients() -> None:
    given = settings()
    if given.trace is not None:
        remedy = "record on the side of who attaches it, or see the commands here with -v"
        raise Refused("--trace: `virtual serve` records nothing", remedy)
    for name, value in (("--timeout", given.timeout), ("--quirks", given.quirks)):
        if value is not None:
            remedy = "give it to the command that opens the device"
            raise Refused(f"{name}: `virtual serve` sends no commands to a device", remedy)


@contextmanager
def _file(path: str, size: int | None) -> Iterator[None]:
    """Makes the file, if it is to be made; it does not stay if it cannot be served."""
    if size is None:
        yield
        return
    with Path(path).open("xb") as file:
        try:
            file.truncate(size)
        except OSError as error:
            with suppress(OSError):
                Path(path).unlink()
            raise OSError(error.errno, error.strerror, path) from error
    try:
        yield
    except (ValueError, OSError, Refused):
        with suppress(OSError):
            Path(path).unlink()
        raise


@contextmanager
def _stick(
    path: str,
    *,
    faults: list[Fault],
    block_size: int,
    read_only: bool,
    removable: bool,
    vid: int,
    pid: int,
    serial: str,
    speed: str,
) -> Iterator[Stick]:
    from scsiusb.virtual import File, Identity, Stick, Unit

    identity = Identity(vid, pid, serial=serial or None, speed=speed)
    try:
        medium = File(path, block_size, read_only or None)
    except ValueError as error:
        raise wrong_size(ValueError(f"{path}: {error}"), path, block_size) from error
    with Stick([Unit(medium, removable=removable)], identity, faults=faults) as stick:
        yield stick


@contextmanager
def _listening(stick: Stick, host: str, port: int) -> Iterator[Server]:
    from scsiusb.virtual.usbip.server import Server

    try:
        server = Server(stick, host, port)
    except socket.gaierror as error:
        raise click.BadParameter(f"{quoted(host)}: {error.strerror}", param_hint="'--host'") from error
    with server:
        yield server


def _announce(path: str, server: Server) -> None:
    if not ipaddress.ip_address(server.host).is_loopback:
        say(f"scsiusb: warning: whoever reaches {server.host} can read and write {path}: USB/IP asks for no password")
    if settings().json:
        show(json.dumps({"host": server.host, "port": server.port, "busid": server.bus_id}))
        return
    where = "" if server.port == int(PORT) else f"--tcp-port {server.port} "
    is_everywhere = ipaddress.ip_address(server.host).is_unspecified
    place, hint = ("ADDRESS", ", with an address of this machine") if is_everywhere else (server.host, "")
    command = f"usbip {where}attach -r {place} -b {server.bus_id}{hint}"
    show(f"{path} is served on {server.host}, port {server.port}; attach it with: {command}")
