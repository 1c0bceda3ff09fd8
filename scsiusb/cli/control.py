"""Commands that control the unit: raw, eject."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import click

from scsiusb.cli.options import device_argument, global_options, number_option, settings
from scsiusb.cli.output import hex_dump, show_json
from scsiusb.cli.session import opened
from scsiusb.cli.status import GOOD, status_of
from scsiusb.disk import Disk
from scsiusb.scsi.block import StartStopUnit
from scsiusb.scsi.primary import PreventAllow
from scsiusb.scsi.sense import Sense, error_for
from scsiusb.transport.base import GOOD as STATUS_GOOD
from scsiusb.transport.base import Direction

DEVICE_SIGNS: Final = re.compile(r"[-:=]")
HEX_BYTES: Final = re.compile(r"(?:0[xX])?((?:[0-9a-fA-F]{2})+)")
SHORTEST_CDB: Final = 6
LONGEST_CDB: Final = 16
GROUP_LENGTHS: Final = {0: 6, 1: 10, 2: 10, 4: 16, 5: 12}  # by the opcode's upper three bits (SPC-4 4.2.5.1)
LARGEST_DATA: Final = 64 * 1024 * 1024
DESTRUCTIVE: Final = frozenset({0x04, 0x19, 0x2C, 0x41, 0x48, 0x93, 0xAC})  # FORMAT, ERASE, WRITE SAME, SANITIZE


@dataclass(frozen=True)
class RawResult:
    """How a raw command ended."""

    status: int
    residue: int
    sense: Sense | None = field(default=None)
    data: bytes = b""


@click.command("raw")
@click.argument("words", nargs=-1, required=True, metavar="[DEVICE] HEX...")
@number_option("--lun", default="0", help="The logical unit (default 0).")
@number_option("--in", "length", help="Bytes of data-in.")
@click.option("--out", "source", type=click.Path(), help="A file whose bytes are the data-out.")
@click.option("--yes", is_flag=True, help="Do not ask, whatever the command does.")
@global_options
def raw_command(words: tuple[str, ...], lun: int, length: int | None, source: str | None, yes: bool) -> int:
    """Send a command block as it is, once, and show how it ended.

    \b
    Examples:
      scsiusb raw 2-1 12 00 00 00 24 00 --in 36
      scsiusb raw 2-1 000000000000
    """
    device, cdb = _split(words)
    if length is not None and source is not None:
        raise click.UsageError("--in and --out exclude each other")
    payload = Path(source).read_bytes() if source is not None else b""
    if max(length or 0, len(payload)) > LARGEST_DATA:
        raise click.UsageError(f"the data phase is limited to {LARGEST_DATA} bytes")
    if not yes and sys.stdin.isatty() and (payload or cdb[0] in DESTRUCTIVE):
        click.confirm(f"Send {cdb.hex(' ')} with {len(payload)} bytes of data-out?", abort=True, err=True)
    with opened(device, lun) as disk:
        result = _send(disk, cdb, length or 0, payload)
    _show(result)
    return GOOD if result.status == STATUS_GOOD else status_of(error_for(result.sense or Sense(0, 0, 0), "the command"))


def _split(words: tuple[str, ...]) -> tuple[str | None, bytes]:
    """DEVICE, if the first word can be one, and the CDB."""
    named = DEVICE_SIGNS.search(words[0]) is not None
    return (words[0] if named else None), _cdb(words[1:] if named else words)


def _cdb(words: tuple[str, ...]) -> bytes:
    digits = []
    for word in " ".join(words).replace(",", " ").split():
        match = HEX_BYTES.fullmatch(word)
        if match is None:
            raise click.UsageError(f"{word!r} is not a row of bytes in hex")
        digits.append(match[1])
    cdb = bytes.fromhex("".join(digits))
    least = GROUP_LENGTHS.get(cdb[0] >> 5, SHORTEST_CDB) if cdb else SHORTEST_CDB
    if not least <= len(cdb) <= LONGEST_CDB:
        raise click.UsageError(f"a command block of {len(cdb)} bytes; this one has {least} to {LONGEST_CDB}")
    return cdb


def _send(disk: Disk, cdb: bytes, length: int, payload: bytes) -> RawResult:
    """Once: neither retried nor interpreted."""
    unit = disk.unit
    direction = Direction.OUT if payload else Direction.IN if length else Direction.NONE
    size = length or len(payload)
    with unit.transport.buffer(max(size, 1)) as whole, whole[:size] as buffer:
        if payload:
            buffer[:] = payload
        completion = unit.transport.execute(unit.lun, cdb, direction, buffer, unit.timeout or 30.0)
        data = bytes(buffer[: completion.processed(size)]) if direction is Direction.IN else b""
    sense = None if completion.status == STATUS_GOOD else unit.auto_sense()
    return RawResult(completion.status, completion.residue, sense, data)


def _show(result: RawResult) -> None:
    sense = result.sense
    if settings().json:
        words = sense and {"key": sense.key, "asc": sense.asc, "ascq": sense.ascq, "text": sense.text, "raw": sense.raw}
        show_json({"status": result.status, "residue": result.residue, "sense": words, "data": result.data})
        return
    click.echo(f"status {result.status}, residue {result.residue}{f', {sense}' if sense else ''}", err=True)
    if result.data and sys.stdout.isatty():
        click.echo(hex_dump(result.data))
    else:
        sys.stdout.buffer.write(result.data)


@click.command("eject")
@device_argument
@global_options
def eject_command(device: str | None, lun: int) -> None:
    """Flush, allow the removal, and eject the medium (START STOP UNIT)."""
    with opened(device, lun) as disk:
        disk.flush()
        disk.execute(PreventAllow())
        disk.execute(StartStopUnit(load_eject=True))
    if settings().json:
        show_json({"ejected": True})
    else:
        click.echo("ejected", err=True)
