"""Ctrl-C at a chosen bytecode instruction, for tests that try each one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

R = TypeVar("R")


class CtrlC:
    """Raises KeyboardInterrupt before the `count`th instruction that runs in the selected frames."""

    def __init__(self, selects: Callable[[FrameType], bool], count: int) -> None:
        self._selects = selects
        self._left = count
        self.at = -1
        """The offset of the instruction; -1 while it has not been reached."""

    def run(self, action: Callable[[], R]) -> R | None:
        """Run the action and return its result; None if the KeyboardInterrupt ended it."""
        before = sys.gettrace()
        # Python 3.12 looks for this only here: whether any frame of the interpreter has ever asked for its opcodes.
        sys._getframe().f_trace_opcodes = True
        sys.settrace(self._trace)
        try:
            return action()
        except KeyboardInterrupt:
            assert self.at >= 0
            return None
        finally:
            sys.settrace(before)

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if not self._selects(frame):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and self.at < 0:
            self._left -= 1
            if not self._left:
                self.at = frame.f_lasti
                raise KeyboardInterrupt
        return self._trace
