"""A polled story and the other threads: who moves it on, who ends it, and whose turn it is."""

from __future__ import annotations

import dis
import gc
import inspect
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from scsiusb.errors import Cancelled, DeviceBusy, TransportError
from scsiusb.transport import turns as turns_module
from scsiusb.transport.base import Call, Enter, Pause, Story
from scsiusb.transport.drivers import Driver, PolledStory, _HandOver
from scsiusb.transport.helper import Helper
from scsiusb.transport.turns import Turn, Turns
from scsiusb.usb.backend import Code
from tests.sticks import PATIENCE, Worker, wait_until
from tests.transport.test_interrupted import everywhere

ENDPOINT = 0x81
LATE = 1e12
HELPERS: list[Helper] = []


class Transfers:
    """Transfers that stay under way until a test sets `answer`."""

    def __init__(self) -> None:
        self.answer: tuple[Code, int] | None = None
        self.submitted = 0
        self.under_way: list[object] = []
        self.on_submit: Callable[[], object] = lambda: None
        self.on_wait: Callable[[], object] = lambda: None

    def fileno(self) -> int:
        return -1

    def submit(self, endpoint: int, buffer: memoryview, held: list[Any], stream: int = 0) -> None:
        assert not self.under_way, "submitted twice"
        held.append(object())
        self.under_way.extend(held)
        self.submitted += 1
        self.on_submit()

    def handle_events(self, held: list[Any] | None = None) -> None:
        self.on_wait()

    def await_events(self, seconds: float) -> None:
        raise AssertionError("a poll loop does not wait")

    def outcome(self, held: list[Any]) -> tuple[Code, int] | None:
        if self.answer is not None:
            self.under_way.remove(held.pop())
        return self.answer

    def cancel(self, held: list[Any]) -> tuple[Code, int]:
        self.under_way.remove(held.pop())
        return Code.TIMEOUT, 0


@pytest.fixture(autouse=True)
def closed_helpers() -> Iterator[None]:
    yield
    while HELPERS:
        HELPERS.pop().close()


@pytest.fixture
def transfers() -> Transfers:
    return Transfers()


@pytest.fixture
def turns() -> Turns:
    return Turns("a device", lambda on: None)


def bulk(endpoint: int, buffer: memoryview, deadline: float) -> tuple[Code, int]:
    return Code.OK, len(buffer)


def polled(story: Story[Any], transfers: Transfers, turns: Turns, scope: ClientScope | None = None) -> PolledStory[Any]:
    helper = Helper(lambda: None, "of a device")
    HELPERS.append(helper)
    return PolledStory(story, transfers, turns, Driver(bulk, bulk), helper, scope or ClientScope())


class ClientScope:
    """The scope of a story; a user that is never over."""

    is_over = False
    is_current = False

    def run(self, function: Callable[..., Any], *arguments: object) -> Any:
        self.is_current = True
        try:
            return function(*arguments)
        finally:
            self.is_current = False

    def cancel(self) -> None:
        raise AssertionError("a story does not cancel its scope")

    def check(self, cause: BaseException | None = None) -> None:
        """Have nothing to raise."""

    def note(self, error: TransportError) -> None:
        """Take no note."""


def command(turns: Turns, *actions: Callable[[], object], user: User | None = None) -> Story[list[Code]]:
    """Make one large transfer, then perform the actions, all within a turn."""
    turn = Turn(turns, user)
    try:
        if not turn.try_enter():
            yield Enter(turn)
        code, _ = yield ENDPOINT, memoryview(bytes(4096)), LATE
        for action in actions:
            yield Call(action)
        return [code]
    finally:
        try:
            turn.leave()
        except BaseException:
            turn.leave()
            raise


def test_cancel_waits_for_the_recovery_that_another_thread_hands_over(transfers: Transfers, turns: Turns) -> None:
    waits, recovering, cancelling, wanted = (threading.Event() for _ in range(4))
    log: list[str] = []

    def wait() -> None:
        waits.set()
        assert cancelling.wait(PATIENCE)
        transfers.answer = Code.INTERRUPTED, 0

    def recover() -> None:
        recovering.set()
        assert wanted.wait(PATIENCE)
        log.append("recovered")

    story = polled(command(turns, recover), transfers, turns)
    assert not story.proceed()
    transfers.on_wait = wait

    class Lock:
        """Lets the other thread hand over before the one that cancels gets the lock."""

        def __init__(self, lock: Any) -> None:
            self._lock = lock

        def __enter__(self) -> None:
            if threading.current_thread() is threading.main_thread():
                cancelling.set()
                assert recovering.wait(PATIENCE)
                wanted.set()
            self._lock.acquire()

        def __exit__(self, *_: object) -> None:
            self._lock.release()

    story._lock = Lock(story._lock)  # type: ignore[assignment]
    other = Worker(lambda: Driver(bulk, bulk).drive(command(turns)))
    assert waits.wait(PATIENCE)
    story.cancel()
    assert log == ["recovered"]
    assert other.result() == [Code.OK]
    assert turns.current is None


def test_a_story_that_another_thread_moves_on_does_not_take_the_turn_of_that_thread(
    transfers: Transfers, turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The turn is given to the thread that waits for it, which is the one in whose frames the story leaves."""
    monkeypatch.setattr(turns_module, "PATIENCE", -1.0)

    def two_commands() -> Story[None]:
        yield from command(turns)
        yield ENDPOINT, memoryview(bytes(4096)), LATE

    story = polled(two_commands(), transfers, turns)
    assert not story.proceed()
    transfers.answer = Code.OK, 4096
    turn = Turn(turns, None)
    turn.enter()
    assert turns.current is turn
    assert turns.is_here
    assert turn.finish is None
    turn.leave()
    story.cancel()


def test_a_story_that_another_thread_moves_on_stays_in_its_scope(transfers: Transfers, turns: Turns) -> None:
    """That thread may be in a scope that is cancelled, and the story begins its next command there."""
    seen: list[bool] = []

    def notes() -> Story[None]:
        for _ in range(2):
            yield from command(turns)
            seen.append(scope.is_current)

    scope = ClientScope()
    story = polled(notes(), transfers, turns, scope)
    assert not story.proceed()
    transfers.answer = Code.OK, 4096
    turn = Turn(turns, None)
    turn.enter()
    turn.leave()
    assert seen[:1] == [True]
    story.cancel()


@pytest.mark.parametrize("step", ["an action", "the wait for the turn"])
def test_a_command_that_a_thread_takes_over_has_the_storys_scope_as_its_user(
    transfers: Transfers, turns: Turns, step: str
) -> None:
    """Only so can cancelling end what that thread waits for."""
    scope = ClientScope()
    other = Turn(turns, None)
    has_begun, may_end = threading.Event(), threading.Event()

    def act() -> None:
        has_begun.set()
        assert may_end.wait(PATIENCE)

    user = User()
    transfers.answer = Code.OK, 4096
    if step == "the wait for the turn":
        assert other.try_enter()
        other.thread = -1  # of another thread
    story = polled(command(turns, act, user=user), transfers, turns, scope)
    assert not story.proceed()
    if step == "the wait for the turn":
        wait_until(lambda: turns.waiting)
        assert turns.waiting[0].user is scope
        other.leave()
    assert has_begun.wait(PATIENCE)
    assert turns.current is not None
    assert turns.current.user is scope
    may_end.set()
    wait_until(story.proceed)
    assert story.result() == [Code.OK]


def test_a_story_that_no_thread_can_take_over_can_go_on_later(
    transfers: Transfers, turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = polled(command(turns, lambda: None), transfers, turns)
    transfers.answer = Code.OK, 4096
    with no_threads(monkeypatch), pytest.raises(RuntimeError, match="new thread"):
        story.proceed()
    wait_until(story.proceed)
    assert story.result() == [Code.OK]
    assert turns.current is None


def test_a_story_that_no_thread_can_take_over_can_be_cancelled(
    transfers: Transfers, turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = polled(command(turns, lambda: None), transfers, turns)
    transfers.answer = Code.OK, 4096
    with no_threads(monkeypatch), pytest.raises(RuntimeError, match="new thread"):
        story.proceed()
    story.cancel()
    assert turns.current is None


def test_a_waiter_that_cannot_move_a_story_on_waits(turns: Turns) -> None:
    class Wake:
        def get(self, timeout: float) -> None:
            waits.append(timeout)

    waits: list[float] = []
    turn = Turn(turns, None)
    assert turn.try_enter()
    turn.thread = 0
    turn.finish = lambda: None
    turns.wait(Wake())  # type: ignore[arg-type]
    assert len(waits) == 1
    turn.leave()


def test_the_stories_of_one_helper_are_taken_over_by_one_thread(transfers: Transfers, turns: Turns) -> None:
    """To start a thread for each recovery costs more than a recovery."""
    helper = Helper(lambda: None, "of a device")
    HELPERS.append(helper)
    transfers.answer = Code.OK, 4096
    threads = []
    for _ in range(3):
        story = PolledStory(
            command(turns, lambda: threads.append(threading.current_thread())),
            transfers,
            turns,
            Driver(bulk, bulk),
            helper,
            ClientScope(),
        )
        assert not story.proceed()
        assert story.is_handed_over
        wait_until(story.proceed)
        assert not story.is_handed_over
        assert story.result() == [Code.OK]
    assert len(threads) == 3
    assert len(set(threads)) == 1
    helper.close()
    assert not threads[0].is_alive()


@pytest.mark.parametrize(
    "function", [PolledStory._hand_over, PolledStory._cancel, _HandOver.take_back, Helper.perform, Helper._start]
)
def test_ctrl_c_while_a_story_is_handed_over_loses_it_to_nobody(
    transfers: Transfers, turns: Turns, function: Callable[..., object]
) -> None:
    """It can be cancelled, and is then over, whether the thread has begun with it or not."""
    transfers.answer = Code.OK, 4096
    for ctrl_c in everywhere(function):
        story = polled(command(turns, lambda: None), transfers, turns)

        def move_on_and_cancel(story: PolledStory[Any] = story) -> None:
            story.proceed()
            story.cancel()

        ctrl_c.run(move_on_and_cancel)
        story.cancel()
        assert story.proceed(), ctrl_c.at
        assert turns.current is None, ctrl_c.at
        helper = HELPERS.pop()
        helper.close()
        assert not any(thread.is_alive() for thread in helper._threads)


def test_a_story_that_the_thread_has_not_begun_with_is_cancelled_at_once(
    transfers: Transfers, turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a signal handler that comes while it is handed over, the thread may never begin."""
    monkeypatch.setattr(Helper, "perform", lambda *_: None)
    story = polled(command(turns, lambda: None), transfers, turns)
    transfers.answer = Code.OK, 4096
    assert not story.proceed()
    story.cancel()
    assert story.proceed()
    assert turns.current is None


@contextmanager
def no_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        yield


MOVING = [
    PolledStory.proceed,
    PolledStory._advance,
    PolledStory._move,
    PolledStory._answer,
    PolledStory._resume,
]


@pytest.mark.parametrize("function", MOVING)
@pytest.mark.parametrize("is_late", [False, True])
def test_ctrl_c_while_a_story_is_moved_on_keeps_no_transfer_and_leaves_the_turn(
    turns: Turns, function: Callable[..., object], *, is_late: bool
) -> None:
    for ctrl_c in everywhere(function):
        transfers = Transfers()
        story = polled(command(turns), transfers, turns)
        ctrl_c.run(story.proceed)
        if is_late:
            with suppress(KeyboardInterrupt):
                story.proceed()
        assert transfers.submitted <= 1
        story.cancel()
        assert transfers.under_way == [], ctrl_c.at
        assert turns.current is None, ctrl_c.at


@pytest.mark.parametrize("function", [PolledStory.cancel, PolledStory._cancel_transfer])
def test_ctrl_c_while_a_story_is_cancelled_ends_its_transfer_before_its_memory_is_free(
    turns: Turns, function: Callable[..., object]
) -> None:
    def borrowing(transfers: Transfers) -> Story[None]:
        try:
            yield from command(turns)
        finally:
            assert transfers.under_way == [], "the kernel may write into memory that is free again"

    for ctrl_c in everywhere(function):
        transfers = Transfers()
        story = polled(borrowing(transfers), transfers, turns)
        assert not story.proceed()
        ctrl_c.run(story.cancel)
        story.cancel()
        assert turns.current is None


def test_ctrl_c_in_a_thread_that_moves_a_story_on_sends_nothing_twice(turns: Turns) -> None:
    for ctrl_c in everywhere(PolledStory._move):
        transfers = Transfers()
        story = polled(command(turns), transfers, turns)
        assert not story.proceed()
        transfers.answer = Code.OK, 4096
        turn = Turn(turns, None)
        ctrl_c.run(turn.enter)
        turn.leave()
        while not story.proceed():
            pass
        with suppress(Cancelled):
            assert story.result() == [Code.OK]
        assert transfers.submitted == 1
        assert turns.current is None


@pytest.mark.parametrize("function", [PolledStory._resume, PolledStory.proceed])
def test_ctrl_c_while_a_story_is_moved_on_leaves_the_turn(
    transfers: Transfers, turns: Turns, function: Callable[..., object]
) -> None:
    transfers.answer = Code.OK, 4096
    for ctrl_c in everywhere(function):
        story = polled(command(turns), transfers, turns)

        def move_on(story: PolledStory[Any] = story) -> None:
            while not story.proceed():
                pass

        ctrl_c.run(move_on)
        story.cancel()
        assert turns.current is None, ctrl_c.at


def test_ctrl_c_just_after_the_lock_was_taken_releases_it(transfers: Transfers, turns: Turns) -> None:
    transfers.answer = Code.OK, 4096
    line, kept = 0, set()
    for ctrl_c in everywhere(PolledStory.proceed):
        story = polled(command(turns), transfers, turns)
        ctrl_c.run(story.proceed)

        def try_lock(lock: Any = story._lock) -> bool:
            return bool(lock.acquire(blocking=False)) and lock.release() is None

        if not Worker(try_lock).result():
            kept.add(ctrl_c.at)
        story.cancel()
    source, first = inspect.getsourcelines(PolledStory.proceed)
    starts = dict(dis.findlinestarts(PolledStory.proceed.__code__))
    for place in dis.get_instructions(PolledStory.proceed):
        line = starts.get(place.offset) or line
        if place.offset in kept:  # Python looks for signals nowhere between these two lines
            assert source[line - first].strip() in {"if True in has_lock:", "self._lock.release()"}


def test_ctrl_c_in_a_pause_ends_the_story(transfers: Transfers, turns: Turns) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    def pausing() -> Story[None]:
        yield pause
        raise AssertionError("it cannot go on")

    pause = Pause(125e-6)
    pause.action = interrupted
    story = polled(pausing(), transfers, turns)
    with pytest.raises(KeyboardInterrupt):
        story.proceed()
    assert story.proceed()
    with pytest.raises(Cancelled):
        story.result()


class User:
    """A user that is never over."""

    is_over = False

    def check(self, cause: BaseException | None = None) -> None:
        """Have nothing to raise."""

    def note(self, error: TransportError) -> None:
        """Take no note."""


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_an_ended_story_keeps_nothing_of_its_user(transfers: Transfers, turns: Turns, *, is_cancelled: bool) -> None:
    user = User()
    kept = weakref.ref(user)
    story = polled(command(turns, user=user), transfers, turns)
    del user
    gc.collect()
    gc.disable()
    try:
        assert not story.proceed()
        if is_cancelled:
            story.cancel()
        else:
            transfers.answer = Code.OK, 4096
            assert story.proceed()
            assert story.result() == [Code.OK]
        assert kept() is None
    finally:
        gc.enable()


def test_an_error_that_nobody_takes_is_dropped_by_cancel(transfers: Transfers, turns: Turns) -> None:
    def fail() -> Story[None]:
        yield ENDPOINT, memoryview(bytes(4096)), LATE
        raise LookupError

    story = polled(fail(), transfers, turns)
    assert not story.proceed()
    transfers.answer = Code.OK, 4096
    assert story.proceed()
    kept = weakref.ref(story)
    gc.collect()
    gc.disable()
    try:
        story.cancel()
        del story
        assert kept() is None
    finally:
        gc.enable()


def test_a_story_takes_no_turn_before_it_is_first_moved_on(transfers: Transfers, turns: Turns) -> None:
    """Ctrl-C may come before the caller has noted that there is one to cancel."""
    story = polled(command(turns), transfers, turns)
    assert turns.current is None
    assert not story.proceed()
    assert turns.current is not None
    story.cancel()
    assert turns.current is None


def test_a_story_that_was_not_begun_can_be_cancelled(transfers: Transfers, turns: Turns) -> None:
    story = polled(command(turns), transfers, turns)
    story.cancel()
    assert story.proceed()
    assert turns.current is None
    assert not transfers.submitted


def test_ctrl_c_in_a_story_is_raised_in_the_thread_that_it_came_in(transfers: Transfers, turns: Turns) -> None:
    def story() -> Story[None]:
        yield from interrupted(command(turns))

    def interrupted(inner: Story[Any]) -> Story[None]:
        yield next(inner)
        try:
            raise KeyboardInterrupt
        finally:
            inner.close()

    ended = polled(story(), transfers, turns)
    assert not ended.proceed()
    transfers.answer = Code.OK, 4096
    turn = Turn(turns, None)
    with pytest.raises(KeyboardInterrupt):
        turn.enter()
    turn.leave()
    assert turns.current is None
    assert ended.proceed()
    with pytest.raises(Cancelled, match="KeyboardInterrupt"):
        ended.result()


def test_a_signal_handler_cannot_move_on_the_story_that_it_interrupted(transfers: Transfers, turns: Turns) -> None:
    def handler() -> None:
        assert turns.is_here
        with pytest.raises(DeviceBusy, match="signal handler"):
            Turn(turns, None).enter()

    story = polled(command(turns), transfers, turns)
    transfers.on_submit = handler
    assert not story.proceed()
    assert not turns.is_here
    assert transfers.submitted == 1
    transfers.answer = Code.OK, 4096
    assert story.proceed()
    assert story.result() == [Code.OK]
