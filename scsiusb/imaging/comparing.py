"""Compare: finds the blocks of a disk that differ from an image or from another disk."""

from __future__ import annotations

import os
import time
from typing import Literal

from scsiusb.base.dataclass import dataclass
from scsiusb.disk.disk import Disk
from scsiusb.imaging.arguments import check_job
from scsiusb.imaging.events import COMPARING, OnProgress, Progress, ignore
from scsiusb.imaging.readback import BlockRange, Ranges, differing
from scsiusb.imaging.restoring import mapped
from scsiusb.imaging.sources import DiskSource, ImageSource, Source, in_blocks, too_large


@dataclass(frozen=True)
class Comparison:
    """How a disk differs from something else."""

    size: int
    """Bytes that were compared."""
    differences: tuple[BlockRange, ...]
    """In blocks of the disk."""
    seconds: float
    left_out: int = 0
    """Bytes of the image that were not compared, as its block map does not list them, or it has no data for them."""

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return not self.differences


def compare(
    source: str | os.PathLike[str] | Disk,
    disk: Disk,
    *,
    bmap: str | os.PathLike[str] | Literal[False] | None = None,
    progress: OnProgress = ignore,
) -> Comparison:
    """Compare an image file of any format, or another disk, with the blocks of `disk` from LBA 0 on.

    What the disk has after the end of the image does not count, nor what a block map leaves out; `bmap` is as for
    `restore`. Raise OutOfRange if the image is larger than the disk, ImageError, OSError, and as `Disk.readinto`.
    """
    check_job(progress, disk)
    if isinstance(source, Disk):
        return compare_with(DiskSource(source), disk, progress)
    with ImageSource(source) as image:
        return compare_with(mapped(image, bmap), disk, progress)


def compare_with(source: Source, disk: Disk, progress: OnProgress) -> Comparison:
    """Do as `compare`, with any source."""
    began, done, size = time.monotonic(), 0, disk.block_size
    if source.least > disk.size:
        raise too_large(source, disk)
    medium, ranges = disk.medium(), Ranges()
    for offset, data in in_blocks(source.extents(), size):
        first, last = offset // size, -(-(offset + len(data)) // size)
        if last > disk.blocks:
            raise too_large(source, disk)
        found = memoryview(bytearray((last - first) * size))
        disk.read_from(medium, first, found)
        for block in differing(found[offset % size :], memoryview(data), size):
            ranges.add(first + block, 1)
        done += len(data)
        progress(Progress(COMPARING, offset + len(data), source.length))
    left_out = 0 if source.length is None else max(source.length - done, 0)
    return Comparison(done, tuple(ranges), time.monotonic() - began, left_out)
