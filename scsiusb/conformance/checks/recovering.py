"""Checks of reset recovery at each point of an exchange (BOT 5.3.4), of port reset, and of response times."""

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
EVERYDAY: Final = 8  # repetitions of a measurement


def _run_commands(device: DeviceUnderTest) -> None:
    """Send commands with and without data; a wrong data toggle would lose one of them."""
    for _ in range(2):
        device.run(TestUnitReady())
        device.good(Inquiry())
        device.good(Inquiry())
    if device.is_ready:
        device.read(0, 1)
        device.run(TestUnitReady())
        device.read(0, min(2, device.capacity.blocks))


def after_nothing(device: DeviceUnderTest) -> str:
    """Recover an idle device several times, with commands after each."""
    for _ in range(ROUNDS):
        device.exchange.reset_recovery()
        _run_commands(device)
    return f"{ROUNDS} recoveries, each with commands after it"


def _large(device: DeviceUnderTest) -> Request:
    """Return the request with the longest data-in that the unit supports."""
    return device.reading(0, min(MANY, device.capacity.blocks)) if device.is_ready else Inquiry()


def after_cbw(device: DeviceUnderTest) -> str:
    """Recover after the CBW, before the data is read."""
    for request in (_large(device), Inquiry()):
        _send(device, request)
        device.exchange.reset_recovery()
        _run_commands(device)
    return "recovered before the data was read"


def after_some_data(packets: int, device: DeviceUnderTest) -> str:
    """Recover after `packets` full packets of data. NotApplicable if no command has more data."""
    request = _large(device)
    packet = device.exchange.port.bulk_in.max_packet_size
    if request.length <= packets * packet:
        raise NotApplicable(f"no command has more than {packets} packets of data")
    _send(device, request)
    code, data = device.exchange.receive(packets * packet)
    if code is not Code.OK or len(data) != packets * packet:
        raise Violation(f"{packets} packets of {request}", f"{len(data)} bytes, {code.name}", "full packets")
    device.exchange.reset_recovery()
    _run_commands(device)
    return f"{packets * packet} of {request.length} bytes read before recovery"


def after_data(device: DeviceUnderTest) -> str:
    """Recover after the data, before the CSW is read."""
    for request in (Inquiry(), _large(device)):
        _send(device, request)
        code, data = device.exchange.receive(request.length)
        if code is not Code.OK:
            raise Violation(f"data of {request}", f"{len(data)} bytes, {code.name}", f"{request.length} bytes")
        device.exchange.reset_recovery()
        _run_commands(device)
    return "recovered before the CSW was read"


def after_no_data(device: DeviceUnderTest) -> str:
    """Recover before the CSW of a command without data is read."""
    _send(device, TestUnitReady())
    device.exchange.reset_recovery()
    _run_commands(device)
    return "recovered before the CSW of TEST UNIT READY was read"


def after_stall(device: DeviceUnderTest) -> str:
    """Recover after data-in that ended with a STALL; recovery clears the halt."""
    packet = device.exchange.cbw(TestUnitReady(), EVERYDAY, Direction.IN)
    device.exchange.send(packet, "cbw")
    device.exchange.receive(EVERYDAY)
    device.exchange.reset_recovery()
    _run_commands(device)
    return "recovered after a STALL in case 4"


def _send(device: DeviceUnderTest, request: Request) -> None:
    packet = device.exchange.cbw(request, request.length, request.direction)
    code, _ = device.exchange.send(packet, "cbw")
    if code is not Code.OK:
        raise Violation(f"the CBW of {request}", code.name, "the device to accept it")


def port_reset(device: DeviceUnderTest) -> str:
    """Reset the port and send commands."""
    device.reset_port()
    for _ in range(ROUNDS):
        if device.settle():
            return "commands work after the port reset"
    raise Violation("commands after a port reset", "no answer", "answers")


def control_timing(device: DeviceUnderTest) -> str:
    """Measure GET_DESCRIPTOR."""
    slowest = 0.0
    for kind, length in ((DEVICE, 18), (CONFIGURATION, 9)) * EVERYDAY:
        began = time.monotonic()
        descriptor(device, kind, length)
        slowest = max(slowest, time.monotonic() - began)
    if slowest > CONTROL_LIMIT:
        raise Violation("GET_DESCRIPTOR", f"{slowest:.2f} s", f"{CONTROL_LIMIT:g} s at most")
    return f"{slowest * 1000:.1f} ms maximum"


def command_timing(device: DeviceUnderTest) -> str:
    """Measure commands that hosts send often; a device that is slow here makes every host slow."""
    requests: list[Request] = [TestUnitReady(), Inquiry(), RequestSense()]
    if device.is_ready:
        requests += [ReadCapacity10(), device.reading(0, 1), _large(device)]
    medians = []
    for request in requests:
        times = sorted(device.run(request).seconds for _ in range(EVERYDAY))
        if times[-1] > SLOW:
            raise Violation(str(request), f"{times[-1]:.2f} s", f"{SLOW:g} s at most")
        medians.append(f"{request} {times[EVERYDAY // 2] * 1000:.1f} ms")
    return ", ".join(medians)


def answers_all(device: DeviceUnderTest) -> str:
    """Send common commands, some of them optional; each must be answered within the timeout."""
    for request in (TestUnitReady(), ModeSense6(page=0x08), ModeSense6(page=0x1C), ReadCapacity10()):
        result = device.run(request)
        if result.is_failed:
            device.sense()
    return f"each answered within {device.exchange.timeout:g} s"


SECTION: Final = "BOT 5.3.4"
CHECKS: Final = (
    Check("recovery-idle", SECTION, "Commands must work after a reset recovery of an idle device.", after_nothing),
    Check(
        "recovery-after-cbw", SECTION, "Commands must work after a reset recovery before the data is read.", after_cbw
    ),
    Check(
        "recovery-first-packet",
        SECTION,
        "Commands must work after a reset recovery after the first packet of data.",
        partial(after_some_data, 1),
        needs_medium=True,
    ),
    Check(
        "recovery-in-data",
        SECTION,
        "Commands must work after a reset recovery in the middle of the data.",
        partial(after_some_data, 4),
        needs_medium=True,
    ),
    Check(
        "recovery-before-csw",
        SECTION,
        "Commands must work after a reset recovery between the data and the CSW.",
        after_data,
    ),
    Check(
        "recovery-without-data",
        SECTION,
        "Commands must work after a reset recovery before the CSW of a command without data.",
        after_no_data,
    ),
    Check(
        "recovery-after-stall",
        SECTION,
        "Commands must work after a reset recovery after data that ends with a STALL.",
        after_stall,
    ),
    Check("port-reset", "USB 2.0 9.1.1.3", "The device must answer commands after a port reset.", port_reset),
    Check("control-timing", "USB 2.0 9.2.6.1", "A control request must take at most 5 s.", control_timing),
    Check("answers-all", "BOT 5.3.3", "The device must answer every common command, supported or not.", answers_all),
    Check(
        "command-timing", "SPC-4 6", "Common commands should take less than a second.", command_timing, Severity.SHOULD
    ),
)
