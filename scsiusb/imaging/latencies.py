"""What a scan has found so far, in bounded memory: how long commands took, by region, and which blocks are bad."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from scsiusb.disk.speed import Latency
from scsiusb.imaging.readback import BlockRange, Ranges

MOST_REGIONS: Final = 4096
MOST_LATE: Final = 20_000  # commands that may turn out to be slow
PER_OCTAVE: Final = 16  # buckets; so a percentile is right to about 4 %
UNIT: Final = 1e-6  # seconds, of bucket 0
LATE: Final = 0.1  # seconds; no command below is slow
FACTOR: Final = 10  # by which a slow command takes longer than the median


class Region(NamedTuple):
    """Blocks next to each other, and how the commands on them went."""

    lba: int
    blocks: int
    commands: int
    """Those that succeeded; the next two figures are of them."""
    mean: float
    """Seconds."""
    slowest: float
    """Seconds; 0.0 if no command succeeded."""
    bad: int
    """Blocks that are bad."""


class Late(NamedTuple):
    """A command that took long."""

    lba: int
    blocks: int
    seconds: float


class Findings:
    """What is found in a range of blocks. New observations are pending until `take`, which a journal keeps."""

    def __init__(self, lba: int, blocks: int, step: int) -> None:
        """Divide the range into regions of whole commands of `step` blocks."""
        self.lba, self.blocks = lba, blocks
        self._region = max(-(-blocks // MOST_REGIONS) + step - 1, step) // step * step
        self._buckets: Counter[int] = Counter()
        self._times: dict[int, tuple[int, float, float]] = {}
        self._late: list[Late] = []
        self._longest = 0.0
        self._bad: list[Ranges] = []
        self._new_buckets: Counter[int] = Counter()
        self._new_times: dict[int, tuple[int, float, float]] = {}
        self._new_late: list[Late] = []
        self._new_bad: list[BlockRange] = []

    # --- observing ----------------------------------------------------------------------------------

    def note(self, lba: int, blocks: int, seconds: float) -> None:
        """Note a command that succeeded."""
        self._new_buckets[max(math.floor(math.log2(max(seconds, UNIT) / UNIT) * PER_OCTAVE), 0)] += 1
        region = (lba - self.lba) // self._region
        self._new_times[region] = _joined(self._new_times.get(region, (0, 0.0, 0.0)), (1, seconds, seconds))
        if seconds > LATE:
            self._new_late.append(Late(lba, blocks, seconds))

    def note_bad(self, lba: int, blocks: int = 1) -> None:
        """Note bad blocks; within a pass they come in order."""
        last = self._new_bad[-1] if self._new_bad else None
        if last is not None and last.lba + last.blocks == lba:
            self._new_bad[-1] = BlockRange(last.lba, last.blocks + blocks)
        else:
            self._new_bad.append(BlockRange(lba, blocks))

    def take(self, number: int) -> dict[str, Any]:
        """Add what is pending, of the pass of that number, to the rest, and return it for a journal."""
        record = {
            "pass": number,
            "buckets": list(self._new_buckets.items()),
            "times": [[region, *times] for region, times in self._new_times.items()],
            "late": self._new_late,
            "bad": self._new_bad,
        }
        self.add(record)
        self._new_buckets, self._new_times, self._new_late, self._new_bad = Counter(), {}, [], []
        return {name: value for name, value in record.items() if value or name == "pass"}

    def add(self, record: dict[str, Any]) -> None:
        """Add what `take` returned. Raise KeyError, TypeError, ValueError for anything else."""
        for bucket, count in record.get("buckets", ()):
            self._buckets[int(bucket)] += int(count)
        for region, count, total, slowest in record.get("times", ()):
            known = self._times.get(int(region), (0, 0.0, 0.0))
            self._times[int(region)] = _joined(known, (int(count), float(total), float(slowest)))
            self._longest = max(self._longest, float(slowest))
        for lba, blocks, seconds in record.get("late", ()):
            self._late.append(Late(int(lba), int(blocks), float(seconds)))
        if len(self._late) > MOST_LATE:
            self._forget_early()
        while len(self._bad) <= int(record["pass"]):
            self._bad.append(Ranges())
        for lba, blocks in record.get("bad", ()):
            self._bad[int(record["pass"])].add(int(lba), int(blocks))

    def _forget_early(self) -> None:
        """Keep the commands that are slow by what is known now, and of them at most half of MOST_LATE."""
        slow = [late for late in self._late if late.seconds > self.limit]
        slow.sort(key=lambda late: late.seconds, reverse=True)
        self._late = slow[: MOST_LATE // 2]

    # --- results ------------------------------------------------------------------------------------

    @property
    def latency(self) -> Latency:
        """The latency of the commands that succeeded; zeros if none did."""
        return Latency(self._percentile(0.5), self._percentile(0.99), self._longest)

    def _percentile(self, part: float) -> float:
        left = math.ceil(self._buckets.total() * part)
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left <= 0:
                return min(UNIT * 2 ** ((bucket + 0.5) / PER_OCTAVE), self._longest)
        return 0.0

    @property
    def limit(self) -> float:
        """The seconds above which a command is slow: 10 times the median, and 0.1 s."""
        return max(LATE, FACTOR * self._percentile(0.5))

    @property
    def slow(self) -> tuple[BlockRange, ...]:
        """The blocks of the commands that were slow."""
        limit = self.limit
        return union(BlockRange(late.lba, late.blocks) for late in self._late if late.seconds > limit)

    @property
    def bad(self) -> tuple[BlockRange, ...]:
        """The blocks that were bad in any pass."""
        return union(each for ranges in self._bad for each in ranges)

    def regions(self) -> tuple[Region, ...]:
        """Return all regions, in order."""
        bad = list(self.bad)
        found = []
        for number in range(-(-self.blocks // self._region)):
            lba = self.lba + number * self._region
            blocks = min(self._region, self.lba + self.blocks - lba)
            count, total, slowest = self._times.get(number, (0, 0.0, 0.0))
            wrong = 0
            while bad and bad[0].lba < lba + blocks:
                end = bad[0].lba + bad[0].blocks
                wrong += min(end, lba + blocks) - max(bad[0].lba, lba)
                if end > lba + blocks:
                    break
                del bad[0]
            found.append(Region(lba, blocks, count, total / count if count else 0.0, slowest, wrong))
        return tuple(found)


def union(ranges: Iterable[BlockRange]) -> tuple[BlockRange, ...]:
    """Return the blocks of all ranges, in order, each once."""
    found: list[BlockRange] = []
    for lba, blocks in sorted(ranges):
        if found and lba <= found[-1].lba + found[-1].blocks:
            last = found[-1]
            found[-1] = BlockRange(last.lba, max(last.blocks, lba + blocks - last.lba))
        else:
            found.append(BlockRange(lba, blocks))
    return tuple(found)


def _joined(one: tuple[int, float, float], other: tuple[int, float, float]) -> tuple[int, float, float]:
    return one[0] + other[0], one[1] + other[1], max(one[2], other[2])
