"""The soak: many commands to an open disk, then many openings; what the process holds must not grow."""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from typing import Any

import scsiusb
from campaigns.footprint import Footprint, changes, footprint, growth, one_heap, trend
from campaigns.report import Report
from scsiusb.scsi.commands.spc import Inquiry, TestUnitReady

REFERENCE = 2048  # blocks that are compared with the first read
SAMPLES = 10


def run(options: argparse.Namespace, report: Report) -> None:
    """Run the commands and the openings."""
    one_heap()
    soak = Soak(options.device or _lab_stick(), random.Random(options.seed), report)
    with scsiusb.open(soak.device) as disk:
        soak.reference = disk.read(0, min(REFERENCE, disk.blocks))
        soak.block_size = disk.block_size
        grown = soak.sample("commands", options.commands, lambda: soak.command(disk))
    grown = max(grown, soak.sample("openings", options.opens, soak.opening))
    report.words += [f"{options.commands} commands", f"{options.opens} openings", f"memory {grown:+} KiB"]
    report.summary |= {"device": soak.device, "memory_trend_kib": grown}


class Soak:
    """Uses a device until the next sample is due."""

    def __init__(self, device: str, choice: random.Random, report: Report) -> None:
        self.device = device
        self.reference = b""
        self.block_size = 0
        self._choice = choice
        self._report = report

    def command(self, disk: scsiusb.Disk) -> None:
        """Run a random command: mostly reads, small or large, otherwise TEST UNIT READY or INQUIRY."""
        kind = self._choice.random()
        if kind < 0.2:
            disk.execute(TestUnitReady())
        elif kind < 0.3:
            disk.execute(Inquiry(length=36))
        else:
            self._read(disk, self._choice.choice((1, 1, 2, 8, 8, 64)) if kind < 0.995 else self._blocks)

    def opening(self) -> None:
        """Open the device, read, close it."""
        with scsiusb.open(self.device) as disk:
            self._read(disk, self._choice.choice((1, 8, 64)))

    def sample(self, what: str, number: int, do: Callable[[], None]) -> int:
        """Call `do` so many times; return the growth of memory in KiB."""
        began = time.monotonic()
        samples: list[Footprint] = []
        for part in range(SAMPLES):
            for _ in range(number * part // SAMPLES, number * (part + 1) // SAMPLES):
                do()
            samples.append(footprint(samples[0] if samples else None))
            self._report_sample(what, number * (part + 1) // SAMPLES, samples)
        self._report.summary[what] = {"number": number, "seconds": round(time.monotonic() - began, 1)}
        self._report.faults += [f"{what}: {fault}" for fault in growth(samples)]
        return trend(samples)

    def _report_sample(self, what: str, done: int, samples: list[Footprint]) -> None:
        faults = [f"after {done} {what}: {fault}" for fault in changes(samples[0], samples[-1])]
        facts: dict[str, Any] = {"what": what, "done": done, **samples[-1].as_json()}
        self._report.line(faults, **facts)

    @property
    def _blocks(self) -> int:
        return len(self.reference) // self.block_size

    def _read(self, disk: scsiusb.Disk, blocks: int) -> None:
        blocks = min(blocks, self._blocks)
        lba = self._choice.randrange(self._blocks - blocks + 1)
        expected = self.reference[lba * self.block_size : (lba + blocks) * self.block_size]
        if disk.read(lba, blocks) != expected:
            self._report.faults.append(f"wrong data: {blocks} blocks at LBA {lba}")


def _lab_stick() -> str:
    from tests.kernel.machine import zoo

    return zoo()["stick"].wait().address
