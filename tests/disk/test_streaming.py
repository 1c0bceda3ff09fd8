"""Streams: all bytes in order, bounded memory, exact errors, and no thread left, however they end."""

from __future__ import annotations

import io
import itertools
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from types import FrameType
from typing import Any

import pytest

import scsiusb
from scsiusb import ledger
from scsiusb.base import releases
from scsiusb.disk import streaming
from scsiusb.disk.streaming import BUFFERS
from scsiusb.manager.client import Client
from scsiusb.opening import open_on
from scsiusb.usb import port as port_module
from scsiusb.usb.backend import Code
from scsiusb.usb.port import PART
from scsiusb.virtual import Bus, Memory, Stick, Unit
from tests.interrupts import CtrlC
from tests.sticks import wait_until

MIB = 1 << 20
BLOCKS = 10_000 + 7
CONTENT = os.urandom(BLOCKS * 512)
RELEASING = {streaming.__file__, releases.__file__}
NOT_PROTECTED = ("__init__", "__enter__", "_begin", "add", "__exit__")  # their first or last instructions cannot be
BAD = "sense=3/11/00,lba={},times=always"


@pytest.fixture
def stick() -> Stick:
    return Stick([Unit(Memory(bytearray(CONTENT)))])


@pytest.fixture
def bus(stick: Stick) -> Bus:
    return Bus(stick)


@pytest.fixture
def disk(bus: Bus) -> Iterator[scsiusb.Disk]:
    with open_on(bus) as disk:
        yield disk
    assert [entry for entry in ledger.outstanding() if entry.kind == "thread"] == []
    assert [thread.name for thread in threading.enumerate() if "stream" in thread.name] == []


def medium(stick: Stick) -> bytes:
    medium = stick.units[0].medium
    assert isinstance(medium, Memory)
    return bytes(medium.data)


# --- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lba", "blocks"), [(0, BLOCKS), (3, 1), (17, 4096), (BLOCKS - 1, 1), (5, 0), (BLOCKS, 0)])
def test_all_blocks_are_delivered_in_order(disk: scsiusb.Disk, lba: int, blocks: int) -> None:
    found = bytearray()
    with disk.reading(lba, blocks) as pieces:
        for piece in pieces:
            assert len(piece) <= disk.max_blocks * 512
            found += piece
            assert pieces.lba == lba + len(found) // 512
    assert bytes(found) == CONTENT[lba * 512 : (lba + blocks) * 512]


def test_a_caller_may_be_faster_than_the_thread(disk: scsiusb.Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller may release a piece before the thread executes its next line."""

    class Quick(SimpleQueue[Any]):
        def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
            super().put(item, block, timeout)
            put.append(item)
            if item is not None:
                item.piece.release()

    put: list[Any] = []
    pieces = disk.reading(0, BLOCKS)
    monkeypatch.setattr(pieces, "_full", Quick())
    with pieces:
        with pytest.raises(ValueError, match="released"):
            next(pieces)
        wait_until(lambda: len(put) == BUFFERS or pieces._error)
        assert pieces._error is None


def test_the_stream_uses_a_fixed_number_of_buffers_of_the_device(bus: Bus, disk: scsiusb.Disk) -> None:
    disk.read(0, 1)
    before = bus.handles[0].outstanding
    for _ in range(2):
        with disk.reading(0, BLOCKS) as pieces:
            assert max(bus.handles[0].outstanding for _ in pieces) == before + BUFFERS


def test_a_piece_is_valid_until_the_next_one(disk: scsiusb.Disk) -> None:
    with disk.reading(0, BLOCKS) as pieces:
        first = next(pieces)
        assert first == CONTENT[: len(first)]
        second = next(pieces)
        with pytest.raises(ValueError, match="released"):
            bytes(first)
    with pytest.raises(ValueError, match="released"):
        bytes(second)


def test_a_piece_that_is_still_exported_is_an_error(disk: scsiusb.Disk) -> None:
    with disk.reading(0, BLOCKS) as pieces:
        kept = pickle.PickleBuffer(next(pieces))
        with pytest.raises(BufferError):
            next(pieces)
        kept.release()
        assert next(pieces)


@pytest.mark.parametrize("bad", [0, 1, 2000, 4097, BLOCKS - 1])
def test_the_blocks_before_a_bad_block_are_delivered_and_the_error_names_it(
    stick: Stick, disk: scsiusb.Disk, bad: int
) -> None:
    stick.faults.add(BAD.format(bad))
    found = bytearray()
    with pytest.raises(scsiusb.MediumError) as caught, disk.reading(0, BLOCKS) as pieces:
        for piece in pieces:
            found += piece
    assert caught.value.lba == bad
    assert f"LBA {bad}" in str(caught.value)
    assert bytes(found) == CONTENT[: bad * 512]
    assert pieces.lba == bad


def test_the_error_is_raised_again_by_another_next(stick: Stick, disk: scsiusb.Disk) -> None:
    stick.faults.add(BAD.format(3000))
    with disk.reading(2999, 10) as pieces:
        assert next(pieces) == CONTENT[2999 * 512 : 3000 * 512]
        for _ in range(2):
            with pytest.raises(scsiusb.MediumError):
                next(pieces)


def test_leaving_early_ends_the_stream(disk: scsiusb.Disk) -> None:
    with disk.reading(0, BLOCKS) as pieces:
        assert next(pieces)[:512] == CONTENT[:512]
    with disk.reading(5, BLOCKS - 5):
        pass
    assert disk.read(7, 1) == CONTENT[7 * 512 : 8 * 512]


@pytest.mark.parametrize("most", [1, 100, 1000])
def test_the_size_of_commands_can_be_chosen(stick: Stick, disk: scsiusb.Disk, most: int) -> None:
    disk.max_blocks = most
    assert disk.max_blocks == most
    with disk.reading(0, 1201) as pieces:
        lengths = [len(piece) // 512 for piece in pieces]
    assert lengths == [most] * (1201 // most) + ([1201 % most] if 1201 % most else [])
    assert disk.read(3, 1201) == CONTENT[3 * 512 : 1204 * 512]
    for wrong in (0, 65536):
        with pytest.raises(ValueError, match="not possible"):
            disk.max_blocks = wrong


def test_an_exception_in_the_loop_ends_the_stream(disk: scsiusb.Disk) -> None:
    with pytest.raises(KeyError), disk.reading(0, BLOCKS) as pieces:
        for _ in pieces:
            raise KeyError


def test_leaving_early_does_not_wait_for_a_slow_device(stick: Stick, disk: scsiusb.Disk) -> None:
    stick.faults.add("nak@data,opcode=28,command=+2")
    disk.unit.timeout = 10**6
    with disk.reading(0, BLOCKS) as pieces:
        next(pieces)
    disk.unit.timeout = None
    assert disk.read(7, 1) == CONTENT[7 * 512 : 8 * 512]


@pytest.mark.parametrize("moment", ["before", "after", "late"])
def test_ctrl_c_while_the_thread_is_started_leaves_nothing(
    stick: Stick, bus: Bus, disk: scsiusb.Disk, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """`late`: the thread comes up only when the stream has been left."""
    start = threading.Thread.start
    threads: list[threading.Thread] = []

    def interrupted(thread: threading.Thread) -> None:
        threads.append(thread)
        if moment == "after":
            start(thread)
        raise KeyboardInterrupt

    medium = stick.units[0].medium
    assert medium is not None
    with disk.reading(0, BLOCKS) as pieces:
        next(pieces)
    before = bus.handles[0].outstanding
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt), disk.reading(0, BLOCKS) as pieces:
            next(pieces)
    assert bus.handles[0].outstanding == before
    if moment == "late":
        reads = medium.reads
        start(threads[0])
        threads[0].join()
        assert medium.reads == reads
    assert disk.read(7, 1) == CONTENT[7 * 512 : 8 * 512]


def test_an_unplug_ends_the_stream(stick: Stick, bus: Bus, disk: scsiusb.Disk) -> None:
    with pytest.raises(scsiusb.DeviceGone) as caught, disk.reading(0, BLOCKS) as pieces:
        next(pieces)
        bus.unplug(stick)
        for _ in pieces:
            pass
    assert caught.value.lba is None or caught.value.lba >= pieces.lba


def test_closing_the_disk_ends_the_stream(bus: Bus) -> None:
    disk = open_on(bus)
    with pytest.raises((scsiusb.DeviceClosed, scsiusb.DeviceGone)), disk.reading(0, BLOCKS) as pieces:
        next(pieces)
        disk.close()
        for _ in pieces:
            pass


def test_a_range_beyond_the_medium_is_refused_before_the_stream_starts(disk: scsiusb.Disk) -> None:
    with pytest.raises(scsiusb.OutOfRange):
        disk.reading(BLOCKS, 1)
    with pytest.raises(ValueError, match="negative"):
        disk.reading(-1, 1)


def test_a_stream_must_be_used_in_one_with_statement(disk: scsiusb.Disk) -> None:
    with pytest.raises(RuntimeError, match="with"):
        iter(disk.reading(0, 1))
    with pytest.raises(RuntimeError, match="with"):
        disk.writing(0).write(b"")
        disk.writing(0).room()
    with disk.reading(0, 1) as pieces, pytest.raises(RuntimeError, match="once"):
        pieces.__enter__()


# --- writing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [512, 1000, 4096, 3 * MIB + 1])
def test_bytes_of_any_length_are_written_in_order(stick: Stick, disk: scsiusb.Disk, step: int) -> None:
    new = os.urandom(6000 * 512)
    with disk.writing(11) as out:
        for at in range(0, len(new), step):
            assert out.write(new[at : at + step]) == len(new[at : at + step])
    assert out.lba == 6011
    disk.flush()
    assert medium(stick) == CONTENT[: 11 * 512] + new + CONTENT[6011 * 512 :]


def test_a_file_is_read_straight_into_the_streams_buffers(stick: Stick, disk: scsiusb.Disk) -> None:
    new = os.urandom(5000 * 512)
    file = io.BytesIO(new)
    with disk.writing(0) as out:
        while count := file.readinto(out.room()):
            out.advance(count)
    assert medium(stick) == new + CONTENT[5000 * 512 :]


def test_an_incomplete_block_at_the_end_is_refused_and_not_written(stick: Stick, disk: scsiusb.Disk) -> None:
    with pytest.raises(ValueError, match="block size"), disk.writing(0) as out:
        out.write(bytes(700))
    assert medium(stick) == CONTENT


def test_writing_beyond_the_medium_is_refused(stick: Stick, disk: scsiusb.Disk) -> None:
    with disk.writing(BLOCKS - 2) as out:
        with pytest.raises(scsiusb.OutOfRange):
            out.write(bytes(1025))
        out.write(bytes(1024))
        room = out.room()
        room[:1] = b"x"
        with pytest.raises(scsiusb.OutOfRange):
            out.advance(1)
    assert medium(stick) == CONTENT[: (BLOCKS - 2) * 512] + bytes(1024)
    with pytest.raises(scsiusb.OutOfRange):
        disk.writing(BLOCKS + 1)


def test_a_later_call_raises_the_error_with_its_block_and_nothing_is_written_after_it(
    stick: Stick, disk: scsiusb.Disk
) -> None:
    step = disk.max_blocks
    bad = step + 5
    stick.faults.add(f"sense=3/0C/00,lba={bad},times=always")
    new = os.urandom(BLOCKS * 512)
    with pytest.raises(scsiusb.MediumError) as caught, disk.writing(0) as out:
        for at in range(0, len(new), 512):
            out.write(new[at : at + 512])
    assert caught.value.lba == out.lba == bad
    assert medium(stick)[: bad * 512] == new[: bad * 512]
    assert medium(stick)[2 * step * 512 :] == CONTENT[2 * step * 512 :]


def test_after_an_exception_nothing_more_is_written(stick: Stick, disk: scsiusb.Disk) -> None:
    with pytest.raises(KeyError), disk.writing(0) as out:
        out.write(bytes(512))
        raise KeyError
    assert medium(stick) == CONTENT


def test_a_write_protected_medium_is_an_error() -> None:
    bus = Bus(Stick([Unit(Memory(bytearray(CONTENT), read_only=True))]))
    with open_on(bus) as disk, pytest.raises(scsiusb.DataProtect), disk.writing(0) as out:
        out.write(bytes(4096))


def replace_bulk(
    monkeypatch: pytest.MonkeyPatch, bus: Bus, disk: scsiusb.Disk, bulk: Callable[[int, memoryview, float], object]
) -> None:
    """Replace the transfers of the one handle of an open disk, which its driver looked up when it was opened."""
    transport = disk.unit.transport
    assert isinstance(transport, Client)
    monkeypatch.setattr(bus.handles[0], "bulk", bulk)
    monkeypatch.setattr(transport._transport._driver, "_bulk", bulk)


# --- a buffer of the device -----------------------------------------------------------------------


def test_a_lent_buffer_is_used_without_a_copy(
    stick: Stick, bus: Bus, disk: scsiusb.Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[object] = []
    handle = bus.handles[0]
    bulk = handle.bulk

    def watched(endpoint: int, buffer: memoryview, deadline: float) -> object:
        moved.append(buffer.obj)
        return bulk(endpoint, buffer, deadline)

    disk.read(0, 1)
    disk.write(4, CONTENT[4 * 512 : 5 * 512])  # the first write asks for the write protection
    with disk.buffer(8192) as buffer:
        replace_bulk(monkeypatch, bus, disk, watched)
        assert disk.readinto(4, buffer) == 16
        assert buffer == CONTENT[4 * 512 : 20 * 512]
        with buffer[1024:2048] as part:
            assert disk.readinto(100, part) == 2
        assert buffer[1024:2048] == CONTENT[100 * 512 : 102 * 512]
        assert disk.write(0, buffer) == 16
        assert moved[1] is moved[4] is moved[7] is buffer.obj
        assert medium(stick)[:8192] == buffer
        own = bytearray(512)
        disk.readinto(0, own)
        assert moved[10] is not own


def test_a_lent_buffer_cannot_be_used_after_its_release(disk: scsiusb.Disk) -> None:
    with disk.buffer(4096) as buffer:
        pass
    with pytest.raises(ValueError, match="released"):
        disk.readinto(0, buffer)


# --- little memory --------------------------------------------------------------------------------


def scarce(bus: Bus, disk: scsiusb.Disk, monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """Imitate a kernel with memory for `most` bytes per transfer, and sometimes none; return the lengths asked for."""
    asked: list[int] = []
    handle = bus.handles[0]
    bulk = handle.bulk

    def little(endpoint: int, buffer: memoryview, deadline: float) -> tuple[Code, int]:
        asked.append(len(buffer))
        return (Code.NO_MEM, 0) if len(buffer) > most or len(asked) % 7 == 0 else bulk(endpoint, buffer, deadline)

    replace_bulk(monkeypatch, bus, disk, little)
    return asked


def test_data_is_transferred_in_parts_if_the_kernel_has_no_memory(
    stick: Stick, bus: Bus, disk: scsiusb.Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """usbfs has 16 MB for all programs together by default."""
    asked = scarce(bus, disk, monkeypatch, PART)
    assert disk.read(1, 5000) == CONTENT[512 : 5001 * 512]
    new = os.urandom(3001 * 512)
    disk.write(7, new)
    disk.flush()
    assert medium(stick) == CONTENT[: 7 * 512] + new + CONTENT[3008 * 512 :]
    assert max(asked) > PART
    assert PART in asked
    assert disk.unit.resets == 1  # power on


def test_a_kernel_that_never_has_memory_is_an_error(
    bus: Bus, disk: scsiusb.Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port_module, "MEMORY_PATIENCE", 0.01)
    assert disk.read(0, 1)
    scarce(bus, disk, monkeypatch, 100)
    with pytest.raises(scsiusb.TransportError, match="no memory"):
        disk.read(0, 100)


# --- an exception while a stream starts its thread, which its first use does ------------------------


def reading(disk: scsiusb.Disk) -> None:
    with disk.reading(0, 64) as pieces:
        next(pieces)


def writing(disk: scsiusb.Disk) -> None:
    with disk.writing(0) as out:
        out.write(bytes(512))


@pytest.mark.parametrize("use", [reading, writing])
@pytest.mark.parametrize("is_late", [False, True], ids=["before the start", "after the start"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("can't start new thread")], ids=repr)
def test_an_exception_in_the_start_of_the_thread_is_the_one_that_comes_out(
    monkeypatch: pytest.MonkeyPatch, use: Callable[[scsiusb.Disk], None], is_late: bool, error: BaseException
) -> None:
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        if thread.name == "scsiusb stream":
            if is_late:
                start(thread)
            raise error
        start(thread)

    with open_on(Bus(Stick.formatted())) as disk:
        monkeypatch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(type(error) if isinstance(error, Exception) else KeyboardInterrupt) as caught:
            use(disk)
        monkeypatch.undo()
        assert not isinstance(error, RuntimeError) or caught.value is error
        assert len(disk.read(0, 1)) == 512
        assert [entry for entry in ledger.outstanding() if "moves blocks" in entry.what] == []
    assert [thread.name for thread in threading.enumerate() if thread.name == "scsiusb stream"] == []


def test_a_thread_that_begins_after_its_stream_has_ended_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C can end `Thread.start` after the system has made the thread and before the thread runs."""
    started: list[threading.Thread] = []

    def interrupted(thread: threading.Thread) -> None:
        started.append(thread)
        raise KeyboardInterrupt

    with open_on(Bus(Stick.formatted())) as disk:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", interrupted)
            with pytest.raises(KeyboardInterrupt):
                reading(disk)
        monkeypatch.setattr(scsiusb.Disk, "readinto", None)
        (thread,) = started
        thread.start()
        thread.join()


class Watched:
    """A buffer that must not be given back while a thread may still use it."""

    def __init__(self, loan: Any, is_in_use: Callable[[], bool]) -> None:
        self._loan = loan
        self._is_in_use = is_in_use

    def __enter__(self) -> Any:
        return self._loan.__enter__()

    def __exit__(self, *error: Any) -> None:
        assert not self._is_in_use(), "its memory may be lent again while a command moves data into it"
        self._loan.__exit__(*error)


@pytest.mark.slow
@pytest.mark.parametrize("is_reading", [True, False])
def test_ctrl_c_while_a_stream_is_left_gives_no_buffer_back_that_is_in_use(
    disk: scsiusb.Disk, monkeypatch: pytest.MonkeyPatch, *, is_reading: bool
) -> None:
    lend = disk.buffer

    def is_in_use() -> bool:
        return any(thread.name == "scsiusb stream" for thread in threading.enumerate())

    def leave_early() -> None:
        if is_reading:
            with disk.reading(0, 640) as pieces:
                next(pieces)
        else:
            with disk.writing(0) as stream:
                stream.write(bytes(512 * 100))

    def selects(frame: FrameType) -> bool:
        code = frame.f_code
        return code.co_filename in RELEASING and code.co_name not in NOT_PROTECTED

    monkeypatch.setattr(disk, "buffer", lambda size: Watched(lend(size), is_in_use))
    disk.max_blocks = 64
    for count in itertools.count(1):
        ctrl_c = CtrlC(selects, count)
        ctrl_c.run(leave_early)
        assert not is_in_use(), count
        if ctrl_c.at < 0:
            break
    assert count > 100
