"""An empty slot of a card reader: the error names the slots that have a card."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from scsiusb import Disk, MediumChanged, NoMedium
from scsiusb.opening import open_on
from scsiusb.virtual import Bus, Memory, Stick
from tests.sticks import OddUnit

TEST_UNIT_READY = 0x00
BLOCK = 512
TIMEOUT = 0.1  # seconds for a command that hangs
USUAL = "insert a medium"


def card() -> Memory:
    return Memory(bytearray(b"card".ljust(BLOCK, b".") * 8))


def slots(*full: int) -> list[OddUnit]:
    """Return four slots, those of `full` with a card."""
    units = [OddUnit(card()) for _ in range(4)]
    for lun, unit in enumerate(units):
        if lun not in full:
            unit.remove()
    return units


@contextmanager
def opened(units: list[OddUnit], *faults: str, lun: int = 0, quirks: str = "") -> Iterator[tuple[Disk, Bus]]:
    bus = Bus(Stick(units, faults=faults))
    with open_on(bus, lun=lun, quirks=quirks, timeout=TIMEOUT) as disk:
        yield disk, bus
    bus.close()


def remedy(disk: Disk) -> str:
    with pytest.raises(NoMedium) as failed:
        disk.read(0, 1)
    return failed.value.remedy


@pytest.mark.parametrize(
    ("full", "lun", "words"),
    [
        ((2,), 0, "unit 2 has a medium: use lun=2 (--lun 2), or insert one into unit 0"),
        ((0,), 3, "unit 0 has a medium: use lun=0 (--lun 0), or insert one into unit 3"),
        ((1, 3), 0, "units 1, 3 have a medium: use lun=1 (--lun 1), or insert one into unit 0"),
        ((), 0, USUAL),
    ],
)
def test_the_units_with_a_card_are_named(full: tuple[int, ...], lun: int, words: str) -> None:
    with opened(slots(*full), lun=lun) as (disk, _):
        assert remedy(disk) == words
        assert remedy(disk) == words


def test_a_device_with_one_unit_is_asked_nothing_more() -> None:
    unit = OddUnit(card())
    unit.remove()
    with opened([unit]) as (disk, _):
        assert remedy(disk) == USUAL
    assert unit.count(TEST_UNIT_READY) <= 2


def test_a_unit_that_hangs_is_asked_once() -> None:
    units = slots(2)
    with opened(units, "nak@csw,opcode=00,lun=1,times=always") as (disk, _):
        assert remedy(disk) == USUAL
        assert remedy(disk) == USUAL
    assert (units[1].count(TEST_UNIT_READY), units[2].count(TEST_UNIT_READY)) == (1, 0)


def test_units_are_not_asked_against_the_quirk() -> None:
    units = slots(2)
    with opened(units, quirks="U") as (disk, _):
        assert remedy(disk) == USUAL
    assert sum(unit.count(TEST_UNIT_READY) for unit in units) == 0


def test_a_change_of_card_that_another_unit_reports_to_the_question_is_not_lost() -> None:
    units = slots(2)
    with opened(units) as (disk, bus), open_on(bus, lun=2) as other:
        assert other.read(0, 1)[:4] == b"card"
        units[2].remove()
        units[2].insert(card())
        assert "unit 2" in remedy(disk)
        with pytest.raises(MediumChanged):
            other.read(0, 1)
