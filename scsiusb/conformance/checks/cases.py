"""The thirteen cases: host and device agree, or not, about how much data moves which way (BOT 6.7)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from scsiusb.conformance.device_under_test import DeviceUnderTest
from scsiusb.conformance.exchange import ExchangeResult, Request
from scsiusb.conformance.outcome import Check, NotApplicable, Severity, Violation
from scsiusb.scsi.commands.spc import Inquiry, TestUnitReady
from scsiusb.transport.base import FAILED, GOOD, Direction
from scsiusb.transport.bot.formats import STATUS_PHASE_ERROR
from scsiusb.usb.backend import Code

MORE: Final = 512  # bytes that the host announces and the command does not have
LESS: Final = 18  # of the 36 that INQUIRY has
SMALL: Final = 36
Making = Callable[[DeviceUnderTest], Request]
Announcing = Callable[[Request], int]


def inquiry(device: DeviceUnderTest) -> Request:
    if len(device.good(Inquiry()).data) != SMALL:
        raise NotApplicable("INQUIRY has fewer than 36 bytes of data")
    return Inquiry()


def reading(blocks: int) -> Making:
    return lambda device: device.reading(0, blocks)


def ready(device: DeviceUnderTest) -> Request:
    return TestUnitReady()


def exactly(length: int) -> Announcing:
    return lambda request: length


def twice(request: Request) -> int:
    return 2 * request.length


def half(request: Request) -> int:
    return request.length // 2


def agree_on_none(device: DeviceUnderTest) -> str:
    """Case 1."""
    ended = device.run(TestUnitReady())
    ended.require(ended.status in (GOOD, FAILED), "status 0 or 1")
    return ended.words


def agree_on_in(make: Making, device: DeviceUnderTest) -> str:
    """Case 6."""
    ended = device.run(make(device))
    ended.require(ended.status == GOOD, "status 0")
    ended.require(ended.moved == ended.length and ended.residue == 0, f"{ended.length} bytes and residue 0")
    ended.require(ended.data_code is Code.OK, "no STALL: all data came")
    return ended.words


def device_sends_less(make: Making, announced: Announcing, device: DeviceUnderTest) -> str:
    """Cases 4 and 5: the device may pad, or end early."""
    request = make(device)
    ended = device.exchange.command(request, announced(request), Direction.IN).require_csw()
    ended.require(ended.status in (GOOD, FAILED), "status 0 or 1: less data is no phase error")
    ended.require(ended.moved >= request.length, f"at least the {request.length} bytes of the command's data")
    right = ended.length - request.length
    ended.require(ended.residue == right, f"residue {right}: what was announced less what is relevant")
    return f"{ended.asked}: {ended.words}"


def stalls_when_early(device: DeviceUnderTest) -> str:
    request = inquiry(device)
    for command in (TestUnitReady(), request):
        ended = device.exchange.command(command, MORE, Direction.IN).require_csw()
        if ended.moved < ended.length:
            ended.require(ended.data_code is Code.PIPE or ended.stalls > 0, "a STALL behind the data")
    return "STALL behind the data, or data up to what was announced"


def no_needless_stall(device: DeviceUnderTest) -> str:
    for request in (TestUnitReady(), inquiry(device)):
        ended = device.run(request)
        ended.require(ended.is_failed or not ended.stalls, "no STALL: all data moved")
    return "no STALL where host and device agree"


def device_has_more(make: Making, announced: Announcing, device: DeviceUnderTest) -> str:
    """Cases 2 and 7."""
    request = make(device)
    return _phase_error(device.exchange.command(request, announced(request), Direction.IN))


def _phase_error(ended: ExchangeResult) -> str:
    ended.require_csw()
    ended.require(ended.status == STATUS_PHASE_ERROR, "status 2, phase error")
    return f"{ended.asked}: {ended.words}"


def host_sends_to_none(device: DeviceUnderTest) -> str:
    """Case 9."""
    ended = device.exchange.command(TestUnitReady(), payload=bytes(MORE)).require_csw()
    ended.require(ended.status in (GOOD, FAILED), "status 0 or 1")
    ended.require(ended.residue == MORE, f"residue {MORE}: nothing was processed")
    return f"{ended.asked}: {ended.words}"


def host_sends_to_sender(make: Making, device: DeviceUnderTest) -> str:
    """Case 10."""
    request = make(device)
    return _phase_error(device.exchange.command(request, payload=bytes(request.length)))


def no_status_2_for_failure(device: DeviceUnderTest) -> str:
    """A command that fails in an exchange that both agree on is no phase error."""
    ended = device.run(_Refused())
    ended.require(ended.status == FAILED, "status 1")
    return ended.words


class _Refused:
    """INQUIRY with a page code and without EVPD, of 36 bytes."""

    length = SMALL
    direction = Direction.IN

    def cdb(self) -> bytes:
        return bytes((0x12, 0, 0x80, 0, SMALL, 0))

    def __str__(self) -> str:
        return "INQUIRY of page 80h without EVPD"


def data_is_right(device: DeviceUnderTest) -> str:
    """Cases 5 and 7 must not spoil what comes: READ of one block, with one and two announced."""
    request = device.reading(0, 1)
    right = device.read(0, 1)
    ended = device.exchange.command(request, 2 * request.length).require_csw()
    if ended.status == GOOD and ended.data[: request.length] != right:
        raise Violation(ended.asked, "other data than by itself", "the block's content first")
    return f"{ended.asked}: {ended.words}"


IN: Final = "BOT 6.7.2"
CHECKS: Final = (
    Check("case-1", "BOT 6.7.1", "Hn = Dn: status 0 or 1, without data.", agree_on_none),
    Check(
        "case-2",
        "BOT 6.7.1",
        "Hn < Di: a device that has data where none is announced reports a phase error.",
        partial(device_has_more, inquiry, exactly(0)),
    ),
    Check(
        "case-2-read",
        "BOT 6.7.1",
        "Hn < Di, of a READ: a phase error.",
        partial(device_has_more, reading(1), exactly(0)),
        needs_medium=True,
    ),
    Check(
        "case-4",
        IN,
        "Hi > Dn: status 0 or 1, and all that was announced is residue.",
        partial(device_sends_less, ready, exactly(MORE)),
    ),
    Check(
        "case-5",
        IN,
        "Hi > Di: all the data, then padding or an early end; the residue is the difference.",
        partial(device_sends_less, inquiry, exactly(MORE)),
    ),
    Check(
        "case-5-read",
        IN,
        "Hi > Di, of a READ: all the data, and the residue is the difference.",
        partial(device_sends_less, reading(1), twice),
        needs_medium=True,
    ),
    Check("case-5-data", IN, "Hi > Di, of a READ: the data is the block's.", data_is_right, needs_medium=True),
    Check(
        "early-end-stalls",
        IN,
        "Data that ends early without padding is followed by a STALL.",
        stalls_when_early,
        Severity.SHOULD,
    ),
    Check(
        "no-needless-stall",
        "BOT 5.3.3",
        "Where host and device agree and the command succeeds, nothing stalls.",
        no_needless_stall,
        Severity.SHOULD,
    ),
    Check("case-6", IN, "Hi = Di: exactly the data, status 0, residue 0.", partial(agree_on_in, inquiry)),
    Check(
        "case-6-read",
        IN,
        "Hi = Di, of a READ: exactly the data, status 0, residue 0.",
        partial(agree_on_in, reading(8)),
        needs_medium=True,
    ),
    Check(
        "case-7",
        IN,
        "Hi < Di: no more than was announced, and a phase error.",
        partial(device_has_more, inquiry, exactly(LESS)),
    ),
    Check(
        "case-7-read",
        IN,
        "Hi < Di, of a READ: no more than was announced, and a phase error.",
        partial(device_has_more, reading(2), half),
        needs_medium=True,
    ),
    Check("case-9", "BOT 6.7.3", "Ho > Dn: status 0 or 1, and all that was announced is residue.", host_sends_to_none),
    Check(
        "case-10",
        "BOT 6.7.3",
        "Ho <> Di: a device that means to send while the host sends reports a phase error.",
        partial(host_sends_to_sender, inquiry),
    ),
    Check(
        "case-10-read",
        "BOT 6.7.3",
        "Ho <> Di, of a READ: a phase error.",
        partial(host_sends_to_sender, reading(1)),
        needs_medium=True,
    ),
    Check(
        "failure-is-no-phase-error",
        "BOT 6.6.4",
        "A command that fails ends with status 1, not 2.",
        no_status_2_for_failure,
    ),
)
