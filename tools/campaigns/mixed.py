"""The mixed campaign: random reads and writes, several in flight where the device takes them, against a model."""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter

import scsiusb
from campaigns.report import Report
from tests.kernel.machine import zoo

if sys.platform != "linux":
    raise ImportError("this campaign runs on Linux only")

BLOCK = 512
TOGETHER = 64  # reads that are given to `read_many` at once
SIZES = (1, 1, 2, 8, 8, 8, 63, 64, 256)  # blocks of a read, or of a small write
LARGE = (300, 1000, 2048)  # blocks of a write that is divided into commands in flight
LARGE_PART = 0.1  # of the writes


def run(options: argparse.Namespace, report: Report) -> None:
    """Run the operations; compare each read, and at the end the whole disk."""
    device = zoo()[options.on].wait()
    unit, choice = device.units[0], random.Random(options.seed)
    model = bytearray(unit.backing(0, unit.blocks))
    pool = choice.randbytes(len(model))
    done: Counter[str] = Counter()
    began = time.monotonic()
    with scsiusb.open(device.address, transport=options.transport) as disk:
        report.summary |= {"protocol": disk.unit.transport.info.protocol, "depth": disk.unit.transport.depth}
        while done.total() < options.operations and not report.faults:
            if choice.random() < 0.5:
                _read(disk, model, choice, report)
                done["reads"] += TOGETHER
            else:
                for _ in range(TOGETHER):
                    _write(disk, model, pool, choice)
                done["writes"] += TOGETHER
            if done.total() % (TOGETHER * 100) == 0:
                report.line(done=done.total())
        disk.flush()
    device.wait()
    if unit.backing(0, unit.blocks) != model:
        report.faults.append("the medium differs from the model")
    report.summary |= {"operations": done, "seconds_of_work": round(time.monotonic() - began, 1)}
    report.words += [f"{done['reads']} reads", f"{done['writes']} writes", f"depth {report.summary['depth']}"]


def _read(disk: scsiusb.Disk, model: bytearray, choice: random.Random, report: Report) -> None:
    requests = [(choice.randrange(disk.blocks - max(SIZES)), choice.choice(SIZES)) for _ in range(TOGETHER)]
    for number, data in disk.read_many(requests):
        lba, blocks = requests[number]
        if data != model[lba * BLOCK : (lba + blocks) * BLOCK]:
            report.faults.append(f"wrong data: {blocks} blocks at LBA {lba}")


def _write(disk: scsiusb.Disk, model: bytearray, pool: bytes, choice: random.Random) -> None:
    blocks = choice.choice(LARGE if choice.random() < LARGE_PART else SIZES)
    lba = choice.randrange(disk.blocks - blocks)
    at = choice.randrange(len(pool) - blocks * BLOCK)
    data = pool[at : at + blocks * BLOCK]
    disk.write(lba, data)
    model[lba * BLOCK : (lba + blocks) * BLOCK] = data
