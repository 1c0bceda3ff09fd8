"""The probe command: whether a device has the capacity that it announces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from scsiusb.cli.ask import confirm, require_terminal
from scsiusb.cli.device import device_argument, device_record, opened
from scsiusb.cli.failure import Refused
from scsiusb.cli.jobs import name
from scsiusb.cli.options import global_options, settings
from scsiusb.cli.output import counted, say, show, show_json, size_text
from scsiusb.cli.progress import interruptible, job_progress

if TYPE_CHECKING:
    from scsiusb.imaging.probe_result import Probe

ABOUT: Final = {
    "real": "it has what it announces",
    "limbo": "a fake: it drops what is written after its end",
    "wraparound": "a fake: after its end it begins again, and overwrites its beginning",
    "chain": "a fake: it drops what is written after its end, and begins again later",
    "damaged": "not all of its blocks keep what is written; `scsiusb scan` says which",
    "unknown": "it cannot be said",
}
GIVEN_BACK: Final = "the blocks that were marked have again what they had"


@click.command("probe", short_help="Find out whether a device has the capacity it announces.")
@device_argument
@click.option("--destructive", is_flag=True, help="Write to some thousand blocks, and give them back.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@global_options
def probe_command(device: str | None, lun: int | None, destructive: bool, yes: bool) -> None:
    """Find out whether DEVICE is real, a fake (limbo, wraparound, chain) or damaged.

    Reading alone proves little. --destructive marks some thousand blocks, resets
    the device, and looks which marks are there; then all blocks get back what
    they had, also after Ctrl-C. If the device is unplugged meanwhile, they do
    not. The first and the last 1 MiB are never written.

    \b
    Examples:
      scsiusb probe 2-1
      scsiusb probe 2-1 --destructive
      scsiusb probe "virtual:?fake=limbo:2M" --destructive --yes
    """
    from scsiusb.imaging.probing import probe

    if yes and not destructive:
        raise Refused("--yes without --destructive: nothing would be written", "give both, or neither")
    if destructive and not yes:
        require_terminal("the probe")
    with opened(device, lun) as disk:
        if destructive and not yes:
            confirm(f"Write to some thousand blocks of {name(disk)}, and give them back?")
        with job_progress(least=0) as bar, interruptible(lambda: GIVEN_BACK):
            result = probe(disk, destructive=destructive, progress=bar)
        record = device_record(disk)
    if settings().json:
        show_json(
            {
                "device": record,
                "kind": result.kind,
                "announced_blocks": result.announced_blocks,
                "usable_blocks": result.usable_blocks,
                "block_size": result.block_size,
                "written_bytes": result.written_bytes,
                "lost_blocks": result.lost_blocks,
                "findings": list(result.findings),
                "seconds": round(result.seconds, 6),
            }
        )
        return
    _show(result, destructive)


def _show(result: Probe, destructive: bool) -> None:
    show(f"{result.kind}: {ABOUT[result.kind]}")
    announced = size_text(result.announced_blocks * result.block_size)
    if result.usable_blocks is not None:
        about = "about " if result.kind == "damaged" else ""
        show(f"usable: {about}{size_text(result.usable_blocks * result.block_size)} of {announced}")
    for finding in result.findings:
        show(f"  {finding}")
    if destructive:
        lost = f", but {counted(result.lost_blocks, 'block')}: writing failed" if result.lost_blocks else ""
        say(f"wrote {size_text(result.written_bytes)} in {result.seconds:.1f} s; {GIVEN_BACK}{lost}")
    else:
        say("nothing was written; only --destructive can prove that all blocks are there")
