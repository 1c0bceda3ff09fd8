"""Stories and their drivers: steps are performed, exceptions go into the story, and the turn is always left."""

from __future__ import annotations

import threading

import pytest

from scsiusb.errors import DeviceBusy
from scsiusb.transport.base import Call, Enter, Story, leaving
from scsiusb.transport.drivers import Driver
from scsiusb.transport.turns import Turn, Turns
from scsiusb.usb.backend import Code
from tests.sticks import Worker

ENDPOINT = 0x81


class Bus:
    """Answers each transfer with what a test has put into `answers`; else moves all of the buffer."""

    def __init__(self) -> None:
        self.answers: list[BaseException | tuple[Code, int]] = []
        self.moved: list[tuple[int, int, float]] = []

    def bulk(self, endpoint: int, buffer: memoryview, deadline: float) -> tuple[Code, int]:
        self.moved.append((endpoint, len(buffer), deadline))
        answer = self.answers.pop(0) if self.answers else (Code.OK, len(buffer))
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def in_parts(self, endpoint: int, buffer: memoryview, deadline: float) -> tuple[Code, int]:
        self.moved.append((-endpoint, len(buffer), deadline))
        return Code.OK, len(buffer)


@pytest.fixture
def bus() -> Bus:
    return Bus()


@pytest.fixture
def turns() -> Turns:
    return Turns("a device", lambda on: None)


def transfers(*lengths: int) -> Story[list[tuple[Code, int]]]:
    answers = []
    for length in lengths:
        answers.append((yield ENDPOINT, memoryview(bytes(length)), 7.0))  # noqa: PERF401 - a comprehension cannot yield
    return answers


def within(turn: Turn, story: Story[object]) -> Story[object]:
    with leaving(turn):
        if not turn.try_enter():
            yield Enter(turn)
        return (yield from story)


def test_steps_are_performed_in_order_and_their_answers_sent(bus: Bus) -> None:
    bus.answers = [(Code.OK, 3), (Code.PIPE, 1)]
    assert Driver(bus.bulk, bus.in_parts).drive(transfers(3, 4)) == [(Code.OK, 3), (Code.PIPE, 1)]
    assert [(endpoint, length) for endpoint, length, _ in bus.moved] == [(ENDPOINT, 3), (ENDPOINT, 4)]
    assert all(deadline == 7.0 for *_, deadline in bus.moved)


def test_a_transfer_that_the_kernel_has_no_memory_for_is_made_in_parts(bus: Bus) -> None:
    bus.answers = [(Code.NO_MEM, 0)]
    assert Driver(bus.bulk, bus.in_parts).drive(transfers(5)) == [(Code.OK, 5)]
    assert [endpoint for endpoint, *_ in bus.moved] == [ENDPOINT, -ENDPOINT]


def test_an_exception_of_a_step_goes_into_the_story_which_may_go_on(bus: Bus) -> None:
    def story() -> Story[str]:
        try:
            yield Call(fail)
        except LookupError:
            yield from transfers(1)
            return "went on"
        return "no exception"

    def fail() -> None:
        raise LookupError

    assert Driver(bus.bulk, bus.in_parts).drive(story()) == "went on"
    assert len(bus.moved) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, ValueError])
def test_an_exception_in_a_transfer_leaves_the_turn(bus: Bus, turns: Turns, error: type[BaseException]) -> None:
    bus.answers = [error()]
    with pytest.raises(error):
        Driver(bus.bulk, bus.in_parts).drive(within(Turn(turns, None), transfers(1, 2)))
    assert turns.current is None


def test_a_story_that_is_dropped_leaves_the_turn(turns: Turns) -> None:
    story = within(Turn(turns, None), transfers(1))
    next(story)
    assert turns.current is not None
    story.close()
    assert turns.current is None


def test_a_turn_that_was_not_taken_is_not_left(turns: Turns) -> None:
    taken, other = Turn(turns, None), Turn(turns, None)
    assert taken.try_enter()
    assert not other.try_enter()
    other.leave()
    assert turns.current is taken
    taken.leave()
    assert turns.current is None


def test_a_thread_that_has_the_turn_cannot_wait_for_it(turns: Turns) -> None:
    turn = Turn(turns, None)
    assert turn.try_enter()
    with pytest.raises(DeviceBusy, match="signal handler"):
        Turn(turns, None).enter()
    assert not turns.waiting


def test_a_busy_thread_does_not_starve_another(bus: Bus, turns: Turns) -> None:
    """Without a hand-over, the busy one would take the turn again before the one that it woke could run."""
    driver, done = Driver(bus.bulk, bus.in_parts), threading.Event()

    def keep_busy() -> int:
        count = 0
        while not done.is_set() and count < 1_000_000:
            driver.drive(within(Turn(turns, None), transfers(1)))
            bus.moved.clear()
            count += 1
        return count

    busy = Worker(keep_busy)
    for _ in range(20):
        driver.drive(within(Turn(turns, None), transfers(1)))
    done.set()
    count = busy.result()
    assert isinstance(count, int)
    assert count < 1_000_000
    assert turns.current is None
    assert not turns.waiting


def test_many_threads_each_get_their_turns_and_never_two_at_once(turns: Turns) -> None:
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(300):
            turn = Turn(turns, None)
            try:
                turn.enter()
                inside += 1
                most = max(most, inside)
                inside -= 1
            finally:
                turn.leave()

    for worker in [Worker(work) for _ in range(8)]:
        worker.result()
    assert (most, inside) == (1, 0)
    assert turns.current is None
    assert not turns.waiting
