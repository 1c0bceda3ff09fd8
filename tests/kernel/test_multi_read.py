"""Many streams in one thread, on a real kernel: every byte, leaving early, and an unplug during the reads."""

from __future__ import annotations

import threading
from collections import defaultdict
from contextlib import ExitStack

import pytest

import scsiusb
from scsiusb import read_many

from .machine import Unit, zoo
from .plugging import plug, unplug

NAMES = ("stick", "scratch", "stick-4k", "gadget-high", "gadget-super")
MOST = 8 << 20  # bytes read from each device


def first_units() -> list[Unit]:
    return [zoo()[name].units[0] for name in NAMES]


def opened(units: list[Unit], stack: ExitStack) -> list[scsiusb.Disk]:
    return [stack.enter_context(scsiusb.open(unit.device.wait().address)) for unit in units]


def test_every_byte_of_each_stream_is_delivered_in_order_in_one_thread() -> None:
    units = first_units()
    with ExitStack() as stack:
        disks = opened(units, stack)
        amounts = [min(disk.blocks, MOST // disk.block_size) for disk in disks]
        received: dict[scsiusb.Disk, bytearray] = defaultdict(bytearray)
        threads = threading.active_count()
        with read_many(*(disk.reading(0, blocks) for disk, blocks in zip(disks, amounts, strict=True))) as parts:
            assert threading.active_count() == threads
            for part in parts:
                assert part.error is None
                received[part.reading.disk] += part.piece
        for unit, disk, blocks in zip(units, disks, amounts, strict=True):
            assert received[disk] == unit.backing(0, blocks), unit


@pytest.mark.parametrize("parts_before", [1, 7])
def test_each_disk_is_usable_after_leaving_early(parts_before: int) -> None:
    units = first_units()
    with ExitStack() as stack:
        disks = opened(units, stack)
        with read_many(*(disk.reading(0, disk.blocks) for disk in disks)) as parts:
            for _ in range(parts_before):
                next(parts)
        for unit, disk in zip(units, disks, strict=True):
            assert disk.read(5, 3) == unit.backing(5, 3)
            assert disk.unit.transport.resets.count == 0


def test_an_unplug_ends_only_its_stream() -> None:
    gone, *others = units = [zoo()[name].units[0] for name in ("scratch", "stick", "gadget-super")]
    try:
        with ExitStack() as stack:
            disks = opened(units, stack)
            errors: dict[scsiusb.Disk, scsiusb.ScsiUsbError] = {}
            received: dict[scsiusb.Disk, int] = defaultdict(int)
            with read_many(*(disk.reading(0, min(disk.blocks, 16384)) for disk in disks)) as parts:
                next(parts)
                unplug(gone.device)
                for part in parts:
                    received[part.reading.disk] += len(part.piece)
                    if part.error is not None:
                        errors[part.reading.disk] = part.error
            assert list(errors) == [disks[0]]
            assert isinstance(errors[disks[0]], scsiusb.DeviceGone)
            for unit, disk in zip(others, disks[1:], strict=True):
                assert received[disk] >= (min(disk.blocks, 16384) - disk.max_blocks) * unit.block_size
    finally:
        plug(gone.device)
        gone.device.wait()
