"""Several commands at once, where the device takes them, for reads of many places and for large transfers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from scsiusb.base.arguments import integer
from scsiusb.disk.block_stories import BlockStories, Note
from scsiusb.disk.medium import PIECE, READ, WRITE, BlockTransfer, Medium, check_range
from scsiusb.errors import DeviceGone, MediumChanged, NoMedium, ScsiUsbError
from scsiusb.scsi.at_once import Batch, transfer_at_once
from scsiusb.scsi.unit import LogicalUnit
from scsiusb.transport.base import Story

if TYPE_CHECKING:
    from scsiusb.disk.block_mover import BlockMover
    from scsiusb.disk.disk import Disk

LANE_DEPTH: Final = 8
"""Commands in flight to each of many devices, which share the memory that the kernel has for transfers."""
LANE_BYTES: Final = LANE_DEPTH * 64 * 1024
"""Bytes of a buffer for each of many devices."""
ROUNDS: Final = 4  # how many times the depth goes into one turn, at whose end the queue runs empty
MOST_ASKED: Final = 2 * 1024 * 1024  # bytes of requests that are taken together


class Piece(NamedTuple):
    """A part of a transfer that one command moves, and its bytes."""

    lba: int
    blocks: int
    view: memoryview


def cut(mover: BlockMover, medium: Medium, lba: int, view: memoryview, most: int = PIECE) -> list[Piece]:
    """Return the pieces of a transfer, each of at most `most` bytes, for one command.

    The last block of the medium has a command of its own.
    """
    size = medium.block_size
    step = max(1, min(mover.most or medium.max_blocks, most // size))
    pieces: list[Piece] = []
    at, end = lba, lba + len(view) // size
    while at < end:
        count = min(step, end - at, max(medium.alone_from - at, 1))
        pieces.append(Piece(at, count, view[(at - lba) * size : (at - lba + count) * size]))
        at += count
    return pieces


def may_transfer(unit: LogicalUnit, transfer: BlockTransfer, medium: Medium) -> bool:
    """Return whether several commands may be sent at once.

    Not writes to a medium that can be exchanged, as a device that reports a change to one of them carries out the next
    ones on the new medium; nor where nothing may be written a second time.
    """
    if unit.transport.depth == 1:
        return False
    return transfer is not WRITE or (not medium.is_removable and unit.retry.failures > 0)


def move_pieces(
    mover: BlockMover, transfer: BlockTransfer, medium: Medium, pieces: Sequence[Piece], note: Note | None = None
) -> None:
    """Move the pieces, several at once; what does not succeed so is moved again, in order, one by one.

    `note` is called after writes. Raise as `Disk.read_from`: all pieces before the error's `lba` were moved, in the
    order of `pieces`, and later ones may be.
    """
    if not pieces:
        return
    mover.bind_once(medium, pieces[0].lba, before_write=transfer is WRITE)
    waiting = iter(pieces)
    while batch := list(islice(waiting, mover.unit.transport.depth * ROUNDS)):
        try:
            done = _try(mover, transfer, medium, batch)
        except ScsiUsbError as error:
            error.lba = batch[0].lba  # nothing of the batch counts
            raise
        if note is not None:
            note()
        if transfer is WRITE and not all(done):
            mover.confirm(medium, batch[done.index(False)].lba)
        for piece, is_done in zip(batch, done, strict=True):
            if not is_done:
                mover.move_one(transfer, medium, piece.lba, piece.view, note)


def reading(mover: BlockMover, stories: BlockStories, medium: Medium, lba: int, view: memoryview) -> Story[None]:
    """Story that reads blocks into memory that the transport lent, several commands at once; as `move_pieces`."""
    blocks = len(view) // medium.block_size
    pieces = cut(mover, medium, lba, view, -(-blocks // LANE_DEPTH) * medium.block_size)
    try:
        done = yield from sending(mover.unit, READ, medium, pieces, LANE_DEPTH)
    except ScsiUsbError as error:
        error.lba = lba  # nothing of it counts
        raise
    for piece, is_done in zip(pieces, done, strict=True):
        if not is_done:
            yield from stories.reading(medium, piece.lba, piece.blocks, piece.view)


def sending(
    unit: LogicalUnit, transfer: BlockTransfer, medium: Medium, pieces: Sequence[Piece], depth: int | None = None
) -> Story[list[bool]]:
    """Story that sends the pieces once, from or to memory that the transport lent; see `transfer_at_once`."""
    requests = [(transfer.cdb(piece.lba, piece.blocks), piece.view) for piece in pieces]
    batch = Batch(requests, transfer.direction, unit.timeout or transfer.timeout, depth)
    return transfer_at_once(unit, batch, medium, must_be_settled=medium.is_removable)


def _try(mover: BlockMover, transfer: BlockTransfer, medium: Medium, batch: Sequence[Piece]) -> list[bool]:
    """Move a batch at once; return for each piece whether it succeeded."""
    transport = mover.unit.transport
    with ExitStack() as stack:
        lent: list[Piece] = []
        for piece in batch:
            if transport.memory.owns(piece.view):
                lent.append(piece)
                continue
            buffer = stack.enter_context(transport.memory.lend(len(piece.view)))
            if transfer is WRITE:
                buffer[:] = piece.view
            lent.append(piece._replace(view=buffer))
        done = transport.drive(sending(mover.unit, transfer, medium, lent))
        for piece, copy, is_done in zip(batch, lent, done, strict=True):
            if is_done and transfer is not WRITE and copy is not piece:
                piece.view[:] = copy.view
        return done


def read_many(disk: Disk, requests: Iterable[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
    """Yield the number of each request, `(lba, blocks)`, and its bytes, as they come; see `Disk.read_many`."""
    medium = disk.medium()
    many = disk.unit.transport.depth > 1
    for batch in _batches(requests, medium, disk.unit.transport.depth * ROUNDS if many else 1):
        try:
            if many:
                pieces = [piece for _, lba, data in batch for piece in cut(disk.mover, medium, lba, memoryview(data))]
                move_pieces(disk.mover, READ, medium, pieces)
            else:
                for _, lba, data in batch:
                    with memoryview(data) as view:
                        disk.read_ahead(medium, lba, view)
        except (MediumChanged, NoMedium, DeviceGone) as error:
            disk.note_told(error, medium)
            raise
        for number, _, data in batch:
            yield number, bytes(data)


Asked = tuple[int, int, bytearray]
"""A request: its number, its LBA, and room for its bytes."""


def _batches(requests: Iterable[tuple[int, int]], medium: Medium, most: int) -> Iterator[list[Asked]]:
    """Yield so many requests together, fewer if they are large. Raise OutOfRange before any of its batch is sent."""
    batch: list[Asked] = []
    size = 0
    for number, (lba, blocks) in enumerate(requests):
        lba, blocks = integer("lba", lba), integer("blocks", blocks)
        check_range(medium, lba, blocks)
        batch.append((number, lba, bytearray(blocks * medium.block_size)))
        size += blocks * medium.block_size
        if len(batch) >= most or size >= MOST_ASKED:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
