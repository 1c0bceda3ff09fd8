"""Verification on the medium finds every block that a dishonest stick does not keep, and names no other."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

import scsiusb
from scsiusb.errors import Miscompare
from scsiusb.imaging import BlockRange, Restored, restore, sources, target
from scsiusb.imaging.restoring import restore_each
from scsiusb.imaging.sources import ImageSource
from scsiusb.virtual import Bus, Cached, Fake, Flawed, Medium, Sparse, Stick, Unit

PIECE = 32 * 1024
BLOCKS = 512
HALF = BLOCKS // 2
IMAGE = random.Random(1).randbytes(BLOCKS * 512)  # no block is like another
ALL = BLOCKS * 512  # bytes: a cache that holds all that is written

STICKS: dict[str, tuple[Callable[[Medium], Medium], list[tuple[int, int]]]] = {
    "drops some blocks": (
        lambda inner: Flawed(inner, dropped=[(7, 7), (100, 163), (BLOCKS - 1, BLOCKS - 1)]),
        [(7, 1), (100, 64), (511, 1)],
    ),
    "drops all": (lambda inner: Flawed(inner, dropped=[(0, BLOCKS - 1)]), [(0, BLOCKS)]),
    "limbo": (lambda inner: Fake(inner, "limbo", HALF + 3), [(HALF + 3, HALF - 3)]),
    "wraps at half": (lambda inner: Fake(inner, "wraparound", HALF), [(0, HALF)]),
    "chain": (lambda inner: Fake(inner, "chain", 100), [(0, 384), (484, 28)]),
    "changes a bit": (lambda inner: Flawed(inner, flipped=[(0, 0), (200, 209)]), [(0, 1), (200, 10)]),
}


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PIECE", PIECE)
    monkeypatch.setattr(target, "CHECKPOINT", PIECE)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.img"
    path.write_bytes(IMAGE)
    return path


def restored(medium: Medium, image: Path, verify: str, *, removable: bool = True) -> Restored:
    with scsiusb.open_on(Bus(Stick([Unit(medium, removable=removable)]))) as disk, ImageSource(image) as source:
        (result,) = restore_each(source, [disk], verify=verify, resume=False, progress=lambda _: None)  # type: ignore[arg-type]
    return result


def differing(medium: Medium) -> list[int]:
    """Return the blocks that the medium does not have after power-on."""
    medium.power_on()
    view = memoryview(bytearray(len(IMAGE)))
    medium.readinto(0, view)
    return [lba for lba in range(BLOCKS) if view[lba * 512 :][:512] != IMAGE[lba * 512 :][:512]]


def named(result: Restored) -> list[int]:
    return [lba for first, blocks in result.differences for lba in range(first, first + blocks)]


@pytest.mark.slow
@pytest.mark.parametrize("removable", [True, False])
@pytest.mark.parametrize("is_cached", [False, True])
@pytest.mark.parametrize("kind", STICKS)
def test_a_stick_that_does_not_keep_its_blocks_is_caught(
    kind: str, is_cached: bool, removable: bool, image: Path
) -> None:
    make, expected = STICKS[kind]
    medium = make(Sparse(BLOCKS))
    shown = Cached(medium, ALL) if is_cached else medium
    result = restored(shown, image, "medium", removable=removable)
    assert isinstance(result.error, Miscompare)
    assert result.error.lba == result.differences[0].lba
    assert result.verified == "medium"
    assert named(result) == differing(shown)
    assert set(named(result)) == {lba for first, blocks in expected for lba in range(first, first + blocks)}


@pytest.mark.parametrize("kind", STICKS)
def test_reading_back_alone_is_deceived_by_a_cache(kind: str, image: Path) -> None:
    make, _ = STICKS[kind]
    result = restored(Cached(make(Sparse(BLOCKS)), ALL), image, "read")
    assert (result.error, result.differences, result.verified) == (None, (), "read")


def test_an_honest_stick_with_a_cache_is_right(image: Path) -> None:
    result = restored(Cached(Sparse(BLOCKS), ALL // 4), image, "medium")
    assert (result.error, result.differences, result.verified) == (None, (), "medium")


def test_restore_raises_with_the_first_block(image: Path) -> None:
    medium = Cached(Flawed(Sparse(BLOCKS), dropped=[(300, 309)]), ALL)
    with scsiusb.open_on(Bus(Stick([Unit(medium)]))) as disk, pytest.raises(Miscompare) as caught:
        restore(image, disk)
    assert caught.value.lba == 300
    assert "10 blocks do not have what was written, the first is LBA 300" in str(caught.value)


def test_a_stick_that_fails_once_is_right_after_another_restore(image: Path) -> None:
    inner = Sparse(BLOCKS)
    assert restored(Flawed(inner, dropped=[(5, 5)]), image, "medium").differences == (BlockRange(5, 1),)
    for journal in image.parent.glob("*.journal"):
        journal.unlink()
    assert restored(inner, image, "medium").error is None
