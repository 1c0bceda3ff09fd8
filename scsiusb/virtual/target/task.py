"""Tasks: commands in progress, which produce or consume the data of the data phase (SAM-5)."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from scsiusb.virtual.target.media import BadBlock, Medium
from scsiusb.virtual.target.sense import Sense, miscompare, read_error, write_error


class Direction(Enum):
    """The direction of the data, as seen from the host."""

    NONE = 0
    IN = 1
    OUT = 2


class Task:
    """A command in progress: moves `length` bytes in `direction`, in any number of calls, and then ends.

    This class itself is a command without data; `failed` says that it has failed already.
    """

    direction = Direction.NONE
    length = 0
    takes_less = False
    """The CDB has no length of the data-out, which says its length itself: less than `length` is no error."""

    def __init__(self, failed: bool = False) -> None:
        self.failed = failed

    def read(self, view: memoryview) -> int:
        """Fill `view` with the next bytes, and return how many; fewer than `view` has: the command has failed."""
        return 0

    def write(self, view: memoryview) -> None:
        """Consume the next bytes."""

    def end(self) -> bool:
        """End the command; return True for GOOD, False for CHECK CONDITION, of which the unit keeps the sense."""
        return not self.failed


class Parameters(Task):
    """A task that sends parameter data, truncated to the allocation length in bytes (SPC-4 4.2.5.6)."""

    direction = Direction.IN

    def __init__(self, data: bytes, allocation_length: int) -> None:
        super().__init__()
        self._data = memoryview(data)[:allocation_length]
        self.length = len(self._data)

    def read(self, view: memoryview) -> int:
        """See `Task.read`."""
        piece = self._data[: len(view)]
        view[: len(piece)] = piece
        self._data = self._data[len(piece) :]
        return len(piece)


class _Blocks(Task):
    """A task that moves blocks of a medium, starting at `lba`; `keep_sense` is called with the sense of a failure."""

    def __init__(self, medium: Medium, lba: int, blocks: int, keep_sense: Callable[[Sense], None]) -> None:
        super().__init__()
        self._medium = medium
        self._offset = lba * medium.block_size
        self.length = blocks * medium.block_size
        self._keep_sense = keep_sense

    def _fail(self, sense: Callable[[int], Sense], error: OSError | None = None) -> int:
        """Let the command fail at the block that `error` names; return how many bytes were moved before."""
        moved = error.moved if isinstance(error, BadBlock) else 0
        self._offset += moved
        self.failed = True
        self._keep_sense(sense(self._offset // self._medium.block_size))
        return moved


class Read(_Blocks):
    """A task that reads blocks from the medium directly into the host's buffer."""

    direction = Direction.IN

    def read(self, view: memoryview) -> int:
        """See `Task.read`; a medium that cannot be read makes the command fail."""
        try:
            self._medium.readinto(self._offset, view)
        except OSError as error:
            return self._fail(read_error, error)
        self._offset += len(view)
        return len(view)


class Write(_Blocks):
    """A task that writes blocks from the host to the medium, only whole ones: an incomplete last block is dropped.

    `flush` is the FUA bit: the medium is flushed at the end.
    """

    direction = Direction.OUT

    def __init__(
        self, medium: Medium, lba: int, blocks: int, keep_sense: Callable[[Sense], None], flush: bool = False
    ) -> None:
        super().__init__(medium, lba, blocks, keep_sense)
        self._flush = flush
        self._part = bytearray()

    def write(self, view: memoryview) -> None:
        """See `Task.write`; keeps a part of a block until the rest of it comes."""
        block_size = self._medium.block_size
        if self._part:
            missing = block_size - len(self._part)
            self._part += view[:missing]
            view = view[missing:]
            if len(self._part) == block_size:
                self._store_blocks(memoryview(self._part))
                self._part = bytearray()
        whole = len(view) - len(view) % block_size
        if whole:
            self._store_blocks(view[:whole])
        self._part += view[whole:]

    def _store_blocks(self, view: memoryview) -> None:
        if not self.failed:
            try:
                self._store(view)
            except OSError as error:
                self._fail(write_error, error)

    def _store(self, view: memoryview) -> None:
        self._medium.write(self._offset, view)
        self._offset += len(view)

    def end(self) -> bool:
        """See `Task.end`; flushes the medium if FUA is set."""
        if self._flush and not self.failed:
            try:
                self._medium.flush()
            except OSError:
                self._fail(write_error)
        return not self.failed


class Compare(Write):
    """A task that compares blocks from the host with those on the medium (SBC-3 VERIFY with BYTCHK)."""

    def _store(self, view: memoryview) -> None:
        stored = bytearray(len(view))
        try:
            self._medium.readinto(self._offset, memoryview(stored))
        except OSError as error:
            self._fail(read_error, error)
            return
        if stored != bytes(view):
            self._offset += _first_difference(stored, bytes(view))
            self._fail(miscompare)
        self._offset += len(view)


def _first_difference(one: bytes | bytearray, other: bytes) -> int:
    """Return the index of the first byte that differs, by binary search: far quicker than a loop over the bytes."""
    start, end = 0, len(other)
    while end - start > 1:
        middle = (start + end) // 2
        start, end = (start, middle) if one[start:middle] != other[start:middle] else (middle, end)
    return start
