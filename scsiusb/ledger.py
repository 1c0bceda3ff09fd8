"""Who holds what, and since where in the code: each acquire is entered here, each release strikes it out."""

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
# Modules that are never the place that a user looks for.
INNER: Final = ("scsiusb", "contextlib", "threading", "concurrent", "asyncio")


@dataclass(frozen=True, eq=False)
class Entry:
    """Something that this process acquired; `release` strikes it out, once, and again without harm."""

    kind: str
    """"client", "lease", "handle", "driver" (taken from the kernel), "claim", "memory", "hotplug", "thread"."""
    what: str
    owner: str
    """The thread that acquired it."""
    since: float
    """Seconds since the epoch."""
    place: str
    """Where the caller's code acquired it: "bench.py:12"."""
    backtrace: tuple[str, ...] = field(repr=False)
    """How it came there, outermost call first; empty unless tracing is on."""
    _number: int = field(repr=False)

    def release(self) -> None:
        if _BOOK.entries.pop(self._number, None) is not None and _BOOK.tracing:
            frame = sys._getframe(1)
            what = f"released {self.kind} {self.what} in {_thread()} at {_place(frame)}"
            _say("\n".join((what, *_backtrace(frame))))

    def __str__(self) -> str:
        since = time.strftime("%H:%M:%S", time.localtime(self.since))
        return f"{self.kind} {self.what}, acquired at {self.place} by {self.owner} at {since}"


class _Book:
    """The process's entries. Without a lock, as a signal's handler reads and writes it too: a dict is enough."""

    def __init__(self) -> None:
        self.entries: dict[int, Entry] = {}
        self.numbers = itertools.count(1)
        self.tracing = False
        self.is_prepared = False
        self.has_handler = False

    def prepare(self) -> None:
        """Done with the first entry, not at import."""
        if not self.is_prepared:
            self.is_prepared = True
            self.tracing |= TRACE_WORD in os.environ.get(TRACE_VARIABLE, "").split(",")
            atexit.register(_at_exit)
        if not self.has_handler and threading.current_thread() is threading.main_thread():
            self.has_handler = True
            _dump_on_signal()


_BOOK: Final = _Book()
_BEHALF: Final[ContextVar[str | None]] = ContextVar("_BEHALF", default=None)


@contextmanager
def on_behalf_of(place: str) -> Iterator[None]:
    """What is acquired inside was asked for at that place, in another thread."""
    token = _BEHALF.set(place)
    try:
        yield
    finally:
        _BEHALF.reset(token)


def acquire(kind: str, what: str) -> Entry:
    """Enters something that this process holds from now on."""
    _BOOK.prepare()
    frame = sys._getframe(1)
    backtrace = _backtrace(frame) if _BOOK.tracing else ()
    number = next(_BOOK.numbers)
    place = _BEHALF.get() or _place(frame)
    entry = Entry(kind, what, _thread(), time.time(), place, backtrace, number)
    if _BOOK.tracing:
        _say("\n".join((f"acquired {entry}", *backtrace)))
    return _BOOK.entries.setdefault(number, entry)  # in one line, so that Ctrl-C leaves no entry that nobody has


def outstanding() -> list[Entry]:
    """What this process holds now, oldest first; empty when nothing is held."""
    return list(_BOOK.entries.copy().values())


def trace(on: bool = True) -> None:
    """Writes every acquire and every release, with backtraces, to stderr; so does SCSIUSB_TRACE=ledger."""
    _BOOK.tracing = on


def dump() -> str:
    """What is held now, for people to read."""
    held = outstanding()
    if not held:
        return "nothing is held"
    lines = [f"process {os.getpid()} holds {len(held)} resource{'s' * (len(held) != 1)}:"]
    for entry in held:
        lines += [f"  {entry}", *entry.backtrace]
    return "\n".join(lines)


def forget() -> None:
    """In a fork's child, which holds nothing of its parent's."""
    _BOOK.entries.clear()


def _thread() -> str:
    return threading.current_thread().name


def _place(frame: FrameType | None) -> str:
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in INNER:
        frame = frame.f_back
    return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}" if frame else "a thread of scsiusb"


def _backtrace(frame: FrameType) -> tuple[str, ...]:
    import traceback

    return tuple(line.rstrip() for line in traceback.format_stack(frame))


def _say(text: str) -> None:
    """To stderr, whatever became of it."""
    stream = sys.stderr
    if stream is None:
        return
    try:
        stream.write("".join(f"scsiusb: ledger: {line}\n" for line in text.splitlines()))
        stream.flush()
    except (OSError, ValueError, RuntimeError):  # closed, or in the middle of a write when a signal's handler came
        return


def _at_exit() -> None:
    """Runs before what is left is given back: it was registered last."""
    if _BOOK.entries:
        _say(dump())


def _dump_on_signal() -> None:
    """SIGUSR1 says what is held, unless the program has another use for it; without this, it would end the process."""
    number = getattr(signal, "SIGUSR1", None)
    if number is not None and signal.getsignal(number) is signal.SIG_DFL:
        signal.signal(number, lambda number, frame: _say(dump()))
