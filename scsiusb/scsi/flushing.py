"""SYNCHRONIZE CACHE, which devices without a cache refuse in several ways, and some never answer."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from scsiusb.errors import AbortedCommand, CheckCondition, DeviceTimeout, HardwareError, MediumError
from scsiusb.quirks.cures import Symptom
from scsiusb.quirks.model import Quirk
from scsiusb.scsi.commands.sbc import SynchronizeCache10
from scsiusb.scsi.sense import error_for

if TYPE_CHECKING:
    from scsiusb.scsi.attentions import Attentions
    from scsiusb.scsi.unit import LogicalUnit

FIRST_TIMEOUT: Final = 30.0  # seconds; the declared timeout is for units that are known to support the command
LEAST_TIMEOUT: Final = 10.0  # seconds; a unit that did not answer in less may only be slow

log = logging.getLogger(__name__)


def synchronize_cache(unit: LogicalUnit, attentions: Attentions, timeout: float | None) -> None:
    """See `LogicalUnit.synchronize_cache`; `attentions` are the unit's."""
    quirks = unit.transport.quirks
    if Quirk.NO_SYNCHRONIZE_CACHE in quirks or attentions.cannot_flush:
        log.debug("LUN %d: no SYNCHRONIZE CACHE", unit.lun)
        return
    limit = timeout or unit.timeout or (None if attentions.has_flushed else FIRST_TIMEOUT)
    try:
        is_supported = _send(unit, limit)
    except DeviceTimeout:
        if not attentions.has_flushed and (limit is None or limit >= LEAST_TIMEOUT):
            _note_unsupported(unit, attentions)
        raise
    if not is_supported:
        _note_unsupported(unit, attentions)
        return
    attentions.has_flushed = True
    if Quirk.SENSE_AFTER_SYNC in quirks:
        _check_sense(unit)


def _send(unit: LogicalUnit, timeout: float | None) -> bool:
    """Send SYNCHRONIZE CACHE(10); return whether the unit supports it.

    The unit does not if it refuses the command, or fails it twice without a reason (see `fetch_flush_sense`).
    """
    try:
        unit.execute(SynchronizeCache10(), timeout=timeout)
    except CheckCondition as error:
        if not error.sense.is_refusal:
            raise
        return False
    return True


def _check_sense(unit: LogicalUnit) -> None:
    """Raise the error that a unit reports only after a flush with good status."""
    try:
        raise error_for(unit.request_sense(), SynchronizeCache10.NAME)
    except (MediumError, HardwareError, AbortedCommand):
        raise
    except CheckCondition:
        return


def _note_unsupported(unit: LogicalUnit, attentions: Attentions) -> None:
    attentions.cannot_flush = True
    log.warning(
        "LUN %d: the device does not support SYNCHRONIZE CACHE; it is not sent again; %s",
        unit.lun,
        unit.cure(Symptom.FLUSH_REFUSED),
    )
