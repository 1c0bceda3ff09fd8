"""The bench command: measure how fast a device reads and writes, by call size."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Final

import click

from scsiusb.cli import plot
from scsiusb.cli.ask import confirm_overwriting, require_terminal
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
LONGEST: Final = 600.0  # seconds; the latency of every call is kept in memory
WORTH_SHOWING: Final = 2.0  # seconds


def _sizes(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...]:
    if value is None:
        return speed.SIZES
    return tuple(sorted({_size(word.strip()) for word in value.split(",")}))


def _size(word: str) -> int:
    match = SIZE.fullmatch(word)
    size = int(match[1]) * FACTORS[(match[2] or "").lower()] if match else 0
    if not 0 < size <= LARGEST:
        raise click.BadParameter(f"{quoted(word)} is not a size such as 4K or 1M, at most {size_text(LARGEST)}")
    return size


def _seconds(context: click.Context, parameter: click.Parameter, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= LONGEST:
        raise click.BadParameter(f"{quoted(value)} is not a time in seconds, above 0 and at most {LONGEST:.0f}")
    return seconds


def _depths(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...]:
    words = [] if value is None else [word.strip() for word in value.split(",")]
    for word in words:
        if not re.fullmatch(r"[0-9]{1,3}", word) or not int(word):
            raise click.BadParameter(f"{quoted(word)} is not a number of commands, such as 8")
    return tuple(sorted({int(word) for word in words}))


@click.command("bench", short_help="Measure how fast the device reads and writes.")
@device_argument
@click.option("--write", "writes", is_flag=True, help="Also measure writes, which overwrite the whole range.")
@number_option("--lba", help="First block of the range to measure (default 0).")
@number_option("--blocks", help="Number of blocks in it (default: to the end).")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--sizes", metavar="SIZE,…", callback=_sizes, help="Bytes per call (default 4K,16K,64K,256K,1M,4M).")
@click.option("--depth", "depths", metavar="N,…", callback=_depths, help="Read with N commands in flight (UAS).")
@click.option("--pattern", type=click.Choice(speed.PATTERNS), help="Measure only this access pattern (default: both).")
@click.option(
    "--seconds",
    metavar="S",
    default="1",
    callback=_seconds,
    help="Duration of each measurement, in seconds (default 1).",
)
@number_option("--calls", help="End each measurement after this many calls.")
@number_option("--seed", default="0", help="Seed of the random positions and data (default 0).")
@click.option(
    "--plot", "picture", metavar="FILE", type=click.Path(), help="Also plot the results: FILE.png or FILE.svg."
)
@global_options
def bench_command(
    device: str | None,
    lun: int | None,
    writes: bool,
    lba: int | None,
    blocks: int | None,
    yes: bool,
    sizes: tuple[int, ...],
    depths: tuple[int, ...],
    pattern: str | None,
    seconds: float,
    calls: int | None,
    seed: int,
    picture: str | None,
) -> None:
    """Measure how fast the device reads, and with --write also writes.

    Runs one call at a time, for each call size: first at sequential, then at
    random positions. A call that is larger than one command can be is split into
    several commands; latencies are per call. CPU is the time of this process per
    command, in user space and in the kernel. MB are 10^6 bytes. Each measurement
    takes --seconds and 10 % for warm-up, or two calls if they take longer; by
    default all of them take 14 s, or 27 s with writes.

    Only reads, unless --write is given with a range: then ALL DATA IN THE RANGE
    IS LOST, because random bytes are written to it. MB/s of writes include one
    flush at the end of each measurement. Data that is read is not verified.
    Flash blocks that were never written may read faster than others.

    With --depth, reads are single commands, N of them in flight; p50, p99 and max
    are then of N commands together.

    \b
    Examples:
      scsiusb bench 2-1
      scsiusb bench 2-1 --sizes 4K,1M --pattern random --seconds 5 --json
      scsiusb bench 2-1 --plot speed.svg
      scsiusb bench 2-1 --transport uas --sizes 4K --depth 1,8,16
      scsiusb bench 2-1 --write --lba 2048 --blocks 0x80000
    """
    _check_arguments(writes, lba, blocks, calls)
    if depths and (writes or picture):
        raise click.UsageError("--depth is for reads, and has no plot: leave out --write and --plot")
    if writes and not yes:
        require_terminal("the writes")
    if picture is not None:
        plot.check(picture)
        refuse_own_file(device, picture)
    with sink(picture) if picture is not None else nullcontext() as target:
        with opened(device, lun) as disk:
            extent = _extent(disk, lba, blocks)
            depths = _possible(disk, depths)
            suitable, left_out = _split_sizes(disk, extent, sizes, in_one=bool(depths))
            patterns = (pattern,) if pattern else speed.PATTERNS
            plan = speed.Plan(extent, suitable, patterns, writes, seconds, calls, depths, seed)
            bench = speed.Bench(disk, plan)
            if writes and not yes:
                confirm_overwriting(disk, device, extent.lba, extent.blocks, ", with random bytes")
            found = record(disk, plan, _measure_all(bench, plan), left_out)
        _show(found)
        if target and picture:
            drawn = plot.drawn(found, picture)
            target.begin()
            target.write(drawn)


def _check_arguments(writes: bool, lba: int | None, blocks: int | None, calls: int | None) -> None:
    if writes and (lba is None or blocks is None):
        raise click.UsageError("--write needs --lba and --blocks, the range that it overwrites")
    if blocks == 0:
        raise click.UsageError("--blocks 0: there is nothing to measure")
    if calls == 0:
        raise click.UsageError("--calls 0: there is nothing to measure")


def _extent(disk: Disk, lba: int | None, blocks: int | None) -> speed.Extent:
    """Return the range of --lba and --blocks, in whole commands. Raises OutOfRange."""
    lba = lba or 0
    disk.check_range(lba, blocks or 1)
    return speed.whole_commands(disk, speed.Extent(lba, disk.blocks - lba if blocks is None else blocks))


def _possible(disk: Disk, depths: tuple[int, ...]) -> tuple[int, ...]:
    """Return the depths that there can be. Raises Refused if none is left."""
    most = disk.unit.transport.depth
    possible = tuple(depth for depth in depths if depth <= most)
    if depths and (most == 1 or not possible):
        protocol = disk.unit.transport.info.protocol.upper()
        raise Refused(f"no depth can be measured: by {protocol} the device takes {most} at once", "try --transport uas")
    for depth in depths:
        if depth not in possible:
            say(f"scsiusb: warning: depth {depth} left out: the device takes at most {most} at once")
    return possible


def _split_sizes(
    disk: Disk, extent: speed.Extent, sizes: Sequence[int], *, in_one: bool
) -> tuple[list[int], dict[int, str]]:
    """Return the sizes that can be measured, and the reasons for the others. Raises Refused if none is left.

    `in_one`: only those that one command moves.
    """
    reasons = {size: speed.unfit(disk, extent, size) for size in sizes}
    largest = disk.max_blocks * disk.block_size
    for size in sizes:
        if in_one and size > largest:
            reasons[size] = reasons[size] or f"larger than a command of {size_text(largest)}"
    left_out = {size: reason for size, reason in reasons.items() if reason}
    if len(left_out) == len(sizes):
        size, reason = next(iter(left_out.items()))
        raise Refused(f"no size can be measured: {size_text(size)} is {reason}", "give other sizes with --sizes")
    for size, reason in left_out.items():
        say(f"scsiusb: warning: {size_text(size)} left out: {reason}")
    return [size for size in sizes if size not in left_out], left_out


def _measure_all(bench: speed.Bench, plan: speed.Plan) -> dict[speed.Case, speed.Figures]:
    found = {}
    with _steps(plan) as step:
        bench.try_out()
        for done, case in enumerate(plan.cases):
            step(done, case)
            found[case] = bench.measure(case)
    return found


@contextmanager
def _steps(plan: speed.Plan) -> Iterator[Callable[[int, speed.Case], None]]:
    """Yield a function to call before each case. The progress bar is not refreshed during a case, to save CPU."""
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
            at_once = f", {case.depth} at once" if case.depth else ""
            what = f"{case.direction} {case.pattern} {size_text(case.size)}{at_once}"
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
