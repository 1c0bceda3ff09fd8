"""Checks of the thirteen cases of BOT 6.7: what host and device expect of the data phase, and how it must end.

H is what the host announces in the CBW, D what the device intends to transfer; n: no data, i: data-in, o: data-out.
The cases that write are in `writing`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from scsiusb.conformance.device_under_test import DeviceUnderTest
from scsiusb.conformance.exchange import ExchangeResult, Request
from scsiusb.conformance.outcome import Check, NotApplicable, Severity, Violation
from scsiusb.conformance.provocation import SMALL, UNASSIGNED, unassigned
from scsiusb.scsi.commands.spc import Inquiry, TestUnitReady
from scsiusb.transport.base import FAILED, GOOD, Direction
from scsiusb.transport.bot.formats import STATUS_PHASE_ERROR
from scsiusb.usb.backend import Code

MORE: Final = 512  # bytes to announce; more than the command transfers
LESS: Final = 18  # bytes to announce, of the 36 of INQUIRY
MakeRequest = Callable[[DeviceUnderTest], Request]
AnnouncedLength = Callable[[Request], int]


def inquiry(device: DeviceUnderTest) -> Request:
    """Return an INQUIRY of 36 bytes. NotApplicable if the device has less INQUIRY data."""
    if len(device.good(Inquiry()).data) != SMALL:
        raise NotApplicable("INQUIRY has fewer than 36 bytes of data")
    return Inquiry()


def reading(blocks: int) -> MakeRequest:
    """Return a function that makes a READ of so many blocks at LBA 0. NotApplicable if the READ alone fails."""

    def make(device: DeviceUnderTest) -> Request:
        request = device.reading(0, blocks)
        if not device.works(request):
            raise NotApplicable(f"{request} fails also when all its data is announced")
        return request

    return make


def ready(device: DeviceUnderTest) -> Request:
    """Return a TEST UNIT READY, which has no data."""
    return TestUnitReady()


def exactly(length: int) -> AnnouncedLength:
    """Return a function that announces `length` bytes for any request."""
    return lambda request: length


def twice(request: Request) -> int:
    """Announce twice the data of the request."""
    return 2 * request.length


def half(request: Request) -> int:
    """Announce half of the data of the request."""
    return request.length // 2


def agree_on_none(device: DeviceUnderTest) -> str:
    """Case 1: send a command without data."""
    result = device.run(TestUnitReady())
    result.require(result.status in (GOOD, FAILED), "status 0 or 1")
    return result.description


def agree_on_in(make: MakeRequest, device: DeviceUnderTest) -> str:
    """Case 6: announce exactly the data-in of the command."""
    result = device.run(make(device))
    result.require(result.status == GOOD, "status 0")
    result.require(result.moved == result.length and result.residue == 0, f"{result.length} bytes and residue 0")
    result.require(result.data_code is Code.OK, "no STALL: all data was transferred")
    return result.description


def device_sends_less(make: MakeRequest, announced: AnnouncedLength, device: DeviceUnderTest) -> str:
    """Cases 4 and 5: announce more data-in than the command has. The device may pad the data or end it early."""
    request = make(device)
    result = device.exchange.command(request, announced(request), Direction.IN).require_csw()
    result.require(result.status in (GOOD, FAILED), "status 0 or 1: less data is not a phase error")
    result.require(result.moved >= request.length, f"at least the {request.length} bytes of the command's data")
    expected = result.length - request.length
    result.require(result.residue == expected, f"residue {expected}: the announced length less the data of the command")
    return f"{result.asked}: {result.description}"


def stalls_when_early(device: DeviceUnderTest) -> str:
    """Announce more data-in than the command has, and look for a STALL unless the device pads."""
    request = inquiry(device)
    for command in (TestUnitReady(), request):
        result = device.exchange.command(command, MORE, Direction.IN).require_csw()
        if result.moved < result.length:
            result.require(result.data_code is Code.PIPE or result.stalls > 0, "a STALL after the data")
    return "STALL after the data, or padding up to the announced length"


def no_needless_stall(device: DeviceUnderTest) -> str:
    """Send commands whose data-in is announced exactly, and count STALLs before the CSW."""
    for request in (TestUnitReady(), inquiry(device)):
        result = device.run(request)
        result.require(result.is_failed or not result.stalls, "no STALL before the CSW: all data was transferred")
    return "no STALL before the CSW"


def device_has_more(make: MakeRequest, announced: AnnouncedLength, device: DeviceUnderTest) -> str:
    """Cases 2 and 7: announce less data-in than the command has."""
    request = make(device)
    return _phase_error(device.exchange.command(request, announced(request), Direction.IN))


def _phase_error(result: ExchangeResult) -> str:
    result.require_csw()
    result.require(result.status == STATUS_PHASE_ERROR, "status 2 (phase error)")
    return f"{result.asked}: {result.description}"


def host_sends_to_none(device: DeviceUnderTest) -> str:
    """Case 9: send data-out to a command without data."""
    result = device.exchange.command(TestUnitReady(), payload=bytes(MORE)).require_csw()
    result.require(result.status in (GOOD, FAILED), "status 0 or 1")
    result.require(result.residue == MORE, f"residue {MORE}: the command uses no data")
    return f"{result.asked}: {result.description}"


def host_sends_to_sender(make: MakeRequest, device: DeviceUnderTest) -> str:
    """Case 10: send data-out to a command that has data-in."""
    request = make(device)
    return _phase_error(device.exchange.command(request, payload=bytes(request.length)))


def no_status_2_for_failure(device: DeviceUnderTest) -> str:
    """Send a command that cannot exist, without data, so that host and device agree on the data phase."""
    for opcode in UNASSIGNED:
        result = device.run(unassigned(opcode))
        if result.status != GOOD:
            result.require(result.status == FAILED, "status 1")
            return result.description
    raise NotApplicable("the device accepts commands that cannot exist")


def data_is_right(device: DeviceUnderTest) -> str:
    """Case 5 must not corrupt data: compare a READ of one block with one in which twice its length is announced."""
    request = device.reading(0, 1)
    expected = device.read(0, 1)
    result = device.exchange.command(request, 2 * request.length).require_csw()
    if result.status == GOOD and result.data[: request.length] != expected:
        raise Violation(result.asked, "other data than by itself", "the content of the block first")
    return f"{result.asked}: {result.description}"


IN: Final = "BOT 6.7.2"
CHECKS: Final = (
    Check("case-1", "BOT 6.7.1", "Hn = Dn: a command without data must end with status 0 or 1.", agree_on_none),
    Check(
        "case-2",
        "BOT 6.7.1",
        "Hn < Di: INQUIRY with no data announced must end with a phase error (status 2).",
        partial(device_has_more, inquiry, exactly(0)),
    ),
    Check(
        "case-2-read",
        "BOT 6.7.1",
        "Hn < Di: READ with no data announced must end with a phase error (status 2).",
        partial(device_has_more, reading(1), exactly(0)),
        needs_medium=True,
    ),
    Check(
        "case-4",
        IN,
        "Hi > Dn: the status must be 0 or 1, and the residue must be the announced length.",
        partial(device_sends_less, ready, exactly(MORE)),
    ),
    Check(
        "case-5",
        IN,
        "Hi > Di: INQUIRY must return all its data, padded or not; the residue must be the announced length less that.",
        partial(device_sends_less, inquiry, exactly(MORE)),
    ),
    Check(
        "case-5-read",
        IN,
        "Hi > Di: READ must return all its data, padded or not; the residue must be the announced length less that.",
        partial(device_sends_less, reading(1), twice),
        needs_medium=True,
    ),
    Check("case-5-data", IN, "Hi > Di: READ must return the content of the block.", data_is_right, needs_medium=True),
    Check(
        "early-end-stalls",
        IN,
        "Data-in that ends early without padding should be followed by a STALL.",
        stalls_when_early,
        Severity.SHOULD,
    ),
    Check(
        "no-needless-stall",
        "BOT 5.3.3",
        "When all announced data was transferred, bulk-in should not stall before the CSW.",
        no_needless_stall,
        Severity.SHOULD,
    ),
    Check(
        "case-6",
        IN,
        "Hi = Di: INQUIRY must return all announced bytes, with status 0 and residue 0.",
        partial(agree_on_in, inquiry),
    ),
    Check(
        "case-6-read",
        IN,
        "Hi = Di: READ must return all announced bytes, with status 0 and residue 0.",
        partial(agree_on_in, reading(8)),
        needs_medium=True,
    ),
    Check(
        "case-7",
        IN,
        "Hi < Di: INQUIRY must return no more than announced, and end with a phase error (status 2).",
        partial(device_has_more, inquiry, exactly(LESS)),
    ),
    Check(
        "case-7-read",
        IN,
        "Hi < Di: READ must return no more than announced, and end with a phase error (status 2).",
        partial(device_has_more, reading(2), half),
        needs_medium=True,
    ),
    Check(
        "case-9",
        "BOT 6.7.3",
        "Ho > Dn: the status must be 0 or 1, and the residue must be the announced length.",
        host_sends_to_none,
    ),
    Check(
        "case-10",
        "BOT 6.7.3",
        "Ho <> Di: INQUIRY with data-out announced must end with a phase error (status 2).",
        partial(host_sends_to_sender, inquiry),
    ),
    Check(
        "case-10-read",
        "BOT 6.7.3",
        "Ho <> Di: READ with data-out announced must end with a phase error (status 2).",
        partial(host_sends_to_sender, reading(1)),
        needs_medium=True,
    ),
    Check(
        "failure-is-no-phase-error",
        "BOT 6.6.4",
        "A command that fails must end with status 1, not with a phase error (status 2).",
        no_status_2_for_failure,
    ),
)
