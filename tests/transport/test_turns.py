"""Bulk-Only Transport with several users: whose command is under way, ending it from outside, and the device's loss."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from scsiusb import DeviceBusy, DeviceGone, DeviceTimeout, TransportError
from scsiusb.transport.base import Direction
from scsiusb.transport.bot.transport import BulkOnlyTransport
from scsiusb.usb.backend import Code
from scsiusb.usb.interface import find
from scsiusb.usb.port import Port
from tests.sticks import PATIENCE, MeddledBus, Worker, hangs_at, stick

TEST_UNIT_READY = bytes(6)
READ = bytes.fromhex("28000000000000000100")
RECOVERY = ["request ff", "clear in", "clear out"]


class Someone:
    """Who does what it is told when it is asked whether it is over."""

    def __init__(self, act: Callable[[Someone], object] | None = None) -> None:
        self._act = act
        self.is_over = act is not None

    def check(self) -> None:
        assert self._act is not None
        self._act(self)


ME, YOU = Someone(), Someone()


@pytest.fixture
def bus() -> Iterator[MeddledBus]:
    bus = MeddledBus(stick())
    yield bus
    assert not bus.handles


@pytest.fixture
def notes() -> list[bool]:
    return []


@pytest.fixture
def transport(bus: MeddledBus, notes: list[bool]) -> Iterator[BulkOnlyTransport]:
    transport = BulkOnlyTransport(Port(bus, find(bus)[0]), notes.append)
    for _ in range(2):
        run(transport, TEST_UNIT_READY)
    bus.wire.log.clear()
    notes.clear()
    yield transport
    transport.close()


def run(transport: BulkOnlyTransport, cdb: bytes, timeout: float = PATIENCE, user: Someone | None = None) -> int:
    length = 512 if cdb == READ else 0
    direction = Direction.IN if length else Direction.NONE
    with transport.lock, transport.memory.lend(max(length, 1)) as buffer:
        return transport.execute(0, cdb, direction, buffer[:length], timeout, user).status


def hanging(bus: MeddledBus, transport: BulkOnlyTransport, user: Someone) -> Worker:
    reached = threading.Event()
    bus.wire.meddle = hangs_at(0x28, reached)
    worker = Worker(lambda: run(transport, READ, 60, user))
    assert reached.wait(PATIENCE)
    return worker


def test_a_command_is_noted_while_it_is_on_the_wire(transport: BulkOnlyTransport, notes: list[bool]) -> None:
    run(transport, TEST_UNIT_READY)
    run(transport, READ)
    assert notes == [True, False] * 2


def test_a_command_that_failed_is_noted_as_over_when_the_device_is_recovered(
    bus: MeddledBus, transport: BulkOnlyTransport, notes: list[bool]
) -> None:
    bus.wire.meddle = lambda wire, endpoint, buffer: (Code.TIMEOUT, 0)
    bus.wire.fail_requests = {"request ff": Code.TIMEOUT, "port reset": Code.IO}
    with pytest.raises(DeviceTimeout):
        run(transport, READ)
    assert notes == [True]
    bus.wire.meddle = None
    bus.wire.fail_requests = {}
    run(transport, TEST_UNIT_READY)
    assert notes == [True, False, True, False]


def test_an_exception_in_the_middle_leaves_the_note_for_whoever_comes_next(
    bus: MeddledBus, transport: BulkOnlyTransport, notes: list[bool]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    bus.wire.meddle = interrupt
    with pytest.raises(KeyboardInterrupt):
        run(transport, READ)
    assert notes == [True]
    bus.wire.meddle = None
    transport.close()
    assert notes == [True, False]
    assert bus.wire.log[-3:] == RECOVERY


def test_an_interrupt_ends_the_command_of_its_user_and_the_device_is_recovered(
    bus: MeddledBus, transport: BulkOnlyTransport, notes: list[bool]
) -> None:
    worker = hanging(bus, transport, ME)
    transport.interrupt(ME)
    with pytest.raises(TransportError):
        worker.result()
    assert notes == [True, False]
    assert bus.wire.log[-3:] == RECOVERY
    bus.wire.meddle = None
    assert run(transport, READ) == 0


def test_an_interrupt_for_somebody_else_or_for_nobody_does_nothing(
    bus: MeddledBus, transport: BulkOnlyTransport
) -> None:
    transport.interrupt(ME)
    assert run(transport, READ, user=ME) == 0
    worker = hanging(bus, transport, ME)
    transport.interrupt(YOU)
    assert worker.is_alive()
    transport.interrupt(ME)
    with pytest.raises(TransportError):
        worker.result()


def test_an_interrupt_ends_with_its_command(bus: MeddledBus, transport: BulkOnlyTransport) -> None:
    with pytest.raises(TransportError):
        run(transport, TEST_UNIT_READY, user=Someone(transport.interrupt))
    assert run(transport, TEST_UNIT_READY, user=ME) == 0


def test_the_command_of_a_user_who_is_over_is_not_sent(bus: MeddledBus, transport: BulkOnlyTransport) -> None:
    def refuse(_: Someone) -> None:
        raise DeviceGone("it was unplugged")

    with pytest.raises(DeviceGone):
        run(transport, TEST_UNIT_READY, user=Someone(refuse))
    assert bus.wire.log == []
    assert run(transport, TEST_UNIT_READY, user=ME) == 0


def test_a_lost_device_ends_whatever_is_under_way_and_nothing_begins(
    bus: MeddledBus, transport: BulkOnlyTransport
) -> None:
    worker = hanging(bus, transport, ME)
    transport.lose()
    with pytest.raises(TransportError):
        worker.result()
    bus.wire.meddle = None
    for _ in range(2):
        with pytest.raises(TransportError):
            run(transport, TEST_UNIT_READY)


def test_closing_a_lost_device_recovers_nothing(bus: MeddledBus, transport: BulkOnlyTransport) -> None:
    bus.wire.meddle = lambda wire, endpoint, buffer: (Code.NO_DEVICE, 0)
    with pytest.raises(DeviceGone):
        run(transport, READ)
    transport.lose()
    bus.wire.log.clear()
    transport.close()
    assert bus.wire.log == []


def test_nothing_else_runs_in_the_middle_of_a_command_in_its_own_thread(
    bus: MeddledBus, transport: BulkOnlyTransport
) -> None:
    """As a signal's handler would, which the lock lets in."""

    def handler(*_: object) -> None:
        seen.append(transport.is_under_way_here)
        for use in (lambda: run(transport, TEST_UNIT_READY), transport.close):
            with pytest.raises(DeviceBusy, match="from a signal handler while a command is running in this thread"):
                use()

    seen: list[bool] = []
    bus.wire.meddle = handler
    assert run(transport, READ) == 0
    assert set(seen) == {True}
    assert not transport.is_under_way_here


@pytest.mark.parametrize("begin", ["execute", "begin"])
def test_a_buffer_that_was_released_leaves_the_device_to_others(transport: BulkOnlyTransport, begin: str) -> None:
    view = memoryview(bytearray(512))
    view.release()
    with pytest.raises(ValueError, match="released"):
        getattr(transport, begin)(0, READ, Direction.IN, view, 5.0, ME)
    assert not transport.is_under_way_here
    assert run(transport, READ) == 0
    assert Worker(lambda: run(transport, READ)).result() == 0
