"""Scan: reads, or writes and reads, all blocks of a disk, and finds the bad and the slow ones."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from scsiusb.base.arguments import integer
from scsiusb.base.dataclass import dataclass
from scsiusb.disk.disk import Disk
from scsiusb.disk.speed import Latency
from scsiusb.errors import (
    DeviceTimeout,
    ImageError,
    MalformedReply,
    MediumChanged,
    PhaseError,
    ScsiUsbError,
    TransferStalled,
    UnitAttention,
)
from scsiusb.imaging.arguments import check_job
from scsiusb.imaging.bad_blocks import move_around
from scsiusb.imaging.events import READING, VERIFYING, WRITING, OnProgress, Progress, ignore
from scsiusb.imaging.fills import KEY, Fill, Keyed, Repeated
from scsiusb.imaging.identity import BEGIN_ANEW, DiskIdentity
from scsiusb.imaging.journal import Journal, Record, read_journal_of
from scsiusb.imaging.latencies import Findings, Region
from scsiusb.imaging.readback import BlockRange, Read, differing, medium_reader
from scsiusb.imaging.state import can_resume, journal_place

COMMAND: Final = 1024 * 1024  # bytes that a command moves, at most
CHECKPOINT: Final = 8 * 1024 * 1024  # bytes; so many at most are read or written again after an interruption
RANDOM: Final = "random"
FOUR: Final = (b"\xaa", b"\x55", b"\xff", b"\x00")
"""The patterns of badblocks(8)."""
UNANSWERED: Final = (DeviceTimeout, TransferStalled, PhaseError, MalformedReply)
MOST_UNANSWERED: Final = 3  # commands in a row that the device does not answer rightly, before the scan ends


@dataclass(frozen=True)
class Scan:
    """What a scan found."""

    lba: int
    blocks: int
    block_size: int
    bad: tuple[BlockRange, ...]
    """Blocks that cannot be read or written, or do not have what was written to them."""
    slow: tuple[BlockRange, ...]
    """Blocks of commands that took more than `limit`; blocks can be slow and bad."""
    latency: Latency
    """Seconds of the commands that succeeded; percentiles are right to about 4 %."""
    limit: float
    """Seconds: 10 times the median, and at least 0.1."""
    regions: tuple[Region, ...]
    """The range in at most 4096 parts."""
    is_destructive: bool
    seconds: float
    """Of this run."""
    resumed: int
    """Bytes that earlier runs had read or written."""

    @property
    def size(self) -> int:
        """Bytes of the range."""
        return self.blocks * self.block_size


def scan(
    disk: Disk,
    *,
    lba: int = 0,
    blocks: int | None = None,
    destructive: bool = False,
    patterns: Sequence[bytes | str] = (RANDOM,),
    resume: bool = False,
    journal: str | os.PathLike[str] | None = None,
    progress: OnProgress = ignore,
) -> Scan:
    """Read the blocks from `lba` on (`blocks` None: up to the end), one command at a time, and time each command.

    `destructive`: overwrite the range with each of the patterns, and read it back from the medium, past the device's
    cache. A pattern is bytes, which begin anew in each block, or "random": bytes that differ from block to block, which
    also shows when two addresses reach one block. `FOUR` has the patterns of badblocks(8).

    A bad block is found by smaller commands, and the scan goes on after it. If a read is not answered, all its blocks
    count as bad; the third such command in a row ends the scan.

    `journal` says what is done, by default in the user's state folder; with `resume` a scan that was interrupted goes
    on, with the patterns that it began with. It begins anew without `resume`, and if there is no journal.

    Raise OutOfRange, ImageError for the journal, DeviceMismatch if it is of another device, OSError, and as `Disk.read`
    and `Disk.write`, but for errors that are due to blocks.
    """
    check_job(progress, disk)
    lba = integer("lba", lba)
    count = disk.blocks - lba if blocks is None else integer("blocks", blocks)
    disk.check_range(lba, count)
    if destructive and not patterns:
        raise ValueError("give at least one pattern")
    began = time.monotonic()
    run = _Run(disk, BlockRange(lba, count), progress)
    place = journal_place("scan", disk, run.identity, journal)
    with ExitStack() as held:
        held.callback(run.close)
        if resume and can_resume("scan", place, journal):
            run.resume(place, destructive=destructive)
        else:
            run.begin(place, list(patterns) if destructive else [])
        run.run()
        run.finish()
    found = run.findings
    return Scan(
        lba,
        count,
        disk.block_size,
        found.bad,
        found.slow,
        found.latency,
        found.limit,
        found.regions(),
        destructive,
        time.monotonic() - began,
        run.resumed,
    )


class _Pass(NamedTuple):
    """One way through the range."""

    phase: str
    fill: Fill | None
    """What it writes, or expects to read."""


class _Run:
    """One run of a scan."""

    def __init__(self, disk: Disk, extent: BlockRange, progress: OnProgress) -> None:
        self.disk = disk
        self.identity = DiskIdentity.of(disk)
        self.resumed = 0
        self._extent = extent
        self._progress = progress
        self._size = disk.block_size
        self._step = max(min(disk.max_blocks, COMMAND // self._size), 1)
        self.findings = Findings(*extent, self._step)
        self._medium = disk.medium()
        self._read: Read = disk.read_from
        self._passes: list[_Pass] = []
        self._first = 0
        self._done = 0
        """Blocks of the first pass of this run that are done already."""
        self._journal: Journal | None = None
        self._unanswered = 0

    # --- the journal --------------------------------------------------------------------------------

    def begin(self, place: Path, patterns: Sequence[bytes | str]) -> None:
        """Begin a journal. Raise ValueError for a pattern that is not possible."""
        key = secrets.token_bytes(KEY)
        self._passes = self._plan(patterns, key)
        texts = [each.hex() if isinstance(each, bytes) else each for each in patterns]
        self._journal = Journal(place)
        job = {"lba": self._extent.lba, "blocks": self._extent.blocks, "step": self._step}
        self._journal.begin(job="scan", device=self.identity.record(), **job, patterns=texts, key=key.hex())

    def _plan(self, patterns: Sequence[bytes | str], key: bytes) -> list[_Pass]:
        if not patterns:
            return [_Pass(READING, None)]
        passes = []
        for number, pattern in enumerate(patterns):
            if isinstance(pattern, str) and pattern != RANDOM:
                raise ValueError(f"a pattern is bytes or {RANDOM!r}, not {pattern!r}")
            fill = Keyed(key + bytes((number,))) if isinstance(pattern, str) else Repeated(pattern, self._size)
            passes += [_Pass(WRITING, fill), _Pass(VERIFYING, fill)]
        return passes

    def resume(self, place: Path, *, destructive: bool) -> None:
        """Take over what an earlier run found. Raise ImageError, DeviceMismatch."""
        job, records, length = read_journal_of("scan", place)
        self.identity.check(job.get("device"))
        if (job.get("lba"), job.get("blocks"), bool(job.get("patterns"))) != (*self._extent, destructive):
            kind = "destructive" if job.get("patterns") else "reading"
            what = f"the scan began as a {kind} one of {job.get('blocks')} blocks from LBA {job.get('lba')} on"
            raise ImageError(what, "give the same as then, or begin anew without --resume")
        try:
            self._take_over(job, records)
        except (KeyError, TypeError, ValueError) as error:
            raise ImageError(f"{place} is damaged: {error}", BEGIN_ANEW) from error
        self._journal = Journal(place, length)

    def _take_over(self, job: Record, records: list[Record]) -> None:
        patterns = [each if each == RANDOM else bytes.fromhex(each) for each in job["patterns"]]
        self._passes = self._plan(patterns, bytes.fromhex(job["key"]))
        self._step = int(job["step"])
        if not 1 <= self._step <= COMMAND:
            raise ValueError(f"commands of {self._step} blocks")
        self.findings = Findings(*self._extent, self._step)
        for record in records:
            self._first, self._done = int(record["pass"]), int(record["done"])
            if not (0 <= self._first < len(self._passes) and 0 <= self._done <= self._extent.blocks):
                raise ValueError(f"{self._done} blocks of pass {self._first} cannot be done")
            self.findings.add(record)
        self.resumed = (self._first * self._extent.blocks + self._done) * self._size

    def finish(self) -> None:
        """Remove the journal: the job is done."""
        if self._journal is not None:
            self._journal.remove()

    def close(self) -> None:
        """Close the journal, which stays if not all is done."""
        if self._journal is not None:
            self._journal.close()

    # --- passes -------------------------------------------------------------------------------------

    def run(self) -> None:
        """Make the passes that are not done yet."""
        for number in range(self._first, len(self._passes)):
            phase, fill = self._passes[number]
            if phase == WRITING:
                self._medium = self.disk.medium_to_write(self._extent.lba)
            elif phase == VERIFYING:
                self._medium, self._read = medium_reader(self.disk, self.identity)
            with self.disk.buffer(self._step * self._size) as buffer:
                self._make(number, phase, fill, buffer)
            self._done = 0

    def _make(self, number: int, phase: str, fill: Fill | None, buffer: memoryview) -> None:
        work: Callable[[int, memoryview], None] = self._scan_command
        if fill is not None:
            work = partial(self._write_command if phase == WRITING else self._check_command, fill)
        begin, end = self._extent.lba, self._extent.lba + self._extent.blocks
        at, since, is_again = begin + self._done, self._done, False
        while at < end:
            view = buffer[: min(self._step, end - at) * self._size]
            work(at, view)
            at += len(view) // self._size
            if (at - begin - since) * self._size >= CHECKPOINT or at == end:
                try:
                    self._checkpoint(number, at - begin, flush=phase == WRITING)
                except UnitAttention as error:
                    if is_again or isinstance(error, MediumChanged):
                        raise
                    self.findings.forget()  # the unit was reset, and may have lost what was written
                    at, is_again = begin + since, True
                    continue
                since, is_again = at - begin, False
            self._report(number, at - begin)

    def _report(self, number: int, done: int) -> None:
        """Report the progress of the phase, to which all passes belong that write, or all that verify."""
        phase, extent = self._passes[number].phase, self._extent.blocks
        before = sum(each.phase == phase for each in self._passes[:number])
        passes = sum(each.phase == phase for each in self._passes)
        self._progress(Progress(phase, (before * extent + done) * self._size, passes * extent * self._size))

    def _checkpoint(self, number: int, done: int, *, flush: bool) -> None:
        if flush:
            self.disk.flush()
        record = self.findings.take(number)
        assert self._journal is not None
        self._journal.add(**record, done=done)

    def _scan_command(self, lba: int, view: memoryview) -> None:
        self._read_command(lba, view, lambda at, piece: ())

    def _check_command(self, fill: Fill, lba: int, view: memoryview) -> None:
        def wrong(at: int, piece: memoryview) -> Sequence[int]:
            wanted = memoryview(bytearray(len(piece)))
            fill.put(wanted, at * self._size)
            return [at + block for block in differing(piece, wanted, self._size)]

        self._read_command(lba, view, wrong)

    def _read_command(self, lba: int, view: memoryview, wrong: Callable[[int, memoryview], Sequence[int]]) -> None:
        """Read the blocks; note those that fail, and those that `wrong` returns."""
        bad: list[int] = []
        try:
            for at, piece in move_around(self._timed_read, lba, view, self._size, partial(_keep, bad)):
                bad += wrong(at, piece)
        except UNANSWERED:
            self._unanswered += 1
            if self._unanswered >= MOST_UNANSWERED:
                raise
            self.findings.note_bad(lba, len(view) // self._size)
            return
        self._unanswered = 0
        for each in sorted(bad):
            self.findings.note_bad(each)

    def _write_command(self, fill: Fill, lba: int, view: memoryview) -> None:
        fill.put(view, lba * self._size)
        bad: list[int] = []
        for _ in move_around(self._timed_write, lba, view, self._size, partial(_keep, bad)):
            pass
        for each in bad:
            self.findings.note_bad(each)

    def _timed_read(self, lba: int, view: memoryview) -> None:
        self._timed(partial(self._read, self._medium), lba, view)

    def _timed_write(self, lba: int, view: memoryview) -> None:
        self._timed(partial(self.disk.write_to, self._medium), lba, view)

    def _timed(self, move: Callable[[int, memoryview], Any], lba: int, view: memoryview) -> None:
        began = time.perf_counter()
        move(lba, view)
        self.findings.note(lba, len(view) // self._size, time.perf_counter() - began)


def _keep(bad: list[int], error: ScsiUsbError) -> None:
    assert error.lba is not None
    bad.append(error.lba)
