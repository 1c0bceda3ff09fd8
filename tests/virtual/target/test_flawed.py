"""Media with less capacity than announced, with a cache, with regions that fail; and their text form."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

import scsiusb
from scsiusb.virtual import Bus, Cached, Fake, Flawed, Medium, Memory, Sparse, Stick, Unit
from scsiusb.virtual.address import open_stick
from scsiusb.virtual.target.media import BadBlock
from scsiusb.virtual.target.options import CacheOptions, FakeOptions, read_extents, read_size
from tests.virtual.host import Host, cdb10

SIZE = 512


def block(number: int) -> bytes:
    return number.to_bytes(4, "big") * (SIZE // 4)


def run(first: int, last: int) -> bytes:
    return b"".join(map(block, range(first, last + 1)))


def write(medium: Medium, first: int, last: int) -> None:
    medium.write(first * SIZE, memoryview(run(first, last)))


def read(medium: Medium, first: int, last: int) -> bytes:
    view = memoryview(bytearray((last - first + 1) * SIZE))
    medium.readinto(first * SIZE, view)
    return bytes(view)


# --- fake capacity --------------------------------------------------------------------------------


def test_limbo_drops_what_is_written_after_its_usable_blocks() -> None:
    inner = Memory(16 * SIZE)
    medium = Fake(inner, "limbo", 10, announced=100)
    write(medium, 8, 11)
    write(medium, 99, 99)
    assert medium.blocks == 100
    assert read(medium, 8, 11) == run(8, 9) + bytes(2 * SIZE)
    assert read(medium, 99, 99) == bytes(SIZE)
    assert inner.data == bytes(8 * SIZE) + run(8, 9) + bytes(6 * SIZE)


@pytest.mark.parametrize("usable", [7, 8])
def test_wraparound_begins_again_after_its_usable_blocks(usable: int) -> None:
    medium = Fake(Memory(8 * SIZE), "wraparound", usable, announced=100)
    write(medium, 3 * usable - 1, 3 * usable + 1)
    assert read(medium, usable - 1, usable - 1) == block(3 * usable - 1)
    assert read(medium, 0, 1) == run(3 * usable, 3 * usable + 1)
    assert read(medium, 2 * usable - 1, 2 * usable) == run(3 * usable - 1, 3 * usable)


@pytest.mark.parametrize(("given", "wrap"), [(None, 16), (12, 12)])
def test_a_chain_drops_until_it_begins_again(given: int | None, wrap: int) -> None:
    medium = Fake(Memory(16 * SIZE), "chain", 10, announced=1000, wrap=given)
    write(medium, wrap + 8, wrap + 10)
    assert read(medium, 8, 10) == run(wrap + 8, wrap + 9) + bytes(SIZE)
    assert read(medium, 20 * wrap + 9, 20 * wrap + 10) == block(wrap + 9) + bytes(SIZE)


@pytest.mark.parametrize(
    "make",
    [
        lambda inner: Fake(inner, "limp", 4),
        lambda inner: Fake(inner, "limbo", 0),
        lambda inner: Fake(inner, "limbo", 17),
        lambda inner: Fake(inner, "limbo", 9, announced=8),
        lambda inner: Fake(inner, "limbo", 4, wrap=8),
        lambda inner: Fake(inner, "chain", 4, wrap=3),
    ],
)
def test_a_fake_that_cannot_be_is_refused(make: Callable[[Medium], Medium]) -> None:
    with pytest.raises(ValueError):
        make(Memory(16 * SIZE))


def test_a_huge_fake_needs_the_memory_of_what_is_written() -> None:
    inner = Sparse(1 << 24)
    medium = Fake(inner, "wraparound", 1 << 24, announced=1 << 31)
    write(medium, (1 << 31) - 2, (1 << 31) - 1)
    assert read(medium, (1 << 24) - 1, (1 << 24) - 1) == block((1 << 31) - 1)
    assert len(inner.chunks) == 1


# --- a cache --------------------------------------------------------------------------------------


def test_a_cache_hides_what_is_on_the_medium_until_a_port_reset() -> None:
    medium = Cached(Fake(Memory(16 * SIZE), "limbo", 2), 2 * SIZE)
    write(medium, 4, 6)
    assert read(medium, 4, 6) == bytes(SIZE) + run(5, 6), "it has the last two blocks"
    write(medium, 5, 5)
    write(medium, 7, 7)
    assert read(medium, 5, 7) == block(5) + bytes(SIZE) + block(7), "the block written first leaves first"
    medium.power_on()
    assert read(medium, 4, 7) == bytes(4 * SIZE)


def test_a_lasting_cache_survives_a_port_reset() -> None:
    medium = Cached(Fake(Memory(16 * SIZE), "limbo", 2), 2 * SIZE, is_lasting=True)
    write(medium, 4, 4)
    medium.power_on()
    assert read(medium, 4, 4) == block(4)


def test_a_port_reset_of_the_device_empties_the_cache() -> None:
    host = Host(Stick([Unit(Cached(Fake(Memory(16 * SIZE), "limbo", 2), 4 * SIZE))]))
    host.ok(cdb10(0x2A, 4, 1), block(4))
    assert host.data(cdb10(0x28, 4, 1), SIZE) == block(4)
    host.handle.reset()
    assert host.sense() == (6, 0x29, 0)
    assert host.data(cdb10(0x28, 4, 1), SIZE) == bytes(SIZE)


# --- regions --------------------------------------------------------------------------------------


def test_bad_blocks_end_a_transfer_after_the_good_ones() -> None:
    inner = Memory(16 * SIZE)
    medium = Flawed(inner, bad=[(12, 13), (5, 5)])
    write(medium, 6, 11)
    for move in (read, write):
        with pytest.raises(BadBlock) as caught:
            move(medium, 3, 14)
        assert caught.value.moved == 2 * SIZE
    assert inner.data == bytes(3 * SIZE) + run(3, 4) + bytes(SIZE) + run(6, 11) + bytes(4 * SIZE)
    with pytest.raises(BadBlock):
        read(medium, 13, 13)


def test_the_sense_names_the_bad_block_and_the_data_before_it_come() -> None:
    host = Host(Stick([Unit(Flawed(Memory(run(0, 15)), bad=[(5, 5)]))]))
    result = host.do(cdb10(0x28, 3, 4), 4 * SIZE)
    assert (result.data, result.status, result.residue) == (run(3, 4), 1, 2 * SIZE)
    sense = host.data(bytes((3, 0, 0, 0, 18, 0)), 18)
    assert (sense[0], sense[2], sense[12]) == (0xF0, 3, 0x11)
    assert int.from_bytes(sense[3:7], "big") == 5
    assert host.do(cdb10(0x2A, 3, 4), out=run(103, 106)).status == 1
    assert host.sense() == (3, 0x0C, 0)
    assert host.data(cdb10(0x28, 3, 2), 2 * SIZE) == run(103, 104)
    assert host.data(cdb10(0x28, 6, 1), SIZE) == block(6)


def test_exactly_the_dropped_blocks_keep_their_content() -> None:
    medium = Flawed(Memory(b"\xee" * (16 * SIZE)), dropped=[(8, 9), (4, 4), (9, 10)])
    write(medium, 3, 12)
    kept = b"\xee" * SIZE
    assert read(medium, 3, 12) == block(3) + kept + run(5, 7) + 3 * kept + run(11, 12)


def test_a_bit_changes_after_the_flush_once_for_each_write() -> None:
    medium = Flawed(Memory(16 * SIZE), flipped=[(4, 5)])
    write(medium, 3, 4)
    assert read(medium, 3, 5) == run(3, 4) + bytes(SIZE)
    for _ in range(2):
        medium.flush()
        assert read(medium, 3, 5) == block(3) + bytes([1]) + block(4)[1:] + bytes(SIZE)
    write(medium, 4, 4)
    assert read(medium, 4, 4) == block(4)


# --- as text --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "size"), [("1", 1), ("4096", 4096), ("8M", 8 << 20), ("3t", 3 << 40)])
def test_a_size_is_read(text: str, size: int) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (read_size, "0", "not a size"),
        (read_size, "8 M", "not a size"),
        (read_size, "8X", "not a size"),
        (read_extents, "", "neither a block nor a range"),
        (read_extents, "5-4", "neither a block nor a range"),
        (read_extents, "1,x", "neither a block nor a range"),
        (FakeOptions.parse, "limb:8M", "unknown kind 'limb'; use limbo, wraparound, chain"),
        (FakeOptions.parse, "limbo:", "not a size"),
        (FakeOptions.parse, "limbo:8M,usable=8M", "once"),
        (FakeOptions.parse, "limbo,size=8M", "announced=SIZE"),
        (CacheOptions.parse, "lasting", "not a size"),
    ],
)
def test_a_wrong_text_is_refused_with_a_reason(read: Callable[[str], object], text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(text)


def test_texts_are_read() -> None:
    assert read_extents("7,100-200") == ((7, 7), (100, 200))
    assert FakeOptions.parse("limbo") == FakeOptions("limbo")
    assert FakeOptions.parse("limbo,usable=8M") == FakeOptions("limbo", 8 << 20)
    assert FakeOptions.parse("chain:7M,wrap=8M,announced=64G") == FakeOptions("chain", 7 << 20, 64 << 30, 8 << 20)
    assert CacheOptions.parse("1M,lasting") == CacheOptions(1 << 20, True)


@pytest.mark.parametrize(
    ("options", "blocks", "usable", "wrap"),
    [
        ("fake=limbo", 16384, 8192, 16384),
        ("fake=wraparound:2M", 16384, 4096, 4096),
        ("fake=limbo,announced=64G", 1 << 27, 16384, 1 << 27),
        ("fake=chain:3M,announced=1G", 1 << 21, 6144, 8192),
    ],
)
def test_the_options_of_a_fake(options: str, blocks: int, usable: int, wrap: int) -> None:
    with open_stick(f"virtual:?{options}") as stick:
        medium = stick.units[0].medium
        assert isinstance(medium, Fake)
        assert (medium.blocks, medium.usable, medium.wrap) == (blocks, usable, wrap)


@pytest.mark.parametrize("options", ["fake=limbo:16M", "fake=limbo:1000", "fake=limbo:1M,announced=1M,wrap=8K"])
def test_numbers_that_do_not_fit_the_medium_are_refused(options: str) -> None:
    with pytest.raises(ValueError):
        open_stick(f"virtual:?{options}")


def test_the_options_can_be_combined() -> None:
    name = "virtual:?fake=limbo:1M&cache=4K&bad=7&dropped=8&flipped=9"
    with scsiusb.open(name) as disk:
        data = os.urandom(512)
        for lba in (8, 9, 5000):
            disk.write(lba, data)
        disk.flush()
        assert [disk.read(lba, 1) == data for lba in (8, 9, 5000)] == [True, True, True], "from the cache"
        with pytest.raises(scsiusb.MediumError) as caught:
            disk.read(6, 4)
        assert caught.value.lba == 7


def test_an_inner_medium_is_closed_with_its_wrappers() -> None:
    inner = Memory(16 * SIZE)
    Bus(Stick([Unit(Cached(Flawed(Fake(inner, "limbo", 4)), 512))])).close()
    assert inner.is_closed
