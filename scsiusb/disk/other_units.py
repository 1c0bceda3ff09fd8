"""The other units of a device, such as the slots of a card reader: which of them have a medium."""

from __future__ import annotations

import logging
from typing import Final

from scsiusb.errors import Cancelled, CheckCondition, DeviceClosed, DeviceGone, NoMedium, TransportError
from scsiusb.quirks.model import Quirk
from scsiusb.scsi.retry import RetryPolicy
from scsiusb.scsi.unit import LogicalUnit

TIMEOUT: Final = 1.0  # seconds for a unit; the answer only makes an error clearer
ONE_TRY: Final = RetryPolicy(becoming_ready=0, failures=0)

log = logging.getLogger(__name__)


def name_units_with_medium(unit: LogicalUnit, error: NoMedium) -> None:
    """Add to the remedy of an error the other units of the device that have a medium.

    They are not asked again once one of them has not answered. Raise DeviceGone, DeviceClosed and Cancelled.
    """
    if unit.attentions.is_alone or Quirk.NO_TEST_UNIT_READY in unit.transport.quirks:
        return
    try:
        found = [lun for lun in range(unit.transport.max_lun + 1) if lun != unit.lun and _has_medium(unit, lun)]
    except (DeviceGone, DeviceClosed, Cancelled):
        raise
    except TransportError as failure:
        log.info("a unit did not answer: %s", failure)
        unit.attentions.is_alone = True
        return
    if found:
        units = f"unit {found[0]} has" if len(found) == 1 else f"units {', '.join(map(str, found))} have"
        error.remedy = f"{units} a medium: use lun={found[0]} (--lun {found[0]}), or insert one into unit {unit.lun}"


def _has_medium(unit: LogicalUnit, lun: int) -> bool:
    try:
        LogicalUnit(unit.transport, lun, retry=ONE_TRY, timeout=min(TIMEOUT, unit.timeout or TIMEOUT)).test_unit_ready()
    except CheckCondition:
        return False
    return True
