"""Commands that control the unit: raw, sense, eject."""

from __future__ import annotations

import logging
import re
import sys
from contextlib import suppress
from typing import Any, Final

import click

from scsiusb.base.dataclass import dataclass
from scsiusb.cli.ask import confirm, require_terminal
from scsiusb.cli.device import complete_device, device_argument, device_record, lun_option, name_of, opened
from scsiusb.cli.files import read_whole, refuse_own_file
from scsiusb.cli.options import global_options, number_option, quoted, settings
from scsiusb.cli.output import (
    counted,
    hex_dump,
    say,
    sense_record,
    sense_words,
    show,
    show_bytes,
    show_json,
    show_record,
    size_text,
)
from scsiusb.disk.disk import Disk
from scsiusb.errors import (
    Cancelled,
    CheckCondition,
    DeviceClosed,
    DeviceGone,
    NoMedium,
    PhaseError,
    TransportError,
)
from scsiusb.quirks.model import Quirk
from scsiusb.scsi.command import DEFAULT_TIMEOUT
from scsiusb.scsi.commands.sbc import StartStopUnit
from scsiusb.scsi.commands.spc import PreventAllow
from scsiusb.scsi.effects import is_known_to_change
from scsiusb.scsi.retry import NO_WAIT
from scsiusb.scsi.sense import RECOVERED_ERROR, Sense, error_for
from scsiusb.transport.base import Direction
from scsiusb.transport.bot.formats import MAX_CDB

DEVICE_SIGNS: Final = re.compile(r"[-:=/.]")
HEX_BYTES: Final = re.compile(r"(?:0[xX])?([0-9a-fA-F]{1,2}|(?:[0-9a-fA-F]{2}){2,})")
SHORTEST_CDB: Final = 6
GROUP_LENGTHS: Final = {0: 6, 1: 10, 2: 10, 4: 16, 5: 12}  # by the opcode's upper three bits (SPC-4 4.2.5.1)
UNLOCK_TIMEOUT: Final = 5.0  # seconds
EMPTY: Final = "there is no medium to eject"
LARGEST_DATA: Final = 64 * 1024 * 1024

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """A raw command to send."""

    cdb: bytes
    payload: bytes
    length: int
    """Bytes of data-in to request."""

    @property
    def direction(self) -> Direction:
        """Direction of the data phase."""
        return Direction.OUT if self.payload else Direction.IN if self.length else Direction.NONE

    @property
    def name(self) -> str:
        """The command for messages."""
        return f"command {self.cdb[0]:02X}h"


@dataclass(frozen=True)
class Result:
    """The result of a raw command."""

    status: int
    residue: int
    sense: Sense | None
    data: bytes

    @property
    def words(self) -> str:
        """The result as text."""
        ended = "good" if self.sense is None else str(self.sense)
        return f"{ended}, status {self.status}, residue {self.residue}"


@click.command("raw", short_help="Send a SCSI command given in hex.")
@click.argument("words", nargs=-1, required=True, metavar="[DEVICE] HEX...", shell_complete=complete_device)
@lun_option
@number_option("--in", "length", help="Bytes of data-in to request.")
@click.option("--out", "path", metavar="FILE", type=click.Path(), help="Send FILE as data-out; - is stdin.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@global_options
def raw_command(words: tuple[str, ...], lun: int | None, length: int | None, path: str | None, yes: bool) -> None:
    """Send a command block (CDB) once, without retry, and show the result.

    Pending unit attentions are cleared before. Data-in is written to a pipe as
    raw bytes, to a terminal as a hex dump.

    Asks for confirmation, unless --yes is given, before it sends a file, or a
    command that is known to change the medium or the device.

    \b
    Examples:
      scsiusb raw 2-1 12 00 00 00 24 00 --in 36
      scsiusb raw 2-1 000000000000
      scsiusb raw 2-1 2a 00 00000000 00 0001 00 --out block.bin
      scsiusb raw 2-1 04 00 00 00 00 00 --yes   # FORMAT UNIT
    """
    device, cdb = _split(words)
    refuse_own_file(device, path)
    may_change = path is not None or is_known_to_change(cdb[0], receives=bool(length))
    if may_change and not yes:
        require_terminal("the command")
    request = Request(cdb, _payload(length, path), length or 0)
    if may_change and not yes:
        amount = counted(len(request.payload), "byte")
        confirm(f"Send {cdb.hex(' ')} with {amount} of data-out to {name_of(device)}?")
    with opened(device, lun) as disk:
        result = _send(disk, request)
        device_of = device_record(disk)
    _show(result, request, device_of)
    if result.sense is not None and result.sense.key != RECOVERED_ERROR:
        raise error_for(result.sense, request.name)
    if request.length and not settings().json and not sys.stdout.isatty():
        say(result.words)


def _split(words: tuple[str, ...]) -> tuple[str | None, bytes]:
    """Split the words into DEVICE (None if the first word does not look like one) and the CDB.

    An empty first word counts as a DEVICE, so that it is rejected later as an invalid one.
    """
    is_device = not words[0].strip() or DEVICE_SIGNS.search(words[0]) is not None
    return (words[0] if is_device else None), _cdb(words[1:] if is_device else words)


def _cdb(words: tuple[str, ...]) -> bytes:
    cdb = b"".join(map(_bytes, " ".join(words).replace(",", " ").split()))
    least = GROUP_LENGTHS.get(cdb[0] >> 5, SHORTEST_CDB) if cdb else SHORTEST_CDB
    if not least <= len(cdb) <= MAX_CDB:
        named = f"command {cdb[0]:02X}h" if cdb else "a command"
        raise click.UsageError(f"{counted(len(cdb), 'byte')} of HEX; {named} needs {least} to {MAX_CDB}")
    return cdb


def _bytes(word: str) -> bytes:
    match = HEX_BYTES.fullmatch(word)
    if match is None:
        raise click.UsageError(f"{quoted(word)} is not one or more bytes in hex, such as 0a or 0a1b")
    return bytes.fromhex(match[1] if len(match[1]) > 1 else f"0{match[1]}")


def _payload(length: int | None, path: str | None) -> bytes:
    if length is not None and path is not None:
        raise click.UsageError("--in and --out cannot be used together")
    payload = b"" if path is None else read_whole(path, LARGEST_DATA)
    if max(length or 0, len(payload)) > LARGEST_DATA:
        raise click.UsageError(f"the data phase is limited to {size_text(LARGEST_DATA)}")
    return payload


def _send(disk: Disk, request: Request) -> Result:
    """Send the command once, without retry."""
    with suppress(CheckCondition):  # only to clear unit attentions; the unit need not be ready
        disk.unit.test_unit_ready(retry=NO_WAIT)
    try:
        return _exchange(disk, request)
    except PhaseError as error:
        raise PhaseError(error.what, "give --in or --out with the length of the command's data") from error


def _exchange(disk: Disk, request: Request) -> Result:
    unit, size = disk.unit, max(request.length, len(request.payload))
    timeout = DEFAULT_TIMEOUT if unit.timeout is None else unit.timeout
    with unit.transport.memory.lend(max(size, 1)) as whole, whole[:size] as buffer:
        if request.payload:
            buffer[:] = request.payload
        ended, sense = unit.send(request.cdb, request.direction, buffer, timeout)
        data = bytes(buffer[: ended.processed(size)]) if request.length else b""
    return Result(ended.status, ended.residue, sense, data)


def _show(result: Result, request: Request, device: dict[str, Any]) -> None:
    """Print the result; if stdout is a pipe, print only data-in."""
    if settings().json:
        sense = sense_record(result.sense) if result.sense else None
        record = {"status": result.status, "residue": result.residue, "sense": sense, "data": result.data}
        show_json({**record, "device": device})
    elif sys.stdout.isatty() or not request.length:
        show(result.words)
        if result.data:
            show(hex_dump(result.data))
    else:
        show_bytes(result.data)


@click.command("sense", short_help="Show sense data (REQUEST SENSE).")
@device_argument
@global_options
def sense_command(device: str | None, lun: int | None) -> None:
    """Show sense data (REQUEST SENSE): an error or unit attention that is pending.

    The device reports it only once: this command clears it.

    \b
    Examples:
      scsiusb sense 2-1
      scsiusb sense virtual: --json
    """
    with opened(device, lun) as disk:
        sense = disk.unit.request_sense()
        device_of = device_record(disk)
    if settings().json:
        show_json({**sense_record(sense), "device": device_of})
        return
    record = {**sense_words(sense), "raw": sense.raw}
    if sense.is_unreadable:
        record = {"key": "none: the bytes are not sense data (SPC-4 4.5.1)", "raw": sense.raw}
    show_record(record)


@click.command("eject", short_help="Eject the medium, or open the tray.")
@device_argument
@global_options
def eject_command(device: str | None, lun: int | None) -> None:
    """Allow removal, and eject the medium or open the tray (START STOP UNIT).

    The device writes its cache to the medium before. A device that leaves the bus
    because of the command was ejected, too.

    \b
    Examples:
      scsiusb eject 2-1
      scsiusb eject 2-1 --lun 1
    """
    with opened(device, lun) as disk:
        device_of = device_record(disk)
        _unlock(disk)
        ended = _eject(disk)
    if settings().json:
        show_json({"done": True, "ejected": ended != EMPTY, "device": device_of})
    else:
        say(ended)


def _unlock(disk: Disk) -> None:
    """Allow the removal of the medium, if possible: the command is optional, and EJECT shows whether it was needed."""
    if Quirk.NOT_LOCKABLE in disk.unit.transport.quirks:
        return
    timeout = min(UNLOCK_TIMEOUT, disk.unit.timeout or UNLOCK_TIMEOUT)
    try:
        disk.execute(PreventAllow(), timeout=timeout, retry=NO_WAIT)
    except (DeviceGone, DeviceClosed, Cancelled):
        raise
    except (CheckCondition, TransportError) as error:
        log.info("the medium may be locked: %s", error)


def _eject(disk: Disk) -> str:
    """Eject; return what happened, for the user."""
    try:
        disk.execute(StartStopUnit(load_eject=True))
    except NoMedium as error:
        log.info("%s", error)
        return EMPTY
    except DeviceGone as error:
        log.info("%s", error)
        return "ejected; the device has left the bus"
    return "ejected"
