"""Reset recovery from the middle of everything, and whether the device answers in time."""

from __future__ import annotations

import time
from functools import partial
from typing import Final

from scsiusb.conformance.checks.descriptors import CONFIGURATION, DEVICE, descriptor
from scsiusb.conformance.device_under_test import DeviceUnderTest
from scsiusb.conformance.exchange import Request
from scsiusb.conformance.outcome import Check, NotApplicable, Severity, Violation
from scsiusb.scsi.commands.sbc import ReadCapacity10
from scsiusb.scsi.commands.spc import Inquiry, ModeSense6, RequestSense, TestUnitReady
from scsiusb.transport.base import Direction
from scsiusb.usb.backend import Code

MANY: Final = 64  # blocks
ROUNDS: Final = 8
CONTROL_LIMIT: Final = 5.0  # seconds (USB 2.0 9.2.6.1)
SLOW: Final = 1.0  # seconds
EVERYDAY: Final = 8


def _goes_on(device: DeviceUnderTest) -> None:
    """Commands with and without data: a wrong toggle loses one of them."""
    for _ in range(2):
        device.run(TestUnitReady())
        device.good(Inquiry())
        device.good(Inquiry())
    if device.is_ready:
        device.read(0, 1)
        device.run(TestUnitReady())
        device.read(0, min(2, device.capacity.blocks))


def after_nothing(device: DeviceUnderTest) -> str:
    for _ in range(ROUNDS):
        device.exchange.reset_recovery()
        _goes_on(device)
    return f"{ROUNDS} times, each with commands behind it"


def _large(device: DeviceUnderTest) -> Request:
    """The longest data-in there is."""
    return device.reading(0, min(MANY, device.capacity.blocks)) if device.is_ready else Inquiry()


def after_cbw(device: DeviceUnderTest) -> str:
    """The data is never taken."""
    for request in (_large(device), Inquiry()):
        _send(device, request)
        device.exchange.reset_recovery()
        _goes_on(device)
    return "its data not taken"


def after_some_data(packets: int, device: DeviceUnderTest) -> str:
    request = _large(device)
    packet = device.exchange.port.bulk_in.max_packet_size
    if request.length <= packets * packet:
        raise NotApplicable(f"no command has more than {packets} packets of data")
    _send(device, request)
    code, data = device.exchange.receive(packets * packet)
    if code is not Code.OK or len(data) != packets * packet:
        raise Violation(f"{packets} packets of {request}", f"{len(data)} bytes, {code.name}", "whole packets")
    device.exchange.reset_recovery()
    _goes_on(device)
    return f"{packets * packet} of {request.length} bytes taken"


def after_data(device: DeviceUnderTest) -> str:
    """The CSW is never taken."""
    for request in (Inquiry(), _large(device)):
        _send(device, request)
        code, data = device.exchange.receive(request.length)
        if code is not Code.OK:
            raise Violation(f"data of {request}", f"{len(data)} bytes, {code.name}", f"{request.length} bytes")
        device.exchange.reset_recovery()
        _goes_on(device)
    return "the CSW not taken"


def after_no_data(device: DeviceUnderTest) -> str:
    _send(device, TestUnitReady())
    device.exchange.reset_recovery()
    _goes_on(device)
    return "the CSW of TEST UNIT READY not taken"


def after_stall(device: DeviceUnderTest) -> str:
    """Data-in ended by STALL, and the halt cleared by recovery instead of by itself."""
    packet = device.exchange.cbw(TestUnitReady(), EVERYDAY, Direction.IN)
    device.exchange.send(packet, "cbw")
    device.exchange.receive(EVERYDAY)
    device.exchange.reset_recovery()
    _goes_on(device)
    return "in the middle of case 4"


def _send(device: DeviceUnderTest, request: Request) -> None:
    packet = device.exchange.cbw(request, request.length, request.direction)
    code, _ = device.exchange.send(packet, "cbw")
    if code is not Code.OK:
        raise Violation(f"the CBW of {request}", code.name, "that it is taken")


def port_reset(device: DeviceUnderTest) -> str:
    device.reset_port()
    for _ in range(ROUNDS):
        if device.settle():
            return "commands go on"
    raise Violation("commands behind a port reset", "none is answered", "answers")


def control_timing(device: DeviceUnderTest) -> str:
    slowest = 0.0
    for kind, length in ((DEVICE, 18), (CONFIGURATION, 9)) * EVERYDAY:
        began = time.monotonic()
        descriptor(device, kind, length)
        slowest = max(slowest, time.monotonic() - began)
    if slowest > CONTROL_LIMIT:
        raise Violation("GET_DESCRIPTOR", f"{slowest:.2f} s", f"{CONTROL_LIMIT:g} s at most")
    return f"{slowest * 1000:.1f} ms at most"


def command_timing(device: DeviceUnderTest) -> str:
    """What hosts send all day; a device that is slow here makes every host slow."""
    requests: list[Request] = [TestUnitReady(), Inquiry(), RequestSense()]
    if device.is_ready:
        requests += [ReadCapacity10(), device.reading(0, 1), _large(device)]
    said = []
    for request in requests:
        times = sorted(device.run(request).seconds for _ in range(EVERYDAY))
        if times[-1] > SLOW:
            raise Violation(str(request), f"{times[-1]:.2f} s", f"{SLOW:g} s at most")
        said.append(f"{request} {times[EVERYDAY // 2] * 1000:.1f} ms")
    return ", ".join(said)


def answers_all(device: DeviceUnderTest) -> str:
    """Known or not: no command may leave the host waiting."""
    for request in (TestUnitReady(), ModeSense6(page=0x08), ModeSense6(page=0x1C), ReadCapacity10()):
        ended = device.run(request)
        if ended.is_failed:
            device.sense()
    return f"within {device.exchange.timeout:g} s each"


SECTION: Final = "BOT 5.3.4"
CHECKS: Final = (
    Check("recovery-idle", SECTION, "Reset recovery of a device that is in step changes nothing.", after_nothing),
    Check("recovery-after-cbw", SECTION, "Recovery behind a CBW whose data is not taken: commands go on.", after_cbw),
    Check(
        "recovery-first-packet",
        SECTION,
        "Recovery behind the first packet of data: commands go on.",
        partial(after_some_data, 1),
        needs_medium=True,
    ),
    Check(
        "recovery-in-data",
        SECTION,
        "Recovery in the middle of the data: commands go on.",
        partial(after_some_data, 4),
        needs_medium=True,
    ),
    Check("recovery-before-csw", SECTION, "Recovery between the data and the CSW: commands go on.", after_data),
    Check(
        "recovery-without-data",
        SECTION,
        "Recovery before the CSW of a command without data: commands go on.",
        after_no_data,
    ),
    Check("recovery-after-stall", SECTION, "Recovery behind data that ended by STALL: commands go on.", after_stall),
    Check("port-reset", "USB 2.0 9.1.1.3", "Behind a reset of the port, the device answers.", port_reset),
    Check("control-timing", "USB 2.0 9.2.6.1", "A control request takes 5 s at most.", control_timing),
    Check("answers-all", "BOT 5.3.3", "No everyday command, known or not, leaves the host waiting.", answers_all),
    Check("command-timing", "SPC-4 6", "Everyday commands take less than a second.", command_timing, Severity.SHOULD),
)
