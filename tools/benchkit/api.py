"""scsiusb's own ways: one call a command, or streaming; with device memory, or with none to be had."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import scsiusb
from benchkit.work import Timing, Work, timed
from scsiusb.usb.libusb import LibusbHandle

SETTLING = 2.0  # seconds: the warden, a Python of its own, starts slowly under emulation


@contextmanager
def opened(work: Work) -> Iterator[scsiusb.Disk]:
    device = work.unit.device.wait()
    with scsiusb.open(device.address) as disk:
        disk.readinto(0, bytearray(disk.block_size))
        time.sleep(SETTLING)
        yield disk


def read(work: Work) -> Timing:
    with opened(work) as disk, disk.buffer(work.size) as buffer:
        return timed(work, disk.readinto, buffer)


def read_ordinary(work: Work) -> Timing:
    with opened(work) as disk:
        return timed(work, disk.readinto, bytearray(work.size))


def read_stream(work: Work) -> Timing:
    with opened(work) as disk:
        blocks, done = work.blocks, 0
        began = time.perf_counter()
        with disk.reading(work.lbas[0], blocks) as pieces:
            for piece in pieces:
                done += len(piece)
        return Timing(done, time.perf_counter() - began)


def write(work: Work) -> Timing:
    with opened(work) as disk, disk.buffer(work.size) as buffer:
        buffer[:] = os.urandom(work.size)
        return timed(work, disk.write, buffer)


def write_ordinary(work: Work) -> Timing:
    with opened(work) as disk:
        return timed(work, disk.write, os.urandom(work.size))


def write_stream(work: Work) -> Timing:
    data = os.urandom(work.size)
    with opened(work) as disk:
        began = time.perf_counter()
        with disk.writing(work.lbas[0]) as out:
            for _ in work.lbas:
                out.write(data)
        return Timing(work.bytes, time.perf_counter() - began)


def refused(way: Callable[[Work], Timing]) -> Callable[[Work], Timing]:
    """The same way on a system that grants no device memory."""

    def run(work: Work) -> Timing:
        with _no_device_memory():
            return way(work)

    return run


@contextmanager
def _no_device_memory() -> Iterator[None]:
    allocate = LibusbHandle.allocate
    LibusbHandle.allocate = lambda self, size: memoryview(bytearray(size))  # type: ignore[method-assign]
    try:
        yield
    finally:
        LibusbHandle.allocate = allocate  # type: ignore[method-assign]
