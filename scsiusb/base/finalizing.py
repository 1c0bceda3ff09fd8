"""What a `__del__` does that may have to wait for another thread."""

from __future__ import annotations

import _thread
import logging
import sys
import threading
from collections.abc import Callable
from typing import Final

PATIENCE: Final = 2.0  # seconds

log = logging.getLogger(__name__)


def run_aside(action: Callable[[], object], *, waits: bool = True) -> bool:
    """Run the action in another thread, and wait for its end, PATIENCE seconds at most; log its error, if any.

    `__del__` runs in any thread, between any two instructions: its thread may have a lock (of the program's, of
    `logging`, one of ours) that another thread needs before it ends what the action waits for. Return False, and do
    nothing, if no thread can be had, or the interpreter is ending. `waits`: False if the action waits for this thread.
    """
    if sys.is_finalizing():
        return False
    actions = [action]  # the thread drops it before this one goes on, and with it the object that is finalized
    del action
    has_ended = _thread.allocate_lock()
    has_ended.acquire()
    try:
        # Not threading.Thread: it takes a lock that the interrupted code may have.
        _thread.start_new_thread(_run, (actions, has_ended))
    except RuntimeError:
        return False
    if waits and not has_ended.acquire(timeout=PATIENCE):
        log.warning("something that was not closed is still being released, by another thread")
    return True


def _run(actions: list[Callable[[], object]], has_ended: _thread.LockType) -> None:
    try:
        actions.pop()()
    except Exception:
        log.exception("releasing something that was not closed")
    finally:
        # Before Python 3.13, the dummy that `threading` makes of a thread that is not its own would stay for ever.
        getattr(threading, "_active", {}).pop(_thread.get_ident(), None)
        has_ended.release()
