"""Many devices that speak UAS, read in one thread: all bytes, evenly, and none that fails delays the others."""

from __future__ import annotations

import os
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

import scsiusb
from scsiusb import Disk, read_many
from scsiusb.disk.medium import READ
from scsiusb.opening import open_on
from scsiusb.transport import recovery
from scsiusb.transport.uas import tasks
from scsiusb.usb.backend import Device
from scsiusb.virtual import Bus, Identity, Memory, Stick, VirtualHandle, bot_interface, uas_interface
from scsiusb.virtual.bus.transfers import VirtualTransfers
from tests.sticks import LongestQueue, OddUnit

if sys.platform == "win32":
    pytest.skip("there is no poll: each stream has a thread", allow_module_level=True)

DEVICES = 8
BLOCKS = 5000 + 7
CONTENTS = [bytes([number]) + os.urandom(BLOCKS * 512 - 1) for number in range(DEVICES)]


class PollableTransfers(VirtualTransfers):
    """Transfers that a poll loop may always look at."""

    def __init__(self, handle: VirtualHandle) -> None:
        super().__init__(handle)
        self.ends = os.pipe()

    def fileno(self) -> int:
        return self.ends[1]


class PollableBus(Bus):
    """A bus with one stick, whose transfers can be polled."""

    def open(self, device: Device) -> VirtualHandle:
        handle = super().open(device)
        handle.async_transfers = self.transfers = PollableTransfers(handle)
        return handle

    def close(self) -> None:
        super().close()
        for end in self.transfers.ends:
            os.close(end)


class Scene:
    """Several disks that speak UAS, and the most commands that each had in its queue."""

    def __init__(self, speed: str, held: ExitStack) -> None:
        self.contents = CONTENTS
        self.sticks = [
            Stick([OddUnit(Memory(bytearray(data)))], Identity(speed=speed), [bot_interface(), uas_interface()])
            for data in self.contents
        ]
        self.queues: list[LongestQueue] = []
        self.disks: list[Disk] = []
        for number, stick in enumerate(self.sticks):
            bus = PollableBus(stick)
            held.callback(bus.close)
            self.disks.append(held.enter_context(open_on(bus)))
            self.queues.append(LongestQueue(stick))
            assert self.disks[-1].read(0, 1) == self.contents[number][:512]

    def read(self) -> tuple[dict[int, bytes], dict[int, scsiusb.ScsiUsbError], list[int]]:
        """Read all; return the bytes and the error of each disk, and whose the chunks were."""
        data: dict[int, bytearray] = defaultdict(bytearray)
        errors: dict[int, scsiusb.ScsiUsbError] = {}
        order = []
        readings = [disk.reading(0, BLOCKS) for disk in self.disks]
        with read_many(*readings) as chunks:
            for chunk in chunks:
                number = readings.index(chunk.reading)
                order.append(number)
                data[number] += chunk.piece
                if chunk.error is not None:
                    errors[number] = chunk.error
        return {number: bytes(each) for number, each in data.items()}, errors, order


@pytest.fixture(params=[pytest.param("high", marks=pytest.mark.slow), "super"])
def scene(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr(recovery, "LEAST_CONTROL_TIMEOUT", 0.1)
    monkeypatch.setattr(tasks, "GRACE", 0.02)
    with ExitStack() as held:
        yield Scene(request.param, held)


def test_all_blocks_come_evenly_in_one_thread_with_eight_commands_in_flight(scene: Scene) -> None:
    before = set(threading.enumerate())
    data, errors, order = scene.read()
    assert data == dict(enumerate(scene.contents))
    assert errors == {}
    assert set(threading.enumerate()) == before
    assert {queue.length for queue in scene.queues} == {8}
    rounds = [order[at : at + DEVICES] for at in range(0, len(order), DEVICES)]
    assert all(sorted(each) == list(range(DEVICES)) for each in rounds), "each device has its turn"


def test_no_thread_is_started(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise AssertionError(f"{thread.name} was started")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        data, errors, _ = scene.read()
    assert (data, errors) == (dict(enumerate(scene.contents)), {})


@pytest.mark.parametrize("bad", [0, 2000, BLOCKS - 1])
def test_a_block_that_cannot_be_read_ends_its_stream_alone(scene: Scene, bad: int) -> None:
    scene.sticks[3].faults.add(f"sense=3/11/00,opcode=28,lba={bad},times=always")
    data, errors, _ = scene.read()
    expected = {number: each[: bad * 512] if number == 3 else each for number, each in enumerate(scene.contents)}
    assert data == expected
    assert {number: type(error) for number, error in errors.items()} == {3: scsiusb.MediumError}
    assert errors[3].lba == bad


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    ["stall@data", "stall@csw", "status=8", "status=40", "sense=b/00/00", "sense=6/29/00", "phase-error", "no-sense"],
)
def test_a_fault_of_one_is_recovered_from(scene: Scene, fault: str) -> None:
    scene.sticks[5].faults.add(f"{fault},opcode=28")
    data, errors, _ = scene.read()
    assert scene.sticks[5].faults.fired
    assert (data, errors) == (dict(enumerate(scene.contents)), {})


def test_one_that_is_silent_ends_by_its_timeout_and_the_others_go_on(scene: Scene) -> None:
    scene.sticks[2].faults.add("nak@csw,opcode=28,times=always")
    scene.disks[2].unit.timeout = 0.1
    data, errors, _ = scene.read()
    assert {number: type(error) for number, error in errors.items()} == {2: scsiusb.DeviceTimeout}
    assert {number: each for number, each in data.items() if number != 2} == {
        number: each for number, each in enumerate(scene.contents) if number != 2
    }


def test_one_that_is_used_by_bot_from_then_on_loses_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(READ, "timeout", 0.2)
    scene.sticks[4].faults.add("hang@csw,by=uas,opcode=28,times=always")
    data, errors, _ = scene.read()
    assert (data, errors) == (dict(enumerate(scene.contents)), {})
    assert [disk.unit.transport.info.protocol for disk in scene.disks] == ["uas"] * 4 + ["bot"] + ["uas"] * 3
    unit: Any = scene.sticks[4].units[0]
    sizes = [int.from_bytes(cdb[7:9], "big") for cdb in unit.cdbs if cdb[0] == READ.cdb(0, 1)[0]]
    assert max(sizes) <= scene.disks[4].max_blocks


def test_one_that_leaves_is_gone_and_the_others_go_on(scene: Scene) -> None:
    scene.sticks[7].faults.add("disconnect@data,opcode=28")
    data, errors, _ = scene.read()
    assert {number: type(error) for number, error in errors.items()} == {7: scsiusb.DeviceGone}
    assert all(data[number] == scene.contents[number] for number in range(7))


def test_leaving_early_ends_what_is_in_flight(scene: Scene) -> None:
    with read_many(*(disk.reading(0, BLOCKS) for disk in scene.disks)) as chunks:
        for _ in range(5):
            next(chunks)
    for disk, content in zip(scene.disks, scene.contents, strict=True):
        assert disk.read(0, BLOCKS) == content


def test_another_user_of_a_disk_is_served_meanwhile(scene: Scene) -> None:
    with read_many(*(disk.reading(0, BLOCKS) for disk in scene.disks)) as chunks:
        next(chunks)
        assert scene.disks[0].read(77, 3) == scene.contents[0][77 * 512 : 80 * 512]
        rest = sum(1 for _ in chunks)
    assert rest > DEVICES
