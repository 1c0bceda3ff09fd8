"""Moves blocks of a medium between a unit and memory: the commands, their buffers, and what follows a failure."""

from __future__ import annotations

from scsiusb.disk.block_stories import BlockStories, Note
from scsiusb.disk.medium import PIECE, READ, WRITE, BlockTransfer, Medium, check_fits, pieces
from scsiusb.disk.witness import find_witness, keep_witness
from scsiusb.errors import ScsiUsbError
from scsiusb.scsi.unit import LogicalUnit
from scsiusb.transport.base import Story


class BlockMover:
    """Moves blocks of the medium that it is given, and of no other, in as many commands as that takes.

    Which medium is in the unit, and what the caller was told of it, is the business of its `Disk`.
    """

    def __init__(self, unit: LogicalUnit) -> None:
        self.unit = unit
        self._transport = unit.transport
        self._attentions = unit.attentions
        self._stories = BlockStories(unit)
        self.most: int | None = None
        """The most blocks of a command, if the user has chosen that; None: what the medium says."""
        self.bound: Medium | None = None
        """The last medium for which a block was looked for by which it is known again."""

    def move(
        self,
        transfer: BlockTransfer,
        medium: Medium,
        lba: int,
        view: memoryview,
        note: Note | None = None,
    ) -> int:
        """Read or write the view's blocks and return their number; call `note` after each command.

        The last block is moved by a separate command, because some card readers fail or hang otherwise.
        """
        size, block_size = len(view), medium.block_size
        blocks = size // block_size
        end = lba + blocks
        if blocks * block_size != size or lba < 0 or end > medium.blocks:
            check_fits(medium, lba, view)
        if medium.is_removable and medium is not self.bound and blocks:
            self._bind(medium, lba, before_write=transfer is WRITE)
        if size > PIECE and self._transport.depth > 1 and self._move_at_once(transfer, medium, lba, view, note):
            return blocks
        if blocks > (self.most or medium.max_blocks) or end > medium.alone_from or not blocks:
            for at, count, piece in pieces(medium, lba, blocks, view, self.most):
                with piece:
                    self._move_piece(transfer, medium, at, count, piece, note)
        else:  # one command, as for most calls
            self._move_piece(transfer, medium, lba, blocks, view, note)
        return blocks

    def _move_at_once(
        self, transfer: BlockTransfer, medium: Medium, lba: int, view: memoryview, note: Note | None
    ) -> bool:
        """Move the blocks by several commands at once. Return False, and do nothing, if that must not be."""
        from scsiusb.disk.at_once import cut, may_transfer, move_pieces

        may = may_transfer(self.unit, transfer, medium)
        if may:
            move_pieces(self, transfer, medium, cut(self, medium, lba, view), note)
        return may

    def move_one(
        self,
        transfer: BlockTransfer,
        medium: Medium,
        lba: int,
        view: memoryview,
        note: Note | None = None,
    ) -> None:
        """Move the blocks of one command, and in smaller ones what fails; raises as `read_from`, but tells nobody."""
        self._move_piece(transfer, medium, lba, len(view) // medium.block_size, view, note)

    def _move_piece(
        self,
        transfer: BlockTransfer,
        medium: Medium,
        lba: int,
        blocks: int,
        view: memoryview,
        note: Note | None,
    ) -> None:
        """Move the blocks of one command.

        If `view` is not the transport's own memory, copy through one of its buffers.
        """
        memory = self._transport.memory
        if memory.owns(view):
            self._send(transfer, medium, lba, blocks, view, note)
            return
        with memory.lend(len(view)) as buffer:
            if transfer is WRITE:
                buffer[:] = view
            try:
                self._send(transfer, medium, lba, blocks, buffer, note)
            except ScsiUsbError as error:
                if transfer is not WRITE and error.lba is not None:
                    good = (error.lba - lba) * medium.block_size
                    view[:good] = buffer[:good]
                raise
            if transfer is not WRITE:
                view[:] = buffer

    def _send(
        self,
        transfer: BlockTransfer,
        medium: Medium,
        lba: int,
        blocks: int,
        buffer: memoryview,
        note: Note | None,
    ) -> None:
        """Send one command, and smaller ones if it failed and they may succeed."""
        if transfer is WRITE and medium.is_removable and self._attentions.witness is not None:
            keep_witness(self._attentions, WRITE, medium, lba, blocks, buffer, is_done=False)
        drive, stories = self._transport.drive, self._stories
        try:
            drive(stories.command(transfer, medium, lba, blocks, buffer))
        except ScsiUsbError as error:
            rest = stories.rest_after(error, transfer, medium, lba, buffer, note)
            if rest is None:
                raise
            drive(rest)
        if note is not None:
            note()
        if medium.is_removable:
            witness = self._attentions.witness
            if transfer is WRITE or witness is None or witness.changes != medium.changes:
                keep_witness(self._attentions, transfer, medium, lba, blocks, buffer)

    def confirm(self, medium: Medium, lba: int) -> None:
        """Raise if what was written must not be written again, from `lba` on: the device or the medium is another."""
        try:
            self._transport.drive(self._stories.confirm(medium))
        except ScsiUsbError as error:
            error.lba = lba
            raise

    # --- streams --------------------------------------------------------------------------------

    def stream_blocks(self, transfer: BlockTransfer, medium: Medium) -> int:
        """Return the most blocks that a stream should move at a time: one command's, or what can be sent at once."""
        most = self.most or medium.max_blocks
        depth = self._transport.depth
        if depth == 1:
            return most
        from scsiusb.disk.at_once import may_transfer

        return max(most, depth * PIECE // medium.block_size) if may_transfer(self.unit, transfer, medium) else most

    def reading_story(self, medium: Medium, lba: int, view: memoryview) -> Story[None]:
        """Story that reads blocks into memory that `buffer` lent; raises as `readinto`.

        At most `max_blocks`, or more where the device takes several commands at once.
        """
        blocks = len(view) // medium.block_size
        if medium.is_removable and medium is not self.bound:
            yield from self._binding(medium, lba)
        if blocks > 1 and self._transport.depth > 1:
            from scsiusb.disk.at_once import reading

            yield from reading(self, self._stories, medium, lba, view)
        elif blocks <= (self.most or medium.max_blocks):
            yield from self._stories.reading(medium, lba, blocks, view)
        else:  # the device was used by UAS when the stream began, and no longer is
            for at, count, piece in pieces(medium, lba, blocks, view, self.most):
                with piece:
                    yield from self._stories.reading(medium, at, count, piece)
        if medium.is_removable:
            keep_witness(self._attentions, READ, medium, lba, blocks, view)

    # --- what the medium is known by --------------------------------------------------------------

    def bind_once(self, medium: Medium, lba: int, *, before_write: bool) -> None:
        """Find a block by which the medium will be known again, if it can be exchanged, and none was found yet.

        `lba`: where the command that comes next begins, for the errors.
        """
        if medium.is_removable and medium is not self.bound:
            self._bind(medium, lba, before_write=before_write)

    def _bind(self, medium: Medium, lba: int, *, before_write: bool) -> None:
        """Look, before the first block command, for a block by which the medium will be known again."""
        self._transport.drive(self._binding(medium, lba, before_write=before_write))

    def _binding(self, medium: Medium, lba: int, *, before_write: bool = False) -> Story[None]:
        try:
            yield from find_witness(self.unit, medium, before_write=before_write)
        except ScsiUsbError as error:
            error.lba = lba
            raise
        self.bound = medium
