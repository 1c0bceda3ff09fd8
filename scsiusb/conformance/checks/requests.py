"""Control requests: of the class, and the standard ones that recovery stands on."""

from __future__ import annotations

from typing import Final

from scsiusb.conformance.device_under_test import Bench
from scsiusb.conformance.outcome import Check, Unsuited, Violation
from scsiusb.errors import TransferStalled
from scsiusb.scsi.commands.spc import Inquiry, TestUnitReady
from scsiusb.scsi.pages.inquiry import InquiryData
from scsiusb.transport.bot.formats import CLASS_INTERFACE_IN, GET_MAX_LUN, MAX_LUN
from scsiusb.usb.backend import Code

NO_SUCH_REQUEST: Final = 0x42
GET_CONFIGURATION: Final = 8
GET_INTERFACE: Final = 10
TIMES: Final = 3


def max_lun(bench: Bench) -> str:
    asked = "GET MAX LUN"
    try:
        replies = [_ask_max_lun(bench) for _ in range(TIMES)]
    except TransferStalled:
        return "STALL: one logical unit"
    first = replies[0]
    if len(first) != 1 or first[0] > MAX_LUN:
        raise Violation(asked, first.hex(" ") or "nothing", "one byte from 0 to 15, or STALL")
    if set(replies) != {first}:
        raise Violation(f"{asked}, {TIMES} times", ", ".join(map(bytes.hex, replies)), "the same each time")
    return f"{first[0]}"


def _ask_max_lun(bench: Bench) -> bytes:
    return bench.exchange.request_in(CLASS_INTERFACE_IN, GET_MAX_LUN, 0, bench.info.interface, 1)


def luns_answer(bench: Bench) -> str:
    for lun in range(bench.max_lun + 1):
        ended = bench.run(Inquiry(), lun=lun)
        if not ended.is_good or len(ended.data) < 5:
            raise Violation(f"INQUIRY to LUN {lun} of 0 to {bench.max_lun}", ended.words, "INQUIRY data")
        if not InquiryData.parse(ended.data).is_present:
            raise Violation(f"INQUIRY to LUN {lun} of 0 to {bench.max_lun}", "there is no unit", "numbers without gaps")
    return f"LUN 0 to {bench.max_lun}"


def reset_accepted(bench: Bench) -> str:
    for time in range(TIMES):
        try:
            bench.exchange.class_reset()
        except TransferStalled:
            raise Violation(f"class reset number {time + 1}", "STALL", "that the device accepts it") from None
    bench.run(TestUnitReady())
    return f"{TIMES} times in a row, then a command"


def reset_keeps_halts(bench: Bench) -> str:
    exchange = bench.exchange
    for name, endpoint in _endpoints(bench):
        _set_halt(bench, endpoint)
        exchange.class_reset()
        try:
            if not exchange.is_halted(endpoint):
                raise Violation(f"class reset with {name} halted", "the halt is gone", "that it stays until cleared")
        except TransferStalled as error:
            raise Unsuited("GET_STATUS of an endpoint is stalled") from error
        exchange.reset_recovery()
    return "the halts of both endpoints stay"


def reset_keeps_toggles(bench: Bench) -> str:
    """After recovery and one command, both toggles are DATA1: one that falls back to DATA0 loses a packet."""
    bench.exchange.reset_recovery()
    bench.run(TestUnitReady())
    bench.exchange.class_reset()
    for _ in range(2):
        bench.run(TestUnitReady())
        bench.run(Inquiry())
    return "four commands after an odd number of packets and a class reset alone"


def clear_resets_toggles(bench: Bench) -> str:
    bench.exchange.reset_recovery()
    bench.run(TestUnitReady())
    bench.exchange.clear_halt_in()
    bench.run(TestUnitReady())
    bench.exchange.clear_halt_out()
    bench.run(TestUnitReady())
    return "commands go on after CLEAR_FEATURE(ENDPOINT_HALT) of an endpoint without a halt"


def halt_feature(bench: Bench) -> str:
    exchange = bench.exchange
    for name, endpoint in _endpoints(bench):
        try:
            exchange.set_halt(endpoint)
        except TransferStalled:
            raise Violation(f"SET_FEATURE(ENDPOINT_HALT) of {name}", "STALL", "that it is halted") from None
        code = exchange.receive(64)[0] if endpoint & 0x80 else exchange.send(bytes(31))[0]
        if code is not Code.PIPE:
            raise Violation(f"a transfer to {name} while it is halted", code.name, "STALL")
        exchange.reset_recovery()
        bench.run(TestUnitReady())
    return "both bulk endpoints"


def halt_status(bench: Bench) -> str:
    for name, endpoint in _endpoints(bench):
        try:
            before = bench.exchange.is_halted(endpoint)
            _set_halt(bench, endpoint)
            after = bench.exchange.is_halted(endpoint)
        except TransferStalled:
            raise Violation(f"GET_STATUS of {name}", "STALL", "two bytes, the first bit: is it halted?") from None
        if before or not after:
            raise Violation(f"GET_STATUS of {name}, before and after a halt", f"{before}, {after}", "no, yes")
        bench.exchange.reset_recovery()
    return "both bulk endpoints"


def _endpoints(bench: Bench) -> tuple[tuple[str, int], tuple[str, int]]:
    port = bench.exchange.port
    return ("bulk-in", port.bulk_in.address), ("bulk-out", port.bulk_out.address)


def _set_halt(bench: Bench, endpoint: int) -> None:
    try:
        bench.exchange.set_halt(endpoint)
    except TransferStalled as error:
        raise Unsuited("SET_FEATURE(ENDPOINT_HALT) is stalled") from error


def standard_requests(bench: Bench) -> str:
    exchange, info = bench.exchange, bench.info
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


def unknown_request(bench: Bench) -> str:
    asked = f"class request {NO_SUCH_REQUEST:02X}h, which there is not"
    try:
        came = bench.exchange.request_in(CLASS_INTERFACE_IN, NO_SUCH_REQUEST, 0, bench.info.interface, 1)
    except TransferStalled:
        bench.run(TestUnitReady())
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
