"""A call, a stream, a read of many disks are bound to the medium they began with, whatever hides a change of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

import scsiusb
from scsiusb import AsyncDisk, DeviceTimeout, MediumChanged, MediumError, ScsiUsbError, UnitAttention, read_many
from scsiusb.disk import witness
from scsiusb.disk.medium import Medium
from scsiusb.scsi.commands import spc
from scsiusb.scsi.retry import NO_RETRY
from scsiusb.scsi.sense import Sense, error_for
from scsiusb.scsi.unit import LogicalUnit
from scsiusb.transport.base import Story
from scsiusb.virtual import Bus, Memory, Stick, Unit
from scsiusb.virtual.target.sense import Sense as TargetSense
from tests.disk.polling import PolledBus
from tests.sticks import InterceptedBus, hangs_at

BLOCKS = 4096
ONE_FAULT = (
    "tag",
    "signature",
    "status=255",
    "phase-error",
    "empty@csw",
    "stall@csw",
    "extra@csw",
    "stall@cbw",
    "csw-as-data",
    "case=8",
    "case=7",
    "case=4",
    "case=2",
    "case=10",
    "case=13",
    "residue=512",
    "short@data",
    "stall@data",
    "empty@data",
    "long@data",
    "short@csw",
    "nak@csw",
)
SOME_FAULTS = [
    pytest.param(fault, marks=[] if fault in ("phase-error", "stall@csw", "case=8", "nak@csw") else pytest.mark.slow)
    for fault in ONE_FAULT
]


def card(letter: bytes) -> Memory:
    """Return a medium whose every block holds its number and the card's letter."""
    return Memory(bytearray(b"".join(number.to_bytes(4, "big") + letter * 508 for number in range(BLOCKS))))


class Cached(Memory):
    """A medium with a volatile write cache: what was not flushed is lost by `lose`."""

    def __init__(self, data: bytearray) -> None:
        super().__init__(data)
        self._stable = bytearray(self.data)

    def flush(self) -> None:
        super().flush()
        self._stable[:] = self.data

    def lose(self) -> None:
        self.data[:] = self._stable


@pytest.fixture
def unit() -> Unit:
    return Unit(card(b"A"))


@pytest.fixture
def stick(unit: Unit) -> Stick:
    return Stick([unit])


@pytest.fixture
def disk(stick: Stick) -> Iterator[scsiusb.Disk]:
    with scsiusb.open_on(Bus(stick), timeout=0.3) as disk:
        disk.max_blocks = 64
        yield disk
        disk._unflushed.take()


def attempt(action: Callable[[], object]) -> object:
    try:
        return action()
    except ScsiUsbError as error:
        return error


# --- what is told once is never lost --------------------------------------------------------------


@pytest.mark.parametrize("fault", ONE_FAULT)
def test_a_read_never_gives_another_mediums_blocks(stick: Stick, unit: Unit, disk: scsiusb.Disk, fault: str) -> None:
    disk.read(0, 1)
    unit.insert(card(b"B"))
    stick.faults.add(fault)
    error = attempt(lambda: disk.read(8, 8))
    assert isinstance(error, ScsiUsbError)
    stick.faults.clear()
    if not isinstance(error, MediumChanged):  # of a failed exchange; the next call is told what it may have hidden
        with pytest.raises(MediumChanged):
            disk.read(8, 8)
    assert disk.read(8, 1)[4:] == b"B" * 508, "a new call means the medium that is there now"


@pytest.mark.parametrize("fault", SOME_FAULTS)
def test_a_write_never_goes_onto_another_medium(stick: Stick, unit: Unit, disk: scsiusb.Disk, fault: str) -> None:
    other = card(b"B")
    disk.read(0, 1)
    unit.insert(other)
    stick.faults.add(fault)
    assert isinstance(attempt(lambda: disk.write(8, b"x" * 4096)), ScsiUsbError)
    assert b"xxxx" not in other.data


@pytest.mark.parametrize("fault", SOME_FAULTS)
def test_a_flush_never_succeeds_if_the_cache_was_lost(fault: str) -> None:
    medium = Cached(card(b"A").data)
    unit = Unit(medium)
    stick = Stick([unit])
    with scsiusb.open_on(Bus(stick), timeout=0.3) as disk:
        disk.write(0, b"w" * 512)
        unit.power_on()
        medium.lose()
        stick.faults.add(fault)
        assert isinstance(attempt(disk.flush), ScsiUsbError)
        disk._unflushed.take()


def test_a_cancelled_call_does_not_hide_a_change(unit: Unit, stick: Stick) -> None:
    """It needs no bad device: the status of the cancelled command would have told of the change."""
    bus = InterceptedBus(stick)

    async def run() -> None:
        async with AsyncDisk(lambda: scsiusb.open_on(bus)) as disk:
            await disk.read(0, 1)
            unit.insert(card(b"B"))
            reached = threading.Event()
            bus.wire.intercept = hangs_at(0x28, reached)
            reading = asyncio.create_task(disk.read(8, 8))
            await asyncio.to_thread(reached.wait)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            bus.wire.intercept = None
            with pytest.raises(MediumChanged):
                await disk.read(8, 8)

    asyncio.run(run())


def test_a_timeout_leaves_the_same_medium_usable(stick: Stick, disk: scsiusb.Disk) -> None:
    disk.read(0, 1)
    stick.faults.add("nak@csw,opcode=28")
    with pytest.raises(DeviceTimeout):
        disk.read(8, 8)
    assert disk.read(8, 1)[4:] == b"A" * 508


@pytest.mark.parametrize("fault", ["hang,lba=0,times=always", "phase-error,lba=0,times=always"])
def test_a_first_block_that_ends_the_exchange_does_not_hide_the_others(
    stick: Stick, disk: scsiusb.Disk, fault: str
) -> None:
    """Another block is looked for, by which the medium is known after the recovery."""
    stick.faults.add(fault)
    assert disk.read(8, 1)[4:] == b"A" * 508


def test_a_medium_error_of_the_first_block_leaves_others_to_know_the_medium_by(
    stick: Stick, disk: scsiusb.Disk
) -> None:
    stick.faults.add("sense=3/11/00,lba=0,times=always")
    disk.check_range(0, 1)
    stick.faults.add("tag,lba=8")
    assert disk.read(8, 1)[4:] == b"A" * 508


@pytest.mark.parametrize("call", ["read", "write"])
def test_a_device_that_answers_no_first_read_is_a_timeout_and_not_another_medium(
    stick: Stick, disk: scsiusb.Disk, call: str
) -> None:
    stick.faults.add("nak@csw,opcode=28,times=always")
    with pytest.raises(DeviceTimeout) as caught:
        disk.read(8, 1) if call == "read" else disk.write(8, bytes(512))
    assert caught.value.lba == 8
    stick.faults.clear()
    assert disk.read(8, 1)[4:] == b"A" * 508


def test_nothing_is_written_after_a_first_read_that_was_not_answered(
    stick: Stick, unit: Unit, disk: scsiusb.Disk
) -> None:
    """The medium may have been exchanged meanwhile, and the reset that ends the wait would hide that."""
    stick.faults.add("hang,lba=0")
    with pytest.raises(DeviceTimeout):
        disk.write(8, b"x" * 512)
    assert isinstance(unit.medium, Memory)
    assert b"xxxx" not in unit.medium.data


def test_a_blank_removable_medium_is_not_recognized(stick: Stick) -> None:
    """Nothing distinguishes it from another blank one, so a command after a lost exchange is not sent to it."""
    blank = Stick([Unit(Memory(512 * BLOCKS))])
    with scsiusb.open_on(Bus(blank), timeout=0.3) as disk:
        disk.read(0, 1)
        blank.faults.add("tag,opcode=28")
        with pytest.raises(MediumChanged, match="not recognized"):
            disk.read(8, 8)
        assert disk.read(8, 8) == bytes(4096), "the next call looks for the medium anew"


def test_a_blank_fixed_disk_is_read_on(stick: Stick) -> None:
    blank = Stick([Unit(Memory(512 * BLOCKS), removable=False)])
    with scsiusb.open_on(Bus(blank), timeout=0.3) as disk:
        disk.read(0, 1)
        blank.faults.add("tag,opcode=28")
        assert disk.read(8, 8) == bytes(4096)


def test_a_block_that_was_written_over_recognizes_the_medium_before_and_after_the_loss_of_a_cache() -> None:
    medium = Cached(card(b"A").data)
    unit = Unit(medium)
    stick = Stick([unit])
    with scsiusb.open_on(Bus(stick), timeout=0.3) as disk:
        disk.read(0, 1)
        for lost in (False, True):
            disk.write(0, b"new" + bytes(509))
            if lost:
                medium.lose()
            unit.power_on()
            assert disk.read(9, 1)[4:] == b"A" * 508
        disk._unflushed.take()


# --- streams --------------------------------------------------------------------------------------


def change(disk: scsiusb.Disk, unit: Unit) -> Memory:
    """Exchange the medium; another use of the same disk goes on with the new one.

    It hears of the exchange, unless the stream reads or writes ahead just now, and hears of it first.
    """
    other = card(b"B")
    unit.insert(other)
    attempt(lambda: disk.unit.test_unit_ready(retry=scsiusb.RetryPolicy(unit_attentions=0)))
    attempt(lambda: disk.read(0, 1))
    return other


def test_a_stream_does_not_go_on_over_another_medium(unit: Unit, disk: scsiusb.Disk) -> None:
    seen = bytearray()
    with pytest.raises(MediumChanged), disk.reading(0, BLOCKS) as pieces:
        for number, piece in enumerate(pieces):
            seen += piece
            if number == 2:
                change(disk, unit)
    assert b"BBBB" not in seen


def test_a_stream_of_writes_does_not_go_on_over_another_medium(unit: Unit, disk: scsiusb.Disk) -> None:
    other = None
    with pytest.raises(MediumChanged), disk.writing(0) as out:
        for number in range(BLOCKS // 64):
            out.write(b"N" * 512 * 64)
            if number == 20:
                other = change(disk, unit)
    assert other is not None
    assert b"NNNN" not in other.data


@pytest.mark.parametrize("kind", [PolledBus, InterceptedBus])
def test_a_read_of_many_disks_does_not_go_on_over_another_medium(
    stick: Stick, unit: Unit, kind: type[InterceptedBus]
) -> None:
    bus = kind(stick)
    with scsiusb.open_on(bus) as disk:
        disk.max_blocks = 64
        seen, error = bytearray(), None
        with read_many(disk.reading(0, BLOCKS)) as chunks:
            for number, chunk in enumerate(chunks):
                seen += chunk.piece
                error = chunk.error
                if number == 5:
                    unit.insert(card(b"B"))
                    stick.faults.add("tag")
        assert isinstance(error, MediumChanged)
        assert b"BBBB" not in seen
    bus.close()


# --- the words for a change -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asc", "ascq"),
    [(0x28, 0), (0x28, 1), (0x2A, 1), (0x2A, 9), (0x30, 0), (0x3A, 0), (0x3F, 3), (0x3F, 0x0E), (0x5A, 1), (0x81, 2)],
)
def test_each_word_for_a_change_counts(unit: Unit, disk: scsiusb.Disk, asc: int, ascq: int) -> None:
    with disk.reading(0, BLOCKS) as pieces:
        next(pieces)
        unit._attentions.append(TargetSense(6, asc, ascq))
        with pytest.raises((UnitAttention, scsiusb.NotReady)):
            for _ in pieces:
                pass


@pytest.mark.parametrize(("asc", "ascq"), [(0x29, 0), (0x2A, 2), (0x2F, 0), (0x3F, 1), (0x5D, 0), (0x5E, 3), (0x5A, 2)])
def test_a_harmless_attention_does_not_end_a_stream(unit: Unit, disk: scsiusb.Disk, asc: int, ascq: int) -> None:
    with disk.reading(0, BLOCKS) as pieces:
        next(pieces)
        unit._attentions.append(TargetSense(6, asc, ascq))
        assert sum(len(piece) for piece in pieces) // 512 + 64 == BLOCKS


def test_a_change_of_the_capacity_is_seen_by_new_calls(unit: Unit, disk: scsiusb.Disk) -> None:
    assert disk.blocks == BLOCKS
    unit.medium = Memory(512 * 100)
    unit._attentions.append(TargetSense(6, 0x2A, 9))
    attempt(lambda: disk.read(0, 1))
    assert disk.blocks == 100


def test_the_sense_says_so_too() -> None:
    assert Sense(6, 0x2A, 9).is_medium_changed
    assert not Sense(6, 0x29, 0).is_medium_changed
    assert Sense(6, 0x3A, 0).is_no_medium
    assert not Sense(5, 0x2A, 9).is_medium_changed


@pytest.mark.parametrize(
    ("asc", "ascq"), [(0x2A, 0x12), (0x38, 4), (0x3F, 0x0A), (0x3F, 0x0D), (0x3F, 0x10), (0x3F, 0x11), (0x3F, 5)]
)
def test_a_word_for_what_addresses_mean_is_one_for_a_change(asc: int, ascq: int) -> None:
    """A new encryption key, a media event, a volume set, a medium that can be loaded, another device identifier."""
    assert Sense(6, asc, ascq).is_medium_changed


@pytest.mark.parametrize(
    ("asc", "ascq"), [(0x2A, 0x10), (0x2A, 0x14), (0x38, 2), (0x38, 7), (0x3F, 6), (0x3F, 0x0F), (0x3F, 0x13)]
)
def test_a_word_for_something_else_is_none_for_a_change(asc: int, ascq: int) -> None:
    assert not Sense(6, asc, ascq).is_medium_changed


# --- several users of one unit --------------------------------------------------------------------


def lose_an_exchange(stick: Stick, disk: scsiusb.Disk) -> None:
    """Lose the status of a command that is not repeated, and with it what the unit reports only once."""
    stick.faults.add("nak@csw")
    with pytest.raises(DeviceTimeout):
        disk.execute(spc.TestUnitReady(), retry=NO_RETRY)
    stick.faults.clear()


@pytest.mark.slow
@pytest.mark.parametrize("first", ["blocks", "read"])
def test_a_user_who_comes_later_does_not_settle_what_an_earlier_one_must_check(
    unit: Unit, stick: Stick, first: str
) -> None:
    bus, other = Bus(stick), card(b"B")
    with scsiusb.open_on(bus, timeout=0.3) as disk:
        disk.read(0, 1)
        unit.insert(other)
        lose_an_exchange(stick, disk)
        with scsiusb.open_on(bus, timeout=0.3) as later:
            attempt((lambda: later.blocks) if first == "blocks" else (lambda: later.read(0, 1)))
            with pytest.raises(MediumChanged):
                disk.write(8, b"x" * 512)
    assert b"xxxx" not in other.data


def test_a_user_who_comes_later_disturbs_nobody_if_the_medium_is_the_same(stick: Stick) -> None:
    bus = Bus(stick)
    with scsiusb.open_on(bus, timeout=0.3) as disk:
        disk.read(0, 1)
        lose_an_exchange(stick, disk)
        with scsiusb.open_on(bus, timeout=0.3) as later:
            assert later.blocks == BLOCKS
        assert disk.read(8, 1)[4:] == b"A" * 508


def test_the_block_of_another_medium_is_not_taken_for_the_first_ones(unit: Unit, stick: Stick) -> None:
    """The first user wiped the block by which the medium was known."""
    bus, other = Bus(stick), card(b"B")
    with scsiusb.open_on(bus, timeout=0.3) as disk, scsiusb.open_on(bus, timeout=0.3) as later:
        disk.read(0, 1)
        assert later.blocks == BLOCKS
        disk.write(0, bytes(512))
        unit.insert(other)
        lose_an_exchange(stick, disk)
        with pytest.raises(MediumChanged):
            later.read(5, 1)
        with pytest.raises(MediumChanged):
            disk.write(8, b"x" * 512)
        disk._unflushed.take()
    assert b"xxxx" not in other.data


def test_a_write_over_the_known_block_is_repeated_like_any_other(stick: Stick, unit: Unit, disk: scsiusb.Disk) -> None:
    disk.read(0, 1)
    stick.faults.add("tag,opcode=2a")
    assert disk.write(0, b"new!" * 128) == 1
    assert isinstance(unit.medium, Memory)
    assert bytes(unit.medium.data[:512]) == b"new!" * 128


def test_a_stream_does_not_look_for_the_bad_block_of_an_earlier_command(
    disk: scsiusb.Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[int] = []

    def refuse(self: scsiusb.Disk, medium: Medium, lba: int, view: memoryview) -> int:
        commands.append(lba)
        raise error_for(Sense(3, 0x0C, 0, deferred=True), "READ(10)")

    monkeypatch.setattr(scsiusb.Disk, "read_ahead", refuse)
    with disk.reading(0, 128) as reading, pytest.raises(MediumError) as caught:
        next(reading)
    assert caught.value.sense.deferred
    assert commands == [0]


# --- a unit that never comes to rest --------------------------------------------------------------


def test_a_unit_reset_at_each_look_at_its_capacity_is_given_up(
    unit: Unit, disk: scsiusb.Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = LogicalUnit.read_capacity

    def read_capacity(self: LogicalUnit) -> object:
        unit.power_on()
        return original(self)

    monkeypatch.setattr(LogicalUnit, "read_capacity", read_capacity)
    with pytest.raises(MediumChanged, match="again and again"):
        _ = disk.blocks


def test_a_unit_reset_at_each_look_at_the_known_block_is_given_up(
    unit: Unit, disk: scsiusb.Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.read(0, 1)
    original = witness.is_witness_there

    def look(logical_unit: LogicalUnit, medium: Medium) -> Story[bool]:
        unit.power_on()
        return original(logical_unit, medium)

    monkeypatch.setattr(witness, "is_witness_there", look)
    unit.power_on()
    with pytest.raises(ScsiUsbError):
        disk.read(1, 1)


WAYS_TO_READ: dict[str, Callable[[scsiusb.Disk], object]] = {
    "read": lambda disk: disk.read(1, 1),
    "readinto a bytearray": lambda disk: disk.readinto(1, bytearray(512)),
    "readinto a memoryview": lambda disk: disk.readinto(1, memoryview(bytearray(512))),
    "readinto items of four bytes": lambda disk: disk.readinto(1, memoryview(bytearray(512)).cast("I")),
    "write": lambda disk: disk.write(1, bytes(512)),
    "write of a memoryview": lambda disk: disk.write(1, memoryview(bytes(512))),
}


@pytest.mark.parametrize("way", WAYS_TO_READ)
def test_a_change_is_raised_once_by_each_way_to_read_and_write(way: str, unit: Unit, disk: scsiusb.Disk) -> None:
    """Found by reading: after one of the ways, every later call raised MediumChanged again."""
    disk.read(0, 1)
    unit.insert(card(b"B"))
    with pytest.raises(MediumChanged):
        WAYS_TO_READ[way](disk)
    WAYS_TO_READ[way](disk)
