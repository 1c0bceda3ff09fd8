"""Scan: bad and slow blocks are found, exactly, and a scan that was stopped goes on."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import scsiusb
from scsiusb.errors import DeviceMismatch, DeviceTimeout, ImageError, OutOfRange, UnitAttention
from scsiusb.imaging import BlockRange, Progress, scan, scanning
from scsiusb.imaging.latencies import LATE, MOST_LATE, MOST_REGIONS, Findings, union
from scsiusb.virtual import Bus, Memory, Stick, Unit
from scsiusb.virtual.device.descriptors import Identity
from tests.imaging.sticks import Stop, StopAt, contents, plug, stick
from tests.sticks import OddUnit

SIZE = 256 * 1024
STEP = 16 * 1024
BLOCKS, STEP_BLOCKS = SIZE // 512, STEP // 512
FOUR = scanning.FOUR


@pytest.fixture(autouse=True)
def _small_commands(monkeypatch: pytest.MonkeyPatch, state_folder: Path) -> None:
    monkeypatch.setattr(scanning, "COMMAND", STEP)
    monkeypatch.setattr(scanning, "CHECKPOINT", 2 * STEP)


class Clock:
    """A clock that only a medium moves on."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    monotonic = perf_counter


class Timed(Memory):
    """A medium whose reads and writes take a millisecond, and longer in a region, by a clock of its own."""

    slow: range = range(0)
    seconds = 0.5

    def __init__(self, data: bytearray, clock: Clock) -> None:
        super().__init__(data)
        self.clock = clock

    def _spend(self, offset: int, length: int) -> None:
        first, end = offset // 512, (offset + length) // 512
        self.clock.now += self.seconds if first < self.slow.stop and end > self.slow.start else 0.001

    def _readinto(self, offset: int, view: memoryview) -> None:
        self._spend(offset, len(view))
        super()._readinto(offset, view)

    def _write(self, offset: int, view: memoryview) -> None:
        self._spend(offset, len(view))
        super()._write(offset, view)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Timed:
    clock = Clock()
    monkeypatch.setattr(scanning, "time", clock)
    return Timed(contents(), clock)


def test_a_good_disk_has_no_bad_blocks_and_is_not_changed(state_folder: Path) -> None:
    data = contents()
    with scsiusb.open_on(plug(data)) as disk:
        found = scan(disk)
    assert data == contents()
    assert (found.bad, found.size, found.is_destructive, found.resumed) == ((), SIZE, False, 0)
    assert sum(region.blocks for region in found.regions) == BLOCKS
    assert [region.lba for region in found.regions] == list(range(0, BLOCKS, STEP_BLOCKS))
    assert all(region.commands and region.mean <= region.slowest for region in found.regions)
    assert found.latency.p50 <= found.latency.p99 <= found.latency.max
    assert list(state_folder.iterdir()) == []


@pytest.mark.parametrize("destructive", [False, True])
def test_bad_blocks_are_named_exactly_and_the_others_are_read(destructive: bool) -> None:
    each = stick(contents())
    opcode = "2a" if destructive else "28"
    for bad in ("100-103", "105", str(BLOCKS - 1)):
        each.faults.add(f"sense=3/11/00,opcode={opcode},lba={bad},times=always")
    with scsiusb.open_on(Bus(each)) as disk:
        found = scan(disk, destructive=destructive, patterns=[b"\x55"])
    assert found.bad[:2] == (BlockRange(100, 4), BlockRange(105, 1))
    assert found.bad[2:] == (BlockRange(BLOCKS - 1, 1),)
    assert [region.bad for region in found.regions if region.bad] == [5, 1]


def test_a_range() -> None:
    each = stick(contents())
    for bad in ("9", "10", "40", "41"):
        each.faults.add(f"sense=3/11/00,opcode=28,lba={bad},times=always")
    with scsiusb.open_on(Bus(each)) as disk:
        found = scan(disk, lba=10, blocks=31)
        assert found.bad == (BlockRange(10, 1), BlockRange(40, 1))
        assert (found.lba, found.blocks) == (10, 31)
        assert scan(disk, lba=BLOCKS, blocks=0).regions == ()
        with pytest.raises(OutOfRange):
            scan(disk, lba=1, blocks=BLOCKS)


@pytest.mark.parametrize("destructive", [False, True])
def test_slow_blocks_are_those_far_above_the_rest(timed: Timed, destructive: bool) -> None:
    timed.slow = range(100, 102)
    with scsiusb.open_on(Bus(Stick([Unit(timed)]))) as disk:
        found = scan(disk, destructive=destructive, patterns=[b"\0"])
    assert found.slow == (BlockRange(96, STEP_BLOCKS),)
    assert found.limit == LATE
    assert found.latency.p50 == pytest.approx(0.001, rel=0.05)
    assert found.latency.max == pytest.approx(0.5)
    assert [region.lba for region in found.regions if region.slowest > found.limit] == [96]


def test_what_is_only_ten_times_slower_or_below_a_tenth_of_a_second_is_not_slow(timed: Timed) -> None:
    timed.slow, timed.seconds = range(100, 102), 0.099
    with scsiusb.open_on(Bus(Stick([Unit(timed)]))) as disk:
        assert scan(disk).slow == ()
        timed.slow, timed.seconds = range(BLOCKS), 5.0
        found = scan(disk)
    assert found.slow == ()
    assert found.limit == pytest.approx(50, rel=0.05)


def test_wrong_arguments() -> None:
    with scsiusb.open_on(plug(contents())) as disk:
        with pytest.raises(ValueError, match="at least one pattern"):
            scan(disk, destructive=True, patterns=[])
        with pytest.raises(ValueError, match="not 'shred'"):
            scan(disk, destructive=True, patterns=["shred"])
        with pytest.raises(ValueError, match="513 bytes"):
            scan(disk, destructive=True, patterns=[bytes(513)])


# --- destructive ------------------------------------------------------------------------------------


class Flawed(Memory):
    """A medium in which a bit of a block is stuck, and whose block 300 is also reached as block 200."""

    def _readinto(self, offset: int, view: memoryview) -> None:
        for at in range(0, len(view), 512):
            lba = (offset + at) // 512
            place = (300 if lba == 200 else lba) * 512
            view[at : at + 512] = self.data[place : place + 512]
            if lba == 50:
                view[at] |= 1


def test_patterns_find_what_reading_does_not() -> None:
    with scsiusb.open_on(Bus(Stick([Unit(Flawed(contents()))]))) as disk:
        assert scan(disk).bad == ()
        stuck, alias = BlockRange(50, 1), BlockRange(200, 1)
        assert scan(disk, destructive=True, patterns=[b"\x55"]).bad == ()
        assert scan(disk, destructive=True, patterns=[b"\xaa"]).bad == (stuck,)
        assert scan(disk, destructive=True, patterns=FOUR).bad == (stuck,)
        found = scan(disk, destructive=True, patterns=["random", "random", "random", "random", "random", "random"])
    assert alias in found.bad
    assert set(found.bad) <= {stuck, alias}


def test_a_unit_that_is_reset_again_and_again_ends_it() -> None:
    each = Stick([OddUnit(Memory(contents()), removable=False)])
    each.faults.add("attentions=1,opcode=35,times=always")
    with pytest.raises(UnitAttention), scsiusb.open_on(Bus(each)) as disk:
        scan(disk, destructive=True)


def test_what_a_reset_may_have_lost_is_written_again() -> None:
    unit = OddUnit(Memory(contents()), removable=False)
    each = Stick([unit])
    each.faults.add("sense=3/0C/00,opcode=2a,lba=40,times=always")
    each.faults.add("attentions=1,opcode=35")
    with scsiusb.open_on(Bus(each)) as disk:
        found = scan(disk, destructive=True)
    assert found.bad == (BlockRange(40, 1),)
    writes = [int.from_bytes(cdb[2:6], "big") for cdb in unit.cdbs if cdb[0] == 0x2A]
    assert writes.count(0) == 2
    assert writes.count(STEP_BLOCKS * 5) == 1
    assert [region.commands for region in found.regions][::5] == [2, 2, 2, 2]


def test_the_last_pattern_stays_and_is_read_past_the_cache() -> None:
    data = contents()
    with scsiusb.open_on(plug(data)) as disk:
        disk.read(0, 1)
        before = disk.unit.resets
        scan(disk, destructive=True, patterns=[b"\xaa", b"\xff"])
        assert disk.unit.resets >= before + 2
    assert data == b"\xff" * SIZE


# --- a device that does not answer ------------------------------------------------------------------


def test_a_read_that_is_not_answered_costs_its_blocks() -> None:
    each = stick(contents())
    each.faults.add("nak@data,opcode=28,lba=100,times=always")
    with scsiusb.open_on(Bus(each), timeout=0.2) as disk:
        found = scan(disk)
    assert found.bad == (BlockRange(96, STEP_BLOCKS),)


@pytest.mark.slow
def test_a_device_that_does_not_answer_any_more_ends_the_scan() -> None:
    each = stick(contents())
    each.faults.add(f"nak@data,opcode=28,lba=100-{BLOCKS},times=always")
    with scsiusb.open_on(Bus(each), timeout=0.2) as disk, pytest.raises(DeviceTimeout):
        scan(disk)


# --- interrupted ------------------------------------------------------------------------------------


def test_a_scan_that_was_stopped_goes_on(state_folder: Path) -> None:
    unit = OddUnit(Memory(contents()))
    each = Stick([unit], identity=Identity(serial="DUMP0001"))
    for bad in (40, 400):
        each.faults.add(f"sense=3/11/00,opcode=28,lba={bad},times=always")
    with scsiusb.open_on(Bus(each)) as disk:
        whole = scan(disk)
        with pytest.raises(Stop):
            scan(disk, progress=StopAt("reading", 7 * STEP))
        unit.cdbs = []
        found = scan(disk, resume=True)
    assert found.resumed == 6 * STEP
    assert found.bad == whole.bad == (BlockRange(40, 1), BlockRange(400, 1))
    assert [region[:3] for region in found.regions] == [region[:3] for region in whole.regions]
    assert min(int.from_bytes(cdb[2:6], "big") for cdb in unit.cdbs if cdb[0] == 0x28) >= 6 * STEP_BLOCKS
    assert list(state_folder.iterdir()) == []


@pytest.mark.parametrize("done", [STEP * 2, SIZE - STEP, SIZE + STEP * 4, SIZE * 3, SIZE * 4 - STEP])
def test_a_destructive_scan_goes_on_in_its_pass(done: int) -> None:
    data = contents()
    each = stick(data)
    each.faults.add("sense=3/0C/00,opcode=2a,lba=40,times=always")
    with scsiusb.open_on(Bus(each)) as disk:
        with pytest.raises(Stop):
            scan(disk, destructive=True, patterns=["random", b"ab"], progress=Every(done))
        found = scan(disk, destructive=True, resume=True)
    assert done - 2 * STEP < found.resumed <= done
    assert found.bad == (BlockRange(40, 1),)
    assert data[: 40 * 512] + data[41 * 512 :] == b"ab" * ((SIZE - 512) // 2)


class Every:
    """A `progress` that ends a job after so many bytes of all its passes."""

    def __init__(self, done: int) -> None:
        self._done = done
        self._phases: dict[str, int] = {}

    def __call__(self, progress: Progress) -> None:
        self._phases[progress.phase] = progress.done
        if sum(self._phases.values()) >= self._done:
            raise Stop


def test_a_scan_goes_on_after_the_device_was_unplugged() -> None:
    each = stick(contents())
    each.faults.add("disconnect=512@data,opcode=28,lba=300")
    with pytest.raises(scsiusb.DeviceGone), scsiusb.open_on(Bus(each)) as disk:
        scan(disk)
    with scsiusb.open_on(plug(contents())) as disk:
        found = scan(disk, resume=True)
    assert found.resumed == 300 // STEP_BLOCKS // 2 * 2 * STEP
    assert sum(region.commands for region in found.regions) >= BLOCKS // STEP_BLOCKS


def interrupted(place: Path, **arguments: Any) -> None:
    with scsiusb.open_on(plug(contents())) as disk, pytest.raises(Stop):
        scan(disk, journal=place, progress=Every(4 * STEP), **arguments)


@pytest.mark.parametrize("arguments", [{"lba": 1}, {"blocks": 400}, {"destructive": True}])
def test_a_resume_of_another_scan_is_refused(arguments: dict[str, Any], tmp_path: Path) -> None:
    interrupted(tmp_path / "j")
    data = contents()
    with scsiusb.open_on(plug(data)) as disk, pytest.raises(ImageError, match="began as a reading one"):
        scan(disk, journal=tmp_path / "j", resume=True, **arguments)
    assert data == contents()


def test_a_resume_on_another_device_is_refused(tmp_path: Path) -> None:
    interrupted(tmp_path / "j", destructive=True)
    data = contents()
    with scsiusb.open_on(plug(data, "OTHER")) as disk, pytest.raises(DeviceMismatch):
        scan(disk, journal=tmp_path / "j", resume=True, destructive=True)
    assert data == contents()


def test_a_scan_that_never_began_is_resumed_from_the_start_and_another_jobs_journal_refused(tmp_path: Path) -> None:
    (tmp_path / "other").write_text('{"scsiusb_journal": 1, "job": "erase"}\n')
    with scsiusb.open_on(plug(contents())) as disk:
        assert scan(disk, journal=tmp_path / "new", resume=True).resumed == 0
        with pytest.raises(ImageError, match="not the journal of a scan"):
            scan(disk, journal=tmp_path / "other", resume=True)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"step": 32', '"step": 0'),
        ('"pass": 0', '"pass": 1000000000'),
        ('"done": 64', '"done": -1'),
        ('"done": 64', '"gone": 64'),
        ('"buckets": [[', '"buckets": [["'),
        ('"times": [[0', '"times": [[0, 1'),
    ],
)
def test_a_damaged_journal_is_refused(old: str, new: str, tmp_path: Path) -> None:
    place = tmp_path / "j"
    interrupted(place)
    text = place.read_text()
    assert old in text
    place.write_text(text.replace(old, new, 1))
    with scsiusb.open_on(plug(contents())) as disk, pytest.raises(ImageError):
        scan(disk, journal=place, resume=True)


# --- findings ---------------------------------------------------------------------------------------


def test_regions_are_bounded_and_cover_the_range() -> None:
    blocks = 15_728_640_000
    regions = Findings(7, blocks, 2048).regions()
    assert len(regions) <= MOST_REGIONS
    assert regions[0].lba == 7
    assert all(one.lba + one.blocks == other.lba for one, other in pairwise(regions))
    assert regions[-1].lba + regions[-1].blocks == 7 + blocks


def test_findings_are_bounded_on_a_disk_that_is_slow_everywhere() -> None:
    findings = Findings(0, 1 << 30, 1)
    for lba in range(MOST_LATE + 10):
        findings.note(lba, 1, 100.0 if lba in (5, 7) else 0.2)
    findings.take(0)
    assert findings.slow == (BlockRange(5, 1), BlockRange(7, 1))
    assert len(findings._late) == 2


def test_a_percentile_is_right_to_four_percent() -> None:
    findings = Findings(0, 1000, 1)
    for number in range(1000):
        findings.note(number, 1, 0.001 * (1 + number))
    findings.take(0)
    p50, p99, slowest = findings.latency
    assert p50 == pytest.approx(0.5, rel=0.04)
    assert p99 == pytest.approx(0.99, rel=0.04)
    assert slowest == 1.0


def test_union_of_ranges() -> None:
    ranges = [BlockRange(5, 2), BlockRange(0, 1), BlockRange(6, 4), BlockRange(1, 1), BlockRange(20, 1)]
    assert union(ranges) == (BlockRange(0, 2), BlockRange(5, 5), BlockRange(20, 1))
    assert union([]) == ()


def test_the_progress_of_each_phase_ends_at_its_total() -> None:
    seen: list[Progress] = []
    with scsiusb.open_on(plug(contents())) as disk:
        scan(disk, destructive=True, patterns=FOUR, progress=seen.append)
    for phase in ("writing", "verifying"):
        assert [each.done for each in seen if each.phase == phase] == list(range(STEP, 4 * SIZE + 1, STEP))
    assert {each.total for each in seen} == {4 * SIZE}
    assert {each.phase for each in seen} == {"writing", "verifying"}
