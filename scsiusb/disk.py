"""Blocks and bytes: reads and writes of any size, cut into commands that the device takes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Final, TypeVar

from scsiusb.errors import IllegalRequest, MalformedReply, MediumChanged, OutOfRange, TransportError
from scsiusb.scsi.block import Capacity, Read10, Read16, SynchronizeCache10, Write10, Write16
from scsiusb.scsi.command import Command
from scsiusb.scsi.inquiry import InquiryData
from scsiusb.scsi.unit import LogicalUnit
from scsiusb.scsi.vpd import BlockLimits, SupportedPages

R = TypeVar("R")

MAX_LBA_10: Final = 0xFFFFFFFF
MAX_BLOCKS_10: Final = 0xFFFF
SPC_3: Final = 5  # INQUIRY version; older devices may hang on a VPD page

log = logging.getLogger(__name__)


class Disk:
    """A logical unit as blocks. Use it in a `with`; `close` flushes what was written and releases the device.

    One lasting rule: addresses are in blocks (`lba`, `blocks`), buffers in bytes, a whole number of blocks.
    """

    def __init__(self, unit: LogicalUnit, resources: ExitStack) -> None:
        self.unit = unit
        self._resources = resources
        self._capacity: Capacity | None = None
        self._max_blocks = 0
        self._unflushed = False

    def __enter__(self) -> Disk:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, TransportError):
            self._unflushed = False  # the way to the device is broken, and the caller knows
        self.close()

    def close(self) -> None:
        """Flushes, then gives the device back, whatever became of the flush. May be called again."""
        try:
            if self._unflushed:
                self._unflushed = False
                self.flush()
        finally:
            self._resources.close()

    def add_resources(self, below: ExitStack) -> None:
        """Hands over what is to be released after the device."""
        below.push(self._resources.pop_all())
        self._resources = below

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
        return self.blocks * self.block_size

    def inquiry(self) -> InquiryData:
        """Who the unit is (INQUIRY, SPC-4 6.4); works without a medium."""
        return self.unit.inquiry()

    def execute(self, command: Command[R]) -> R:
        """Any declared command, or your own (see `Command`). Raises CheckCondition, TransportError."""
        return self.unit.execute(command)

    def read(self, lba: int, blocks: int) -> bytes:
        """The bytes of `blocks` blocks from `lba` on. Raises as `readinto`."""
        self.check_range(lba, blocks)
        data = bytearray(blocks * self.block_size)
        self.readinto(lba, data)
        return bytes(data)

    def readinto(self, lba: int, buffer: bytearray | memoryview) -> int:
        """Fills a writable buffer, a whole number of blocks, from `lba` on; returns the blocks read.

        Raises OutOfRange (a ValueError) before anything is sent, a CheckCondition where the device refuses,
        TransportError. The buffer's content is undefined then.
        """
        with memoryview(buffer) as whole, whole.cast("B") as view:
            if view.readonly:
                raise TypeError("readinto needs a writable buffer")
            blocks = self._whole_blocks(view)
            for at, count, offset in self._pieces(lba, blocks):
                self._read_piece(at, count, view[offset : offset + count * self.block_size])
            return blocks

    def write(self, lba: int, data: bytes | bytearray | memoryview) -> int:
        """Writes a whole number of blocks from `lba` on; returns the blocks written, all acknowledged by the device.

        They may sit in the device's cache until `flush`. Raises as `readinto`; DataProtect where the medium is
        write protected. After an error, blocks before the one named in it are written, later ones are not known.
        """
        with memoryview(data) as whole, whole.cast("B") as view:
            blocks = self._whole_blocks(view)
            for at, count, offset in self._pieces(lba, blocks):
                self._unflushed = True
                self._write_piece(at, count, view[offset : offset + count * self.block_size])
            return blocks

    def flush(self) -> None:
        """Returns when all that was written is on the medium (SYNCHRONIZE CACHE, SBC-3 5.20)."""
        try:
            self.unit.execute(SynchronizeCache10())
        except IllegalRequest as error:
            log.debug("no cache to flush: %s", error)
        self._unflushed = False

    @property
    def max_blocks(self) -> int:
        """Blocks that one command moves at most, by the bus, the block limits VPD page and the command's field."""
        self._medium()
        return self._max_blocks

    def _medium(self) -> Capacity:
        if self._capacity is None:
            version = self.unit.inquiry().version  # before TEST UNIT READY: some devices want it so
            self.unit.make_ready()
            capacity = self.unit.read_capacity()
            by_bus = max(1, self.unit.transport.max_transfer // capacity.block_size)
            by_device = self._max_transfer_by_vpd() if version >= SPC_3 else 0
            self._max_blocks = min(filter(None, (by_bus, by_device, MAX_BLOCKS_10)))
            self._capacity = capacity
        return self._capacity

    def _max_transfer_by_vpd(self) -> int:
        """In blocks; 0 where the device does not say."""
        try:
            supported = self.unit.vpd(SupportedPages.PAGE)
            if not isinstance(supported, SupportedPages) or BlockLimits.PAGE not in supported.pages:
                return 0
            limits = self.unit.vpd(BlockLimits.PAGE)
        except (IllegalRequest, MalformedReply) as error:
            log.debug("no block limits: %s", error)
            return 0
        return limits.max_transfer if isinstance(limits, BlockLimits) else 0

    def _whole_blocks(self, view: memoryview) -> int:
        blocks, rest = divmod(len(view), self.block_size)
        if rest:
            raise ValueError(f"{len(view)} bytes are no multiple of the block size {self.block_size}")
        return blocks

    def check_range(self, lba: int, blocks: int) -> None:
        """Raises OutOfRange (a ValueError) for blocks that the medium does not have, ValueError for negatives."""
        if lba < 0 or blocks < 0:
            raise ValueError(f"LBA {lba} and {blocks} blocks: neither can be negative")
        if lba + blocks > self.blocks:
            raise OutOfRange(
                f"{blocks} block{'s' * (blocks != 1)} at LBA {lba}: beyond the medium's {self.blocks} blocks",
                f"the last block is {self.blocks - 1}",
            )

    def _pieces(self, lba: int, blocks: int) -> Iterator[tuple[int, int, int]]:
        """(LBA, blocks, byte offset) for each command."""
        self.check_range(lba, blocks)
        for done in range(0, blocks, self._max_blocks):
            yield lba + done, min(self._max_blocks, blocks - done), done * self.block_size

    def _read_piece(self, lba: int, blocks: int, view: memoryview) -> None:
        kind = Read10 if lba + blocks - 1 <= MAX_LBA_10 else Read16
        with view, self.unit.transport.buffer(len(view)) as buffer:
            self._on_medium(kind(lba, blocks, block_size=self.block_size), buffer)
            view[:] = buffer

    def _write_piece(self, lba: int, blocks: int, view: memoryview) -> None:
        kind = Write10 if lba + blocks - 1 <= MAX_LBA_10 else Write16
        with view, self.unit.transport.buffer(len(view)) as buffer:
            buffer[:] = view
            self._on_medium(kind(lba, blocks, block_size=self.block_size), buffer)

    def _on_medium(self, command: Command[bytes], buffer: memoryview) -> None:
        """Runs a command whose block addresses mean the medium that we know."""
        try:
            self.unit.transfer(command, buffer)
        except MediumChanged:
            self._capacity = None
            raise
