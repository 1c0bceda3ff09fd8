"""The capacity of a medium, from what devices report: impossible values are corrected, or are errors."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from scsiusb.errors import CheckCondition, MalformedReply
from scsiusb.quirks.model import Quirk
from scsiusb.scsi.commands.sbc import TOO_LARGE_FOR_10, Capacity, ReadCapacity10, ReadCapacity16
from scsiusb.scsi.commands.spc import Inquiry
from scsiusb.scsi.pages.inquiry import DISK, OPTICAL
from scsiusb.scsi.retry import RetryPolicy
from scsiusb.transport.base import Story

if TYPE_CHECKING:
    from scsiusb.scsi.attentions import Attentions
    from scsiusb.scsi.unit import LogicalUnit

USUAL_BLOCK: Final = 512  # bytes
OPTICAL_BLOCK: Final = 2048
ODD_SECTORS: Final = (0, 2340, 2352)  # bytes; some optical units report the length of a raw sector, or none
LARGEST_BLOCK: Final = 0x10000  # bytes; no medium has larger blocks, and a buffer is made of this
LARGEST_SIZE: Final = 1 << 63  # bytes

log = logging.getLogger(__name__)


def capacity_story(unit: LogicalUnit, attentions: Attentions, retry: RetryPolicy | None) -> Story[Capacity]:
    """Story of `LogicalUnit.read_capacity`; `attentions` are the unit's."""
    capacity = yield from _claimed_capacity(unit, attentions, retry)
    claimed = capacity.block_size
    if claimed in ODD_SECTORS:
        is_optical = (yield from _device_type(unit)) in OPTICAL
        usual = OPTICAL_BLOCK if is_optical else claimed or USUAL_BLOCK
        if usual != claimed:
            log.warning("LUN %d: READ CAPACITY: the block size is %d; taken for %d", unit.lun, claimed, usual)
        capacity = replace(capacity, block_size=usual)
    if capacity.block_size > LARGEST_BLOCK or capacity.block_size % 4:
        raise MalformedReply(f"READ CAPACITY: the block size is {capacity.block_size}")
    if capacity.blocks * capacity.block_size > LARGEST_SIZE:
        raise MalformedReply(f"READ CAPACITY: {capacity.blocks} blocks are more than any medium has")
    return _corrected_capacity(capacity, unit.transport.quirks)


def _claimed_capacity(unit: LogicalUnit, attentions: Attentions, retry: RetryPolicy | None) -> Story[Capacity]:
    """Return what READ CAPACITY reports: (10), or (16) where the medium is too large for it or a quirk says so."""
    quirks = unit.transport.quirks
    if Quirk.ONLY_READ_CAPACITY_16 in quirks:
        return (yield from unit.story(ReadCapacity16(), retry=retry))
    capacity: Capacity = yield from unit.story(ReadCapacity10(), retry=retry)
    is_refused = Quirk.NO_READ_CAPACITY_16 in quirks or attentions.no_read_capacity_16
    if capacity.last_lba < TOO_LARGE_FOR_10 or is_refused:
        return capacity
    try:
        return (yield from unit.story(ReadCapacity16(), retry=retry))
    except CheckCondition as error:
        if not error.sense.is_refusal:
            raise
        attentions.no_read_capacity_16 = True
        log.warning("LUN %d: %s; only %d blocks can be used", unit.lun, error.what, capacity.blocks)
        return capacity


def _device_type(unit: LogicalUnit) -> Story[int]:
    """Return the peripheral device type (SPC-4 table 138); that of a disk where INQUIRY does not help."""
    if Quirk.NO_INQUIRY in unit.transport.quirks:
        return DISK
    try:
        return (yield from unit.story(Inquiry())).peripheral_device_type
    except (CheckCondition, MalformedReply):
        return DISK


def _corrected_capacity(capacity: Capacity, quirks: Quirk) -> Capacity:
    """Return the capacity without the block that some devices count too many, where a quirk says so."""
    is_guess = Quirk.CAPACITY_HEURISTICS in quirks and Quirk.CAPACITY_OK not in quirks
    if capacity.last_lba and (Quirk.FIX_CAPACITY in quirks or (is_guess and capacity.blocks % 2)):
        return replace(capacity, last_lba=capacity.last_lba - 1)
    return capacity
