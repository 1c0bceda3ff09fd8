"""The medium in a unit: how many blocks of which size, and how many of them one command may move."""

from __future__ import annotations

import logging
from typing import Final, NamedTuple

from scsiusb.errors import Cancelled, CheckCondition, DeviceClosed, DeviceGone, MalformedReply, TransportError
from scsiusb.scsi.block import Read10
from scsiusb.scsi.retry import NO_RETRY
from scsiusb.scsi.unit import LogicalUnit
from scsiusb.scsi.vpd import BlockLimits, SupportedPages
from scsiusb.usb.quirks import Quirk

MAX_BLOCKS_10: Final = 0xFFFF
SPC_3: Final = 5  # INQUIRY version; older devices may hang on a VPD page
PROBE_TIMEOUT: Final = 5.0  # newer ones too, and the page is not needed

log = logging.getLogger(__name__)


class Medium(NamedTuple):
    """What block addresses mean, until the unit says that its medium changed."""

    blocks: int
    block_size: int
    max_blocks: int
    changes: int  # of the unit's `medium_changes`
    last_alone: bool = False  # the last block goes into a command of its own


def find_medium(unit: LogicalUnit) -> Medium:
    """Makes the unit ready and asks it. Raises NoMedium, NotReady."""
    version = _version(unit)  # before TEST UNIT READY: some devices want it so
    unit.make_ready()
    transport = unit.transport
    with transport.hold():
        capacity = unit.read_capacity()
        changes = unit.medium_changes
    quirks = transport.quirks
    if Quirk.INITIAL_READ_10 in quirks:
        _read_in_vain(unit, capacity.block_size)
    by_bus = max(1, transport.max_transfer // capacity.block_size)
    by_device = _max_transfer_by_vpd(unit) if version >= SPC_3 and Quirk.NO_VPD not in quirks else 0
    most = min(filter(None, (by_bus, by_device, MAX_BLOCKS_10)))
    return Medium(capacity.blocks, capacity.block_size, most, changes, Quirk.LAST_SECTOR_ALONE in quirks)


def _read_in_vain(unit: LogicalUnit, block_size: int) -> None:
    """Some answer the first READ(10) of a medium with an error, or with bytes that mean nothing."""
    try:
        unit.execute(Read10(0, 1, block_size=block_size), retry=NO_RETRY)
    except (DeviceGone, DeviceClosed, Cancelled):
        raise
    except (CheckCondition, TransportError) as error:
        log.info("the first read failed, as a quirk foretold: %s", error)


def _version(unit: LogicalUnit) -> int:
    """Of the standards that the unit claims; it can be read without."""
    try:
        return unit.inquiry().version
    except MalformedReply as error:
        log.warning("LUN %d of %s: %s", unit.lun, unit.transport, error.what)
        return 0


def _max_transfer_by_vpd(unit: LogicalUnit) -> int:
    """In blocks; 0 where the device does not say."""
    timeout = min(PROBE_TIMEOUT, unit.timeout or PROBE_TIMEOUT)
    try:
        supported = unit.vpd(SupportedPages.PAGE, timeout=timeout)
        if not isinstance(supported, SupportedPages) or BlockLimits.PAGE not in supported.pages:
            return 0
        limits = unit.vpd(BlockLimits.PAGE, timeout=timeout)
    except (DeviceGone, DeviceClosed, Cancelled):
        raise
    except (CheckCondition, TransportError) as error:
        log.info("no block limits: %s", error)
        return 0
    return limits.max_transfer if isinstance(limits, BlockLimits) else 0
