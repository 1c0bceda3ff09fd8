"""Several writes in flight: what is on the medium, those that fail, resets, and media that can be exchanged."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

import scsiusb
from scsiusb.disk.medium import PIECE
from scsiusb.imaging import restore
from scsiusb.opening import open_on
from scsiusb.scsi.retry import NO_RETRY
from scsiusb.transport import recovery
from scsiusb.transport.uas import tasks
from scsiusb.virtual import Bus, Cached, Flawed, Identity, Medium, Memory, Stick, Unit, uas_interface
from tests.sticks import LongestQueue, wait_until

BLOCKS = 8192
STEP = PIECE // 512  # blocks of a command
NEW = random.Random(1).randbytes(BLOCKS * 512)
OLD = random.Random(2).randbytes(BLOCKS * 512)


class Scene:
    """A disk that speaks UAS, and the most commands that it had in its queue."""

    def __init__(self, speed: str, medium: Medium | None = None, *, removable: bool = False) -> None:
        self.data = bytearray(OLD)
        self.stick = Stick(
            [Unit(medium or Memory(self.data), removable=removable)],
            Identity(speed=speed),
            [uas_interface(alternate=0)],
        )
        self.bus = Bus(self.stick)
        self._queue = LongestQueue(self.stick)

    @property
    def longest(self) -> int:
        return self._queue.length


@pytest.fixture(params=["high", "super"])
def speed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(recovery, "LEAST_CONTROL_TIMEOUT", 0.1)
    monkeypatch.setattr(tasks, "GRACE", 0.02)
    return str(request.param)


@pytest.fixture
def scene(speed: str) -> Iterator[Scene]:
    scene = Scene(speed)
    yield scene
    assert not scene.bus.handles
    scene.bus.close()


def test_a_large_write_is_divided_and_its_parts_are_in_flight_at_once(scene: Scene) -> None:
    with open_on(scene.bus) as disk:
        assert disk.write(3, NEW[: 3000 * 512]) == 3000
        assert disk.read(3, 3000) == NEW[: 3000 * 512]
        disk.write(0, NEW)
        assert 10 < scene.longest <= disk.unit.transport.depth
    assert scene.data == NEW


def test_a_stream_writes_with_commands_in_flight(scene: Scene) -> None:
    with open_on(scene.bus) as disk:
        with disk.writing(5) as stream:
            for at in range(5 * 512, len(NEW), 100_000):
                stream.write(NEW[at : at + 100_000])
        assert scene.longest > 10
    assert scene.data == OLD[: 5 * 512] + NEW[5 * 512 :]


def test_a_medium_that_can_be_exchanged_gets_one_write_at_a_time(speed: str) -> None:
    """A device that reports a change to one command carries out those after it on the new medium."""
    scene = Scene(speed, removable=True)
    with open_on(scene.bus) as disk:
        disk.write(0, NEW)
        with disk.writing(0) as stream:
            stream.write(NEW)
    assert scene.data == NEW
    assert scene.longest == 1


def test_nothing_is_written_twice_where_that_is_forbidden(scene: Scene) -> None:
    with open_on(scene.bus) as disk:
        disk.unit.retry = NO_RETRY
        disk.write(0, NEW)
    assert scene.data == NEW
    assert scene.longest == 1


@pytest.mark.parametrize(
    "fault",
    [
        "stall@data",
        "short=512@data",
        "nak@csw",
        "stall@csw",
        "tag=77@csw",
        "status=8",
        "status=40",
        "no-sense",
        "sense=b/00/00",
        "sense=4/44/00",
        "phase-error",
    ],
)
@pytest.mark.parametrize("which", [pytest.param(0, marks=pytest.mark.slow), 2, pytest.param(9, marks=pytest.mark.slow)])
def test_one_that_fails_is_written_again_alone(scene: Scene, fault: str, which: int) -> None:
    with open_on(scene.bus) as disk:
        disk.read(0, 1)
        scene.stick.faults.add(f"{fault},opcode=2a,lba={which * STEP}")
        if fault == "nak@csw" or (fault == "tag=77@csw" and scene.stick.identity.speed == "high"):
            disk.unit.timeout = 0.1
            with pytest.raises(scsiusb.DeviceTimeout) as failure:
                disk.write(0, NEW)
            assert failure.value.lba == 0, "of those in flight, any may be written or not"
            disk.unit.timeout = None
            disk.write(0, NEW)
        else:
            assert disk.write(0, NEW) == BLOCKS
        assert scene.stick.faults.fired
        disk.flush()
    assert scene.data == NEW


def test_a_write_that_meets_a_reservation_is_no_success_although_the_device_took_its_data(scene: Scene) -> None:
    with open_on(scene.bus) as disk:
        disk.read(0, 1)
        scene.stick.faults.add(f"status=24,opcode=2a,lba={2 * STEP},times=always")
        with pytest.raises(scsiusb.DeviceBusy, match="reserved"):
            disk.write(0, NEW)


@pytest.mark.parametrize("bad", [0, 1000, BLOCKS - 1])
def test_a_block_that_cannot_be_written_is_named_and_what_is_before_it_is_written(speed: str, bad: int) -> None:
    data = bytearray(OLD)
    scene = Scene(speed, Flawed(Memory(data), bad=[(bad, bad)]))
    with open_on(scene.bus) as disk:
        with pytest.raises(scsiusb.MediumError) as failure:
            disk.write(0, NEW)
        assert failure.value.lba == bad
    assert data[: bad * 512] == NEW[: bad * 512]
    assert data[bad * 512 :][:512] == OLD[bad * 512 :][:512]


@pytest.mark.parametrize(
    "which", [1, pytest.param(20, marks=pytest.mark.slow), pytest.param(60, marks=pytest.mark.slow)]
)
def test_what_a_reset_may_have_lost_is_written_again(speed: str, which: int) -> None:
    inner = bytearray(OLD)
    scene = Scene(speed, Cached(Memory(inner), BLOCKS * 512))
    with open_on(scene.bus) as disk:
        disk.read(0, 1)
        scene.stick.faults.add(f"hang@data,opcode=2a,lba={which * STEP}")
        disk.unit.timeout = None
        scene.stick.faults.add(f"sense=6/29/00,opcode=2a,lba={which * STEP}")
        disk.unit.timeout = 0.2
        try:
            disk.write(0, NEW)
        except scsiusb.ScsiUsbError:  # a timeout that was given is an answer
            disk.write(0, NEW)
        disk.unit.timeout = None
        disk.flush()
    assert inner == NEW


@pytest.mark.parametrize("fault", ["disconnect@data", "disconnect@csw", "disconnect@cbw"])
def test_a_device_that_leaves_in_the_middle_is_gone_once(scene: Scene, fault: str) -> None:
    gone: list[object] = []
    with open_on(scene.bus, on_gone=gone.append) as disk:
        scene.stick.faults.add(f"{fault},opcode=2a")
        with pytest.raises(scsiusb.DeviceGone):
            disk.write(0, NEW)
        wait_until(lambda: gone)
    assert len(gone) == 1


def test_an_error_of_a_stream_names_the_first_block_that_may_not_be_written(speed: str) -> None:
    data, bad = bytearray(OLD), 5000
    scene = Scene(speed, Flawed(Memory(data), bad=[(bad, bad)]))
    with open_on(scene.bus) as disk, pytest.raises(scsiusb.MediumError) as failure, disk.writing(0) as stream:
        stream.write(NEW)
    assert failure.value.lba == bad
    assert data[: bad * 512] == NEW[: bad * 512]


def test_an_image_is_restored_and_verified_with_commands_in_flight(scene: Scene, tmp_path: Any) -> None:
    (tmp_path / "a.img").write_bytes(NEW)
    with open_on(scene.bus) as disk:
        (done,) = restore(tmp_path / "a.img", disk)
    assert done.verified == "medium"
    assert scene.data == NEW
    assert scene.longest >= 8, "a MiB at a time"
