"""Sequences of users' calls, swapped media, resets and faults: no wrong medium's block, no flushed block lost.

The properties are checked in tests/fuzz/model/world.py and play.py.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import Final

import pytest

from tests.fuzz.exchange import small_bounds
from tests.fuzz.model import script
from tests.fuzz.model.play import playing
from tests.fuzz.model.world import Setup

FACTOR: Final = int(os.environ.get("SCSIUSB_FUZZ", "1"))
FAST: Final = 50
SLOW: Final = 1000
PARTS: Final = 5  # tests of their own, which other processes may run


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Warnings are expected."""
    with small_bounds(), caplog.at_level(logging.CRITICAL):
        yield


@pytest.mark.slow
def test_a_few_sequences() -> None:
    for seed in range(FAST):
        script.play(script.bytes_of(seed), f"seed {seed}")


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_many_sequences(part: int) -> None:
    for seed in range(FAST + part, FAST + SLOW * FACTOR, PARTS):
        script.play(script.bytes_of(seed), f"seed {seed}")


def test_a_sequence_that_fails_is_shortened_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is seen to find a fault: a card reader whose cards have each other's blocks."""
    monkeypatch.setattr("tests.fuzz.model.cards.Slot.swap", lambda slot: slot.cards[0].data.reverse())
    steps = (script.Step("read", (0, 3, 2)), script.Step("swap", (0,)), script.Step("flush", (1,)))
    monkeypatch.setattr(script, "script_of", lambda data: script.Script(Setup(), steps))
    with pytest.raises(AssertionError, match=r"seed 7 fails.*\n    Setup\(.*\n    made.swap\(0\)\nAssertionError: "):
        script.play(b"", "seed 7")


# --- found by the model ---------------------------------------------------------------------------


def test_a_change_that_only_an_abandoned_stream_was_told_is_told_to_the_next_call() -> None:
    with playing(Setup()) as made:
        made.read(0, 0, 1)
        made.begin_writing(0, 8)
        made.swap(0)
        made.advance(0)  # the stream's thread is told; the caller leaves before it is
        made.end(made.streams[0])
        made.read(0, 0, 1)


def test_a_flush_fails_after_a_change_that_another_call_was_told() -> None:
    with playing(Setup()) as made:
        made.write(1, 11, 9)
        made.swap(0)
        made.read(1, 0, 1)
        made.flush(1)


def test_a_close_fails_after_an_unplug_that_only_an_abandoned_stream_was_told() -> None:
    with playing(Setup(removable=False)) as made:
        made.write(0, 4, 11)
        made.fault(0, "disconnect@data,opcode=28,lba=8")
        made.begin_reading(0, 0, 20)
        made.end(made.streams[0])
        made.reopen(0)


def test_a_flush_fails_after_a_reset_whose_report_was_lost_beside_a_lost_exchange() -> None:
    with playing(Setup(polled=True)) as made:
        made.write(0, 17, 3)
        made.later(1, "power_on", 0)
        made.later(1, "ctrl-c", 0)
        made.read(1, 0, 1)
        made.fault(0, "residue=65536@csw,opcode=03")  # all of the sense comes, but the CSW says none of it
        made.read(0, 0, 1)
        made.flush(0)


def test_a_flush_fails_after_a_reset_that_was_reported_in_a_request_sense_which_was_lost() -> None:
    with playing(Setup()) as made:
        made.write(1, 5, 4)
        made.power_on(0)
        made.later(1, "ctrl-c", 0)
        made.execute(0, 1)
        made.flush(1)


def test_a_change_that_a_flush_without_a_reason_has_hidden_is_told_to_the_next_call() -> None:
    with playing(Setup()) as made:
        made.read(1, 6, 9)
        made.fault(0, "no-sense@csw,opcode=35,times=3")
        made.swap(0)
        made.flush(0)
