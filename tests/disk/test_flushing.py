"""What was written is flushed, or each who wrote it gets an error: after deferred errors, resets, exceptions."""

from __future__ import annotations

import dis
import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import FrameType

import pytest

import scsiusb
from scsiusb import CheckCondition, Disk, HardwareError, MediumError, ScsiUsbError, open_on
from scsiusb.disk.unflushed import Unflushed
from scsiusb.virtual import Bus, Stick
from scsiusb.virtual.target.sense import Sense
from scsiusb.virtual.target.task import Task
from tests.interrupts import CtrlC
from tests.sticks import OddUnit

TEST_UNIT_READY, REQUEST_SENSE, INQUIRY, READ_10, WRITE_10, SYNCHRONIZE_CACHE = 0x00, 0x03, 0x12, 0x28, 0x2A, 0x35
LOST = "an earlier write was not carried out: medium error: .*; write again what was written since the last flush"
BLOCK = b"w" * 512
RERAISES = {"RAISE_VARARGS", "RERAISE", "COPY", "POP_EXCEPT"}


@pytest.fixture
def unit() -> OddUnit:
    return OddUnit(removable=False)


@pytest.fixture
def bus(unit: OddUnit) -> Iterator[Bus]:
    bus = Bus(Stick([unit]))
    yield bus
    assert not bus.handles


@pytest.fixture
def disk(bus: Bus) -> Iterator[Disk]:
    disk = open_on(bus)
    disk.read(0, 1)
    yield disk
    with suppress(ScsiUsbError):
        disk.close()


def defer(unit: OddUnit, is_reported: Callable[[bytes], object], key: int = 3) -> None:
    """Report a write error, deferred, to the first command that fulfils the condition."""

    def answer(cdb: bytes) -> Task | None:
        if not is_reported(cdb):
            return None
        unit.answer = lambda cdb: None
        unit.keep_sense(Sense(key, 0x0C, 0, deferred=True))
        return Task(failed=True)

    unit.answer = answer


def asks_for_a_page(cdb: bytes) -> bool:
    return cdb[0] == INQUIRY and bool(cdb[1] & 1)


def opens(bus: Bus) -> int:
    with open_on(bus) as another:
        return another.blocks


def reads(bus: Bus) -> bytes:
    with open_on(bus) as another:
        return another.read(0, 1)


def asks_for_sense(bus: Bus) -> object:
    with open_on(bus) as another:
        return another.unit.request_sense()


@pytest.mark.parametrize(
    ("is_reported", "use"),
    [
        (asks_for_a_page, opens),
        (lambda cdb: cdb[0] == TEST_UNIT_READY, opens),
        (lambda cdb: cdb[0] == INQUIRY, opens),
        (lambda cdb: cdb[0] == READ_10, reads),
        (lambda cdb: cdb[0] == REQUEST_SENSE, asks_for_sense),
    ],
    ids=["block limits", "test unit ready", "inquiry", "read", "request sense"],
)
def test_a_deferred_error_that_another_user_met_is_raised_by_the_flush_of_each_who_wrote_once(
    unit: OddUnit, bus: Bus, disk: Disk, is_reported: Callable[[bytes], object], use: Callable[[Bus], object]
) -> None:
    with open_on(bus) as second:
        disk.write(0, BLOCK)
        second.write(1, BLOCK)
        defer(unit, is_reported)
        with suppress(CheckCondition):
            use(bus)
        for writer in (disk, second):
            with pytest.raises(MediumError, match=LOST) as caught:
                writer.flush()
            assert caught.value.sense.deferred
            writer.flush()


def test_a_user_who_wrote_nothing_since_his_flush_learns_of_no_deferred_error(
    unit: OddUnit, bus: Bus, disk: Disk
) -> None:
    disk.write(0, BLOCK)
    disk.flush()
    defer(unit, asks_for_a_page)
    assert opens(bus)
    disk.flush()
    disk.write(0, BLOCK)
    disk.flush()


def test_a_deferred_error_is_raised_by_close(unit: OddUnit, bus: Bus, disk: Disk) -> None:
    disk.write(0, BLOCK)
    defer(unit, asks_for_a_page)
    assert opens(bus)
    with pytest.raises(MediumError, match=LOST):
        disk.close()


def test_a_flush_that_meets_a_deferred_error_raises_it_once_and_flushes_when_it_is_called_again(
    unit: OddUnit, disk: Disk
) -> None:
    disk.write(0, BLOCK)
    defer(unit, lambda cdb: cdb[0] == SYNCHRONIZE_CACHE, key=4)
    with pytest.raises(HardwareError, match=r"earlier command failed.*; write again what was written") as caught:
        disk.flush()
    assert caught.value.sense.deferred
    sent = unit.count(SYNCHRONIZE_CACHE)
    disk.close()
    assert unit.count(SYNCHRONIZE_CACHE) == sent + 1, "the blocks are still to be flushed"


def test_the_call_that_meets_a_deferred_error_raises_it_and_so_does_the_flush(unit: OddUnit, disk: Disk) -> None:
    """A caller who repeats that call alone has not mended the earlier write."""
    disk.write(0, BLOCK)
    defer(unit, lambda cdb: cdb[0] == WRITE_10)
    with pytest.raises(MediumError, match="because an earlier command failed"):
        disk.write(1, BLOCK)
    disk.write(1, BLOCK)
    with pytest.raises(MediumError, match=LOST):
        disk.flush()


def test_writing_again_after_a_reset_does_not_mend_a_deferred_error(unit: OddUnit, bus: Bus, disk: Disk) -> None:
    disk.max_blocks = 1
    disk.write(0, BLOCK)

    def answer(cdb: bytes) -> Task | None:
        if cdb[0] == WRITE_10 and cdb[5] == 2:
            unit.answer = lambda cdb: None
            disk.unit.attentions.note(scsiusb.Sense(3, 0x0C, 0, deferred=True))  # as another user's command does
            disk.unit.attentions.count_reset()
        return None

    unit.answer = answer
    disk.write(1, BLOCK * 2)
    assert [cdb[5] for cdb in unit.cdbs if cdb[0] == WRITE_10] == [0, 1, 2, 1, 2]
    with pytest.raises(MediumError, match=LOST):
        disk.flush()


@pytest.mark.parametrize("is_deferred", [False, True])
def test_ctrl_c_in_a_flush_keeps_the_record_of_what_is_not_flushed(
    unit: OddUnit, disk: Disk, *, is_deferred: bool
) -> None:
    """At any instruction: the next flush says that data was lost, unless this one did."""

    def selects(frame: FrameType) -> bool:
        code = frame.f_code
        return code is Disk._flush.__code__ or code.co_filename == Unflushed.note.__code__.co_filename

    untold = set()
    ctrl_c = CtrlC(selects, 1)
    for count in itertools.count(1):
        disk.write(0, BLOCK)
        if is_deferred:
            defer(unit, lambda cdb: cdb[0] == SYNCHRONIZE_CACHE)
        else:
            disk.unit.attentions.count_reset()
        ctrl_c = CtrlC(selects, count)
        try:
            ctrl_c.run(disk.flush)
        except CheckCondition:
            if ctrl_c.at < 0:
                break
            raise
        with suppress(CheckCondition):
            disk.flush()
            untold.add(ctrl_c.at)
        disk.flush()
    assert count > 50
    raises = {place.offset for place in dis.get_instructions(Disk._flush) if place.opname in RERAISES}
    assert untold <= raises, "between these, Python does not look for signals"


def test_what_a_later_flush_has_flushed_an_earlier_one_does_not_keep() -> None:
    unflushed = Unflushed()
    marks = [(n, n) for n in range(3)]
    unflushed.note("call", marks[1])
    unflushed.end("call")
    first, since = unflushed.begin_flush()
    assert since == marks[1]
    unflushed.note("another", marks[2])
    second, since = unflushed.begin_flush()
    assert since == marks[1]
    unflushed.settled = first
    assert unflushed.since == marks[1], "the second flush is about the blocks of both"
    unflushed.settled = second
    assert unflushed.since is None
    unflushed.note("call", marks[2])
    assert unflushed.begin_flush()[1] == marks[2]
