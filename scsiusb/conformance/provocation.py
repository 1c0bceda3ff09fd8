"""Failures that checks provoke on purpose.

A device that accepts the command does not show how it fails: then a check of that must not blame its own clause.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from scsiusb.conformance.device_under_test import DeviceUnderTest
from scsiusb.conformance.exchange import ExchangeResult, Raw, Request
from scsiusb.conformance.outcome import NotApplicable, Violation
from scsiusb.scsi.commands.sbc import TOO_LARGE_FOR_10, Read10
from scsiusb.scsi.commands.spc import ModeSense6
from scsiusb.transport.base import Direction
from scsiusb.transport.bot.formats import STATUS_PHASE_ERROR

UNASSIGNED: Final = (0x4F, 0x1F)  # operation codes that no standard has given to a command
GROUP_LENGTHS: Final = (6, 10, 10)  # bytes of a CDB, by the group in bits 5 to 7 of the operation code (SPC-4 4.2.5.1)
SMALL: Final = 36  # bytes of standard INQUIRY data
RESERVED_PAGE: Final = 0x17  # mode page code


def unassigned(opcode: int = UNASSIGNED[0], length: int = 0) -> Raw:
    """Return a command that cannot exist, which announces `length` bytes of data-in."""
    block = bytes((opcode,)).ljust(GROUP_LENGTHS[opcode >> 5], b"\0")
    direction = Direction.IN if length else Direction.NONE
    return Raw(f"unsupported command {opcode:02X}h", block, length, direction)


def page_without_evpd() -> Raw:
    """Return an INQUIRY with a page code but without EVPD, which a device must refuse; many accept it."""
    return Raw("INQUIRY of page 80h without EVPD", bytes((0x12, 0, 0x80, 0, SMALL, 0)), SMALL)


def provoke(device: DeviceUnderTest, length: int = 0) -> ExchangeResult:
    """Run a command that fails, and return its result before its sense data is read; see `unassigned` for `length`.

    Raises NotApplicable if no such command fails with status 1.
    """
    reason = "the device accepts commands that cannot exist"
    for opcode in UNASSIGNED:
        try:
            result = device.run(unassigned(opcode, length))
        except Violation as violation:
            raise NotApplicable(f"no failure can be provoked: {violation}") from violation
        if result.is_failed:
            return result
        if result.status == STATUS_PHASE_ERROR:
            reason = f"no failure can be provoked: {result.asked}: {result.description}"
            device.exchange.reset_recovery()
    raise NotApplicable(reason)


def kinds(device: DeviceUnderTest) -> Iterator[Request]:
    """Yield commands that must fail, each for another reason."""
    yield from map(unassigned, UNASSIGNED[:1])
    yield page_without_evpd()
    yield ModeSense6(page=RESERVED_PAGE)
    if device.is_ready:
        with suppress(NotApplicable, Violation):  # of a wrong capacity, which other checks report
            yield Read10(TOO_LARGE_FOR_10, 1, block_size=device.block_size)
