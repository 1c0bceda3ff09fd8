"""The blocks of a disk that a probe marks: written, read back from the medium, and given back at the end."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final, TypeVar

from scsiusb.disk.disk import Disk
from scsiusb.disk.medium import Medium
from scsiusb.errors import (
    AbortedCommand,
    BlankCheck,
    Cancelled,
    DeviceBusy,
    DeviceClosed,
    DeviceGone,
    DeviceTimeout,
    HardwareError,
    IllegalRequest,
    MalformedReply,
    MediumChanged,
    MediumError,
    PhaseError,
    ScsiUsbError,
    TransferStalled,
    TransportError,
    UnitAttention,
)
from scsiusb.imaging.identity import DiskIdentity
from scsiusb.imaging.readback import BlockRange, empty_cache
from scsiusb.scsi.sense import MEDIUM_CHANGED

PIECE: Final = 1024 * 1024  # bytes that are moved at once
TRIES: Final = 3  # of a transfer: it may fail, and the next one report that the medium may have changed
TIMEOUT: Final = 10.0  # seconds: a block that needs longer is bad
MOST_PROOFS: Final = 8  # marks by which the medium is known again
FATAL: Final = (DeviceGone, DeviceClosed, Cancelled, DeviceBusy)
OF_THE_BLOCK: Final = (  # errors after which only the block counts as bad
    MediumError,
    HardwareError,
    IllegalRequest,
    AbortedCommand,
    BlankCheck,
    DeviceTimeout,
    TransferStalled,
    PhaseError,
    MalformedReply,
)
T = TypeVar("T")

log = logging.getLogger(__name__)


class Marks:
    """The contents of marked blocks: each says its LBA, and by a number of 64 bits which probe wrote it."""

    def __init__(self, block_size: int) -> None:
        self._salt = os.urandom(8)
        self._size = block_size

    def block(self, lba: int) -> bytes:
        """Return the mark of a block."""
        return ((lba.to_bytes(8, "big") + self._salt) * (self._size // 16 + 1))[: self._size]

    def range(self, lba: int, blocks: int) -> bytes:
        """Return the marks of several blocks."""
        return b"".join(map(self.block, range(lba, lba + blocks)))

    def origin(self, data: bytes) -> int | None:
        """Return the LBA that a block was marked for; None if it is not a mark of this probe."""
        if data[8:16] != self._salt:
            return None
        lba = int.from_bytes(data[:8], "big")
        return lba if data == self.block(lba) else None


class Surface:
    """A disk whose blocks are marked; what they had before is kept, and written back by `restore`.

    Reads and writes tolerate bad blocks. A medium that may be another one after a reset is found again, if the device,
    its capacity and marks that were read before are the same.
    """

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.blocks, self.block_size = disk.blocks, disk.block_size
        self.written = 0
        """Bytes, with those that were written back."""
        self.lost = 0
        """Blocks that could not be written back."""
        self.can_reset = True
        self.marks = Marks(self.block_size)
        self._identity = DiskIdentity.of(disk)
        self._medium = disk.medium()
        self._saved: list[tuple[int, bytes]] = []
        self._proofs: list[int] = []

    @contextmanager
    def impatient(self) -> Iterator[None]:
        """Wait less long for a block than a command may take otherwise."""
        unit, usual = self.disk.unit, self.disk.unit.timeout
        unit.timeout = min(TIMEOUT, usual or TIMEOUT)
        try:
            yield
        finally:
            unit.timeout = usual

    # --- blocks -------------------------------------------------------------------------------------

    def read(self, lba: int, blocks: int = 1) -> bytes | None:
        """Return the content of blocks; None if one of them cannot be read."""

        def move(medium: Medium) -> bytes:
            data = bytearray(blocks * self.block_size)
            with memoryview(data) as view:
                self.disk.read_from(medium, lba, view)
            return bytes(data)

        return self._tolerant(move)

    def _write(self, lba: int, data: bytes) -> bool:
        """Write blocks; return False if one of them cannot be written."""

        def move(medium: Medium) -> bool:
            with memoryview(data) as view:
                self.disk.write_to(medium, lba, view)
            return True

        self.written += len(data)
        return self._tolerant(move) is not None

    def _tolerant(self, move: Callable[[Medium], T]) -> T | None:
        """Return what `move` returns; None if the block is bad. An exchange that failed is tried again."""
        for left in reversed(range(TRIES)):
            try:
                return move(self._medium)
            except MediumChanged:
                if not left:
                    raise
                self._find_medium()
            except OF_THE_BLOCK as error:
                log.debug("a bad block: %s", error)
                if not isinstance(error, TransportError):
                    return None
        return None

    def _find_medium(self) -> None:
        """Find the medium after a reset. Raise DeviceMismatch and MediumChanged if it is another one."""
        with suppress(MediumChanged, *OF_THE_BLOCK):
            self.disk.read(0, 1)
        DiskIdentity.of(self.disk).check(self._identity.record())
        self._medium = self.disk.medium()
        if self._proofs and not any(map(self._is_marked, self._proofs)):
            what = "none of the marked blocks is there any more: the medium is another one"
            raise MediumChanged(what, MEDIUM_CHANGED)

    def _is_marked(self, lba: int) -> bool:
        view = memoryview(bytearray(self.block_size))
        with suppress(*OF_THE_BLOCK):
            self.disk.read_from(self._medium, lba, view)
        return self.marks.origin(bytes(view)) is not None

    def prove(self, lbas: Iterable[int]) -> None:
        """Know the medium again by marks that were read from it."""
        self._proofs = sorted({*self._proofs, *lbas})[:MOST_PROOFS]

    # --- marking ------------------------------------------------------------------------------------

    def mark(self, ranges: Sequence[BlockRange], overwhelming: int) -> list[bool]:
        """Mark blocks, and make the next reads come from the medium. Return for each range whether it was written.

        What cannot be read before is not written, as it could not be written back. `overwhelming`: see `leave_cache`.
        """
        can_be = [self._save(each) for each in ranges]
        for is_last in (False, True):
            done = [is_saved and self._mark(each) for is_saved, each in zip(can_be, ranges, strict=True)]
            try:
                self.leave_cache(overwhelming, ranges)
            except UnitAttention as error:
                if is_last or isinstance(error, MediumChanged):
                    raise
                self._find_medium()  # it was reset before the flush: what its cache had is lost
            else:
                break
        return done

    def _save(self, blocks: BlockRange) -> bool:
        found = self.read(*blocks)
        if found is not None:
            self._saved.append((blocks.lba, found))
        return found is not None

    def _mark(self, blocks: BlockRange) -> bool:
        return self._write(blocks.lba, self.marks.range(*blocks))

    def leave_cache(self, overwhelming: int, marked: Sequence[BlockRange] = ()) -> None:
        """Make the next reads come from the medium: by a reset, and by so many bytes that push all else out of a cache.

        These bytes are what the blocks between those that are `marked` have already. Raise as `Disk.flush`.
        """
        if self.can_reset:
            self._reset()
        else:
            self.disk.flush()
        if overwhelming:
            for lba, blocks in self._between(marked, overwhelming // self.block_size):
                data = self.read(lba, blocks)
                if data is not None:
                    self._write(lba, data)
            self.disk.flush()

    def _reset(self) -> None:
        try:
            empty_cache(self.disk)
        except FATAL:
            raise
        except TransportError as error:
            log.info("the device cannot be reset: %s", error)
            self.can_reset = False
        self._find_medium()

    def _between(self, marked: Sequence[BlockRange], blocks: int) -> Iterator[BlockRange]:
        """Yield unmarked ranges of so many blocks in all, not of the first and the last 1 MiB."""
        first, last = margins(self.blocks, self.block_size)
        taken = sorted([*marked, *self._saved_ranges()])
        at = first
        for lba, count in (*taken, BlockRange(last, 0)):
            while at < lba and blocks > 0:
                size = min(lba - at, blocks, PIECE // self.block_size)
                yield BlockRange(at, size)
                at, blocks = at + size, blocks - size
            at = max(at, lba + count)

    def _saved_ranges(self) -> Iterator[BlockRange]:
        for lba, data in self._saved:
            yield BlockRange(lba, len(data) // self.block_size)

    # --- giving back --------------------------------------------------------------------------------

    def restore(self) -> None:
        """Write back what the marked blocks had, the last one first.

        An error that makes that impossible says so in its remedy.
        """
        if not self._saved:
            return
        try:
            self.lost += self._write_back()
        except ScsiUsbError as error:
            blocks = sum(each.blocks for each in self._saved_ranges())
            what = f"{blocks} blocks that the probe marked, the first is LBA {self._saved[0][0]}, were not written back"
            error.remedy = f"{error.remedy}; {what}" if error.remedy else what
            raise
        self._saved.clear()
        self._proofs.clear()
        self.marks = Marks(self.block_size)

    def _write_back(self) -> int:
        for is_last in (False, True):
            self._find_medium()  # also after an interruption, which may have hidden a change
            failed = sum(self._write_each(lba, data) for lba, data in reversed(self._saved))
            try:
                self.disk.flush()
            except UnitAttention as error:
                if is_last or isinstance(error, MediumChanged):
                    raise
            else:
                break
        return failed

    def _write_each(self, lba: int, data: bytes) -> int:
        """Write blocks, one by one if they cannot be written together. Return how many could not be written."""
        if self._write(lba, data):
            return 0
        size = self.block_size
        return sum(not self._write(lba + at // size, data[at : at + size]) for at in range(0, len(data), size))


def margins(blocks: int, block_size: int) -> tuple[int, int]:
    """Return the first LBA after the first 1 MiB, and the LBA of the last 1 MiB: a probe writes only between them."""
    kept = -(-PIECE // block_size)
    return kept, blocks - kept
