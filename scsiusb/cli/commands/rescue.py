"""The rescue command: copy what can be read of a failing device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from scsiusb.cli.device import device_argument, device_record, opened, reopener
from scsiusb.cli.files import refuse_own_file, refuse_stdout
from scsiusb.cli.jobs import Reached, again
from scsiusb.cli.options import ALL, block_number_option, count_or_all, global_options, number_option, settings
from scsiusb.cli.output import counted, say, show, show_json, size_text
from scsiusb.cli.progress import job_progress

if TYPE_CHECKING:
    from scsiusb.imaging.rescuing import Rescue

INCOMPLETE: Final = 3  # exit status, as of a medium error
MOST_SHOWN: Final = 20  # areas that are not rescued
LONGEST_WAIT: Final = 1_000_000.0  # seconds


def _seconds(context: click.Context, parameter: click.Parameter, value: float) -> float:
    if not 0 <= value <= LONGEST_WAIT:
        raise click.BadParameter(f"{value:g} is not a time in seconds, from 0 to {LONGEST_WAIT:.0f}")
    return value


class _Reached(Reached):
    """How far a rescue has come."""

    @property
    def done(self) -> str:
        """The phase, and what is rescued."""
        last = self.last
        if last is None or last.total is None:
            return "nothing was read"
        return f"{last.phase}: {size_text(last.done)} of {size_text(last.total)} rescued"


@click.command("rescue", short_help="Copy what can be read of a failing device.")
@device_argument
@click.argument("file", type=click.Path())
@click.argument("mapfile", type=click.Path())
@number_option("--retries", default="0", help="Read each bad block so many times more (default 0).")
@click.option(
    "--wait",
    metavar="S",
    type=float,
    default=60.0,
    callback=_seconds,
    help="Seconds to wait for a device that has left the bus (default 60).",
)
@block_number_option("--lba", default="0", help="First block (default 0).")
@click.option("--blocks", metavar="N|all", default=ALL, callback=count_or_all, help="Number of blocks (default all).")
@global_options
def rescue_command(
    device: str | None,
    lun: int | None,
    file: str,
    mapfile: str,
    retries: int,
    wait: float,
    lba: int,
    blocks: int | None,
) -> int:
    """Copy all that can be read to FILE, a raw image; the easy parts first.

    MAPFILE says what is rescued. The same command goes on after any interruption;
    so does GNU ddrescue, whose format it has, and the other way round. Another
    device is refused.

    A read that takes longer than --timeout (default 5 seconds, twice that for a
    block alone) has failed, and the device is recovered. A device that leaves the
    bus is waited for. The exit status is 3 while something is not rescued.

    \b
    Examples:
      scsiusb rescue 2-1 stick.img stick.map
      scsiusb rescue serial=ABC stick.img stick.map --retries 3
    """
    from scsiusb.imaging.rescuing import DEADLINE, rescue

    for path in (file, mapfile):
        refuse_stdout(path)
        refuse_own_file(device, path)
    with opened(device, lun) as disk, job_progress() as bar:
        device_of = device_record(disk)
        reached = _Reached(bar, f"go on with `{again()}`")
        with reached.said():
            done = rescue(
                disk,
                file,
                mapfile,
                lba=lba,
                blocks=blocks,
                retries=retries,
                timeout=settings().timeout or DEADLINE,
                reopen=reopener(disk, device) if wait else None,
                wait=wait,
                progress=reached,
            )
    if settings().json:
        show_json({**_record(done), "device": device_of})
    else:
        _report(done)
    return 0 if done.is_complete else INCOMPLETE


def _record(done: Rescue) -> dict[str, Any]:
    return {
        "rescued": done.rescued,
        "bad": done.bad,
        "bytes": done.size,
        "map": [{"pos": area.pos, "size": area.size, "status": area.status} for area in done.map],
        "seconds": round(done.seconds, 6),
        "errors": done.errors,
        "returns": done.returns,
        "resumed": done.resumed,
    }


def _amount(done: Rescue) -> str:
    """Return how much is rescued of how much, also where rounding hides what is not."""
    rescued, size = size_text(done.rescued), size_text(done.size)
    if rescued == size and not done.is_complete:
        return f"all but {size_text(done.size - done.rescued)} of {size}"
    return f"{rescued} of {size}"


def _report(done: Rescue) -> None:
    before = f", {size_text(done.resumed)} of them before" if done.resumed else ""
    text = f"rescued {_amount(done)}{before}, in {done.seconds:.1f} s"
    if done.errors:
        text += f", {counted(done.errors, 'failed read')}"
    if done.returns:
        text += f", the device came back {counted(done.returns, 'time')}"
    say(text)
    if done.is_complete:
        return
    left = [area for area in done.map if area.status != "+"]
    say(f"{size_text(done.size - done.rescued)} in {counted(len(left), 'area')} cannot be read:")
    size = done.device.block_size
    for area in left[:MOST_SHOWN]:
        first, last = area.pos // size, area.end // size - 1
        show(f"LBA {first}" if first == last else f"LBA {first} to {last}")
    if len(left) > MOST_SHOWN:
        show(f"and {len(left) - MOST_SHOWN} more areas; `ddrescuelog -l -` lists all of them")
