"""Reads blocks from the medium, past the device's cache, and finds those that differ from what they should be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

from scsiusb.disk.disk import Disk
from scsiusb.disk.medium import Medium
from scsiusb.errors import CheckCondition, DeviceGone, MalformedReply, MediumChanged, TransportError
from scsiusb.imaging.identity import DiskIdentity

MOST_RANGES = 10_000  # of a result; a medium on which nothing is right has two or three


class BlockRange(NamedTuple):
    """Blocks next to each other."""

    lba: int
    blocks: int


class Ranges:
    """Collects blocks into ranges; blocks come in order."""

    def __init__(self) -> None:
        self._ranges: list[BlockRange] = []
        self.blocks = 0
        """The number of blocks in all."""

    def add(self, lba: int, blocks: int) -> None:
        """Add blocks; after MOST_RANGES ranges, gaps between them count as blocks, too."""
        self.blocks += blocks
        if self._ranges:
            last = self._ranges[-1]
            if last.lba + last.blocks == lba or len(self._ranges) >= MOST_RANGES:
                self._ranges[-1] = BlockRange(last.lba, lba + blocks - last.lba)
                return
        self._ranges.append(BlockRange(lba, blocks))

    def __iter__(self) -> Iterator[BlockRange]:
        return iter(self._ranges)

    def __bool__(self) -> bool:
        return bool(self._ranges)


def differing(found: memoryview, wanted: memoryview, block_size: int) -> Iterable[int]:
    """Return the numbers of the blocks that differ; the last block of `wanted` may be cut off."""
    if bytes(found[: len(wanted)]) == bytes(wanted):
        return ()
    return [
        at // block_size
        for at in range(0, len(wanted), block_size)
        if bytes(found[at : min(at + block_size, len(wanted))]) != bytes(wanted[at : at + block_size])
    ]


def empty_cache(disk: Disk) -> None:
    """Make the next reads come from the medium: flush, then reset the device at its port.

    A device may answer reads from its cache, which then hides that a block was not written. Raise as `Disk.flush`.
    """
    disk.flush()
    disk.unit.transport.reset_port()


def leave_cache(disk: Disk) -> bool:
    """Empty the cache. Return whether the unit also supports reads that must not come from it (`Disk.read_past_cache`).

    For such a unit, a port that cannot be reset does not matter. Raise as `Disk.flush`.
    """
    try:
        empty_cache(disk)
    except DeviceGone:
        raise
    except TransportError as error:
        if not _has_fua(disk):
            error.remedy = "verify without that (--verify read), which the device may answer from its cache"
            raise
        return True
    return _has_fua(disk)


def _has_fua(disk: Disk) -> bool:
    """Return whether the unit supports reads that must not come from its cache (DPOFUA, SBC-3 6.4.1)."""
    try:
        return disk.unit.mode_sense().dpo_fua
    except (CheckCondition, MalformedReply):
        return False


Read = Callable[[Medium, int, memoryview], int]


def medium_reader(disk: Disk, known: DiskIdentity) -> tuple[Medium, Read]:
    """Do as `leave_cache`; return the medium, taken anew, and what reads it: past the cache where that is supported.

    After the reset the medium may count as another one; if it is another one, what is read from it shows that.
    Raise DeviceMismatch if the device is not the known one, and as `Disk.flush`.
    """
    has_fua = leave_cache(disk)
    with suppress(MediumChanged):
        disk.read(0, 1)
    DiskIdentity.of(disk).check(known.record())
    return disk.medium(), disk.read_past_cache if has_fua else disk.read_from
