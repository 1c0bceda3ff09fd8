"""Speed measurements: which blocks are accessed in which order, when a measurement ends, and what is counted."""

from __future__ import annotations

import gc
from array import array
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest

from scsiusb.disk.disk import Disk
from scsiusb.disk.speed import (
    RANDOM,
    READ,
    SEQUENTIAL,
    SIZES,
    WRITE,
    Bench,
    Case,
    Extent,
    Figures,
    Latency,
    Plan,
    _latency,
    commands_per_call,
    unfit,
    whole_commands,
)
from scsiusb.errors import MediumError, OutOfRange
from scsiusb.opening import open_on
from scsiusb.virtual import Bus, Memory, Stick, Unit
from tests.sticks import stick

PLAN = Plan(Extent(0, 2048), sizes=(4096,), seconds=10.0, calls=20)


@pytest.fixture
def disk() -> Iterator[Disk]:
    with open_on(Bus(stick())) as opened:
        yield opened


@pytest.fixture
def called(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the LBA of each call of readinto and write."""
    lbas: list[int] = []
    for name in ("readinto", "write"):
        monkeypatch.setattr(disk, name, _noting(lbas, getattr(disk, name)))
    return lbas


def _noting(lbas: list[int], method: Any) -> Any:
    def call(lba: int, buffer: memoryview) -> Any:
        lbas.append(lba)
        return method(lba, buffer)

    return call


def test_the_sizes_are_those_from_4_kib_to_4_mib() -> None:
    assert [size // 1024 for size in SIZES] == [4, 16, 64, 256, 1024, 4096]


def test_every_direction_pattern_and_size_is_a_case() -> None:
    plan = replace(PLAN, sizes=(4096, 8192), writes=True)
    assert len(set(plan.cases)) == len(plan.cases) == 8
    assert plan.cases[0] == Case(READ, SEQUENTIAL, 4096)
    assert plan.cases[-1] == Case(WRITE, RANDOM, 8192)
    assert {case.direction for case in replace(plan, writes=False).cases} == {READ}


def test_sequential_calls_continue_where_the_last_measurement_ended(disk: Disk, called: list[int]) -> None:
    bench = Bench(disk, replace(PLAN, extent=Extent(4, 1000), sizes=(4096, 16384)))
    bench.measure(Case(READ, SEQUENTIAL, 4096))
    assert called == [4 + 8 * number for number in range(22)]  # two of them are the warm-up
    del called[:]
    bench.measure(Case(READ, SEQUENTIAL, 16384))
    assert called[0] == 4 + 6 * 32  # the next that is aligned to its size
    assert called == [4 + (6 + number) * 32 for number in range(22)]


def test_sequential_calls_begin_again_at_the_end_of_the_range(disk: Disk, called: list[int]) -> None:
    Bench(disk, replace(PLAN, extent=Extent(8, 30))).measure(Case(READ, SEQUENTIAL, 4096))
    assert called[:5] == [8, 16, 24, 8, 16]


def test_random_calls_cover_the_range_and_are_the_same_for_a_seed(disk: Disk, called: list[int]) -> None:
    plan, case = replace(PLAN, extent=Extent(3, 85), calls=300), Case(READ, RANDOM, 4096)
    Bench(disk, plan).measure(case)
    first = called.copy()
    assert set(first) == set(range(3, 3 + 80, 8))
    del called[:]
    Bench(disk, plan).measure(case)
    assert called == first
    del called[:]
    Bench(disk, replace(plan, seed=1)).measure(case)
    assert called != first


def test_it_ends_after_the_number_of_calls_or_when_the_time_is_up(disk: Disk) -> None:
    case = Case(READ, SEQUENTIAL, 4096)
    assert Bench(disk, PLAN).measure(case).calls == 20
    assert Bench(disk, replace(PLAN, seconds=1e-9)).measure(case).calls == 1
    assert Bench(disk, replace(PLAN, seconds=0.01, calls=None)).measure(case).seconds >= 0.01


def test_commands_are_counted_as_the_disk_cuts_them(disk: Disk) -> None:
    most = disk.max_blocks * 512
    assert [commands_per_call(disk, size) for size in (512, most, most + 512, 3 * most)] == [1, 1, 2, 3]
    medium = disk.blocks * 512
    figures = Bench(disk, replace(PLAN, sizes=(medium,), calls=2)).measure(Case(READ, SEQUENTIAL, medium))
    assert (figures.calls, figures.commands) == (2, 2 * -(-medium // most))


def test_the_derived_figures() -> None:
    figures = Figures(1000, 4, 8, 2.0, None, 0.016, Latency(0.1, 0.2, 0.3), False)
    assert (figures.bytes, figures.mb_per_s, figures.commands_per_s) == (4000, 0.002, 4.0)
    assert figures.cpu_per_command == 0.002


@pytest.mark.parametrize(
    ("count", "p50", "p99"), [(1, 1, 1), (2, 1, 2), (3, 2, 3), (100, 50, 99), (101, 51, 100), (1000, 500, 990)]
)
def test_a_percentile_is_the_time_of_one_call(count: int, p50: int, p99: int) -> None:
    taken = array("q", [second * 10**9 for second in range(count, 0, -1)])
    assert _latency(taken) == (p50, p99, count)


def test_writes_are_random_bytes_and_flushed_within_the_time(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[None] = []
    flush = disk.flush

    def noted() -> None:
        flushed.append(None)
        flush()

    monkeypatch.setattr(disk, "flush", noted)
    plan = replace(PLAN, extent=Extent(16, 64), writes=True)
    figures = Bench(disk, plan).measure(Case(WRITE, SEQUENTIAL, 4096))
    assert len(flushed) == 2  # also after the warm-up, whose writes must not count
    assert figures.flush_seconds is not None
    assert 0 < figures.flush_seconds < figures.seconds
    written = disk.read(16, 64)
    assert written == written[:4096] * 8
    assert len(set(written[:4096])) > 200
    Bench(disk, replace(plan, seed=1)).measure(Case(WRITE, SEQUENTIAL, 4096))
    assert disk.read(16, 64) != written


def test_reads_are_not_flushed(disk: Disk) -> None:
    assert Bench(disk, PLAN).measure(Case(READ, RANDOM, 4096)).flush_seconds is None


def test_try_out_writes_only_if_writes_are_measured(disk: Disk, called: list[int]) -> None:
    Bench(disk, replace(PLAN, extent=Extent(8, 64))).try_out()
    assert called == [8] * 10
    before = disk.read(0, 2048)
    Bench(disk, replace(PLAN, extent=Extent(8, 64), sizes=(8192, 4096), writes=True)).try_out()
    after = disk.read(0, 2048)
    assert after != before
    assert (after[: 8 * 512], after[16 * 512 :]) == (before[: 8 * 512], before[16 * 512 :])


def test_the_garbage_collector_is_off_during_a_measurement_and_on_again_after_it(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    monkeypatch.setattr(disk, "readinto", lambda lba, buffer: seen.append(gc.isenabled()))
    Bench(disk, PLAN).measure(Case(READ, RANDOM, 4096))
    assert seen == [True] * 2 + [False] * 20
    assert gc.isenabled()

    def fail(lba: int, buffer: memoryview) -> int:
        if not gc.isenabled():
            raise KeyboardInterrupt
        return 8

    monkeypatch.setattr(disk, "readinto", fail)
    with pytest.raises(KeyboardInterrupt):
        Bench(disk, PLAN).measure(Case(READ, RANDOM, 4096))
    assert gc.isenabled()


def test_unfit_returns_the_reason(disk: Disk) -> None:
    assert unfit(disk, Extent(0, 2048), 1 << 20) is None
    assert unfit(disk, Extent(0, 2047), 1 << 20) == "larger than the range"
    assert unfit(disk, Extent(0, 8), 511) == "smaller than a block of 512 bytes"
    assert unfit(disk, Extent(0, 8), 513) == "no whole number of blocks of 512 bytes"


def test_a_range_beyond_the_medium_is_an_error(disk: Disk) -> None:
    with pytest.raises(OutOfRange):
        Bench(disk, replace(PLAN, extent=Extent(2000, 49)))


def test_blocks_that_need_a_separate_command_are_left_out() -> None:
    for letters, blocks in (("L", 56), ("", 63)):
        with open_on(Bus(stick(blocks=64)), quirks=letters) as disk:
            assert whole_commands(disk, Extent(0, 64)) == (0, blocks)
            assert whole_commands(disk, Extent(0, 56)) == (0, 56)
            assert whole_commands(disk, Extent(63, 1)) == (63, 1)


def test_an_error_of_a_call_is_raised() -> None:
    faulty = Stick([Unit(Memory(512 * 64))], faults=["sense=3/11/00,lba=32,times=always"])
    with open_on(Bus(faulty)) as disk, pytest.raises(MediumError):
        Bench(disk, replace(PLAN, extent=Extent(0, 64))).measure(Case(READ, SEQUENTIAL, 4096))


def test_each_size_has_other_random_places() -> None:
    """Otherwise the places of one size would be in the device's cache from the last."""
    with open_on(Bus(stick())) as disk:
        bench = Bench(disk, replace(PLAN, sizes=(4096, 8192)))
        first, second = (list(islice(bench._places(Case(READ, RANDOM, size)), 20)) for size in (4096, 8192))
    assert [lba // 16 for lba in first] != [lba // 16 for lba in second]
