"""Commands that copy whole disks: dump, restore, clone, compare."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import click

from scsiusb.cli.ask import confirm, require_terminal
from scsiusb.cli.device import complete_device, device_argument, device_record, lun_option, opened, parse_lun, replugger
from scsiusb.cli.failure import Refused
from scsiusb.cli.files import STANDARD, refuse_own_file, refuse_stdout, refuse_trace_of
from scsiusb.cli.jobs import Reached, contents_of, name, range_records, rate, rescuing, resuming
from scsiusb.cli.options import ALL, F, block_number_option, count_or_all, global_options, settings
from scsiusb.cli.output import counted, say, show, show_json, size_text
from scsiusb.cli.progress import job_progress
from scsiusb.cli.replug import Asking, replug_options
from scsiusb.errors import Miscompare, ScsiUsbError
from scsiusb.finding import VIRTUAL
from scsiusb.scsi.sense import MISCOMPARE

if TYPE_CHECKING:
    from scsiusb.disk.disk import Disk
    from scsiusb.imaging.restoring import Restored

MOST_SHOWN: Final = 20  # ranges of differing blocks
NOT_LISTED: Final = "were not written, as the block map does not list them (--bmap none writes all)"
NO_DATA: Final = "were not written, as the image has no data for them"
FROM_START: Final = "run it again from the start, as {} cannot be resumed"


def _bmap(context: click.Context, parameter: click.Parameter, value: str | None) -> str | bool | None:
    """Return the path of the block map; False for the word none."""
    return False if value == "none" else value


def bmap_option(function: F) -> F:
    """Add --bmap."""
    option = click.option(
        "--bmap",
        metavar="FILE|none",
        callback=_bmap,
        help="Block map (default: the one beside the image); none: take all of it.",
    )
    return option(function)


@click.command("dump", short_help="Copy a device to an image file.")
@device_argument
@click.argument("file", type=click.Path())
@block_number_option("--lba", default="0", help="First block (default 0).")
@click.option("--blocks", metavar="N|all", default=ALL, callback=count_or_all, help="Number of blocks (default all).")
@click.option("--resume", is_flag=True, help="Go on with a dump that was interrupted.")
@click.option("--sha256", "sha256_file", is_flag=True, help="Also write FILE.sha256, for `sha256sum -c`.")
@click.option("--bmap", is_flag=True, help="Also write FILE.bmap, which lists the blocks that are not zeros.")
@global_options
def dump_command(
    device: str | None,
    lun: int | None,
    file: str,
    lba: int,
    blocks: int | None,
    resume: bool,
    sha256_file: bool,
    bmap: bool,
) -> None:
    """Copy a device, or a part of it, to FILE.

    The end of the name says the format: .gz, .bz2, .xz or .zst, else it is raw,
    and zeros take no space. A .zst image can be read at any place.

    An interrupted dump leaves FILE and FILE.journal; --resume goes on. It refuses
    if the device or the file is not the same any more.

    \b
    Examples:
      scsiusb dump 2-1 stick.img.zst
      scsiusb dump serial=ABC card.img --sha256 --bmap
      scsiusb dump 2-1 boot.img --lba 0 --blocks 2048
    """
    from scsiusb.imaging.dumping import dump

    refuse_stdout(file)
    refuse_own_file(device, file)
    with opened(device, lun) as disk, job_progress() as bar:
        is_stream = os.path.exists(file) and not os.path.isfile(file)
        then = FROM_START.format("a stream") if is_stream else resuming()
        reached = Reached(bar, then, rescuing(disk, device))
        with reached.said():
            done = dump(
                disk,
                file,
                lba=lba,
                blocks=blocks,
                resume=resume,
                sha256_file=sha256_file,
                bmap=bmap,
                progress=reached,
            )
        device_of = device_record(disk)
    if settings().json:
        show_json(
            {
                "device": device_of,
                "lba": done.lba,
                "blocks": done.blocks,
                "block_size": done.block_size,
                "bytes": done.size,
                "output": file,
                "sha256": done.sha256,
                "seconds": round(done.seconds, 6),
                "resumed": done.resumed,
            }
        )
        return
    before = f", {size_text(done.resumed)} of them before" if done.resumed else ""
    now = done.size - done.resumed
    say(f"dumped {counted(done.size, 'byte')} ({size_text(done.size)}{before}), {rate(now, done.seconds)}")
    show(f"{done.sha256}  {file}")


@click.command("restore", short_help="Write an image file to one or several devices.")
@click.argument("file", type=click.Path())
@click.argument("devices", metavar="[DEVICE]...", nargs=-1, shell_complete=complete_device)
@lun_option
@click.option(
    "--verify",
    type=click.Choice(("none", "read", "medium")),
    default="medium",
    help="Read all back: from the medium (default), or also from the device's cache.",
)
@replug_options
@bmap_option
@click.option("--resume", is_flag=True, help="Go on with a restore that was interrupted.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@global_options
def restore_command(
    file: str,
    devices: tuple[str, ...],
    lun: int | None,
    verify: Any,
    replug: bool,
    wait: float,
    bmap: Any,
    resume: bool,
    yes: bool,
) -> None:
    """Write FILE to each DEVICE from its first block on, and read it back.

    The format is known by the content: raw, .gz, .bz2, .xz, .zst, or an Android
    sparse image. - is stdin. A block map (FILE.bmap) says which blocks to write.

    An interrupted restore leaves a journal beside FILE; --resume goes on, and
    refuses if the device or the file is not the same any more. If one of several
    devices fails, the others are completed.

    Before it is read back, a device is reset, or with --replug unplugged and
    plugged in again, as it says: what is there then was kept without power.

    \b
    Examples:
      scsiusb restore raspios.img.xz 2-1
      scsiusb restore stick.img.zst serial=A serial=B serial=C --yes
      curl -L https://example.org/disk.img.gz | scsiusb restore - 2-1 --yes
    """
    from scsiusb.imaging.restoring import mapped, restore_each
    from scsiusb.imaging.sources import ImageSource

    refuse_trace_of(len(devices))
    _refuse_replug(devices, verify, replug)
    if not yes:
        require_terminal("the restore")
    with ExitStack() as held:
        stream = sys.stdin.buffer if file == STANDARD else None
        source = held.enter_context(ImageSource(None if stream else file, stream=stream))
        disks = _open_targets(held, devices, lun, file)
        if not yes:
            confirm(f"Overwrite {_named(disks)} with {source.name}?")
        bar = held.enter_context(job_progress())
        can_resume = source.path is not None and source.is_repeatable
        reached = Reached(Asking(bar, wait), resuming() if can_resume else FROM_START.format("a stream"))
        with reached.said():
            wanted = mapped(source, bmap)
            results = restore_each(
                wanted,
                disks,
                verify=verify,
                resume=resume,
                replug=replugger(disks, devices or (None,)) if replug else None,
                wait=wait,
                progress=reached,
            )
    _report(results, reached, leaving=NOT_LISTED if wanted is not source else NO_DATA)


@click.command("clone", short_help="Copy a device to one or several others.")
@click.argument("source", metavar="SOURCE", shell_complete=complete_device)
@click.argument("devices", metavar="DEVICE...", nargs=-1, required=True, shell_complete=complete_device)
@lun_option
@click.option("--source-lun", metavar="N", callback=parse_lun, help="Logical unit of SOURCE (default as for --lun).")
@click.option(
    "--verify",
    type=click.Choice(("none", "read", "medium")),
    default="medium",
    help="Read all back: from the medium (default), or also from the device's cache.",
)
@replug_options
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@global_options
def clone_command(
    source: str,
    devices: tuple[str, ...],
    lun: int | None,
    source_lun: int | None,
    verify: Any,
    replug: bool,
    wait: float,
    yes: bool,
) -> None:
    """Copy all blocks of SOURCE to each DEVICE, and read them back.

    A DEVICE may be larger than SOURCE, but not smaller. If one of several fails,
    the others are completed. --lun is for each DEVICE, not for SOURCE.

    \b
    Examples:
      scsiusb clone 2-1 2-2
      scsiusb clone serial=MASTER serial=A serial=B --yes
      scsiusb clone serial=READER 2-2 --source-lun 1
    """
    from scsiusb.imaging.restoring import restore_each
    from scsiusb.imaging.sources import DiskSource

    refuse_trace_of(1 + len(devices))
    _refuse_replug(devices, verify, replug)
    if not yes:
        require_terminal("the copy")
    with ExitStack() as held:
        master = held.enter_context(opened(source, source_lun))
        disks = _open_targets(held, devices, lun, None, master)
        if not yes:
            confirm(f"Overwrite {_named(disks)} with the blocks of {name(master)}?")
        bar = held.enter_context(job_progress())
        reached = Reached(Asking(bar, wait), FROM_START.format("a copy"), rescuing(master, source))
        wanted = DiskSource(master)
        with reached.said():
            results = restore_each(
                wanted,
                disks,
                verify=verify,
                resume=False,
                replug=replugger(disks, devices) if replug else None,
                wait=wait,
                progress=reached,
            )
    _report(results, reached, wanted.name)


@click.command("compare", short_help="Compare a device with an image file or another device.")
@click.argument("source", metavar="FILE|DEVICE", type=click.Path())
@click.argument("device", metavar="DEVICE", shell_complete=complete_device)
@lun_option
@bmap_option
@global_options
def compare_command(source: str, device: str, lun: int | None, bmap: Any) -> None:
    """Say which blocks of DEVICE differ from FILE, or from another device.

    What DEVICE has after the end of the image does not count. A word that is an
    existing file is a file. The exit status is 14 if blocks differ.

    \b
    Examples:
      scsiusb compare stick.img.zst 2-1
      scsiusb compare 2-1 2-2
    """
    from scsiusb.imaging.comparing import compare_with
    from scsiusb.imaging.restoring import mapped
    from scsiusb.imaging.sources import DiskSource, ImageSource, Source

    with ExitStack() as held:
        wanted: Source
        if not _is_device(source):
            wanted = mapped(held.enter_context(ImageSource(source)), bmap)
        else:
            refuse_trace_of(2)
            wanted = DiskSource(held.enter_context(opened(source, None)))
        disk = held.enter_context(opened(device, lun))
        bar = held.enter_context(job_progress())
        found = compare_with(wanted, disk, bar)
    differences = range_records(found.differences)
    if settings().json:
        show_json(
            {
                "equal": found.equal,
                "bytes": found.size,
                "differences": differences,
                "left_out": found.left_out,
                "device": device_record(disk),
            }
        )
    if found.equal:
        if not settings().json:
            left_out = f"; {size_text(found.left_out)} of the image were not compared" if found.left_out else ""
            say(f"equal: {counted(found.size, 'byte')} ({size_text(found.size)}){left_out}")
        return
    if not settings().json:
        _show_ranges(found.differences)
    first = found.differences[0].lba
    count = sum(each.blocks for each in found.differences)
    error = Miscompare(f"{counted(count, 'block')} {'differs' if count == 1 else 'differ'} from {source}", MISCOMPARE)
    error.lba = first
    raise error


def _refuse_replug(devices: Sequence[str], verify: str, replug: bool) -> None:
    """Raise Refused if no device can be plugged in again, or none is read back after that."""
    if replug and verify != "medium":
        raise Refused(f"--replug with --verify {verify}", "give --verify medium, or leave out --replug")
    virtual = next((device for device in devices if device.startswith(VIRTUAL)), None) if replug else None
    if virtual is not None:
        raise Refused(f"--replug: {virtual} has no plug", "leave it out")


def _is_device(word: str) -> bool:
    """Return whether the word has a form of a DEVICE, and is no file that exists."""
    from pathlib import Path

    from scsiusb.finding import is_selector

    return is_selector(word) and not Path(word).is_file()


def _open_targets(
    held: ExitStack, devices: Sequence[str], lun: int | None, path: str | None, *others: Disk
) -> list[Disk]:
    """Open all devices. Raise Refused if one is named twice."""
    disks: list[Disk] = []
    for device in devices or (None,):
        refuse_own_file(device, path)
        disk = held.enter_context(opened(device, lun))
        place = (disk.unit.transport.info.name, disk.unit.lun)
        is_virtual = device is not None and device.startswith(VIRTUAL)
        for other in (*others, *disks):
            if (other.unit.transport.info.name, other.unit.lun) == place and not is_virtual:
                raise Refused(f"{device} is given twice", "name each device once")
        disks.append(disk)
    return disks


def _named(disks: Sequence[Disk]) -> str:
    return " and ".join(f"{name(disk)}, {contents_of(disk)}," for disk in disks)


def _report(results: Sequence[Restored], reached: Reached, master: str | None = None, leaving: str = "") -> None:
    """Print each result; raise the first error, which names its device if there are several.

    `master`: the name of the disk that was copied, which its errors begin with. Only its bad blocks can be rescued.
    `leaving`: why bytes were not written.
    """

    def advised(error: Exception | None) -> Exception | None:
        is_masters = master is not None and isinstance(error, ScsiUsbError) and error.what.startswith(f"{master}: ")
        return reached.advised(error) if error is not None and (is_masters or isinstance(error, OSError)) else error

    errors = [advised(each.error) for each in results]
    if settings().json:
        show_json([_record(result) for result in results])
    else:
        for result in results:
            say(_line(result) + (f"; {size_text(result.left_out)} {leaving}" if result.left_out else ""))
            _show_ranges(result.differences)
    for result, error in zip(results, errors, strict=True):
        if error is not None:
            if len(results) > 1 and isinstance(error, ScsiUsbError):
                error.what = f"{result.address}: {error.what}"
            raise error


def _record(result: Restored) -> dict[str, Any]:
    return {
        "address": result.address,
        "serial": result.serial,
        "bytes": result.written,
        "verified": result.verified,
        "differences": range_records(result.differences),
        "seconds": round(result.seconds, 6),
        "error": None if result.error is None else str(result.error),
        "resumed": result.resumed,
        "left_out": result.left_out,
    }


def _line(result: Restored) -> str:
    who = result.address if result.serial is None else f"{result.address}, serial {result.serial}"
    if result.error is not None:
        return f"{who}: failed after {size_text(result.written)}: {result.error}"
    how = {"none": "not verified", "read": "read back", "medium": "read back from the medium"}[result.verified]
    amount = f"{counted(result.written, 'byte')} ({size_text(result.written)})"
    return f"{who}: wrote {amount} in {result.seconds:.2f} s, {how}"


def _show_ranges(ranges: Sequence[Any]) -> None:
    for each in ranges[:MOST_SHOWN]:
        last = each.lba + each.blocks - 1
        show(f"LBA {each.lba}" if each.blocks == 1 else f"LBA {each.lba} to {last}")
    if len(ranges) > MOST_SHOWN:
        show(f"and {len(ranges) - MOST_SHOWN} more ranges")
