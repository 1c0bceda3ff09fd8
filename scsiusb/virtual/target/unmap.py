"""UNMAP: a task that takes a list of ranges of blocks, which the unit then need not keep (SBC-3 5.28)."""

from __future__ import annotations

import struct
from collections.abc import Callable

from scsiusb.virtual.target.media import Medium
from scsiusb.virtual.target.sense import INVALID_FIELD_IN_PARAMETERS, LBA_OUT_OF_RANGE, Sense, write_error
from scsiusb.virtual.target.task import Direction, Task

MOST_BLOCKS = 1 << 16  # MAXIMUM UNMAP LBA COUNT of the Block Limits page
MOST_RANGES = 16  # MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT

_HEADER = 8  # bytes before the descriptors
_RANGE = struct.Struct(">QI4x")
_PIECE = 1 << 20


class Unmap(Task):
    """A task that unmaps ranges. If `zeros`, their blocks read as zeros from then on; else they keep their content."""

    direction = Direction.OUT

    def __init__(self, medium: Medium, length: int, keep_sense: Callable[[Sense], None], *, zeros: bool) -> None:
        super().__init__()
        self.length = length
        self._medium = medium
        self._keep_sense = keep_sense
        self._zeros = zeros
        self._list = bytearray()

    def write(self, view: memoryview) -> None:
        """See `Task.write`."""
        self._list += view

    def end(self) -> bool:
        """See `Task.end`; nothing is unmapped if a part of the list is wrong."""
        sense = self._check()
        if sense is None:
            try:
                for lba, blocks in self._ranges() if self._zeros else ():
                    self._clear(lba, blocks)
            except OSError:
                sense = write_error(0)
        if sense is not None:
            self._keep_sense(sense)
        return sense is None

    def _ranges(self) -> list[tuple[int, int]]:
        size = int.from_bytes(self._list[2:4], "big")
        whole = bytes(self._list[_HEADER : _HEADER + size])
        return [(lba, blocks) for lba, blocks in _RANGE.iter_unpack(whole[: len(whole) // 16 * 16])]

    def _check(self) -> Sense | None:
        """Return the sense of the first thing that is wrong with the list; None for a good one."""
        if len(self._list) < _HEADER:
            return None  # no descriptor, which is no error
        ranges = self._ranges()
        if len(ranges) > MOST_RANGES or sum(blocks for _, blocks in ranges) > MOST_BLOCKS:
            return INVALID_FIELD_IN_PARAMETERS
        if any(lba + blocks > self._medium.blocks for lba, blocks in ranges):
            return LBA_OUT_OF_RANGE
        return None

    def _clear(self, lba: int, blocks: int) -> None:
        size = self._medium.block_size
        at, end = lba * size, (lba + blocks) * size
        while at < end:
            count = min(_PIECE, end - at)
            self._medium.write(at, memoryview(bytes(count)))
            at += count
