"""Stories that move blocks: one command, and smaller ones if it failed."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from scsiusb.disk.medium import READ, WRITE, BlockTransfer, Medium, pieces
from scsiusb.disk.narrowing import BlockRetries, PartRetries, narrow, narrowing_after
from scsiusb.disk.witness import confirm, verify
from scsiusb.errors import ScsiUsbError
from scsiusb.scsi.retry import RetryState
from scsiusb.scsi.unit import LogicalUnit
from scsiusb.transport.base import Story

Note = Callable[[], object]


class BlockStories:
    """Makes the stories for one unit. Buffers are memory that the transport lent."""

    def __init__(self, unit: LogicalUnit) -> None:
        self._unit = unit
        self._verify = partial(verify, unit)

    def command(
        self,
        transfer: BlockTransfer,
        medium: Medium,
        lba: int,
        blocks: int,
        buffer: memoryview,
        retries: type[BlockRetries] = BlockRetries,
    ) -> Story[int]:
        """Story that moves blocks of `medium` by one command, if that is still the one in the unit."""
        unit = self._unit
        state = partial(self._retry_state, retries, transfer, medium, lba, blocks, time.monotonic())
        timeout = unit.timeout or transfer.timeout
        look = self._verify if medium.is_removable else None
        return unit.transfer(transfer.cdb(lba, blocks), transfer.direction, buffer, timeout, state, medium, look)

    def reading(self, medium: Medium, lba: int, blocks: int, buffer: memoryview) -> Story[None]:
        """Story that reads blocks, at most as many as a command may move; raises as `Disk.readinto`."""
        if blocks > 1 and lba + blocks > medium.alone_from:
            for at, count, piece in pieces(medium, lba, blocks, buffer, blocks):
                with piece:
                    yield from self.reading(medium, at, count, piece)
            return
        try:
            yield from self.command(READ, medium, lba, blocks, buffer)
        except ScsiUsbError as error:
            rest = self.rest_after(error, READ, medium, lba, buffer, None)
            if rest is None:
                raise
            yield from rest

    def rest_after(
        self,
        error: ScsiUsbError,
        transfer: BlockTransfer,
        medium: Medium,
        lba: int,
        buffer: memoryview,
        note: Note | None,
    ) -> Story[None] | None:
        """Return the story that moves the blocks of a failed command in parts; None if its error is to be raised.

        The error's `lba` is set in each case. `note` is called after each part. A part of a write needs no look at the
        device first: the command has ended by a status, and a part is refused, as any command is, once the unit has
        reported a change of its medium.
        """
        blocks = len(buffer) // medium.block_size
        narrowing = narrowing_after(error, transfer.command(medium, lba, blocks), lba, blocks, self._unit.retry)
        if narrowing is None:
            return None
        return narrow(narrowing, partial(self._part, transfer, medium, lba, buffer, note), lba, transfer.direction)

    def _part(
        self,
        transfer: BlockTransfer,
        medium: Medium,
        lba: int,
        buffer: memoryview,
        note: Note | None,
        first: int,
        count: int,
    ) -> Story[None]:
        """Story that moves `count` blocks of a larger command, which began at `lba`, from its block `first` on."""
        start, length = first * medium.block_size, count * medium.block_size
        with buffer[start : start + length] as part:
            yield from self.command(transfer, medium, lba + first, count, part, PartRetries)
        if note is not None:
            note()

    def _retry_state(
        self,
        kind: type[BlockRetries],
        transfer: BlockTransfer,
        medium: Medium,
        lba: int,
        blocks: int,
        began: float,
    ) -> RetryState[Any]:
        """Return the bookkeeping of retries: a read may be sent twice, a write only after a look at the device."""
        again = None if transfer is not WRITE else partial(self.confirm, medium)
        return self._unit.retry_state(transfer.command(medium, lba, blocks), confirm=again, began=began, kind=kind)

    def confirm(self, medium: Medium) -> Story[None]:
        """Story that raises if a write must not be sent again, as the device or the medium may be another one."""
        unit = self._unit
        is_doubtful = medium.is_removable and unit.doubts != unit.attentions.settled
        return verify(unit, medium) if is_doubtful else confirm(unit, medium)
