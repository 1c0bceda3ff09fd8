"""Reads or writes that are sent at once, to units that take several commands at a time."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

from scsiusb.errors import Cancelled, DeviceClosed, DeviceGone, DeviceTimeout, TransportError
from scsiusb.scsi.attentions import Bound
from scsiusb.scsi.auto_sense import ask_after_loss
from scsiusb.scsi.sense import Sense
from scsiusb.scsi.unit import LogicalUnit
from scsiusb.transport.base import GOOD, Direction, Enter, Request, Story

log = logging.getLogger(__name__)


class Batch(NamedTuple):
    """Commands of one direction that are sent at once."""

    requests: Sequence[Request]
    direction: Direction
    timeout: float
    """Seconds for each."""
    depth: int | None
    """How many are in flight at a time; None: as many as the device takes."""


def transfer_at_once(unit: LogicalUnit, batch: Batch, medium: Bound, *, must_be_settled: bool) -> Story[list[bool]]:
    """Send commands once, as many in flight as the transport takes; return for each if it succeeded.

    What did not succeed is to be done again, one command at a time, by `LogicalUnit.transfer`, which knows what to do
    about an error: to do it twice must do no harm. If the unit said anything by which the medium may be another one,
    none counts: commands in flight are carried out in any order, before that and after it. Writes to a medium that can
    be exchanged must not be sent so: those that follow the report of a change would go to the new one.
    `must_be_settled`: whether the medium can be another one after a reset, or after an exchange that failed.
    Raise DeviceGone, DeviceClosed, Cancelled; TransportError if nothing may be repeated.
    """
    turn = unit.transport.turn()
    try:
        if not turn.try_enter():
            yield Enter(turn)
        return (yield from _transfer(unit, batch, medium, must_be_settled))
    except (DeviceGone, DeviceClosed, Cancelled):
        raise
    except TransportError as error:
        if not error.may_repeat or (isinstance(error, DeviceTimeout) and unit.timeout is not None):
            raise
        log.info("LUN %d: %s; going on with one command at a time", unit.lun, error.what)
        return [False] * len(batch.requests)
    finally:
        try:  # as `leaving` does
            turn.leave()
        except BaseException:
            turn.leave()
            raise


def _transfer(unit: LogicalUnit, batch: Batch, medium: Bound, must_be_settled: bool) -> Story[list[bool]]:
    """Do it within the turn: nobody else's command comes between the commands and what is counted of them."""
    requests, direction, timeout, depth = batch
    attentions = unit.attentions
    if attentions.losses.count != attentions.losses_seen:
        yield from ask_after_loss(unit, timeout)
    settled = attentions.settled if must_be_settled else None
    if not _is_same(unit, medium, settled):
        return [False] * len(requests)  # one command at a time finds out
    ended = yield from unit.transport.exchange_many(unit.lun, requests, direction, timeout, depth)
    for completion, sense in ended:
        if completion.status != GOOD:
            _note(unit, sense)
    is_same = _is_same(unit, medium, settled)
    return [is_same and done == (GOOD, 0, len(data)) for (done, _), (_, data) in zip(ended, requests, strict=True)]


def _is_same(unit: LogicalUnit, medium: Bound, settled: int | None) -> bool:
    """Return whether nothing was said, or lost, by which the medium may be another one."""
    attentions = unit.attentions
    return medium.changes == attentions.medium_changes and settled in (None, attentions.doubts.count)


def _note(unit: LogicalUnit, told: bytes) -> None:
    """Count what a failed command said; if it said nothing, the next command asks first."""
    if not told:
        unit.attentions.count_loss()
        return
    try:
        sense = Sense.parse(told)
        unit.attentions.note(sense)
        unit.attentions.note_vague(sense)
    except BaseException:
        unit.attentions.count_loss()
        raise
