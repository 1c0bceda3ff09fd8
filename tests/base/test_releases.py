"""Release steps are run in reverse order, each completely, even if Ctrl-C interrupts them."""

from __future__ import annotations

import threading

import pytest

from scsiusb.base.releases import Releases
from tests.sticks import PATIENCE


def test_steps_run_in_reverse_order_even_if_some_fail() -> None:
    done: list[str] = []

    def fail(name: str) -> None:
        done.append(name)
        raise OSError(name)

    releases = Releases()
    releases.add(done.append, "first")
    releases.add(fail, "second")
    releases.add(fail, "third")
    with pytest.raises(OSError, match="third"):
        releases.close()
    assert done == ["third", "second", "first"]
    releases.close()
    assert done == ["third", "second", "first"]


def test_a_step_that_ctrl_c_interrupted_is_run_again() -> None:
    done: list[str] = []

    def step() -> None:
        done.append("begun")
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append("ended")

    releases = Releases()
    releases.add(done.append, "below")
    releases.add(step)
    with pytest.raises(KeyboardInterrupt):
        releases.close()
    assert done == ["begun", "begun", "ended", "below"]


def test_a_step_that_had_no_memory_is_run_once_more() -> None:
    done: list[str] = []

    def step(name: str, lacks: int) -> None:
        done.append(name)
        if done.count(name) <= lacks:
            raise MemoryError

    releases = Releases()
    releases.add(step, "first", 1)
    releases.add(step, "second", 5)
    releases.add(step, "third", 0)
    with pytest.raises(MemoryError):
        releases.close()
    assert done == ["third", "second", "second", "first", "first"]
    releases.close()
    assert done == ["third", "second", "second", "first", "first"]


def test_forgotten_steps_are_not_run() -> None:
    done: list[str] = []
    releases = Releases()
    releases.add(done.append, "no")
    releases.forget()
    releases.close()
    assert done == []


def test_two_threads_may_close_at_once() -> None:
    errors: list[BaseException] = []
    barrier = threading.Barrier(2)
    made = [Releases() for _ in range(300)]
    for releases in made:
        for _ in range(3):
            releases.add(int)

    def close() -> None:
        barrier.wait(PATIENCE)
        try:
            for releases in made:
                releases.close()
        except BaseException as error:  # noqa: BLE001 - for the assertion
            errors.append(error)

    threads = [threading.Thread(target=close) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert errors == []
