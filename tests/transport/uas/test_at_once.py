"""Several reads in flight: the data of each, those that fail, changes of the medium, and who is told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

import scsiusb
from scsiusb import Disk
from scsiusb.disk.aio import AsyncDisk
from scsiusb.disk.medium import PIECE
from scsiusb.opening import open_on
from scsiusb.transport import recovery
from scsiusb.transport.uas import tasks
from scsiusb.virtual import Bus, Identity, Memory, Stick, Unit, bot_interface, uas_interface
from scsiusb.virtual.target.task import Task
from tests.sticks import LongestQueue, wait_until

BLOCKS = 8192
DATA = random.Random(1).randbytes(BLOCKS * 512)
OTHER = random.Random(2).randbytes(BLOCKS * 512)
READ_10 = 0x28
LARGE = 4 * PIECE // 512  # blocks: several commands


class Scene:
    """A removable disk that speaks UAS; something may be done to it before its n-th READ."""

    def __init__(self, speed: str) -> None:
        self.unit = ChangingUnit(Memory(bytearray(DATA)))
        self.stick = Stick([self.unit], Identity(speed=speed), [uas_interface(alternate=0)])
        self.bus = Bus(self.stick)

    def open(self, **options: Any) -> Disk:
        disk = open_on(self.bus, **options)
        disk.read(0, 1)  # the look for a block by which the medium is known comes before this
        return disk


class ChangingUnit(Unit):
    """A unit whose medium is exchanged before its READ number `change_at`."""

    change_at = 0
    reads = 0

    def execute(self, cdb: bytes) -> Task:
        if cdb[0] == READ_10:
            self.reads += 1
            if self.reads == self.change_at:
                self.eject()
                self.insert(Memory(bytearray(OTHER)))
        return super().execute(cdb)


@pytest.fixture(params=[pytest.param("high", marks=pytest.mark.slow), "super"])
def scene(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr(recovery, "LEAST_CONTROL_TIMEOUT", 0.1)
    monkeypatch.setattr(tasks, "GRACE", 0.02)
    scene = Scene(request.param)
    yield scene
    assert not scene.bus.handles
    scene.bus.close()


def block(lba: int, blocks: int = 1, data: bytes = DATA) -> bytes:
    return data[lba * 512 : (lba + blocks) * 512]


def test_a_large_read_is_divided_and_put_together(scene: Scene) -> None:
    with scene.open() as disk:
        before = scene.unit.reads
        assert disk.read(3, LARGE) == block(3, LARGE)
        assert scene.unit.reads - before in (4, 5), "at high speed a command is a little smaller"
        assert disk.read(0, BLOCKS) == DATA
        buffer = bytearray(LARGE * 512)
        disk.readinto(BLOCKS - LARGE, buffer)
        assert buffer == block(BLOCKS - LARGE, LARGE)


def test_several_commands_are_in_flight(scene: Scene) -> None:
    with scene.open() as disk:
        queue = LongestQueue(scene.stick)
        disk.read(0, BLOCKS)
        assert queue.length == disk.unit.transport.depth > 10


def test_many_places_are_read_with_their_numbers(scene: Scene) -> None:
    choice = random.Random(3)
    requests = [(choice.randrange(BLOCKS - 700), choice.choice((0, 1, 7, 8, 256, 700))) for _ in range(300)]
    with scene.open() as disk:
        found = dict(disk.read_many(iter(requests)))
    assert found == {number: block(*request) for number, request in enumerate(requests)}


def test_a_stream_reads_ahead_in_large_pieces(scene: Scene) -> None:
    with scene.open() as disk, disk.reading(5, BLOCKS - 5) as pieces:
        assert b"".join(bytes(piece) for piece in pieces) == block(5, BLOCKS - 5)


@pytest.mark.parametrize(
    "fault",
    [
        "stall@data",
        "short=512@data",
        "empty@data",
        "long@data",
        "csw-as-data",
        "nak@csw",
        "stall@csw",
        "tag=77@csw",
        "status=8",
        "status=40",
        "no-sense",
        "sense=b/00/00",
        "sense=3/11/00",
        "phase-error",
    ],
)
@pytest.mark.parametrize("which", [pytest.param(0, marks=pytest.mark.slow), 2, pytest.param(9, marks=pytest.mark.slow)])
def test_one_that_fails_is_read_again_alone(scene: Scene, fault: str, which: int) -> None:
    with scene.open() as disk:
        scene.stick.faults.add(f"{fault},opcode=28,lba={which * PIECE // 512}")
        if fault == "nak@csw" or (fault == "tag=77@csw" and scene.stick.identity.speed == "high"):
            disk.unit.timeout = 0.1
            with pytest.raises(scsiusb.DeviceTimeout):
                disk.read(0, 3000)
            disk.unit.timeout = None
        else:
            assert disk.read(0, 3000) == block(0, 3000)
        assert scene.stick.faults.fired
        assert disk.read(0, BLOCKS) == DATA


def test_a_read_that_meets_a_reservation_is_no_success_although_data_came(scene: Scene) -> None:
    with scene.open() as disk:
        scene.stick.faults.add(f"status=24,opcode=28,lba={2 * PIECE // 512},times=always")
        with pytest.raises(scsiusb.DeviceBusy, match="reserved"):
            disk.read(0, 3000)


def test_a_block_that_cannot_be_read_is_named_and_what_is_before_it_is_there(scene: Scene) -> None:
    bad = 1000
    with scene.open() as disk:
        scene.stick.faults.add(f"sense=3/11/00,opcode=28,lba={bad},times=always")
        buffer = bytearray(3000 * 512)
        with pytest.raises(scsiusb.MediumError) as failure:
            disk.readinto(0, buffer)
        assert failure.value.lba == bad
        assert buffer[: bad * 512] == block(0, bad)


@pytest.mark.parametrize("change_at", range(1, 17, 3))
def test_no_block_of_another_medium_is_ever_given(scene: Scene, change_at: int) -> None:
    """The commands after the change are carried out on the other medium, with good status."""
    with scene.open() as disk:
        scene.unit.reads, scene.unit.change_at = 0, change_at
        buffer = bytearray(BLOCKS // 2 * 512)
        with pytest.raises(scsiusb.MediumChanged):
            disk.readinto(0, buffer)
        for lba in range(BLOCKS // 2):
            assert block(0, data=bytes(buffer[lba * 512 : lba * 512 + 512])) in (block(lba), bytes(512)), lba
        assert disk.read(0, BLOCKS) == OTHER, "the error has been told: the next call means the new medium"


def test_many_places_end_with_the_change_of_the_medium(scene: Scene) -> None:
    with scene.open() as disk:
        scene.unit.reads, scene.unit.change_at = 0, 30
        seen: list[tuple[int, bytes]] = []
        with pytest.raises(scsiusb.MediumChanged):
            seen.extend(disk.read_many((lba, 8) for lba in range(0, BLOCKS - 8, 8)))
        assert seen == [(number, block(8 * number, 8)) for number in range(len(seen))]


@pytest.mark.parametrize("fault", ["disconnect@data", "disconnect@csw", "disconnect@cbw"])
def test_a_device_that_leaves_in_the_middle_is_gone_once(scene: Scene, fault: str) -> None:
    gone: list[object] = []
    with scene.open(on_gone=gone.append) as disk:
        scene.stick.faults.add(fault)
        with pytest.raises(scsiusb.DeviceGone):
            disk.read(0, BLOCKS)
        with pytest.raises(scsiusb.DeviceGone):
            disk.read(0, 1)
        wait_until(lambda: gone)
    assert len(gone) == 1


def test_requests_beyond_the_medium_are_refused_before_their_batch_is_sent(scene: Scene) -> None:
    with scene.open() as disk:
        before = scene.unit.reads
        with pytest.raises(scsiusb.OutOfRange):
            list(disk.read_many([(0, 1), (BLOCKS, 1)]))
        assert scene.unit.reads == before


def test_by_bot_the_same_comes_one_after_the_other() -> None:
    bus = Bus(Stick([Unit(Memory(bytearray(DATA)))], interfaces=[bot_interface()]))
    with open_on(bus) as disk:
        assert disk.unit.transport.depth == 1
        assert list(disk.read_many([(5, 2), (0, 1), (7, 600)])) == [
            (0, block(5, 2)),
            (1, block(0)),
            (2, block(7, 600)),
        ]


def test_many_places_are_read_from_asyncio(scene: Scene) -> None:
    requests = [(lba, 3) for lba in range(0, 3000, 7)]

    async def read() -> dict[int, bytes]:
        async with AsyncDisk(lambda: open_on(scene.bus)) as disk:
            return {number: data async for number, data in disk.read_many(requests)}

    assert asyncio.run(read()) == {number: block(*request) for number, request in enumerate(requests)}


def test_a_change_of_the_medium_is_told_to_asyncio_once(scene: Scene) -> None:
    async def read() -> list[int]:
        seen = []
        async with AsyncDisk(scene.open) as disk:
            scene.unit.reads, scene.unit.change_at = 0, 30
            with pytest.raises(scsiusb.MediumChanged):
                async for number, _ in disk.read_many((lba, 8) for lba in range(0, BLOCKS - 8, 8)):
                    seen.append(number)
            assert await disk.read(0, 1) == OTHER[:512]
        return seen

    seen = asyncio.run(read())
    assert seen == list(range(len(seen)))


def test_a_device_with_little_room_gets_fewer_commands_at_once(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scsiusb.virtual.device.uas.MOST_TASKS", 3)
    places = [(at * 8, 8) for at in range(200)]
    with scene.open() as disk:
        before = disk.unit.transport.depth
        for _ in range(2):
            found = dict(disk.read_many(places))
            assert all(
                data == DATA[lba * 512 : (lba + 8) * 512] for (lba, _), data in zip(places, found.values(), strict=True)
            )
        assert 1 <= disk.unit.transport.depth <= 4 < before
        reads = scene.unit.reads
        dict(disk.read_many(places))
        assert scene.unit.reads == reads + len(places), "none was refused any more"


def test_after_many_commands_were_aborted_what_is_still_under_way_is_waited_for_once(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quarter second for each of them made a cancelled read last for seconds."""
    drained: list[int] = []
    drain = tasks.Tasks.drain

    def counted(self: tasks.Tasks, tags: Sequence[int]) -> None:
        drained.append(len(tags))
        drain(self, tags)

    monkeypatch.setattr(tasks.Tasks, "drain", counted)
    with scene.open() as disk:
        scene.stick.faults.add("nak@data,opcode=28,times=always")
        disk.unit.timeout = 0.1
        with pytest.raises(scsiusb.DeviceTimeout):
            disk.read(0, BLOCKS)
        scene.stick.faults.clear()
        (tags,) = drained
        assert tags > 10
        disk.unit.timeout = None
        assert disk.read(0, BLOCKS) == DATA
