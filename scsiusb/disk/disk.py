"""Blocks and bytes: reads and writes of any size, cut into commands that the device takes."""

from __future__ import annotations

import logging
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from scsiusb.disk.medium import (
    MAX_BLOCKS_10,
    READ,
    WRITE,
    BlockTransfer,
    Medium,
    blocks_in_range,
    check_range,
    find_medium,
    pieces,
)
from scsiusb.disk.unflushed import Unflushed
from scsiusb.errors import (
    DeviceGone,
    MediumChanged,
    NoMedium,
    ScsiUsbError,
    UnitAttention,
    UnsupportedOpcode,
)
from scsiusb.scsi.command import Command
from scsiusb.scsi.pages.inquiry import InquiryData
from scsiusb.scsi.retry import RetryPolicy, RetryState
from scsiusb.scsi.sense import MEDIUM_CHANGED, RESET, error_for
from scsiusb.scsi.unit import LogicalUnit
from scsiusb.transport.base import Call, Story

if TYPE_CHECKING:
    from scsiusb.disk.streaming import Reading, Writing

R = TypeVar("R")

LAST_FLUSH_TIMEOUT: Final = 10.0  # when an error is on its way already
ONE_TRY: Final = RetryPolicy(failures=0)

log = logging.getLogger(__name__)


class Disk:
    """A logical unit as blocks. Use it in a `with`; `close` flushes what was written and releases the device.

    One lasting rule: addresses are in blocks (`lba`, `blocks`), buffers in bytes, a whole number of blocks.
    """

    def __init__(self, unit: LogicalUnit, place: str = "an unknown place") -> None:
        """Takes over the unit's transport, and tells `place` where it was opened should nobody close it."""
        self.unit = unit
        self._place = place
        self._is_closed = False
        self._finding = threading.RLock()
        self._known: Medium | None = None
        self._most: int | None = None
        self._unflushed = Unflushed()

    def __enter__(self) -> Disk:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is not None:
                self._flush_quietly()
        finally:  # a second Ctrl-C may have come
            self.close()

    def __del__(self) -> None:
        if getattr(self, "_is_closed", True):
            return
        try:
            warnings.warn(f"{self} was not closed; opened at {self._place}", ResourceWarning, stacklevel=2, source=self)
        finally:
            self._drop()

    def _drop(self) -> None:
        """As `close`, for the garbage collector, which may come in the middle of a command and wants no exception."""
        try:
            try:
                self._flush_quietly()
            finally:
                self.close()
        except ScsiUsbError as error:
            log.warning("dropping %s: %s", self, error)

    def __str__(self) -> str:
        return f"LUN {self.unit.lun} of {self.unit.transport}"

    def close(self) -> None:
        """Flushes, then gives the device back, whatever became of the flush.

        May be called again, from any thread: a command under way in another one is then ended there (DeviceClosed).
        Raises as `flush` does, where something was written; DeviceGone among that only if no call raised it before.
        """
        try:
            if self._unflushed.since is not None:
                self.flush()
        finally:
            self.unit.transport.close()
            self._unflushed.take()
            self._is_closed = True

    def after_fork(self) -> None:
        """In a fork's child, where none of this is ours."""
        self._is_closed = True
        self._unflushed = Unflushed()
        self._finding = threading.RLock()

    @property
    def blocks(self) -> int:
        """The number of blocks on the medium. Raises NoMedium, NotReady."""
        return self._medium().blocks

    @property
    def block_size(self) -> int:
        """Bytes in a block. Raises NoMedium, NotReady."""
        return self._medium().block_size

    @property
    def size(self) -> int:
        """Bytes on the medium. Raises NoMedium, NotReady."""
        medium = self._medium()
        return medium.blocks * medium.block_size

    def inquiry(self) -> InquiryData:
        """Who the unit is (INQUIRY, SPC-4 6.4); works without a medium."""
        return self.unit.inquiry()

    def execute(self, command: Command[R]) -> R:
        """Any declared command, or your own (see `Command`). Raises CheckCondition, TransportError."""
        try:
            return self.unit.execute(command)
        except (MediumChanged, NoMedium):
            self._known = None
            raise

    def read(self, lba: int, blocks: int) -> bytes:
        """The bytes of `blocks` blocks from `lba` on. Raises as `readinto`."""
        medium = self._medium()
        check_range(medium, lba, blocks)
        data = bytearray(blocks * medium.block_size)
        with memoryview(data) as view:
            self._move(READ, medium, lba, view)
        return bytes(data)

    def readinto(self, lba: int, buffer: bytearray | memoryview) -> int:
        """Fills a writable buffer, a whole number of blocks, from `lba` on; returns the blocks read.

        Raises OutOfRange (a ValueError) before anything is sent, a CheckCondition where the device refuses,
        TransportError. What was not read then is as it was in the buffer.
        """
        if type(buffer) is not memoryview or buffer.format != "B" or buffer.ndim != 1:
            with _bytes_of(buffer) as view:
                return self.readinto(lba, view)
        if buffer.readonly:
            raise TypeError("readinto needs a writable buffer")
        return self._move(READ, self._known or self._medium(), lba, buffer)

    def reading(self, lba: int, blocks: int) -> Reading:
        """The blocks as a stream, for a `with`: memoryviews to iterate over, the next ones read meanwhile.

        Raises OutOfRange, and, when what came before is delivered, as `readinto`.
        """
        from scsiusb.disk.streaming import Reading

        return Reading(self, lba, blocks)

    def writing(self, lba: int) -> Writing:
        """Blocks from `lba` on as a stream, for a `with`: bytes to `write`, those before written meanwhile.

        Raises OutOfRange, and as `write`.
        """
        from scsiusb.disk.streaming import Writing

        return Writing(self, lba)

    def buffer(self, size: int) -> AbstractContextManager[memoryview]:
        """Lends `size` bytes of memory, for a `with`, that `readinto` and `write` move without a copy.

        Device memory, where the platform has it and grants so much. Give it back before the disk is closed. What
        stands in it after a `readinto` that failed is not defined.
        """
        self.unit.transport.check()
        return self.unit.transport.memory.lend(size)

    def write(self, lba: int, data: bytes | bytearray | memoryview) -> int:
        """Writes a whole number of blocks from `lba` on; returns the blocks written, all acknowledged by the device.

        They may sit in the device's cache until `flush`. Raises as `readinto`; DataProtect where the medium is
        write protected. After an error, blocks before the one named in it are written, later ones are not known.
        """
        with _bytes_of(data) as view:
            return self._write(self._known or self._medium(), lba, view)

    def _write(self, medium: Medium, lba: int, view: memoryview) -> int:
        """All of it once more where the unit was reset in the middle: what its cache held may be gone."""
        call, unit, unflushed = object(), self.unit, self._unflushed
        began = unit.resets
        try:
            blocks = self._move(WRITE, medium, lba, view, partial(unflushed.note, call, began))
            again = unit.resets
            if again != began:
                self._move(WRITE, medium, lba, view, partial(unflushed.note, call, again))
                unflushed.renew(call, again)
            return blocks
        finally:
            unflushed.end(call)

    def flush(self) -> None:
        """Returns when all that was written is on the medium (SYNCHRONIZE CACHE, SBC-3 5.20).

        Raises MediumChanged, and UnitAttention where the unit was reset since: its cache may have been lost.
        """
        self._flush(None)

    def check_range(self, lba: int, blocks: int) -> None:
        """Raises OutOfRange (a ValueError) for blocks that the medium does not have, ValueError for negatives."""
        check_range(self._medium(), lba, blocks)

    @property
    def max_blocks(self) -> int:
        """Blocks that one command moves at most, by the bus, the block limits VPD page and the command's field.

        Set it to have other commands from now on, smaller or larger: whoever does knows what the device bears.
        """
        return self._most or self._medium().max_blocks

    @max_blocks.setter
    def max_blocks(self, blocks: int) -> None:
        if not 1 <= blocks <= MAX_BLOCKS_10:
            raise ValueError(f"commands of {blocks} blocks: 1 to {MAX_BLOCKS_10} can be")
        self._most = blocks

    def _medium(self) -> Medium:
        """The medium that is in the unit. Raises NoMedium, NotReady."""
        known = self._known
        if known is not None:
            return known
        with self._finding:
            known = self._known
            if known is None:
                known = self._known = find_medium(self.unit)
            return known

    def _at_most(self, seconds: float) -> float:
        """For what is not worth waiting long, and no longer than the user would."""
        return min(seconds, self.unit.timeout or seconds)

    def _move(
        self,
        access: BlockTransfer,
        medium: Medium,
        lba: int,
        view: memoryview,
        note: Callable[[], object] | None = None,
    ) -> int:
        """Reads or writes the view's blocks, and returns how many; `note` is called behind each command."""
        blocks = blocks_in_range(medium, lba, view)
        try:
            if blocks > (self._most or medium.max_blocks) or medium.last_alone or not blocks:
                for at, count, piece in pieces(medium, lba, blocks, view, self._most):
                    with piece:
                        self._move_piece(access, medium, at, count, piece)
                    if note is not None:
                        note()
            else:  # as most are
                self._move_piece(access, medium, lba, blocks, view)
                if note is not None:
                    note()
            return blocks
        except DeviceGone:
            self._tell_of_an_unplug()
            raise

    def _move_piece(self, access: BlockTransfer, medium: Medium, lba: int, blocks: int, view: memoryview) -> None:
        memory = self.unit.transport.memory
        if memory.owns(view):
            self._send(access, medium, lba, blocks, view)
            return
        with memory.lend(len(view)) as buffer:
            if access is WRITE:
                buffer[:] = view
            self._send(access, medium, lba, blocks, buffer)
            if access is READ:
                view[:] = buffer

    def _tell_of_an_unplug(self) -> None:
        """Whoever got a DeviceGone knows what became of what was not flushed: `close` need not say it again."""
        self._unflushed.take()

    def reading_story(self, lba: int, view: memoryview) -> Story[None]:
        """Tell how to read blocks, of one command at most, into memory that `buffer` lent; raise as `readinto`."""
        medium: Medium = self._known or (yield Call(self._medium))
        try:
            yield from self._story(READ, medium, lba, len(view) // medium.block_size, view)
        except ScsiUsbError as error:
            self._note(error, lba)
            raise

    def _send(self, access: BlockTransfer, medium: Medium, lba: int, blocks: int, buffer: memoryview) -> None:
        try:
            self.unit.transport.drive(self._story(access, medium, lba, blocks, buffer))
        except ScsiUsbError as error:
            self._note(error, lba)
            raise

    def _story(self, access: BlockTransfer, medium: Medium, lba: int, blocks: int, buffer: memoryview) -> Story[int]:
        """Tell how to move blocks of `medium`, if that is still the one in the unit."""
        unit = self.unit
        state = partial(self._retry_state, access, medium, lba, blocks, time.monotonic())
        timeout = unit.timeout or access.timeout
        return unit.transfer(access.cdb(lba, blocks), access.direction, buffer, timeout, state, medium.changes)

    def _retry_state(
        self, access: BlockTransfer, medium: Medium, lba: int, blocks: int, began: float
    ) -> RetryState[Any]:
        """Return the bookkeeping of retries: a read may be sent twice, a write only after a look at the device."""
        confirm = None if access is READ else partial(self._confirm, medium)
        return self.unit.retry_state(access.command(medium, lba, blocks), confirm=confirm, began=began)

    def _note(self, error: ScsiUsbError, lba: int) -> None:
        error.lba = lba
        if isinstance(error, (MediumChanged, NoMedium)):
            self._known = None

    def _confirm(self, medium: Medium) -> Story[None]:
        """Raise where the device or the medium may be others than those that a failed command was meant for."""
        unit = self.unit
        yield Call(unit.transport.check_identity)
        capacity = yield from unit.capacity_story(ONE_TRY)
        is_same = (capacity.blocks, capacity.block_size) == (medium.blocks, medium.block_size)
        if not is_same or medium.changes != unit.medium_changes:
            raise error_for(MEDIUM_CHANGED, "what was tried again")

    def _flush(self, timeout: float | None) -> None:
        written_at = self._unflushed.take()
        try:
            self.unit.synchronize_cache(timeout=timeout)
        except UnsupportedOpcode as error:
            log.debug("no cache to flush: %s", error)
        except (MediumChanged, NoMedium):
            self._known = None
            raise
        except DeviceGone:
            raise
        except BaseException:
            self._unflushed.add(written_at)
            raise
        if written_at not in (None, self.unit.resets):
            raise UnitAttention("the unit was reset before what was written was flushed", RESET, "write it again")

    def _flush_quietly(self) -> None:
        """For an error on its way to the caller, which must neither be replaced nor wait long."""
        if self._unflushed.since is None:
            return
        try:
            self._flush(self._at_most(LAST_FLUSH_TIMEOUT))
        except ScsiUsbError as error:
            log.warning("what was written may not be on the medium: %s", error)
            self._unflushed.take()


def _bytes_of(buffer: bytes | bytearray | memoryview) -> memoryview:
    """Whatever items and shape the caller's memory has."""
    view = memoryview(buffer)
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")
