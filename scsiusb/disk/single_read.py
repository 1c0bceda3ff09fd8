"""One READ command that is not repeated, for those that decide themselves what is read when, such as a rescue."""

from __future__ import annotations

from functools import partial
from typing import Final

from scsiusb.disk.medium import READ, Medium
from scsiusb.scsi.retry import RetryPolicy
from scsiusb.scsi.unit import LogicalUnit

ONE_READ: Final = RetryPolicy(failures=0)  # the device did not begin a command that may still be sent again


def read_once(unit: LogicalUnit, medium: Medium, lba: int, blocks: int, *, timeout: float) -> bytes:
    """Return blocks, which one READ read with good status; it is neither repeated nor divided if it fails.

    `blocks`: at most `medium.max_blocks`. `timeout` in seconds. It is sent again only after a unit attention, or while
    the unit is becoming ready: the unit did not begin it then. After a reset, or an exchange that failed, a removable
    medium may be another one: look at `unit.doubts` before and after. Raise MediumChanged if the unit said that
    `medium` may not be in it any more, other CheckConditions, TransportError.
    """
    transport = unit.transport
    command = READ.command(medium, lba, blocks)
    state = partial(unit.retry_state, command, retry=ONE_READ, timeout=timeout)
    with transport.memory.lend(blocks * medium.block_size) as buffer:
        transport.drive(unit.transfer(command.cdb(), command.direction, buffer, timeout, state, medium))
        return bytes(buffer)
