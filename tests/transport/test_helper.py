"""The thread that performs what blocks in polled stories."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator

import pytest

from scsiusb import ledger
from scsiusb.transport.helper import Helper
from tests.sticks import PATIENCE, wait_until
from tests.transport.test_interrupted import everywhere


@pytest.fixture
def helper() -> Iterator[Helper]:
    helper = Helper(lambda: None, "of a device")
    yield helper
    helper.close()


def test_without_a_job_there_is_no_thread(helper: Helper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", lambda thread: pytest.fail("a thread was started"))
    helper.close()
    assert not ledger.outstanding()


def test_jobs_are_performed_in_order_by_one_thread_that_the_ledger_shows_until_close(helper: Helper) -> None:
    done: list[tuple[int, threading.Thread]] = []
    for number in range(20):
        helper.perform(lambda number=number: done.append((number, threading.current_thread())))  # type: ignore[misc]
    wait_until(lambda: len(done) == 20)
    assert [number for number, _ in done] == list(range(20))
    (thread,) = {thread for _, thread in done}
    assert [entry.kind for entry in ledger.outstanding()] == ["thread"]
    helper.close()
    assert not thread.is_alive()
    assert not ledger.outstanding()


def test_close_waits_for_the_job(helper: Helper) -> None:
    began, may_end, done = threading.Event(), threading.Event(), threading.Event()

    def job() -> None:
        began.set()
        assert may_end.wait(PATIENCE)
        done.set()

    helper.perform(job)
    assert began.wait(PATIENCE)
    threading.Timer(0.01, may_end.set).start()
    helper.close()
    assert done.is_set()


def test_a_job_that_is_done_is_kept_by_nobody(helper: Helper) -> None:
    class Job:
        def __call__(self) -> None:
            called.set()

    called = threading.Event()
    job = Job()
    kept = weakref.ref(job)
    gc.collect()
    gc.disable()
    try:
        helper.perform(job)
        del job
        assert called.wait(PATIENCE)
        wait_until(lambda: kept() is None)
    finally:
        gc.enable()


@pytest.mark.parametrize("function", [Helper.perform, Helper._start])
def test_ctrl_c_at_the_first_job_leaves_no_thread(function: object) -> None:
    """It may begin only after `close`; then it ends at once."""
    for ctrl_c in everywhere(function):
        helper = Helper(lambda: None, "of a device")
        ctrl_c.run(lambda helper=helper: helper.perform(lambda: None))  # type: ignore[misc]
        helper.close()
        wait_until(lambda helper=helper: not any(thread.is_alive() for thread in helper._threads))  # type: ignore[misc]
        assert not ledger.outstanding(), ctrl_c.at


def test_after_a_start_that_failed_the_next_job_has_a_thread(helper: Helper, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    done = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="new thread"):
            helper.perform(done.set)
    assert not done.is_set()
    helper.perform(done.set)
    assert done.wait(PATIENCE)
