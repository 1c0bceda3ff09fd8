"""Checks of control requests: those of the class, and the standard ones that reset recovery needs."""

from __future__ import annotations

from typing import Final

from scsiusb.conformance.device_under_test import DeviceUnderTest
from scsiusb.conformance.outcome import Check, NotApplicable, Violation
from scsiusb.errors import TransferStalled
from scsiusb.scsi.commands.spc import Inquiry, TestUnitReady
from scsiusb.scsi.pages.inquiry import InquiryData
from scsiusb.transport.bot.formats import CLASS_INTERFACE_IN, GET_MAX_LUN, MAX_LUN
from scsiusb.usb.backend import Code

NO_SUCH_REQUEST: Final = 0x42
GET_CONFIGURATION: Final = 8
GET_INTERFACE: Final = 10
TIMES: Final = 3


def max_lun(device: DeviceUnderTest) -> str:
    """Send GET MAX LUN several times; a STALL means one logical unit."""
    asked = "GET MAX LUN"
    try:
        replies = [_ask_max_lun(device) for _ in range(TIMES)]
    except TransferStalled:
        return "STALL: one logical unit"
    first = replies[0]
    if len(first) != 1 or first[0] > MAX_LUN:
        raise Violation(asked, first.hex(" ") or "nothing", "one byte from 0 to 15, or STALL")
    if set(replies) != {first}:
        raise Violation(f"{asked}, {TIMES} times", ", ".join(map(bytes.hex, replies)), "the same reply each time")
    return f"maximum LUN {first[0]}"


def _ask_max_lun(device: DeviceUnderTest) -> bytes:
    return device.exchange.request_in(CLASS_INTERFACE_IN, GET_MAX_LUN, 0, device.info.interface, 1)


def luns_answer(device: DeviceUnderTest) -> str:
    """Send INQUIRY to each LUN from 0 to the maximum."""
    for lun in range(device.max_lun + 1):
        result = device.run(Inquiry(), lun=lun)
        if not result.is_good or len(result.data) < 5:
            raise Violation(f"INQUIRY to LUN {lun} of 0 to {device.max_lun}", result.description, "INQUIRY data")
        if not InquiryData.parse(result.data).is_present:
            raise Violation(
                f"INQUIRY to LUN {lun} of 0 to {device.max_lun}", "no unit at this LUN", "LUNs without gaps"
            )
    return f"LUN 0 to {device.max_lun}"


def reset_accepted(device: DeviceUnderTest) -> str:
    """Send several class resets in a row, then a command."""
    for time in range(TIMES):
        try:
            device.exchange.class_reset()
        except TransferStalled:
            raise Violation(f"class reset number {time + 1}", "STALL", "the device to accept it") from None
    device.run(TestUnitReady())
    return f"{TIMES} times in a row, then a command"


def reset_keeps_halts(device: DeviceUnderTest) -> str:
    """Halt each bulk endpoint by SET_FEATURE, send a class reset, and read the halt by GET_STATUS."""
    exchange = device.exchange
    for name, endpoint in _endpoints(device):
        _set_halt(device, endpoint)
        exchange.class_reset()
        try:
            if not exchange.is_halted(endpoint):
                raise Violation(
                    f"class reset with {name} halted",
                    "the endpoint is not halted",
                    "the halt to stay until it is cleared",
                )
        except TransferStalled as error:
            raise NotApplicable("GET_STATUS of an endpoint is stalled") from error
        exchange.reset_recovery()
    return "both endpoints stay halted"


def reset_keeps_toggles(device: DeviceUnderTest) -> str:
    """Send commands after a class reset without clear-halt; a toggle that was reset to DATA0 loses a packet.

    After recovery and one command, both toggles are DATA1.
    """
    device.exchange.reset_recovery()
    device.run(TestUnitReady())
    device.exchange.class_reset()
    for _ in range(2):
        device.run(TestUnitReady())
        device.run(Inquiry())
    return "four commands after an odd number of packets and a class reset alone"


def clear_resets_toggles(device: DeviceUnderTest) -> str:
    """Clear the halt of endpoints that are not halted, and send a command after each."""
    device.exchange.reset_recovery()
    device.run(TestUnitReady())
    device.exchange.clear_halt_in()
    device.run(TestUnitReady())
    device.exchange.clear_halt_out()
    device.run(TestUnitReady())
    return "commands work after CLEAR_FEATURE(ENDPOINT_HALT) of an endpoint that is not halted"


def halt_feature(device: DeviceUnderTest) -> str:
    """Halt each bulk endpoint by SET_FEATURE and try a transfer."""
    exchange = device.exchange
    for name, endpoint in _endpoints(device):
        try:
            exchange.set_halt(endpoint)
        except TransferStalled:
            raise Violation(f"SET_FEATURE(ENDPOINT_HALT) of {name}", "STALL", "the device to accept it") from None
        code = exchange.receive(64)[0] if endpoint & 0x80 else exchange.send(bytes(31))[0]
        if code is not Code.PIPE:
            raise Violation(f"a transfer to {name} while it is halted", code.name, "STALL")
        exchange.reset_recovery()
        device.run(TestUnitReady())
    return "both bulk endpoints"


def halt_status(device: DeviceUnderTest) -> str:
    """Read the status of each bulk endpoint before and after a halt."""
    for name, endpoint in _endpoints(device):
        try:
            before = device.exchange.is_halted(endpoint)
            _set_halt(device, endpoint)
            after = device.exchange.is_halted(endpoint)
        except TransferStalled:
            raise Violation(f"GET_STATUS of {name}", "STALL", "two bytes; bit 0 is the halt") from None
        if before or not after:
            raise Violation(f"GET_STATUS of {name}, before and after a halt", f"{before}, {after}", "no, yes")
        device.exchange.reset_recovery()
    return "both bulk endpoints"


def _endpoints(device: DeviceUnderTest) -> tuple[tuple[str, int], tuple[str, int]]:
    port = device.exchange.port
    return ("bulk-in", port.bulk_in.address), ("bulk-out", port.bulk_out.address)


def _set_halt(device: DeviceUnderTest, endpoint: int) -> None:
    try:
        device.exchange.set_halt(endpoint)
    except TransferStalled as error:
        raise NotApplicable("SET_FEATURE(ENDPOINT_HALT) is stalled") from error


def standard_requests(device: DeviceUnderTest) -> str:
    """Compare the replies to standard requests with the configuration that is set."""
    exchange, info = device.exchange, device.info
    for asked, setup, expected in (
        ("GET_CONFIGURATION", (0x80, GET_CONFIGURATION, 0, 0, 1), bytes((info.device.configuration,))),
        ("GET_INTERFACE", (0x81, GET_INTERFACE, 0, info.interface, 1), bytes((info.alternate,))),
        ("GET_STATUS of the device", (0x80, 0, 0, 0, 2), None),
    ):
        try:
            came = exchange.request_in(*setup)
        except TransferStalled:
            raise Violation(asked, "STALL", "a reply") from None
        if len(came) != setup[-1] or (expected is not None and came != expected):
            raise Violation(asked, came.hex(" ") or "nothing", "two bytes" if expected is None else expected.hex())
    return "GET_CONFIGURATION, GET_INTERFACE, GET_STATUS"


def unknown_request(device: DeviceUnderTest) -> str:
    """Send a class request that BOT does not define, then a command."""
    asked = f"unsupported class request {NO_SUCH_REQUEST:02X}h"
    try:
        came = device.exchange.request_in(CLASS_INTERFACE_IN, NO_SUCH_REQUEST, 0, device.info.interface, 1)
    except TransferStalled:
        device.run(TestUnitReady())
        return "STALL; commands work after it"
    raise Violation(asked, came.hex(" ") or "success", "STALL")


CHECKS: Final = (
    Check("get-max-lun", "BOT 3.2", "GET MAX LUN must return one byte from 0 to 15, or stall.", max_lun),
    Check(
        "luns-answer",
        "BOT 3.2",
        "Every LUN from 0 to the maximum LUN must return INQUIRY data; there must be no gaps.",
        luns_answer,
    ),
    Check(
        "reset-accepted",
        "BOT 3.1",
        "The device must accept a Bulk-Only Mass Storage Reset, and commands must work after it.",
        reset_accepted,
    ),
    Check(
        "reset-keeps-halts",
        "BOT 3.1",
        "A class reset must not change whether the bulk endpoints are halted.",
        reset_keeps_halts,
    ),
    Check("reset-keeps-toggles", "BOT 3.1", "A class reset must not change the data toggles.", reset_keeps_toggles),
    Check(
        "clear-resets-toggles",
        "USB 2.0 9.4.5",
        "CLEAR_FEATURE(ENDPOINT_HALT) must reset the data toggle to DATA0, even if the endpoint is not halted.",
        clear_resets_toggles,
    ),
    Check(
        "halt-feature",
        "USB 2.0 9.4.9",
        "SET_FEATURE(ENDPOINT_HALT) must halt a bulk endpoint, which must then return STALL.",
        halt_feature,
    ),
    Check(
        "halt-status", "USB 2.0 9.4.5", "GET_STATUS of a bulk endpoint must report whether it is halted.", halt_status
    ),
    Check(
        "standard-requests",
        "USB 2.0 9.4",
        "GET_CONFIGURATION and GET_INTERFACE must return what is set, and GET_STATUS must return two bytes.",
        standard_requests,
    ),
    Check(
        "unknown-request",
        "USB 2.0 9.2.7",
        "An unsupported class request must stall, and commands must work after it.",
        unknown_request,
    ),
)
