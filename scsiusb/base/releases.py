"""What is to be released, last acquired first: each step until it is done, whatever breaks into it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial


class Releases:
    """Add a release before its acquire, so that nothing between the two loses it.

    A step may be run again when Ctrl-C broke into it, so it must bear that, and an acquire that never happened.
    Unlike an ExitStack, this forgets a step only when it was run to its end: Ctrl-C can come between any two bytecodes.
    """

    def __init__(self) -> None:
        self._steps: list[Callable[[], object]] = []

    def add(self, step: Callable[..., object], *arguments: object) -> None:
        self._steps.append(partial(step, *arguments))

    def close(self) -> None:
        """Runs all steps; then raises the first error of those that failed. May be called again."""
        first: BaseException | None = None
        while self._steps:
            try:
                for step in self._steps[-1:]:  # none if another thread was quicker
                    self._run(step)
            except BaseException as error:  # noqa: BLE001 - raised at the end
                first = first or error
        try:
            if first is not None:
                raise first
        finally:
            del first  # this frame is in its traceback

    def forget(self) -> None:
        """In a fork's child, where none of this is to be released."""
        self._steps.clear()

    def _run(self, step: Callable[[], object]) -> None:
        try:
            step()
        except Exception:
            self._drop(step)
            raise
        self._drop(step)

    def _drop(self, step: Callable[[], object]) -> None:
        """Two threads may be at it, or the same step again."""
        if self._steps and self._steps[-1] is step:
            del self._steps[-1]
