"""Moves blocks and goes on after those that fail alone: the disk has narrowed each error down to its block."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from scsiusb.errors import AbortedCommand, BlankCheck, HardwareError, LbaOutOfRange, MediumError, ScsiUsbError

OF_A_BLOCK = (MediumError, HardwareError, BlankCheck, AbortedCommand, LbaOutOfRange)
"""Errors that leave the device usable, and whose `lba` is a block that failed alone."""


def move_around(
    move: Callable[[int, memoryview], object],
    lba: int,
    view: memoryview,
    block_size: int,
    on_bad: Callable[[ScsiUsbError], object],
) -> Iterator[tuple[int, memoryview]]:
    """Move the view's blocks by `move(lba, view)`, and yield each part that was moved, with its first LBA.

    `on_bad` is called with the error of each block that fails alone, and may raise it. After two of them in a row the
    next blocks are tried one at a time, then in steps that double, as bad blocks are often neighbours.
    Raise every other error.
    """
    most = len(view) // block_size
    step = most
    while view:
        piece = view[: step * block_size]
        try:
            move(lba, piece)
        except OF_A_BLOCK as error:
            if error.lba is None:
                raise
            on_bad(error)
            good = error.lba - lba
            if good:
                yield lba, piece[: good * block_size]
            else:
                step = 1
            done = good + 1
        else:
            yield lba, piece
            done, step = len(piece) // block_size, min(step * 2, most)
        lba, view = lba + done, view[done * block_size :]
