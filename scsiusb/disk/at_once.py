"""Reads of many places at once, where the device takes several commands at a time; elsewhere one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from scsiusb.base.arguments import integer
from scsiusb.disk.medium import PIECE, READ, Medium, check_range
from scsiusb.errors import DeviceGone, MediumChanged, NoMedium
from scsiusb.scsi.at_once import read_at_once

if TYPE_CHECKING:
    from scsiusb.disk.disk import Disk

ROUNDS: Final = 4  # how many times the depth goes into one turn, at whose end the queue runs empty
MOST_ASKED: Final = 2 * 1024 * 1024  # bytes of requests that are taken together


class Piece(NamedTuple):
    """A part of a read that one command moves, and where it goes."""

    lba: int
    blocks: int
    into: memoryview


def step_blocks(disk: Disk, medium: Medium) -> int:
    """Return the blocks of one command, where several are sent at once."""
    return max(1, min(disk.max_blocks, PIECE // medium.block_size))


def cut(disk: Disk, medium: Medium, lba: int, view: memoryview) -> list[Piece]:
    """Return the pieces of a read, each for one command, and the last block of the medium for one of its own."""
    step, size = step_blocks(disk, medium), medium.block_size
    pieces: list[Piece] = []
    at, end = lba, lba + len(view) // size
    while at < end:
        count = min(step, end - at, max(medium.alone_from - at, 1))
        pieces.append(Piece(at, count, view[(at - lba) * size : (at - lba + count) * size]))
        at += count
    return pieces


def read_pieces(disk: Disk, medium: Medium, pieces: Sequence[Piece]) -> None:
    """Read the pieces, several at once; what does not succeed so is read again, in order, one by one.

    Raise as `Disk.read_from`: all pieces before the error's `lba` were read, in the order of `pieces`.
    """
    disk.bind_once(medium)
    waiting = iter(pieces)
    while batch := list(islice(waiting, disk.unit.transport.depth * ROUNDS)):
        for piece, is_read in zip(batch, _try(disk, medium, batch), strict=True):
            if not is_read:
                disk.read_one(medium, piece.lba, piece.into)


def _try(disk: Disk, medium: Medium, batch: Sequence[Piece]) -> list[bool]:
    """Read a batch at once; return for each piece whether its data counts."""
    unit = disk.unit
    memory = unit.transport.memory
    with ExitStack() as stack:
        buffers = [
            piece.into if memory.owns(piece.into) else stack.enter_context(memory.lend(len(piece.into)))
            for piece in batch
        ]
        reads = [(READ.cdb(piece.lba, piece.blocks), buffer) for piece, buffer in zip(batch, buffers, strict=True)]
        timeout = unit.timeout or READ.timeout
        story = read_at_once(unit, reads, timeout, medium, must_be_settled=medium.is_removable)
        done = unit.transport.drive(story)
        for piece, buffer, is_read in zip(batch, buffers, done, strict=True):
            if is_read and buffer is not piece.into:
                piece.into[:] = buffer
        return done


def read_many(disk: Disk, requests: Iterable[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
    """Yield the number of each request, `(lba, blocks)`, and its bytes, as they come; see `Disk.read_many`."""
    medium = disk.medium()
    many = disk.unit.transport.depth > 1
    for batch in _batches(requests, medium, disk.unit.transport.depth * ROUNDS if many else 1):
        try:
            if many:
                pieces = [piece for _, lba, data in batch for piece in cut(disk, medium, lba, memoryview(data))]
                read_pieces(disk, medium, pieces)
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
