"""Probe: each fake is named with its capacity, no real disk is, and all blocks have afterwards what they had before."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import scsiusb
from scsiusb.errors import DataProtect, DeviceGone, DeviceMismatch, MediumChanged
from scsiusb.imaging import Probe, Progress, probe, probing
from scsiusb.usb.port import Port
from scsiusb.virtual import Bus, Cached, Fake, Flawed, Medium, Memory, Sparse, Stick, Unit
from scsiusb.virtual.target.flawed import Wrapper
from tests.imaging.sticks import contents

MIB = 1 << 20
GIB = 1 << 30
KINDS = ("limbo", "wraparound", "chain")


@pytest.fixture(autouse=True)
def _few_samples(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "slow" not in request.keywords:
        monkeypatch.setattr(probing, "ROUNDS", (32, 256))


class Watched(Wrapper):
    """A medium that notes the range of what is written."""

    def __init__(self, inner: Medium) -> None:
        super().__init__(inner)
        self.first, self.last = inner.blocks, -1

    def _write(self, offset: int, view: memoryview) -> None:
        self.first = min(self.first, offset // self.block_size)
        self.last = max(self.last, (offset + len(view)) // self.block_size - 1)
        super()._write(offset, view)


def stored(medium: Medium) -> dict[int, bytes]:
    """Return what is stored in the innermost medium, but zeros."""
    while isinstance(medium, Wrapper):
        medium = medium.inner
    if isinstance(medium, Memory):
        return {0: bytes(medium.data)}
    assert isinstance(medium, Sparse)
    return {at: bytes(chunk) for at, chunk in medium.chunks.items() if any(chunk)}


@contextmanager
def opened(medium: Medium, **attributes: Any) -> Iterator[scsiusb.Disk]:
    with scsiusb.open_on(Bus(Stick([Unit(medium, **attributes)]))) as disk:
        yield disk


def probed(medium: Medium, **attributes: Any) -> Probe:
    """Probe a disk with the medium; nothing may be changed afterwards, and nothing be written near its ends."""
    watched, before = Watched(medium), stored(medium)
    with opened(watched, **attributes) as disk:
        result = probe(disk, destructive=True)
    margin = MIB // medium.block_size
    assert margin <= watched.first <= watched.last < medium.blocks - margin
    assert stored(medium) == before
    assert result.lost_blocks == 0
    assert result.announced_blocks == medium.blocks
    assert result.block_size == medium.block_size
    return result


def fake(kind: str, announced: int, seed: int) -> Fake:
    """Return a fake of so many bytes, with usable blocks and addresses that begin again at random."""
    chance = random.Random(seed)
    blocks = announced // 512
    usable = chance.randrange(blocks // 8, blocks * 9 // 20 if kind == "chain" else blocks * 7 // 8)
    inner = Sparse(blocks)
    for _ in range(20):
        inner.write(chance.randrange(blocks) * 512, memoryview(chance.randbytes(512)))
    return Fake(inner, kind, usable)


# --- fakes ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("removable", [True, False])
def test_each_kind_of_fake_is_named_with_its_capacity(kind: str, removable: bool) -> None:
    medium = fake(kind, 16 * MIB, seed=1)
    result = probed(medium, removable=removable)
    assert (result.kind, result.usable_blocks) == (kind, medium.usable)
    assert result.written_bytes > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(7))
def test_fakes_of_all_sizes_are_named(kind: str, seed: int) -> None:
    announced = (64 * MIB) << (seed % 11 if seed < 6 else 10)
    medium = fake(kind, announced, seed)
    result = probed(medium)
    assert (result.kind, result.usable_blocks) == (kind, medium.usable)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_probe_writes_little_of_a_large_fake(kind: str) -> None:
    medium = fake(kind, 64 * GIB, seed=3)
    assert probed(medium).written_bytes < 64 * GIB // 50


@pytest.mark.slow
def test_a_fake_with_a_cache_is_not_believed() -> None:
    for cached in (Cached(fake("limbo", 16 * MIB, 5), 8 * MIB), Cached(fake("wraparound", 16 * MIB, 5), 2 * MIB)):
        assert isinstance(cached.inner, Fake)
        result = probed(cached)
        assert (result.kind, result.usable_blocks) == (cached.inner.kind, cached.inner.usable)


@pytest.mark.slow
def test_a_cache_that_a_reset_does_not_empty_is_overwhelmed() -> None:
    inner = fake("limbo", 16 * MIB, 6)
    result = probed(Cached(inner, 1 * MIB, is_lasting=True))
    assert (result.kind, result.usable_blocks) == ("limbo", inner.usable)


@pytest.mark.slow
def test_a_lasting_cache_that_is_too_large_leaves_it_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "OVERWHELMING", (0, MIB, 2 * MIB))
    result = probed(Cached(fake("limbo", 16 * MIB, 7), MIB + 96 * 1024, is_lasting=True))
    assert (result.kind, result.usable_blocks) == ("unknown", None)
    assert "a cache of more than 1 MiB" in result.findings[0]


@pytest.mark.slow
def test_where_the_port_cannot_be_reset_the_cache_is_overwhelmed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(port: Port) -> None:
        raise scsiusb.TransportError("the system cannot reset a port")

    monkeypatch.setattr(Port, "reset", refuse)
    inner = fake("limbo", 16 * MIB, 8)
    result = probed(Cached(inner, MIB))
    assert (result.kind, result.usable_blocks) == ("limbo", inner.usable)


@pytest.mark.slow
def test_a_fake_whose_missing_part_cannot_be_read_is_one() -> None:
    usable = 10 * 2048 + 77
    medium = Flawed(Sparse(16 * 2048), bad=[(usable, 16 * 2048 - 1)])
    result = probed(medium)
    assert (result.kind, result.usable_blocks) == ("limbo", usable)
    assert "cannot be written or read" in result.findings[-1]


def test_a_fake_with_bad_blocks_is_a_fake() -> None:
    inner = fake("limbo", 16 * MIB, 9)
    bad = [(lba, lba + 2) for lba in range(2500, inner.usable, 500)]
    result = probed(Flawed(inner, bad=bad))
    assert result.kind == "limbo"
    assert result.usable_blocks is not None
    assert inner.usable - 3 <= result.usable_blocks <= inner.usable


# --- real ones ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("removable", [True, False])
@pytest.mark.parametrize(
    "make",
    [
        lambda: Sparse(16 * 2048),
        lambda: Sparse(16 * 256, 4096),
        lambda: Memory(bytearray(contents(size=16 * MIB))),
        lambda: Memory(bytearray(b"\xff" * (5 * MIB))),
        lambda: Cached(Sparse(16 * 2048), 4 * MIB),
        lambda: Cached(Sparse(16 * 2048), 3 * MIB, is_lasting=True),
        lambda: Sparse(3 * 2048 + 1),
    ],
)
def test_no_real_disk_is_called_a_fake(make: Callable[[], Medium], removable: bool) -> None:
    medium = make()
    result = probed(medium, removable=removable)
    assert (result.kind, result.usable_blocks) == ("real", medium.blocks)


@pytest.mark.slow
def test_a_large_real_disk_is_real_after_few_writes() -> None:
    result = probed(Sparse(128 * 1024 * 2048))
    assert (result.kind, result.usable_blocks) == ("real", 128 * 1024 * 2048)
    assert result.written_bytes < 128 * GIB // 500


def every(step: int, length: int, blocks: int) -> list[tuple[int, int]]:
    return [(lba, lba + length - 1) for lba in range(step, blocks - length, step)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda inner: Flawed(inner, bad=every(977, 60, inner.blocks)),
        lambda inner: Flawed(inner, dropped=every(977, 300, inner.blocks)),
        lambda inner: Flawed(inner, flipped=every(977, 300, inner.blocks)),
        lambda inner: Flawed(inner, bad=[(inner.blocks - 3200, inner.blocks - 1)]),
        lambda inner: Flawed(inner, bad=[(2048, 9000)]),
    ],
)
def test_a_real_disk_with_bad_blocks_is_damaged(make: Callable[[Medium], Medium]) -> None:
    flawed = make(Memory(random.Random(1).randbytes(16 * MIB)))
    with opened(flawed) as disk:
        result = probe(disk, destructive=True)
    assert result.kind == "damaged"
    assert result.usable_blocks is not None
    assert 0 < result.usable_blocks < flawed.blocks


def test_bad_blocks_do_not_keep_their_neighbours_from_being_given_back() -> None:
    data = random.Random(2).randbytes(16 * MIB)
    memory = Memory(bytearray(data))
    with opened(Flawed(memory, bad=every(977, 60, memory.blocks))) as disk:
        probe(disk, destructive=True)
    assert memory.data == data


def test_a_disk_that_keeps_nothing_is_damaged() -> None:
    result = probed(Flawed(Sparse(16 * 2048), dropped=[(0, 16 * 2048)]))
    assert (result.kind, result.usable_blocks) == ("damaged", 0)


def test_a_disk_that_is_too_small_is_not_written() -> None:
    memory = Memory(2 * MIB + 512)
    with opened(memory) as disk:
        result = probe(disk, destructive=True)
    assert (result.kind, result.usable_blocks, result.written_bytes, memory.writes) == ("unknown", None, 0, 0)


@pytest.mark.parametrize("medium", [Sparse(16 * MIB // 512), Fake(Sparse(16 * MIB // 512), "wraparound", 8192)])
def test_the_progress_of_each_phase_ends_at_its_total(medium: Medium) -> None:
    seen: list[Progress] = []
    with opened(medium) as disk:
        probe(disk, destructive=True, progress=seen.append)
    for phase in ("marking", "probing", "sampling"):
        steps = [each for each in seen if each.phase == phase]
        assert steps[-1].done == steps[-1].total
        assert [each.done for each in steps] == sorted(each.done for each in steps)


# --- what was there stays -------------------------------------------------------------------------


class Interrupt:
    """A `progress` that raises an error at its N-th call."""

    def __init__(self, calls: int, error: BaseException) -> None:
        self._left, self._error = calls, error

    def __call__(self, progress: Progress) -> None:
        self._left -= 1
        if self._left == 0:
            raise self._error


@pytest.mark.slow
@pytest.mark.parametrize("calls", [1, 17, 60, 300])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("the terminal is gone")])
def test_all_blocks_are_given_back_after_an_interruption(calls: int, error: BaseException) -> None:
    data = random.Random(3).randbytes(16 * MIB)
    memory = Memory(bytearray(data))
    with opened(memory) as disk, pytest.raises(type(error)):
        probe(disk, destructive=True, progress=Interrupt(calls, error))
    assert memory.writes
    assert memory.data == data


@pytest.mark.slow
@pytest.mark.parametrize("command", [60, 100, 400])
@pytest.mark.parametrize("fault", ["nak@data", "stall@csw", "sense=6/29/00", "phase-error@csw"])
def test_a_fault_that_is_recovered_from_changes_nothing(fault: str, command: int) -> None:
    data = random.Random(4).randbytes(16 * MIB)
    memory = Memory(bytearray(data))
    stick = Stick([Unit(memory)], faults=[f"{fault},command={command}"])
    with scsiusb.open_on(Bus(stick)) as disk:
        disk.unit.timeout = 0.1
        result = probe(disk, destructive=True)
    assert stick.faults.fired
    assert (result.kind, result.usable_blocks) == ("real", memory.blocks)
    assert memory.data == data


def test_a_device_that_leaves_is_an_error_that_names_what_is_left() -> None:
    stick = Stick([Unit(Memory(16 * MIB))])
    stick.faults.add("disconnect@data,opcode=2A,lba=5000-9000")
    with scsiusb.open_on(Bus(stick)) as disk, pytest.raises(DeviceGone) as caught:
        probe(disk, destructive=True)
    assert "blocks that the probe marked, the first is LBA 2048, were not written back" in str(caught.value)


@pytest.mark.slow
def test_a_region_that_hangs_the_device_is_damage() -> None:
    stick = Stick([Unit(Memory(16 * MIB))], faults=["hang@data,opcode=28,lba=20000-20400,times=always"])
    with scsiusb.open_on(Bus(stick)) as disk:
        disk.unit.timeout = 0.02
        result = probe(disk, destructive=True)
    assert result.kind == "damaged"


def test_a_write_protected_disk_is_not_probed() -> None:
    memory = Memory(16 * MIB)
    with opened(memory, write_protected=True) as disk, pytest.raises(DataProtect) as caught:
        probe(disk, destructive=True)
    assert "written back" not in str(caught.value)
    assert memory.writes == 0


@pytest.mark.slow
@pytest.mark.parametrize("size", [16 * MIB, 32 * MIB])
@pytest.mark.parametrize("calls", [20, 60])
def test_another_medium_that_is_put_in_is_never_written(calls: int, size: int) -> None:
    stick = Stick([Unit(Memory(16 * MIB))])
    other = Memory(random.Random(5).randbytes(size))

    def exchange(progress: Progress) -> None:
        nonlocal calls
        calls -= 1
        if calls == 0:
            stick.units[0].insert(other)

    with scsiusb.open_on(Bus(stick)) as disk, pytest.raises((MediumChanged, DeviceMismatch)) as caught:
        probe(disk, destructive=True, progress=exchange)
    assert "were not written back" in str(caught.value)
    assert other.writes == 0


# --- reading alone --------------------------------------------------------------------------------


def looked(medium: Medium) -> Probe:
    with opened(medium) as disk:
        result = probe(disk)
    assert (medium.writes, result.written_bytes, result.usable_blocks) == (0, 0, None)
    return result


@pytest.mark.slow
def test_without_a_write_little_is_certain() -> None:
    assert looked(Memory(bytearray(random.Random(6).randbytes(16 * MIB)))).kind == "unknown"
    for kind in KINDS:
        assert looked(fake(kind, 16 * MIB, 1)).kind == "unknown"
    result = looked(Flawed(Sparse(16 * 2048), bad=every(977, 60, 16 * 2048)))
    assert result.kind == "damaged"
    assert "cannot be read" in result.findings[0]


@pytest.mark.slow
def test_an_unreadable_end_is_reported() -> None:
    result = looked(Flawed(Sparse(16 * 2048), bad=[(9 * 2048, 16 * 2048)]))
    assert result.kind == "unknown"
    assert any("it may have no capacity there" in each for each in result.findings)


def test_an_empty_end_is_reported_so_that_a_person_understands_it() -> None:
    inner = Memory(random.Random(7).randbytes(16 * MIB))
    result = looked(Fake(inner, "limbo", 9 * 2048))
    assert any(re.search(r"^empty after LBA \d+, as far as was read \(\d+ blocks\)", each) for each in result.findings)
    assert looked(Memory(bytes(16 * MIB))).findings == ("empty, as far as was read (512 blocks)",)
    assert looked(Memory(random.Random(7).randbytes(16 * MIB))).findings == ()


def test_data_that_repeats_is_reported() -> None:
    inner = Memory(random.Random(8).randbytes(16 * MIB))
    result = looked(Fake(inner, "wraparound", 16 * 2048, announced=256 * 2048))
    assert any("it may begin again at LBA 32768" in each for each in result.findings)


@pytest.mark.slow
def test_the_least_distance_is_found_on_a_disk_where_not_every_place_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probing, "MOST_READS", 40)
    medium = Fake(Sparse(9 * 1000), "wraparound", 9 * 1000, announced=64 * 2048)
    result = probed(medium)
    assert (result.kind, result.usable_blocks) == ("wraparound", 9 * 1000)
