"""REQUEST SENSE after a failed command or a lost exchange, in the turn of that command: another one would clear it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from scsiusb.errors import CheckCondition, MalformedReply
from scsiusb.quirks.model import Quirk
from scsiusb.scsi.command import Command
from scsiusb.scsi.commands.spc import SENSE_LENGTH, Inquiry, RequestSense
from scsiusb.scsi.pages.inquiry import CD_ROM
from scsiusb.scsi.sense import MEDIUM_NOT_PRESENT, UNIT_ATTENTION, Sense, error_for
from scsiusb.transport.base import GOOD, Completion, Story

if TYPE_CHECKING:
    from scsiusb.scsi.unit import LogicalUnit

LONG_SENSE: Final = 96  # as Linux asks those that can say more than 18 bytes
REQUEST_SENSE: Final = 0x03  # the operation code
ASK_TIMEOUT: Final = 5.0  # seconds for REQUEST SENSE after a lost exchange

R = TypeVar("R")


def sense_length(unit: LogicalUnit) -> int:
    """Return how many bytes of sense data to ask for: more only of a unit that is known to have more."""
    quirks = unit.transport.quirks
    is_long = Quirk.SANE_SENSE in quirks or unit.attentions.has_long_sense
    return LONG_SENSE if is_long and Quirk.BAD_SENSE not in quirks else SENSE_LENGTH


def ask_after_loss(unit: LogicalUnit, timeout: float) -> Story[None]:
    """Send REQUEST SENSE first after a lost exchange, in whose status the unit may have reported something.

    A change or a reset that the unit still reports is counted as such. The loss remains a doubt. If no sense came, or
    an attention without its reason, a reset is counted.
    """
    attentions = unit.attentions
    seen = attentions.losses.count
    try:
        sense = yield from _sense_now(unit, min(timeout, ASK_TIMEOUT))
    except BaseException:
        attentions.count_reset()
        raise
    attentions.note(sense)
    if not sense.raw or sense.is_unreadable or (sense.is_vague and sense.key == UNIT_ATTENTION):
        attentions.count_reset()
    attentions.losses_seen = seen


def fetch_sense(unit: LogicalUnit, timeout: float | None, *, is_worn: bool, counts_empty: bool = True) -> Story[Sense]:
    """Fetch the sense of a failed command; it is never retried. `is_worn`: see `RetryState.is_worn`.

    If the sense is lost, count a medium change and a reset: the unit may have reported one in it, and reports each
    only once. Without `counts_empty`, the caller counts what an empty sense may hide.
    """
    attentions = unit.attentions
    try:
        sense = yield from _sense_now(unit, timeout)
        if sense.is_unit_not_supported and is_worn:
            sense = yield from _without_sense(unit, sense, timeout)
        attentions.note(sense)
        attentions.has_long_sense |= sense.says_more
        if counts_empty or not _has_no_reason(sense):
            attentions.note_vague(sense)
    except BaseException:
        attentions.medium_changes += 1
        attentions.count_reset()
        raise
    return sense


def fetch_flush_sense(
    unit: LogicalUnit, again: Callable[[], Story[Completion]], timeout: float | None, *, is_worn: bool
) -> Story[Sense | None]:
    """Fetch the sense of a failed SYNCHRONIZE CACHE; if it is empty, send the command again, by the story of `again`.

    A unit that fails it again without a reason does so always: no reset was hidden, and none is counted; the empty
    sense is returned. Where a block of the medium is known, the next block command looks whether a change was hidden.
    Else the first failure may have hidden a reset. Return None if the second command succeeded. All is in one turn: no
    other user comes between the failure and its count.
    """
    hiding: Sense | None = None
    try:
        sense = yield from fetch_sense(unit, timeout, is_worn=is_worn, counts_empty=False)
        if not _has_no_reason(sense):
            return sense
        hiding = sense
        if (yield from again()).status == GOOD:
            return None
        second = yield from fetch_sense(unit, timeout, is_worn=is_worn, counts_empty=False)
        if _has_no_reason(second):
            hiding = None
            unit.attentions.doubts.count += unit.attentions.witness is not None
        return second
    finally:
        if hiding is not None:
            unit.attentions.note_vague(hiding)


def _has_no_reason(sense: Sense) -> bool:
    return sense.is_empty and not sense.deferred


def _sense_now(unit: LogicalUnit, timeout: float | None) -> Story[Sense]:
    try:
        return (yield from _reply_of(unit, RequestSense(length=sense_length(unit)), timeout))
    except CheckCondition:
        return Sense(0, 0, 0)


def _without_sense(unit: LogicalUnit, sense: Sense, timeout: float | None) -> Story[Sense]:
    """Find out what the sense would be of a unit that cannot give it.

    QEMU's usb-bot answers each REQUEST SENSE to a LUN above 0 with "logical unit not supported", though the unit
    is there. A CD-ROM drive can be asked otherwise whether it is empty.
    """
    if Quirk.NO_INQUIRY in unit.transport.quirks:
        return sense
    from scsiusb.scsi.commands.mmc import GetMediaEvent

    try:
        if (yield from _reply_of(unit, Inquiry(), timeout)).peripheral_device_type != CD_ROM:
            return sense
        event = yield from _reply_of(unit, GetMediaEvent(), timeout)
    except (CheckCondition, MalformedReply):
        return sense
    return sense if event.no_event or event.present else MEDIUM_NOT_PRESENT


def _reply_of(unit: LogicalUnit, command: Command[R], timeout: float | None) -> Story[R]:
    """Run a command once, in a turn that was taken, and without asking for its sense: an error stands for any."""
    transport, limit = unit.transport, timeout or unit.timeout or command.timeout
    with transport.memory.lend(command.length) as buffer:
        completion = yield from transport.exchange(unit.lun, command.cdb(), command.direction, buffer, limit)
        if completion.status != GOOD:
            raise error_for(Sense(0, 0, 0), str(command))
        return command.reply(bytes(buffer[: completion.processed(command.length)]))
