"""Performs the steps of stories: one at a time and blocking, or many, polled in one thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, TypeVar, cast

from scsiusb.base.waits import SLICE
from scsiusb.errors import Cancelled
from scsiusb.transport.base import Await, Call, Enter, Pause, Scope, Step, Story, Transfer
from scsiusb.transport.helper import Helper
from scsiusb.transport.turns import Turn, Turns, User, get_ident
from scsiusb.usb.backend import AsyncTransfers, Code, UsbError

R = TypeVar("R")
Answer = tuple[Code, int]
Bulk = Callable[[int, memoryview, float], Answer]

NO_MEM: Final = Code.NO_MEM
SHORT: Final = 1024  # bytes; a transfer of no more comes at once, or nearly so: a wrapper, or a single block
AT_ONCE: Final = (False,)  # the arguments of `acquire` that do not wait


class Driver:
    """Performs stories on a port, one step at a time, blocking."""

    def __init__(self, bulk: Bulk, in_parts: Bulk) -> None:
        """`bulk` and `in_parts`: as `Port` has them."""
        self._bulk = bulk
        self._in_parts = in_parts

    def drive(self, story: Story[R], step: Step | None = None) -> R:
        """Perform a story to its end and return its result; `step` is its current step, if it was begun.

        An exception that a step raises goes into the story, which cleans up, and may go on.
        """
        bulk, send = self._bulk, story.send
        answer: Any
        try:
            if step is None:
                step = send(None)
            while True:
                try:
                    if type(step) is tuple:
                        answer = bulk(*step)
                        if answer[0] is NO_MEM:
                            answer = self._in_parts(*step)
                    else:
                        answer = cast("Call", step).action()
                except BaseException as error:  # noqa: BLE001 - the story decides
                    step = story.throw(error)
                else:
                    step = send(answer)
        except StopIteration as end:
            result: R = end.value
            return result
        finally:
            answer = None  # it may have an error that is on its way through this frame: a cycle
            story.close()  # Ctrl-C may have come between two steps: the story would keep the turn


class PolledStory(Generic[R]):
    """One story that a poll loop moves on; another thread that wants the turn may move it on, too.

    Bulk transfers go by libusb's asynchronous interface. At the first step that blocks, the helper's thread takes the
    story over and performs the rest: a device that fails or hangs does not delay the others.
    """

    def __init__(
        self,
        story: Story[R],
        transfers: AsyncTransfers,
        turns: Turns,
        driver: Driver,
        helper: Helper,
        scope: Scope,
    ) -> None:
        self._story = story
        self._transfers = transfers
        self._turns = turns
        self._driver = driver
        self._helper = helper
        self._scope = scope
        self._lock = threading.RLock()  # held while the story moves, never while the caller's code runs
        self._turn: Turn | None = None
        self._step: Step | None = None  # None before it is begun: by `proceed`, when the caller has a reference
        self._held: list[Any] = []
        """The transfer that is under way, if any."""
        self._handed_over: _HandOver | None = None
        self._end: list[Callable[[], R]] = []
        self._is_over = False

    def proceed(self) -> bool:
        """See `Polled.proceed`."""
        if not self._is_over and self._handed_over is None:
            has_lock: list[bool] = []
            try:
                has_lock.extend(map(self._lock.acquire, AT_ONCE))  # one call: Ctrl-C cannot come before it is noted
                if True in has_lock:
                    self._advance()
            finally:
                if True in has_lock:
                    self._lock.release()
        return self._is_over

    @property
    def is_handed_over(self) -> bool:
        """See `Polled.is_handed_over`."""
        return self._handed_over is not None and not self._is_over

    def result(self) -> R:
        """See `Polled.result`."""
        return self._end.pop()()

    def cancel(self) -> None:
        """See `Polled.cancel`."""
        try:
            self._cancel()
        except BaseException:  # Ctrl-C: what the caller does next needs an ended story
            self._cancel()
            raise

    def _cancel(self) -> None:
        while True:
            with self._lock:  # another thread may hand over up to this moment
                handed_over = self._handed_over
                if self._is_over:
                    self._end.clear()  # an error there has a traceback with this object: a cycle
                    return
                if handed_over is None or handed_over.take_back():
                    self._claim()
                    self._cancel_transfer()
                    self._story.close()
                    self._forget()
                    self._is_over = True  # not before: a call that Ctrl-C interrupted is repeated
                    return
            with suppress(Empty):  # its command ends by itself: nothing there waits longer than its timeout
                handed_over.has_ended.get(timeout=SLICE)

    def finish(self) -> None:
        """Move on, waiting where there is something to wait for, until the turn is left."""
        self._scope.run(self._move_to_end_of_turn)  # not in a scope of the thread that wants the turn

    def _move_to_end_of_turn(self) -> None:
        try:
            with self._lock:
                while not self._is_over and self._handed_over is None and self._turn is self._turns.current:
                    self._claim()
                    try:
                        self._move()
                        if self._held:
                            self._transfers.handle_events(self._held)
                        elif type(self._step) is Await:
                            self._step.action()
                    finally:
                        self._let_go()
        finally:
            self._helper.wake()

    # --- moving on, with the lock -----------------------------------------------------------------

    def _advance(self) -> None:
        """Move on as far as is possible without waiting."""
        self._claim()
        try:
            self._move()
        finally:
            self._let_go()

    def _move(self) -> None:
        """Do what `_advance` does, in the name of this thread: a signal handler in it cannot move the story on."""
        has_come = True  # back to a step that awaits something: it may have happened
        try:
            while not self._is_over and self._take_step(has_come=has_come):
                has_come = False
        except Exception:
            raise
        except BaseException as error:
            # Ctrl-C: a transfer may have ended whose result is lost, so that the story cannot go on.
            if not self._is_over and self._handed_over is None:
                self._break_off(error)
            raise

    def _take_step(self, *, has_come: bool) -> bool:
        """Perform the story's step, and run the story to the next one; return False where it has to wait."""
        step = self._step
        if step is None:
            self._resume(partial(next, self._story))
        elif type(step) is tuple:
            answer = self._answer(step)
            if answer is None:
                return False
            self._resume(partial(self._story.send, answer))
        elif type(step) is Pause:
            self._resume(partial(self._story.send, step.action()))
        elif type(step) is Await:
            if has_come:
                self._resume(partial(self._story.send, None))
            return has_come
        else:
            self._hand_over()
            return False
        return True

    def _answer(self, step: Transfer) -> Answer | None:
        """Make the transfer. Return its result, or None while it is under way."""
        transfers, held = self._transfers, self._held
        if not held:
            try:
                transfers.submit(step[0], step[1], held)
            except UsbError as error:
                return self._beside(error.code, 0)
            if len(step[1]) <= SHORT:
                transfers.handle_events(held)
        else:
            transfers.handle_events()
        answer = transfers.outcome(held)
        if answer is None:
            if time.monotonic() < step[2]:
                return None
            answer = transfers.cancel(held)
        return self._beside(*answer)

    def _beside(self, code: Code, count: int) -> Answer | None:
        """Return the answer, or None where the kernel has no memory now: the driver then makes the transfer."""
        if code is not NO_MEM:
            return code, count
        self._hand_over()
        return None

    def _resume(self, begin: Callable[[], Step]) -> None:
        """Run the story to its next step. Its turn, if it has taken one, is then in the hands of this object."""
        try:
            self._step = begin()
        except StopIteration as end:
            self._finish_with(partial(_give, end.value))
        except Exception as error:  # noqa: BLE001 - raised by `result`
            self._story.close()  # a signal handler may have raised it, when the story had reached its next step
            self._finish_with(partial(_raise, [error]))
        if not self._is_over:
            self._adopt()

    def _break_off(self, error: BaseException) -> None:
        """End the story in the middle; the error is for the thread that it came in, which may be another one's."""
        self._cancel_transfer()
        self._story.close()
        cancelled = Cancelled(f"a command was ended by {type(error).__name__}")
        self._finish_with(partial(_raise, [cancelled]))

    def _claim(self) -> None:
        if self._turn is not None:
            self._turn.thread = get_ident()

    def _adopt(self) -> None:
        turn = self._turns.current
        # A turn that was waited for is not the story's, but that of the thread that moved the story on.
        if turn is not None and turn.thread == get_ident() and turn.wake is None:
            self._turn = turn
            turn.finish = self.finish

    def _let_go(self) -> None:
        turn = self._turn
        if turn is not None and turn.thread == get_ident():
            turn.thread = 0

    def _finish_with(self, end: Callable[[], R]) -> None:
        self._end.append(end)
        self._is_over = True
        self._forget()

    def _forget(self) -> None:
        """Drop what an ended story needs no more: the turn refers to its user."""
        self._turn = self._step = None

    def _cancel_transfer(self) -> None:
        """End the transfer that is under way, if any; its buffer may be used for something else then."""
        if self._held:
            self._transfers.cancel(self._held)

    # --- the thread that takes over -----------------------------------------------------------------

    def _hand_over(self) -> None:
        """Let the helper's thread perform this step and the rest of the story."""
        step = self._step
        turn = cast("Turn", step.turn) if type(step) is Enter else self._turn
        if turn is not None:
            turn.user = cast("User", self._scope)  # so that cancelling ends what that thread waits for
        self._let_go()  # the thread claims it
        self._handed_over = handed_over = _HandOver(step)
        try:
            self._helper.perform(partial(self._take_over, handed_over))
        except BaseException:  # no thread can be had now; or Ctrl-C, and then it may have begun
            if handed_over.take_back():
                self._handed_over = None
            raise

    def _take_over(self, handed_over: _HandOver) -> None:
        """Perform the rest of the story, in the helper's thread, unless it was taken back."""
        try:
            step = handed_over.ticket.pop()
        except IndexError:
            return
        self._claim()
        try:
            end: Callable[[], R] = partial(_give, self._scope.run(self._driver.drive, self._story, step))
        except BaseException as error:  # noqa: BLE001 - raised by `result`
            end = partial(_raise, [error])
        self._finish_with(end)
        handed_over.has_ended.put(None)
        self._helper.wake()


class _HandOver:
    """A story that was given to the helper's thread."""

    def __init__(self, step: Step | None) -> None:
        self.ticket = [step]
        """The step to go on with. Whoever removes it has the story: the thread, or who takes the story back."""
        self._taken_back: list[Step | None] = []
        self.has_ended: SimpleQueue[None] = SimpleQueue()
        """Has an item when the thread has ended the story."""

    def take_back(self) -> bool:
        """Take the story back; return False if the thread has begun with it."""
        with suppress(IndexError):
            self._taken_back.extend(map(self.ticket.pop, (-1,)))  # one call: Ctrl-C cannot come before it is noted
        return bool(self._taken_back)


def _give(value: R) -> R:
    return value


def _raise(errors: list[BaseException]) -> Any:
    """Remove the error from the list and raise it.

    A reference kept here would form a cycle (error, traceback, frame) that keeps all frames alive.
    """
    raise errors.pop()
