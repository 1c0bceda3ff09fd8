"""Whole sessions with a stick that may have any fault at any time: right data or an error, in time; nothing held."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from scsiusb.virtual.faults.faults import KINDS, Fault
from tests.fuzz import profiles
from tests.fuzz.exchange import BLOCKS, COMMANDS, Exchange, exchange, small_bounds
from tests.fuzz.faults import BY_TIME, any_fault, any_host_fault

LBAS = st.integers(0, BLOCKS - 1)
COUNTS = st.integers(1, BLOCKS)


@st.composite
def faults(draw: st.DrawFn) -> str:
    return any_fault(lambda some: draw(st.sampled_from(some)))


@st.composite
def host_faults(draw: st.DrawFn) -> Any:
    return any_host_fault(lambda some: draw(st.sampled_from(some)))


class AnyExchange(RuleBasedStateMachine):
    """The properties are checked in tests/fuzz/exchange.py."""

    def __init__(self) -> None:
        super().__init__()
        self._frame = exchange()
        self.made: Exchange = self._frame.__enter__()

    @initialize()
    def begin(self) -> None:
        self.made.open()

    @rule(fault=faults())
    def fault(self, fault: str) -> None:
        self.made.inject(fault)

    @rule(fault=host_faults())
    def host_fault(self, fault: Any) -> None:
        self.made.inject(fault)

    @rule(lba=LBAS, blocks=COUNTS)
    def read(self, lba: int, blocks: int) -> None:
        self.made.read(lba, min(blocks, BLOCKS - lba))

    @rule(lba=LBAS, blocks=COUNTS)
    def readinto(self, lba: int, blocks: int) -> None:
        self.made.readinto(lba, min(blocks, BLOCKS - lba))

    @rule(lba=LBAS, blocks=COUNTS)
    def write(self, lba: int, blocks: int) -> None:
        self.made.write(lba, min(blocks, BLOCKS - lba))

    @rule()
    def inquiry(self) -> None:
        self.made.inquiry()

    @rule()
    def capacity(self) -> None:
        self.made.capacity()

    @rule()
    def flush(self) -> None:
        self.made.flush()

    @rule(number=st.integers(0, len(COMMANDS) - 1))
    def execute(self, number: int) -> None:
        self.made.execute(number)

    @rule()
    def close(self) -> None:
        self.made.close()

    @precondition(lambda self: self.made.disk is None)
    @rule()
    def open(self) -> None:
        self.made.open()

    @rule()
    def unplug(self) -> None:
        self.made.unplug()

    @rule()
    def plug(self) -> None:
        self.made.plug()

    @rule()
    def settle(self) -> None:
        self.made.settle()

    def teardown(self) -> None:
        self.made.finish()
        self._frame.__exit__(None, None, None)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Warnings are expected."""
    with small_bounds(), caplog.at_level(logging.CRITICAL):
        yield


def test_any_exchange_ends_in_time_with_right_data_or_an_error() -> None:
    run_state_machine_as_test(AnyExchange, settings=profiles.quick(40, stateful_step_count=15))


def test_every_kind_of_fault_can_be_chosen() -> None:
    """A new kind is fuzzed as soon as it is in the table, unless it is known to depend on the time."""
    for kind in (kind for name, kind in KINDS.items() if name not in BY_TIME):

        def choose(some: Sequence[Any], kind: Any = kind) -> Any:
            return kind if kind in some else some[-1]

        assert Fault.parse(any_fault(choose)).name == kind.name


def test_a_disk_whose_device_was_replaced_stays_unusable() -> None:
    """Found by fuzzing: after DeviceGone, the next read went to the other device."""
    with exchange() as made:
        made.open()
        made.capacity()
        made.inject("descriptor=empty-string")
        made.inject("tag@csw,opcode=2A")
        made.write(0, 1)
        assert made.stale_disks
        made.finish()


def test_closing_does_not_wait_for_a_thread_that_waits_for_the_closing() -> None:
    """Found by fuzzing: each close took five seconds, and left the thread in the ledger."""
    with exchange() as made:
        made.open()
        made.read(0, 1)
        made.close()
        made.finish()
