"""The ledger: a list of the resources that this process holds, each with the line of code that acquired it.

Every acquire adds an entry and every release removes it, so that a leak can be found: `outstanding` and `dump` show
what is held, and what is still held at exit is written to stderr.
"""

from __future__ import annotations

import atexit
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import field
from types import FrameType
from typing import Final

from scsiusb.base.dataclass import dataclass

TRACE_VARIABLE: Final = "SCSIUSB_TRACE"
TRACE_WORD: Final = "ledger"
# Packages whose frames are skipped when looking for the user's line of code.
INNER: Final = ("scsiusb", "contextlib", "threading", "concurrent", "asyncio")


@dataclass(frozen=True, eq=False)
class Entry:
    """A resource that this process has acquired."""

    kind: str
    """"client", "lease", "handle", "driver" (taken from the kernel), "claim", "memory", "hotplug", "thread"."""
    what: str
    """The device or interface that it belongs to: "of 1-1:1.0"."""
    owner: str
    """The name of the thread that acquired it."""
    since: float
    """When it was acquired, in seconds since the epoch."""
    place: str
    """The line of the user's code that acquired it: "bench.py:12"."""
    backtrace: tuple[str, ...] = field(repr=False)
    """The call stack, outermost call first; empty unless tracing is on."""
    _number: int = field(repr=False)

    def hold(self) -> None:
        """Add the entry: the resource is held from now on. Register `release` before."""
        if _BOOK.tracing:
            _say("\n".join((f"acquired {self}", *self.backtrace)))
        _BOOK.entries[self._number] = self

    def release(self) -> None:
        """Remove the entry: the resource was released. May be called again."""
        if _BOOK.entries.pop(self._number, None) is not None and _BOOK.tracing:
            frame = sys._getframe(1)
            what = f"released {self.kind} {self.what} in {_thread()} at {_place(frame)}"
            _say("\n".join((what, *_backtrace(frame))))

    def __str__(self) -> str:
        since = time.strftime("%H:%M:%S", time.localtime(self.since))
        return f"{self.kind} {self.what}, acquired at {self.place} by {self.owner} at {since}"


class _Book:
    """The entries of this process, and the state of tracing.

    There is no lock: a signal's handler also reads and writes it, and would wait for ever for a lock that its own
    thread holds. Single operations of a dict are atomic in CPython.
    """

    def __init__(self) -> None:
        self.entries: dict[int, Entry] = {}
        self.numbers = itertools.count(1)
        self.tracing = False
        self.is_prepared = False
        self.has_handler = False

    def prepare(self) -> None:
        """Read the environment and install the handlers, when the first entry is added: not at import."""
        if not self.is_prepared:
            self.is_prepared = True
            self.tracing |= TRACE_WORD in os.environ.get(TRACE_VARIABLE, "").split(",")
            atexit.register(_at_exit)
        # A handler can be installed in the main thread only, which may not be the first to acquire something.
        if not self.has_handler and threading.current_thread() is threading.main_thread():
            self.has_handler = True
            _dump_on_signal()


_BOOK: Final = _Book()
_BEHALF: Final[ContextVar[str | None]] = ContextVar("_BEHALF", default=None)


@contextmanager
def on_behalf_of(place: str) -> Iterator[None]:
    """Use `place` for the entries made inside, where one thread acquires for another thread's code."""
    token = _BEHALF.set(place)
    try:
        yield
    finally:
        _BEHALF.reset(token)


def entry(kind: str, what: str) -> Entry:
    """Return an entry for a resource; `hold` adds it.

    So the caller can register its `release` before: Ctrl-C may come after any call, also after the one that adds it.
    """
    return _entry(kind, what, sys._getframe(1))


def acquire(kind: str, what: str) -> Entry:
    """Add an entry for a resource that this process holds from now on, where Ctrl-C cannot come."""
    made = _entry(kind, what, sys._getframe(1))
    made.hold()
    return made


def _entry(kind: str, what: str, frame: FrameType) -> Entry:
    _BOOK.prepare()
    backtrace = _backtrace(frame) if _BOOK.tracing else ()
    number = next(_BOOK.numbers)
    place = _BEHALF.get() or _place(frame)
    return Entry(kind, what, _thread(), time.time(), place, backtrace, number)


def outstanding() -> list[Entry]:
    """Return the entries of all resources that this process holds now, oldest first."""
    return list(_BOOK.entries.copy().values())


def trace(on: bool = True) -> None:
    """Turn tracing on or off: it writes every acquire and release, with a backtrace, to stderr.

    SCSIUSB_TRACE=ledger in the environment also turns it on.
    """
    _BOOK.tracing = on


def dump() -> str:
    """Describe all resources that this process holds now, as text for people."""
    held = outstanding()
    if not held:
        return "nothing is held"
    lines = [f"process {os.getpid()} holds {len(held)} resource{'s' * (len(held) != 1)}:"]
    for entry in held:
        lines += [f"  {entry}", *entry.backtrace]
    return "\n".join(lines)


def forget() -> None:
    """Remove all entries: in a forked child, which holds none of its parent's resources."""
    _BOOK.entries.clear()


def _thread() -> str:
    """Return the name of this thread."""
    return threading.current_thread().name


def _place(frame: FrameType | None) -> str:
    """Return the innermost line of code outside of INNER: "bench.py:12"."""
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in INNER:
        frame = frame.f_back
    return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}" if frame else "a thread of scsiusb"


def _backtrace(frame: FrameType) -> tuple[str, ...]:
    """Return the call stack as text."""
    import traceback  # here, as it is slow to import and needed for tracing only

    return tuple(line.rstrip() for line in traceback.format_stack(frame))


def _say(text: str) -> None:
    """Write to stderr, if that is possible."""
    stream = sys.stderr
    if stream is None:
        return
    try:
        stream.write("".join(f"scsiusb: ledger: {line}\n" for line in text.splitlines()))
        stream.flush()
    except (OSError, ValueError, RuntimeError):  # it is closed, or a signal's handler interrupted a write to it
        return


def _at_exit() -> None:
    """Write what is still held to stderr."""
    # atexit runs the last registered function first, so this runs before the one that releases everything.
    if _BOOK.entries:
        _say(dump())


def _dump_on_signal() -> None:
    """Have SIGUSR1 write what is held to stderr, unless the program already handles or ignores that signal."""
    # The default action, which this replaces, would end the process.
    number = getattr(signal, "SIGUSR1", None)
    if number is not None and signal.getsignal(number) is signal.SIG_DFL:
        signal.signal(number, lambda number, frame: _say(dump()))
