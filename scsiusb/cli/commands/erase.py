"""The command erase: overwrites or unmaps a whole device."""

from __future__ import annotations

import re
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import click

from scsiusb.cli.ask import confirm, require_terminal
from scsiusb.cli.device import device_argument, device_record, opened
from scsiusb.cli.files import refuse_own_file
from scsiusb.cli.jobs import Reached, contents_of, name, range_records, rate, resuming
from scsiusb.cli.options import global_options, quoted, settings
from scsiusb.cli.output import counted, say, show_json, size_text
from scsiusb.cli.progress import job_progress
from scsiusb.errors import MediumError
from scsiusb.scsi.sense import Sense

if TYPE_CHECKING:
    from scsiusb.imaging.erasing import Erased

WRITE_ERROR: Final = Sense(0x3, 0x0C, 0)
HEX: Final = re.compile(r"(?:0[xX])?((?:[0-9a-fA-F]{2})+)")
HOW: Final = {
    "none": "not verified",
    "sample": "a sample read back from the medium",
    "whole": "all read back from the medium",
}


def parse_pattern(context: click.Context, parameter: click.Parameter, value: str | None) -> bytes:
    """Parse bytes in hex; nothing if there is no value. Raise BadParameter."""
    if value is None:
        return b""
    match = HEX.fullmatch(value.replace(" ", ""))
    if match is None:
        raise click.BadParameter(f"{quoted(value)} is not a number of bytes in hex, such as 55aa")
    return bytes.fromhex(match[1])


def refuse_more(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> None:
    """Raise UsageError for words after DEVICE; one in hex may be meant as the pattern."""
    if not value:
        return
    hint = f": bytes to repeat are given as --pattern {value[0]}" if HEX.fullmatch(value[0]) else ""
    raise click.UsageError(f"Got unexpected extra argument ({value[0]}){hint}", context)


@click.command("erase", short_help="Overwrite or unmap all blocks of a device.")
@device_argument
@click.argument("more", metavar="", nargs=-1, expose_value=False, callback=refuse_more)
@click.option(
    "--method",
    type=click.Choice(("zero", "random", "pattern", "unmap", "auto")),
    help="What is written (default zero; pattern: see --pattern); auto: unmap if that gives zeros.",
)
@click.option("--pattern", metavar="HEX", callback=parse_pattern, help="Bytes to repeat in each block.")
@click.option(
    "--verify",
    type=click.Choice(("sample", "whole", "none")),
    default="sample",
    help="Read back 1000 random blocks (default), or all.",
)
@click.option("--resume", is_flag=True, help="Go on with an erase that was interrupted.")
@click.option(
    "--journal", metavar="FILE", type=click.Path(), help="Keep what is done in FILE (default: in your state folder)."
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@global_options
def erase_command(
    device: str | None,
    lun: int | None,
    method: Any,
    pattern: bytes,
    verify: Any,
    resume: bool,
    journal: str | None,
    yes: bool,
) -> None:
    """Overwrite all blocks of a device, and read them back from its medium.

    A flash device keeps blocks that cannot be addressed: what was in them stays.
    unmap is quick, and lets the device forget its blocks, where it supports that.

    An interrupted erase leaves a journal; --resume goes on, by the same method,
    and refuses another method, and a device that is not the same any more.

    \b
    Examples:
      scsiusb erase 2-1
      scsiusb erase 2-1 --method random --verify whole --yes
      scsiusb erase 2-1 --pattern 55aa --yes
      scsiusb erase 2-1 --resume --yes
    """
    from scsiusb.imaging.erasing import try_erase

    method = _method(method, pattern)
    refuse_own_file(device, journal)
    if not yes:
        require_terminal("the erase")
    with ExitStack() as held:
        disk = held.enter_context(opened(device, lun))
        if not yes:
            confirm(f"Erase all of {name(disk)}, {contents_of(disk)}?")
        reached = Reached(held.enter_context(job_progress()), resuming())
        with reached.said():
            done = try_erase(
                disk,
                method=method,
                pattern=pattern,
                verify=verify,
                resume=resume,
                journal=journal,
                progress=reached,
            )
        device_of = device_record(disk)
    _report(done, device_of)


def _method(method: str | None, pattern: bytes) -> str | None:
    """Return the method, if one is given. Raise UsageError for options that do not go together."""
    if pattern and method not in (None, "pattern"):
        raise click.UsageError(f"--pattern is not for --method {method}")
    if method == "pattern" and not pattern:
        raise click.UsageError("--method pattern needs --pattern HEX")
    return "pattern" if pattern else method


def _report(done: Erased, device: dict[str, Any]) -> None:
    """Print the result. Raise Miscompare for differences, MediumError for blocks that could not be written."""
    bad = range_records(done.bad)
    if settings().json:
        show_json(
            {
                "method": done.method,
                "bytes": done.size,
                "verified": done.verified,
                "bad": bad,
                "differences": range_records(done.differences),
                "seconds": round(done.seconds, 6),
                "resumed": done.resumed,
                "device": device,
            }
        )
    elif done.error is None:
        before = f", {size_text(done.resumed)} of them before" if done.resumed else ""
        amount = f"{counted(done.size, 'byte')} ({size_text(done.size)}{before})"
        speed = rate(done.size - done.resumed, done.seconds)
        say(f"erased {amount} by {done.method}, {HOW[done.verified]}; {speed} with the verification")
    if done.error is not None:
        raise done.error
    if bad:
        count = sum(each["blocks"] for each in bad)
        what = f"{counted(count, 'block')} cannot be written, the first is LBA {bad[0]['lba']}, and keep what they had"
        error = MediumError(what, WRITE_ERROR, "if that must not be read, destroy the device")
        error.lba = bad[0]["lba"]
        raise error
