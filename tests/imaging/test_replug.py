"""A restore that asks for a re-plug reads back what was kept without power, of the same device only."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

import scsiusb
from scsiusb.errors import (
    DeviceBusy,
    DeviceClosed,
    DeviceGone,
    DeviceMismatch,
    DeviceNotFound,
    DeviceTimeout,
    Miscompare,
)
from scsiusb.imaging import Progress, SomeFailed, TargetsProgress, clone, replugging, restore
from scsiusb.virtual import Bus, Cached, Flawed, Identity, Medium, Memory, Sparse, Stick, Unit
from tests.imaging.sticks import Stop

BLOCKS = 512
SIZE = BLOCKS * 512
IMAGE = random.Random(7).randbytes(SIZE)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replugging, "POLL", 0.001)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.img"
    path.write_bytes(IMAGE)
    return path


def stick(medium: Medium, serial: str = "S1") -> Stick:
    return Stick([Unit(medium, removable=False)], Identity(serial=serial))


class Kept(Cached):
    """A cache that a reset does not empty, but a loss of power does."""

    def __init__(self, inner: Medium) -> None:
        super().__init__(inner, SIZE, is_lasting=True)

    def lose_power(self) -> None:
        self._cache.clear()


class Person:
    """Unplugs each stick when told so, then plugs in `instead`, if it is given, or the same; a `progress`."""

    def __init__(self, bus: Bus, *sticks: Stick, instead: Stick | None = None) -> None:
        self.bus, self.sticks, self.instead = bus, sticks, instead
        self.plugged: list[Stick] = []
        self.seen: list[tuple[str, ...]] = []

    def __call__(self, progress: Progress) -> None:
        assert isinstance(progress, TargetsProgress)
        phases = tuple(each.phase for each in progress.targets)
        if not self.seen or self.seen[-1] != phases:
            self.seen.append(phases)
        if progress.phase != "re-plug":
            return
        for each, target in zip(self.sticks, progress.targets, strict=True):
            self.act(each, target.phase)

    def act(self, each: Stick, phase: str) -> None:
        if phase == "unplug":
            self.bus.unplug(each)
            medium = each.units[0].medium
            if isinstance(medium, Kept):
                medium.lose_power()
        elif phase == "plug in" and each not in self.plugged:
            self.plugged.append(each)
            self.bus.plug(self.instead or each)


def by_serial(bus: Bus) -> Callable[[scsiusb.Disk], scsiusb.Disk]:
    return lambda disk: scsiusb.open_on(bus, f"serial={disk.unit.transport.info.serial}")


def test_what_a_reset_does_not_show_is_found(image: Path) -> None:
    medium = Kept(Flawed(Sparse(BLOCKS), dropped=[(100, 109)]))
    one = stick(medium)
    bus = Bus(one)
    with scsiusb.open_on(bus) as disk:
        restore(image, disk)  # it answers from its cache, as a reset of the port does not empty that
        with pytest.raises(Miscompare) as caught:
            restore(image, disk, replug=by_serial(bus), progress=Person(bus, one))
    assert caught.value.lba == 100
    assert bus.handles == ()


def test_an_honest_stick_is_right(image: Path) -> None:
    data = bytearray(SIZE)
    one = stick(Memory(data))
    bus = Bus(one)
    person = Person(bus, one)
    with scsiusb.open_on(bus) as disk:
        (result,) = restore(image, disk, replug=by_serial(bus), progress=person)
    assert (result.verified, result.error, result.address, bytes(data)) == ("medium", None, "1-1", IMAGE)
    phases = [phase for (phase,) in person.seen]
    order = ["unplug", "plug in", "waiting", "verifying"]
    assert [phase for phase in phases[phases.index("unplug") :] if phase in order][:4] == order
    assert [path.name for path in image.parent.iterdir()] == ["a.img"]


def test_a_clone_is_read_back_after_a_replug() -> None:
    data = bytearray(SIZE)
    one = stick(Memory(data), "COPY")
    bus = Bus(stick(Memory(bytearray(IMAGE)), "MASTER"), one)
    with scsiusb.open_on(bus, "serial=MASTER") as master, scsiusb.open_on(bus, "serial=COPY") as disk:
        clone(master, disk, replug=by_serial(bus), progress=Person(bus, one))
    assert bytes(data) == IMAGE


def test_another_stick_is_refused_and_untouched(image: Path) -> None:
    other = bytearray(b"\x77" * SIZE)
    one = stick(Memory(bytearray(SIZE)))
    bus = Bus(one)
    person = Person(bus, one, instead=stick(Memory(other), "S2"))
    with (
        scsiusb.open_on(bus) as disk,
        pytest.raises(DeviceMismatch, match=r"serial is .S2., it was .S1.; plug in .* at 1-1"),
    ):
        restore(image, disk, replug=lambda _: scsiusb.open_on(bus), progress=person)
    assert bytes(other) == b"\x77" * SIZE
    assert bus.handles == ()
    assert list(image.parent.glob("*.journal")), "the restore can go on"


def test_after_a_refusal_the_restore_goes_on_with_the_right_stick(image: Path) -> None:
    one, other = stick(Memory(bytearray(SIZE))), stick(Memory(bytearray(SIZE)), "S2")
    bus = Bus(one)
    with scsiusb.open_on(bus) as disk, pytest.raises(DeviceMismatch):
        restore(image, disk, replug=lambda _: scsiusb.open_on(bus), progress=Person(bus, one, instead=other))
    bus.unplug(other)
    bus.plug(one)
    with scsiusb.open_on(bus) as disk:
        (result,) = restore(image, disk, resume=True, replug=by_serial(bus), progress=Person(bus, one))
    assert (result.resumed, result.verified) == (SIZE, "medium")


def test_one_of_two_that_does_not_come_back_is_named(image: Path) -> None:
    first, second = stick(Memory(bytearray(SIZE))), stick(Memory(bytearray(SIZE)), "S2")
    bus = Bus(first, second)

    class Forgetful(Person):
        def act(self, each: Stick, phase: str) -> None:
            if each is first or phase == "unplug":
                super().act(each, phase)

    with scsiusb.open_on(bus, "1-1") as one, scsiusb.open_on(bus, "1-2") as two, pytest.raises(SomeFailed) as caught:
        restore(image, one, two, replug=by_serial(bus), wait=0.5, progress=Forgetful(bus, first, second))
    good, bad = caught.value.results
    assert (good.error, good.verified) == (None, "medium")
    assert isinstance(bad.error, DeviceGone)
    assert "was not plugged in again within 0.5 seconds; resume" in str(bad.error)


def test_one_that_is_not_unplugged_is_not_verified(image: Path) -> None:
    bus = Bus(stick(Memory(bytearray(SIZE))))
    with scsiusb.open_on(bus) as disk, pytest.raises(DeviceTimeout, match=r"was not unplugged within 0.05 seconds"):
        restore(image, disk, replug=by_serial(bus), wait=0.05)


def test_why_it_cannot_be_opened_is_said(image: Path) -> None:
    one = stick(Memory(bytearray(SIZE)))
    bus = Bus(one)

    def busy(disk: scsiusb.Disk) -> scsiusb.Disk:
        raise DeviceBusy("mounted at /media/a")

    with scsiusb.open_on(bus) as disk, pytest.raises(DeviceBusy, match="mounted at /media/a"):
        restore(image, disk, replug=busy, wait=0.05, progress=Person(bus, one))


def test_it_waits_while_the_device_is_not_there(image: Path) -> None:
    one = stick(Memory(bytearray(SIZE)))
    bus, calls = Bus(one), 0

    def reopen(disk: scsiusb.Disk) -> scsiusb.Disk:
        nonlocal calls
        calls += 1
        if calls < 4:
            raise DeviceNotFound("not yet")
        return scsiusb.open_on(bus, "serial=S1")

    with scsiusb.open_on(bus) as disk:
        (result,) = restore(image, disk, replug=reopen, progress=Person(bus, one, instead=None))
    assert (calls, result.verified) == (4, "medium")


def test_ctrl_c_ends_the_wait(image: Path) -> None:
    bus = Bus(stick(Memory(bytearray(SIZE))))

    def stop(progress: Progress) -> None:
        if progress.phase == "re-plug":
            raise Stop

    with scsiusb.open_on(bus) as disk:
        with pytest.raises(Stop):
            restore(image, disk, replug=by_serial(bus), progress=stop)
        (result,) = restore(image, disk, resume=True)
    assert (result.resumed, result.verified) == (SIZE, "medium")


def test_a_disk_that_the_caller_closes_ends_the_wait(image: Path) -> None:
    bus = Bus(stick(Memory(bytearray(SIZE))))
    with scsiusb.open_on(bus) as disk:

        def close(progress: Progress) -> None:
            if progress.phase == "re-plug":
                disk.close()

        with pytest.raises(DeviceClosed):
            restore(image, disk, replug=by_serial(bus), progress=close)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"verify": "read", "replug": print}, ValueError),
        ({"replug": 1}, TypeError),
        ({"replug": print, "wait": -1}, ValueError),
        ({"replug": print, "wait": "1"}, TypeError),
    ],
)
def test_wrong_arguments(options: dict[str, object], error: type[Exception], image: Path) -> None:
    data = bytearray(SIZE)
    with scsiusb.open_on(Bus(stick(Memory(data)))) as disk, pytest.raises(error):
        restore(image, disk, **options)  # type: ignore[arg-type]
    assert not any(data)
