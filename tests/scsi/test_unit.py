"""A logical unit: automatic REQUEST SENSE, bounded retries, false residues."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from construct import BitStruct, Padding

from scsiusb import (
    CheckCondition,
    Command,
    Direction,
    IllegalRequest,
    LogicalUnit,
    MalformedReply,
    MediumChanged,
    MediumError,
    NoMedium,
    NotReady,
    RetryPolicy,
    UnitAttention,
)
from scsiusb.scsi.command import U8, opcode
from scsiusb.scsi.commands.sbc import Read10, ReadCapacity10, StartStopUnit, Verify10, Write10
from scsiusb.scsi.commands.spc import Inquiry, ModeSense10, PreventAllow, ReportLuns
from scsiusb.scsi.pages.vpd import UnitSerialNumber
from scsiusb.scsi.retry import NO_RETRY
from scsiusb.transport.base import Completion, Story
from scsiusb.virtual import Memory, Stick, Unit
from tests.sticks import InterceptedBus, client_on, stick

QUICK = RetryPolicy(interval=0.001)


@pytest.fixture
def bus() -> Iterator[InterceptedBus]:
    bus = InterceptedBus(Stick([Unit(Memory(1 << 20)), Unit()]))
    yield bus
    bus.close()


@pytest.fixture
def unit(bus: InterceptedBus) -> Iterator[LogicalUnit]:
    transport = client_on(bus)
    yield LogicalUnit(transport, retry=QUICK)
    transport.close()


def device(bus: InterceptedBus, lun: int = 0) -> Unit:
    return bus._connections[2].stick.units[lun]


def cbws(bus: InterceptedBus) -> list[str]:
    return [entry.removeprefix("cbw ") for entry in bus.wire.log if entry.startswith("cbw")]


def test_typed_replies(unit: LogicalUnit) -> None:
    assert unit.inquiry().vendor == "scsiusb"
    assert unit.read_capacity().blocks == 2048
    assert isinstance(unit.vpd(0x80), UnitSerialNumber)
    assert not unit.mode_sense().write_protected
    assert unit.execute(ModeSense10()).pages == unit.mode_sense().pages
    assert unit.execute(ReportLuns()) == (0, 1)
    assert unit.request_sense().is_empty
    unit.execute(Verify10(0, 8))
    unit.execute(PreventAllow(prevent=1))


def test_the_first_unit_attention_is_cleared_and_the_command_retried(bus: InterceptedBus, unit: LogicalUnit) -> None:
    unit.test_unit_ready()
    assert cbws(bus) == ["00", "03", "00"]


def test_endless_unit_attentions_are_an_error(bus: InterceptedBus, unit: LogicalUnit) -> None:
    def again(*arguments: object) -> None:
        device(bus).power_on()

    bus.wire.intercept = again
    with pytest.raises(UnitAttention):
        unit.test_unit_ready()
    assert cbws(bus).count("00") == QUICK.unit_attentions + 1


@pytest.mark.parametrize(
    ("arguments", "error"),
    [({"failures": -1}, ValueError), ({"becoming_ready": -5.0}, ValueError), ({"timeouts": "x"}, TypeError)],
)
def test_an_invalid_policy_is_refused(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        RetryPolicy(**arguments)


def test_the_policy_no_retry_sends_a_command_once(unit: LogicalUnit) -> None:
    with pytest.raises(UnitAttention):
        unit.test_unit_ready(retry=NO_RETRY)


def test_a_unit_that_becomes_ready_is_waited_for(bus: InterceptedBus, unit: LogicalUnit) -> None:
    device(bus).becoming_ready = 3
    unit.test_unit_ready()
    assert cbws(bus).count("00") >= 4


def test_a_unit_that_never_becomes_ready_is_an_error_in_time(bus: InterceptedBus, unit: LogicalUnit) -> None:
    device(bus).becoming_ready = 10**6
    with pytest.raises(NotReady, match="becoming ready"):
        unit.test_unit_ready(retry=RetryPolicy(becoming_ready=0.02, interval=0.001))


def test_no_medium_is_reported_without_a_retry(bus: InterceptedBus, unit: LogicalUnit) -> None:
    empty = LogicalUnit(unit.transport, 1)
    assert empty.inquiry().removable
    with pytest.raises(NoMedium, match="no medium"):
        empty.test_unit_ready()
    bus.wire.log.clear()
    with pytest.raises(NoMedium):
        empty.make_ready()
    assert cbws(bus) == ["00", "03"]


def test_a_stopped_unit_is_started(bus: InterceptedBus, unit: LogicalUnit) -> None:
    unit.test_unit_ready()
    unit.execute(StartStopUnit(start=False))
    with pytest.raises(NotReady) as stopped:
        unit.test_unit_ready()
    assert stopped.value.sense.needs_start
    bus.wire.log.clear()
    unit.make_ready()
    assert cbws(bus) == ["00", "03", "1b", "00"]


def test_a_changed_medium_stops_commands_with_block_addresses_only(bus: InterceptedBus, unit: LogicalUnit) -> None:
    """A retry would read or write another medium than the caller knows."""
    unit.test_unit_ready()
    device(bus).remove()
    device(bus).insert(Memory(1 << 19))
    with pytest.raises(MediumChanged):
        unit.execute(Write10(0, 1, block_size=512, data=bytes(512)))
    device(bus).remove()
    device(bus).insert(Memory(1 << 18))
    assert unit.read_capacity().blocks == 512


def replace_completions(unit: LogicalUnit, monkeypatch: pytest.MonkeyPatch, *rows: tuple[int, int, int]) -> None:
    """Replace the completions of the next commands by these rows of status, residue and transferred bytes."""
    left = list(rows)
    exchange = unit.transport.exchange

    def ended(lun: int, cdb: bytes, direction: Direction, buffer: memoryview, timeout: float) -> Story[Completion]:
        true = yield from exchange(lun, cdb, direction, buffer, timeout)
        if not left:
            return true
        status, residue, transferred = left.pop(0)
        return Completion(status, 0 if unit.transport.ignore_residue else residue, transferred)

    monkeypatch.setattr(unit.transport, "exchange", ended)


@pytest.mark.parametrize(("command", "length"), [(Inquiry(), 36), (ReadCapacity10(), 8)])
def test_a_bogus_residue_is_learned(
    unit: LogicalUnit, monkeypatch: pytest.MonkeyPatch, command: Command[object], length: int
) -> None:
    unit.test_unit_ready()
    replace_completions(unit, monkeypatch, (0, length, length), (0, 512, 512))
    unit.execute(command)
    assert unit.transport.ignore_residue
    assert len(unit.execute(Read10(0, 1, block_size=512))) == 512


def test_a_residue_with_padded_data_is_correct(unit: LogicalUnit) -> None:
    assert unit.execute(Inquiry(length=255)).product == "Virtual Stick"
    assert not unit.transport.ignore_residue


@pytest.mark.parametrize("row", [(0, 512, 512), (0, 0, 511), (0, 1, 512)], ids=["residue", "short", "a byte"])
def test_good_status_with_part_of_the_data_is_malformed(
    unit: LogicalUnit, monkeypatch: pytest.MonkeyPatch, row: tuple[int, int, int]
) -> None:
    unit.test_unit_ready()
    replace_completions(unit, monkeypatch, row, row, row, row)
    with pytest.raises(MalformedReply, match=r"READ\(10\) of 1 block at LBA 0: good status for only .*, 4 times"):
        unit.execute(Read10(0, 1, block_size=512))


def test_a_write_with_a_residue_is_an_error(unit: LogicalUnit, monkeypatch: pytest.MonkeyPatch) -> None:
    unit.test_unit_ready()
    replace_completions(unit, monkeypatch, (0, 100, 512))
    with pytest.raises(MalformedReply):
        unit.execute(Write10(0, 1, block_size=512, data=bytes(512)))


def fail_with_sense(bus: InterceptedBus, unit: LogicalUnit, monkeypatch: pytest.MonkeyPatch, *senses: bytes) -> None:
    """Make the next commands fail, one for each of these sense data."""
    left = list(senses)
    exchange = unit.transport.exchange

    def ended(lun: int, cdb: bytes, direction: Direction, buffer: memoryview, timeout: float) -> Story[Completion]:
        true = yield from exchange(lun, cdb, direction, buffer, timeout)
        if cdb[0] == 0x03 and left:
            data = left.pop(0)
            buffer[: len(data)] = data
            return Completion(0, len(buffer) - len(data), len(data))
        return true._replace(status=1) if left else true

    monkeypatch.setattr(unit.transport, "exchange", ended)


def test_a_recovered_error_is_a_success(
    bus: InterceptedBus, unit: LogicalUnit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    unit.test_unit_ready()
    fail_with_sense(bus, unit, monkeypatch, bytes.fromhex("70 00 01 00000000 0a 00000000 17 01 00 000000"))
    assert len(unit.execute(Read10(0, 1, block_size=512))) == 512
    assert "after recovery" in caplog.text


def test_a_medium_error_names_the_block(
    bus: InterceptedBus, unit: LogicalUnit, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit.test_unit_ready()
    fail_with_sense(bus, unit, monkeypatch, bytes.fromhex("f0 00 03 00000005 0a 00000000 11 00 00 000000"))
    with pytest.raises(MediumError) as failed:
        unit.execute(Read10(0, 8, block_size=512))
    assert failed.value.sense.information == 5


def test_a_failure_with_empty_sense_is_retried_a_limited_number_of_times(
    bus: InterceptedBus, unit: LogicalUnit, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit.test_unit_ready()
    bus.wire.log.clear()
    fail_with_sense(bus, unit, monkeypatch, bytes(18))
    assert len(unit.execute(Read10(0, 1, block_size=512))) == 512
    assert cbws(bus) == ["28", "03", "28"]
    fail_with_sense(bus, unit, monkeypatch, *[bytes(18)] * 4)
    with pytest.raises(CheckCondition, match="the device gave no reason"):
        unit.execute(Read10(0, 1, block_size=512))
    assert cbws(bus) == ["28", "03", "28"] + ["28", "03"] * 4


def test_a_failed_write_is_not_retried_if_the_device_cannot_be_confirmed(
    bus: InterceptedBus, unit: LogicalUnit, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit.test_unit_ready()
    bus.wire.log.clear()
    fail_with_sense(bus, unit, monkeypatch, bytes(18))
    with pytest.raises(CheckCondition, match="the device gave no reason"):
        unit.execute(Write10(0, 1, block_size=512, data=bytes(512)))
    assert cbws(bus) == ["2a", "03"]


@pytest.mark.parametrize(("last", "block_size"), [(7, 3), (7, 0x10004), (7, 0xFFFFFFFC)])
def test_an_impossible_block_size_is_malformed(
    bus: InterceptedBus, unit: LogicalUnit, monkeypatch: pytest.MonkeyPatch, last: int, block_size: int
) -> None:
    exchange = unit.transport.exchange

    def wrong_capacity(
        lun: int, cdb: bytes, direction: Direction, buffer: memoryview, timeout: float
    ) -> Story[Completion]:
        true = yield from exchange(lun, cdb, direction, buffer, timeout)
        if cdb[0] == 0x25:
            buffer[:] = last.to_bytes(4, "big") + block_size.to_bytes(4, "big")
        return true

    monkeypatch.setattr(unit.transport, "exchange", wrong_capacity)
    with pytest.raises(MalformedReply, match=f"the block size is {block_size}"):
        unit.read_capacity()


@dataclass(frozen=True)
class VendorEcho(Command[bytes]):
    """A command that a user declares."""

    NAME = "ECHO"
    CDB = BitStruct(opcode(0x12), Padding(24), "size" / U8, Padding(8))
    direction = Direction.IN
    size: int = 8

    @property
    def length(self) -> int:
        return self.size

    def reply(self, data: bytes) -> bytes:
        return data


def test_a_command_declared_by_a_user_is_executed(unit: LogicalUnit) -> None:
    assert unit.execute(VendorEcho(8))[2] == 6
    assert len(unit.execute(VendorEcho(36))) == 36


def test_a_payload_of_another_length_than_declared_is_refused(bus: InterceptedBus, unit: LogicalUnit) -> None:
    bus.wire.log.clear()
    with pytest.raises(ValueError, match="5 bytes of data for a command of 512"):
        unit.execute(Write10(0, 1, block_size=512, data=b"short"))
    assert bus.wire.log == []


def test_a_timeout_given_by_the_user_replaces_the_declared_one(monkeypatch: pytest.MonkeyPatch) -> None:
    bus = InterceptedBus(stick())
    transport = client_on(bus)
    seen: list[float] = []
    exchange = transport.exchange

    def note(lun: int, cdb: bytes, direction: Direction, buffer: memoryview, timeout: float) -> Story[Completion]:
        seen.append(timeout)
        return (yield from exchange(lun, cdb, direction, buffer, timeout))

    monkeypatch.setattr(transport, "exchange", note)
    LogicalUnit(transport).inquiry()
    LogicalUnit(transport, timeout=3).inquiry()
    LogicalUnit(transport).execute(StartStopUnit(start=True), retry=QUICK)
    assert seen[:2] == [30, 3]
    assert seen[-1] == 120
    transport.close()
    bus.close()


def test_no_other_thread_sends_a_command_between_a_failure_and_its_request_sense(
    bus: InterceptedBus, unit: LogicalUnit
) -> None:
    unit.test_unit_ready()
    empty = LogicalUnit(unit.transport, 1)
    with pytest.raises(NoMedium):
        empty.test_unit_ready()
    bus.wire.log.clear()

    def fail() -> None:
        for _ in range(50):
            with pytest.raises(NoMedium):
                empty.test_unit_ready()

    def succeed() -> None:
        for _ in range(100):
            unit.inquiry()

    threads = [threading.Thread(target=target) for target in (fail, succeed, fail, succeed)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sent = cbws(bus)
    assert sent.count("03") == 100
    assert all(after == "03" for before, after in pairwise(sent) if before == "00")


NOT_SUPPORTED = bytes.fromhex("70 00 05 00000000 0a 00000000 25 00 00 000000")


def answer_with_false_sense(
    unit: LogicalUnit, monkeypatch: pytest.MonkeyPatch, event: bytes | None, device_type: int
) -> None:
    """Imitate QEMU's usb-bot, where each REQUEST SENSE reports LOGICAL UNIT NOT SUPPORTED."""
    exchange = unit.transport.exchange

    def ended(lun: int, cdb: bytes, direction: Direction, buffer: memoryview, timeout: float) -> Story[Completion]:
        if cdb[0] == 0x03:
            buffer[:] = NOT_SUPPORTED
            return Completion(0, 0, len(buffer))
        if cdb[0] == 0x4A and event is not None:
            buffer[:] = event
            return Completion(0, 0, len(buffer))
        true = yield from exchange(lun, cdb, direction, buffer, timeout)
        if cdb[0] == 0x12:
            buffer[0] = device_type
        return true

    monkeypatch.setattr(unit.transport, "exchange", ended)


NO_DISC, DISC = bytes.fromhex("0006045e00000000"), bytes.fromhex("0006045e00020000")


@pytest.mark.parametrize(
    ("event", "device_type", "error"),
    [(NO_DISC, 5, NoMedium), (DISC, 5, IllegalRequest), (NO_DISC, 0, IllegalRequest), (None, 5, IllegalRequest)],
    ids=["empty drive", "disc", "disk", "no such command"],
)
def test_an_empty_drive_with_false_sense_is_recognized_by_its_media_event(
    unit: LogicalUnit,
    monkeypatch: pytest.MonkeyPatch,
    event: bytes | None,
    device_type: int,
    error: type[CheckCondition],
) -> None:
    empty = LogicalUnit(unit.transport, 1)
    answer_with_false_sense(empty, monkeypatch, event, device_type)
    with pytest.raises(error):
        empty.test_unit_ready()


def test_a_unit_attention_with_false_sense_is_still_cleared(unit: LogicalUnit, monkeypatch: pytest.MonkeyPatch) -> None:
    answer_with_false_sense(unit, monkeypatch, None, 0)
    unit.test_unit_ready()


@pytest.mark.parametrize("code", ["71", "73"])
def test_a_command_that_was_not_started_because_of_a_deferred_recovered_error_is_retried(
    bus: InterceptedBus, unit: LogicalUnit, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    unit.test_unit_ready()
    bus.wire.log.clear()
    fixed, descriptor = "71 00 01 00000000 0a 00000000 17 01 00 000000", "73 01 17 01 00000000"
    fail_with_sense(bus, unit, monkeypatch, bytes.fromhex(fixed if code == "71" else descriptor))
    unit.execute(Write10(0, 1, block_size=512, data=bytes(512)))
    assert cbws(bus) == ["2a", "03", "2a"]


def test_a_deferred_error_is_reported_as_one_of_an_earlier_command(
    bus: InterceptedBus, unit: LogicalUnit, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit.test_unit_ready()
    fail_with_sense(bus, unit, monkeypatch, bytes.fromhex("71 00 03 00000000 0a 00000000 0c 00 00 000000"))
    with pytest.raises(MediumError, match="was not started because an earlier command failed"):
        unit.execute(Write10(0, 1, block_size=512, data=bytes(512)))


def test_a_true_residue_with_padded_inquiry_data_is_not_learned_as_bogus(
    unit: LogicalUnit, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = unit.transport.exchange

    def short(lun: int, cdb: bytes, direction: Direction, buffer: memoryview, timeout: float) -> Story[Completion]:
        true = yield from exchange(lun, cdb, direction, buffer, timeout)
        if cdb[0] == 0x12:
            buffer[4] = 0
            return Completion(0, 31, 36)
        return true

    monkeypatch.setattr(unit.transport, "exchange", short)
    assert unit.inquiry().vendor == ""
    assert not unit.transport.ignore_residue


def test_a_timeout_given_by_the_user_bounds_the_wait_for_a_unit_too(bus: InterceptedBus, unit: LogicalUnit) -> None:
    device(bus).becoming_ready = 10**6
    bounded = LogicalUnit(unit.transport, timeout=0.05)
    bounded.retry = RetryPolicy(becoming_ready=10**6)
    with pytest.raises(NotReady):
        bounded.test_unit_ready()


def test_a_long_vpd_page_is_requested_again_with_its_whole_length(
    unit: LogicalUnit, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = bytes.fromhex("00800140") + b"S" * 0x140
    exchange = unit.transport.exchange

    def long(lun: int, cdb: bytes, direction: Direction, buffer: memoryview, timeout: float) -> Story[Completion]:
        if cdb[:3] != bytes.fromhex("120180"):
            return (yield from exchange(lun, cdb, direction, buffer, timeout))
        data = whole[: len(buffer)]
        buffer[: len(data)] = data
        return Completion(0, len(buffer) - len(data), len(data))

    monkeypatch.setattr(unit.transport, "exchange", long)
    assert unit.vpd(0x80) == UnitSerialNumber("S" * 0x140)
