"""The command scan: finds bad and slow blocks of a device."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import click

from scsiusb.cli.ask import confirm, require_terminal
from scsiusb.cli.commands.erase import parse_pattern
from scsiusb.cli.device import device_argument, device_record, opened
from scsiusb.cli.files import Sink, refuse_own_file, sink
from scsiusb.cli.jobs import Reached, contents_of, name, rate, rescuing, resuming
from scsiusb.cli.options import ALL, block_number_option, count_or_all, global_options, settings
from scsiusb.cli.output import counted, say, show, show_json, size_text
from scsiusb.cli.progress import job_progress
from scsiusb.errors import MediumError
from scsiusb.scsi.sense import Sense

if TYPE_CHECKING:
    from scsiusb.imaging.readback import BlockRange
    from scsiusb.imaging.scanning import Scan

FORMATS: Final = (".html", ".svg", ".png", ".json")
READ_ERROR: Final = Sense(0x3, 0x11, 0)
MOST_SHOWN: Final = 20  # ranges of each kind
RANDOM, FOUR = "random", "badblocks"


def _report_path(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and _format(value) not in FORMATS:
        raise click.BadParameter(f"{value} does not end in {', '.join(FORMATS)}")
    return value


def _format(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _patterns(context: click.Context, parameter: click.Parameter, value: Sequence[str]) -> list[bytes | str]:
    found: list[bytes | str] = []
    for each in value:
        if each == FOUR:
            found += [bytes((byte,)) for byte in (0xAA, 0x55, 0xFF, 0x00)]
        else:
            found.append(each if each == RANDOM else parse_pattern(context, parameter, each))
    return found


@click.command("scan", short_help="Find bad and slow blocks.")
@device_argument
@block_number_option("--lba", default="0", help="First block (default 0).")
@click.option("--blocks", metavar="N|all", default=ALL, callback=count_or_all, help="Number of blocks (default all).")
@click.option("--destructive", is_flag=True, help="Overwrite the blocks, and read them back.")
@click.option(
    "--pattern",
    "patterns",
    metavar="HEX|random|badblocks",
    multiple=True,
    callback=_patterns,
    help="What to write (default random); badblocks: aa, 55, ff, 00.",
)
@click.option("--report", metavar="FILE", callback=_report_path, help="Write a report: .html, .svg, .png or .json.")
@click.option("--resume", is_flag=True, help="Go on with a scan that was interrupted.")
@click.option(
    "--journal", metavar="FILE", type=click.Path(), help="Keep what is done in FILE (default: in your state folder)."
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation of --destructive.")
@global_options
def scan_command(
    device: str | None,
    lun: int | None,
    lba: int,
    blocks: int | None,
    destructive: bool,
    patterns: list[bytes | str],
    report: str | None,
    resume: bool,
    journal: str | None,
    yes: bool,
) -> None:
    """Read all blocks, time each command, and name the bad and the slow ones.

    Slow is a command that takes more than 10 times the median, and 0.1 seconds.
    --destructive overwrites all blocks with a pattern and reads them back from the
    medium, which finds more. The exit status is 3 if blocks are bad.

    An interrupted scan leaves a journal; --resume goes on.

    \b
    Examples:
      scsiusb scan 2-1
      scsiusb scan 2-1 --report scan.html
      scsiusb scan 2-1 --destructive --pattern badblocks
      scsiusb scan 2-1 --resume
    """
    from scsiusb.imaging.scanning import scan

    if patterns and not destructive:
        raise click.UsageError("--pattern needs --destructive")
    for path in (report, journal):
        refuse_own_file(device, path)
    if destructive and not yes:
        require_terminal("the scan")
    with ExitStack() as held:
        target = _open_report(held, report)
        disk = held.enter_context(opened(device, lun))
        if destructive and not yes:
            what = "all" if blocks is None and not lba else "a part"
            confirm(f"Overwrite {what} of {name(disk)}, {contents_of(disk)}?")
        reached = Reached(held.enter_context(job_progress()), resuming())
        with reached.said():
            found = scan(
                disk,
                lba=lba,
                blocks=blocks,
                destructive=destructive,
                patterns=patterns or [RANDOM],
                resume=resume,
                journal=journal,
                progress=reached,
            )
        title = f"Scan of {name(disk)}"
        device_of = device_record(disk)
        remedy = None if destructive else rescuing(disk, device)
        if target is not None and report is not None:
            content = _content(found, title, _format(report))
            target.begin()
            target.write(content)
    _show(found, device_of, remedy)


def _open_report(held: ExitStack, path: str | None) -> Sink | None:
    """Open the file before the scan, which may take hours. Raise OSError, Refused."""
    if path is None:
        return None
    if _format(path) == ".png":
        from scsiusb.cli import scan_picture

        scan_picture.check()
    return held.enter_context(sink(path))


def _content(found: Scan, title: str, kind: str) -> bytes:
    """Return the report in the format of its file's extension."""
    from scsiusb.imaging import scan_report

    if kind == ".png":
        from scsiusb.cli import scan_picture

        return scan_picture.png(found, title)
    if kind == ".json":
        return json.dumps(scan_report.full_record(found, title), indent=2).encode() + b"\n"
    return (scan_report.svg if kind == ".svg" else scan_report.page)(found, title).encode()


def _show(found: Scan, device: dict[str, Any], remedy: str | None) -> None:
    """Print the result. Raise MediumError with the remedy if there are bad blocks."""
    from scsiusb.cli.scan_map import show_map
    from scsiusb.imaging import scan_report

    if settings().json:
        show_json({**scan_report.record(found), "device": device})
    else:
        show_map(found)
        _show_ranges("bad", found.bad)
        _show_ranges("slow", found.slow)
        before = f", {size_text(found.resumed)} of all passes before" if found.resumed else ""
        passed = found.size if not found.is_destructive and not found.resumed else 0
        speed = f", {rate(passed, found.seconds)}" if passed else ""
        say(f"scanned {size_text(found.size)}{before}{speed}: {scan_report.summary(found)}")
    if found.bad:
        count = sum(each.blocks for each in found.bad)
        first = found.bad[0].lba
        what = f"{counted(count, 'block')} {'is' if count == 1 else 'are'} bad, the first is LBA {first}"
        error = MediumError(what, READ_ERROR, remedy)
        error.lba = first
        raise error


def _show_ranges(kind: str, ranges: Sequence[BlockRange]) -> None:
    for each in ranges[:MOST_SHOWN]:
        last = each.lba + each.blocks - 1
        show(f"{kind}: LBA {each.lba}" if each.blocks == 1 else f"{kind}: LBA {each.lba} to {last}")
    if len(ranges) > MOST_SHOWN:
        show(f"{kind}: and {len(ranges) - MOST_SHOWN} more ranges")
