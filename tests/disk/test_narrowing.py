"""Errors of some of a command's blocks: smaller commands move all that can be moved, and the error names the block."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

import scsiusb
from scsiusb import (
    BlankCheck,
    Cancelled,
    CheckCondition,
    DataProtect,
    Disk,
    HardwareError,
    IllegalRequest,
    LbaOutOfRange,
    MediumChanged,
    MediumError,
    NoMedium,
    NotReady,
    RetryPolicy,
    ScsiUsbError,
    UnitAttention,
    UnsupportedOpcode,
    read_many,
)
from scsiusb.disk.aio import AsyncDisk
from scsiusb.disk.narrowing import Narrowing, narrow
from scsiusb.opening import open_on
from scsiusb.scsi import sense as host
from scsiusb.transport.base import Direction, Story
from scsiusb.virtual import Memory, Stick
from scsiusb.virtual.target.sense import Sense
from scsiusb.virtual.target.task import Parameters, Task
from tests.disk.polling import PolledBus
from tests.sticks import InterceptedBus, OddUnit, stick

BLOCKS, SIZE = 2048, 512
MOST = 512  # blocks per command
BAD = 1000
REQUEST_SENSE, READ_10, WRITE_10 = 0x03, 0x28, 0x2A
KEYS: dict[tuple[int, ...], type[CheckCondition]] = {
    (0x3, 0x11): MediumError,
    (0x4, 0x44): HardwareError,
    (0xB, 0x4B): scsiusb.AbortedCommand,
    (0x5, 0x21): LbaOutOfRange,
    (0x5, 0x64): IllegalRequest,
    (0x5, 0x6F, 0x03): IllegalRequest,
    (0x7, 0x27): DataProtect,
    (0x8,): BlankCheck,
    (0x9, 0x80): CheckCondition,
    (0x0,): CheckCondition,
}
TOO_LARGE = [(0x3, 0x11), (0x4, 0x44), (0x5, 0x24), (0x0,)]

memory = stick(BLOCKS).units[0].medium
assert isinstance(memory, Memory)
CONTENT = bytes(memory.data)

Answer = Callable[[bytes], "Task | None"]


def extent(cdb: bytes) -> tuple[int, int]:
    return int.from_bytes(cdb[2:6], "big"), int.from_bytes(cdb[7:9], "big")


def touches(cdb: bytes, lba: int, opcode: int = READ_10) -> bool:
    return cdb[0] == opcode and extent(cdb)[0] <= lba < sum(extent(cdb))


@contextmanager
def opened(
    unit: OddUnit, kind: type[InterceptedBus] = InterceptedBus, retry: RetryPolicy | None = None
) -> Iterator[Disk]:
    bus = kind(Stick([unit]))
    with open_on(bus) as disk:
        disk.max_blocks = MOST
        disk.unit.retry = retry or disk.unit.retry
        yield disk
    bus.close()


def odd(answer: Answer = lambda _: None, **attributes: object) -> OddUnit:
    unit = OddUnit(Memory(bytearray(CONTENT)), **attributes)
    unit.answer = answer
    return unit


def bad(unit: OddUnit, lba: int, *codes: int, opcode: int = READ_10) -> None:
    """Let each command that touches the block fail."""
    unit.answer = lambda cdb: unit.fail(*codes) if touches(cdb, lba, opcode) else None


def moved(unit: OddUnit, opcode: int = READ_10) -> list[tuple[int, int]]:
    """Return the extents of the commands, without those by which the medium is known again."""
    extents = [extent(cdb) for cdb in unit.cdbs if cdb[0] == opcode]
    return [each for each in extents if each not in {(0, 1), (63, 1)}]


# --- ways to read ---------------------------------------------------------------------------------

Way = Callable[[OddUnit, int, int], tuple["bytes | None", "ScsiUsbError | None"]]


def by_read(unit: OddUnit, lba: int, blocks: int) -> tuple[bytes | None, ScsiUsbError | None]:
    with opened(unit) as disk:
        try:
            return disk.read(lba, blocks), None
        except ScsiUsbError as error:
            return None, error


def good_bytes(lba: int, blocks: int, error: ScsiUsbError | None) -> int:
    """Return the number of bytes before the error."""
    if error is None:
        return blocks * SIZE
    assert error.lba is not None
    return (error.lba - lba) * SIZE


def by_readinto(unit: OddUnit, lba: int, blocks: int) -> tuple[bytes | None, ScsiUsbError | None]:
    data = bytearray(b"\xb6" * (blocks * SIZE))
    error = None
    with opened(unit) as disk:
        try:
            disk.readinto(lba, data)
        except ScsiUsbError as failure:
            error = failure
    good = good_bytes(lba, blocks, error)
    assert data[good:] == b"\xb6" * (len(data) - good)
    return bytes(data[:good]), error


def by_device_memory(unit: OddUnit, lba: int, blocks: int) -> tuple[bytes | None, ScsiUsbError | None]:
    error = None
    with opened(unit) as disk, disk.buffer(blocks * SIZE) as data:
        try:
            disk.readinto(lba, data)
        except ScsiUsbError as failure:
            error = failure
        return bytes(data[: good_bytes(lba, blocks, error)]), error


def by_stream(unit: OddUnit, lba: int, blocks: int) -> tuple[bytes | None, ScsiUsbError | None]:
    found, error = bytearray(), None
    with opened(unit) as disk, disk.reading(lba, blocks) as pieces:
        try:
            for piece in pieces:
                found += piece
        except ScsiUsbError as failure:
            error = failure
        assert pieces.lba == (lba + blocks if error is None else error.lba)
    return bytes(found), error


def by_many(kind: type[InterceptedBus]) -> Way:
    def way(unit: OddUnit, lba: int, blocks: int) -> tuple[bytes | None, ScsiUsbError | None]:
        found, sound, error = bytearray(), bytearray(), None
        with opened(unit, kind) as disk, opened(odd(), kind) as other:
            readings = disk.reading(lba, blocks), other.reading(lba, blocks)
            with read_many(*readings) as chunks:
                for chunk in chunks:
                    (found if chunk.reading is readings[0] else sound).extend(chunk.piece)
                    error = chunk.error or error
        assert sound == CONTENT[lba * SIZE : (lba + blocks) * SIZE]
        return bytes(found), error

    return way


def by_asyncio(unit: OddUnit, lba: int, blocks: int) -> tuple[bytes | None, ScsiUsbError | None]:
    async def main() -> bytes:
        async with AsyncDisk(lambda: open_on(InterceptedBus(Stick([unit])))) as disk:
            return await disk.read(lba, blocks)

    try:
        return asyncio.run(main()), None
    except ScsiUsbError as error:
        return None, error


WAYS = {
    "read": by_read,
    "readinto": by_readinto,
    "device memory": by_device_memory,
    "stream": by_stream,
    "many, polled": by_many(PolledBus),
    "many, a thread for each": by_many(InterceptedBus),
    "asyncio": by_asyncio,
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    return WAYS[request.param]


def assert_read_up_to(way: Way, unit: OddUnit, lba: int, bad: int, blocks: int = BLOCKS) -> ScsiUsbError:
    """Read from `lba` on; check that all before the bad block is delivered, and that the error names it."""
    found, error = way(unit, lba, blocks - lba)
    assert error is not None
    assert error.lba == bad
    assert found is None or found == CONTENT[lba * SIZE : bad * SIZE]
    return error


# --- bad blocks -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("is_removable", [True, False])
@pytest.mark.parametrize("codes", KEYS)
def test_a_bad_block_is_found_whatever_the_sense_key(way: Way, codes: tuple[int, ...], is_removable: bool) -> None:
    unit = odd(removable=is_removable)
    bad(unit, BAD, *codes)
    error = assert_read_up_to(way, unit, 0, BAD)
    assert type(error) is KEYS[codes]
    assert f": LBA {BAD} cannot be read" in str(error)
    assert (BAD, 1) in moved(unit)


def test_no_sense_is_no_change_of_a_blank_medium() -> None:
    """A removable medium of equal bytes has no block by which it would be known again."""
    unit = OddUnit(Memory(BLOCKS * SIZE))
    bad(unit, BAD, 0)
    with opened(unit) as disk, pytest.raises(CheckCondition) as caught:
        disk.read(0, BLOCKS)
    assert type(caught.value) is CheckCondition
    assert caught.value.lba == BAD


EDGES = [0, 1, MOST - 1, MOST, BLOCKS - 2, BLOCKS - 1]
SLOW_EDGES = [1, BLOCKS - 2]


@pytest.mark.parametrize("lba", [lba for lba in EDGES if lba not in SLOW_EDGES])
def test_a_bad_block_may_be_anywhere(way: Way, lba: int) -> None:
    unit = odd()
    bad(unit, lba, 0x3, 0x11)
    assert_read_up_to(way, unit, 0, lba)


def test_the_first_of_two_bad_blocks_is_named(way: Way) -> None:
    unit = odd()
    unit.answer = lambda cdb: (
        unit.fail(3, 0x11) if touches(cdb, 700) or touches(cdb, 701) or touches(cdb, 900) else None
    )
    assert_read_up_to(way, unit, 0, 700)
    assert_read_up_to(way, unit, 701, 701)
    assert_read_up_to(way, unit, 702, 900)


@pytest.mark.slow
@pytest.mark.parametrize(
    "named",
    [
        lambda lba, blocks: BAD,
        lambda lba, blocks: lba,
        lambda lba, blocks: lba + blocks - 1,
        lambda lba, blocks: lba + blocks // 2,
        lambda lba, blocks: lba + blocks,
        lambda lba, blocks: lba - 1 if lba else 0xFFFFFFFF,
        lambda lba, blocks: 0,
        lambda lba, blocks: BLOCKS,
        lambda lba, blocks: BAD - lba,
    ],
)
def test_a_wrong_block_in_the_sense_data_does_no_harm(way: Way, named: Callable[[int, int], int]) -> None:
    unit = odd()

    def answer(cdb: bytes) -> Task | None:
        if not touches(cdb, BAD):
            return None
        unit.keep_sense(Sense(0x3, 0x11, 0, named(*extent(cdb))))
        return Task(failed=True)

    unit.answer = answer
    assert_read_up_to(way, unit, 0, BAD)
    others = -(-BLOCKS // MOST) + 2 * 2  # the other commands, also those sent before the error was known
    assert len(moved(unit)) <= 2 * math.log2(MOST) + 4 + others


def test_a_block_that_the_device_names_is_tried_first() -> None:
    unit = odd()

    def answer(cdb: bytes) -> Task | None:
        if not touches(cdb, 300):
            return None
        unit.keep_sense(Sense(0x3, 0x11, 0, 300))
        return Task(failed=True)

    unit.answer = answer
    with opened(unit) as disk, pytest.raises(MediumError):
        disk.read(100, 400)
    assert moved(unit) == [(100, 400), (100, 200), (300, 1), (300, 1)]


# --- no bad block ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("codes", [(3, 0x11), (5, 0x21), (4, 0x44)])
@pytest.mark.parametrize("failing", [1, 2, 3, 5])
def test_an_error_that_goes_away_is_no_bad_block(way: Way, codes: tuple[int, int], failing: int) -> None:
    """The first commands of more than one block fail, however many."""
    unit = odd()
    left = [failing]

    def answer(cdb: bytes) -> Task | None:
        if cdb[0] != READ_10 or extent(cdb)[1] == 1 or not left[0]:
            return None
        left[0] -= 1
        return unit.fail(*codes)

    unit.answer = answer
    assert way(unit, 0, BLOCKS) == (CONTENT, None)


@pytest.mark.parametrize("blocks", [1, 300])
def test_a_block_that_failed_alone_is_tried_again(way: Way, blocks: int) -> None:
    unit = odd()
    left = [1]

    def answer(cdb: bytes) -> Task | None:
        if not touches(cdb, BAD) or (extent(cdb)[1] == 1 and not left[0]):
            return None
        left[0] -= extent(cdb)[1] == 1
        return unit.fail(3, 0x11)

    unit.answer = answer
    assert way(unit, BAD, blocks) == (CONTENT[BAD * SIZE : (BAD + blocks) * SIZE], None)


def test_a_block_is_not_tried_again_without_retries() -> None:
    unit = odd()
    bad(unit, BAD, 3, 0x11)
    with opened(unit, retry=RetryPolicy(failures=0)) as disk, pytest.raises(MediumError, match=f"LBA {BAD} cannot be"):
        disk.read(BAD, 1)
    assert moved(unit) == [(BAD, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("codes", TOO_LARGE)
@pytest.mark.parametrize("most", [1, 64, 100])
def test_a_device_that_fails_on_large_commands_is_read_by_smaller_ones(
    way: Way, codes: tuple[int, ...], most: int
) -> None:
    unit = odd()
    unit.answer = lambda cdb: unit.fail(*codes) if cdb[0] == READ_10 and extent(cdb)[1] > most else None
    assert way(unit, 300, 700) == (CONTENT[300 * SIZE : 1000 * SIZE], None)


# --- the last block -------------------------------------------------------------------------------


def fail_near_the_end(unit: OddUnit, first: int) -> None:
    """Let commands of several blocks fail if they touch the blocks from `first` on."""
    unit.answer = lambda cdb: (
        unit.fail(3, 0x11)
        if cdb[0] in (READ_10, WRITE_10) and extent(cdb)[1] > 1 and sum(extent(cdb)) > first
        else None
    )


@pytest.mark.slow
@pytest.mark.parametrize("last", [1, 2, 8])
@pytest.mark.parametrize("lba", [0, BLOCKS - 9, BLOCKS - 2, BLOCKS - 1])
def test_last_blocks_that_are_readable_only_alone_are_read(way: Way, lba: int, last: int) -> None:
    unit = odd()
    fail_near_the_end(unit, BLOCKS - last)
    assert way(unit, lba, BLOCKS - lba) == (CONTENT[lba * SIZE :], None)


def test_the_last_block_is_always_moved_alone(way: Way) -> None:
    unit = odd()
    assert way(unit, 0, BLOCKS) == (CONTENT, None)
    with opened(unit) as disk:
        disk.write(BLOCKS - 3, bytes(3 * SIZE))
        with disk.writing(BLOCKS - 2) as out:
            out.write(bytes(2 * SIZE))
    assert {blocks for lba, blocks in moved(unit) + moved(unit, WRITE_10) if lba + blocks == BLOCKS} == {1}
    assert moved(unit, WRITE_10) == [(BLOCKS - 3, 2), (BLOCKS - 1, 1), (BLOCKS - 2, 1), (BLOCKS - 1, 1)]


def whole_stream(disk: Disk, lba: int) -> bytes:
    with disk.reading(lba, BLOCKS - lba) as pieces:
        return b"".join(map(bytes, pieces))


def many(disk: Disk, lba: int) -> bytes:
    with read_many(disk.reading(lba, BLOCKS - lba)) as chunks:
        return b"".join(bytes(chunk.piece) for chunk in chunks)


@pytest.mark.parametrize("kind", [PolledBus, InterceptedBus])
@pytest.mark.parametrize("read", [lambda disk, lba: disk.read(lba, BLOCKS - lba), whole_stream, many])
@pytest.mark.parametrize("lba", [BLOCKS - 20, BLOCKS - 8, BLOCKS - 4, BLOCKS - 1])
def test_the_quirk_moves_each_of_the_last_eight_blocks_alone(
    kind: type[InterceptedBus], read: Callable[[Disk, int], bytes], lba: int
) -> None:
    unit = odd()
    with open_on(kind(Stick([unit])), quirks="L") as disk:
        assert read(disk, lba) == CONTENT[lba * SIZE :]
    assert [each for each in moved(unit) if sum(each) > BLOCKS - 8] == [
        (at, 1) for at in range(max(lba, BLOCKS - 8), BLOCKS)
    ]


def test_last_blocks_that_are_writable_only_alone_are_written() -> None:
    unit = odd()
    fail_near_the_end(unit, BLOCKS - 2)
    new = bytes([0xA5]) * (600 * SIZE)
    with opened(unit) as disk:
        disk.write(BLOCKS - 600, new)
        assert disk.read(BLOCKS - 601, 601) == CONTENT[-601 * SIZE : -600 * SIZE] + new


# --- errors that are not of blocks ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("codes", "kind"),
    [
        ((0x5, 0x20), UnsupportedOpcode),
        ((0x2, 0x04, 0x03), NotReady),
        ((0x2, 0x3A), NoMedium),
        ((0x6, 0x28), MediumChanged),
    ],
)
def test_an_error_of_the_unit_is_raised_at_once(way: Way, codes: tuple[int, ...], kind: type[CheckCondition]) -> None:
    unit = odd()
    unit.answer = lambda cdb: unit.fail(*codes) if touches(cdb, BAD) else None
    found, error = way(unit, BAD - 10, 20)
    assert type(error) is kind
    assert error.lba == BAD - 10
    assert not found
    assert moved(unit) == [(BAD - 10, 20)]


@pytest.mark.parametrize(
    ("codes", "kind"), [((0x2, 0x04, 0x03), NotReady), ((0x2, 0x3A), NoMedium), ((0x6, 0x28), MediumChanged)]
)
def test_an_error_of_the_unit_ends_the_search_for_a_bad_block(
    way: Way, codes: tuple[int, ...], kind: type[CheckCondition]
) -> None:
    unit = odd()

    def answer(cdb: bytes) -> Task | None:
        if touches(cdb, BAD):
            unit.answer = lambda cdb: unit.fail(*codes) if cdb[0] == READ_10 and extent(cdb)[0] > BAD - 100 else None
            return unit.fail(3, 0x11)
        return None

    unit.answer = answer
    error = assert_read_up_to(way, unit, BAD - 100, BAD, BAD + 100)
    assert type(error) is kind
    assert "cannot be read" not in str(error)
    assert moved(unit) == [(BAD - 100, 200), (BAD - 100, 100), (BAD, 50)]


def test_a_deferred_error_is_not_of_these_blocks(way: Way) -> None:
    unit = odd()
    deferred = bytes([0x71, 0, 3, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x0C, 0, 0, 0, 0, 0])

    def answer(cdb: bytes) -> Task | None:
        if touches(cdb, BAD):
            return Task(failed=True)
        has_failed = len(unit.cdbs) > 1 and touches(unit.cdbs[-2], BAD)
        return Parameters(deferred, cdb[4]) if cdb[0] == REQUEST_SENSE and has_failed else None

    unit.answer = answer
    found, error = way(unit, BAD - 10, 20)
    assert isinstance(error, MediumError)
    assert error.lba == BAD - 10
    assert not found
    assert moved(unit) == [(BAD - 10, 20)]


def test_a_failed_look_at_the_medium_is_no_bad_block(way: Way) -> None:
    """An error without a reason may have hidden a change; then the block by which the medium is known is read."""
    unit = odd()

    def answer(cdb: bytes) -> Task | None:
        if touches(cdb, BAD):
            unit.answer = lambda cdb: unit.fail(3, 0x11) if cdb[0] == READ_10 and extent(cdb)[0] < 64 else None
            return unit.fail(0)
        return None

    unit.answer = answer
    found, error = way(unit, BAD - 10, 20)
    assert isinstance(error, MediumError)
    assert error.lba == BAD - 10
    assert not found
    assert "cannot be read" not in str(error)
    assert moved(unit) == [(BAD - 10, 20)]


def test_the_search_for_a_bad_block_can_be_cancelled() -> None:
    unit = odd()
    with opened(unit) as disk:
        disk.read(1, 1)
        scope = disk.unit.transport.scope()

        def answer(cdb: bytes) -> Task | None:
            if not touches(cdb, BAD):
                return None
            if extent(cdb)[1] < 60:
                scope.cancel()
            return unit.fail(3, 0x11)

        unit.answer = answer
        with pytest.raises(Cancelled):
            scope.run(disk.read, BAD - 100, 200)
        assert len(moved(unit)) < 6
        unit.answer = lambda _: None
        assert disk.read(BAD, 1) == CONTENT[BAD * SIZE : (BAD + 1) * SIZE]


# --- writes ---------------------------------------------------------------------------------------


def medium(unit: OddUnit) -> bytes:
    assert isinstance(unit.medium, Memory)
    return bytes(unit.medium.data)


NEW = bytes([0xA5]) * (600 * SIZE)


@pytest.mark.parametrize("is_removable", [True, False])
@pytest.mark.parametrize("codes", [codes for codes in KEYS if codes[0] not in (0, 7)])
def test_the_blocks_before_one_that_cannot_be_written_are_written(codes: tuple[int, ...], is_removable: bool) -> None:
    unit = odd(removable=is_removable)
    bad(unit, BAD, *codes, opcode=WRITE_10)
    with opened(unit) as disk, pytest.raises(KEYS[codes], match=f"LBA {BAD} cannot be written") as caught:
        disk.write(900, NEW)
    assert caught.value.lba == BAD
    assert medium(unit) == CONTENT[: 900 * SIZE] + NEW[: 100 * SIZE] + CONTENT[BAD * SIZE :]


def test_after_a_write_that_failed_without_a_reason_the_flush_fails() -> None:
    """The device may have reported a reset, by which the blocks in its cache are lost."""
    unit = odd()
    bad(unit, BAD, 0, opcode=WRITE_10)
    with opened(unit) as disk:
        with pytest.raises(CheckCondition, match=f"LBA {BAD} cannot be written"):
            disk.write(900, NEW)
        with pytest.raises(UnitAttention, match="was reset before"):
            disk.flush()
    assert medium(unit) == CONTENT[: 900 * SIZE] + NEW[: 100 * SIZE] + CONTENT[BAD * SIZE :]


def test_a_stream_counts_the_blocks_before_one_that_cannot_be_written() -> None:
    unit = odd()
    bad(unit, BAD, 3, 0x0C, opcode=WRITE_10)
    with opened(unit) as disk, pytest.raises(MediumError) as caught, disk.writing(900) as out:
        out.write(NEW)
    assert caught.value.lba == out.lba == BAD
    assert medium(unit) == CONTENT[: 900 * SIZE] + NEW[: 100 * SIZE] + CONTENT[BAD * SIZE :]


@pytest.mark.parametrize("codes", [codes for codes in TOO_LARGE if codes[0]])
def test_a_device_that_fails_on_large_commands_is_written_by_smaller_ones(codes: tuple[int, ...]) -> None:
    unit = odd()
    unit.answer = lambda cdb: unit.fail(*codes) if cdb[0] == WRITE_10 and extent(cdb)[1] > 64 else None
    with opened(unit) as disk:
        assert disk.write(900, NEW) == 600
        with disk.writing(10) as out:
            out.write(NEW)
    assert medium(unit) == CONTENT[: 10 * SIZE] + NEW + CONTENT[610 * SIZE : 900 * SIZE] + NEW + CONTENT[1500 * SIZE :]


def test_blocks_that_were_written_before_an_error_must_be_flushed() -> None:
    unit = odd()
    bad(unit, BAD, 3, 0x0C, opcode=WRITE_10)
    with opened(unit) as disk:
        with pytest.raises(MediumError):
            disk.write(BAD - 10, NEW[: 20 * SIZE])
        unit.power_on()
        with pytest.raises(UnitAttention, match="was reset before"):
            disk.flush()


@pytest.mark.parametrize("codes", [(0x4, 0x44), (0xB, 0x4B)])
def test_a_failed_write_to_a_blank_medium_is_sent_again(codes: tuple[int, int]) -> None:
    """There is no block by which the medium is known, and nothing happened that may have hidden a change of it."""
    unit = OddUnit(Memory(BLOCKS * SIZE))
    left = [2]

    def answer(cdb: bytes) -> Task | None:
        if cdb[0] != WRITE_10 or not left[0]:
            return None
        left[0] -= 1
        return unit.fail(*codes)

    unit.answer = answer
    with opened(unit) as disk:
        assert disk.write(100, NEW) == 600
    assert medium(unit)[100 * SIZE : 700 * SIZE] == NEW


def test_nothing_is_written_to_another_medium_after_an_error() -> None:
    """The medium is exchanged while smaller commands are sent."""
    unit, other = odd(), Memory(bytearray(CONTENT))

    def answer(cdb: bytes) -> Task | None:
        if not touches(cdb, BAD, WRITE_10):
            return None
        if extent(cdb)[1] < 60:
            unit.answer = lambda _: None
            unit.eject()
            unit.insert(other)
        return unit.fail(3, 0x0C)

    unit.answer = answer
    with opened(unit) as disk:
        with pytest.raises(MediumChanged):
            disk.write(BAD - 100, NEW[: 200 * SIZE])
        with pytest.raises(UnitAttention, match="exchanged"):  # before the blocks in front of the error were flushed
            disk.flush()
    assert bytes(other.data) == CONTENT


def test_a_write_protected_medium_is_asked_once() -> None:
    unit = odd()
    bad(unit, BAD, 7, 0x27, opcode=WRITE_10)
    with opened(unit) as disk, pytest.raises(DataProtect) as caught:
        disk.write(900, NEW)
    assert caught.value.lba == 900
    assert moved(unit, WRITE_10) == [(900, MOST)]


# --- the search -----------------------------------------------------------------------------------


class Device:
    """Fails for bad blocks, for commands that are too large, and for some commands once."""

    def __init__(self, bad: set[int], most: int, transient: set[int]) -> None:
        self.bad, self.most, self.transient = bad, most, transient
        self.commands: list[tuple[int, int]] = []

    def send(self, first: int, count: int) -> Story[None]:
        yield from ()
        self.commands.append((first, count))
        fails = count > self.most or len(self.commands) in self.transient
        if fails or not self.bad.isdisjoint(range(first, first + count)):
            error = MediumError("failed", host.Sense(3, 0x11, 0))
            error.lba = first
            raise error


@given(
    blocks=st.integers(1, 300),
    hint=st.integers(-5, 305),
    bad=st.sets(st.integers(0, 299), max_size=3),
    most=st.sampled_from([1, 7, 64, 300]),
    transient=st.sets(st.integers(1, 30), max_size=4),
)
def test_the_search_ends_at_the_first_bad_block_and_is_bounded(
    blocks: int, hint: int, bad: set[int], most: int, transient: set[int]
) -> None:
    device = Device(bad, most, transient)
    narrowing = Narrowing(blocks, hint, may_repeat=True)
    first = min((lba for lba in bad if lba < blocks), default=blocks)
    failure = None
    try:
        list(narrow(narrowing, device.send, 0, Direction.IN))
    except MediumError as error:
        failure = error
    if failure is None:
        assert narrowing.good == first == blocks
    else:
        assert failure.lba == narrowing.good
        assert failure.lba == first or transient
        assert device.commands.count((narrowing.good, 1)) == 2 - (blocks == 1)
    halvings = math.ceil(math.log2(blocks)) if blocks > 1 else 0
    if most >= blocks and not transient:
        assert len(device.commands) <= halvings + 4
    elif not transient:
        assert len(device.commands) <= 2 * halvings + 4 + blocks / min(most, 2 ** int(math.log2(most)))
