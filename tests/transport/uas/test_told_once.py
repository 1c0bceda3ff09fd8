"""What a UAS device says once, in a status that does not come: a reset that it may have been is counted."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

import scsiusb
from scsiusb import Disk
from scsiusb.disk.medium import PIECE
from scsiusb.opening import open_on
from scsiusb.transport import recovery
from scsiusb.transport.base import Direction
from scsiusb.transport.uas import tasks
from scsiusb.virtual import Bus, Cached, Identity, Memory, Stick, Unit, uas_interface

BLOCKS = 4096
STEP = PIECE // 512  # blocks of a command
LONG = 16 * STEP
NEW = bytes(range(256)) * 2


class Scene:
    """A disk with a volatile cache that speaks UAS, and its user."""

    def __init__(self, speed: str) -> None:
        self.inner = Memory(BLOCKS * 512)
        self.unit = Unit(Cached(self.inner, BLOCKS * 512), removable=False)
        self.stick = Stick([self.unit], Identity(speed=speed), [uas_interface(alternate=0)])
        self.bus = Bus(self.stick)

    def written(self) -> Disk:
        disk = open_on(self.bus)
        disk.read(0, 1)
        disk.write(0, NEW)
        return disk


@pytest.fixture(params=["high", "super"])
def scene(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr(recovery, "LEAST_CONTROL_TIMEOUT", 0.1)
    monkeypatch.setattr(tasks, "GRACE", 0.02)
    scene = Scene(request.param)
    yield scene
    assert not scene.bus.handles
    scene.bus.close()


@pytest.mark.parametrize("blocks", [1, LONG])
def test_a_flush_fails_after_a_status_that_may_have_been_the_report_of_a_reset(scene: Scene, blocks: int) -> None:
    """A brown-out empties the cache, and the status that says so is lost."""
    with scene.written() as disk:
        scene.unit.power_on()
        scene.stick.faults.add("nak@csw,opcode=28")
        disk.unit.timeout = 0.1
        with pytest.raises(scsiusb.DeviceTimeout):
            disk.read(0, blocks)
        disk.unit.timeout = None
        with pytest.raises(scsiusb.UnitAttention):
            disk.flush()
        disk.write(0, NEW)
        disk.flush()


def test_a_flush_fails_after_the_report_of_a_reset_to_a_command_beside_one_that_is_never_answered(scene: Scene) -> None:
    with scene.written() as disk:
        scene.unit.power_on()
        scene.stick.faults.add(f"nak@csw,opcode=28,lba={2 * STEP}")
        disk.unit.timeout = 0.1
        with pytest.raises(scsiusb.DeviceTimeout):
            disk.read(0, LONG)
        disk.unit.timeout = None
        with pytest.raises(scsiusb.UnitAttention):
            disk.flush()


def test_a_flush_fails_after_a_cancelled_read_that_may_have_met_the_report_of_a_reset(scene: Scene) -> None:
    with scene.written() as disk:
        scene.unit.power_on()
        scene.stick.faults.add("nak@csw,opcode=28")
        scope = disk.unit.transport.scope()
        timer = threading.Timer(0.05, scope.cancel)
        timer.start()
        with pytest.raises(scsiusb.Cancelled):
            scope.run(disk.read, 0, 1)
        timer.join()
        with pytest.raises(scsiusb.UnitAttention):
            disk.flush()


def test_a_flush_succeeds_after_a_status_that_was_no_report_as_data_came_before_it(scene: Scene) -> None:
    with scene.written() as disk:
        scene.stick.faults.add("nak@csw,opcode=28")
        disk.unit.timeout = 0.1
        with pytest.raises(scsiusb.DeviceTimeout):
            disk.read(0, 1)
        disk.unit.timeout = None
        disk.flush()
    assert scene.inner.data[:512] == NEW


def test_the_sense_of_a_unit_is_kept_while_another_unit_is_used(scene: Scene) -> None:
    stick = Stick(
        [Unit(Memory(512), removable=False) for _ in range(2)], scene.stick.identity, [uas_interface(alternate=0)]
    )
    bus = Bus(stick)
    with open_on(bus) as disk, open_on(bus, lun=1) as other:
        for each in (disk, other):
            each.read(0, 1)
        stick.units[0].power_on()
        transport = disk.unit.transport
        before = disk.unit.resets

        turn = transport.turn()
        turn.enter()
        test_unit_ready = transport.exchange(0, bytes(6), Direction.NONE, memoryview(b""), 1.0)
        assert transport.drive(test_unit_ready).status, "refused, and Ctrl-C comes before its sense is fetched"
        disk.unit.attentions.count_loss()
        turn.leave()
        other.read(0, 1)
        disk.read(0, 1)
        assert disk.unit.resets > before
    bus.close()
