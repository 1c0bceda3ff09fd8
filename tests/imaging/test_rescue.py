"""Rescue: all that can be read is in the image, no block is read too often, and any interruption can be continued."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType, SimpleNamespace

import pytest

import scsiusb
from scsiusb.errors import DeviceGone, DeviceMismatch, ImageError, NotReady, OutOfRange
from scsiusb.imaging import Area, Progress, Rescue, rescue, rescue_device, rescue_passes, rescue_record
from scsiusb.imaging.mapfile import load
from scsiusb.imaging.rescue_passes import ReadSize
from scsiusb.usb.backend import Code
from scsiusb.virtual import Bus, Memory, Stick
from tests.imaging.failing import FailingBus, FailingUnit
from tests.imaging.sticks import Stop
from tests.interrupts import CtrlC
from tests.sticks import Answer, Wire, python

BLOCKS = 400
SIZE = BLOCKS * 512


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make commands and skips so small that all phases have something to do."""
    monkeypatch.setattr(rescue_passes, "FIRST_READ", 4096)
    monkeypatch.setattr(rescue_passes, "LARGEST_READ", 8192)
    monkeypatch.setattr(rescue_passes, "LEAST_SKIP", 4096)
    monkeypatch.setattr(rescue_device, "POLL", 0.001)


@pytest.fixture
def data() -> bytearray:
    return bytearray(random.Random(13).randbytes(SIZE))


class Job:
    """The files of a rescue in a folder, and its calls."""

    def __init__(self, folder: Path) -> None:
        self.image, self.map = folder / "disk.img", folder / "disk.map"
        self.journal = folder / "disk.map.journal"

    def run(self, bus: FailingBus, **options: object) -> Rescue:
        with scsiusb.open_on(bus) as disk:
            return rescue(disk, self.image, self.map, **options)  # type: ignore[arg-type]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def expected(data: bytearray, bad: set[int]) -> bytes:
    """Return the image: zeros where blocks are bad."""
    image = bytearray(data)
    for lba in bad:
        image[lba * 512 : lba * 512 + 512] = bytes(512)
    return bytes(image)


def areas(bad: set[int], blocks: int = BLOCKS) -> tuple[Area, ...]:
    """Return the map at the end."""
    found: list[Area] = []
    for lba in range(blocks):
        status = "-" if lba in bad else "+"
        if found and found[-1].status == status:
            found[-1] = found[-1]._replace(size=found[-1].size + 512)
        else:
            found.append(Area(lba * 512, 512, status))
    return tuple(found)


def check(result: Rescue, job: Job, data: bytearray, bad: set[int]) -> None:
    """Compare result, image and map with the model."""
    assert job.image.read_bytes() == expected(data, bad)
    assert result.map == areas(bad)
    assert (result.rescued, result.bad, result.size) == (SIZE - 512 * len(bad), 512 * len(bad), SIZE)
    assert result.is_complete == (not bad)
    log(job, bad)


def log(job: Job, bad: set[int]) -> None:
    """Compare the map file with what ddrescuelog says about it, if that is installed."""
    if shutil.which("ddrescuelog") is None:
        return
    listed = subprocess.run(["ddrescuelog", "-l", "-", job.map], check=True, capture_output=True, text=True).stdout
    assert {int(word) for word in listed.split()} == bad
    assert subprocess.run(["ddrescuelog", "-D", job.map], check=False).returncode == int(bool(bad))
    text = subprocess.run(["ddrescuelog", "-t", job.map], check=True, capture_output=True, text=True).stdout
    counts = {name: int(count) for name, count in re.findall(r"(\S+): .* in +(\d+) area", text)}
    found = Counter(area.status for area in areas(bad))
    wanted = {"non-tried": 0, "non-trimmed": 0, "non-scraped": 0, "rescued": found["+"], "bad-sector": found["-"]}
    assert {name: counts[name] for name in wanted} == wanted
    assert "finished" in text


# --- what can be read -----------------------------------------------------------------------------


def test_a_good_disk_is_copied_and_each_block_read_once(job: Job, data: bytearray) -> None:
    unit = FailingUnit(data)
    result = job.run(FailingBus(unit))
    check(result, job, data, set())
    assert (result.errors, result.returns, result.resumed) == (0, 0, 0)
    assert len(unit.reads) < BLOCKS / 8
    assert sum(blocks for _, blocks in unit.reads) == BLOCKS
    assert sorted(os.listdir(job.image.parent)) == ["disk.img", "disk.map", "disk.map.bak"]


SEEDED = {
    "the first block": {0},
    "the last block": {BLOCKS - 1},
    "both ends": {0, 1, BLOCKS - 2, BLOCKS - 1},
    "a region": set(range(100, 170)),
    "every tenth": set(range(3, BLOCKS, 10)),
    "every second of a region": set(range(200, 260, 2)),
    "random": set(random.Random(1).sample(range(BLOCKS), 25)),
    "all but one": set(range(BLOCKS)) - {217},
}


@pytest.mark.slow
@pytest.mark.parametrize("bad", SEEDED.values(), ids=SEEDED.keys())
def test_all_but_the_bad_blocks_is_rescued(bad: set[int], job: Job, data: bytearray) -> None:
    unit = FailingUnit(data, bad)
    check(job.run(FailingBus(unit)), job, data, bad)
    assert max(unit.tried.values()) <= 2
    assert job.journal.exists(), "it says who the device is, for another run"


def test_the_good_parts_come_first(job: Job, data: bytearray) -> None:
    """Ten percent in the middle are bad: all else is rescued before a second read of them."""
    bad = set(range(180, 220))
    unit = FailingUnit(data, bad)
    job.run(FailingBus(unit))
    failing = [at for at, (lba, count) in enumerate(unit.reads) if bad & set(range(lba, lba + count))]
    last_outside = max(at for at, (lba, count) in enumerate(unit.reads) if lba + count <= 150 or lba >= 250)
    assert sum(at < last_outside for at in failing) <= 4


@pytest.mark.parametrize("retries", [1, 2, 3])
def test_retries_read_each_bad_block_once_more(retries: int, job: Job, data: bytearray) -> None:
    unit = FailingUnit(data, {50, 51, 200, 399})
    unit.left |= {50: 2, 200: 3}
    result = job.run(FailingBus(unit), retries=retries)
    check(result, job, data, {1: {51, 200, 399}, 2: {51, 399}, 3: {51, 399}}[retries])
    assert max(unit.tried.values()) == 2 + retries


def test_a_block_of_4096_bytes(job: Job) -> None:
    data = bytearray(random.Random(3).randbytes(100 * 4096))
    unit = FailingUnit(data, {7, 8, 60}, block_size=4096)
    result = job.run(FailingBus(unit))
    assert [(area.pos, area.size) for area in result.map if area.status == "-"] == [(28672, 8192), (245760, 4096)]
    assert job.image.read_bytes()[9 * 4096 : 60 * 4096] == data[9 * 4096 : 60 * 4096]


def test_smaller_commands_where_large_ones_fail(job: Job, data: bytearray) -> None:
    unit = FailingUnit(data)
    unit.largest = 3
    check(job.run(FailingBus(unit)), job, data, set())
    assert max(unit.tried.values()) <= 2


def test_commands_become_small_for_a_device_that_fails_large_ones() -> None:
    """And hardly one in a hundred is too large then."""
    size = ReadSize(512, 262_144)
    failures = 0
    for _ in range(2000):
        if size.bytes > 32_768:
            failures += 1
            size.failed(size.bytes)
        else:
            size.succeeded(size.bytes)
    assert failures < 20


def test_commands_become_large_again_after_a_bad_region() -> None:
    size = ReadSize(512, 262_144)
    for _ in range(100):
        size.failed(size.bytes)
    assert size.bytes == rescue_passes.LEAST_READ
    for _ in range(7):
        size.succeeded(size.bytes)
    assert size.bytes == 262_144


@pytest.mark.parametrize(("block_size", "most"), [(512, 512), (4096, 4096), (512, 122_880), (520, 122_720)])
def test_commands_have_whole_blocks(block_size: int, most: int) -> None:
    chance = random.Random(1)
    size = ReadSize(block_size, most)
    for _ in range(200):
        assert 0 < size.bytes <= most
        assert size.bytes % block_size == 0
        chance.choice([size.failed, size.succeeded])(size.bytes)


def test_the_last_block_is_read_alone(job: Job, data: bytearray) -> None:
    unit = FailingUnit(data)
    job.run(FailingBus(unit))
    assert [(lba, count) for lba, count in unit.reads if lba + count == BLOCKS] == [(BLOCKS - 1, 1)]


def test_slow_regions_are_left_for_later(job: Job, data: bytearray, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that runs a second for each read of the region, and a millisecond for others."""
    unit = FailingUnit(data)

    def is_slow(read: tuple[int, int]) -> bool:
        return read[0] < 200 and sum(read) > 96

    clock = SimpleNamespace(monotonic=lambda: sum(1.0 if is_slow(read) else 0.001 for read in unit.reads))
    monkeypatch.setattr(rescue_passes, "time", clock)
    check(job.run(FailingBus(unit)), job, data, set())
    assert [is_slow(read) for read in unit.reads[-5:]] == [False, True, True, True, True], "what was skipped"


# --- a device that stops answering, or leaves -------------------------------------------------------


def test_a_region_in_which_the_device_stops_answering(job: Job, data: bytearray) -> None:
    bad = set(range(120, 130))
    unit = FailingUnit(data)
    bus = FailingBus(unit)
    bus.hangs = bad
    check(job.run(bus), job, data, bad)
    assert len(bad) < bus.hung <= 2 * len(bad)
    assert bus.wire.log.count("port reset") == bus.hung, "one reset for each read that was not answered"


@pytest.mark.slow
def test_a_deadline_that_passes(job: Job, data: bytearray) -> None:
    """The same, with a device that is silent in real time until it is reset."""
    bus = FailingBus(FailingUnit(data))
    bus.stick.faults.add("nak@data,lba=300-300,times=always")
    result = job.run(bus, timeout=0.5)
    assert result.bad == 512
    assert job.image.read_bytes() == expected(data, {300})


@pytest.mark.parametrize("serial", ["RESCUE01", None])
def test_a_stick_that_leaves_the_bus_and_comes_back(serial: str | None, job: Job, data: bytearray) -> None:
    unit = FailingUnit(data, {33, 150})
    bus = FailingBus(unit, serial)
    bus.leaves = {20, 33, 151, 390}
    result = job.run(bus, reopen=bus.reopen)
    check(result, job, data, {33, 150})
    assert result.returns == bus.left == 4


def test_a_block_at_which_the_stick_always_leaves_is_bad(job: Job, data: bytearray) -> None:
    bus = FailingBus(FailingUnit(data))

    def reopen() -> scsiusb.Disk:
        bus.leaves = {77}
        return bus.reopen()

    bus.leaves = {77}
    check(job.run(bus, reopen=reopen), job, data, {77})
    assert bus.left == 3, "once in a large command, twice alone"


def test_it_waits_for_a_stick_that_is_away_for_a_while(job: Job, data: bytearray) -> None:
    bus = FailingBus(FailingUnit(data))
    bus.leaves = {200}
    away = iter(range(5))

    def reopen() -> scsiusb.Disk:
        if next(away, None) is None:
            return bus.reopen()
        return scsiusb.open_on(bus)

    check(job.run(bus, reopen=reopen), job, data, set())


@pytest.mark.parametrize("reopens", [False, True])
def test_a_stick_that_does_not_come_back_can_be_continued(reopens: bool, job: Job, data: bytearray) -> None:
    bus = FailingBus(FailingUnit(data, {10}))
    bus.leaves = {200}
    reopen = (lambda: scsiusb.open_on(bus)) if reopens else None
    with pytest.raises(DeviceGone):
        job.run(bus, reopen=reopen, wait=0.05)
    bus.plug(bus.stick)
    result = job.run(bus)
    check(result, job, data, {10})
    assert result.resumed > 100 * 512


def test_a_device_that_answers_nothing_more_does_not_make_all_blocks_bad(job: Job, data: bytearray) -> None:
    bus = FailingBus(FailingUnit(data))
    bus.hangs = {200}
    answer = bus.wire.intercept

    def intercept(wire: Wire, endpoint: int, buffer: memoryview) -> Answer | None:
        assert answer is not None
        return (Code.TIMEOUT, 0) if bus.hung else answer(wire, endpoint, buffer)

    bus.wire.intercept = intercept
    with pytest.raises(DeviceGone, match="does not answer"):
        job.run(bus)
    assert {area.status for area in saved(job) if area.end > 230 * 512} == {"?"}


def saved(job: Job) -> list[Area]:
    return list(load(job.map, SIZE, 512).areas())


def test_a_unit_that_is_not_ready_for_a_while_is_waited_for(job: Job, data: bytearray) -> None:
    bus = FailingBus(FailingUnit(data))
    bus.stick.faults.add("sense=2/04/00,opcode=28,lba=100,times=3")
    check(job.run(bus), job, data, set())


def test_a_medium_that_is_taken_out(job: Job, data: bytearray) -> None:
    unit = FailingUnit(data)
    bus = FailingBus(unit)
    bus.stick.faults.add("eject,lba=200")
    with pytest.raises(NotReady):
        job.run(bus, wait=0.01)
    assert {area.status for area in saved(job)} == {"+", "?"}, "no block has failed"
    unit.insert(Memory(data))
    check(job.run(bus), job, data, set())


# --- another device -------------------------------------------------------------------------------


def untouched(job: Job) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (job.image, job.map)}


def interrupted(job: Job, data: bytearray, serial: str | None = "RESCUE01") -> FailingBus:
    bus = FailingBus(FailingUnit(data), serial)
    with pytest.raises(Stop):
        job.run(bus, progress=StopAfter(20))
    return bus


@pytest.mark.parametrize("kind", ["serial", "contents", "contents, no serial", "size"])
def test_another_device_is_refused(kind: str, job: Job, data: bytearray) -> None:
    serial = None if kind == "contents, no serial" else "RESCUE01"
    interrupted(job, data, serial)
    before = untouched(job)
    other = data if kind == "serial" else bytearray(random.Random(99).randbytes(SIZE + 512 * (kind == "size")))
    with pytest.raises(DeviceMismatch):
        job.run(FailingBus(FailingUnit(other), "OTHER" if kind == "serial" else serial))
    assert untouched(job) == before


def test_a_disk_that_a_desktop_has_mounted_meanwhile_is_the_same(job: Job, data: bytearray) -> None:
    """Such as by the flag in the first block that says that the file system is mounted."""
    bus = interrupted(job, data)
    before = bytes(data)
    data[37] ^= 1
    job.run(bus)
    assert job.image.read_bytes() == before


def test_another_device_in_its_place_is_refused_in_the_middle(job: Job, data: bytearray) -> None:
    bus = FailingBus(FailingUnit(data))
    bus.leaves = {200}
    other = FailingBus(FailingUnit(bytearray(random.Random(99).randbytes(SIZE))))
    with pytest.raises(DeviceMismatch, match="do not have what was rescued"):
        job.run(bus, reopen=other.reopen)
    assert other.handles == ()
    bus.plug(bus.stick)
    check(job.run(bus), job, data, set())


def test_another_medium_after_an_exchange_is_refused(job: Job, data: bytearray) -> None:
    unit = FailingUnit(data)
    bus = FailingBus(unit)

    def exchange(progress: Progress) -> None:
        if progress.done >= SIZE // 2 and unit.medium is not None and unit.medium.blocks == BLOCKS:
            unit.insert(Memory(bytearray(random.Random(99).randbytes(SIZE))))

    with pytest.raises(DeviceMismatch):
        job.run(bus, progress=exchange)
    image = job.image.read_bytes()
    assert all(image[at] in (0, data[at]) for at in range(SIZE))


# --- files ----------------------------------------------------------------------------------------


def test_an_image_without_its_map_is_not_touched(job: Job, data: bytearray) -> None:
    job.image.write_bytes(b"precious")
    with pytest.raises(ImageError, match="does not exist"):
        job.run(FailingBus(FailingUnit(data)))
    assert job.image.read_bytes() == b"precious"
    assert not job.map.exists()


def test_a_map_without_its_image_is_refused(job: Job, data: bytearray) -> None:
    interrupted(job, data)
    job.image.unlink()
    with pytest.raises(ImageError, match="has only 0"):
        job.run(FailingBus(FailingUnit(data)))


def test_one_name_for_both_is_refused(job: Job, data: bytearray) -> None:
    job.map = job.image
    with pytest.raises(ImageError, match="both"):
        job.run(FailingBus(FailingUnit(data)))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_a_device_is_no_image(job: Job, data: bytearray) -> None:
    job.image = Path(os.devnull)
    with pytest.raises(ImageError, match="regular file"):
        job.run(FailingBus(FailingUnit(data)))


def test_a_damaged_map_is_refused(job: Job, data: bytearray) -> None:
    interrupted(job, data)
    job.map.write_text("nonsense")
    with pytest.raises(ImageError, match="line 1"):
        job.run(FailingBus(FailingUnit(data)))


@pytest.mark.parametrize("text", ["", "[]\n", '{"scsiusb_journal": 1, "job": "dump"}\n', '{"scsiusb_journal": 1}\n'])
def test_a_damaged_journal_is_refused(text: str, job: Job, data: bytearray) -> None:
    interrupted(job, data)
    job.journal.write_text(text)
    with pytest.raises(ImageError):
        job.run(FailingBus(FailingUnit(data)))


def test_hostile_records_of_a_journal_change_nothing(job: Job, data: bytearray) -> None:
    bus = interrupted(job, data)
    with job.journal.open("a") as file:
        for record in (
            '{"pos": -512, "size": 512, "status": "+"}',
            '{"pos": 0, "size": 1e9, "status": "-"}',
            f'{{"pos": 0, "size": {SIZE + 512}, "status": "-"}}',
            f'{{"pos": {SIZE - 512}, "size": 512, "status": "+", "digest": "00"}}',
            f'{{"pos": {SIZE - 512}, "size": 512, "status": "++"}}',
            '{"pos": 1, "size": 512, "status": "-"}',
            '{"left": "x"}',
            "{}",
        ):
            print(record, file=file)
    with suppress(Stop):
        job.run(bus, progress=StopAfter(0))
    found = saved(job)
    assert {area.status for area in found} == {"+", "?"}
    assert (found[-1].status, found[-1].end) == ("?", SIZE)
    check(job.run(bus), job, data, set())


@pytest.mark.slow
def test_zeros_take_no_space(job: Job) -> None:
    data = bytearray(8 << 20)
    job.run(FailingBus(FailingUnit(data)))
    found = job.image.stat()
    assert found.st_size == 8 << 20
    if sys.platform != "win32":
        assert found.st_blocks * 512 < 1 << 20


def test_zeros_replace_what_an_earlier_program_left(job: Job) -> None:
    job.image.write_bytes(b"\xff" * SIZE)
    job.map.write_text(f"0 ? 1\n0 {SIZE} ?\n")
    job.run(FailingBus(FailingUnit(bytearray(SIZE))))
    assert job.image.read_bytes() == bytes(SIZE)


def test_a_range(job: Job, data: bytearray) -> None:
    bus = FailingBus(FailingUnit(data, {120, 300}))
    result = job.run(bus, lba=100, blocks=50)
    assert (result.rescued, result.bad, result.size) == (49 * 512, 512, 50 * 512)
    assert [(area.pos // 512, area.size // 512) for area in result.map] == [(100, 20), (120, 1), (121, 29)]
    assert job.image.read_bytes()[100 * 512 : 120 * 512] == data[100 * 512 : 120 * 512]
    check(job.run(bus), job, data, {120, 300})
    with pytest.raises(OutOfRange):
        job.run(bus, lba=399, blocks=2)


def test_retrying_ends_when_nothing_is_left(job: Job, data: bytearray) -> None:
    unit = FailingUnit(data)
    unit.left = {51: 3}
    check(job.run(FailingBus(unit), retries=10**12), job, data, set())
    assert unit.tried[51] == 4
    check(job.run(FailingBus(unit), retries=10**12), job, data, set())


@pytest.mark.parametrize("name", ["x.img.zst", "x.GZ", "x.xz", "x.bz2"])
def test_the_name_of_a_compressed_image_is_refused(name: str, job: Job, data: bytearray) -> None:
    job.image = job.image.with_name(name)
    with pytest.raises(ImageError, match="raw image"):
        job.run(FailingBus(FailingUnit(data)))
    assert not job.image.exists()
    assert not job.map.exists()


@pytest.mark.parametrize("options", [{"retries": -1}, {"timeout": 0}, {"wait": -1.0}])
def test_impossible_options(options: dict[str, float], job: Job, data: bytearray) -> None:
    with pytest.raises(ValueError, match="negative"):
        job.run(FailingBus(FailingUnit(data)), **options)
    assert not job.image.exists()


# --- interruptions --------------------------------------------------------------------------------


class StopAfter:
    """A `progress` that ends the rescue after so many calls."""

    def __init__(self, calls: int) -> None:
        self._left = calls

    def __call__(self, progress: Progress) -> None:
        assert 0 <= progress.done <= (progress.total or 0)
        self._left -= 1
        if self._left < 0:
            raise Stop


class Killed(Exception):
    """Stands for SIGKILL: the files are those of a moment in the middle."""


class KillAfter:
    """A `progress` after so many calls of which nothing more reaches the files."""

    def __init__(self, job: Job, calls: int) -> None:
        self._job, self._left = job, calls
        self.files: dict[Path, bytes] = {}

    def __call__(self, progress: Progress) -> None:
        self._left -= 1
        if self._left < 0:
            self.files = {path: path.read_bytes() for path in self._job.image.parent.iterdir()}
            raise Killed

    def restore(self) -> None:
        for path in self._job.image.parent.iterdir():
            path.unlink()
        for path, contents in self.files.items():
            path.write_bytes(contents)


def interrupted_run(chance: random.Random, job: Job, bus: FailingBus) -> None:
    """Run a rescue that is interrupted in one of several ways, unless it ends before."""
    calls = chance.randint(0, 60)
    kind = chance.choice(["stop", "kill", "leave", "unplug"])
    if kind in ("leave", "unplug"):
        bus.leaves = {chance.randrange(BLOCKS)}
    killing = KillAfter(job, calls)
    with suppress(Stop, Killed, DeviceGone):
        if kind == "kill":
            job.run(bus, progress=killing)
        elif kind == "unplug":
            job.run(bus)
        else:
            job.run(bus, reopen=bus.reopen, progress=StopAfter(calls))
    if killing.files:
        killing.restore()
    bus.leaves = set()
    if not bus.devices():
        bus.plug(bus.stick)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30))
def test_any_sequence_of_interruptions_ends_with_the_same_bytes(seed: int, job: Job, data: bytearray) -> None:
    """No block is read more than twice before it is rescued; once more where the stick left in the middle."""
    chance = random.Random(seed)
    bad = set(chance.sample(range(BLOCKS), chance.randint(0, 12)))
    start = chance.randrange(BLOCKS - 40)
    bad |= set(range(start, start + chance.randint(1, 40)))
    hangs = set(chance.sample(range(BLOCKS), chance.randint(0, 3)))
    unit = FailingUnit(data, bad)
    bus = FailingBus(unit)
    bus.hangs = hangs
    for _ in range(chance.randint(2, 6)):
        interrupted_run(chance, job, bus)
    check(job.run(bus), job, data, bad | hangs)
    assert max(unit.tried.values()) <= 2 + bus.left


def test_the_map_is_saved_at_times(job: Job, data: bytearray, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here at each time: after a crash of the host, when the journal may be lost, not much is read again."""
    monkeypatch.setattr(rescue_record, "SAVE_EVERY", 0.0)
    sizes = []

    def look(progress: Progress) -> None:
        sizes.append((progress.done, sum(area.size for area in saved(job) if area.status == "+")))
        assert job.journal.read_bytes().count(b"\n") == 1, "it has only what is not in the map"

    job.run(FailingBus(FailingUnit(data, {60})), progress=look)
    assert all(done == in_map for done, in_map in sizes)
    assert len(sizes) > 20


def test_what_a_crash_of_the_host_took_from_the_image_is_read_again(job: Job, data: bytearray) -> None:
    bus = FailingBus(FailingUnit(data))
    killing = KillAfter(job, 15)
    with pytest.raises(Killed):
        job.run(bus, progress=killing)
    killing.restore()
    image = bytearray(job.image.read_bytes())
    image[8192:9216] = bytes(1024)  # never reached the host's disk, although the journal did
    job.image.write_bytes(image)
    result = job.run(bus)
    check(result, job, data, set())
    assert 0 < result.resumed < SIZE


def in_the_rescue(frame: FrameType) -> bool:
    return Path(frame.f_code.co_filename).name in ("rescue_record.py", "mapfile.py", "rescue_passes.py", "journal.py")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(25))
def test_ctrl_c_at_any_instruction(seed: int, job: Job) -> None:
    """The next run goes on; only the read in the middle of which it came may be repeated."""
    chance = random.Random(seed)
    data = bytearray(chance.randbytes(60 * 512))
    bad = {7, 31, 32}
    unit = FailingUnit(data, bad)
    bus = FailingBus(unit)
    CtrlC(in_the_rescue, chance.randint(1, 12_000)).run(lambda: job.run(bus))
    result = job.run(bus)
    assert result.map == areas(bad, 60)
    assert job.image.read_bytes() == expected(data, bad)
    assert max(unit.tried.values()) <= 3
    repeated = [lba for lba, count in unit.tried.items() if count > 2]
    assert not repeated or max(repeated) - min(repeated) < 16, "more than one command"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("calls", [0, 10, 40])
def test_a_killed_process_can_be_continued(calls: int, job: Job, data: bytearray, tmp_path: Path) -> None:
    (tmp_path / "stick").write_bytes(data)
    script = f"""
        import time, scsiusb
        from scsiusb.imaging import rescue, rescue_passes
        rescue_passes.FIRST_READ = rescue_passes.LARGEST_READ = 4096
        left = {calls}
        def progress(progress):
            global left
            left -= 1
            if left < 0:
                print("now", flush=True)
                time.sleep(60)
        with scsiusb.open("virtual:{tmp_path / "stick"}?serial=RESCUE01") as disk:
            rescue(disk, {str(job.image)!r}, {str(job.map)!r}, progress=progress)
    """
    if sys.platform == "win32":
        raise NotImplementedError
    assert python(script, signal_at="now", number=signal.SIGKILL)[0] == -signal.SIGKILL
    result = job.run(FailingBus(FailingUnit(data)))
    check(result, job, data, set())
    assert result.resumed == (calls + 1) * 4096


# --- GNU ddrescue ---------------------------------------------------------------------------------


@pytest.fixture
def ddrescue(tmp_path: Path, data: bytearray) -> Callable[..., None]:
    """Return a function that runs ddrescue on the data, whose bad blocks another map file gives (--test-mode)."""
    if shutil.which("ddrescue") is None:
        pytest.skip("ddrescue (package gddrescue) is not installed")
    (tmp_path / "disk").write_bytes(data)

    def run(job: Job, bad: set[int], *words: str) -> None:
        lines = "".join(f"{area.pos} {area.size} {area.status}\n" for area in areas(bad))
        (tmp_path / "bad").write_text(f"0 + 1\n{lines}")
        paths = [str(path) for path in (tmp_path / "disk", job.image, job.map)]
        command = ["ddrescue", "-q", f"--test-mode={tmp_path / 'bad'}", *words, *paths]
        subprocess.run(command, check=True, timeout=60)

    return run


BAD = {5, 100, 101, 102, 103, 160}


@pytest.mark.parametrize("words", [("--no-trim", "--no-scrape"), ("--no-scrape",), ("--size=60000",), ()])
def test_a_rescue_that_ddrescue_began(
    words: tuple[str, ...], ddrescue: Callable[..., None], job: Job, data: bytearray
) -> None:
    bad = BAD | {399}  # ddrescue takes a bad end of its simulated disk for the end of the disk
    ddrescue(job, bad, *words)
    unit = FailingUnit(data, bad)
    result = job.run(FailingBus(unit))
    check(result, job, data, bad)
    assert result.resumed > 0
    before = {lba for lba in range(BLOCKS) if unit.tried[lba] == 0}
    assert len(before) * 512 >= result.resumed - 16 * 512, "what was rescued is not read again, but for some blocks"


def test_ddrescues_map_of_another_device_is_refused(ddrescue: Callable[..., None], job: Job, data: bytearray) -> None:
    ddrescue(job, BAD, "--no-scrape")
    with pytest.raises(DeviceMismatch):
        job.run(FailingBus(FailingUnit(bytearray(random.Random(99).randbytes(SIZE)))))


@pytest.mark.parametrize("calls", [0, 5, 20, 40, 50])
def test_a_rescue_that_ddrescue_continues(calls: int, ddrescue: Callable[..., None], job: Job, data: bytearray) -> None:
    """Then ours again, which finds nothing to do, although the journal of the first run is still there."""
    with pytest.raises(Stop):
        job.run(FailingBus(FailingUnit(data, BAD)), progress=StopAfter(calls))
    ddrescue(job, BAD)
    assert job.image.read_bytes() == expected(data, BAD)
    log(job, BAD)
    unit = FailingUnit(data, BAD)
    check(job.run(FailingBus(unit)), job, data, BAD)
    assert len(unit.reads) <= 16, "blocks by which the device is known again"


def test_a_virtual_stick_with_a_seeded_fault(job: Job, data: bytearray) -> None:
    """The faults of the table do as well as those of this test's own unit."""
    stick = Stick([FailingUnit(data)])
    stick.faults.add("sense=3/11/00,opcode=28,lba=40-41,times=always")
    with scsiusb.open_on(Bus(stick)) as disk:
        assert rescue(disk, job.image, job.map).bad == 1024
