"""Sense data: a failure is told once, in full, and only to who asks; what is not there is refused."""

from __future__ import annotations

from typing import Final

from scsiusb.conformance.device_under_test import INVALID_FIELD, INVALID_OPCODE, DeviceUnderTest
from scsiusb.conformance.exchange import Raw
from scsiusb.conformance.outcome import Check, NotApplicable, Severity, Violation
from scsiusb.scsi.commands.spc import Inquiry, RequestSense, TestUnitReady
from scsiusb.scsi.sense import FIXED_CODES, UNIT_ATTENTION
from scsiusb.transport.base import Direction

NO_SUCH_COMMAND: Final = Raw("command 49h, which there is not", bytes((0x49,)) + bytes(9), direction=Direction.NONE)
LENGTHS: Final = (0, 1, 4, 8, 18, 252)
SENSE: Final = 18
LEAST: Final = 18  # bytes of fixed format sense data (SPC-4 4.5.3)
TIMES: Final = 5


def invalid_opcode(device: DeviceUnderTest) -> str:
    return device.refused(NO_SUCH_COMMAND, INVALID_OPCODE)


def invalid_field(device: DeviceUnderTest) -> str:
    return device.refused(Raw("INQUIRY of page 80h without EVPD", bytes((0x12, 0, 0x80, 0, 36, 0)), 36), INVALID_FIELD)


def kept(device: DeviceUnderTest) -> str:
    """The host may take its time: halts cleared and a control request in between change nothing."""
    ended = device.run(NO_SUCH_COMMAND)
    ended.require(ended.is_failed, "status 1")
    device.exchange.clear_halt_in()
    sense = device.sense()
    if sense.is_empty:
        raise Violation("REQUEST SENSE behind a command that failed", sense.codes, "why it failed")
    return f"behind a failed command: {sense.codes}"


def cleared(device: DeviceUnderTest) -> str:
    device.run(NO_SUCH_COMMAND)
    device.sense()
    second = device.sense()
    if second.key not in (0, UNIT_ATTENTION):
        raise Violation("a second REQUEST SENSE", f"{second.codes} once more", "0/00/00: it was told")
    return f"the second time: {second.codes}"


def per_failure(device: DeviceUnderTest) -> str:
    """Each failure has its own sense, not that of the one before."""
    for _ in range(TIMES):
        device.refused(NO_SUCH_COMMAND, INVALID_OPCODE)
        invalid_field(device)
    return f"{2 * TIMES} failures in turn, each with its own sense"


def none_after_success(device: DeviceUnderTest) -> str:
    device.run(NO_SUCH_COMMAND)
    device.good(Inquiry())
    sense = device.sense()
    if sense.key not in (0, UNIT_ATTENTION):
        raise Violation("REQUEST SENSE after a failed command and a good INQUIRY", sense.codes, "0/00/00")
    return f"{sense.codes}"


def shape(device: DeviceUnderTest) -> str:
    device.run(NO_SUCH_COMMAND)
    ended = device.good(RequestSense())
    data = ended.data
    if len(data) < LEAST or data[0] & 0x7F not in FIXED_CODES:
        raise Violation(ended.asked, data.hex(" ") or "nothing", "18 bytes, response code 70h or 71h")
    if data[7] < LEAST - 8:
        raise Violation(ended.asked, f"ADDITIONAL SENSE LENGTH {data[7]}", f"at least {LEAST - 8}")
    return data.hex(" ")


def lengths(device: DeviceUnderTest) -> str:
    """Truncation at the allocation length is no error, and changes nothing in what comes (SPC-4 4.2.5.6)."""
    for length in LENGTHS:
        device.run(NO_SUCH_COMMAND)
        ended = device.good(RequestSense(length=length))
        whole = min(length, LEAST)
        if not whole <= len(ended.data) <= length or (length > 2 and not ended.data[2] & 0xF):
            raise Violation(ended.asked, ended.data.hex(" ") or "nothing", f"{whole} bytes or more, and a sense key")
    return "allocation lengths " + ", ".join(map(str, LENGTHS))


def unit_ready(device: DeviceUnderTest) -> str:
    """Several in a row say the same."""
    statuses = [device.run(TestUnitReady()).status for _ in range(TIMES)]
    if len(set(statuses)) > 1:
        raise Violation(f"TEST UNIT READY, {TIMES} times", f"status {statuses}", "the same status each time")
    if statuses[0] == 0:
        return "ready"
    sense = device.sense()
    if sense.key not in (2, 3, 4):
        raise Violation("TEST UNIT READY", f"status 1 with sense {sense.codes}", "sense key 2: why it is not ready")
    return f"not ready: {sense.codes}"


def inquiry_keeps_attention(device: DeviceUnderTest) -> str:
    if not _raises_attention(device):
        raise NotApplicable("a port reset raises no unit attention")
    device.reset_port()
    device.good(Inquiry())
    ended = device.run(TestUnitReady())
    ended.require(ended.is_failed, "status 1: INQUIRY does not take the unit attention away")
    sense = device.sense()
    if sense.key != UNIT_ATTENTION:
        raise Violation(ended.asked, f"status 1 with sense {sense.codes}", "the unit attention, key 6")
    return f"behind a port reset and INQUIRY: {sense.codes}"


def attention_cleared(device: DeviceUnderTest) -> str:
    first = _raises_attention(device)
    if not first:
        raise NotApplicable("a port reset raises no unit attention")
    seen = [first]
    for _ in range(TIMES):
        ended = device.run(TestUnitReady())
        if ended.is_good:
            break
        sense = device.sense()
        if sense.key != UNIT_ATTENTION:
            break
        if sense.codes in seen:
            raise Violation("TEST UNIT READY, again", f"{sense.codes} again", "each unit attention once")
        seen.append(sense.codes)
    return f"told once: {', '.join(seen)}"


def _raises_attention(device: DeviceUnderTest) -> str:
    """The first unit attention behind a port reset, taken away; none: empty."""
    device.reset_port()
    if not device.run(TestUnitReady()).is_failed:
        return ""
    sense = device.sense()
    return sense.codes if sense.key == UNIT_ATTENTION else ""


CHECKS: Final = (
    Check(
        "test-unit-ready",
        "SPC-4 6.47",
        "TEST UNIT READY says the same each time, and why a unit is not ready.",
        unit_ready,
    ),
    Check("invalid-opcode", "SPC-4 4.2.5.1", "A command that there is not fails with 5/20/00.", invalid_opcode),
    Check(
        "invalid-field", "SPC-4 6.6.1", "INQUIRY with a page code and without EVPD fails with 5/24/00.", invalid_field
    ),
    Check("sense-kept", "BOT 6.6.4", "Behind status 1, REQUEST SENSE tells why.", kept),
    Check("sense-cleared", "SPC-4 6.39", "REQUEST SENSE tells a failure once.", cleared),
    Check("sense-per-failure", "SPC-4 6.39", "Failures in turn have each their own sense.", per_failure),
    Check(
        "sense-after-success",
        "SAM-5 5.13",
        "A command that succeeds leaves no sense of one before.",
        none_after_success,
        Severity.SHOULD,
    ),
    Check("sense-format", "SPC-4 4.5.3", "Sense data is in fixed format, 18 bytes at least.", shape),
    Check(
        "sense-lengths", "SPC-4 4.2.5.6", "REQUEST SENSE cuts its data at the allocation length, 0 included.", lengths
    ),
    Check(
        "inquiry-keeps-attention",
        "SPC-4 6.6.1",
        "INQUIRY is carried out with a unit attention pending, and leaves it.",
        inquiry_keeps_attention,
    ),
    Check("attention-once", "SAM-5 5.14", "A unit attention is told once.", attention_cleared),
)
