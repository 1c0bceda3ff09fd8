"""Reads and writes of any size, in blocks, split into commands of a size that the device supports."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final, TypeVar

from scsiusb.base.arguments import buffer as buffer_of
from scsiusb.base.arguments import integer, timeout_or_none, wrong_type
from scsiusb.base.copying import Uncopyable
from scsiusb.base.finalizing import run_aside
from scsiusb.base.waits import long_lock
from scsiusb.disk.block_mover import BlockMover
from scsiusb.disk.medium import (
    MAX_BLOCKS_10,
    READ,
    READ_FUA,
    WRITE,
    Medium,
    check_fits,
    check_range,
    find_medium,
)
from scsiusb.disk.other_units import name_units_with_medium
from scsiusb.disk.unflushed import Mark, Unflushed
from scsiusb.errors import (
    CheckCondition,
    DeviceGone,
    MediumChanged,
    NoMedium,
    ScsiUsbError,
    UnitAttention,
    UnsupportedOpcode,
)
from scsiusb.scsi.command import Command
from scsiusb.scsi.pages.inquiry import InquiryData
from scsiusb.scsi.protection import write_protected_error, write_protection
from scsiusb.scsi.retry import RetryPolicy
from scsiusb.scsi.sense import RESET, WRITE_AGAIN, lost_write_error
from scsiusb.scsi.unit import LogicalUnit

if TYPE_CHECKING:
    from scsiusb.disk.file import DiskFile
    from scsiusb.disk.streaming import Reading, Writing

R = TypeVar("R")

PLAIN: Final = (bytes, bytearray)  # their views are of bytes, in one dimension
NOTHING: Final = memoryview(b"")
LAST_FLUSH_TIMEOUT: Final = 10.0  # seconds; for the flush after an exception, which must not be held up for long

log = logging.getLogger(__name__)


class Disk(Uncopyable):
    """A logical unit, addressed by blocks. Use it in a `with`; `close` flushes written blocks and releases the device.

    Addresses and lengths (`lba`, `blocks`) are in blocks; buffers are bytes, a whole number of blocks.
    """

    def __init__(self, unit: LogicalUnit, place: str = "an unknown place") -> None:
        """Take over the unit's transport. `place`: where it was opened, for the warning if it is not closed."""
        self.unit = unit
        self._attentions = unit.attentions
        self.mover = BlockMover(unit)
        """Moves the blocks; for streams, and for several commands at once."""
        self._place = place
        self._is_closed = False
        self._finding = long_lock()
        self._known: Medium | None = None
        self._writable: Medium | None = None
        """The same, after the look at its write protection."""
        self._unflushed = Unflushed()

    def __enter__(self) -> Disk:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is not None:
                self._flush_quietly()
        finally:  # also if a second Ctrl-C interrupts the flush
            self.close()

    def __del__(self) -> None:
        if getattr(self, "_is_closed", True):
            return
        try:
            warnings.warn(f"{self} was not closed; opened at {self._place}", ResourceWarning, stacklevel=2, source=self)
        finally:
            if not run_aside(self._drop, waits=not self.unit.transport.is_here):
                self._drop()

    def _drop(self) -> None:
        """Close, but log errors: this is for the garbage collector, which may run in the middle of a command."""
        try:
            try:
                self._flush_quietly()
            finally:
                self.close()
        except ScsiUsbError as error:
            log.warning("dropping %s: %s", self, error)

    def __repr__(self) -> str:
        return f"<Disk {self}{', closed' * self._is_closed}>"

    def __str__(self) -> str:
        return f"LUN {self.unit.lun} of {self.unit.transport}"

    def close(self) -> None:
        """Flush if anything was written, then release the device, even if the flush failed.

        May be called again, and from any thread: a command that is running in another thread ends with DeviceClosed.
        Raises as `flush`, but DeviceGone only if no earlier call raised it.
        """
        try:
            if self._unflushed.since is not None:
                self.flush()
        finally:
            self.unit.transport.close()
            self._unflushed.take()
            self._is_closed = True

    def after_fork(self) -> None:
        """Mark the copy in a fork's child as closed; the device belongs to the parent."""
        self._is_closed = True
        self._unflushed = Unflushed()
        self._finding = long_lock()

    @property
    def blocks(self) -> int:
        """The number of blocks on the medium (READ CAPACITY, SBC-3 5.15 and 5.16). Raises NoMedium, NotReady."""
        return self._medium().blocks

    @property
    def block_size(self) -> int:
        """The number of bytes in a block. Raises NoMedium, NotReady."""
        return self._medium().block_size

    @property
    def size(self) -> int:
        """The number of bytes on the medium. Raises NoMedium, NotReady."""
        medium = self._medium()
        return medium.blocks * medium.block_size

    def inquiry(self) -> InquiryData:
        """Return the unit's INQUIRY data (SPC-4 6.6); works without a medium."""
        return self.unit.inquiry()

    def execute(self, command: Command[R], *, timeout: float | None = None, retry: RetryPolicy | None = None) -> R:
        """Execute a command, declared here or by the caller (see `Command`), or a `RawCommand`; return its reply.

        `timeout` is in seconds, and `retry` says how often to send it again; None: as the disk was opened.
        Raises CheckCondition, TransportError; TypeError if it is no command, ValueError for a timeout of 0 or less.
        """
        if not isinstance(command, Command):
            raise wrong_type("command", "a Command, or a RawCommand with a CDB", command)
        timeout_or_none("timeout", timeout)
        if retry is not None and not isinstance(retry, RetryPolicy):
            raise wrong_type("retry", "a RetryPolicy or None", retry)
        known = self._known
        try:
            return self.unit.execute(command, retry=retry, timeout=timeout)
        except (MediumChanged, NoMedium) as error:
            self.note_told(error, known)
            raise

    def read(self, lba: int, blocks: int) -> bytes:
        """Read `blocks` blocks from `lba` on and return their bytes. Raises as `readinto`."""
        lba, blocks = integer("lba", lba), integer("blocks", blocks)
        medium = self._medium()
        check_range(medium, lba, blocks)
        data = bytearray(blocks * medium.block_size)
        try:
            with memoryview(data) as view:
                self.mover.move(READ, medium, lba, view)
        except (MediumChanged, NoMedium, DeviceGone) as error:
            self.note_told(error, medium)
            raise
        return bytes(data)

    def readinto(self, lba: int, buffer: bytearray | memoryview) -> int:
        """Fill a writable buffer, a whole number of blocks, from `lba` on; return the number of blocks read.

        Raises OutOfRange (a ValueError) before anything is sent, CheckCondition if the device reports an error,
        TransportError if the exchange fails. Then the blocks from the error's `lba` on are unchanged in the buffer,
        unless it is memory from `buffer`.
        """
        if type(lba) is not int:
            lba = integer("lba", lba)
        if type(buffer) is not bytearray:  # the usual case, without a call more
            if type(buffer) is not memoryview or buffer.format != "B" or buffer.ndim != 1:
                with _bytes_of("buffer", buffer) as view:
                    return self.readinto(lba, view)
            if buffer.readonly:
                raise TypeError("buffer must be writable")
        medium = self._known or self._medium()
        try:
            if type(buffer) is memoryview:
                return self.mover.move(READ, medium, lba, buffer)
            with memoryview(buffer) as view:
                return self.mover.move(READ, medium, lba, view)
        except (MediumChanged, NoMedium, DeviceGone) as error:
            self.note_told(error, medium)
            raise

    def read_many(self, requests: Iterable[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
        """Read many places: yield the number of each request, `(lba, blocks)`, from 0, and its bytes, as they come.

        By UAS, several commands are in flight at once; `requests` is read as far ahead as that needs. The medium is
        the one that is in the unit when the iteration begins. Raises as `read`; requests after the error may be
        missing, and those before it have all been yielded if the device takes one command at a time.
        """
        from scsiusb.disk.at_once import read_many

        return read_many(self, requests)

    def reading(self, lba: int, blocks: int) -> Reading:
        """Return a stream of blocks, for a `with`: it iterates over memoryviews, and prefetches the next ones.

        Raises OutOfRange. The iteration raises as `readinto`, after it has delivered the blocks before the error.
        """
        from scsiusb.disk.streaming import Reading

        return Reading(self, lba, blocks)

    def writing(self, lba: int) -> Writing:
        """Return a stream for a `with`, which writes blocks from `lba` on in a thread; give it bytes by its `write`.

        Raises OutOfRange, and DataProtect if the medium is write protected. The stream's `write` and the end of the
        `with` raise as `write`.
        """
        from scsiusb.disk.streaming import Writing

        return Writing(self, lba)

    def open(self, mode: str = "rb", lba: int = 0, blocks: int | None = None) -> DiskFile:
        """Return the blocks from `lba` on (`blocks` None: up to the end) as an unbuffered binary file.

        `mode` is "rb", or "r+b" to write as well. Closing the file flushes, and does not close the disk.
        Raises ValueError for another mode, OutOfRange, NoMedium, NotReady.
        """
        from scsiusb.disk.file import DiskFile

        return DiskFile(self, mode, lba, blocks)

    def buffer(self, size: int) -> AbstractContextManager[memoryview]:
        """Lend `size` bytes of memory, for a `with`, that `readinto` and `write` transfer without a copy.

        It is device memory if the platform has that, and enough of it. Leave the `with` before the disk is closed.
        After a `readinto` that failed, the content is undefined. Raises DeviceGone, DeviceClosed.
        """
        self.unit.transport.check()
        return self.unit.transport.memory.lend(size)

    def write(self, lba: int, data: bytes | bytearray | memoryview) -> int:
        """Write a whole number of blocks from `lba` on; return the number written, all acknowledged by the device.

        The device may keep them in its cache until `flush`. Raises as `readinto`, and DataProtect if the medium is
        write protected, before anything is written if the unit reports that (see `write_protected`). After an error,
        the blocks before the error's `lba` are written; later ones may be.
        """
        if type(lba) is not int:
            lba = integer("lba", lba)
        medium: Medium | None = None
        try:
            with memoryview(data) if type(data) in PLAIN else _bytes_of("data", data) as view:
                medium = self._writable or self.medium_to_write(lba, view)
                return self._write(medium, lba, view)
        except (MediumChanged, NoMedium, DeviceGone) as error:
            self.note_told(error, medium or self._known)
            raise

    def _write(self, medium: Medium, lba: int, view: memoryview) -> int:
        """Write all of it a second time if the unit was reset meanwhile, as the reset may have emptied its cache.

        If the medium was exchanged, that raises MediumChanged.
        """
        call, attentions, unflushed = object(), self._attentions, self._unflushed
        lost_writes = attentions.lost_writes  # of before: a deferred error may be about earlier calls, too
        # As `unit.cache_losses`, whose two calls would cost each write a hundredth more.
        losses = attentions.resets + attentions.port_resets.count + attentions.medium_changes
        try:
            blocks = self.mover.move(WRITE, medium, lba, view, partial(unflushed.note, call, (losses, lost_writes)))
            if losses != attentions.resets + attentions.port_resets.count + attentions.medium_changes:
                mark = self.unit.cache_losses, lost_writes
                self.mover.move(WRITE, medium, lba, view, partial(unflushed.note, call, mark))
                unflushed.renew(call, mark)
            return blocks
        finally:
            unflushed.end(call)

    def flush(self) -> None:
        """Return when all that was written is on the medium (SYNCHRONIZE CACHE(10), SBC-3 5.26).

        Raises MediumChanged, and UnitAttention if the unit was reset since the writes, or its medium exchanged: what
        was in its cache may be lost.
        Raises MediumError or the like, with `sense.deferred`, if the unit has reported, to any user's command, that it
        did not carry out an earlier write. In these cases, write again what was written since the last flush.
        """
        self._flush(None)

    def check_range(self, lba: int, blocks: int) -> None:
        """Raise OutOfRange (a ValueError) for blocks that the medium does not have, ValueError for negative numbers."""
        check_range(self._medium(), integer("lba", lba), integer("blocks", blocks))

    @property
    def max_blocks(self) -> int:
        """The most blocks that one command moves: limited by the bus, the Block Limits VPD page and the CDB.

        Can be set, also to more, if the caller knows that the device supports it. Raises ValueError unless 1 to 65535.
        """
        return self.mover.most or self._medium().max_blocks

    @max_blocks.setter
    def max_blocks(self, blocks: int) -> None:
        blocks = integer("max_blocks", blocks)
        if not 1 <= blocks <= MAX_BLOCKS_10:
            raise ValueError(f"{blocks} blocks in a command are not possible; give 1 to {MAX_BLOCKS_10}")
        self.mover.most = blocks

    def _medium(self) -> Medium:
        """Return the medium in the unit; the device is asked only the first time. Raises NoMedium, NotReady."""
        known = self._known
        if known is not None:
            return known
        with self._finding:
            known = self._known
            if known is None:
                try:
                    known = self._known = find_medium(self.unit)
                except NoMedium as error:
                    name_units_with_medium(self.unit, error)
                    raise
            return known

    def _at_most(self, seconds: float) -> float:
        """Return `seconds` as a timeout, or the unit's own timeout if that is shorter."""
        return min(seconds, self.unit.timeout or seconds)

    def medium(self) -> Medium:
        """Return the medium in the unit, for a stream that must not go on over another. Raises as `blocks`."""
        return self._medium()

    def note_told(self, error: BaseException, medium: Medium | None) -> None:
        """Take note that the caller now gets this error of a call that meant `medium`.

        After a change the next call looks for the new medium; after DeviceGone `close` need not raise it again. An
        error that is dropped, such as that of a stream which is left early, must not be noted: the next call then still
        means the old medium, and raises MediumChanged.
        """
        if isinstance(error, DeviceGone):
            self._unflushed.take()
        elif isinstance(error, (MediumChanged, NoMedium)) and self._known is medium:
            self._forget_medium()

    def _forget_medium(self) -> None:
        self._known = self._writable = self.mover.bound = None

    @property
    def write_protected(self) -> bool | None:
        """Whether the medium is write protected (MODE SENSE, SBC-3 6.4.1); None if the unit does not report it.

        The unit is asked each time, and once before the first write to each medium. Raises NoMedium, NotReady.
        """
        self._medium()
        return write_protection(self.unit)

    def medium_to_write(self, lba: int, view: memoryview | None = None) -> Medium:
        """Return the medium in the unit, after a look at its write protection, for writes from `lba` on.

        Raises as `blocks`, DataProtect with `lba`, and OutOfRange and ValueError for what is to be written, if given.
        """
        is_new, doubts = self._known is None, self.unit.doubts
        medium = self._medium()
        check_fits(medium, lba, NOTHING if view is None else view)
        if medium is self._writable or (view is not None and not view):
            return medium
        try:
            self._check_protection(medium, lba)
        except (MediumChanged, NoMedium) as error:
            self.note_told(error, medium)
            raise
        if not is_new or self.unit.doubts == doubts:
            return medium
        # A command failed, which may have hidden a change of the medium. Nothing was said about it to the caller, so
        # that it is enough to find it again.
        self._forget_medium()
        self.unit.transport.check_identity()
        self._writable = medium = self._medium()
        return medium

    def _check_protection(self, medium: Medium, lba: int) -> None:
        """Raise DataProtect for a medium that is write protected, unless it has been changed: WRITE then says so.

        A removable one is read before: some devices report invalid mode pages until the medium has been accessed.
        """
        self.mover.bind_once(medium, lba, before_write=True)
        if write_protection(self.unit) and medium.changes == self.unit.medium_changes:
            error = write_protected_error(self.unit)
            error.lba = lba
            raise error
        self._writable = medium

    def read_from(self, medium: Medium, lba: int, view: memoryview) -> int:
        """Do as `readinto`, with this medium and no other. Raises MediumChanged."""
        try:
            return self.mover.move(READ, medium, lba, view)
        except (MediumChanged, NoMedium, DeviceGone) as error:
            self.note_told(error, medium)
            raise

    def read_past_cache(self, medium: Medium, lba: int, view: memoryview) -> int:
        """Do as `read_from`, by commands that must not be answered from the device's cache (FUA, SBC-3 4.10).

        Raises IllegalRequest if the unit does not support that.
        """
        try:
            return self.mover.move(READ_FUA, medium, lba, view)
        except (MediumChanged, NoMedium, DeviceGone) as error:
            self.note_told(error, medium)
            raise

    def write_to(self, medium: Medium, lba: int, view: memoryview) -> int:
        """Do as `write`, with this medium and no other. Raises MediumChanged."""
        try:
            return self.write_in_thread(medium, lba, view)
        except (MediumChanged, NoMedium, DeviceGone) as error:
            self.note_told(error, medium)
            raise

    def read_ahead(self, medium: Medium, lba: int, view: memoryview) -> int:
        """Do as `read_from`, for a stream's thread: an error is not told yet (`note_told`)."""
        return self.mover.move(READ, medium, lba, view)

    def write_in_thread(self, medium: Medium, lba: int, view: memoryview) -> int:
        """Do as `write_to`, for a stream's thread: an error is not told yet (`note_told`)."""
        if medium is not self._writable:
            self._check_protection(medium, lba)
        return self._write(medium, lba, view)

    def _flush(self, timeout: float | None) -> None:
        known = self._known
        number, since = self._unflushed.begin_flush()
        try:
            self.unit.synchronize_cache(timeout=timeout)
        except UnsupportedOpcode as error:
            log.debug("no cache to flush: %s", error)
        except (MediumChanged, NoMedium) as error:
            self.note_told(error, known)
            self._unflushed.settled = number
            raise
        except DeviceGone:
            self._unflushed.settled = number  # the blocks are lost: nothing is left to flush
            raise
        except CheckCondition as error:
            if error.sense.deferred:  # the unit did not flush; what it reported is raised once
                error.remedy = WRITE_AGAIN
                self._unflushed.told = self._attentions.lost_writes
            raise
        try:
            if since is not None:
                self._check_losses(since)
        except CheckCondition:  # not `finally`: Ctrl-C may come before it is raised
            self._unflushed.settled = number
            raise
        self._unflushed.settled = number

    def _check_losses(self, since: Mark) -> None:
        """Raise the error that says what may have happened to blocks that were written at this mark."""
        attentions = self._attentions
        resets, lost_writes = since
        if attentions.lost_writes > max(lost_writes, self._unflushed.told) and attentions.lost_write is not None:
            raise lost_write_error(attentions.lost_write)
        if resets != self.unit.cache_losses:
            what = "the unit was reset before the written blocks were flushed, or its medium was exchanged"
            raise UnitAttention(what, RESET, "write them again")

    def _flush_quietly(self) -> None:
        """Flush before an exception reaches the caller: no error may replace it, and no long wait delay it."""
        if self._unflushed.since is None:
            return
        try:
            self._flush(self._at_most(LAST_FLUSH_TIMEOUT))
        except ScsiUsbError as error:
            log.warning("the written blocks may not be on the medium: %s", error)
            self._unflushed.take()


def _bytes_of(name: str, buffer: bytes | bytearray | memoryview) -> memoryview:
    """Return a view of the buffer's bytes, for items of any format and shape."""
    view = buffer_of(name, buffer)
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")
