"""Units that answer in ways that the standards do not have, as real devices do: the driver gets on with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

import scsiusb
from scsiusb import CheckCondition, Command, DeviceTimeout, Disk, UnitAttention
from scsiusb.scsi.command import DEFAULT_TIMEOUT
from scsiusb.usb.backend import ENDPOINT_IN, Code
from scsiusb.virtual import Bus, Stick
from scsiusb.virtual.target.task import Parameters, Task
from tests.sticks import Answer, InterceptedBus, OddUnit, Wire

REQUEST_SENSE, TEST_UNIT_READY, READ_10, SYNCHRONIZE_CACHE = 0x03, 0x00, 0x28, 0x35
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


# --- SYNCHRONIZE CACHE ----------------------------------------------------------------------------


@pytest.mark.parametrize("codes", [(5, 0x20), (5, 0x24), (5, 0x25), (5, 0x21), (5, 0, 0), (0, 0, 0)])
def test_a_write_to_a_unit_that_refuses_to_flush_is_good(
    unit: OddUnit, opened: Callable[[], Disk], codes: tuple[int, ...], caplog: pytest.LogCaptureFixture
) -> None:
    unit.answer = lambda cdb: unit.fail(*codes) if cdb[0] == SYNCHRONIZE_CACHE else None
    disk = opened()
    disk.write(0, b"W" * 512)
    disk.flush()
    assert disk.read(0, 1) == b"W" * 512
    sent = unit.count(SYNCHRONIZE_CACHE)
    assert sent <= 2
    assert "1209:0001:C" in caplog.text
    disk.write(1, b"W" * 512)
    disk.flush()
    assert unit.count(SYNCHRONIZE_CACHE) == sent


def test_a_write_is_good_where_a_flush_fails_with_sense_that_cannot_be_read(
    unit: OddUnit, opened: Callable[[], Disk]
) -> None:
    unit.answer = with_odd_sense(SYNCHRONIZE_CACHE)
    disk = opened()
    disk.write(0, b"W" * 512)
    disk.flush()
    assert disk.read(0, 1) == b"W" * 512


@pytest.mark.parametrize("second", [None, (6, 0x29)])
def test_a_flush_that_failed_once_without_a_reason_may_have_lost_the_cache(
    unit: OddUnit, opened: Callable[[], Disk], second: tuple[int, ...] | None
) -> None:
    disk = opened()
    disk.write(0, b"W" * 512)
    answers = [(0, 0), second]

    def answer(cdb: bytes) -> Task | None:
        codes = answers.pop(0) if cdb[0] == SYNCHRONIZE_CACHE and answers else None
        return unit.fail(*codes) if codes else None

    unit.answer = answer
    with pytest.raises(UnitAttention, match="reset"):
        disk.flush()


def unanswered(wire: Wire, endpoint: int, view: memoryview) -> Answer | None:
    """Let the status of SYNCHRONIZE CACHE time out."""
    is_csw = wire.opcode == SYNCHRONIZE_CACHE and endpoint & ENDPOINT_IN
    return (Code.TIMEOUT, 0) if is_csw else None


def test_a_flush_that_is_never_answered_is_sent_once() -> None:
    unit = OddUnit()
    with closing(InterceptedBus(Stick([unit]))) as bus, scsiusb.open_on(bus) as disk:
        bus.wire.intercept = unanswered
        with pytest.raises(DeviceTimeout, match="--quirks 1209:0001:C"):
            disk.unit.synchronize_cache()
        assert unit.count(SYNCHRONIZE_CACHE) == 1
        disk.write(0, b"W" * 512)
    assert unit.count(SYNCHRONIZE_CACHE) == 1


def test_a_unit_that_has_flushed_before_is_asked_again_after_a_timeout() -> None:
    unit = OddUnit()
    with closing(InterceptedBus(Stick([unit]))) as bus, scsiusb.open_on(bus) as disk:
        disk.unit.synchronize_cache()
        bus.wire.intercept = unanswered
        with pytest.raises(DeviceTimeout) as slow:
            disk.unit.synchronize_cache()
        assert "quirks" not in str(slow.value)
        bus.wire.intercept = None
        sent = unit.count(SYNCHRONIZE_CACHE)
        disk.unit.synchronize_cache()
        assert unit.count(SYNCHRONIZE_CACHE) > sent


def test_the_first_flush_waits_no_longer_than_other_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    unit = OddUnit()
    timeouts: list[float | None] = []
    with closing(Bus(Stick([unit]))) as bus, scsiusb.open_on(bus) as disk:
        execute = disk.unit.execute

        def noted(command: Command[Any], *, timeout: float | None = None) -> object:
            timeouts.append(timeout)
            return execute(command, timeout=timeout)

        monkeypatch.setattr(disk.unit, "execute", noted)
        disk.unit.synchronize_cache()
        disk.unit.synchronize_cache()
    assert timeouts == [DEFAULT_TIMEOUT, None]
