"""The phases of a rescue, in ddrescue's order: copy in five passes, trim, scrape, retry.

Copying reads large pieces, and after an error goes on at some distance: what is easy to read comes first. Trimming
reads each piece that failed, block by block, from both edges to the first bad block; scraping reads the rest. So each
block is read at most twice: in a large command, and alone. Retrying reads each bad block once more in each pass.
"""

from __future__ import annotations

import time
from typing import Final

from scsiusb.base.dataclass import dataclass
from scsiusb.errors import DeviceGone
from scsiusb.imaging.events import OnProgress, Progress
from scsiusb.imaging.mapfile import BAD, BEGINNING, FINISHED, NON_SCRAPED, NON_TRIED, NON_TRIMMED, RESCUED, Area
from scsiusb.imaging.rescue_device import RescueDevice
from scsiusb.imaging.rescue_record import RescueRecord

LARGEST_READ: Final = 256 * 1024  # bytes of a command
FIRST_READ: Final = 64 * 1024
LEAST_READ: Final = 4 * 1024  # while copying
LEAST_SKIP: Final = 64 * 1024  # bytes
PASSES: Final = 5  # of copying
SKIPPING_PASSES: Final = (1, 2)
PASSES_FOR_SLOW: Final = (3, 4)
SWEEP: Final = 5
SLOW: Final = 0.5  # seconds; a faster read is not slow, whatever the average
SLOWER_THAN_AVERAGE: Final = 10  # times
ALONE_FACTOR: Final = 2  # a block alone has so many times the deadline: it is its last chance
MOST_SUCCESSES: Final = 1024

COPYING: Final = "copying"
TRIMMING: Final = "trimming"
SCRAPING: Final = "scraping"
RETRYING: Final = "retrying"
WAITING: Final = "waiting for the device"


class ReadSize:
    """How many bytes to read by a command: half as many after a failure, twice as many after enough successes.

    A device that cannot carry out large commands so gets small ones: each failure doubles what is enough, until a
    command as large as those that failed succeeds. Then the blocks were bad, and not the size.
    """

    def __init__(self, block_size: int, most: int) -> None:
        self._least = _up(min(LEAST_READ, most), block_size)
        self._block = block_size
        self._most = most
        self.bytes = max(self._least, min(_up(FIRST_READ, block_size), most))
        self._successes = 0
        self._enough = 1
        self._failed = most + 1
        """The size of the smallest command that has failed, since one of its size succeeded."""

    def succeeded(self, size: int) -> None:
        """Take note of a read of `size` bytes."""
        if size >= self._failed:
            self._enough, self._failed = 1, self._most + 1
        self._successes += size >= self.bytes
        if self._successes >= self._enough and self.bytes < self._most:
            self.bytes = min(self.bytes * 2, self._most)
            self._successes = 0

    def failed(self, size: int) -> None:
        """Take note of a failure."""
        self.bytes = max(self.bytes // 2 // self._block * self._block, self._least)
        self._successes = 0
        self._enough = min(self._enough * 2, MOST_SUCCESSES)
        self._failed = min(self._failed, size)


class Pace:
    """The average rate of the reads so far that were not slow."""

    def __init__(self) -> None:
        self._bytes = 0
        self._seconds = 0.0

    def is_slow(self, size: int, seconds: float) -> bool:
        """Take note of a read; return whether it was slow, compared with the others before it."""
        average = self._bytes / self._seconds if self._seconds else 0.0
        if seconds >= SLOW and size * SLOWER_THAN_AVERAGE < average * seconds:
            return True
        self._bytes += size
        self._seconds += seconds
        return False


@dataclass(frozen=True)
class Range:
    """What to rescue, in bytes."""

    start: int
    end: int


class Passes:
    """The phases, from the stage of the map on."""

    def __init__(
        self,
        record: RescueRecord,
        device: RescueDevice,
        range_: Range,
        block_size: int,
        timeout: float,
        show: OnProgress,
    ) -> None:
        self._record, self._device = record, device
        self._map = record.map
        self._start, self._end = range_.start, range_.end
        self._block = block_size
        self._timeout = timeout
        self._show = show
        self._phase = COPYING
        self._outside = self._record.rescued_bytes - self._map.total(RESCUED, self._start, self._end)
        size = self._end - self._start
        self._least_skip = _up(max(LEAST_SKIP, size // 100_000), block_size)
        self._most_skip = max(self._least_skip, _up(size // 100, block_size))
        self._size = ReadSize(block_size, max(min(LARGEST_READ // block_size, device.max_blocks), 1) * block_size)
        self._pace = Pace()
        self._skipped_slow = False
        self.errors = 0
        """How many reads failed."""

    def run(self, retries: int) -> None:
        """Go through all phases; `retries` is the number of retrying passes. Raise as `RescueDevice.read`."""
        self._copy()
        self._trim()
        self._scrape()
        self._retry(retries)
        self._record.stage(self._start, FINISHED, 1)
        self._progress()

    # --- one read ---------------------------------------------------------------------------------

    def _read(self, pos: int, size: int, failed: str) -> bool:
        """Read bytes; if that fails, give them the status `failed`. Return whether they are rescued.

        After the device has left the bus in the middle, go on when it is back. A large read has failed then; a single
        block has failed if the device leaves a second time while it is read.
        """
        block = self._block
        timeout = self._timeout if failed == NON_TRIMMED else self._timeout * ALONE_FACTOR
        while True:
            try:
                data = self._device.read(pos // block, size // block, timeout)
                break
            except DeviceGone as error:
                is_over = failed == NON_TRIMMED or self._record.left(pos)
                if is_over:
                    self._fail(pos, size, failed)
                if self._device.waits:
                    self._progress(WAITING)
                self._device.come_back(error)
                if is_over:
                    return False
        if data is None:
            self._fail(pos, size, failed)
            return False
        self._record.rescued(pos, data)
        self._progress()
        return True

    def _fail(self, pos: int, size: int, status: str) -> None:
        self.errors += 1
        self._record.mark(pos, size, status)
        self._progress()

    def _progress(self, phase: str = "") -> None:
        done = self._record.rescued_bytes - self._outside
        self._show(Progress(phase or self._phase, done, self._end - self._start))

    def _next(self, status: str, pos: int, *, forwards: bool) -> Area | None:
        """Return the next area of a status, from `pos` on or up to it."""
        if forwards:
            return self._map.find(status, max(pos, self._start), self._end)
        return self._map.find_last(status, self._start, min(pos, self._end))

    # --- copying ----------------------------------------------------------------------------------

    def _copy(self) -> None:
        stage = self._map.stage
        is_begun = stage.status == NON_TRIED and stage.number <= PASSES
        first = stage.number if is_begun else 1
        for number in range(first, PASSES + 1):
            if number in PASSES_FOR_SLOW and number != first and not self._skipped_slow:
                continue
            if is_begun and number == first and stage != BEGINNING:
                self._copy_pass(number, stage.pos - stage.pos % self._block)
            else:
                self._copy_pass(number, self._start if number % 2 else self._end)
        self._copy_pass(SWEEP, self._start)  # what a map of another program left before its position

    def _copy_pass(self, number: int, pos: int) -> None:
        """Read what was not tried, forwards in passes of odd numbers; skip something after errors and slow reads."""
        forwards = number % 2 == 1
        skip = self._least_skip
        while (area := self._next(NON_TRIED, pos, forwards=forwards)) is not None:
            piece = self._piece(area, forwards=forwards)
            pos = piece.end if forwards else piece.pos
            self._record.stage(piece.pos if forwards else piece.end, NON_TRIED, number)
            is_good, is_slow = self._copy_piece(piece)
            is_slow = is_slow and number in SKIPPING_PASSES
            self._skipped_slow = self._skipped_slow or is_slow
            if number == SWEEP or (is_good and not is_slow):
                skip = self._least_skip
            elif is_good or number == 1:
                pos += skip if forwards else -skip
                skip = min(2 * skip, self._most_skip)
            else:  # the area ends at a place that failed from the other side: the rest of it is bad, or large
                pos = area.end if forwards else area.pos

    def _piece(self, area: Area, *, forwards: bool) -> Area:
        """Return what to read of an area by one command; the last blocks of the device are read each alone."""
        size = min(area.size, self._size.bytes)
        alone = self._device.alone_from * self._block
        if (area.pos if forwards else area.end - self._block) >= alone:
            size = self._block
        elif forwards:
            size = min(size, alone - area.pos)
        return Area(area.pos if forwards else area.end - size, size, area.status)

    def _copy_piece(self, piece: Area) -> tuple[bool, bool]:
        """Return whether the piece is rescued, and whether that took long."""
        began = time.monotonic()
        if not self._read(piece.pos, piece.size, NON_TRIMMED):
            self._size.failed(piece.size)
            return False, False
        self._size.succeeded(piece.size)
        return True, self._pace.is_slow(piece.size, time.monotonic() - began)

    # --- trimming, scraping, retrying -------------------------------------------------------------

    def _trim(self) -> None:
        """Read each piece that failed block by block, from its edges to the first bad block."""
        self._phase = TRIMMING
        pos = self._start
        while (area := self._next(NON_TRIMMED, pos, forwards=True)) is not None:
            self._record.stage(area.pos, NON_TRIMMED, 1)
            first, last, pos = area.pos, area.end, area.end
            if self._map.status_at(first - 1) != BAD:
                first = self._trim_edge(first, last, forwards=True)
            if self._map.status_at(last) != BAD:
                last = self._trim_edge(first, last, forwards=False)
            self._record.mark(first, last - first, NON_SCRAPED)

    def _trim_edge(self, first: int, last: int, *, forwards: bool) -> int:
        """Read blocks from one edge up to the first bad one; return the edge of what was not read."""
        block = self._block
        while first < last:
            pos = first if forwards else last - block
            is_good = self._read(pos, block, BAD)
            first, last = (first + block, last) if forwards else (first, last - block)
            if not is_good:
                break
        return first if forwards else last

    def _scrape(self) -> None:
        """Read the rest of what failed, block by block."""
        self._phase = SCRAPING
        pos = self._start
        while (area := self._next(NON_SCRAPED, pos, forwards=True)) is not None:
            self._record.stage(area.pos, NON_SCRAPED, 1)
            self._read(area.pos, self._block, BAD)
            pos = area.pos + self._block

    def _retry(self, retries: int) -> None:
        """Read each bad block once in each pass, while there are any; the direction is reversed after each."""
        self._phase = RETRYING
        stage = self._map.stage
        first = stage.number if stage.status == BAD else 1
        for number in range(first, retries + 1):
            if self._next(BAD, self._start, forwards=True) is None:
                break
            forwards = number % 2 == 1
            pos = self._start if forwards else self._end
            if stage.status == BAD and number == first:
                pos = stage.pos - stage.pos % self._block
            while (area := self._next(BAD, pos, forwards=forwards)) is not None:
                at = area.pos if forwards else area.end - self._block
                pos = at if forwards else area.end
                self._record.stage(pos, BAD, number)
                self._read(at, self._block, BAD)
                pos = at + self._block if forwards else at


def _up(size: int, block_size: int) -> int:
    """Return the size as whole blocks."""
    return -(-size // block_size) * block_size
