"""Probe: finds out whether a disk has the capacity that it announces, by few writes, which are undone at the end.

The idea is that of f3probe: mark blocks, make sure that they are read from the medium, and look which are there. Here a
reset of the port between write and read takes the place of writing more than the device's cache can hold.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator
from itertools import chain, pairwise
from typing import Final

from scsiusb.disk.disk import Disk
from scsiusb.imaging.arguments import check_job
from scsiusb.imaging.events import MARKING, PROBING, SAMPLING, OnProgress, Progress, ignore
from scsiusb.imaging.looking import look
from scsiusb.imaging.probe_result import Kind, Probe, result_of
from scsiusb.imaging.readback import BlockRange
from scsiusb.imaging.surface import PIECE, Surface, margins

LEAST_BLOCKS: Final = 64  # between the margins; fewer show nothing
RUN_SHARE: Final = 4096  # part of the disk that is marked as one run
LEAST_RUN, MOST_RUN = 64 * 1024, 16 * 1024 * 1024  # bytes
RUN_PIECES: Final = 16
MOST_READS: Final = 16 * 1024  # to find aliases of the run
MOST_PARTS: Final = 256
ROUNDS: Final = (32, 128, 1024)  # blocks that are marked in a round, until one is bad
REFINED: Final = 64  # blocks of a round that narrows the border of what can be used
LEAST_TAIL: Final = 16  # bad blocks at the end, without a good one among them, that are more than chance
MOST_REFINEMENTS: Final = 64
SILENT_TAIL, FAILING_TAIL = 64, 8  # 1 / least part of the disk that is no capacity instead of damage
OVERWHELMING: Final = (0, 64 * 1024 * 1024, 256 * 1024 * 1024)  # bytes: by a reset alone, then by writes, too
MOST_CHANGED: Final = 50  # 1 / part of the good marks that may be gone later without a cache as the reason


def probe(disk: Disk, *, destructive: bool = False, progress: OnProgress = ignore) -> Probe:
    """Find out whether the disk has the capacity that it announces, and what it does beyond.

    `destructive`: marks some thousand blocks, but none in the first and the last 1 MiB, and writes back what they had,
    also after Ctrl-C or an error, unless the device has left. If it is not set, the disk is only read, which proves
    little. It is not noticed if less than 1 MiB at the end is missing, or if a few single blocks are bad.

    Raises DataProtect, DeviceGone, MediumChanged and DeviceMismatch if another medium is put in.
    """
    check_job(progress, disk)
    if not destructive:
        return look(disk, progress)
    began, surface = time.monotonic(), Surface(disk)
    first, last = margins(surface.blocks, surface.block_size)
    disk.medium_to_write(first)  # raises DataProtect
    if last - first < LEAST_BLOCKS:
        finding = f"{surface.blocks} blocks are too few: the first and the last 1 MiB are not written"
        return result_of(surface, began, "unknown", None, (finding,))
    with surface.impatient():
        return result_of(surface, began, *_verdict(surface, progress))


def _verdict(surface: Surface, progress: OnProgress) -> tuple[Kind, int | None, tuple[str, ...]]:
    """Try until the result stays the same after more has been written than before, which empties a cache."""
    size = surface.blocks * surface.block_size
    amounts = [min(amount, size // 8) for amount in OVERWHELMING]
    for amount, more in pairwise(amounts):
        if not amount and not surface.can_reset:
            continue
        attempt = Attempt(surface, amount, progress)
        try:
            attempt.gather()
            holds = bool(amount or surface.can_reset) and attempt.is_lasting(more)
        finally:
            surface.restore()
        if holds:
            return attempt.verdict()
    finding = f"blocks were there, and later not any more: it has a cache of more than {amounts[-2] >> 20} MiB"
    return "unknown", None, (f"{finding} that a reset does not empty",)


class Attempt:
    """One pass over a disk: marks a run of blocks, looks for its aliases, then samples for blocks that are not kept."""

    def __init__(self, surface: Surface, overwhelming: int, progress: OnProgress) -> None:
        self._surface, self._overwhelming, self._progress = surface, overwhelming, progress
        self._first, self._end = margins(surface.blocks, surface.block_size)
        self._wrap: int | None = None
        self._kept: dict[int, bool] = {}  # by LBA of each sample
        self._silent: set[int] = set()  # bad ones that were read and written without an error
        self._run = BlockRange(self._first, 0)
        self._random = random.Random()

    def gather(self) -> None:
        """Collect the facts."""
        self._mark_run()
        if self._run.blocks:
            self._find_aliases()
        if self._wrap is not None:
            self._end = min(self._end, self._wrap)
        for count in ROUNDS:
            self._sample(self._spread(self._first, self._end, count))
            if not all(self._kept.values()):
                break
        self._refine()

    # --- the run, and where addresses begin again ------------------------------------------------------

    def _mark_run(self) -> None:
        """Mark a run of blocks at the beginning; `_run` is its longest part that is kept."""
        surface, size = self._surface, self._surface.block_size
        bytes_ = min(max(surface.blocks // RUN_SHARE * size, LEAST_RUN), MOST_RUN)
        blocks = min(bytes_ // size, (self._end - self._first) // 2)
        step = max(min(blocks // RUN_PIECES, PIECE // size), 1)
        ranges = [
            BlockRange(lba, min(step, self._first + blocks - lba))
            for lba in range(self._first, self._first + blocks, step)
        ]
        surface.mark(ranges, self._overwhelming)
        streak = self._run
        for at, each in enumerate(ranges):
            if self._check_run(each):
                is_next = streak.lba + streak.blocks == each.lba
                streak = BlockRange(streak.lba, streak.blocks + each.blocks) if is_next else each
                self._run = max(self._run, streak, key=lambda one: one.blocks)
            self._progress(Progress(MARKING, min((at + 1) * step, blocks) * size, blocks * size))
        surface.prove(range(self._run.lba, self._run.lba + self._run.blocks, step))

    def _check_run(self, blocks: BlockRange) -> bool:
        """Return whether the run is kept there; note where other blocks of the run are instead."""
        surface, size = self._surface, self._surface.block_size
        data = surface.read(*blocks)
        if data is None:
            return False
        is_kept = True
        for at in range(blocks.blocks):
            origin = surface.marks.origin(data[at * size : (at + 1) * size])
            if origin != blocks.lba + at:
                is_kept = False
                self._note_alias(blocks.lba + at, origin)
        return is_kept

    def _note_alias(self, lba: int, origin: int | None) -> None:
        if origin is not None and origin != lba:
            distance = abs(lba - origin)
            self._wrap = distance if self._wrap is None else min(self._wrap, distance)

    def _find_aliases(self) -> None:
        """Read where blocks of the run would be seen again: powers of two first, then so that no place is left out."""
        size, blocks = self._surface.block_size, self._surface.blocks
        for at, lba in enumerate(chain(self._powers(), self._strides())):
            self._look_at(lba)
            if self._wrap is not None:
                self._divide_wrap()
                break
            if at % 64 == 0:
                self._progress(Progress(PROBING, lba * size, blocks * size))
        self._progress(Progress(PROBING, blocks * size, blocks * size))

    def _look_at(self, lba: int) -> None:
        data = self._surface.read(lba)
        if data is not None:
            self._note_alias(lba, self._surface.marks.origin(data))

    def _divide_wrap(self) -> None:
        """Find out whether addresses begin again earlier: on a large disk `_strides` may have missed the first time."""
        distance = self._wrap or 0
        for parts in range(2, MOST_PARTS):
            if distance % parts == 0 and distance // parts >= self._run.blocks:
                self._look_at(self._run.lba + distance // parts)

    def _powers(self) -> Iterator[int]:
        start, blocks = self._run
        return (start + (1 << power) for power in range(64) if blocks <= 1 << power < self._surface.blocks - start)

    def _strides(self) -> Iterator[int]:
        blocks = self._surface.blocks
        stride = max(self._run.blocks, -(-blocks // MOST_READS))
        yield from range(self._run.lba + stride, blocks, stride)
        yield blocks - 1

    # --- samples --------------------------------------------------------------------------------------

    def _spread(self, first: int, end: int, count: int) -> list[int]:
        """Return up to `count` blocks, one at random in each part of the range, that are no samples yet."""
        bounds = [first + (end - first) * part // count for part in range(count + 1)]
        chosen = {self._random.randrange(low, high) for low, high in pairwise(bounds) if low < high}
        run = range(self._run.lba, self._run.lba + self._run.blocks)
        return sorted(lba for lba in chosen if lba not in self._kept and lba not in run)

    def _sample(self, lbas: list[int]) -> None:
        """Mark blocks, and note which are kept."""
        surface = self._surface
        written = surface.mark([BlockRange(lba, 1) for lba in lbas], self._overwhelming)
        order, size, before = list(zip(lbas, written, strict=True)), surface.block_size, len(self._kept)
        self._random.shuffle(order)
        for done, (lba, was_written) in enumerate(order, 1):
            data = surface.read(lba) if was_written else None
            self._kept[lba] = data is not None and surface.marks.origin(data) == lba
            if data is not None and not self._kept[lba]:
                self._silent.add(lba)
            self._progress(Progress(SAMPLING, (before + done) * size, (before + len(lbas)) * size))

    def _last_good(self) -> int:
        run_end = self._run.lba + self._run.blocks - 1
        return max([run_end, *(lba for lba, is_kept in self._kept.items() if is_kept)])

    def _tail(self) -> list[int]:
        """Return the bad samples after the last good block."""
        last = self._last_good()
        return sorted(lba for lba, is_kept in self._kept.items() if lba > last and not is_kept)

    def _refine(self) -> None:
        """Sample between the last good and the next bad block, until they are neighbours, and after them."""
        for _ in range(MOST_REFINEMENTS):
            tail = self._tail()
            if not tail:
                return
            more = self._spread(self._last_good() + 1, tail[0], REFINED)
            if len(tail) < 2 * LEAST_TAIL:
                more = sorted({*more, *self._spread(tail[0] + 1, self._end, 2 * LEAST_TAIL)})
            if not more:
                return
            self._sample(more)

    def is_lasting(self, overwhelming: int) -> bool:
        """Write more, and return whether the good blocks are still there; a few may be bad now."""
        surface = self._surface
        surface.leave_cache(overwhelming)
        good = [lba for lba, is_kept in self._kept.items() if is_kept]
        self._random.shuffle(good)
        changed = [lba for lba in good if surface.marks.origin(surface.read(lba) or b"") != lba]
        if len(changed) > max(2, len(good) // MOST_CHANGED):
            return False
        self._kept.update(dict.fromkeys(changed, False))
        self._silent.update(changed)
        return True

    # --- the result -----------------------------------------------------------------------------------

    def verdict(self) -> tuple[Kind, int, tuple[str, ...]]:
        """Return the kind, the number of blocks that can be used, and what was seen."""
        blocks, tail = self._surface.blocks, self._tail()
        bad = [lba for lba, is_kept in self._kept.items() if not is_kept]
        seen = [f"{len(self._kept)} blocks sampled, {len(bad)} of them not kept"]
        if self._wrap is not None:
            seen.append(f"block {self._run.lba} is seen again at block {self._run.lba + self._wrap}")
            if len(tail) >= LEAST_TAIL:
                return "chain", tail[0], (*seen, self._said_of(tail))
            return "wraparound", self._wrap, tuple(seen)
        if not bad and self._run.blocks:
            return "real", blocks, tuple(seen)
        part = SILENT_TAIL if self._silent.intersection(tail) else FAILING_TAIL
        if self._run.blocks and len(tail) >= LEAST_TAIL and blocks - tail[0] >= blocks // part:
            return "limbo", tail[0], (*seen, self._said_of(tail))
        good = len(self._kept) - len(bad)
        seen.append(f"the first one that is not kept: LBA {min(bad, default=self._first)}")
        return "damaged", blocks * good // max(len(self._kept), 1), tuple(seen)

    def _said_of(self, tail: Iterable[int]) -> str:
        first = min(tail)
        how = "is not kept, without an error" if self._silent.intersection(tail) else "cannot be written or read"
        return f"what is written from LBA {first} on {how}"
