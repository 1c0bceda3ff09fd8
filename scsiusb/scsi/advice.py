"""Remedies that name a quirk, for errors of commands that it would cure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from scsiusb.errors import (
    CheckCondition,
    DeviceTimeout,
    IllegalRequest,
    LbaOutOfRange,
    MalformedReply,
    PhaseError,
    ScsiUsbError,
    TransferStalled,
    TransportError,
)
from scsiusb.quirks.cures import Symptom
from scsiusb.scsi.attentions import Bound
from scsiusb.scsi.command import Command
from scsiusb.scsi.commands.sbc import BlockCommand, ReadCapacity10, ReadCapacity16, SynchronizeCache10
from scsiusb.scsi.commands.spc import Inquiry, PreventAllow, TestUnitReady

if TYPE_CHECKING:
    from scsiusb.scsi.unit import LogicalUnit

EXCHANGE_FAILED: Final = (TransportError, DeviceTimeout, TransferStalled, PhaseError, MalformedReply)
UNANSWERED: Final[Mapping[type[Command[Any]], Symptom]] = {  # commands that a quirk leaves out
    Inquiry: Symptom.INQUIRY_UNANSWERED,
    TestUnitReady: Symptom.READY_UNANSWERED,
    ReadCapacity10: Symptom.CAPACITY_10_FAILED,
    ReadCapacity16: Symptom.CAPACITY_16_UNANSWERED,
    SynchronizeCache10: Symptom.FLUSH_UNANSWERED,
    PreventAllow: Symptom.LOCK_UNANSWERED,
}
LAST_BLOCKS: Final = 8  # at the end of a medium, which some card readers can only move one by one
SMALL_TRANSFER: Final = 64 * 512  # bytes that every device can move by one command
LONGER: Final = "try a longer timeout, or, "


def advise(unit: LogicalUnit, command: Command[Any], error: ScsiUsbError, medium: Bound | None) -> None:
    """Give the error a remedy that names a quirk, if there is one that would cure it and does not apply yet.

    `medium` is what the command's block addresses mean. A remedy other than the usual one of the error's class stays.
    """
    if error.remedy != error.default_remedy:
        return
    if isinstance(error, CheckCondition):
        symptom = _refused(command, error, medium)
    else:
        symptom = _failed(unit, command, medium) if type(error) in EXCHANGE_FAILED else None
    remedy = unit.cure(symptom) if symptom is not None else ""
    if remedy:
        error.remedy = f"{LONGER}{remedy}" if isinstance(error, DeviceTimeout) else remedy


def _refused(command: Command[Any], error: CheckCondition, medium: Bound | None) -> Symptom | None:
    """Return the symptom of a command that the device refused, if it is one."""
    if isinstance(command, ReadCapacity10) and isinstance(error, IllegalRequest):
        return Symptom.CAPACITY_10_FAILED
    is_beyond = isinstance(error, LbaOutOfRange) and not error.sense.deferred
    if is_beyond and isinstance(command, BlockCommand) and medium is not None:
        return Symptom.LAST_BLOCK_MISSING if command.lba + command.blocks == medium.blocks else None
    return None


def _failed(unit: LogicalUnit, command: Command[Any], medium: Bound | None) -> Symptom | None:
    """Return the symptom of a command whose exchange failed, if it is one."""
    if isinstance(command, BlockCommand):
        return _failed_blocks(command, medium)
    if isinstance(command, Inquiry) and unit.lun:
        return Symptom.UNIT_UNANSWERED
    if isinstance(command, SynchronizeCache10) and unit.attentions.has_flushed:
        return None
    return UNANSWERED.get(type(command))


def _failed_blocks(command: BlockCommand, medium: Bound | None) -> Symptom | None:
    end = command.lba + command.blocks
    is_large, is_last = command.length > SMALL_TRANSFER, medium is not None and end > medium.blocks - LAST_BLOCKS
    if is_large:
        return Symptom.LARGE_TRANSFER_AT_END_UNANSWERED if is_last else Symptom.LARGE_TRANSFER_UNANSWERED
    if medium is not None and command.blocks == 1 and end == medium.blocks:
        return Symptom.LAST_BLOCK_MISSING
    return Symptom.LAST_BLOCKS_UNANSWERED if is_last and command.blocks > 1 else None
