"""scsiusb's own ways: one call per command, or a stream; with device memory, or without."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import scsiusb
from benchkit.work import Runner, Slice, Timing, Way, timed
from scsiusb.usb.libusb.backend import LibusbHandle
from tests.kernel.machine import Unit

_disks: dict[Unit, scsiusb.Disk] = {}  # open disks


@contextmanager
def opened(unit: Unit) -> Iterator[scsiusb.Disk]:
    """Open the disk, or yield it if another way has it open: only one can. The way that opened it closes it last."""
    if unit in _disks:
        yield _disks[unit]
        return
    with scsiusb.open(unit.device.wait().address) as disk:
        disk.readinto(0, bytearray(disk.block_size))
        _disks[unit] = disk
        try:
            yield disk
        finally:
            del _disks[unit]


@contextmanager
def read(unit: Unit, size: int) -> Iterator[Runner]:
    """Read by `readinto`, into device memory."""
    with opened(unit) as disk, disk.buffer(size) as buffer:
        yield timed(disk.readinto, buffer)


@contextmanager
def read_ordinary(unit: Unit, size: int) -> Iterator[Runner]:
    """Read by `readinto`, into a bytearray."""
    with opened(unit) as disk:
        yield timed(disk.readinto, bytearray(size))


@contextmanager
def read_stream(unit: Unit, size: int) -> Iterator[Runner]:
    """Read as a stream."""
    with opened(unit) as disk:

        def run(piece: Slice) -> Timing:
            done, began = 0, time.perf_counter()
            with disk.reading(piece.lbas[0], piece.bytes // disk.block_size) as pieces:
                for each in pieces:
                    done += len(each)
            return Timing(done, time.perf_counter() - began)

        yield run


@contextmanager
def write(unit: Unit, size: int) -> Iterator[Runner]:
    """Write from device memory."""
    with opened(unit) as disk, disk.buffer(size) as buffer:
        buffer[:] = os.urandom(size)
        yield timed(disk.write, buffer)


@contextmanager
def write_ordinary(unit: Unit, size: int) -> Iterator[Runner]:
    """Write from bytes."""
    with opened(unit) as disk:
        yield timed(disk.write, os.urandom(size))


@contextmanager
def write_stream(unit: Unit, size: int) -> Iterator[Runner]:
    """Write as a stream."""
    data = os.urandom(size)
    with opened(unit) as disk:

        def run(piece: Slice) -> Timing:
            began = time.perf_counter()
            with disk.writing(piece.lbas[0]) as out:
                for _ in piece.lbas:
                    out.write(data)
            return Timing(piece.bytes, time.perf_counter() - began)

        yield run


def refused(way: Way) -> Way:
    """Return the same way on a system that grants no device memory."""

    @contextmanager
    def opening(unit: Unit, size: int) -> Iterator[Runner]:
        with _no_device_memory(), way(unit, size) as run:
            yield run

    return opening


@contextmanager
def _no_device_memory() -> Iterator[None]:
    allocate = LibusbHandle.allocate
    LibusbHandle.allocate = lambda self, size: memoryview(bytearray(size))  # type: ignore[method-assign]
    try:
        yield
    finally:
        LibusbHandle.allocate = allocate  # type: ignore[method-assign]
