"""Bulk-Only Transport with several users: one command at a time, interrupting it, and losing the device."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from types import SimpleNamespace

import pytest

from scsiusb import DeviceBusy, DeviceGone, DeviceTimeout, TransportError
from scsiusb.transport import turns as turns_module
from scsiusb.transport.base import Direction
from scsiusb.transport.bot.transport import BulkOnlyTransport
from scsiusb.transport.turns import Turn, Turns
from scsiusb.usb.backend import Code
from scsiusb.usb.interface import find
from scsiusb.usb.port import Port
from tests.sticks import PATIENCE, InterceptedBus, Worker, execute, hangs_at, stick, wait_until

TEST_UNIT_READY = bytes(6)
READ = bytes.fromhex("28000000000000000100")
RECOVERY = ["request ff", "clear in", "clear out"]


class User:
    """A user of the transport, which calls `act` when the transport checks whether the user may still send commands."""

    def __init__(self, act: Callable[[User], object] | None = None) -> None:
        self._act = act
        self.is_over = act is not None

    def check(self, cause: BaseException | None = None) -> None:
        assert self._act is not None
        self._act(self)

    def note(self, error: TransportError) -> None:
        """Take no note."""

    def end(self, turns: Turns) -> None:
        """Become over, and end the command that is running."""
        self._act = lambda _: None
        self.is_over = True
        turns.interrupt()


@pytest.fixture
def bus() -> Iterator[InterceptedBus]:
    bus = InterceptedBus(stick())
    yield bus
    assert not bus.handles


@pytest.fixture
def notes() -> list[bool]:
    return []


@pytest.fixture
def transport(bus: InterceptedBus, notes: list[bool]) -> Iterator[BulkOnlyTransport]:
    transport = BulkOnlyTransport(Port(bus, find(bus)[0]), notes.append)
    for _ in range(2):
        run(transport, TEST_UNIT_READY)
    bus.wire.log.clear()
    notes.clear()
    yield transport
    transport.close()


def run(transport: BulkOnlyTransport, cdb: bytes, timeout: float = PATIENCE, user: User | None = None) -> int:
    length = 512 if cdb == READ else 0
    direction = Direction.IN if length else Direction.NONE
    with transport.memory.lend(max(length, 1)) as buffer:
        return execute(transport, 0, cdb, direction, buffer[:length], timeout, user).status


def hanging(bus: InterceptedBus, transport: BulkOnlyTransport, user: User) -> Worker:
    reached = threading.Event()
    bus.wire.intercept = hangs_at(0x28, reached)
    worker = Worker(lambda: run(transport, READ, 60, user))
    assert reached.wait(PATIENCE)
    return worker


def test_a_command_is_noted_while_it_is_on_the_wire(transport: BulkOnlyTransport, notes: list[bool]) -> None:
    run(transport, TEST_UNIT_READY)
    run(transport, READ)
    assert notes == [True, False] * 2


def test_a_failed_command_is_noted_as_over_when_the_device_is_recovered(
    bus: InterceptedBus, transport: BulkOnlyTransport, notes: list[bool]
) -> None:
    bus.wire.intercept = lambda wire, endpoint, buffer: (Code.TIMEOUT, 0)
    bus.wire.fail_requests = {"request ff": Code.TIMEOUT, "port reset": Code.IO}
    with pytest.raises(DeviceTimeout):
        run(transport, READ)
    assert notes == [True]
    bus.wire.intercept = None
    bus.wire.fail_requests = {}
    run(transport, TEST_UNIT_READY)
    assert notes == [True, False, True, False]


def test_after_an_exception_the_note_stays_until_close_recovers_the_device(
    bus: InterceptedBus, transport: BulkOnlyTransport, notes: list[bool]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    bus.wire.intercept = interrupt
    with pytest.raises(KeyboardInterrupt):
        run(transport, READ)
    assert notes == [True]
    bus.wire.intercept = None
    transport.close()
    assert notes == [True, False]
    assert bus.wire.log[-3:] == RECOVERY


def test_an_interrupt_ends_the_command_of_its_user_and_the_device_is_recovered(
    bus: InterceptedBus, transport: BulkOnlyTransport, notes: list[bool]
) -> None:
    me = User()
    worker = hanging(bus, transport, me)
    me.end(transport.turns)
    with pytest.raises(TransportError):
        worker.result()
    assert notes == [True, False]
    assert bus.wire.log[-3:] == RECOVERY
    bus.wire.intercept = None
    assert run(transport, READ) == 0


def test_an_interrupt_for_a_user_without_a_running_command_does_nothing(
    bus: InterceptedBus, transport: BulkOnlyTransport
) -> None:
    me, other = User(), User()
    transport.turns.interrupt()
    assert run(transport, READ, user=me) == 0
    worker = hanging(bus, transport, me)
    other.end(transport.turns)
    assert not transport.turns.is_interrupted
    assert worker.is_alive()
    me.end(transport.turns)
    with pytest.raises(TransportError):
        worker.result()


def test_an_interrupt_ends_with_its_command(bus: InterceptedBus, transport: BulkOnlyTransport) -> None:
    with pytest.raises(TransportError):
        run(transport, TEST_UNIT_READY, user=User(lambda _: transport.turns.interrupt()))
    assert run(transport, TEST_UNIT_READY, user=User()) == 0


def test_a_command_is_not_sent_if_the_check_of_its_user_raises(
    bus: InterceptedBus, transport: BulkOnlyTransport
) -> None:
    def refuse(_: User) -> None:
        raise DeviceGone("it was unplugged")

    with pytest.raises(DeviceGone):
        run(transport, TEST_UNIT_READY, user=User(refuse))
    assert bus.wire.log == []
    assert run(transport, TEST_UNIT_READY, user=User()) == 0


def test_losing_the_device_ends_the_running_command_and_refuses_later_ones(
    bus: InterceptedBus, transport: BulkOnlyTransport
) -> None:
    worker = hanging(bus, transport, User())
    transport.turns.lose()
    with pytest.raises(TransportError):
        worker.result()
    bus.wire.intercept = None
    for _ in range(2):
        with pytest.raises(TransportError):
            run(transport, TEST_UNIT_READY)


def test_closing_after_a_loss_does_not_recover_the_device(bus: InterceptedBus, transport: BulkOnlyTransport) -> None:
    bus.wire.intercept = lambda wire, endpoint, buffer: (Code.NO_DEVICE, 0)
    with pytest.raises(DeviceGone):
        run(transport, READ)
    transport.turns.lose()
    bus.wire.log.clear()
    transport.close()
    assert bus.wire.log == []


def test_a_call_during_a_command_of_the_same_thread_is_refused(
    bus: InterceptedBus, transport: BulkOnlyTransport
) -> None:
    """A signal handler could make such a call."""

    def handler(*_: object) -> None:
        seen.append(transport.turns.is_here)
        for use in (lambda: run(transport, TEST_UNIT_READY), transport.close):
            with pytest.raises(DeviceBusy, match="from a signal handler while a command is running in this thread"):
                use()

    seen: list[bool] = []
    bus.wire.intercept = handler
    assert run(transport, READ) == 0
    assert set(seen) == {True}
    assert not transport.turns.is_here


def test_a_released_buffer_is_refused_and_the_device_stays_usable(transport: BulkOnlyTransport) -> None:
    view = memoryview(bytearray(512))
    view.release()
    with pytest.raises(ValueError, match="released"):
        execute(transport, 0, READ, Direction.IN, view, 5.0, User())
    assert not transport.turns.is_here
    assert run(transport, READ) == 0
    assert Worker(lambda: run(transport, READ)).result() == 0


def test_a_user_that_is_over_does_not_wait_for_its_turn(transport: BulkOnlyTransport, bus: InterceptedBus) -> None:
    def refuse(_: User) -> None:
        raise DeviceGone("it was unplugged")

    me, other = User(), User(refuse)
    other.is_over = False
    running = hanging(bus, transport, me)
    waiting = Worker(lambda: run(transport, TEST_UNIT_READY, user=other))
    wait_until(lambda: transport.turns.waiting)
    other.is_over = True
    with pytest.raises(DeviceGone):
        waiting.result()
    assert running.is_alive()
    me.end(transport.turns)
    with pytest.raises(TransportError):
        running.result()


def test_the_turn_is_not_given_to_a_command_that_took_and_left_it_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would hold the turn forever. A look at the clock stands for the moment in which the other thread runs."""
    turns = Turns("a device", lambda on: None)
    first, second = Turn(turns, None), Turn(turns, None)
    assert first.try_enter()
    turns.waiting.append(second)

    def meanwhile() -> float:
        assert second.try_enter()
        turns.waiting.remove(second)
        second.leave()
        return 1e9

    monkeypatch.setattr(turns_module, "time", SimpleNamespace(monotonic=meanwhile))
    first.leave()
    assert turns.current is None


def test_a_turn_that_is_assigned_to_a_waiter_before_it_waits_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the waiter's own thread, as a turn has in whose middle a signal handler runs."""
    turns = Turns("a device", lambda on: None)
    first, second = Turn(turns, None), Turn(turns, None)
    assert first.try_enter()
    wait = turns.wait

    def meanwhile(wake: SimpleQueue[None]) -> None:
        first.leave()
        assert turns.current is second
        wait(wake)

    monkeypatch.setattr(turns_module, "PATIENCE", -1)
    monkeypatch.setattr(turns, "wait", meanwhile)
    second.enter()
    assert turns.current is second
    second.leave()
    assert turns.current is None
