"""What the campaigns take for a leak of memory, and for a count that has changed."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

if sys.platform != "linux":
    pytest.skip("the campaigns run on Linux", allow_module_level=True)

from campaigns.footprint import Footprint, changes, footprint, growth


def samples(*memory: int) -> list[Footprint]:
    return [Footprint(9, 1, 0, 0, 0, each) for each in memory]


@pytest.mark.parametrize(
    "memory",
    [
        (),
        (50_000,),
        (50_000, 52_000),
        (50_000, 50_000, 52_000, 52_000),  # the heap grew once
        (50_000, 51_500, 51_900, 51_900, 51_900, 51_900, 51_900, 51_900),  # what is loaded at first use
        (50_000, 50_010, 50_020, 50_030, 50_040, 50_050, 50_060, 50_070),
        (52_000, 51_000, 50_000, 49_000),
    ],
)
def test_memory_that_does_not_grow_all_the_time_is_no_leak(memory: tuple[int, ...]) -> None:
    assert growth(samples(*memory)) == []


@pytest.mark.parametrize("each", [200, 2_000])
def test_memory_that_grows_all_the_time_is_a_leak(each: int) -> None:
    assert growth(samples(*range(50_000, 50_000 + 12 * each, each))) == [f"memory grew by {9 * each} KiB"]


def test_a_thread_that_is_about_to_end_is_waited_for() -> None:
    base = footprint()
    ending = threading.Thread(target=time.sleep, args=(0.3,))
    ending.start()
    assert changes(base, footprint(base)) == []
    ending.join()


def test_what_stays_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("campaigns.footprint.SETTLING", 0.1)
    base = footprint()
    with Path("/dev/null").open():
        assert changes(base, footprint(base)) == [f"descriptors: {base.descriptors + 1} instead of {base.descriptors}"]
