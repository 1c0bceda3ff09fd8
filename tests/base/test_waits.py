"""Waits in slices: the signal's handler runs between two, and what is waited for is not missed."""

from __future__ import annotations

import ast
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

import pytest

import scsiusb
from scsiusb.base import waits
from tests.sticks import PATIENCE


@pytest.fixture(autouse=True)
def in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, with short slices."""
    monkeypatch.setattr(waits, "NEEDS_SLICES", True)
    monkeypatch.setattr(waits, "SLICE", 0.001)


class Slices:
    """Records the timeout of each wait, and ends the waiting with the one of that number."""

    def __init__(self, wait: Callable[[float | None], object], end: Callable[[], object], number: int) -> None:
        self.timeouts: list[float | None] = []
        self._wait, self._end, self._number = wait, end, number

    def __call__(self, timeout: float | None = None) -> object:
        self.timeouts.append(timeout)
        if len(self.timeouts) == self._number:
            self._end()
        return self._wait(timeout)


class Queue(SimpleQueue[int]):
    """A queue whose waits are recorded; an item comes in the third one."""

    def __init__(self) -> None:
        self.slices = Slices(lambda timeout: SimpleQueue.get(self, timeout=timeout), lambda: self.put(7), 3)

    def get(self, block: bool = True, timeout: float | None = None) -> int:
        value = self.slices(timeout)
        assert isinstance(value, int)
        return value


def test_no_single_wait_is_longer_than_a_slice() -> None:
    queue = Queue()
    assert waits.take(queue) == 7
    assert queue.slices.timeouts == [0.001] * 3
    assert [waits.slice_of(left) for left in (None, 5.0, 0.0005)] == [0.001, 0.001, 0.0005]


def test_on_linux_a_wait_is_one() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waits, "NEEDS_SLICES", False)
        assert [waits.slice_of(left) for left in (None, 5.0)] == [None, 5.0]
        assert type(waits.long_lock()) is type(threading.RLock())


def test_a_thread_is_joined_in_slices_and_no_longer_than_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    slices = Slices(thread.join, end.set, 3)
    monkeypatch.setattr(thread, "join", slices)
    waits.join(thread, 0)
    assert (slices.timeouts, thread.is_alive()) == ([], True)
    waits.join(thread)
    assert not thread.is_alive()
    assert set(slices.timeouts) == {0.001}
    assert len(slices.timeouts) >= 3


def test_a_lock_that_a_thread_has_is_waited_for_in_slices() -> None:
    lock, held, end = waits.long_lock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock, lock:  # reentrant
            held.set()
            end.wait(PATIENCE)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(PATIENCE)
    threading.Timer(0.02, end.set).start()
    with lock:
        assert end.is_set()
    thread.join(PATIENCE)


def test_ctrl_c_in_the_wait_for_a_lock_leaves_it_free(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = waits.long_lock()
    inner = vars(lock)["_lock"]

    class Interrupted:
        """Takes the lock, then raises, as Ctrl-C does at the end of the call."""

        def acquire(self, blocking: bool, timeout: float) -> bool:
            raise KeyboardInterrupt

        release = inner.release

    monkeypatch.setattr(lock, "_lock", Interrupted())
    with pytest.raises(KeyboardInterrupt), lock:
        pass
    monkeypatch.undo()
    thread = threading.Thread(target=lambda: inner.acquire(timeout=PATIENCE) and inner.release())
    thread.start()
    thread.join(PATIENCE)
    assert inner.acquire(blocking=False)
    inner.release()


# --- everywhere ------------------------------------------------------------------------------------

PACKAGE = Path(scsiusb.__file__).parent
IN_A_THREAD_OF_OURS = {
    ("disk/streaming.py", "_work"),
    ("imaging/target.py", "_run"),
    ("transport/helper.py", "_perform"),
}  # never the main thread, which runs the handlers
ON_LINUX_ONLY = {("leases/warden_main.py", "listen")}
NO_WAIT = {  # they make an object, or read a variable
    ("cli/commands/watch.py", "is_unread"),
    ("disk/multi_read.py", "_new_poll"),
    ("ledger.py", "_entry"),
    ("base/finalizing.py", "run_aside"),
    ("manager/client.py", "turn"),
    ("manager/scope.py", "_run"),
    ("manager/scope.py", "current"),
}


class Unbounded(ast.NodeVisitor):
    """Collects the functions with a wait that has no timeout: a method that may wait, called without arguments."""

    def __init__(self) -> None:
        self.found: set[str] = set()
        self._function = ""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        before, self._function = self._function, node.name
        self.generic_visit(node)
        self._function = before

    def visit_Await(self, node: ast.Await) -> None:
        if isinstance(node.value, ast.Call):
            for argument in node.value.args:
                self.visit(argument)

    def visit_Call(self, node: ast.Call) -> None:
        waits_on = isinstance(node.func, ast.Attribute) and node.func.attr in ("acquire", "get", "join", "poll", "wait")
        if waits_on and not node.args and not node.keywords:
            self.found.add(self._function)
        self.generic_visit(node)


@pytest.mark.slow
def test_no_wait_of_a_main_thread_is_without_a_timeout() -> None:
    found = set()
    for path in PACKAGE.rglob("*.py"):
        visitor = Unbounded()
        visitor.visit(ast.parse(path.read_text(encoding="utf-8")))
        found |= {(path.relative_to(PACKAGE).as_posix(), function) for function in visitor.found}
    assert found == IN_A_THREAD_OF_OURS | ON_LINUX_ONLY | NO_WAIT
