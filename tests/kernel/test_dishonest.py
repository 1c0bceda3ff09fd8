"""Dishonest sticks, served over USB/IP to the kernel and driven by libusb: restore and probe are not deceived."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from pathlib import Path

import pytest

import scsiusb
from scsiusb.errors import DeviceMismatch, Miscompare
from scsiusb.imaging import Progress, TargetsProgress, probe, restore
from scsiusb.imaging.restoring import restore_each
from scsiusb.imaging.sources import ImageSource
from scsiusb.virtual import Cached, Fake, Flawed, Identity, Medium, Sparse, Stick, Unit

from .served import Served, serving

pytestmark = pytest.mark.native("under emulation they take minutes")

BLOCKS = 4096
HALF = BLOCKS // 2
ALL = BLOCKS * 512  # bytes: a cache that holds all that is written
IMAGE = random.Random(1).randbytes(BLOCKS * 512)

STICKS: dict[str, tuple[Callable[[Medium], Medium], list[tuple[int, int]]]] = {
    "drops": (lambda inner: Flawed(inner, dropped=[(7, 7), (1000, 1063)]), [(7, 1), (1000, 64)]),
    "wraps at half": (lambda inner: Fake(inner, "wraparound", HALF), [(0, HALF)]),
    "answers from its cache": (lambda inner: Cached(Fake(inner, "limbo", HALF), ALL), [(HALF, HALF)]),
    "changes a bit": (lambda inner: Flawed(inner, flipped=[(3000, 3001)]), [(3000, 2)]),
}
_serials = itertools.count(1)


def stick(medium: Medium) -> Stick:
    return Stick([Unit(medium)], Identity(serial=f"D15C0{next(_serials):07X}"))


@pytest.mark.parametrize("kind", STICKS)
def test_restore_names_the_blocks_that_are_not_kept(kind: str, tmp_path: Path) -> None:
    make, expected = STICKS[kind]
    path = tmp_path / "a.img"
    path.write_bytes(IMAGE)
    with (
        serving(stick(make(Sparse(BLOCKS)))) as device,
        scsiusb.open(device.address) as disk,
        ImageSource(path) as source,
    ):
        (result,) = restore_each(source, [disk], verify="medium", resume=False, progress=lambda _: None)
    assert isinstance(result.error, Miscompare)
    assert [tuple(each) for each in result.differences] == expected


class Kept(Cached):
    """A cache that a reset does not empty, but a loss of power does."""

    def __init__(self, inner: Medium) -> None:
        super().__init__(inner, ALL, is_lasting=True)

    def lose_power(self) -> None:
        self._cache.clear()


class Person:
    """A `progress` that unplugs the stick and plugs it in again when the job asks for that."""

    def __init__(self, device: Served, instead: Served | None = None) -> None:
        self.device, self.instead = device, instead
        self.asked: list[str] = []

    def __call__(self, progress: Progress) -> None:
        assert isinstance(progress, TargetsProgress)
        (target,) = progress.targets
        if target.phase in self.asked or progress.phase != "re-plug":
            return
        self.asked.append(target.phase)
        if target.phase == "unplug":
            self.device.detach()
            medium = self.device.stick.units[0].medium
            if isinstance(medium, Kept):
                medium.lose_power()
        elif target.phase == "plug in":
            (self.instead or self.device).attach()


def by_serial(disk: scsiusb.Disk) -> scsiusb.Disk:
    return scsiusb.open(f"serial={disk.unit.transport.info.serial}")


def test_a_replug_shows_what_a_reset_does_not(tmp_path: Path) -> None:
    """The stick comes back while the kernel's driver probes it."""
    path = tmp_path / "a.img"
    path.write_bytes(IMAGE)
    flawed = Kept(Flawed(Sparse(BLOCKS), dropped=[(1000, 1063)]))
    with serving(stick(flawed)) as device, scsiusb.open(device.address) as disk:
        restore(path, disk)
        person = Person(device)
        with pytest.raises(Miscompare) as caught:
            restore(path, disk, replug=by_serial, progress=person)
        assert (caught.value.lba, person.asked[:2]) == (1000, ["unplug", "plug in"])
        assert "64 blocks" in str(caught.value)


def test_an_honest_stick_is_right_after_a_replug(tmp_path: Path) -> None:
    path = tmp_path / "a.img"
    path.write_bytes(IMAGE)
    with serving(stick(Kept(Sparse(BLOCKS)))) as device:
        with scsiusb.open(device.address) as disk:
            (result,) = restore(path, disk, replug=by_serial, progress=Person(device))
        assert (result.error, result.verified) == (None, "medium")
        device.wait()


def test_another_stick_that_is_put_in_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.img"
    path.write_bytes(IMAGE)
    other = Sparse(BLOCKS)
    with serving(stick(Sparse(BLOCKS))) as device, serving(stick(other)) as intruder:
        intruder.detach()
        with scsiusb.open(device.address) as disk, pytest.raises(DeviceMismatch):
            restore(path, disk, replug=lambda _: by_name(intruder), progress=Person(device, intruder))
        intruder.wait()
    assert not other.writes


def by_name(device: Served) -> scsiusb.Disk:
    return scsiusb.open(f"serial={device.serial}")


def test_an_honest_stick_is_right(tmp_path: Path) -> None:
    path = tmp_path / "a.img"
    path.write_bytes(IMAGE)
    with serving(stick(Cached(Sparse(BLOCKS), ALL))) as device, scsiusb.open(device.address) as disk:
        (result,) = restore(path, disk)
    assert (result.verified, result.error) == ("medium", None)


@pytest.mark.parametrize("kind", ["limbo", "wraparound", "chain", "real"])
def test_probe_names_the_kind_and_the_capacity(kind: str) -> None:
    blocks, usable = 32 * 2048, 9 * 2048 + 123
    fake = Sparse(blocks) if kind == "real" else Fake(Sparse(blocks), kind, usable)
    with serving(stick(Cached(fake, 1 << 20))) as device, scsiusb.open(device.address) as disk:
        result = probe(disk, destructive=True)
    assert (result.kind, result.usable_blocks) == (kind, blocks if kind == "real" else usable)
