"""An exception, or a signal handler, at a chosen bytecode instruction or line, for tests that try each one."""

from __future__ import annotations

import dis
import os
import sys
from collections.abc import Callable, Iterator
from types import FrameType, ModuleType
from typing import Any, TypeVar

import scsiusb

R = TypeVar("R")
RESUME = dis.opmap.get("RESUME", -1)
"""The entry of a function, left out: there, it comes before any `try` of the function, as in `__exit__`."""
NOP = dis.opmap["NOP"]
"""What `try:` begins with, left out: the interpreter looks for signals after calls and jumps, and it raises nothing."""
ALLOCATES_NOTHING = frozenset(
    dis.opmap[name] for name in ("LOAD_CONST", "LOAD_FAST", "NOP", "POP_TOP", "RETURN_VALUE", "STORE_FAST")
) | {RESUME}
"""Instructions that cannot raise MemoryError."""
PACKAGE = os.path.join(os.path.dirname(scsiusb.__file__), "")
VIRTUAL = os.path.join(PACKAGE, "virtual", "")
Selects = Callable[[FrameType], bool]


def of_module(module: ModuleType) -> Selects:
    """Select the frames of a module."""
    return lambda frame: frame.f_code.co_filename == module.__file__


def of_files(*names: str) -> Selects:
    """Select the frames of files with these names, in any folder."""
    return lambda frame: os.path.basename(frame.f_code.co_filename) in names


def of_driver(frame: FrameType) -> bool:
    """Select the frames of the driver: of all modules but the virtual stick's, which stands for hardware.

    Neither those called by `__del__`, where Python ignores errors.
    """
    return is_driver(frame.f_code.co_filename) and not is_deleting(frame)


def is_driver(path: str) -> bool:
    """Return whether a file is the driver's."""
    # By its folder: the checkout's folder, in which .venv is, may have the package's name, too.
    return path.startswith(PACKAGE) and not path.startswith(VIRTUAL)


def is_deleting(frame: FrameType | None) -> bool:
    """Return whether the frame runs within a `__del__` or a weak reference's callback: Python ignores errors there."""
    while frame is not None:
        if frame.f_code.co_name in ("__del__", "_remove"):  # the latter is a callback of weak references
            return True
        frame = frame.f_back
    return False


def _apart(action: Callable[[], R]) -> Iterator[R]:
    """Run the action in a generator, which has its own state of the exception that is being handled.

    After an exception between two instructions of an `except`, that state can stay, with all frames of the exception.
    """
    yield action()


class At:
    """Calls `act` before the `count`th instruction (or line) that runs in the selected frames; 0: before each."""

    def __init__(self, selects: Selects, count: int, act: Callable[[], object], *, event: str = "opcode") -> None:
        self.left_out = frozenset((RESUME, NOP))
        """Opcodes before which it never acts."""
        self._selects = selects
        self._left = count
        self._is_each = not count
        self._act = act
        self._event = event
        self._is_acting = False
        self.at = -1
        """The offset of the instruction where it last acted; -1 while it has not."""
        self.where = "nowhere"
        """The same, for people."""
        self.times = 0
        """How often it has acted."""
        self.passed = 0
        """How many of the instructions have run."""

    def watch(self, action: Callable[[], R]) -> R:
        """Run the action and return its result."""
        before = sys.gettrace()
        # Python 3.12 looks for this only here: whether any frame of the interpreter has ever asked for its opcodes.
        sys._getframe().f_trace_opcodes = True
        sys.settrace(self._trace)
        try:
            return next(_apart(action))
        finally:
            sys.settrace(before)

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if self._is_acting or not self._selects(frame):
            return None
        frame.f_trace_opcodes = self._event == "opcode"
        is_left_out = event == "opcode" and frame.f_code.co_code[frame.f_lasti] in self.left_out
        if event == self._event and not is_left_out and (self._left or self._is_each):
            self.passed += 1
            self._left -= not self._is_each
            if not self._left:
                self._fire(frame)
        return self._trace

    def _fire(self, frame: FrameType) -> None:
        self.at = frame.f_lasti
        code = frame.f_code
        self.where = f"{os.path.basename(code.co_filename)}:{frame.f_lineno} in {code.co_name}, instruction {self.at}"
        self.times += 1
        self._is_acting = True  # what is called is not traced
        try:
            self._act()
        finally:
            self._is_acting = False


class Raise(At):
    """Raises an exception there."""

    def __init__(self, error: type[BaseException], selects: Selects, count: int, *, event: str = "opcode") -> None:
        super().__init__(selects, count, self._raise, event=event)
        if issubclass(error, MemoryError):
            self.left_out = ALLOCATES_NOTHING
        self._error = error
        self.came_out = False
        """Whether the exception was what ended the action."""

    def _raise(self) -> None:
        raise self._error

    def run(self, action: Callable[[], R]) -> R | None:
        """Run the action and return its result; None if the exception ended it."""
        try:
            return self.watch(action)
        except self._error:
            if self.at < 0:
                raise
            self.came_out = True
            return None


class CtrlC(Raise):
    """Raises KeyboardInterrupt there."""

    def __init__(self, selects: Selects, count: int, *, event: str = "opcode") -> None:
        super().__init__(KeyboardInterrupt, selects, count, event=event)
