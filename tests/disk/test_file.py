"""A disk as a binary file: any offset and length, one medium, and what the standard library makes of it."""

from __future__ import annotations

import copy
import errno
import gc
import hashlib
import io
import os
import shutil
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from random import Random

import pytest

import scsiusb
from scsiusb import (
    DeviceClosed,
    DeviceGone,
    Disk,
    DiskFile,
    MediumChanged,
    MediumError,
    OutOfRange,
    ScsiUsbError,
    UnitAttention,
)
from scsiusb.virtual import Bus, Memory, Stick, Unit
from tests.sticks import InterceptedBus, frequent_thread_switches, run_all

FAULTS = ("stall@csw", "stall@data", "short=512@data", "residue=8@csw", "tag", "signature", "empty@csw", "attentions=1")
STEPS = 150


def content(size: int, seed: int = 1) -> bytearray:
    return bytearray(Random(seed).randbytes(size))


def opened(medium: Memory) -> Disk:
    return scsiusb.open_on(Bus(Stick([Unit(medium)])))


@pytest.mark.parametrize("mode", ["", "r", "w", "wb", "ab", "rb+", "r+", "xb", "rU"])
def test_other_modes_are_refused(mode: str) -> None:
    with opened(Memory(4096)) as disk, pytest.raises(ValueError, match="mode"):
        disk.open(mode)


def test_a_mode_that_is_no_text_is_a_type_error() -> None:
    with opened(Memory(4096)) as disk, pytest.raises(TypeError, match="mode must be a str"):
        disk.open(3)  # type: ignore[arg-type]


def retried(file: DiskFile, work: Callable[[], object]) -> object:
    """Do as the caller of a device with faults: after an error, the position is unchanged, and the call is repeated."""
    position = file.tell()
    for _ in range(8):
        try:
            return work()
        except ScsiUsbError:
            assert file.tell() == position
    raise AssertionError("eight faults, one after the other")


class Model:
    """A file on a stick, and the bytearray that it must be equal to."""

    def __init__(self, file: DiskFile, expected: bytearray, random: Random) -> None:
        self.file, self.expected, self.random = file, expected, random

    def step(self) -> None:
        self.random.choice((self.read, self.readinto, self.write, self.write, self.seek))()

    def length(self) -> int:
        size = self.file.block_size
        return self.random.choice((0, 1, size - 1, size, size + 1, 2 * size, self.random.randrange(9 * size)))

    def seek(self) -> None:
        size, at = len(self.expected), self.file.tell()
        target = self.random.choice((0, size, size - 1, self.random.randrange(size + 2)))
        offset, whence = self.random.choice(((target, 0), (target - at, 1), (target - size, 2)))
        assert self.file.seek(offset, whence) == target

    def read(self) -> None:
        at, count = self.file.tell(), self.length()
        assert retried(self.file, partial(self.file.read, count)) == self.expected[at : at + count]

    def readinto(self) -> None:
        at, buffer = self.file.tell(), bytearray(b"\xee" * self.length())
        found = self.expected[at : at + len(buffer)]
        assert retried(self.file, partial(self.file.readinto, buffer)) == len(found)
        assert buffer == found + b"\xee" * (len(buffer) - len(found)), "the rest of the buffer is unchanged"

    def write(self) -> None:
        at, data = self.file.tell(), self.random.randbytes(self.length())
        room = max(0, len(self.expected) - at)
        if data and not room:
            with pytest.raises(OSError) as caught:
                self.file.write(data)
            assert caught.value.errno == errno.ENOSPC
            return
        assert retried(self.file, partial(self.file.write, data)) == min(len(data), room)
        self.expected[at : at + min(len(data), room)] = data[:room]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("block_size", [512, 520, 4096])
def test_a_file_is_a_bytearray(block_size: int, seed: int) -> None:
    """Of a window of the disk, with faults of the stick meanwhile; the blocks around the window stay as they are."""
    medium = Memory(content(64 * block_size), block_size)
    before = bytes(medium.data)
    stick, random = Stick([Unit(medium)]), Random(seed)
    lba, blocks = 5, 30
    first, end = lba * block_size, (lba + blocks) * block_size
    with scsiusb.open_on(Bus(stick), timeout=5) as disk:
        disk.max_blocks = 3
        with disk.open("r+b", lba, blocks) as file:
            model = Model(file, bytearray(before[first:end]), random)
            for _ in range(STEPS):
                if seed and random.random() < 0.1:
                    stick.faults.add(random.choice(FAULTS))
                model.step()
            stick.faults.clear()
            with suppress(UnitAttention):  # a fault may have made a reset necessary, which may empty a device's cache
                file.flush()
    assert bytes(medium.data) == before[:first] + model.expected + before[end:]
    assert not seed or stick.faults.fired


def test_aligned_writes_read_nothing_and_edges_read_one_block() -> None:
    bus = InterceptedBus(Stick([Unit(Memory(1 << 20), removable=False)]))
    with scsiusb.open_on(bus) as disk, disk.open("r+b") as file:

        def commands(at: int, count: int) -> tuple[int, int]:
            del bus.wire.log[:]
            file.seek(at)
            file.write(bytes(count))
            return bus.wire.log.count("cbw 28"), bus.wire.log.count("cbw 2a")

        assert commands(512, 4096) == (0, 1)
        assert commands(1, 1) == (1, 1)
        assert commands(500, 512 * 4) == (2, 3)
        assert commands(512, 513) == (1, 2)


def test_the_end_is_as_that_of_a_block_device() -> None:
    medium = Memory(content(4096))
    with opened(medium) as disk, disk.open("r+b") as file:
        assert file.size == file.seek(0, os.SEEK_END) == 4096
        assert file.read(10) == file.read() == file.readall() == b""
        assert file.write(b"") == 0
        with pytest.raises(OSError, match="end of the disk"):
            file.write(b"x")
        file.seek(4090)
        assert file.write(b"0123456789") == 6
        assert file.tell() == 4096
        assert file.seek(10_000) == 10_000
        assert file.read(1) == b""
        with pytest.raises(ValueError, match="negative"):
            file.seek(-1)
        assert file.tell() == 10_000
        with pytest.raises(ValueError, match="whence"):
            file.seek(0, 3)
    assert medium.data[4090:] == b"012345"


def test_what_a_disk_cannot_do() -> None:
    medium = Memory(content(4096))
    with opened(medium) as disk, disk.open("rb") as file:
        assert (file.readable(), file.seekable(), file.writable(), file.isatty()) == (True, True, False, False)
        refusals: list[Callable[[], object]] = [
            file.truncate,
            partial(file.truncate, 0),
            file.fileno,
            partial(file.write, b"x"),
        ]
        for refused in refusals:
            with pytest.raises(io.UnsupportedOperation):
                refused()
        with pytest.raises(TypeError, match="writable"):
            file.readinto(bytes(4))
        with pytest.raises(TypeError, match="buffer must be bytes"):
            file.readinto("text")
        with pytest.raises(BufferError, match="contiguous"):
            file.readinto(memoryview(bytearray(8))[::2])
        with pytest.raises(TypeError, match="cannot be copied"):
            copy.copy(file)
    assert medium.writes == 0


def test_buffers_of_other_items() -> None:
    import array

    medium = Memory(content(4096))
    with opened(medium) as disk, disk.open("r+b") as file:
        file.seek(3)
        numbers = array.array("I", bytes(16))
        assert file.readinto(numbers) == 16
        assert numbers.tobytes() == medium.data[3:19]
        assert file.write(array.array("H", [1, 2])) == 4
        assert file.write(memoryview(b"abcdef").cast("B", (2, 3))) == 6


def test_a_window_is_checked() -> None:
    with opened(Memory(content(4096))) as disk:
        assert disk.open(lba=8).size == 0
        assert disk.open(lba=6).size == 1024
        for lba, blocks in ((9, None), (8, 1), (0, 9), (-1, None), (0, -1)):
            with pytest.raises(ValueError):
                disk.open("rb", lba, blocks)
        with pytest.raises(OutOfRange):
            disk.open("rb", 4, 5)
        with pytest.raises(TypeError, match="lba must be an int"):
            disk.open("rb", 1.5)  # type: ignore[arg-type]
        assert "2 blocks from LBA 3" in repr(disk.open("rb", 3, 2))


def test_closing_flushes_and_leaves_the_disk_open() -> None:
    medium = Memory(content(4096))
    with opened(medium) as disk:
        with disk.open("r+b") as file:
            file.write(b"x")
        assert medium.flushes == 1
        file.close()
        for refused in (file.tell, file.read, file.flush, file.readable, partial(file.seek, 0)):
            with pytest.raises(ValueError, match="closed"):
                refused()
        assert disk.read(0, 1)[:1] == b"x"
        with disk.open("r+b") as other:
            other.read(1)
        assert medium.flushes == 1, "what wrote nothing flushes nothing"
    assert medium.flushes == 1


def test_a_failed_flush_is_reported_and_done_again() -> None:
    stick = Stick([Unit(Memory(4096))])
    with scsiusb.open_on(Bus(stick)) as disk:
        file = disk.open("r+b")
        file.write(b"x")
        stick.faults.add("sense=3/0c/00,opcode=35")
        with pytest.raises(MediumError):
            file.flush()
        file.close()
        assert file.closed


def test_after_the_disk_is_closed() -> None:
    with opened(Memory(4096)) as disk:
        file = disk.open("r+b")
        file.write(b"x")
    for refused in (partial(file.read, 1), partial(file.write, b"y"), file.flush, partial(file.seek, 0)):
        with pytest.raises(DeviceClosed):
            refused()
    file.close()
    assert file.closed


def test_after_an_unplug_the_error_is_raised_once() -> None:
    stick = Stick([Unit(Memory(4096))])
    bus = Bus(stick)
    with scsiusb.open_on(bus) as disk, pytest.raises(DeviceGone), disk.open("r+b") as file:
        file.write(b"x")
        bus.unplug(stick)
        with pytest.raises(DeviceGone):
            file.read(1)
        file.write(b"y")
    file.close()


def test_a_file_that_is_dropped_sends_nothing() -> None:
    medium = Memory(4096)
    bus = InterceptedBus(Stick([Unit(medium)]))
    with scsiusb.open_on(bus) as disk:
        file = disk.open("r+b")
        file.write(b"x")
        del bus.wire.log[:]
        del file
        gc.collect()
        assert bus.wire.log == []
    assert medium.flushes == 1, "the disk flushes what it wrote"


def test_an_error_names_the_block_on_the_disk_and_keeps_the_position() -> None:
    stick = Stick([Unit(Memory(1 << 20))], faults=["sense=3/11/00,lba=100,times=always"])
    with scsiusb.open_on(Bus(stick)) as disk, disk.open("r+b", lba=90) as file:
        file.seek(4000)
        for failing in (partial(file.read, 4000), partial(file.readall), partial(file.write, bytes(1500))):
            with pytest.raises(MediumError) as caught:
                failing()
            assert caught.value.lba is not None
            assert 90 <= caught.value.lba <= 100
            assert file.tell() == 4000


@pytest.mark.parametrize("known", [False, True], ids=["not yet noticed", "noticed by another call"])
@pytest.mark.parametrize(
    "work",
    [
        lambda file: file.read(700),
        lambda file: file.read(512),
        lambda file: file.write(b"x" * 512),
        lambda file: file.write(b"x" * 700),
        lambda file: file.flush(),
    ],
    ids=["read edge", "read", "write", "write edge", "flush"],
)
def test_a_file_stays_with_its_medium(work: Callable[[DiskFile], object], known: bool) -> None:
    unit, other = Unit(Memory(content(1 << 16, 1))), Memory(content(1 << 16, 2))
    before = bytes(other.data)
    with scsiusb.open_on(Bus(Stick([unit]))) as disk:
        file = disk.open("r+b")
        file.write(b"first")
        file.seek(0)
        unit.insert(other)
        if known:
            with pytest.raises(MediumChanged):
                disk.read(0, 1)
            disk.read(0, 1)
        for _ in range(2):
            with pytest.raises(MediumChanged):
                work(file)
        with pytest.raises(MediumChanged):
            file.close()
        assert disk.open().read(16) == before[:16], "a new file is of the medium that is there now"
        disk._unflushed.take()  # was lost with the first medium
    assert bytes(other.data) == before


def test_threads_share_a_position() -> None:
    """No write of one thread is torn by that of another, also where two of them share a block."""
    medium = Memory(1 << 16)
    records = [bytes([letter]) * 77 for letter in b"abcdefgh"]
    with opened(medium) as disk, disk.open("r+b") as file, frequent_thread_switches():

        def repeat(record: bytes) -> None:
            for _ in range(10):
                file.write(record)

        run_all(*(partial(repeat, record) for record in records))
        assert file.tell() == 77 * 80
    found = [bytes(medium.data[at : at + 77]) for at in range(0, 77 * 80, 77)]
    assert sorted(found) == sorted(records * 10)


def test_buffered_reader_and_writer() -> None:
    medium = Memory(content(1 << 16))
    before = bytes(medium.data)
    with opened(medium) as disk:
        with io.BufferedReader(disk.open(), 3000) as reader:
            assert b"".join(iter(partial(reader.read, 777), b"")) == before
            reader.seek(-5, os.SEEK_END)
            assert reader.peek() == before[-5:]
        with io.BufferedReader(disk.open()) as reader:
            assert reader.read() == before
        with io.BufferedWriter(disk.open("r+b"), 5000) as writer:
            for start in range(0, 60_000, 600):
                writer.write(before[start : start + 600][::-1])
        assert medium.flushes == 1
        with pytest.raises(OSError, match="end of the disk"), io.BufferedWriter(disk.open("r+b", lba=127)) as writer:
            writer.write(bytes(600))
    expected = b"".join(before[start : start + 600][::-1] for start in range(0, 60_000, 600))
    assert medium.data[:60_000] == expected


@pytest.mark.parametrize("buffer_size", [100, 4096, 1 << 20])
def test_buffered_random_is_a_bytearray(buffer_size: int) -> None:
    medium, random = Memory(content(1 << 15)), Random(7)
    expected = bytearray(medium.data)
    with opened(medium) as disk, io.BufferedRandom(disk.open("r+b"), buffer_size) as file:
        for _ in range(200):
            at, count = random.randrange(len(expected)), random.randrange(1, 2000)
            file.seek(at)
            if random.random() < 0.5:
                assert file.read(count) == expected[at : at + count]
            else:
                data = random.randbytes(min(count, len(expected) - at))
                assert file.write(data) == len(data)
                expected[at : at + len(data)] = data
    assert medium.data == expected


def test_copyfileobj_both_ways() -> None:
    source, target = Memory(content(300 * 512)), Memory(300 * 512)
    with opened(source) as one, opened(target) as two, one.open() as file, two.open("r+b") as copied:
        saved = io.BytesIO()
        shutil.copyfileobj(file, saved)
        assert saved.getvalue() == source.data
        file.seek(0)
        shutil.copyfileobj(file, copied, 1000)
    assert target.data == source.data


def test_a_zip_file_on_a_disk() -> None:
    medium = Memory(1 << 16)
    text = b"hello " * 1000
    with opened(medium) as disk:
        with disk.open("r+b") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.txt", text)
            archive.writestr("b.txt", b"")
        with disk.open() as file, zipfile.ZipFile(file) as archive:
            assert archive.namelist() == ["a.txt", "b.txt"]
            assert archive.read("a.txt") == text
            assert archive.testzip() is None


@pytest.mark.skipif(sys.version_info < (3, 11), reason="hashlib.file_digest is new in Python 3.11")
def test_file_digest() -> None:
    medium = Memory(content(1 << 20))
    with opened(medium) as disk, disk.open() as file:
        assert hashlib.file_digest(file, "sha256").digest() == hashlib.sha256(medium.data).digest()
