"""Unmapping: lets a unit forget blocks, where it supports that (UNMAP, SBC-3 4.7)."""

from __future__ import annotations

import logging
from typing import Final, NamedTuple

from scsiusb.disk.disk import Disk
from scsiusb.errors import Cancelled, CheckCondition, DeviceClosed, DeviceGone, TransportError
from scsiusb.quirks.model import Quirk
from scsiusb.scsi.commands.sbc import Unmap
from scsiusb.scsi.pages.vpd import BlockLimits, LogicalBlockProvisioning, SupportedPages

SPC_3: Final = 5  # version in INQUIRY data; older devices may hang when asked for a VPD page
TIMEOUT: Final = 5.0  # seconds; as for other optional pages
USUAL: Final = 1 << 16  # blocks in a command, where the unit does not report how many it takes
MOST: Final = 1 << 21  # blocks in a command, so that its progress is seen and its time is limited

log = logging.getLogger(__name__)


class Unmapping(NamedTuple):
    """How a unit unmaps blocks."""

    most: int
    """Blocks in a command."""
    zeros: bool
    """Whether blocks read as zeros after it."""


def find_unmapping(disk: Disk) -> Unmapping | None:
    """Ask the unit; return None if it does not say that it supports UNMAP. Raise DeviceGone, DeviceClosed."""
    unit = disk.unit
    is_old = disk.inquiry().version < SPC_3 or Quirk.NO_VPD in unit.transport.quirks
    if is_old or unit.attentions.cannot_give_vpd:
        return None
    timeout = min(TIMEOUT, unit.timeout or TIMEOUT)
    try:
        supported = unit.vpd(SupportedPages.PAGE, timeout=timeout)
        if not isinstance(supported, SupportedPages) or LogicalBlockProvisioning.PAGE not in supported.pages:
            return None
        page = unit.vpd(LogicalBlockProvisioning.PAGE, timeout=timeout)
        limits = unit.vpd(BlockLimits.PAGE, timeout=timeout) if BlockLimits.PAGE in supported.pages else None
    except (DeviceGone, DeviceClosed, Cancelled):
        raise
    except (CheckCondition, TransportError) as error:
        log.info("UNMAP is not used: %s", error)
        return None
    if not isinstance(page, LogicalBlockProvisioning) or not page.unmap:
        return None
    most = limits.max_unmap_blocks if isinstance(limits, BlockLimits) else 0
    return Unmapping(min(most or USUAL, MOST), page.zeros)


def unmap(disk: Disk, lba: int, blocks: int) -> None:
    """Unmap blocks by one command. Raise as `Disk.execute`."""
    disk.execute(Unmap(lba, blocks))
