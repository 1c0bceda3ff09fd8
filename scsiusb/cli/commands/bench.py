"""The bench command: how fast a device reads and writes, by the size of a call."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Final

import click

from scsiusb.cli import plot
from scsiusb.cli.ask import confirm_overwriting, require_somebody
from scsiusb.cli.device import device_argument, opened
from scsiusb.cli.failure import Refused
from scsiusb.cli.figures import headline, notes, record, table
from scsiusb.cli.files import refuse_own_file, sink
from scsiusb.cli.options import global_options, number_option, quoted, settings
from scsiusb.cli.output import say, show, show_json, show_table, size_text
from scsiusb.disk import speed
from scsiusb.disk.disk import Disk

SIZE: Final = re.compile(r"([0-9]{1,12})(?:([km])(?:i?b)?)?", re.IGNORECASE)
FACTORS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20}
LARGEST: Final = 64 << 20
LONGEST: Final = 600.0  # seconds; every call's latency is kept
WORTH_SHOWING: Final = 2.0  # seconds


def _sizes(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...]:
    if value is None:
        return speed.SIZES
    return tuple(sorted({_size(word.strip()) for word in value.split(",")}))


def _size(word: str) -> int:
    match = SIZE.fullmatch(word)
    size = int(match[1]) * FACTORS[(match[2] or "").lower()] if match else 0
    if not 0 < size <= LARGEST:
        raise click.BadParameter(f"{quoted(word)} is no size, such as 4K or 1M, of at most {size_text(LARGEST)}")
    return size


def _seconds(context: click.Context, parameter: click.Parameter, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= LONGEST:
        raise click.BadParameter(f"{quoted(value)} is not a time in seconds, above 0 and at most {LONGEST:.0f}")
    return seconds


@click.command("bench", short_help="Measure how fast the device reads and writes.")
@device_argument
@click.option("--write", "writes", is_flag=True, help="Also measure writes, which overwrite all of the range.")
@number_option("--lba", help="The first block of the range to measure in (default 0).")
@number_option("--blocks", help="How many blocks it has (default: up to the last).")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--sizes", metavar="SIZE,…", callback=_sizes, help="Bytes of a call (default 4K,16K,64K,256K,1M,4M).")
@click.option("--pattern", type=click.Choice(speed.PATTERNS), help="Only this one (default both).")
@click.option("--seconds", metavar="S", default="1", callback=_seconds, help="For each measurement (default 1).")
@number_option("--calls", help="End a measurement sooner, after so many calls.")
@number_option("--seed", default="0", help="Chooses the random places and bytes (default 0).")
@click.option(
    "--plot", "picture", metavar="FILE", type=click.Path(), help="Also draw the figures: FILE.png or FILE.svg."
)
@global_options
def bench_command(
    device: str | None,
    lun: int,
    writes: bool,
    lba: int | None,
    blocks: int | None,
    yes: bool,
    sizes: tuple[int, ...],
    pattern: str | None,
    seconds: float,
    calls: int | None,
    seed: int,
    picture: str | None,
) -> None:
    """Measure how fast the device reads, and with --write also writes.

    One call at a time, first at places in sequence, then at random ones, by the
    size of a call. A call larger than a command may be is several commands; the
    latencies are those of calls. CPU is what this process took for a command, in
    user space and in the kernel. MB are 10^6 bytes. Each measurement takes 1.1
    times --seconds, as there is a warm-up, or two calls if those take longer: all
    by default 14 s, with writes 27 s.

    Reads only, unless --write is given with a range: then WHAT IS THERE IS LOST,
    as random bytes are written all over it. One flush at the end of each
    measurement counts in its MB/s. What is read is not checked. Blocks of flash
    that were never written may read faster than others.

    \b
    Examples:
      scsiusb bench 2-1
      scsiusb bench 2-1 --sizes 4K,1M --pattern random --seconds 5 --json
      scsiusb bench 2-1 --plot speed.svg
      scsiusb bench 2-1 --write --lba 2048 --blocks 0x80000
    """
    _check_arguments(writes, lba, blocks, calls)
    if writes and not yes:
        require_somebody("the writes")
    if picture is not None:
        plot.check(picture)
        refuse_own_file(device, picture)
    with sink(picture) if picture is not None else nullcontext() as target:
        with opened(device, lun) as disk:
            extent = _extent(disk, lba, blocks)
            fit, left_out = _sorted_out(disk, extent, sizes)
            patterns = (pattern,) if pattern else speed.PATTERNS
            plan = speed.Plan(extent, fit, patterns, writes, seconds, calls, seed)
            bench = speed.Bench(disk, plan)
            if writes and not yes:
                confirm_overwriting(disk, device, extent.lba, extent.blocks, ", with random bytes")
            found = record(disk, plan, _measured(bench, plan), left_out)
        _show(found)
        if target and picture:
            drawn = plot.drawn(found, picture)
            target.begin()
            target.write(drawn)


def _check_arguments(writes: bool, lba: int | None, blocks: int | None, calls: int | None) -> None:
    if writes and (lba is None or blocks is None):
        raise click.UsageError("--write needs --lba and --blocks, the range that it overwrites")
    if blocks == 0:
        raise click.UsageError("--blocks 0 leaves nothing to measure")
    if calls == 0:
        raise click.UsageError("--calls 0 leaves nothing to measure")


def _extent(disk: Disk, lba: int | None, blocks: int | None) -> speed.Extent:
    """The range that the words mean. Raises OutOfRange."""
    lba = lba or 0
    disk.check_range(lba, blocks or 1)
    return speed.whole_commands(disk, speed.Extent(lba, disk.blocks - lba if blocks is None else blocks))


def _sorted_out(disk: Disk, extent: speed.Extent, sizes: Sequence[int]) -> tuple[list[int], dict[int, str]]:
    """The sizes that can be measured, and why the others cannot, said too. Raises Refused where none is left."""
    reasons = {size: speed.unfit(disk, extent, size) for size in sizes}
    left_out = {size: reason for size, reason in reasons.items() if reason}
    if len(left_out) == len(sizes):
        size, reason = next(iter(left_out.items()))
        raise Refused(f"no size can be measured: {size_text(size)} is {reason}", "give others by --sizes")
    for size, reason in left_out.items():
        say(f"scsiusb: warning: {size_text(size)} left out: {reason}")
    return [size for size in sizes if size not in left_out], left_out


def _measured(bench: speed.Bench, plan: speed.Plan) -> dict[speed.Case, speed.Figures]:
    found = {}
    with _steps(plan) as step:
        bench.try_out()
        for done, case in enumerate(plan.cases):
            step(done, case)
            found[case] = bench.measure(case)
    return found


@contextmanager
def _steps(plan: speed.Plan) -> Iterator[Callable[[int, speed.Case], None]]:
    """Yields what to tell how many cases are done and which begins; what it shows stands still while that runs."""
    count = len(plan.cases)
    if count * plan.case_seconds <= WORTH_SHOWING or not sys.stderr.isatty():
        yield lambda done, case: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[left]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as bar:
        task = bar.add_task("starting", total=count, left="")

        def step(done: int, case: speed.Case) -> None:
            what = f"{case.direction} {case.pattern} {size_text(case.size)}"
            left = f"about {(count - done) * plan.case_seconds:.0f} s left"
            bar.update(task, description=what, completed=done, left=left, refresh=True)

        yield step


def _show(found: dict[str, Any]) -> None:
    if settings().json:
        show_json(found)
        return
    show(headline(found))
    show("")
    columns, *rows = table(found)
    show_table(columns, rows)
    if remarks := notes(found):
        show("")
        show("\n".join(remarks))
