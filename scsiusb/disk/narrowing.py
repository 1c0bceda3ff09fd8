"""Moves the blocks of a command that failed in smaller commands, up to the first block that fails alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeGuard

from scsiusb.errors import CheckCondition, ScsiUsbError
from scsiusb.scsi.command import Command
from scsiusb.scsi.commands.sbc import BlockCommand
from scsiusb.scsi.retry import RetryPolicy, RetryState, is_transient
from scsiusb.scsi.sense import Sense
from scsiusb.transport.base import Direction, Story

SendPart = Callable[[int, int], Story[None]]
"""Returns the story of one command, for a number of blocks from a block on, counted from the first."""

NONE: Final[frozenset[int]] = frozenset()
OF_BLOCKS: Final[Mapping[int, frozenset[int]]] = {
    # Sense keys of errors that may be due to some of a command's blocks, or to their number; and the additional sense
    # codes that are due to the unit, the medium as a whole or the kind of command.
    0x0: NONE,  # also bytes that are no sense data: the device does not give a reason
    0x3: NONE,
    0x4: NONE,
    0x5: frozenset({0x20, 0x25, 0x2C, 0x30, 0x3A, 0x53}),  # opcode, LUN, sequence, kind of medium, no medium, eject
    0x7: NONE,  # a part of the medium that must not be read; see `WRITE_PROTECT`
    0x8: NONE,
    0x9: NONE,
    0xB: NONE,
    0xD: NONE,
}
WRITE_PROTECT: Final = 0x7  # sense key; a write is refused for the medium as a whole

log = logging.getLogger(__name__)


def is_of_blocks(sense: Sense, direction: Direction) -> bool:
    """Return whether smaller commands may succeed for some of the blocks. A deferred error is of an earlier command."""
    if sense.deferred or (direction is Direction.OUT and sense.key == WRITE_PROTECT):
        return False
    return sense.asc not in OF_BLOCKS.get(sense.key, (sense.asc,))


class BlockRetries(RetryState[bytes]):
    """The retries of a command that moves blocks. If it has failed, the error has the LBA that it began with.

    An error that was raised by a look at the medium before the command has no LBA: smaller commands are no remedy.
    """

    is_part = False

    def pause_before_retry(self, error: CheckCondition) -> float | None:
        """See `RetryState.pause_before_retry`."""
        is_divided = self.is_part and is_of_blocks(error.sense, self.command.direction)
        pause = None if is_divided else super().pause_before_retry(error)
        if pause is None and isinstance(self.command, BlockCommand):
            error.lba = self.command.lba
        return pause


class PartRetries(BlockRetries):
    """The retries of a part: after an error that may be due to its blocks, it is divided and not repeated."""

    is_part = True


class Narrowing:
    """Which blocks to move next after a command of some blocks failed, counted from the first of them.

    One bad block takes about log2(blocks) + 3 commands; two if the device reports which one it is. If every part
    succeeds (the error was transient, or the command was too large), parts of the largest size that succeeded follow.
    """

    def __init__(self, blocks: int, hint: int, *, may_repeat: bool) -> None:
        """`hint`: the block that the device reported, any number if none. `may_repeat`: send a block a second time."""
        self._blocks = blocks
        self._hint = hint
        self._may_repeat = may_repeat
        self.good = 0
        """The number of blocks that were moved: all before the first that was not."""
        self._bad = blocks  # a command of the blocks from `good` to here failed
        self._most = 1  # blocks of the largest command that succeeded
        self._failed_alone = 0 if blocks == 1 else -1

    @property
    def is_over(self) -> bool:
        """Whether all blocks were moved."""
        return self.good == self._blocks

    def count(self) -> int:
        """Return the number of blocks, from `good` on, to move by the next command."""
        suspects = self._bad - self.good
        if suspects <= 0:
            return min(self._most, self._blocks - self.good)
        before_hint = self._hint - self.good
        if 0 <= before_hint < suspects:
            return before_hint or 1
        return (suspects + 1) // 2

    def succeeded(self, count: int) -> None:
        """Take note that a command of `count` blocks succeeded."""
        self.good += count
        self._most = max(self._most, count)

    def failed(self, count: int) -> bool:
        """Take note that a command of `count` blocks failed; return whether its block is bad: it failed alone."""
        self._bad = self.good + count
        is_bad = count == 1 and (self._failed_alone == self.good or not self._may_repeat)
        if count == 1:
            self._failed_alone = self.good
        return is_bad


def narrowing_after(
    error: ScsiUsbError, command: Command[Any], lba: int, blocks: int, policy: RetryPolicy
) -> Narrowing | None:
    """Return how to go on after a command of blocks failed, or None, with the error's `lba` set, if it is to be raised.

    A block that has failed alone is sent once more if the policy allows retries and `command` was not retried yet.
    """
    if not _is_narrowed(error, command.direction):
        error.lba = lba
        return None
    may_repeat = policy.failures > 0
    if blocks == 1 and (is_transient(error) or not may_repeat):
        _name_block(error, command.direction)
        return None
    log.info("%s; trying its blocks in smaller commands", error.what)
    information = error.sense.information
    return Narrowing(blocks, -1 if information is None else information - lba, may_repeat=may_repeat)


def narrow(narrowing: Narrowing, send: SendPart, lba: int, direction: Direction) -> Story[None]:
    """Story that moves the blocks in parts. Raise the error of the first block that fails alone, with its LBA.

    Raise also any error that cannot be due to the blocks, at once; its `lba` is the first block that was not moved.
    """
    while not narrowing.is_over:
        count = narrowing.count()
        try:
            yield from send(narrowing.good, count)
        except ScsiUsbError as error:
            is_narrowed = _is_narrowed(error, direction)
            error.lba = lba + narrowing.good
            if not is_narrowed:
                raise
            if narrowing.failed(count):
                _name_block(error, direction)
                raise
            log.info("%s; trying again", error.what)
        else:
            narrowing.succeeded(count)


def _is_narrowed(error: ScsiUsbError, direction: Direction) -> TypeGuard[CheckCondition]:
    return isinstance(error, CheckCondition) and error.lba is not None and is_of_blocks(error.sense, direction)


def _name_block(error: ScsiUsbError, direction: Direction) -> None:
    error.what += f": LBA {error.lba} cannot be {'read' if direction is Direction.IN else 'written'}"
