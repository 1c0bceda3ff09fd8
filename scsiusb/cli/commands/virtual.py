"""The virtual command: serve a virtual stick over USB/IP."""

from __future__ import annotations

import ipaddress
import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.shell_completion import CompletionItem

from scsiusb.cli import status
from scsiusb.cli.failure import Refused, Terminated, wrong_size
from scsiusb.cli.options import F, completions, global_options, number_option, quoted, settings
from scsiusb.cli.output import naming, say, show
from scsiusb.errors import ScsiUsbError

if TYPE_CHECKING:
    from scsiusb.virtual import Fault, Stick
    from scsiusb.virtual.usbip.server import Server

LOOPBACK: Final = "127.0.0.1"
PORT: Final = "3240"  # the port of USB/IP, registered with IANA
SPEEDS: Final = ["full", "high", "super"]
POLL_INTERVAL: Final = 0.2  # seconds; on Windows, Ctrl-C does not interrupt a wait
SIZE: Final = re.compile(r"([1-9][0-9]{0,18})(|[kKmMgGtT])(?:i?[bB])?")
POWERS: Final = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
LARGEST: Final = 1 << 62
MEDIA: Final = (
    ("fake", "KIND[:SIZE]", "Less capacity than announced: limbo, wraparound, chain."),
    ("bad", "LBA[-LBA]", "Blocks that cannot be read or written."),
    ("dropped", "LBA[-LBA]", "Blocks to which writes have no effect."),
    ("flipped", "LBA[-LBA]", "Blocks of which a bit changes after the flush."),
    ("cache", "SIZE", "A cache that answers for blocks written last."),
)


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


def _medium(context: click.Context, parameter: click.Parameter, value: str | None) -> Any:
    """Parse an option that changes the medium, by its name; None if it was not given."""
    from scsiusb.virtual.target.options import MEDIUM_OPTIONS

    if value is None:
        return None
    try:
        return MEDIUM_OPTIONS[str(parameter.name)].read(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _medium_options(function: F) -> F:
    """Add the options of `MEDIUM_OPTIONS`, whose module is loaded only if one is given."""
    for name, metavar, about in reversed(MEDIA):
        function = click.option(f"--{name}", metavar=metavar, callback=_medium, help=about)(function)
    return function


def _complete_fault(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from scsiusb.virtual import KINDS

    return completions([(kind.name, kind.about) for kind in KINDS.values()], incomplete)


@click.group(
    "virtual",
    invoke_without_command=True,
    subcommand_metavar="COMMAND [ARGS]...",
    short_help="Serve a virtual USB stick.",
)
@global_options
@click.pass_context
def virtual_command(context: click.Context) -> None:
    """Serve a virtual USB stick, to develop and test drivers.

    \b
    Examples:
      scsiusb virtual serve stick.img
      scsiusb virtual serve --help
    """
    if context.invoked_subcommand is None:
        show(context.get_help())


class WithFaults(click.Command):
    """Command whose help ends with the list of faults."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of faults. See `click.Command.format_epilog`."""
        from scsiusb.virtual import KINDS

        with formatter.section("Faults"):
            formatter.write_dl([(kind.usage, kind.about) for kind in KINDS.values()])


@virtual_command.command("serve", cls=WithFaults, short_help="Export a virtual stick over USB/IP.")
@click.argument("file", type=click.Path())
@number_option("--port", default=PORT, show_default=True, help="Port to listen on; 0 is any free port.")
@click.option("--host", metavar="ADDRESS", default=LOOPBACK, show_default=True, help="Address to listen on.")
@click.option(
    "--fault",
    "faults",
    metavar="TEXT",
    multiple=True,
    callback=_faults,
    help="Fault to inject; may be repeated (see below).",
    shell_complete=_complete_fault,
)
@click.option("--create", metavar="SIZE", callback=_size, help="Create FILE with this size; it must not exist.")
@_medium_options
@number_option("--block-size", default="512", show_default=True, help="Bytes in a block.")
@click.option("--read-only", is_flag=True, help="Make the medium write protected.")
@click.option("--removable/--no-removable", default=True, help="The removable bit (RMB) in INQUIRY data.")
@click.option("--vid", metavar="HEX", default="1209", callback=_hex_16, show_default=True, help="idVendor.")
@click.option("--pid", metavar="HEX", default="0001", callback=_hex_16, show_default=True, help="idProduct.")
@click.option("--serial", metavar="TEXT", default="0123456789AB", show_default=True, help="Serial number.")
@click.option("--speed", type=click.Choice(SPEEDS), default="high", show_default=True, help="Speed of the bus.")
@global_options
def serve(file: str, port: int, host: str, create: int | None, **stick: Any) -> int:
    """Export FILE as a USB stick over USB/IP, until Ctrl-C or SIGTERM.

    A Linux kernel can attach it as a local device, with bus id 1-1. Only one
    client can use it at a time. With -v, clients and commands are logged.

    --fault has the format NAME[=VALUE][@PHASE][,CONDITION...], where a condition
    is command=K, opcode=HH, lba=N[-M], lun=N, over=N, cdb=HEX or by=bot|uas, or
    the count times=N|always. Without a condition, the fault is for the next command.

    \b
    Examples:
      scsiusb virtual serve --create 64M stick.img
      sudo modprobe vhci-hcd; sudo usbip attach -r 127.0.0.1 -b 1-1
      scsiusb virtual serve stick.img --fault stall@csw,command=20 -v
      scsiusb virtual serve --create 64G stick.img --fake limbo:8G
    """
    _refuse_client_options()
    if port > 0xFFFF:
        raise click.BadParameter(f"{port} is not from 0 to 65535", param_hint="'--port'")
    try:
        with _file(file, create), _stick(file, **stick) as device, _listening(device, host, port) as server:
            _announce(file, server)
            while not server.join(POLL_INTERVAL):
                pass
    except KeyboardInterrupt:
        return status.INTERRUPTED  # the normal way to end; no message
    except Terminated as error:
        return status.GOOD if error.asks_to_stop else status.SIGNALLED + error.number
    raise ScsiUsbError(f"{file} is not served any more: the server has ended")


def _refuse_client_options() -> None:
    given = settings()
    if given.trace is not None:
        remedy = "record on the client, or log the commands here with -v"
        raise Refused("--trace: `virtual serve` records nothing", remedy)
    for name, value in (("--timeout", given.timeout), ("--quirks", given.quirks)):
        if value is not None:
            remedy = "give it to the command that opens the device"
            raise Refused(f"{name}: `virtual serve` sends no commands to a device", remedy)


@contextmanager
def _file(path: str, size: int | None) -> Iterator[None]:
    """Create the file if `size` is given; remove it again if it cannot be served."""
    if size is None:
        yield
        return
    try:
        with Path(path).open("xb") as file, naming(path):
            file.truncate(size)
    except FileExistsError:
        raise
    except OSError:
        _remove(path)
        raise
    try:
        yield
    except (ValueError, OSError, Refused):
        _remove(path)
        raise


def _remove(path: str) -> None:
    """Remove the file if that is possible; it must be closed, as Windows removes no file that is open."""
    with suppress(OSError):
        Path(path).unlink()


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
    **media: Any,
) -> Iterator[Stick]:
    from scsiusb.virtual import File, Identity, Stick, Unit
    from scsiusb.virtual.target.options import apply_options

    identity = Identity(vid, pid, serial=serial or None, speed=speed)
    try:
        medium = File(path, block_size, read_only or None)
    except ValueError as error:
        raise wrong_size(ValueError(f"{path}: {error}"), path, block_size) from error
    try:
        shown = apply_options(medium, {name: value for name, value in media.items() if value is not None})
    except ValueError:
        medium.close()
        raise
    with Stick([Unit(shown, removable=removable)], identity, faults=faults) as stick:
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
        say(f"scsiusb: warning: any host that reaches {server.host} can read and write {path}: USB/IP has no passwords")
    if settings().json:
        show(json.dumps({"host": server.host, "port": server.port, "busid": server.bus_id}))
        return
    where = "" if server.port == int(PORT) else f"--tcp-port {server.port} "
    is_everywhere = ipaddress.ip_address(server.host).is_unspecified
    place, hint = ("ADDRESS", ", with an address of this machine") if is_everywhere else (server.host, "")
    command = f"usbip {where}attach -r {place} -b {server.bus_id}{hint}"
    show(f"{path} is served on {server.host}, port {server.port}; attach it with: {command}")
