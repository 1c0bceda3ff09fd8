"""Units that answer in ways that the standards do not have, as real devices do: the driver gets on with them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import pytest

import scsiusb
from scsiusb import (
    CheckCondition,
    Command,
    DeviceTimeout,
    Disk,
    LogicalUnit,
    MalformedReply,
    MediumError,
    NoMedium,
    NotReady,
    RetryPolicy,
    TransportError,
    UnitAttention,
)
from scsiusb.scsi.command import DEFAULT_TIMEOUT
from scsiusb.scsi.commands.sbc import Verify10
from scsiusb.scsi.pages.inquiry import CD_ROM
from scsiusb.scsi.retry import NO_WAIT
from scsiusb.scsi.sense import IN_PROGRESS
from scsiusb.usb.backend import ENDPOINT_IN, Code
from scsiusb.virtual import Bus, Memory, Sparse, Stick
from scsiusb.virtual.target.task import Parameters, Task
from tests.sticks import Answer, InterceptedBus, OddUnit, Wire, client_on

TEST_UNIT_READY, REQUEST_SENSE, START_STOP_UNIT, READ_10, WRITE_10, SYNCHRONIZE_CACHE = (
    0x00,
    0x03,
    0x1B,
    0x28,
    0x2A,
    0x35,
)
INQUIRY, READ_CAPACITY_10, READ_CAPACITY_16 = 0x12, 0x25, 0x9E
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


@pytest.mark.parametrize("answers", [[(0, 0), (0, 0)], [(0, 0), None], [(0, 0), (6, 0x29), None]])
def test_a_flush_that_fails_without_a_reason_is_sent_again_before_any_other_command(
    unit: OddUnit, opened: Callable[[], Disk], answers: list[tuple[int, ...] | None]
) -> None:
    """What may be hidden is counted in that turn: no other user relies on what is not counted yet, or taken back."""
    disk = opened()
    disk.write(0, b"W" * 512)
    turns, counts = [], []
    left = list(answers)

    def answer(cdb: bytes) -> Task | None:
        if cdb[0] != SYNCHRONIZE_CACHE:
            return None
        turns.append(disk.unit.transport._turns.current)  # type: ignore[attr-defined]
        counts.append((disk.unit.resets, disk.unit.doubts, disk.unit.medium_changes))
        codes = left.pop(0)
        return unit.fail(*codes) if codes else None

    unit.answer = answer
    with suppress(UnitAttention):
        disk.flush()
    is_unsupported = answers[1] == (0, 0)
    assert len(turns) == len(answers)
    assert turns[0] is turns[1]
    assert counts[0] == counts[1]
    assert (disk.unit.resets == counts[0][0]) == is_unsupported
    assert (disk.unit.doubts == counts[0][1]) == is_unsupported


@pytest.mark.parametrize("code", [Code.TIMEOUT, Code.IO])
def test_a_reset_may_be_hidden_if_the_second_flush_fails_on_the_bus(code: Code) -> None:
    unit = OddUnit()
    unit.answer = lambda cdb: unit.fail(0, 0) if unit.count(SYNCHRONIZE_CACHE) == 1 and cdb[0] == 0x35 else None

    def fails_second(wire: Wire, endpoint: int, view: memoryview) -> Answer | None:
        return (code, 0) if unit.count(SYNCHRONIZE_CACHE) == 2 and wire.opcode == SYNCHRONIZE_CACHE else None

    with closing(InterceptedBus(Stick([unit]))) as bus:
        disk = scsiusb.open_on(bus)
        disk.write(0, b"W" * 512)
        resets = disk.unit.attentions.resets
        bus.wire.intercept = fails_second
        with pytest.raises((TransportError, UnitAttention)):
            disk.flush()
        assert disk.unit.attentions.resets > resets
        with suppress(TransportError, UnitAttention):
            disk.close()


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


# --- a unit that stops, or is busy --------------------------------------------------------------------


def stream(disk: Disk) -> None:
    with disk.reading(0, 2048) as chunks:
        assert sum(map(len, chunks)) == 1 << 20


@pytest.mark.parametrize(
    "use",
    [
        lambda disk: disk.read(1, 1),
        lambda disk: disk.write(1, bytes(512)),
        lambda disk: disk.unit.read_capacity(),
        lambda disk: disk.unit.execute(Verify10(0, 1)),
        lambda disk: disk.unit.synchronize_cache(),
        stream,
    ],
    ids=["read", "write", "capacity", "verify", "flush", "stream"],
)
def test_a_disk_that_stops_while_it_is_open_is_started(
    unit: OddUnit, opened: Callable[[], Disk], use: Callable[[Disk], object]
) -> None:
    disk = opened()
    disk.read(0, 1)
    unit.stopped = True
    use(disk)
    assert unit.count(START_STOP_UNIT) == 1
    assert not unit.stopped


def test_after_the_start_a_unit_is_waited_for(unit: OddUnit, opened: Callable[[], Disk]) -> None:
    disk = opened()
    disk.unit.retry = RetryPolicy(interval=0.001)
    disk.read(0, 1)
    unit.stopped = True

    def answer(cdb: bytes) -> Task | None:
        if cdb[0] == START_STOP_UNIT:
            unit.becoming_ready = 3
        return None

    unit.answer = answer
    assert disk.read(0, 1) == bytes(512)
    assert unit.count(READ_10) >= 6
    assert unit.count(START_STOP_UNIT) == 1


def test_a_unit_that_stays_stopped_is_an_error_after_one_start(unit: OddUnit, opened: Callable[[], Disk]) -> None:
    disk = opened()
    disk.read(0, 1)
    unit.answer = lambda cdb: unit.fail(2, 0x04, 0x02) if cdb[0] == READ_10 else None
    with pytest.raises(NotReady, match="2/04/02"):
        disk.read(0, 1)
    assert unit.count(START_STOP_UNIT) == 1


def test_a_unit_that_cannot_be_started_raises_the_error_of_the_command(
    unit: OddUnit, opened: Callable[[], Disk]
) -> None:
    disk = opened()
    disk.read(0, 1)
    unit.answer = lambda cdb: unit.fail(5, 0x20) if cdb[0] == START_STOP_UNIT else None
    unit.stopped = True
    with pytest.raises(NotReady, match=r"READ\(10\).*2/04/02"):
        disk.read(0, 1)


def test_test_unit_ready_and_a_policy_without_waiting_start_nothing(unit: OddUnit, opened: Callable[[], Disk]) -> None:
    disk = opened()
    disk.read(0, 1)
    unit.stopped = True
    with pytest.raises(NotReady):
        disk.unit.test_unit_ready()
    with pytest.raises(NotReady):
        disk.unit.execute(Verify10(0, 1), retry=NO_WAIT)
    assert unit.count(START_STOP_UNIT) == 0


@pytest.mark.parametrize("opcode", [READ_10, WRITE_10])
@pytest.mark.parametrize(("asc", "ascq"), sorted(IN_PROGRESS))
def test_a_busy_unit_is_waited_for(unit: OddUnit, opened: Callable[[], Disk], asc: int, ascq: int, opcode: int) -> None:
    disk = opened()
    disk.unit.retry = RetryPolicy(interval=0.001)
    data = disk.read(0, 1)
    left = 3

    def answer(cdb: bytes) -> Task | None:
        nonlocal left
        if cdb[0] != opcode or not left:
            return None
        left -= 1
        return unit.fail(2, asc, ascq)

    unit.answer = answer
    disk.write(0, data)
    assert disk.read(0, 1) == data
    assert left == 0


def test_a_unit_that_stays_busy_is_an_error_in_time(unit: OddUnit, opened: Callable[[], Disk]) -> None:
    disk = opened()
    disk.unit.retry = RetryPolicy(becoming_ready=0.02, interval=0.001)
    disk.read(0, 1)
    unit.answer = lambda cdb: unit.fail(2, 0x04, 0x07) if cdb[0] == READ_10 else None
    with pytest.raises(NotReady, match="operation in progress"):
        disk.read(0, 1)
    assert unit.count(READ_10) > 2


# --- the unit attention "medium not present" ------------------------------------------------------


def test_a_unit_attention_medium_not_present_is_no_medium(unit: OddUnit, opened: Callable[[], Disk]) -> None:
    unit.answer = lambda cdb: unit.fail(6, 0x3A) if cdb[0] == TEST_UNIT_READY else None
    disk = opened()
    with pytest.raises(NoMedium, match="no medium"):
        disk.read(0, 1)


def test_a_unit_attention_medium_not_present_that_ends_is_retried(unit: OddUnit, opened: Callable[[], Disk]) -> None:
    unit.answer = lambda cdb: (
        unit.fail(6, 0x3A, 0x02) if cdb[0] == TEST_UNIT_READY and unit.count(TEST_UNIT_READY) < 3 else None
    )
    assert opened().read(0, 1) == bytes(512)


def test_a_unit_attention_medium_not_present_while_reading_is_a_change_of_medium(
    unit: OddUnit, opened: Callable[[], Disk]
) -> None:
    disk = opened()
    disk.read(0, 1)
    changes, sent = disk.unit.medium_changes, unit.count(READ_10)
    unit.answer = lambda cdb: unit.fail(6, 0x3A) if cdb[0] == READ_10 else None
    with pytest.raises(NoMedium):
        disk.read(0, 1)
    assert unit.count(READ_10) == sent + 1
    assert disk.unit.medium_changes > changes


# --- capacity -----------------------------------------------------------------------------------------


def reporting(last_lba: int, last_lba_16: int, block_size: int = 512) -> Callable[[bytes], Task | None]:
    """Answer READ CAPACITY(10) and (16) with these values."""

    def answer(cdb: bytes) -> Task | None:
        if cdb[0] == READ_CAPACITY_10:
            return Parameters(struct.pack(">II", last_lba, block_size), 8)
        return Parameters(struct.pack(">QI20x", last_lba_16, block_size), 32) if cdb[0] == READ_CAPACITY_16 else None

    return answer


@pytest.mark.parametrize("codes", [(5, 0x20), (5, 0x24), (0, 0)])
def test_a_large_disk_without_read_capacity_16_has_2_to_the_32_blocks(codes: tuple[int, int]) -> None:
    unit = OddUnit(Sparse((1 << 32) + 8))
    unit.answer = lambda cdb: unit.fail(*codes) if cdb[0] == READ_CAPACITY_16 else None
    with closing(Bus(Stick([unit]))) as bus, scsiusb.open_on(bus) as disk:
        assert disk.blocks == 1 << 32
        disk.write(disk.blocks - 1, b"L" * 512)
        assert disk.read(disk.blocks - 2, 2) == bytes(512) + b"L" * 512
        asked = unit.count(READ_CAPACITY_16)
        assert disk.unit.read_capacity().blocks == 1 << 32
        assert unit.count(READ_CAPACITY_16) == asked


def test_a_failure_of_read_capacity_16_is_an_error(unit: OddUnit, opened: Callable[[], Disk]) -> None:
    capacity = reporting(0xFFFFFFFF, 0)
    unit.answer = lambda cdb: unit.fail(3, 0x11) if cdb[0] == READ_CAPACITY_16 else capacity(cdb)
    with pytest.raises(MediumError):
        _ = opened().blocks


@pytest.mark.parametrize("last_lba", [(1 << 64) - 1, (1 << 64) - 2, 1 << 63, 1 << 54])
def test_more_blocks_than_any_medium_has_are_not_believed(
    unit: OddUnit, opened: Callable[[], Disk], last_lba: int
) -> None:
    unit.answer = reporting(0xFFFFFFFF, last_lba)
    with pytest.raises(MalformedReply, match=f"{last_lba + 1} blocks"):
        _ = opened().blocks


@pytest.mark.parametrize("codes", [(6, 0x28), (6, 0x29), (6, 0x2A, 1), (5, 0x20)])
def test_test_unit_ready_that_never_succeeds_does_not_keep_from_reading(
    unit: OddUnit, opened: Callable[[], Disk], codes: tuple[int, ...]
) -> None:
    unit.answer = lambda cdb: unit.fail(*codes) if cdb[0] == TEST_UNIT_READY else None
    disk = opened()
    assert disk.read(0, 1) == bytes(512)
    assert disk.read(1, 1) == bytes(512)


@pytest.mark.parametrize("codes", [(6, 0x29), (5, 0x20), (0, 0)])
def test_after_a_lost_exchange_a_unit_whose_test_unit_ready_never_succeeds_is_read(codes: tuple[int, int]) -> None:
    block = bytes(range(256)) * 2
    unit = OddUnit(Memory(block * 64))
    stick = Stick([unit], faults=["nak@csw,opcode=28,lba=1"])
    unit.answer = lambda cdb: unit.fail(*codes) if cdb[0] == TEST_UNIT_READY else None
    with closing(Bus(stick)) as bus, scsiusb.open_on(bus) as disk:
        disk.read(0, 1)
        disk.unit.timeout = 0.05
        with pytest.raises(DeviceTimeout):
            disk.read(1, 1)
        disk.unit.timeout = None
        assert disk.read(1, 1) == block


@pytest.mark.parametrize("codes", [(2, 0x04, 0x03), (3, 0x11), (4, 0x44)])
def test_another_failure_of_test_unit_ready_is_an_error(
    unit: OddUnit, opened: Callable[[], Disk], codes: tuple[int, ...]
) -> None:
    unit.answer = lambda cdb: unit.fail(*codes) if cdb[0] == TEST_UNIT_READY else None
    with pytest.raises(CheckCondition, match="TEST UNIT READY"):
        opened().read(0, 1)


@pytest.mark.parametrize("block_size", [0, 2340, 2352])
def test_optical_units_have_blocks_of_2048_bytes(block_size: int) -> None:
    data = b"".join(bytes([number]) * 2048 for number in range(16))
    unit = OddUnit(Memory(data, 2048), device_type=CD_ROM)
    unit.answer = reporting(15, 0, block_size)
    with closing(Bus(Stick([unit]))) as bus, scsiusb.open_on(bus) as disk:
        assert disk.block_size == 2048
        assert disk.read(3, 2) == data[3 * 2048 : 5 * 2048]


def test_a_unit_whose_inquiry_fails_is_taken_for_a_disk() -> None:
    unit = OddUnit()
    capacity = reporting(15, 0, 0)
    unit.answer = lambda cdb: unit.fail(5, 0x24) if cdb[0] == INQUIRY else capacity(cdb)
    with closing(Bus(Stick([unit]))) as bus, closing(client_on(bus)) as client:
        assert LogicalUnit(client).read_capacity().block_size == 512


@pytest.mark.parametrize(("block_size", "used"), [(0, 512), (2352, 2352)])
def test_a_disk_has_the_blocks_that_it_reports(
    unit: OddUnit, opened: Callable[[], Disk], block_size: int, used: int
) -> None:
    unit.answer = reporting(15, 0, block_size)
    assert opened().block_size == used
