"""Units that answer in ways that the standards do not have, as real devices do: the driver gets on with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import scsiusb
from scsiusb import CheckCondition, Disk
from scsiusb.virtual import Bus, Stick
from scsiusb.virtual.target.task import Parameters, Task
from tests.sticks import OddUnit

REQUEST_SENSE, TEST_UNIT_READY, READ_10 = 0x03, 0x00, 0x28
ODD_SENSE = bytes.fromhex("000002 000000 000000 000000 3a 0000000000")


@pytest.fixture
def unit() -> OddUnit:
    return OddUnit()


@pytest.fixture
def opened(unit: OddUnit) -> Iterator[Callable[[], Disk]]:
    """Open the unit as a disk, which is closed at the end of the test."""
    bus = Bus(Stick([unit]))
    disks: list[Disk] = []

    def open_disk() -> Disk:
        disks.append(scsiusb.open_on(bus))
        return disks[-1]

    yield open_disk
    for disk in disks:
        disk.close()
    bus.close()


# --- sense data of no format --------------------------------------------------------------------


def with_odd_sense(*opcodes: int) -> Callable[[bytes], Task | None]:
    """Let commands fail with sense data that cannot be read."""

    def answer(cdb: bytes) -> Task | None:
        if cdb[0] == REQUEST_SENSE:
            return Parameters(ODD_SENSE, cdb[4])
        return Task(failed=True) if cdb[0] in opcodes else None

    return answer


def test_sense_that_cannot_be_read_is_a_failure_without_a_reason(unit: OddUnit, opened: Callable[[], Disk]) -> None:
    disk = opened()
    unit.answer = with_odd_sense(TEST_UNIT_READY)
    with pytest.raises(CheckCondition, match="00 00 02") as failed:
        disk.unit.test_unit_ready()
    assert failed.value.sense.raw == ODD_SENSE
    assert disk.unit.request_sense().raw == ODD_SENSE


def test_a_disk_whose_test_unit_ready_gives_no_reason_is_read(unit: OddUnit, opened: Callable[[], Disk]) -> None:
    unit.answer = with_odd_sense(TEST_UNIT_READY)
    assert opened().read(0, 1) == bytes(512)


def test_a_change_of_medium_may_be_lost_in_sense_that_cannot_be_read(unit: OddUnit, opened: Callable[[], Disk]) -> None:
    disk = opened()
    disk.read(0, 1)
    changes = disk.unit.medium_changes
    unit.answer = with_odd_sense(READ_10)
    with pytest.raises(CheckCondition):
        disk.read(0, 1)
    assert disk.unit.medium_changes > changes
