"""Erase: every block is overwritten, or named; a device that kept one is found out; an interrupted erase goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import scsiusb
from scsiusb.errors import DataProtect, DeviceMismatch, IllegalRequest, ImageError, Miscompare, UnitAttention
from scsiusb.imaging import BlockRange, Progress, erase, erasing
from scsiusb.imaging.fills import PART, Keyed
from scsiusb.virtual import Bus, Flawed, Memory, Stick, Unit
from scsiusb.virtual.device.descriptors import Identity
from tests.imaging.sticks import Stop, StopAt, contents, plug, stick
from tests.sticks import Counting, OddUnit

SIZE = 256 * 1024
STEP = 16 * 1024
BLOCKS = SIZE // 512


@pytest.fixture(autouse=True)
def _small_checkpoints(monkeypatch: pytest.MonkeyPatch, state_folder: Path) -> None:
    monkeypatch.setattr(erasing, "CHECKPOINT", STEP)


def thin(data: bytearray, **attributes: Any) -> Bus:
    return Bus(Stick([Unit(Memory(data), thin=True, **attributes)], identity=Identity(serial="THIN")))


def journals(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("verify", ["none", "sample", "whole"])
@pytest.mark.parametrize("method", ["zero", "pattern", "random"])
def test_all_blocks_are_overwritten(method: Any, verify: Any, state_folder: Path) -> None:
    data = contents()
    with scsiusb.open_on(plug(data)) as disk:
        result = erase(disk, method=method, pattern=b"abc" if method == "pattern" else b"", verify=verify)
    assert (result.method, result.size, result.verified, result.bad, result.resumed) == (method, SIZE, verify, (), 0)
    if method == "random":
        assert len({bytes(data[at : at + 16]) for at in range(0, SIZE, 512)}) == BLOCKS
    else:
        assert data == (bytes(SIZE) if method == "zero" else (b"abc" * 171)[:512] * BLOCKS)
    assert journals(state_folder) == []


def test_random_bytes_are_those_of_the_key_at_any_place() -> None:
    whole = memoryview(bytearray(3 * PART))
    Keyed(b"key").put(whole, 0)
    part = memoryview(bytearray(PART + 1024))
    Keyed(b"key").put(part, PART // 2)
    assert part == whole[PART // 2 : PART // 2 + len(part)]
    Keyed(b"another").put(part, PART // 2)
    assert part[:16] != whole[PART // 2 : PART // 2 + 16]


@pytest.mark.parametrize("method", ["unmap", "auto"])
def test_unmap_where_the_unit_supports_it(method: Any) -> None:
    data = contents()
    with scsiusb.open_on(thin(data)) as disk:
        result = erase(disk, method=method, verify="whole")
    assert (result.method, result.verified) == ("unmap", "whole")
    assert data == bytes(SIZE)


def test_unmap_is_not_verified_if_the_unit_does_not_clear_its_blocks() -> None:
    data = contents()
    with scsiusb.open_on(thin(data, thin_zeros=False)) as disk:
        assert erase(disk, method="unmap", verify="whole").verified == "none"
        assert erase(disk, method="auto").method == "zero"
    assert data == bytes(SIZE)


def test_unmap_where_the_unit_does_not_support_it() -> None:
    data = contents()
    with scsiusb.open_on(plug(data)) as disk:
        with pytest.raises(IllegalRequest, match="UNMAP"):
            erase(disk, method="unmap")
        assert data == contents()
        assert erase(disk, method="auto").method == "zero"


def test_the_blocks_of_an_unmap_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """The unit refuses more than 65536 blocks in a command."""
    from scsiusb.virtual.target import unmap

    monkeypatch.setattr(unmap, "MOST_BLOCKS", 100)
    data, seen = contents(), []
    with scsiusb.open_on(thin(data)) as disk:
        erase(disk, method="unmap", progress=lambda each: seen.append(each.done))
    assert data == bytes(SIZE)
    assert seen[:2] == [100 * 512, 200 * 512]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"method": "shred"}, "method must be one of"),
        ({"verify": "medium"}, "verify must be one of"),
        ({"method": "pattern"}, "give a pattern"),
        ({"pattern": b"a"}, "give a pattern"),
        ({"method": "pattern", "pattern": bytes(513)}, "513 bytes"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(arguments: dict[str, Any], text: str) -> None:
    data = contents()
    with scsiusb.open_on(plug(data)) as disk, pytest.raises(ValueError, match=text):
        erase(disk, **arguments)
    assert data == contents()


def test_a_write_protected_medium_is_refused() -> None:
    data = contents()
    bus = Bus(Stick([Unit(Memory(data), write_protected=True)]))
    with scsiusb.open_on(bus) as disk, pytest.raises(DataProtect):
        erase(disk)
    assert data == contents()


def test_progress_ends_at_the_total() -> None:
    seen: list[Progress] = []
    with scsiusb.open_on(plug(contents())) as disk:
        erase(disk, verify="whole", progress=seen.append)
    assert [each for each in seen if each.done == each.total] == [
        Progress("writing", SIZE, SIZE),
        Progress("verifying", SIZE, SIZE),
    ]


# --- a device that fails ----------------------------------------------------------------------------


class Forgetful(Memory):
    """A medium that drops writes to some bytes."""

    lost = range(100 * 512, 103 * 512)

    def _write(self, offset: int, view: memoryview) -> None:
        kept = bytes(self.data[self.lost.start : self.lost.stop])
        super()._write(offset, view)
        self.data[self.lost.start : self.lost.stop] = kept


@pytest.mark.parametrize("method", ["zero", "random"])
@pytest.mark.parametrize("verify", ["sample", "whole"])
def test_a_write_that_was_dropped_is_found(method: Any, verify: Any, state_folder: Path) -> None:
    bus = Bus(Stick([Unit(Forgetful(b"\xaa" * SIZE))]))
    with scsiusb.open_on(bus) as disk, pytest.raises(Miscompare, match="3 blocks") as caught:
        erase(disk, method=method, verify=verify)
    assert caught.value.lba == 100
    assert journals(state_folder) == [], "it has ended, and another device would be refused because of its journal"


def test_a_sample_of_a_large_disk_has_its_ends() -> None:
    chosen = erasing._samples(10_000_000, 1000)
    assert (chosen[0], chosen[-1], len(set(chosen)), len(chosen)) == (0, 9_999_999, 1000, 1000)
    assert chosen == sorted(chosen)
    assert chosen != erasing._samples(10_000_000, 1000), "a device cannot know which ones"


def test_a_block_that_cannot_be_written_is_named_and_the_others_are_erased() -> None:
    data = contents()
    each = stick(data)
    each.faults.add("sense=3/0C/00,opcode=2a,lba=100-101,times=always")
    each.faults.add("sense=3/0C/00,opcode=2a,lba=300,times=always")
    with scsiusb.open_on(Bus(each)) as disk:
        result = erase(disk, verify="whole")
    kept = contents()
    assert result.bad == (BlockRange(100, 2), BlockRange(300, 1))
    assert result.size == SIZE - 3 * 512
    for lba in range(BLOCKS):
        wanted = kept[lba * 512 : lba * 512 + 512] if lba in (100, 101, 300) else bytes(512)
        assert data[lba * 512 : lba * 512 + 512] == wanted, lba


def test_a_unit_that_is_reset_again_and_again_ends_it() -> None:
    each = Stick([OddUnit(Memory(contents()), removable=False)])
    each.faults.add("attentions=1,opcode=35,times=always")
    with pytest.raises(UnitAttention), scsiusb.open_on(Bus(each)) as disk:
        erase(disk)


def test_what_a_reset_may_have_lost_is_written_again() -> None:
    data = contents()
    unit = OddUnit(Memory(data), removable=False)
    each = Stick([unit])
    each.faults.add("sense=3/0C/00,opcode=2a,lba=40,times=always")
    each.faults.add("attentions=1,opcode=35")
    with scsiusb.open_on(Bus(each)) as disk:
        assert erase(disk).bad == (BlockRange(40, 1),)
    writes = [int.from_bytes(cdb[2:6], "big") for cdb in unit.cdbs if cdb[0] == 0x2A]
    assert writes.count(0) == 2
    assert writes.count(STEP // 512 * 3) == 1


def test_too_many_bad_blocks_end_the_erase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasing, "MOST_BAD", 2)
    each = stick(contents())
    each.faults.add("sense=3/0C/00,opcode=2a,lba=100-200,times=always")
    with scsiusb.open_on(Bus(each)) as disk, pytest.raises(scsiusb.MediumError) as caught:
        erase(disk)
    assert caught.value.lba == 102


def test_verification_resets_the_device_to_leave_its_cache() -> None:
    with scsiusb.open_on(plug(contents())) as disk:
        disk.read(0, 1)
        before = disk.unit.resets
        erase(disk, verify="none")
        assert disk.unit.resets == before
        erase(disk)
        assert disk.unit.resets > before


# --- interrupted ------------------------------------------------------------------------------------


@pytest.mark.parametrize("verify", ["whole", "sample"])
def test_what_was_verified_is_not_read_again(verify: Any, tmp_path: Path) -> None:
    medium = Counting(contents())
    with scsiusb.open_on(Bus(Stick([Unit(medium)]))) as disk:
        with pytest.raises(Stop):
            erase(disk, verify="whole", journal=tmp_path / "j", progress=StopAt("verifying", SIZE - STEP))
        medium.read = medium.written = 0
        result = erase(disk, verify=verify, resume=True, journal=tmp_path / "j")
    assert (result.verified, medium.written) == (verify, 0)
    assert medium.data == bytes(SIZE)
    # Besides, 64 blocks by which the device is known; a sample is of all blocks of a small disk.
    assert medium.read <= 2 * STEP + 66 * 512 if verify == "whole" else medium.read >= SIZE


def test_a_wrong_block_that_was_found_is_found_again(tmp_path: Path) -> None:
    wrong = STEP // 512 + 3
    with scsiusb.open_on(Bus(Stick([Unit(Flawed(Memory(contents()), dropped=[(wrong, wrong)]))]))) as disk:
        with pytest.raises(Stop):
            erase(disk, verify="whole", journal=tmp_path / "j", progress=StopAt("verifying", SIZE - STEP))
        with pytest.raises((Miscompare, ImageError), match=f"LBA {wrong}"):
            erase(disk, verify="whole", resume=True, journal=tmp_path / "j")


@pytest.mark.parametrize("done", [STEP, 4 * STEP, SIZE])
@pytest.mark.parametrize("method", ["zero", "random", "pattern"])
def test_an_interrupted_erase_goes_on(method: Any, done: int, state_folder: Path) -> None:
    data = contents()
    unit = OddUnit(Memory(data))
    bus = Bus(Stick([unit], identity=Identity(serial="DUMP0001")))
    with scsiusb.open_on(bus) as disk:
        pattern = b"abc" if method == "pattern" else b""
        with pytest.raises(Stop):
            erase(disk, method=method, pattern=pattern, progress=StopAt("writing", done))
        assert len(journals(state_folder)) == 1
        before, unit.cdbs = bytes(data), []
        result = erase(disk, method=method, pattern=pattern, resume=True, verify="whole")
    assert (result.resumed, result.method, result.verified) == (done, method, "whole")
    assert data[:done] == before[:done]
    written = [int.from_bytes(cdb[2:6], "big") for cdb in unit.cdbs if cdb[0] == 0x2A]
    assert min(written, default=BLOCKS) == done // 512, "nothing that is done is written again"
    assert journals(state_folder) == []


@pytest.mark.parametrize(
    ("method", "pattern", "text"),
    [
        ("zero", b"", "method pattern, not zero"),
        ("auto", b"", "method pattern, not auto"),
        ("pattern", b"abd", "pattern 616263, not 616264"),
    ],
)
def test_an_erase_does_not_go_on_by_another_method(method: Any, pattern: bytes, text: str, tmp_path: Path) -> None:
    data = contents()
    with scsiusb.open_on(plug(data)) as disk:
        with pytest.raises(Stop):
            erase(disk, method="pattern", pattern=b"abc", journal=tmp_path / "j", progress=StopAt("writing", STEP))
        before = bytes(data)
        with pytest.raises(ImageError, match=text):
            erase(disk, method=method, pattern=pattern, resume=True, journal=tmp_path / "j")
        assert data == before
        assert erase(disk, resume=True, journal=tmp_path / "j").method == "pattern"


def test_an_erase_that_auto_has_begun_goes_on_by_auto(tmp_path: Path) -> None:
    with scsiusb.open_on(plug(contents())) as disk:
        with pytest.raises(Stop):
            erase(disk, method="auto", journal=tmp_path / "j", progress=StopAt("writing", STEP))
        assert erase(disk, method="auto", resume=True, journal=tmp_path / "j").resumed == STEP


def test_an_interrupted_unmap_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from scsiusb.virtual.target import unmap

    monkeypatch.setattr(unmap, "MOST_BLOCKS", 100)
    data = contents()
    with scsiusb.open_on(thin(data)) as disk:
        with pytest.raises(Stop):
            erase(disk, method="auto", progress=StopAt("writing", 200 * 512))
        assert erase(disk, method="auto", resume=True).resumed == 200 * 512
    assert data == bytes(SIZE)


def test_bad_blocks_of_the_first_run_are_known_to_the_second(tmp_path: Path) -> None:
    each = stick(contents())
    each.faults.add("sense=3/0C/00,opcode=2a,lba=10,times=always")
    with scsiusb.open_on(Bus(each)) as disk:
        with pytest.raises(Stop):
            erase(disk, journal=tmp_path / "j", progress=StopAt("writing", 2 * STEP))
        result = erase(disk, journal=tmp_path / "j", resume=True)
    assert result.bad == (BlockRange(10, 1),)
    assert not (tmp_path / "j").exists()


def test_without_resume_an_erase_begins_anew() -> None:
    data = contents()
    with scsiusb.open_on(plug(data)) as disk:
        with pytest.raises(Stop):
            erase(disk, method="random", progress=StopAt("writing", STEP))
        assert erase(disk).resumed == 0
    assert data == bytes(SIZE)


@pytest.mark.parametrize("at", [0, 5, 9])
def test_an_erase_goes_on_after_the_device_was_unplugged(at: int) -> None:
    data = contents()
    each = stick(data)
    each.faults.add(f"disconnect=512@data,opcode=2a,lba={at * STEP // 512}")
    with pytest.raises(scsiusb.DeviceGone), scsiusb.open_on(Bus(each)) as disk:
        erase(disk)
    with scsiusb.open_on(plug(data)) as disk:
        result = erase(disk, resume=True, verify="whole")
    assert result.resumed == at * STEP
    assert data == bytes(SIZE)


@pytest.mark.parametrize("kind", ["serial", "size", "contents"])
def test_another_device_is_refused_and_not_written(kind: str, tmp_path: Path) -> None:
    with scsiusb.open_on(plug(contents())) as disk, pytest.raises(Stop):
        erase(disk, journal=tmp_path / "j", progress=StopAt("writing", 4 * STEP))
    other = contents() + bytes(512 if kind == "size" else 0)
    before = bytes(other)
    error = ImageError if kind == "contents" else DeviceMismatch
    with scsiusb.open_on(plug(other, "OTHER" if kind == "serial" else "DUMP0001")) as disk, pytest.raises(error):
        erase(disk, journal=tmp_path / "j", resume=True)
    assert other == before


def test_the_journal_of_another_job_is_refused(tmp_path: Path) -> None:
    data = contents()
    (tmp_path / "other").write_text('{"scsiusb_journal": 1, "job": "dump"}\n')
    with scsiusb.open_on(plug(data)) as disk, pytest.raises(ImageError, match="not the journal of an erase"):
        erase(disk, journal=tmp_path / "other", resume=True)
    assert data == contents()


def test_an_erase_that_never_began_is_resumed_from_the_start(tmp_path: Path) -> None:
    data = contents()
    (tmp_path / "j").write_text('{"scsiusb_jou')
    with scsiusb.open_on(plug(data)) as disk:
        done = erase(disk, journal=tmp_path / "j", resume=True)
    assert (done.resumed, data) == (0, bytearray(len(data)))


@pytest.mark.parametrize("change", ["method", "key", "done", "far"])
def test_a_damaged_journal_is_refused(change: str, tmp_path: Path) -> None:
    data, place = contents(), tmp_path / "j"
    with scsiusb.open_on(plug(data)) as disk:
        with pytest.raises(Stop):
            erase(disk, method="random", journal=place, progress=StopAt("writing", 2 * STEP))
        before, text = bytes(data), place.read_text()
        changes = {
            "method": ('"random"', '"shred"'),
            "key": ('"key": "', '"key": "x'),
            "done": ('"done": 32', '"done": "many"'),
            "far": ('"done": 64', '"done": 6400'),
        }
        place.write_text(text.replace(*changes[change]))
        assert place.read_text() != text
        with pytest.raises(ImageError, match="damaged"):
            erase(disk, journal=place, resume=True)
    assert data == before
