"""Tasks: what a decoded command wants moved, and the moving of it (SAM-5)."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from scsiusb.virtual.target.media import Medium
from scsiusb.virtual.target.sense import Sense, miscompare, read_error, write_error


class Direction(Enum):
    """As the host sees it."""

    NONE = 0
    IN = 1
    OUT = 2


class Task:
    """A command in progress: moves `length` bytes in `direction`, piece by piece, then ends."""

    direction = Direction.NONE
    length = 0

    def __init__(self, failed: bool = False) -> None:
        self.failed = failed

    def read(self, view: memoryview) -> int:
        """Puts the next bytes into `view`; fewer than asked means that the command has failed."""
        return 0

    def write(self, view: memoryview) -> None:
        """Takes the next bytes."""

    def end(self) -> bool:
        """True: GOOD; False: CHECK CONDITION, and the unit keeps the sense."""
        return not self.failed


class Parameters(Task):
    """Parameter data, cut at the allocation length (SPC-4 4.2.5.6)."""

    direction = Direction.IN

    def __init__(self, data: bytes, allocation_length: int) -> None:
        super().__init__()
        self._data = memoryview(data)[:allocation_length]
        self.length = len(self._data)

    def read(self, view: memoryview) -> int:
        piece = self._data[: len(view)]
        view[: len(piece)] = piece
        self._data = self._data[len(piece) :]
        return len(piece)


class _Blocks(Task):
    """Moves the blocks of a medium, beginning at `lba`."""

    def __init__(self, medium: Medium, lba: int, blocks: int, fail: Callable[[Sense], None]) -> None:
        super().__init__()
        self._medium = medium
        self._offset = lba * medium.block_size
        self.length = blocks * medium.block_size
        self._keep = fail

    def _fail(self, sense: Callable[[int], Sense]) -> None:
        self.failed = True
        self._keep(sense(self._offset // self._medium.block_size))


class Read(_Blocks):
    """Blocks from the medium to the host, straight into the host's buffer."""

    direction = Direction.IN

    def read(self, view: memoryview) -> int:
        try:
            self._medium.readinto(self._offset, view)
        except OSError:
            self._fail(read_error)
            return 0
        self._offset += len(view)
        return len(view)


class Write(_Blocks):
    """Blocks from the host to the medium, whole ones only: what is cut off in mid-block is lost."""

    direction = Direction.OUT

    def __init__(
        self, medium: Medium, lba: int, blocks: int, fail: Callable[[Sense], None], flush: bool = False
    ) -> None:
        super().__init__(medium, lba, blocks, fail)
        self._flush = flush
        self._part = bytearray()

    def write(self, view: memoryview) -> None:
        block_size = self._medium.block_size
        if self._part:
            missing = block_size - len(self._part)
            self._part += view[:missing]
            view = view[missing:]
            if len(self._part) == block_size:
                self._put(memoryview(self._part))
                self._part = bytearray()
        whole = len(view) - len(view) % block_size
        if whole:
            self._put(view[:whole])
        self._part += view[whole:]

    def _put(self, view: memoryview) -> None:
        if not self.failed:
            try:
                self._store(view)
            except OSError:
                self._fail(write_error)

    def _store(self, view: memoryview) -> None:
        self._medium.write(self._offset, view)
        self._offset += len(view)

    def end(self) -> bool:
        if self._flush and not self.failed:
            try:
                self._medium.flush()
            except OSError:
                self._fail(write_error)
        return not self.failed


class Compare(Write):
    """Blocks from the host, compared with the medium's (SBC-3 VERIFY with BYTCHK)."""

    def _store(self, view: memoryview) -> None:
        there = bytearray(len(view))
        try:
            self._medium.readinto(self._offset, memoryview(there))
        except OSError:
            self._fail(read_error)
            return
        if there != bytes(view):
            self._offset += _first_difference(there, bytes(view))
            self._fail(miscompare)
        self._offset += len(view)


def _first_difference(one: bytes | bytearray, other: bytes) -> int:
    """Halves the range until one byte is left."""
    start, end = 0, len(other)
    while end - start > 1:
        middle = (start + end) // 2
        start, end = (start, middle) if one[start:middle] != other[start:middle] else (middle, end)
    return start
