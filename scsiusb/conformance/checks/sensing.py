"""Checks of sense data and unit attentions: each failure must be reported once, with the right codes."""

from __future__ import annotations

from typing import Final

from scsiusb.conformance.device_under_test import INVALID_FIELD, INVALID_OPCODE, DeviceUnderTest
from scsiusb.conformance.exchange import Request
from scsiusb.conformance.outcome import Check, NotApplicable, Severity, Violation
from scsiusb.conformance.provocation import kinds, page_without_evpd, provoke, unassigned
from scsiusb.scsi.commands.spc import Inquiry, RequestSense, TestUnitReady
from scsiusb.scsi.sense import FIXED_CODES, UNIT_ATTENTION
from scsiusb.transport.bot.formats import STATUS_PHASE_ERROR

LENGTHS: Final = (0, 1, 4, 8, 18, 252)
SENSE: Final = 18
LEAST: Final = 18  # bytes of fixed format sense data (SPC-4 4.5.3)
TIMES: Final = 5


def invalid_opcode(device: DeviceUnderTest) -> str:
    """Send a command that cannot exist (4Fh)."""
    return device.refused(unassigned(), INVALID_OPCODE)


def invalid_field(device: DeviceUnderTest) -> str:
    """Send INQUIRY with a page code but without EVPD."""
    return device.refused(page_without_evpd(), INVALID_FIELD)


def kept(device: DeviceUnderTest) -> str:
    """Check that the sense data of a failure is kept.

    Run a command that fails, clear the halt of the bulk-in endpoint (as a slow host may), then send REQUEST SENSE.
    """
    provoke(device)
    device.exchange.clear_halt_in()
    sense = device.sense()
    if sense.is_empty:
        raise Violation("REQUEST SENSE after a failed command", sense.codes, "the sense data of the failure")
    return f"after a failed command: {sense.codes}"


def cleared(device: DeviceUnderTest) -> str:
    """Let a command fail, then send REQUEST SENSE twice."""
    provoke(device)
    device.sense()
    second = device.sense()
    if second.key not in (0, UNIT_ATTENTION):
        raise Violation("a second REQUEST SENSE", f"{second.codes} again", "0/00/00: the failure was already reported")
    return f"the second time: {second.codes}"


def per_failure(device: DeviceUnderTest) -> str:
    """Let commands of two kinds fail in turn; each failure must have the same sense data as when it fails alone."""
    alone = [(request, codes) for request in kinds(device) if (codes := _codes_alone(device, request))]
    if len(alone) < 2:
        raise NotApplicable("the device does not refuse two kinds of wrong commands")
    first, first_codes = alone[0]
    pair = [(first, first_codes), next((each for each in alone if each[1] != first_codes), alone[0])]
    if pair[0] == pair[1]:
        asked = ", ".join(str(request) for request, _ in alone)
        raise Violation(asked, f"sense {first_codes} for each", "sense data that gives the reason of each failure")
    for request, codes in pair * TIMES:
        found = _codes_of_failure(device, request)
        if found != codes:
            raise Violation(f"{request}, in turn with another failure", f"sense {found or 'none'}", f"sense {codes}")
    return f"{2 * TIMES} failures in turn, each with its own sense data"


def _codes_alone(device: DeviceUnderTest, request: Request) -> str:
    """Return the sense codes of a command that fails after a good one; an empty text if it does not fail."""
    device.good(Inquiry())
    device.sense()
    codes = _codes_of_failure(device, request)
    if codes == "0/00/00":
        raise Violation(f"REQUEST SENSE after {request}, which failed", codes, "the sense data of the failure")
    return codes


def _codes_of_failure(device: DeviceUnderTest, request: Request) -> str:
    """Return the sense codes of a command; an empty text if it does not fail with status 1."""
    result = device.run(request)
    if result.status == STATUS_PHASE_ERROR:
        device.exchange.reset_recovery()
    return device.sense().codes if result.is_failed else ""


def none_after_success(device: DeviceUnderTest) -> str:
    """Let a command fail, send a good INQUIRY, then REQUEST SENSE."""
    provoke(device)
    device.good(Inquiry())
    sense = device.sense()
    if sense.key not in (0, UNIT_ATTENTION):
        raise Violation("REQUEST SENSE after a failed command and a good INQUIRY", sense.codes, "0/00/00")
    return f"{sense.codes}"


def shape(device: DeviceUnderTest) -> str:
    """Check the response code and both lengths of the sense data of a failure."""
    provoke(device)
    result = device.good(RequestSense())
    data = result.data
    if len(data) < LEAST or data[0] & 0x7F not in FIXED_CODES:
        raise Violation(result.asked, data.hex(" ") or "nothing", "at least 18 bytes, response code 70h or 71h")
    if data[7] < LEAST - 8:
        raise Violation(result.asked, f"ADDITIONAL SENSE LENGTH {data[7]}", f"at least {LEAST - 8}")
    return data.hex(" ")


def lengths(device: DeviceUnderTest) -> str:
    """Send REQUEST SENSE with several allocation lengths; truncation is not an error (SPC-4 4.2.5.6)."""
    for length in LENGTHS:
        provoke(device)
        result = device.good(RequestSense(length=length))
        whole = min(length, LEAST)
        if not whole <= len(result.data) <= length or (length > 2 and not result.data[2] & 0xF):
            raise Violation(
                result.asked, result.data.hex(" ") or "nothing", f"{whole} to {length} bytes, with a sense key"
            )
    return "allocation lengths " + ", ".join(map(str, LENGTHS))


def unit_ready(device: DeviceUnderTest) -> str:
    """Send TEST UNIT READY several times, and REQUEST SENSE if the unit is not ready."""
    statuses = [device.run(TestUnitReady()).status for _ in range(TIMES)]
    if len(set(statuses)) > 1:
        raise Violation(f"TEST UNIT READY, {TIMES} times", f"status {statuses}", "the same status each time")
    if statuses[0] == 0:
        return "ready"
    sense = device.sense()
    if sense.key not in (2, 3, 4):
        raise Violation("TEST UNIT READY", f"status 1 with sense {sense.codes}", "sense key 2, 3 or 4")
    return f"not ready: {sense.codes}"


def inquiry_keeps_attention(device: DeviceUnderTest) -> str:
    """Reset the port, which raises a unit attention, and send INQUIRY before TEST UNIT READY."""
    if not _raises_attention(device):
        raise NotApplicable("a port reset raises no unit attention")
    device.reset_port()
    device.good(Inquiry())
    result = device.run(TestUnitReady())
    result.require(result.is_failed, "status 1: INQUIRY must not clear the unit attention")
    sense = device.sense()
    if sense.key != UNIT_ATTENTION:
        raise Violation(result.asked, f"status 1 with sense {sense.codes}", "the unit attention, key 6")
    return f"after a port reset and INQUIRY: {sense.codes}"


def attention_cleared(device: DeviceUnderTest) -> str:
    """Reset the port, which raises a unit attention, and send TEST UNIT READY until it is gone."""
    first = _raises_attention(device)
    if not first:
        raise NotApplicable("a port reset raises no unit attention")
    seen = [first]
    for _ in range(TIMES):
        result = device.run(TestUnitReady())
        if result.is_good:
            break
        sense = device.sense()
        if sense.key != UNIT_ATTENTION:
            break
        if sense.codes in seen:
            raise Violation("TEST UNIT READY, again", f"{sense.codes} again", "each unit attention once")
        seen.append(sense.codes)
    return f"reported once: {', '.join(seen)}"


def _raises_attention(device: DeviceUnderTest) -> str:
    """Reset the port; return the codes of the first unit attention after it, or an empty text if there is none."""
    device.reset_port()
    if not device.run(TestUnitReady()).is_failed:
        return ""
    sense = device.sense()
    return sense.codes if sense.key == UNIT_ATTENTION else ""


CHECKS: Final = (
    Check(
        "test-unit-ready",
        "SPC-4 6.47",
        "TEST UNIT READY must return the same status each time, and the sense key must give the reason if it fails.",
        unit_ready,
    ),
    Check(
        "invalid-opcode",
        "SPC-4 4.2.5.1",
        "An unsupported command must fail with 5/20/00 (INVALID COMMAND OPERATION CODE).",
        invalid_opcode,
    ),
    Check(
        "invalid-field",
        "SPC-4 6.6.1",
        "INQUIRY with a page code but without EVPD must fail with 5/24/00 (INVALID FIELD IN CDB).",
        invalid_field,
    ),
    Check("sense-kept", "BOT 6.6.4", "After status 1, REQUEST SENSE must return the sense data of the failure.", kept),
    Check("sense-cleared", "SPC-4 6.39", "REQUEST SENSE must return the sense data of a failure only once.", cleared),
    Check(
        "sense-per-failure",
        "SPC-4 6.39",
        "Different failures in turn must each have their own sense data.",
        per_failure,
    ),
    Check(
        "sense-after-success",
        "SAM-5 5.13",
        "A command that succeeds should clear the sense data of an earlier failure.",
        none_after_success,
        Severity.SHOULD,
    ),
    Check("sense-format", "SPC-4 4.5.3", "Sense data must be in fixed format, with at least 18 bytes.", shape),
    Check(
        "sense-lengths",
        "SPC-4 4.2.5.6",
        "REQUEST SENSE must truncate its data to the allocation length, 0 included.",
        lengths,
    ),
    Check(
        "inquiry-keeps-attention",
        "SPC-4 6.6.1",
        "INQUIRY must succeed while a unit attention is pending, and must not clear it.",
        inquiry_keeps_attention,
    ),
    Check("attention-once", "SAM-5 5.14", "Each unit attention must be reported only once.", attention_cleared),
)
