"""The medium in a unit: the number and size of its blocks, and the commands that move them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Final, NamedTuple

from scsiusb.errors import (
    Cancelled,
    CheckCondition,
    DeviceClosed,
    DeviceGone,
    DeviceTimeout,
    MalformedReply,
    MediumChanged,
    OutOfRange,
    TransportError,
)
from scsiusb.quirks.cures import Symptom
from scsiusb.quirks.model import Quirk
from scsiusb.scsi.advice import LAST_BLOCKS
from scsiusb.scsi.commands.sbc import BlockCommand, Capacity, Read10, Read16, Write10, Write16
from scsiusb.scsi.pages.vpd import BlockLimits, SupportedPages
from scsiusb.scsi.retry import NO_RETRY
from scsiusb.scsi.sense import MEDIUM_CHANGED
from scsiusb.scsi.unit import LogicalUnit

MAX_BLOCKS_10: Final = 0xFFFF
PIECE: Final = 128 * 1024  # bytes of each of several commands at once: a device works on all, and none waits long
BEYOND_LBA_10: Final = 1 << 32  # the first LBA that READ(10) and WRITE(10) cannot address
SPC_3: Final = 5  # version in INQUIRY data; older devices may hang when asked for a VPD page
NEVER_STILL: Final = "the unit reported changes or resets of its medium again and again"
MOST_ROUNDS: Final = 5  # of asking for the capacity, until nothing happens meanwhile
PROBE_TIMEOUT: Final = 5.0  # seconds; newer devices may hang as well, and the page is optional

log = logging.getLogger(__name__)


class Medium(NamedTuple):
    """What block addresses refer to, until the unit reports that its medium may have changed."""

    blocks: int
    block_size: int
    max_blocks: int
    changes: int  # the unit's `medium_changes` at that time
    alone_from: int  # from this LBA on, each block is moved by a separate command
    is_removable: bool = False  # it may be exchanged while the unit stays


class BlockTransfer:
    """Reading or writing: a 10-byte command for blocks below 2^32 (`near`), a 16-byte one for later blocks (`far`)."""

    def __init__(self, near: type[BlockCommand], far: type[BlockCommand]) -> None:
        self.direction = near.direction
        self.timeout = near.timeout
        self._near, self._far = near, far
        self._pack_near, self._pack_far = near.positional("lba", "blocks"), far.positional("lba", "blocks")

    def cdb(self, lba: int, blocks: int) -> bytes:
        """Return the CDB of `command`, without the cost of making that object."""
        return self._pack_near(lba, blocks) if lba + blocks <= BEYOND_LBA_10 else self._pack_far(lba, blocks)

    def command(self, medium: Medium, lba: int, blocks: int) -> BlockCommand:
        """Return the command that moves `blocks` blocks from `lba` on."""
        kind = self._near if lba + blocks <= BEYOND_LBA_10 else self._far
        return kind(lba, blocks, block_size=medium.block_size)


class ForcedTransfer(BlockTransfer):
    """The same, past the device's cache (FUA, SBC-3 4.10); for units that support it."""

    def cdb(self, lba: int, blocks: int) -> bytes:
        """See `BlockTransfer.cdb`."""
        kind = self._near if lba + blocks <= BEYOND_LBA_10 else self._far
        return kind(lba, blocks, block_size=0, fua=True).cdb()


READ: Final = BlockTransfer(Read10, Read16)
READ_FUA: Final = ForcedTransfer(Read10, Read16)
WRITE: Final = BlockTransfer(Write10, Write16)


def check_fits(medium: Medium, lba: int, view: memoryview) -> None:
    """Raise ValueError if the view has a partial block, OutOfRange for blocks that the medium does not have."""
    if len(view) % medium.block_size:
        raise ValueError(f"{len(view)} bytes are not a multiple of the block size {medium.block_size}")
    check_range(medium, lba, len(view) // medium.block_size)


def check_range(medium: Medium, lba: int, blocks: int) -> None:
    """Raise OutOfRange (a ValueError) for blocks that the medium does not have, ValueError for negative numbers."""
    if lba < 0 or blocks < 0:
        raise ValueError(f"LBA {lba} and {blocks} blocks: neither can be negative")
    if lba + blocks > medium.blocks:
        raise OutOfRange(
            f"{blocks} block{'s' * (blocks != 1)} at LBA {lba}: beyond the medium's {medium.blocks} blocks",
            f"the last block is {medium.blocks - 1}",
        )


def pieces(
    medium: Medium, lba: int, blocks: int, view: memoryview, most: int | None
) -> Iterator[tuple[int, int, memoryview]]:
    """Yield the LBA, number of blocks and bytes of each command; `most` blocks each, or the medium's `max_blocks`."""
    done = 0
    while done < blocks:
        count = min(most or medium.max_blocks, blocks - done, max(medium.alone_from - lba - done, 1))
        start = done * medium.block_size
        yield lba + done, count, view[start : start + count * medium.block_size]
        done += count


def find_medium(unit: LogicalUnit) -> Medium:
    """Make the unit ready, and ask for its capacity and its limits. Raises NoMedium, NotReady."""
    version, is_removable = _identity(unit)  # before TEST UNIT READY: some devices need this order
    unit.make_ready()
    transport = unit.transport
    capacity, changes = _settled_capacity(unit, is_removable=is_removable)
    doubts = unit.doubts
    quirks = transport.quirks
    if Quirk.INITIAL_READ_10 in quirks:
        _read_and_ignore(unit, capacity.block_size)
    by_bus = max(1, transport.max_transfer // capacity.block_size)
    by_device = _max_transfer_by_vpd(unit) if version >= SPC_3 and Quirk.NO_VPD not in quirks else 0
    if unit.doubts != doubts:  # what is optional has failed; nothing was read of the medium yet
        capacity, changes = _settled_capacity(unit, is_removable=is_removable)
    most = min(filter(None, (by_bus, by_device, MAX_BLOCKS_10)))
    alone = LAST_BLOCKS if Quirk.LAST_SECTOR_ALONE in quirks else 1
    return Medium(capacity.blocks, capacity.block_size, most, changes, capacity.blocks - alone, is_removable)


def _settled_capacity(unit: LogicalUnit, *, is_removable: bool) -> tuple[Capacity, int]:
    """Return the capacity, and the count of medium changes at which it was read.

    Something that may have hidden a change is settled here, unless a block is known by which the next block command can
    find out whether it hid one: other users may rely on a medium that they found before. Raise MediumChanged.
    """
    attentions = unit.attentions
    for _ in range(MOST_ROUNDS):
        changes, doubts = unit.medium_changes, unit.doubts
        capacity = unit.read_capacity()
        if (changes, doubts) != (unit.medium_changes, unit.doubts):  # another user met a change, or a retry did
            continue
        witness = attentions.witness
        if attentions.settled == doubts or (witness is not None and witness.changes == changes):
            return capacity, changes
        attentions.settle(doubts, is_same=not is_removable)
        if unit.medium_changes == changes:
            return capacity, changes
    raise MediumChanged(NEVER_STILL, MEDIUM_CHANGED)


def _read_and_ignore(unit: LogicalUnit, block_size: int) -> None:
    """Read a block and ignore the result: some devices answer the first READ(10) with an error or with wrong data."""
    try:
        unit.execute(Read10(0, 1, block_size=block_size), retry=NO_RETRY)
    except (DeviceGone, DeviceClosed, Cancelled):
        raise
    except (CheckCondition, TransportError) as error:
        log.info("the first read failed, as the device's quirk says: %s", error)


def _identity(unit: LogicalUnit) -> tuple[int, bool]:
    """Return the version of the SCSI standard in the INQUIRY data, and its RMB bit; 0 and True if it is malformed."""
    try:
        data = unit.inquiry()
    except MalformedReply as error:
        log.warning("LUN %d of %s: %s", unit.lun, unit.transport, error.what)
        return 0, True
    return data.version, data.removable


def _max_transfer_by_vpd(unit: LogicalUnit) -> int:
    """Return the maximum transfer length in blocks (Block Limits VPD page); 0 if the device does not report it."""
    if unit.attentions.cannot_give_vpd:
        return 0
    timeout = min(PROBE_TIMEOUT, unit.timeout or PROBE_TIMEOUT)
    try:
        supported = unit.vpd(SupportedPages.PAGE, timeout=timeout)
        if not isinstance(supported, SupportedPages) or BlockLimits.PAGE not in supported.pages:
            return 0
        limits = unit.vpd(BlockLimits.PAGE, timeout=timeout)
    except DeviceGone as error:
        error.remedy = f"{error.remedy}; {unit.cure(Symptom.LEFT_AT_VPD)}"
        raise
    except (DeviceClosed, Cancelled):
        raise
    except DeviceTimeout as error:
        unit.attentions.cannot_give_vpd = True
        log.warning("LUN %d: no block limits: %s; %s", unit.lun, error.what, unit.cure(Symptom.VPD_UNANSWERED))
        return 0
    except (CheckCondition, TransportError) as error:
        log.info("no block limits: %s", error)
        return 0
    return limits.max_transfer if isinstance(limits, BlockLimits) else 0
