"""Whether a removable medium is still the same after something that may have hidden a change of it."""

from __future__ import annotations

import logging
from typing import Final

from scsiusb.disk.medium import READ, WRITE, BlockTransfer, Medium
from scsiusb.errors import (
    Cancelled,
    CheckCondition,
    DeviceClosed,
    DeviceGone,
    MediumChanged,
    NotReady,
    ScsiUsbError,
    TransportError,
    UnitAttention,
)
from scsiusb.scsi.attentions import Attentions, Witness
from scsiusb.scsi.commands.sbc import Read10
from scsiusb.scsi.retry import RetryPolicy
from scsiusb.scsi.sense import MEDIUM_CHANGED, error_for
from scsiusb.scsi.unit import LogicalUnit
from scsiusb.transport.base import Call, Story

WITNESSES: Final = (0, 63, 2048, 8192)  # LBAs: partition table, and where partitions begin
MOST_CONTENTS: Final = 4  # of a witness; a reset brings none back that is older
ONE_TRY: Final = RetryPolicy(failures=0)

log = logging.getLogger(__name__)


def find_witness(unit: LogicalUnit, medium: Medium, *, before_write: bool) -> Story[None]:
    """Read a block by which a removable medium will be known again after a reset, unless a user has met one already.

    Raise NotReady, UnitAttention, DeviceGone, DeviceClosed and Cancelled; after any other error there is no such block.
    Raise a TransportError that leaves a medium unknown of which nobody has moved a block: the next command would be
    refused as one for another medium, and the failure that was the reason would not be seen. Before a write, raise it
    also where another block is found: the medium may have been exchanged while the device did not answer.
    """
    attentions = unit.attentions
    known, doubts = attentions.witness, unit.doubts
    if medium.changes != unit.medium_changes or (known is not None and known.changes == medium.changes):
        return
    is_used = attentions.used == medium.changes  # then the block of another medium must not be taken for this one's
    if is_used and doubts != attentions.settled:
        return
    found, failure = yield from _distinct_block(unit, medium)
    if isinstance(failure, TransportError) and not is_used and not is_sure(unit) and (before_write or found is None):
        raise failure
    if not is_used or doubts == unit.doubts:
        attentions.witness = found
    attentions.used = medium.changes


def _distinct_block(unit: LogicalUnit, medium: Medium) -> Story[tuple[Witness | None, ScsiUsbError | None]]:
    """Read blocks until one has a distinct content, or a second one fails. Return it, and the failure of the first.

    Raise as `find_witness`.
    """
    failure: ScsiUsbError | None = None
    for lba in (lba for lba in WITNESSES if lba < medium.blocks):
        retry = None if failure is None else ONE_TRY
        try:
            data = bytes((yield from unit.story(Read10(lba, 1, block_size=medium.block_size), retry=retry)))
        except (NotReady, UnitAttention, DeviceGone, DeviceClosed, Cancelled):
            raise
        except (CheckCondition, TransportError) as error:
            log.info("no block to know the medium by: %s", error)
            if failure is not None:
                break
            failure = error
            continue
        if is_distinct(data):
            return Witness(lba, (data,), medium.changes), failure
    return None, failure


def is_distinct(data: bytes) -> bool:
    """Return whether a block's content distinguishes its medium from others: a block of equal bytes does not."""
    return data != data[:1] * len(data)


def confirm(unit: LogicalUnit, medium: Medium) -> Story[None]:
    """Raise where the device or the medium may be others than those that a failed command was meant for."""
    yield Call(unit.transport.check_identity)
    capacity = yield from unit.capacity_story(ONE_TRY)
    is_same = (capacity.blocks, capacity.block_size) == (medium.blocks, medium.block_size)
    if not is_same or medium.changes != unit.medium_changes:
        raise error_for(MEDIUM_CHANGED, "what was tried again")


def verify(unit: LogicalUnit, medium: Medium) -> Story[None]:
    """Find out whether a removable medium is still the same, after something that may have hidden a change.

    It is if the device says who it was, its unit reports no change, the capacity is the same, and so is a block
    that was read or written before. Where there is no such block, it is taken for another after a reset or a lost
    exchange, and for the same after failures for which the unit gave no reason. Raise MediumChanged.
    """
    if medium.changes != unit.medium_changes:  # outdated: others may have found the new one, which stays
        raise error_for(MEDIUM_CHANGED, "the check of the medium")
    yield Call(unit.transport.check_identity)
    yield from unit.ready_story()
    capacity = yield from unit.capacity_story(ONE_TRY)
    doubts = unit.doubts
    is_same = (capacity.blocks, capacity.block_size) == (medium.blocks, medium.block_size)
    is_same = is_same and (yield from is_witness_there(unit, medium)) and medium.changes == unit.medium_changes
    unit.attentions.settle(doubts, is_same=is_same)
    if not is_same:
        what = "the medium may be another one after a reset or a failed exchange: it was not recognized"
        raise MediumChanged(what, MEDIUM_CHANGED)


def is_sure(unit: LogicalUnit) -> bool:
    """Return whether nothing may have hidden a change of the medium: nothing happened but failures without a reason."""
    return unit.doubts == unit.attentions.settled + unit.attentions.reasonless


def is_witness_there(unit: LogicalUnit, medium: Medium) -> Story[bool]:
    """Read the known block; return whether it has a content that it may have.

    Where no block is known, as on a blank medium: whether nothing happened but failures without a reason.
    """
    attentions = unit.attentions
    witness = attentions.witness
    if witness is None or witness.changes != medium.changes:
        return is_sure(unit)
    data: object = yield from unit.story(READ.command(medium, witness.lba, 1), retry=ONE_TRY)
    return data in witness.contents


def keep_witness(
    attentions: Attentions,
    transfer: BlockTransfer,
    medium: Medium,
    lba: int,
    blocks: int,
    view: memoryview,
    *,
    is_done: bool = True,
) -> None:
    """Remember a block by which a removable medium will be known again, or what is written over it.

    Before the write is done, the block may hold the old content or the new one.
    """
    witness = attentions.witness
    older: tuple[bytes, ...] = ()
    if witness is not None and witness.changes == medium.changes:
        if transfer is not WRITE or not lba <= witness.lba < lba + blocks:
            return
        view, lba, older = view[(witness.lba - lba) * medium.block_size :], witness.lba, witness.contents
    elif not is_done:
        return
    data = bytes(view[: medium.block_size])
    if data != data[:1] * len(data):  # `is_distinct`, which would cost each write a call more
        others = [content for content in older if content != data]
        attentions.witness = Witness(lba, (data, *others[: MOST_CONTENTS - 1]), medium.changes)
    elif data and is_done:
        attentions.witness = None
