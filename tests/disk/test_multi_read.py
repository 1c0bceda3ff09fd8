"""read_many, in one thread or one per stream: all bytes, exact errors, and devices that stay usable."""

from __future__ import annotations

import itertools
import os
import pickle
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from types import FrameType
from typing import Any

import pytest

import scsiusb
from scsiusb import Chunk, read_many
from scsiusb.base import releases
from scsiusb.disk import multi_read
from scsiusb.disk.streaming import Reading
from scsiusb.opening import open_on
from scsiusb.virtual import Bus, Fault, Memory, Stick, Unit
from tests.disk import polling
from tests.disk.polling import PolledBus
from tests.disk.test_readinto_bounds import FAULTS
from tests.interrupts import CtrlC
from tests.sticks import PATIENCE, Answer, InterceptedBus, InterceptedHandle, Wire, Worker, csw, wait_until

BLOCKS = 5_000 + 7
STICKS = 3
STEP = 512  # blocks per command
CSW_PACKET = 512  # bytes of the buffer that a CSW is read into at high speed
READ_10 = 0x28
BAD = "sense=3/11/00,lba={},times=always"


LEAVING = ("close", "_run", "_drop", "end", "stop", "cancel", "forget", "give_back")


class Station:
    """Several sticks with random content, each with an open disk."""

    def __init__(self, kind: type[InterceptedBus]) -> None:
        self.contents = [os.urandom(BLOCKS * 512) for _ in range(STICKS)]
        self.sticks = [Stick([Unit(Memory(bytearray(content)))]) for content in self.contents]
        self.buses = [kind(stick) for stick in self.sticks]
        self.disks = [open_on(bus) for bus in self.buses]
        for disk in self.disks:
            disk.max_blocks = STEP
            assert disk.blocks == BLOCKS
        for bus in self.buses:
            bus.wire.log.clear()

    def readings(self, lba: int = 0, blocks: int = BLOCKS) -> list[Reading]:
        return [disk.reading(lba, blocks) for disk in self.disks]

    def close(self) -> None:
        for disk, bus in zip(self.disks, self.buses, strict=True):
            disk.close()
            assert not bus.handles
            bus.close()


@pytest.fixture(params=[PolledBus, InterceptedBus], ids=["one thread", "a thread for each"])
def station(request: pytest.FixtureRequest) -> Iterator[Station]:
    station = Station(request.param)
    yield station
    station.close()


@pytest.fixture
def polled() -> Iterator[Station]:
    if sys.platform == "win32":
        pytest.skip("there is no poll: each stream has a thread")
    station = Station(PolledBus)
    yield station
    station.close()


class Received:
    def __init__(self, readings: Sequence[Reading]) -> None:
        self.data: dict[object, bytearray] = defaultdict(bytearray)
        self.errors: dict[object, scsiusb.ScsiUsbError] = {}
        self.parts: list[Chunk] = []
        with read_many(*readings) as parts:
            for part in parts:
                assert part.reading not in self.errors
                self.parts.append(part)
                self.data[part.reading] += part.piece
                if part.error is not None:
                    self.errors[part.reading] = part.error


def assert_all_read(station: Station, lba: int = 0, blocks: int = BLOCKS) -> Received:
    readings = station.readings(lba, blocks)
    received = Received(readings)
    assert received.errors == {}
    for reading, content in zip(readings, station.contents, strict=True):
        assert received.data[reading] == content[lba * 512 : (lba + blocks) * 512]
        assert reading.lba == lba + blocks
    return received


@pytest.mark.parametrize(("lba", "blocks"), [(0, BLOCKS), (3, 1), (17, STEP), (BLOCKS - 1, 1), (5, 0)])
def test_all_blocks_of_all_streams_are_delivered_in_order(station: Station, lba: int, blocks: int) -> None:
    assert_all_read(station, lba, blocks)


def test_the_first_chunks_are_of_all_streams(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "LONG", 10_000)  # a busy machine may stop this process for a second: a false timeout
    with read_many(*station.readings()) as parts:
        order = [next(parts).reading]
        if not isinstance(station.buses[0], PolledBus):  # a busy machine lets one thread read before another is begun
            wait_until(lambda: all(bus.wire.log.count("cbw 28") >= 2 for bus in station.buses))
        order += [part.reading for part in parts]
    first = order[: 2 * STICKS]
    assert all(first.count(reading) >= 1 for reading in set(order))


def test_no_thread_is_started_if_the_backend_has_asynchronous_transfers(
    polled: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "LONG", 10_000)  # a busy machine may stop this process for a second: a false timeout
    before = set(threading.enumerate())
    with read_many(*polled.readings()) as parts:
        for _ in parts:
            started = set(threading.enumerate()) - before  # those that run the tests in parallel may start one, too
            assert not [thread for thread in started if "scsiusb" in thread.name]
    assert all(isinstance(bus, PolledBus) and bus.submitted for bus in polled.buses)


def test_an_error_names_its_block_and_the_other_streams_continue(station: Station) -> None:
    bad = STEP + 77
    station.sticks[1].faults.add(BAD.format(bad))
    readings = station.readings()
    received = Received(readings)
    assert list(received.errors) == [readings[1]]
    error = received.errors[readings[1]]
    assert isinstance(error, scsiusb.MediumError)
    assert error.lba == bad
    assert received.data[readings[1]] == station.contents[1][: bad * 512]
    assert readings[1].lba == bad
    for number in (0, 2):
        assert received.data[readings[number]] == station.contents[number]


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted({Fault.parse(text).name for text in FAULTS}))
def test_a_fault_has_the_same_result_as_in_a_single_read_and_no_byte_is_wrong(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The fault is in the middle of one of two streams."""
    monkeypatch.setattr(polling, "LONG", 50)
    for text in FAULTS:
        if Fault.parse(text).name == kind:
            alone, beside = (outcome(text, polled) for polled in (False, True))
            assert beside == alone, text


def outcome(text: str, polled: bool) -> tuple[type[Exception] | None, int]:
    """Return the error that a fault in the third command caused, and the number of correct bytes before it."""
    step = 64
    contents = [os.urandom(4 * step * 512) for _ in range(2)]
    sticks = [Stick([Unit(Memory(bytearray(content)))]) for content in contents]
    buses = [PolledBus(stick) for stick in sticks]
    with ExitStack() as stack:
        disks = []
        for bus in buses:
            stack.callback(bus.close)
            disks.append(stack.enter_context(open_on(bus, timeout=0.2)))
            disks[-1].max_blocks = step
            assert disks[-1].blocks
        sticks[0].faults.add(f"{text},opcode=28,lba={2 * step},times=1")
        readings = [disk.reading(0, 4 * step) for disk in disks]
        received = Received(readings) if polled else in_threads(readings)
        for reading, content in zip(readings, contents, strict=True):
            data = received.data[reading]
            assert data == content[: len(data)]
        assert len(received.data[readings[1]]) == 4 * step * 512
        return type(received.errors[readings[0]]) if received.errors else None, len(received.data[readings[0]])


def in_threads(readings: Sequence[Reading]) -> Received:
    received = Received([])
    for reading in readings:
        with reading as pieces:
            try:
                for piece in pieces:
                    received.data[reading] += piece
            except scsiusb.ScsiUsbError as error:
                received.errors[reading] = error
    return received


def test_a_changed_medium_ends_its_stream(polled: Station) -> None:
    polled.sticks[0].faults.add(f"sense=6/28/00,opcode=28,lba={2 * STEP},times=1")
    readings = polled.readings()
    received = Received(readings)
    assert list(received.errors) == [readings[0]]
    assert isinstance(received.errors[readings[0]], scsiusb.MediumChanged)
    assert len(received.data[readings[1]]) == BLOCKS * 512


def test_a_device_that_has_gone_ends_its_stream(station: Station) -> None:
    readings = station.readings()
    seen: dict[object, scsiusb.ScsiUsbError] = {}
    count = 0
    with read_many(*readings) as parts:
        next(parts)
        station.buses[2].unplug(station.sticks[2])
        for part in parts:
            count += len(part.piece)
            if part.error is not None:
                seen[part.reading] = part.error
    assert list(seen) == [readings[2]]
    assert isinstance(seen[readings[2]], scsiusb.DeviceGone)
    assert count >= (2 * BLOCKS - STEP) * 512


def test_a_disk_that_is_closed_meanwhile_ends_its_stream(polled: Station) -> None:
    readings = polled.readings()
    with read_many(*readings) as parts:
        next(parts)
        closing = threading.Thread(target=polled.disks[1].close)
        closing.start()
        errors = {part.reading: part.error for part in parts if part.error is not None}
    closing.join(20)
    assert not closing.is_alive()
    assert list(errors) == [readings[1]]
    assert isinstance(errors[readings[1]], scsiusb.DeviceClosed)


@pytest.mark.parametrize("number", [1, 2, 3, *(pytest.param(number, marks=pytest.mark.slow) for number in range(4, 8))])
def test_a_transfer_that_usbfs_has_no_memory_for_is_retried_as_in_a_single_read(polled: Station, number: int) -> None:
    bus = polled.buses[0]
    assert isinstance(bus, PolledBus)
    bus.refusals[number] = True
    assert_all_read(polled)


def test_a_device_that_does_not_answer_times_out_and_the_other_streams_continue(polled: Station) -> None:
    bus = polled.buses[0]
    assert isinstance(bus, PolledBus)
    polled.disks[0].unit.timeout = 0.2
    polled.disks[0].read(0, 1)  # the look for a block to know the medium by is not what hangs
    readings = polled.readings()
    with read_many(*readings) as parts:
        bus.hangs = True
        received: dict[object, int] = defaultdict(int)
        errors = {}
        for part in parts:
            received[part.reading] += len(part.piece)
            if part.error is not None:
                errors[part.reading] = part.error
        bus.hangs = False
    assert list(errors) == [readings[0]]
    assert isinstance(errors[readings[0]], scsiusb.DeviceTimeout)
    assert [received[reading] for reading in readings[1:]] == [BLOCKS * 512] * 2


def test_the_devices_are_usable_after_leaving_early(station: Station) -> None:
    with read_many(*station.readings()) as parts:
        next(parts)
    for disk, bus, content in zip(station.disks, station.buses, station.contents, strict=True):
        bus.wire.log.clear()
        assert disk.read(9, 2) == content[9 * 512 : 11 * 512]
        assert bus.wire.log == ["cbw 28", "in", "in"]


def test_a_device_that_needs_a_pause_in_each_command_is_polled_without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quirk G: the pause is shorter than the start of a thread."""
    content = os.urandom(BLOCKS * 512)
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    bus = PolledBus(Stick([Unit(Memory(bytearray(content)))]))
    with open_on(bus, quirks="G") as disk:
        disk.max_blocks = STEP
        assert disk.blocks == BLOCKS
        pauses.clear()
        bus.wire.log.clear()
        reading = disk.reading(0, BLOCKS)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", lambda thread: pytest.fail("a thread was started"))
            received = Received([reading])
        assert received.data[reading] == content
        assert pauses == [125e-6] * sum(entry.startswith("cbw") for entry in bus.wire.log)
    bus.close()


class Watched:
    """A buffer that must not be given back while a transfer may still move data into it."""

    def __init__(self, loan: Any, bus: PolledBus) -> None:
        self._loan, self._bus = loan, bus

    def __enter__(self) -> Any:
        return self._loan.__enter__()

    def __exit__(self, *error: Any) -> None:
        assert not self._bus.under_way, "its memory may be lent again while a transfer moves data into it"
        self._loan.__exit__(*error)


@pytest.mark.slow
def test_ctrl_c_while_streams_are_left_gives_no_buffer_back_that_is_in_use(
    polled: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, bus = polled.disks[0], polled.buses[0]
    assert isinstance(bus, PolledBus)
    lend = disk.buffer

    def leave_early() -> None:
        bus.hangs = False
        with read_many(disk.reading(0, STEP * 4)) as chunks:
            next(chunks)
            bus.hangs = True
            next(chunks)  # which was ready; the next command hangs

    def selects(frame: FrameType) -> bool:
        return frame.f_code.co_filename in (releases.__file__, multi_read.__file__) and frame.f_code.co_name in LEAVING

    monkeypatch.setattr(multi_read, "PROMPT", 0.0)
    monkeypatch.setattr(disk, "buffer", lambda size: Watched(lend(size), bus))
    for count in itertools.count(1, 3):
        ctrl_c = CtrlC(selects, count)
        ctrl_c.run(leave_early)
        assert not bus.under_way, count
        if ctrl_c.at < 0:
            break
    assert count > 100
    bus.hangs = False


@pytest.mark.slow
def test_a_device_that_hangs_when_leaving_early_is_recovered_before_its_next_command(polled: Station) -> None:
    bus = polled.buses[0]
    assert isinstance(bus, PolledBus)
    with read_many(*polled.readings()) as parts:
        bus.hangs = True
        while next(parts).reading.disk is not polled.disks[1]:
            pass
    bus.hangs = False
    bus.wire.log.clear()
    assert polled.disks[0].read(9, 2) == polled.contents[0][9 * 512 : 11 * 512]
    assert bus.wire.log[0] == "request ff"


def test_no_command_is_running_after_an_exception_of_the_caller(polled: Station) -> None:
    with pytest.raises(KeyboardInterrupt), read_many(*polled.readings()) as parts:
        next(parts)
        raise KeyboardInterrupt
    assert_all_read(polled)


def test_two_streams_of_one_device_have_a_thread_each(polled: Station) -> None:
    disk = polled.disks[0]
    readings = [disk.reading(0, 1000), disk.reading(1000, 1000)]
    received = Received(readings)
    assert received.errors == {}
    assert b"".join(received.data[reading] for reading in readings) == polled.contents[0][: 2000 * 512]


def test_a_piece_that_is_still_exported_is_an_error(polled: Station) -> None:
    with read_many(*polled.readings()) as parts:
        kept = pickle.PickleBuffer(next(parts).piece)
        with pytest.raises(BufferError):
            next(parts)
        kept.release()
        with pytest.raises(RuntimeError, match="not everything was read"):
            next(parts)


def test_an_error_that_was_not_taken_does_not_spoil_the_next_reading(station: Station) -> None:
    """Leaving early drops its chunk, in one thread together with the pieces that are ready."""
    for _ in range(2):
        station.sticks[1].faults.add("sense=3/11/00,lba=0,times=always")
        with read_many(*station.readings()) as chunks:
            next(chunk for chunk in chunks if chunk.error is None)
    assert len(Received(station.readings()).errors) == 1


def test_the_caller_may_release_the_piece_beside_an_error(station: Station) -> None:
    station.sticks[1].faults.add("sense=3/11/00,lba=0,times=always")
    for _ in range(2):
        with read_many(*station.readings()) as chunks:
            for chunk in chunks:
                chunk.piece.release()
    assert len(Received(station.readings()).errors) == 1


def test_it_must_be_used_in_a_with_statement(station: Station) -> None:
    parts = read_many(*station.readings())
    with pytest.raises(RuntimeError):
        next(parts)


def test_no_streams_give_no_chunks() -> None:
    with read_many() as parts:
        assert list(parts) == []


def test_it_works_on_any_bus() -> None:
    bus = Bus(Stick.formatted())
    with open_on(bus) as disk, read_many(disk.reading(0, 64)) as parts:
        assert sum(len(part.piece) for part in parts) == 64 * 512
    bus.close()


def test_a_csw_of_a_whole_packet_is_malformed_as_for_a_single_read(polled: Station) -> None:
    bus, spoilt = polled.buses[0], [0]

    def intercept(wire: Wire, endpoint: int, buffer: memoryview) -> Answer | None:
        if len(buffer) != CSW_PACKET or wire.opcode != READ_10 or spoilt[0]:
            return None
        spoilt[0] += 1
        return wire.put(buffer, csw(wire.tag).ljust(CSW_PACKET, b"\0"))

    bus.wire.intercept = intercept
    assert_all_read(polled)
    assert spoilt == [1]
    assert "port reset" in bus.wire.log or "request ff" in bus.wire.log


# --- one device that fails or hangs, and other users ------------------------------------------------


@pytest.mark.slow
def test_a_device_in_trouble_does_not_hold_up_the_others(station: Station) -> None:
    """Its waits for readiness, 3 s in all, are not waited for by the others: they are done before its first piece."""
    station.sticks[1].faults.add("sense=2/04/01,opcode=28,times=12")
    readings = station.readings()
    with read_many(*readings) as chunks:
        order = [readings.index(chunk.reading) for chunk in chunks]
    first = order.index(1)
    assert set(order[:first]) == {0, 2}
    assert set(order[first:]) == {1}


def test_a_device_that_is_recovered_meanwhile_delivers_all(station: Station) -> None:
    station.sticks[1].faults.add("tag,opcode=28,times=3")
    readings = station.readings()
    received = Received(readings)
    assert received.errors == {}
    assert station.disks[1].unit.resets > station.disks[0].unit.resets
    for reading, content in zip(readings, station.contents, strict=True):
        assert received.data[reading] == content


def test_all_recoveries_of_a_device_are_in_one_thread(polled: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stall is cleared by a request that blocks. A thread for each would take more time than the request."""
    started: list[threading.Thread] = []
    start = threading.Thread.start

    def note(thread: threading.Thread) -> None:
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", note)
    polled.sticks[1].faults.add("stall@csw,opcode=28,times=always")
    received = assert_all_read(polled)
    assert len(received.parts) >= STICKS * BLOCKS // STEP
    assert polled.buses[1].wire.log.count("clear in") >= BLOCKS // STEP
    assert [thread.name for thread in started] == ["scsiusb recovery"]
    assert not started[0].is_alive()


def test_a_device_is_not_polled_while_its_helper_uses_it(polled: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its descriptor is ready again and again then, and for ever once it has gone: the loop would never wait."""
    descriptor = polled.disks[0].unit.transport.descriptor
    assert descriptor is not None
    is_left_alone = threading.Event()
    new_poll = multi_read._new_poll

    class Poll:
        def __init__(self) -> None:
            self._poll = new_poll()
            self.descriptors: set[int] = set()

        def register(self, fd: int, eventmask: int) -> None:
            self.descriptors.add(fd)
            self._poll.register(fd, eventmask)

        def unregister(self, fd: int) -> None:
            self.descriptors.remove(fd)
            self._poll.unregister(fd)

        def poll(self, timeout: float) -> list[tuple[int, int]]:
            if descriptor not in self.descriptors:
                is_left_alone.set()
            return self._poll.poll(timeout)

    clear_halt = InterceptedHandle.clear_halt

    def wait_and_clear(handle: InterceptedHandle, endpoint: int) -> None:
        waited.append(is_left_alone.wait(PATIENCE))
        clear_halt(handle, endpoint)

    waited: list[bool] = []
    monkeypatch.setattr(multi_read, "_new_poll", Poll)
    monkeypatch.setattr(InterceptedHandle, "clear_halt", wait_and_clear)
    polled.sticks[0].faults.add("stall@csw,opcode=28,times=1")
    assert_all_read(polled)
    assert waited == [True]


def test_an_error_that_was_not_taken_spoils_no_later_one(polled: Station) -> None:
    """Found by the model: after it, each error of any `read_many` of the program was a ValueError."""
    for _ in range(2):
        polled.disks[1].read(0, 1)
        polled.sticks[1].faults.add("sense=E/1D/00,opcode=28")
        with read_many(*polled.readings()[:2]) as chunks:
            next(chunks)
    polled.sticks[1].faults.add("sense=E/1D/00,opcode=28")
    assert [type(error) for error in Received(polled.readings()).errors.values()] == [scsiusb.Miscompare]


def test_a_disk_may_be_used_while_it_is_read(station: Station) -> None:
    """No lock is held while the caller has a piece: a command of the caller's comes between two of the stream's."""
    disk, content = station.disks[0], station.contents[0]
    with read_many(*station.readings()) as chunks:
        for chunk in chunks:
            assert chunk.error is None
            assert disk.read(7, 3) == content[7 * 512 : 10 * 512]


def test_another_thread_may_use_a_disk_while_the_caller_holds_a_piece(polled: Station) -> None:
    content = polled.contents[0]
    with read_many(*polled.readings()) as chunks:
        next(chunks)
        for _ in range(3):
            assert Worker(lambda: polled.disks[0].read(5, 1)).result() == content[5 * 512 : 6 * 512]
        rest = sum(len(chunk.piece) for chunk in chunks)
    assert rest > 0


def test_an_unplug_while_the_caller_holds_a_piece_reaches_every_client(polled: Station) -> None:
    gone = threading.Event()
    with open_on(polled.buses[0], on_gone=gone.set) as other:
        with read_many(*polled.readings()) as chunks:
            next(chunks)
            polled.buses[0].unplug(polled.sticks[0])
            assert gone.wait(20)
            with pytest.raises(scsiusb.DeviceGone):
                other.read(0, 1)
            errors = [chunk for chunk in chunks if chunk.error is not None]
        (error,) = errors
        assert isinstance(error.error, scsiusb.DeviceGone)
        assert error.reading.disk is polled.disks[0]


def test_closing_a_disk_in_the_loop_ends_its_stream_alone(station: Station) -> None:
    readings = station.readings()
    with read_many(*readings) as chunks:
        next(chunks)
        station.disks[1].close()
        errors = {chunk.reading: chunk.error for chunk in chunks if chunk.error is not None}
    assert list(errors) == [readings[1]]
    assert isinstance(errors[readings[1]], scsiusb.DeviceClosed)
