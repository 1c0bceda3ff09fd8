"""UAS devices that break the rules, one fault at a time, at both speeds: right data or a clear error, and in time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

import scsiusb
from scsiusb import Disk
from scsiusb.opening import open_on
from scsiusb.transport import recovery
from scsiusb.transport.uas import tasks
from scsiusb.usb.interface import find
from scsiusb.virtual import Bus, Identity, Memory, Stick, Unit, uas_interface

BLOCKS = 256
DATA = bytes(range(256)) * 2 * BLOCKS
NEW = bytes(reversed(DATA))
LONG, SHORT = 10.0, 0.1  # seconds

RIGHT = None
"""The command succeeds, if need be at a second try."""
GONE, LATE, RESERVED = scsiusb.DeviceGone, scsiusb.DeviceTimeout, scsiusb.DeviceBusy
FAULTS: dict[str, type[scsiusb.ScsiUsbError] | None] = {
    "stall@cbw": RIGHT,
    "stall@data": RIGHT,
    "stall@csw": RIGHT,
    "nak@cbw": LATE,
    "nak@data": LATE,
    "nak@csw": LATE,
    "hang@cbw": LATE,
    "hang@data": LATE,
    "hang@csw": LATE,
    "delay=0.05@cbw": RIGHT,
    "delay=0.05@data": RIGHT,
    "delay=0.05@csw": RIGHT,
    "delay=0.6@csw": LATE,
    "short=512@data": RIGHT,
    "short=5@csw": RIGHT,
    "short=2@csw": RIGHT,
    "long@data": RIGHT,
    "long@csw": RIGHT,
    "long=4096@csw": RIGHT,
    "empty@data": RIGHT,
    "empty@csw": RIGHT,
    "status=8": RIGHT,
    "status=24": RESERVED,
    "status=40": RIGHT,
    "status=48": RIGHT,
    "status=64": RIGHT,
    "status=3": RIGHT,
    "no-sense": RIGHT,
    "phase-error": RIGHT,
    "extra": RIGHT,
    "csw-as-data": RIGHT,
    "disconnect@cbw": GONE,
    "disconnect@data": GONE,
    "disconnect@csw": GONE,
    "sense=b/00/00": RIGHT,
    "attentions": RIGHT,
    "becoming-ready=1": RIGHT,
}


@pytest.fixture(params=[pytest.param("high", marks=pytest.mark.slow), "super"])
def bus(request: pytest.FixtureRequest) -> Iterator[Bus]:
    stick = Stick([Unit(Memory(bytearray(DATA)))], Identity(speed=request.param), [uas_interface(alternate=0)])
    bus = Bus(stick)
    yield bus
    assert not bus.handles
    assert all(info.driver == "uas" for info in find(bus))
    bus.close()


def stick_of(bus: Bus) -> Stick:
    (connection,) = bus._connections.values()
    return connection.stick


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the pauses of a recovery short."""
    monkeypatch.setattr(recovery, "LEAST_CONTROL_TIMEOUT", SHORT)
    monkeypatch.setattr(tasks, "GRACE", 0.02)


def opened(bus: Bus, timeout: float = LONG) -> Disk:
    disk = open_on(bus, timeout=timeout)
    disk.read(0, 1)
    disk.write(0, DATA[:512])  # what is asked once, such as write protection, is asked now
    disk.flush()
    return disk


def read(disk: Disk) -> None:
    assert disk.read(8, 64) == DATA[8 * 512 : 72 * 512]


def write(disk: Disk) -> None:
    disk.write(8, NEW[8 * 512 : 72 * 512])


@pytest.mark.parametrize("operation", [pytest.param(read, marks=pytest.mark.slow), write])
@pytest.mark.parametrize(
    "fault", [pytest.param(fault, marks=[pytest.mark.slow] * (number % 3 > 0)) for number, fault in enumerate(FAULTS)]
)
def test_a_fault_ends_in_right_data_or_a_clear_error_in_time(
    bus: Bus, fault: str, operation: Callable[[Disk], None]
) -> None:
    stick, wanted = stick_of(bus), FAULTS[fault]
    with opened(bus, SHORT if wanted is LATE else LONG) as disk:
        stick.faults.add(fault)
        before = time.monotonic()
        if wanted is RIGHT:
            operation(disk)
        else:
            with pytest.raises(wanted):
                operation(disk)
        assert time.monotonic() - before < 30, "it hangs"
        assert stick.faults.fired, "the fault was not met"
        stick.faults.clear()
        if wanted is not GONE:
            found = disk.read(0, BLOCKS)
            is_written = operation is write and wanted is RIGHT
            part = slice(8 * 512, 72 * 512)
            if is_written:
                assert found[part] == NEW[part]
            elif operation is write:
                assert found[part] in (NEW[part], DATA[part]), "it is written as a whole, or not at all"
            else:
                assert found == DATA
            with suppress(scsiusb.UnitAttention):  # a reset came before the flush, and this says so
                disk.flush()


@pytest.mark.parametrize("fault", ["tag", "tag=77"])
def test_a_status_for_nobody_is_not_taken_for_an_answer(bus: Bus, fault: str) -> None:
    stick = stick_of(bus)
    with opened(bus, LONG if stick.identity.speed == "super" else SHORT) as disk:
        stick.faults.add(fault)
        if stick.identity.speed == "super":  # it came on the command's own stream: the device is out of step
            read(disk)
        else:
            with pytest.raises(scsiusb.DeviceTimeout):
                read(disk)
        read(disk)


def test_a_flood_of_statuses_for_nobody_ends(bus: Bus) -> None:
    stick = stick_of(bus)
    with opened(bus) as disk:
        function = stick.function_of_interface(0)
        for _ in range(1000):
            function.answer(99, bytes((3, 0, 0, 99, *bytes(12))))  # type: ignore[attr-defined]
        read(disk)
        read(disk)


@pytest.mark.parametrize(
    ("fault", "steps"),
    [
        ("nak@csw", ("abort task",)),
        ("hang@csw", ("abort task", "logical unit reset", "port reset")),
        ("hang@data", ("abort task", "logical unit reset", "port reset")),
    ],
)
def test_recovery_begins_with_the_gentlest_step_and_goes_on_until_one_works(
    bus: Bus, fault: str, steps: tuple[str, ...]
) -> None:
    with opened(bus, SHORT) as disk:
        stick_of(bus).faults.add(fault)
        with pytest.raises(scsiusb.DeviceTimeout) as failure:
            disk.read(8, 1)
        assert failure.value.tried == steps
        read(disk)


def test_the_sense_comes_with_the_status_and_is_not_asked_for(bus: Bus) -> None:
    stick = stick_of(bus)
    with opened(bus) as disk:
        stick.faults.add("sense=5/24/00")
        before = stick.faults.commands
        with pytest.raises(scsiusb.IllegalRequest):
            disk.unit.test_unit_ready()
        assert stick.faults.commands == before + 1


def test_a_command_that_is_cancelled_is_aborted_in_the_device(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    stick = stick_of(bus)
    with opened(bus) as disk:
        stick.faults.add("nak@csw")
        scope = disk.unit.transport.scope()
        timer = threading.Timer(0.1, scope.cancel)
        timer.start()
        with caplog.at_level(logging.INFO), pytest.raises(scsiusb.Cancelled):
            scope.run(disk.read, 8, 64)
        timer.join()
        steps = [record.recovery_step for record in caplog.records if hasattr(record, "recovery_step")]
        assert steps == ["abort task"]
        read(disk)
