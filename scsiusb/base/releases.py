"""A stack of release steps; Ctrl-C at any moment does not lose a step."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import partial
from itertools import repeat
from typing import Protocol, TypeVar

R = TypeVar("R")


def open_into(descriptors: list[int], call: Callable[..., int], *arguments: object) -> int:
    """Append the descriptor that `call(*arguments)` returns, and return it. `call` must be implemented in C.

    Ctrl-C can come after any call that Python code makes, and so between `os.open` and the assignment of its result.
    Here it cannot: the call and the append are one call.
    """
    descriptors.extend(map(call, *((argument,) for argument in arguments)))
    return descriptors[-1]


def close_all(descriptors: list[int]) -> None:
    """Close the descriptors and remove them from the list, in one call: none is closed twice, or forgotten."""
    with suppress(IndexError):  # another thread has closed them
        deque(map(os.close, map(descriptors.pop, repeat(-1, len(descriptors)))), maxlen=0)


class Descriptors(list[int]):
    """Open descriptors for `open_into`, which are closed with the last reference if Ctrl-C came in `close_all`."""

    def __del__(self) -> None:
        close_all(self)


class Entry(Protocol):
    """An entry of the ledger."""

    def hold(self) -> None:
        """Add it."""

    def release(self) -> None:
        """Remove it."""


class Releases:
    """Release steps that are run in reverse order.

    Add a release step before its acquire, so that an exception between the two does not lose it. A step must work even
    if the acquire never happened, and when it is run again because Ctrl-C interrupted it. Unlike an ExitStack, this
    removes a step only after it has ended: KeyboardInterrupt can be raised between any two bytecodes.
    """

    def __init__(self) -> None:
        self._steps: list[Callable[[], object]] = []
        self._starved: Callable[[], object] | None = None
        """The step that last had no memory; it is run twice at most for that."""

    def add(self, step: Callable[..., object], *arguments: object) -> None:
        """Add a step: `step(*arguments)`."""
        self._steps.append(partial(step, *arguments))

    def hold(self, entry: Entry) -> None:
        """Add an entry to the ledger, and its release before that."""
        self.add(entry.release)
        entry.hold()

    def enter(self, context: AbstractContextManager[R]) -> R:
        """Enter a context, whose exit is added before; it must do nothing if the context was not entered."""
        self.add(context.__exit__, None, None, None)
        return context.__enter__()

    def close(self) -> None:
        """Run all steps, the last added first; then raise the first error, if any. May be called again."""
        try:
            self._close()
        except BaseException:  # Ctrl-C may have come between two steps
            self._close()
            raise

    def _close(self) -> None:
        first: BaseException | None = None
        while self._steps:
            try:
                for step in self._steps[-1:]:  # empty if another thread has removed the last one
                    self._run(step)
            except BaseException as error:  # noqa: BLE001 - raised at the end
                first = first or error
        try:
            if first is not None:
                raise first
        finally:
            del first  # its traceback refers to this frame: without this there is a reference cycle

    def forget(self) -> None:
        """Remove all steps without running them: in a forked child, whose parent will run them."""
        self._steps.clear()

    def _run(self, step: Callable[[], object]) -> None:
        """Run a step and remove it; a step that Ctrl-C or a lack of memory interrupted stays, and is run again."""
        try:
            step()
        except MemoryError:  # what was allocated meanwhile is free now
            if self._starved is step:
                self._drop(step)
            else:
                self._starved = step
            raise
        except Exception:  # the step has failed by itself: running it again would fail again
            self._drop(step)
            raise
        self._drop(step)

    def _drop(self, step: Callable[[], object]) -> None:
        """Remove the step, unless another thread, or a second run of the same step, has done so."""
        self._starved = None
        if self._steps and self._steps[-1] is step:
            del self._steps[-1]
