"""Sticks for the tests of the jobs, with contents of which some are random, some zeros, some repeated."""

from __future__ import annotations

import random

from scsiusb.imaging import Progress
from scsiusb.virtual import Bus, Memory, Stick, Unit
from scsiusb.virtual.device.descriptors import Identity


def contents(seed: int = 1, size: int = 256 * 1024) -> bytearray:
    """Return the bytes of a stick."""
    chance = random.Random(seed)
    parts = [chance.randbytes(size // 4), bytes(size // 4), b"scsi" * (size // 16)]
    return bytearray(b"".join(parts).ljust(size, b"\x55"))


def stick(data: bytearray, serial: str = "DUMP0001") -> Stick:
    """Return a stick with the bytes `data`, which writes change."""
    return Stick([Unit(Memory(data))], identity=Identity(serial=serial))


def plug(data: bytearray, serial: str = "DUMP0001") -> Bus:
    """Return a bus with one stick."""
    return Bus(stick(data, serial))


class Stop(Exception):
    """Ends a job in the middle."""


class StopAt:
    """A `progress` that ends a job in a phase, after so many bytes."""

    def __init__(self, phase: str, done: int) -> None:
        self._phase, self._done = phase, done

    def __call__(self, progress: Progress) -> None:
        if progress.phase == self._phase and progress.done >= self._done:
            raise Stop
