"""Cancelling ends the commands of one call or one stream, and no others on the same disk."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

from scsiusb import DeviceClosed, DeviceGone, Disk, open_on, read_many
from scsiusb.disk.aio import AsyncDisk
from scsiusb.errors import Cancelled
from scsiusb.manager.scope import CURRENT
from scsiusb.usb.backend import Code
from tests.disk.polling import PolledBus
from tests.manager.test_sharing import unplug
from tests.sticks import CBW_LENGTH, PATIENCE, Answer, InterceptedBus, Wire, Worker, stick, wait_until

READ_10 = 0x28
BLOCKS = 2048


class Hang:
    """Makes the data phase of the READ(10) of one LBA wait until it is interrupted or let go on."""

    def __init__(self, bus: InterceptedBus, lba: int) -> None:
        self._bus = bus
        self._lba = lba
        self._at = -1
        self.began = threading.Event()
        self.goes_on = threading.Event()
        bus.wire.intercept = self._intercept

    def _intercept(self, wire: Wire, endpoint: int, buffer: memoryview) -> Answer | None:
        if wire.log[-1].startswith("cbw") and len(buffer) == CBW_LENGTH:
            self._at = int.from_bytes(buffer[17:21], "big")
        if wire.opcode != READ_10 or self._at != self._lba or not endpoint & 0x80 or len(buffer) < 512:
            return None
        self.began.set()
        while not self.goes_on.wait(0.002):
            (handle,) = self._bus.handles
            if handle._token.own_code is not None:
                return handle._token.own_code, 0
        return None

    def read(self, disk: Disk) -> Worker:
        """Begin to read the block, in another thread."""
        worker = Worker(lambda: disk.read(self._lba, 1))
        assert self.began.wait(PATIENCE)
        return worker


@pytest.fixture
def bus() -> Iterator[InterceptedBus]:
    bus = InterceptedBus(stick(BLOCKS))
    yield bus
    assert not bus.handles
    assert threading.active_count() == 1


@pytest.fixture
def disk(bus: InterceptedBus) -> Iterator[Disk]:
    with open_on(bus) as disk:
        disk.max_blocks = 64
        disk.read(0, 1)
        yield disk


def number(block: object) -> int:
    assert isinstance(block, (bytes, memoryview))
    return int.from_bytes(block[:4], "big")


def read_all(disk: Disk) -> int:
    with disk.reading(0, BLOCKS) as pieces:
        return sum(len(piece) // 512 for piece in pieces)


@pytest.mark.slow
def test_a_stream_that_is_left_early_does_not_end_a_read_of_another_thread(bus: InterceptedBus, disk: Disk) -> None:
    """The stream's thread waits for its turn then; another stream reads all."""
    hang = Hang(bus, 1999)
    worker = hang.read(disk)
    other = Worker(lambda: read_all(disk))
    waiting = disk.unit.transport._turns.waiting  # type: ignore[attr-defined]
    with disk.reading(0, BLOCKS) as pieces:
        pieces.start()
        wait_until(lambda: len(waiting) == 2)
    assert worker.is_alive()
    hang.goes_on.set()
    assert number(worker.result()) == 1999
    assert other.result() == BLOCKS


@pytest.mark.slow
def test_the_command_of_a_stream_that_is_left_early_is_ended(bus: InterceptedBus, disk: Disk) -> None:
    hang = Hang(bus, 64)
    with disk.reading(0, BLOCKS) as pieces:
        assert number(next(pieces)) == 0
        assert hang.began.wait(PATIENCE)
        worker = Worker(lambda: disk.read(7, 1))
        other = Worker(lambda: disk.read(8, 1))
    assert not hang.goes_on.is_set()
    assert [number(each.result()) for each in (worker, other)] == [7, 8]
    assert "port reset" not in bus.wire.log


def test_a_cancelled_call_of_asyncio_does_not_end_a_read_of_a_thread(bus: InterceptedBus) -> None:
    async def main() -> None:
        async with AsyncDisk(lambda: open_on(bus)) as disk:
            await disk.read(0, 1)
            hang = Hang(bus, 1999)
            worker = await asyncio.to_thread(hang.read, disk.disk)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(disk.read(5, 1), 0.05)
            assert worker.is_alive()
            hang.goes_on.set()
            assert number(await asyncio.to_thread(worker.result)) == 1999
            assert number(await disk.read(6, 1)) == 6

    asyncio.run(main())


@pytest.mark.parametrize(
    ("end", "error"),
    [(lambda bus, disk: disk.close(), DeviceClosed), (lambda bus, disk: unplug(bus), DeviceGone)],
    ids=["closed", "unplugged"],
)
def test_a_stream_ends_with_its_disk(
    bus: InterceptedBus, disk: Disk, end: Callable[[InterceptedBus, Disk], object], error: type[Exception]
) -> None:
    hang = Hang(bus, 64)
    with disk.reading(0, BLOCKS) as pieces:
        next(pieces)
        assert hang.began.wait(PATIENCE)
        end(bus, disk)
        with pytest.raises(error):
            next(pieces)


def test_an_outer_scope_ends_an_inner_one_and_not_the_other_way_round(disk: Disk) -> None:
    transport = disk.unit.transport
    outer = transport.scope()

    def call() -> None:
        inner = transport.scope()
        inner.cancel()
        with pytest.raises(Cancelled):
            inner.run(disk.read, 1, 1)
        assert number(disk.read(1, 1)) == 1
        another = transport.scope()
        outer.cancel()
        with pytest.raises(Cancelled):
            disk.read(1, 1)
        with pytest.raises(Cancelled):
            another.run(disk.read, 1, 1)

    outer.run(call)
    assert number(disk.read(1, 1)) == 1


def test_a_stream_that_was_begun_in_a_cancelled_call_ends_with_it(bus: InterceptedBus, disk: Disk) -> None:
    call = disk.unit.transport.scope()
    hang = Hang(bus, 64)
    worker = Worker(lambda: call.run(read_all, disk))
    assert hang.began.wait(PATIENCE)
    call.cancel()
    with pytest.raises(Cancelled):
        worker.result()


def test_scopes_of_different_disks_may_be_nested(bus: InterceptedBus, disk: Disk) -> None:
    with open_on(bus) as other:
        inner, outer = disk.unit.transport.scope(), other.unit.transport.scope()
        outer.cancel()

        def call() -> None:
            assert number(disk.read(1, 1)) == 1
            with pytest.raises(Cancelled):
                other.read(1, 1)

        outer.run(inner.run, call)
        assert CURRENT.get() == ()


def test_a_failed_command_of_a_scope_raises_its_own_error(bus: InterceptedBus, disk: Disk) -> None:
    bus.wire.intercept = lambda wire, endpoint, buffer: (Code.NO_DEVICE, 0)
    with pytest.raises(DeviceGone):
        disk.unit.transport.scope().run(disk.read, 1, 1)


@pytest.mark.slow
def test_leaving_many_streams_does_not_wait_for_a_read_of_another_thread() -> None:
    """The story of one is then in the hands of a thread that waits for the turn."""
    bus, another = PolledBus(stick(BLOCKS)), PolledBus(stick(BLOCKS))
    with open_on(bus) as disk, open_on(another) as healthy:
        disk.read(0, 1)
        healthy.read(0, 1)
        hang = Hang(bus, 1999)
        worker = hang.read(disk)
        with read_many(disk.reading(0, BLOCKS), healthy.reading(0, BLOCKS)) as chunks:
            assert next(chunks).reading.disk is healthy
            wait_until(lambda: disk.unit.transport._turns.waiting)  # type: ignore[attr-defined]
        assert worker.is_alive()
        hang.goes_on.set()
        assert number(worker.result()) == 1999
    bus.close()
    another.close()
