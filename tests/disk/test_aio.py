"""Disks for asyncio: correct data, one call at a time, and a disk that stays usable after a cancellation."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

import pytest

import scsiusb
from scsiusb import ledger
from scsiusb.disk.aio import AsyncDisk
from scsiusb.opening import open_on
from scsiusb.scsi.sense import Sense
from scsiusb.usb.backend import Code
from scsiusb.virtual import Bus
from tests.sticks import PATIENCE, InterceptedBus, Wire, stick

READ_10 = 0x28


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 20))


def on(bus: Bus) -> AsyncDisk:
    return AsyncDisk(lambda: open_on(bus))


class Hang:
    """Makes the data phase of READ(10) wait until the handle is interrupted."""

    def __init__(self, bus: InterceptedBus) -> None:
        self._bus = bus
        self.began = threading.Event()
        self.is_on = True
        bus.wire.intercept = self.intercept

    def intercept(self, wire: Wire, endpoint: int, buffer: memoryview) -> tuple[Code, int] | None:
        if wire.opcode != READ_10 or not self.is_on or not endpoint & 0x80:
            return None
        self.began.set()
        (handle,) = self._bus.handles
        while handle._token.own_code is None:
            threading.Event().wait(0.005)
        return Code.INTERRUPTED, 0


async def began(hang: Hang) -> None:
    assert await asyncio.to_thread(hang.began.wait, PATIENCE)


def test_several_tasks_get_their_data() -> None:
    async def main() -> None:
        async with on(Bus(stick())) as disk:
            assert await disk.medium() == (2048, 512)
            blocks = await asyncio.gather(*(disk.read(lba, 1) for lba in range(50)))
            assert [int.from_bytes(block[:4], "big") for block in blocks] == list(range(50))
            await disk.write(7, bytes(512))
            await disk.flush()
            buffer = bytearray(512)
            assert await disk.readinto(7, buffer) == 1
            assert buffer == bytes(512)
            assert (await disk.inquiry()).vendor

    run(main())


def test_the_device_is_released_at_the_end() -> None:
    bus = Bus(stick())

    async def main() -> None:
        async with on(bus) as disk:
            await disk.read(0, 1)
            assert bus.handles
        await disk.aclose()
        with pytest.raises(RuntimeError, match="async with"):
            await disk.read(0, 1)

    run(main())
    assert not bus.handles
    assert bus.driver(bus.devices()[0], 0) == "usb-storage"


def test_a_cancelled_read_recovers_the_device_and_the_disk_stays_usable() -> None:
    bus = InterceptedBus(stick())

    async def main() -> None:
        async with on(bus) as disk:
            await disk.medium()
            hang = Hang(bus)
            task = asyncio.create_task(disk.read(0, 8))
            await began(hang)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert bus.wire.log[-3:] == ["request ff", "clear in", "clear out"]
            hang.is_on = False
            assert int.from_bytes((await disk.read(9, 1))[:4], "big") == 9

    run(main())


def test_a_call_cancelled_while_it_waits_is_not_started_and_the_running_one_continues() -> None:
    bus = InterceptedBus(stick())

    async def main() -> None:
        async with on(bus) as disk:
            await disk.medium()
            hang = Hang(bus)
            first = asyncio.create_task(disk.read(0, 8))
            await began(hang)
            second = asyncio.create_task(disk.write(0, bytes(512)))
            await asyncio.sleep(0)
            second.cancel()
            await asyncio.sleep(0)
            first.cancel()
            for task in (first, second):
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert "cbw 2a" not in bus.wire.log

    run(main())


def test_a_timeout_of_asyncio_cancels_too() -> None:
    bus = InterceptedBus(stick())

    async def main() -> None:
        async with on(bus) as disk:
            await disk.medium()
            hang = Hang(bus)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(disk.read(0, 8), 0.05)
            hang.is_on = False
            assert len(await disk.read(0, 8)) == 8 * 512

    run(main())


def test_an_unplug_is_an_error_and_closing_then_raises_nothing() -> None:
    bus = Bus(stick())

    async def main() -> None:
        async with on(bus) as disk:
            await disk.read(0, 1)
            bus.unplug(bus.devices()[0])
            with pytest.raises(scsiusb.DeviceGone):
                await disk.read(0, 1)

    run(main())


def test_a_failed_open_leaves_no_thread() -> None:
    async def main() -> None:
        with pytest.raises(scsiusb.DeviceNotFound):
            async with on(Bus()):
                pass

    run(main())
    assert not [thread for thread in threading.enumerate() if "scsiusb" in thread.name]


def test_aopen_takes_the_selectors_of_open() -> None:
    async def main() -> None:
        async with scsiusb.aopen("virtual:") as disk:
            assert (await disk.read(0, 1))[510:] == b"\x55\xaa"

    run(main())


def test_resources_acquired_in_the_disks_thread_have_the_place_of_the_caller_in_the_ledger() -> None:
    async def main() -> None:
        async with on(Bus(stick())):
            places = {entry.place for entry in ledger.outstanding() if entry.kind in ("client", "claim", "thread")}
            assert {place.partition(":")[0] for place in places} <= {"test_aio.py"}

    run(main())


@pytest.mark.parametrize(
    "error", [scsiusb.MediumChanged("swapped", Sense(6, 0x28, 0)), scsiusb.DeviceGone("unplugged")]
)
def test_what_a_cancelled_call_was_told_is_raised_by_the_next(
    monkeypatch: pytest.MonkeyPatch, error: scsiusb.ScsiUsbError
) -> None:
    """Found by the model: the change was lost with the call, and the next read gave the other medium's blocks."""

    async def body() -> None:
        started, goes_on = threading.Event(), threading.Event()

        def fail(lba: int, blocks: int) -> bytes:
            started.set()
            goes_on.wait(PATIENCE)
            raise error

        async with on(Bus(stick())) as disk:
            with monkeypatch.context() as patched:
                patched.setattr(disk.disk, "read", fail)
                reading = asyncio.create_task(disk.read(0, 1))
                await asyncio.to_thread(started.wait)
                reading.cancel()
                asyncio.get_running_loop().call_later(0.01, goes_on.set)
                with pytest.raises(asyncio.CancelledError):
                    await reading
            with pytest.raises(type(error)):
                await disk.read(0, 1)
            assert len(await disk.read(0, 1)) == 512

    run(body())


def test_closing_raises_that_the_device_had_gone_when_a_call_was_cancelled() -> None:
    async def body() -> None:
        disk = on(Bus(stick()))
        await disk.__aenter__()
        disk._untold = scsiusb.DeviceGone("unplugged")
        with pytest.raises(scsiusb.DeviceGone):
            await disk.aclose()

    run(body())
