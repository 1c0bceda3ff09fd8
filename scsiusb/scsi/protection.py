"""Write protection, as MODE SENSE reports it (SBC-3 6.4.1): some devices refuse the command, and a few never answer."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from scsiusb.errors import (
    Cancelled,
    CheckCondition,
    DataProtect,
    DeviceBusy,
    DeviceClosed,
    DeviceGone,
    IllegalRequest,
    TransportError,
)
from scsiusb.quirks.cures import Symptom
from scsiusb.quirks.model import Quirk
from scsiusb.scsi.command import Command
from scsiusb.scsi.commands.spc import ModeSense6, ModeSense10
from scsiusb.scsi.pages.mode import ModeParameters
from scsiusb.scsi.retry import RetryPolicy
from scsiusb.scsi.sense import Sense

if TYPE_CHECKING:
    from scsiusb.scsi.unit import LogicalUnit
TIMEOUT: Final = 5.0  # seconds; the answer is not worth a longer wait, as WRITE is refused by itself
ONE_TRY: Final = RetryPolicy(becoming_ready=0, failures=0)
TRANSPARENT_SCSI: Final = 0x06  # bInterfaceSubClass; the other subclasses have MODE SENSE(10) only
WRITE_PROTECTED: Final = Sense(0x7, 0x27, 0x00)

log = logging.getLogger(__name__)


def write_protection(unit: LogicalUnit) -> bool | None:
    """Return whether the medium is write protected (WP); None if the unit does not report it. Raise as below."""
    found = mode_parameters(unit)
    return None if found is None else found.write_protected


def mode_parameters(unit: LogicalUnit) -> ModeParameters | None:
    """Return the mode parameters, with all pages that fit into a short reply; None if the unit does not report them.

    A unit that refuses MODE SENSE, or does not answer it properly, is not asked again. Raise DeviceGone, DeviceClosed,
    DeviceBusy and Cancelled.
    """
    if Quirk.NO_WRITE_PROTECT_DETECTION in unit.transport.quirks or unit.attentions.cannot_report_protection:
        return None
    timeout = min(TIMEOUT, unit.timeout or TIMEOUT)
    try:
        for command in _commands(unit):
            try:
                return unit.execute(command, retry=ONE_TRY, timeout=timeout)
            except IllegalRequest as error:
                log.info("LUN %d: %s", unit.lun, error.what)
    except DeviceGone as error:
        error.remedy = f"{error.remedy}; {unit.cure(Symptom.LEFT_AT_MODE_SENSE)}"
        raise
    except (DeviceClosed, DeviceBusy, Cancelled):
        raise
    except CheckCondition as error:
        log.info("LUN %d: write protection is not known: %s", unit.lun, error.what)
        if not error.sense.is_empty:  # about the medium or the unit, not the command
            return None
    except TransportError as error:
        advice = unit.cure(Symptom.PROTECTION_UNANSWERED)
        log.warning("LUN %d: write protection is not known: %s; %s", unit.lun, error.what, advice)
    unit.attentions.cannot_report_protection = True
    return None


def write_protected_error(unit: LogicalUnit) -> DataProtect:
    """Return the error for a write that was not sent, because the medium is write protected."""
    what = f"LUN {unit.lun} of {unit.transport}: the medium is write protected: nothing was written"
    return DataProtect(what, WRITE_PROTECTED, f"look for a switch on it, or, {unit.cure(Symptom.WRITE_PROTECTED)}")


def _commands(unit: LogicalUnit) -> tuple[Command[ModeParameters], ...]:
    """Return the forms of MODE SENSE in the order in which to try them."""
    is_scsi = unit.transport.info.setting.subclass == TRANSPARENT_SCSI
    return (ModeSense6(), ModeSense10()) if is_scsi else (ModeSense10(), ModeSense6())
