"""Commands that change the whole medium or ranges of it: format, sanitize, unmap, write-same, reassign."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from scsiusb.cli.ask import confirm, confirm_overwriting, require_terminal
from scsiusb.cli.ata_sanitize import sanitize_ata
from scsiusb.cli.commands.erase import parse_pattern
from scsiusb.cli.device import device_argument, device_record, opened, refuse_optical
from scsiusb.cli.failure import Refused
from scsiusb.cli.jobs import contents_of, name
from scsiusb.cli.options import block_number_option, global_options, settings
from scsiusb.cli.output import counted, say, show_json
from scsiusb.cli.progress import interruptible, percent_bar
from scsiusb.cli.status import GOOD, OTHER
from scsiusb.errors import IllegalRequest, UnsupportedOpcode
from scsiusb.quirks.model import Quirk
from scsiusb.scsi.commands.sbc import Unmap
from scsiusb.scsi.commands.sbc_media import (
    FormatUnit,
    ReassignBlocks,
    SanitizeBlockErase,
    SanitizeCommand,
    SanitizeCryptoErase,
    SanitizeExitFailure,
    SanitizeOverwrite,
)
from scsiusb.scsi.commands.sbc_transfer import WriteSame10, WriteSame16
from scsiusb.scsi.commands.spc import InquiryVpdBytes
from scsiusb.scsi.operation import follow

if TYPE_CHECKING:
    from scsiusb.disk.disk import Disk
    from scsiusb.scsi.command import Command

MOST_SAME: Final = 0xFFFF  # blocks in one WRITE SAME(10)
MOST_UNMAPPED: Final = 0xFFFFFFFF
BLOCK_LIMITS: Final = 0xB0
SPC_3: Final = 5  # version in INQUIRY data
ON: Final = "the device goes on by itself"
yes_option = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
NONE_RUNS: Final = "no operation is in progress: it has ended, or was not begun"
wait_option = click.option("--wait", is_flag=True, help="Begin nothing: only follow one that was begun before.")


def _check_alone(wait: bool, others: dict[str, object]) -> None:
    """Raise Refused for --wait with options that would begin an operation; `others`: each with what was given."""
    given = ", ".join(name for name, value in others.items() if value)
    if wait and given:
        what = f"--wait begins nothing, it only follows an operation that was begun before: {given} has no effect"
        raise Refused(what, f"leave out --wait to begin one, or {given} to follow one")


def _run(disk: Disk, command: Command[None] | None, doing: str) -> bool:
    """Begin an operation, if a command is given, and follow it to its end, with a bar on a terminal.

    Return whether there was one.
    """
    then = f"`scsiusb {doing} --wait` shows when it is done"
    with interruptible(lambda: ON, then), percent_bar(doing) as show:
        if command is not None:
            disk.execute(command)
        return follow(disk.unit, doing, show) or command is not None


def _finish_operation(was_done: bool, done: str, record: dict[str, Any]) -> int:
    """Report the end of an operation, or that there was none to follow; return the exit status."""
    if was_done:
        _finish(done, record)
        return GOOD
    if settings().json:
        show_json({"done": False, **record})
    else:
        say(NONE_RUNS)
    return OTHER


def _finish(done: str, record: dict[str, Any]) -> None:
    if settings().json:
        show_json({"done": True, **record})
    else:
        say(done)


def _ask_about(disk: Disk, question: str) -> None:
    """Ask, and say what is on the device if that can be read."""
    confirm(f"{question} {name(disk)}, {contents_of(disk)}? All data on it will be lost.")


@click.command("format", short_help="Format the medium (FORMAT UNIT).")
@device_argument
@click.option("--forget-defects", is_flag=True, help="Forget the defects that were found in use (CMPLST).")
@wait_option
@yes_option
@global_options
def format_command(device: str | None, lun: int | None, forget_defects: bool, wait: bool, yes: bool) -> int:
    """Format the medium with the device's own command; all data are lost.

    Few USB sticks support it; disks may take hours. It goes on in the device after
    Ctrl-C: --wait follows it again, and has exit status 99 if none is in progress.

    \b
    Examples:
      scsiusb format 2-1
      scsiusb format 2-1 --wait
      scsiusb format virtual: --yes
    """
    _check_alone(wait, {"--forget-defects": forget_defects, "--yes": yes})
    if not (yes or wait):
        require_terminal("the format")
    with opened(device, lun) as disk:
        if not (yes or wait):
            _ask_about(disk, "Format")
        command = FormatUnit(immediate=True, complete_list=forget_defects)
        was_done = _run(disk, None if wait else command, "format")
        device_of = device_record(disk)
    return _finish_operation(was_done, "formatted", {"device": device_of})


METHODS: Final[dict[str, Callable[[bytes, int], SanitizeCommand]]] = {
    "block": lambda pattern, passes: SanitizeBlockErase(),
    "crypto": lambda pattern, passes: SanitizeCryptoErase(),
    "overwrite": lambda pattern, passes: SanitizeOverwrite(pattern=pattern or bytes(4), passes=passes),
    "exit-failure": lambda pattern, passes: SanitizeExitFailure(),
}


@click.command("sanitize", short_help="Make all former data unreadable (SANITIZE).")
@device_argument
@click.option("--method", type=click.Choice(tuple(METHODS)), help="What the device does; needed unless --wait.")
@click.option("--pattern", metavar="HEX", callback=parse_pattern, help="Bytes to repeat (overwrite); default zeros.")
@click.option("--passes", type=click.IntRange(1, 31), help="How often to overwrite; default 1.")
@click.option("--ata", is_flag=True, help="By the command of the SATA disk behind the bridge.")
@wait_option
@yes_option
@global_options
def sanitize_command(
    device: str | None,
    lun: int | None,
    method: str | None,
    pattern: bytes,
    passes: int | None,
    ata: bool,
    wait: bool,
    yes: bool,
) -> int:
    """Make all former data unreadable, also in blocks that have no address.

    It cannot be stopped, and goes on after Ctrl-C and power loss: --wait follows
    it again, and has exit status 99 if none is in progress. exit-failure makes a
    unit usable after a sanitize that failed. --ata is for bridges that do not know
    the SCSI command, in front of a SATA disk that has its own.

    \b
    Examples:
      scsiusb sanitize 2-1 --method block
      scsiusb sanitize 2-1 --method overwrite --pattern 55aa --yes
      scsiusb sanitize 2-1 --wait
      scsiusb sanitize virtual:?profile=sat-ssd --ata --method crypto --yes
    """
    _check_alone(wait, {"--method": method, "--pattern": pattern, "--passes": passes, "--yes": yes})
    if method is None and not wait:
        raise click.UsageError("--method or --wait is needed")
    for name_of_option, value in (("--pattern", pattern), ("--passes", passes)):
        if value and method != "overwrite":
            raise click.UsageError(f"{name_of_option} is for --method overwrite")
    if ata and method == "exit-failure":
        raise click.UsageError("--ata has the methods block, crypto and overwrite")
    if not (yes or wait):
        require_terminal("the sanitize")
    with opened(device, lun) as disk:
        if ata:
            was_done = sanitize_ata(disk, method, pattern, passes or 1, asks=not yes)
            return _finish_operation(was_done, "sanitized", {"method": method, "device": device_record(disk)})
        if not wait:
            refuse_optical(disk, "SANITIZE")  # PLAY AUDIO TRACK INDEX there (MMC-1)
        if not (yes or wait):
            _ask_about(disk, "Sanitize")
        was_done = _run(disk, None if method is None else METHODS[method](pattern, passes or 1), "sanitize")
        device_of = device_record(disk)
    return _finish_operation(was_done, "sanitized", {"method": method, "device": device_of})


def range_options(function: Any) -> Any:
    """Add --lba and --blocks, both needed."""
    function = block_number_option("--blocks", required=True, help="How many blocks.")(function)
    return block_number_option("--lba", required=True, help="First block.")(function)


@click.command("unmap", short_help="Let the device forget blocks (UNMAP).")
@device_argument
@range_options
@click.option("--ata", is_flag=True, help="By TRIM of the SATA disk behind the bridge.")
@yes_option
@global_options
def unmap_command(device: str | None, lun: int | None, lba: int, blocks: int, ata: bool, yes: bool) -> None:
    """Let the device forget blocks, as TRIM does.

    `inquiry --page lbpv` tells whether it can, and what the blocks read as then.
    --ata is for bridges that do not know UNMAP, in front of a SATA SSD.

    \b
    Examples:
      scsiusb unmap 2-1 --lba 2048 --blocks 1M
      scsiusb unmap 2-1 --lba 0 --blocks 8 --yes
      scsiusb unmap virtual:?profile=sat-ssd --ata --lba 0 --blocks 8 --yes
    """
    if not yes:
        require_terminal("the unmap")
    with opened(device, lun) as disk:
        refuse_optical(disk, "UNMAP")  # READ SUB-CHANNEL there (MMC-3)
        disk.check_range(lba, blocks)
        if not yes:
            confirm_overwriting(disk, device, lba, blocks, ", by TRIM" if ata else ", by UNMAP")
        if ata:
            _trim(disk, lba, blocks)
        else:
            _unmap(disk, lba, blocks)
        device_of = device_record(disk)
    _finish(f"unmapped {counted(blocks, 'block')}", {"lba": lba, "blocks": blocks, "device": device_of})


def _unmap(disk: Disk, lba: int, blocks: int) -> None:
    most = int.from_bytes(_block_limits(disk)[20:24], "big")  # MAXIMUM UNMAP LBA COUNT
    for at, count in _pieces(lba, blocks, most or MOST_UNMAPPED):
        disk.execute(Unmap(at, count))


def _trim(disk: Disk, lba: int, blocks: int) -> None:
    from scsiusb.ata.trim import trim

    trim(disk.unit, lba, blocks)


def _pieces(lba: int, blocks: int, most: int) -> Iterator[tuple[int, int]]:
    for at in range(0, blocks, most):
        yield lba + at, min(most, blocks - at)


@click.command("write-same", short_help="Write one block to a range of blocks.")
@device_argument
@range_options
@click.option("--pattern", metavar="HEX", callback=parse_pattern, help="Bytes to repeat in the block; default zeros.")
@yes_option
@global_options
def write_same_command(device: str | None, lun: int | None, lba: int, blocks: int, pattern: bytes, yes: bool) -> None:
    """Write one block to a range of blocks, which the device repeats itself.

    \b
    Examples:
      scsiusb write-same 2-1 --lba 0 --blocks 2048
      scsiusb write-same 2-1 --lba 0 --blocks 8 --pattern 55aa --yes
    """
    if not yes:
        require_terminal("the write")
    with opened(device, lun) as disk:
        disk.check_range(lba, blocks)
        if not yes:
            confirm_overwriting(disk, device, lba, blocks, ", by WRITE SAME")
        size = disk.block_size
        block = (pattern * (size // len(pattern) + 1))[:size] if pattern else bytes(size)
        for at, count in _pieces(lba, blocks, _most_same(disk)):
            _write_same(disk, at, count, block)
        disk.flush()
        device_of = device_record(disk)
    _finish(f"wrote {counted(blocks, 'block')}", {"lba": lba, "blocks": blocks, "device": device_of})


def _most_same(disk: Disk) -> int:
    """Return the blocks in one command: MAXIMUM WRITE SAME LENGTH, if the unit reports any (SBC-3 6.5.3)."""
    announced = int.from_bytes(_block_limits(disk)[36:44], "big")
    return min(announced, MOST_SAME) if announced else MOST_SAME


def _block_limits(disk: Disk) -> bytes:
    """Return the Block Limits page; nothing of a unit that is too old for it, which may hang, or does not have it."""
    unit = disk.unit
    is_old = disk.inquiry().version < SPC_3 or Quirk.NO_VPD in unit.transport.quirks
    if is_old or unit.attentions.cannot_give_vpd:
        return b""
    try:
        return disk.execute(InquiryVpdBytes(BLOCK_LIMITS))
    except IllegalRequest:
        return b""


def _write_same(disk: Disk, lba: int, blocks: int, block: bytes) -> None:
    try:
        disk.execute(WriteSame16(lba, blocks, block))
    except UnsupportedOpcode:
        disk.execute(WriteSame10(lba, blocks, block))


@click.command("reassign", short_help="Replace defective blocks by spare ones.")
@device_argument
@block_number_option("--lba", multiple=False, required=True, help="The block.")
@yes_option
@global_options
def reassign_command(device: str | None, lun: int | None, lba: int, yes: bool) -> None:
    """Replace a defective block by a spare one (REASSIGN BLOCKS); its data are lost.

    Read the block before, as long as that is possible. Most devices do this by
    themselves when the block is written.

    \b
    Examples:
      scsiusb reassign 2-1 --lba 123456
      scsiusb reassign 2-1 --lba 123456 --yes
    """
    if not yes:
        require_terminal("the reassignment")
    with opened(device, lun) as disk:
        disk.check_range(lba, 1)
        if not yes:
            confirm_overwriting(disk, device, lba, 1, ", by REASSIGN BLOCKS")
        disk.execute(ReassignBlocks((lba,)))
        device_of = device_record(disk)
    _finish(f"reassigned LBA {lba}", {"lba": lba, "device": device_of})
