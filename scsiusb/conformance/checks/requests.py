"""Control requests: of the class, and the standard ones that recovery stands on."""

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
    asked = "GET MAX LUN"
    try:
        replies = [_ask_max_lun(device) for _ in range(TIMES)]
    except TransferStalled:
        return "STALL: one logical unit"
    first = replies[0]
    if len(first) != 1 or first[0] > MAX_LUN:
        raise Violation(asked, first.hex(" ") or "nothing", "one byte from 0 to 15, or STALL")
    if set(replies) != {first}:
        raise Violation(f"{asked}, {TIMES} times", ", ".join(map(bytes.hex, replies)), "the same each time")
    return f"{first[0]}"


def _ask_max_lun(device: DeviceUnderTest) -> bytes:
    return device.exchange.request_in(CLASS_INTERFACE_IN, GET_MAX_LUN, 0, device.info.interface, 1)


def luns_answer(device: DeviceUnderTest) -> str:
    for lun in range(device.max_lun + 1):
        ended = device.run(Inquiry(), lun=lun)
        if not ended.is_good or len(ended.data) < 5:
            raise Violation(f"INQUIRY to LUN {lun} of 0 to {device.max_lun}", ended.words, "INQUIRY data")
        if not InquiryData.parse(ended.data).is_present:
            raise Violation(
                f"INQUIRY to LUN {lun} of 0 to {device.max_lun}", "there is no unit", "numbers without gaps"
            )
    return f"LUN 0 to {device.max_lun}"


def reset_accepted(device: DeviceUnderTest) -> str:
    for time in range(TIMES):
        try:
            device.exchange.class_reset()
        except TransferStalled:
            raise Violation(f"class reset number {time + 1}", "STALL", "that the device accepts it") from None
    device.run(TestUnitReady())
    return f"{TIMES} times in a row, then a command"


def reset_keeps_halts(device: DeviceUnderTest) -> str:
    exchange = device.exchange
    for name, endpoint in _endpoints(device):
        _set_halt(device, endpoint)
        exchange.class_reset()
        try:
            if not exchange.is_halted(endpoint):
                raise Violation(f"class reset with {name} halted", "the halt is gone", "that it stays until cleared")
        except TransferStalled as error:
            raise NotApplicable("GET_STATUS of an endpoint is stalled") from error
        exchange.reset_recovery()
    return "the halts of both endpoints stay"


def reset_keeps_toggles(device: DeviceUnderTest) -> str:
    """After recovery and one command, both toggles are DATA1: one that falls back to DATA0 loses a packet."""
    device.exchange.reset_recovery()
    device.run(TestUnitReady())
    device.exchange.class_reset()
    for _ in range(2):
        device.run(TestUnitReady())
        device.run(Inquiry())
    return "four commands after an odd number of packets and a class reset alone"


def clear_resets_toggles(device: DeviceUnderTest) -> str:
    device.exchange.reset_recovery()
    device.run(TestUnitReady())
    device.exchange.clear_halt_in()
    device.run(TestUnitReady())
    device.exchange.clear_halt_out()
    device.run(TestUnitReady())
    return "commands go on after CLEAR_FEATURE(ENDPOINT_HALT) of an endpoint without a halt"


def halt_feature(device: DeviceUnderTest) -> str:
    exchange = device.exchange
    for name, endpoint in _endpoints(device):
        try:
            exchange.set_halt(endpoint)
        except TransferStalled:
            raise Violation(f"SET_FEATURE(ENDPOINT_HALT) of {name}", "STALL", "that it is halted") from None
        code = exchange.receive(64)[0] if endpoint & 0x80 else exchange.send(bytes(31))[0]
        if code is not Code.PIPE:
            raise Violation(f"a transfer to {name} while it is halted", code.name, "STALL")
        exchange.reset_recovery()
        device.run(TestUnitReady())
    return "both bulk endpoints"


def halt_status(device: DeviceUnderTest) -> str:
    for name, endpoint in _endpoints(device):
        try:
            before = device.exchange.is_halted(endpoint)
            _set_halt(device, endpoint)
            after = device.exchange.is_halted(endpoint)
        except TransferStalled:
            raise Violation(f"GET_STATUS of {name}", "STALL", "two bytes, the first bit: is it halted?") from None
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
    exchange, info = device.exchange, device.info
    for asked, setup, right in (
        ("GET_CONFIGURATION", (0x80, GET_CONFIGURATION, 0, 0, 1), bytes((info.device.configuration,))),
        ("GET_INTERFACE", (0x81, GET_INTERFACE, 0, info.interface, 1), bytes((info.alternate,))),
        ("GET_STATUS of the device", (0x80, 0, 0, 0, 2), None),
    ):
        try:
            came = exchange.request_in(*setup)
        except TransferStalled:
            raise Violation(asked, "STALL", "an answer") from None
        if len(came) != setup[-1] or (right is not None and came != right):
            raise Violation(asked, came.hex(" ") or "nothing", "two bytes" if right is None else right.hex())
    return "GET_CONFIGURATION, GET_INTERFACE, GET_STATUS"


def unknown_request(device: DeviceUnderTest) -> str:
    asked = f"class request {NO_SUCH_REQUEST:02X}h, which there is not"
    try:
        came = device.exchange.request_in(CLASS_INTERFACE_IN, NO_SUCH_REQUEST, 0, device.info.interface, 1)
    except TransferStalled:
        device.run(TestUnitReady())
        return "STALL, and commands go on"
    raise Violation(asked, came.hex(" ") or "success", "STALL")


CHECKS: Final = (
    Check("get-max-lun", "BOT 3.2", "GET MAX LUN gives one byte from 0 to 15, or STALL.", max_lun),
    Check(
        "luns-answer",
        "BOT 3.2",
        "Logical units are numbered without gaps: each LUN up to the last answers INQUIRY.",
        luns_answer,
    ),
    Check(
        "reset-accepted", "BOT 3.1", "A Bulk-Only Mass Storage Reset is accepted, and commands go on.", reset_accepted
    ),
    Check(
        "reset-keeps-halts",
        "BOT 3.1",
        "A class reset leaves the halts of the bulk endpoints as they are.",
        reset_keeps_halts,
    ),
    Check("reset-keeps-toggles", "BOT 3.1", "A class reset leaves the data toggles as they are.", reset_keeps_toggles),
    Check(
        "clear-resets-toggles",
        "USB 2.0 9.4.5",
        "CLEAR_FEATURE(ENDPOINT_HALT) sets the toggle to DATA0, halted or not.",
        clear_resets_toggles,
    ),
    Check(
        "halt-feature",
        "USB 2.0 9.4.9",
        "SET_FEATURE(ENDPOINT_HALT) halts a bulk endpoint, which then stalls.",
        halt_feature,
    ),
    Check("halt-status", "USB 2.0 9.4.5", "GET_STATUS of a bulk endpoint tells whether it is halted.", halt_status),
    Check(
        "standard-requests",
        "USB 2.0 9.4",
        "GET_CONFIGURATION, GET_INTERFACE and GET_STATUS tell what is set.",
        standard_requests,
    ),
    Check(
        "unknown-request",
        "USB 2.0 9.2.7",
        "A class request that there is not is stalled, and commands go on.",
        unknown_request,
    ),
)
