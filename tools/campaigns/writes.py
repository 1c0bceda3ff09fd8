"""The write campaign: the content of a stick that fails in every phase of writing and loses its cache at resets."""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

from campaigns.faults import STAGES, Witness
from campaigns.report import Report
from campaigns.scenarios import ANY, CASES, PHASES, RECOVERY, SENSES, Scenario
from campaigns.stages import BLOCK, Disk, Failed, Stage
from scsiusb.virtual import Identity, Memory, Unit

BLOCKS: Final = 512
MOST: Final = 24  # blocks of a write at most
WRITE_10: Final = "2A"
SYNCHRONIZE_CACHE: Final = "35"
FLUSHES: Final = 0.5  # share of the writes that are followed by a flush
UNFAULTED: Final = 0.1  # share of the writes without a fault
CHOICES: Final = tuple(each for each in (*PHASES, *SENSES, *CASES, *RECOVERY) if "late" not in each.name)


class Cached(Memory):
    """Keeps what is written in a cache until it is flushed; a reset empties the cache."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.cache: dict[int, bytes] = {}

    def _readinto(self, offset: int, view: memoryview) -> None:
        super()._readinto(offset, view)
        for at in range(0, len(view), BLOCK):
            cached = self.cache.get((offset + at) // BLOCK)
            if cached is not None:
                view[at : at + BLOCK] = cached

    def _write(self, offset: int, view: memoryview) -> None:
        for at in range(0, len(view), BLOCK):
            self.cache[(offset + at) // BLOCK] = bytes(view[at : at + BLOCK])

    def flush(self) -> None:
        """Move the cache to the medium."""
        super().flush()
        for lba, block in self.cache.items():
            super()._write(lba * BLOCK, memoryview(block))
        self.cache.clear()

    def block(self, lba: int) -> bytes:
        """Return a block as it is on the medium."""
        return bytes(self.data[lba * BLOCK : (lba + 1) * BLOCK])


class Forgetful(Witness):
    """Loses its cache in a port reset, and reports that by a unit attention, as it must."""

    medium: Cached

    def power_on(self) -> None:
        """Empty the cache."""
        if hasattr(self, "medium"):
            self.medium.cache.clear()
        super().power_on()


class Journal:
    """What each block may hold: its known content, and all that may have been written to it since."""

    def __init__(self, medium: Cached) -> None:
        self._medium = medium
        self._may_be: list[list[bytes]] = [[medium.block(lba)] for lba in range(BLOCKS)]
        self._acknowledged: dict[int, bytes] = {}

    def write(self, lba: int, data: bytes, *, good: bool) -> None:
        """Record a write that was reported as good, or failed."""
        for at in range(0, len(data), BLOCK):
            block = data[at : at + BLOCK]
            self._may_be[lba + at // BLOCK].append(block)
            if good:
                self._acknowledged[lba + at // BLOCK] = block
            else:
                self._acknowledged.pop(lba + at // BLOCK, None)

    def flush(self, *, good: bool) -> list[str]:
        """Return what is wrong on the medium after a flush; after a good one, each block has one known content."""
        must = self._acknowledged if good else {}
        wrong = [
            f"LBA {lba}: reported as written and flushed, but not on the medium" for lba in must if self._lost(lba)
        ]
        for lba, may_be in enumerate(self._may_be):
            if self._medium.block(lba) not in may_be:
                wrong.append(f"LBA {lba}: neither the old nor the new block")
            if good:
                self._may_be[lba] = [self._medium.block(lba)]
        self._acknowledged = {}
        return wrong

    def _lost(self, lba: int) -> bool:
        return self._medium.block(lba) != self._acknowledged[lba]


def run(options: argparse.Namespace, report: Report) -> None:
    """Write `options.writes` times."""
    campaign = Campaign(STAGES[options.stage](options.timeout), random.Random(options.seed))
    with campaign:
        for number in range(options.writes):
            facts = campaign.write()
            report.line(facts.pop("wrong"), number=number, stage=options.stage, **facts)
    outcomes = dict(campaign.outcomes)
    report.summary = {"stage": options.stage, "writes": options.writes, "faults_met": campaign.met, "ends": outcomes}
    good = campaign.outcomes["good"]
    report.words = [options.stage, f"{options.writes} writes", f"{campaign.met} with a fault", f"{good} good"]


class Campaign:
    """One stick, plugged in again after it has left the bus."""

    def __init__(self, stage: Stage, source: random.Random) -> None:
        self._stage, self._source = stage, source
        self._medium = Cached(source.randbytes(BLOCKS * BLOCK))
        self._journal = Journal(self._medium)
        self._plugged = ExitStack()
        self._disk: Disk | None = None
        self.outcomes: Counter[str] = Counter()
        self.met = 0

    def __enter__(self) -> Campaign:
        return self

    def __exit__(self, *error: object) -> None:
        self._unplug()

    def write(self) -> dict[str, Any]:
        """Write once, perhaps flush, with or without a fault; return the facts."""
        source = self._source
        disk = self._disk or self._plug()
        scenario = source.choice(CHOICES)
        lba, data = source.randrange(BLOCKS - MOST), source.randbytes(source.randint(1, MOST) * BLOCK)
        fired = len(self._stick.faults.fired)
        if source.random() > UNFAULTED:
            self._arm(scenario, source.choice((WRITE_10, WRITE_10, SYNCHRONIZE_CACHE)))
        outcome = _outcome(lambda: disk.disk.write(lba, data))
        self._journal.write(lba, data, good=outcome == "good")
        flushed, wrong = "", []
        if source.random() < FLUSHES:
            flushed = _outcome(disk.disk.flush)
            wrong = self._journal.flush(good=flushed == "good")
        self.met += len(self._stick.faults.fired) > fired
        self.outcomes[outcome] += 1
        if "DeviceGone" in (outcome, flushed):
            self._unplug()
        else:
            self._disarm()
        return {"scenario": scenario.name, "write": outcome, "flush": flushed, "wrong": wrong}

    def _plug(self) -> Disk:
        identity = Identity(serial=f"W{self._source.randrange(16**11):011X}")
        self._stick = Forgetful([Unit(self._medium)], identity)
        self._stick.medium = self._medium
        open_target = self._plugged.enter_context(self._stage.plugged(self._stick))
        target = open_target()
        assert isinstance(target, Disk)
        self._disk = target
        return target

    def _arm(self, scenario: Scenario, opcode: str) -> None:
        for fault in scenario.faults:
            self._stick.faults.add(fault.replace(ANY, opcode))

    def _disarm(self) -> None:
        self._stick.faults.clear()

    def _unplug(self) -> None:
        if self._disk is not None:
            self._disk.close()
            self._disk = None
            self._plugged.close()
            self._journal.flush(good=False)


def _outcome(action: Callable[[], object]) -> str:
    try:
        Disk.do(action)
    except Failed as error:
        return str(error)
    return "good"
