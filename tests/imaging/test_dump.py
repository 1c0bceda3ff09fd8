"""Dump: the image has exactly the device's bytes, in every format, also after an interruption at any moment."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import scsiusb
from scsiusb.errors import DeviceMismatch, ImageError, OutOfRange
from scsiusb.imaging import Progress, dump, dumping
from scsiusb.imaging.codecs import zstd
from scsiusb.imaging.image_file import ImageFile
from scsiusb.imaging.seekable import read_seek_table
from scsiusb.virtual import Bus, Memory, Stick, Unit
from tests.imaging.sticks import Stop, StopAt, contents, plug
from tests.programs import program, run
from tests.sticks import Counting

FRAME = 64 * 1024
SIZE = 3 * FRAME + 5 * 512


@pytest.fixture(autouse=True)
def _small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dumping, "FRAME", FRAME)


@pytest.fixture
def data() -> bytearray:
    return contents(size=SIZE)


@pytest.fixture
def disk(data: bytearray) -> Iterator[scsiusb.Disk]:
    with scsiusb.open_on(plug(data)) as disk:
        yield disk


READERS: dict[str, Callable[[bytes], bytes]] = {
    "stick.img": bytes,
    "stick.img.gz": gzip.decompress,
    "stick.img.bz2": bz2.decompress,
    "stick.img.xz": lzma.decompress,
    "stick.IMG.ZST": lambda packed: bytes(zstd().decompress(packed)),
}


@pytest.mark.parametrize("name", READERS)
def test_each_format_has_the_devices_bytes(name: str, disk: scsiusb.Disk, data: bytearray, tmp_path: Path) -> None:
    done = dump(disk, tmp_path / name)
    assert READERS[name]((tmp_path / name).read_bytes()) == data
    assert done.sha256 == hashlib.sha256(data).hexdigest()
    assert (done.lba, done.blocks, done.block_size, done.size) == (0, SIZE // 512, 512, SIZE)
    assert os.listdir(tmp_path) == [name], "the journal of a dump that is complete is removed"


@pytest.mark.parametrize(("tool", "name"), [("gzip", "a.gz"), ("bzip2", "a.bz2"), ("xz", "a.xz"), ("zstd", "a.zst")])
def test_the_formats_own_program_finds_no_fault(
    tool: str, name: str, disk: scsiusb.Disk, data: bytearray, tmp_path: Path
) -> None:
    dump(disk, tmp_path / name)
    run(tool, "-t", tmp_path / name)
    unpacked = subprocess.run([program(tool), "-dc", name], cwd=tmp_path, check=True, capture_output=True).stdout
    assert unpacked == data


def test_a_raw_image_takes_no_space_for_zeros(tmp_path: Path) -> None:
    with scsiusb.open_on(plug(bytearray(8 << 20))) as disk:
        dump(disk, tmp_path / "zeros.img")
    found = (tmp_path / "zeros.img").stat()
    assert found.st_size == 8 << 20
    if sys.platform != "win32":
        assert found.st_blocks * 512 < 1 << 20


def test_a_range_can_be_dumped(disk: scsiusb.Disk, data: bytearray, tmp_path: Path) -> None:
    done = dump(disk, tmp_path / "part.img", lba=3, blocks=10)
    assert (tmp_path / "part.img").read_bytes() == data[3 * 512 : 13 * 512]
    assert (done.lba, done.blocks, done.size) == (3, 10, 5120)
    with pytest.raises(OutOfRange):
        dump(disk, tmp_path / "beyond.img", lba=SIZE // 512 - 1, blocks=2)
    assert not (tmp_path / "beyond.img").exists()


def test_a_shorter_image_replaces_a_longer_file(disk: scsiusb.Disk, data: bytearray, tmp_path: Path) -> None:
    (tmp_path / "a.img").write_bytes(b"x" * 100_000)
    dump(disk, tmp_path / "a.img", blocks=1)
    assert (tmp_path / "a.img").read_bytes() == data[:512]


@pytest.mark.parametrize("name", READERS)
def test_the_digest_is_written_beside_the_image_as_sha256sum_reads_it(
    name: str, disk: scsiusb.Disk, tmp_path: Path
) -> None:
    dump(disk, tmp_path / name, sha256_file=True)
    subprocess.run(["sha256sum", "-c", f"{name}.sha256"], cwd=tmp_path, check=True, capture_output=True)


@pytest.mark.skipif(sys.platform != "linux", reason="the names of files are any bytes on Linux only")
@pytest.mark.parametrize("name", [b"no-utf8-\xff.img", b"line\nend.img", b"back\\slash.img", "\u00e4.img".encode()])
def test_a_digest_beside_an_image_of_any_name(name: bytes, disk: scsiusb.Disk, tmp_path: Path) -> None:
    dump(disk, tmp_path / os.fsdecode(name), blocks=8, sha256_file=True, bmap=True)
    command = [b"sha256sum", b"-c", name + b".sha256"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)


def test_a_file_in_the_place_of_the_journal_stays(disk: scsiusb.Disk, tmp_path: Path) -> None:
    other = tmp_path / "a.img.journal"
    other.write_text("notes")
    with pytest.raises(ImageError, match=r"a\.img\.journal is there, and is no journal"):
        dump(disk, tmp_path / "a.img")
    assert other.read_text() == "notes"


def test_a_zst_image_has_a_table_of_its_frames(disk: scsiusb.Disk, data: bytearray, tmp_path: Path) -> None:
    dump(disk, tmp_path / "a.zst")
    with open(tmp_path / "a.zst", "rb") as file:
        frames = read_seek_table(file)
        assert frames is not None
        assert [frame.size for frame in frames] == [FRAME, FRAME, FRAME, 5 * 512]
        file.seek(frames[0].compressed)
        second = zstd().decompress(file.read(frames[1].compressed))
    assert second == data[FRAME : 2 * FRAME]


# --- interrupted ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("done", [FRAME, 2 * FRAME, SIZE])
def test_an_interrupted_dump_goes_on(done: int, name: str, disk: scsiusb.Disk, data: bytearray, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        dump(disk, tmp_path / name, progress=StopAt("reading", done))
    with pytest.raises(ImageError, match="interrupted"):
        dump(disk, tmp_path / name)
    seen: list[Progress] = []
    result = dump(disk, tmp_path / name, resume=True, progress=seen.append)
    assert READERS[name]((tmp_path / name).read_bytes()) == data
    assert result.sha256 == hashlib.sha256(data).hexdigest()
    assert done - FRAME <= result.resumed <= done
    assert os.listdir(tmp_path) == [name]


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_few_frames_are_read_before_the_file_has_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that is killed reads them again."""
    size, before, medium = 20 * FRAME, [], Counting(contents(size=20 * FRAME))
    add = ImageFile.add

    def slow(file: ImageFile, data: bytes | bytearray) -> None:
        before.append(medium.read)
        time.sleep(0.01)  # the reader has the time to run ahead, if it may
        add(file, data)

    monkeypatch.setattr(ImageFile, "add", slow)
    with scsiusb.open_on(Bus(Stick([Unit(medium)]))) as disk:
        dump(disk, tmp_path / name)
    ahead = [read - at * FRAME for at, read in enumerate(before[: size // FRAME])]
    assert max(ahead) <= (dumping.AHEAD + 1) * FRAME + 512, "those that wait for the file, and the one that is read"


def test_a_dump_that_never_began_is_resumed_from_the_start(disk: scsiusb.Disk, data: bytearray, tmp_path: Path) -> None:
    result = dump(disk, tmp_path / "a.img", resume=True)
    assert result.resumed == 0
    assert (tmp_path / "a.img").read_bytes() == data


def test_a_complete_file_is_not_resumed(disk: scsiusb.Disk, tmp_path: Path) -> None:
    (tmp_path / "a.img").write_bytes(b"precious")
    with pytest.raises(ImageError, match="no journal"):
        dump(disk, tmp_path / "a.img", resume=True)
    assert (tmp_path / "a.img").read_bytes() == b"precious"


@pytest.mark.parametrize("name", READERS)
def test_a_dump_that_was_complete_already_is_found_complete(
    name: str, disk: scsiusb.Disk, data: bytearray, tmp_path: Path
) -> None:
    dump(disk, tmp_path / name)
    before = (tmp_path / name).read_bytes()
    result = dump(disk, tmp_path / name, resume=True)
    assert (result.resumed, result.sha256) == (SIZE, hashlib.sha256(data).hexdigest())
    assert (tmp_path / name).read_bytes() == before
    with scsiusb.open_on(plug(contents(2, SIZE))) as other, pytest.raises(ImageError, match="no complete dump"):
        dump(other, tmp_path / name, resume=True)


@pytest.mark.parametrize("text", [b"", b'{"scsiusb_jou'])
def test_a_journal_that_was_not_begun_counts_as_none(
    text: bytes, disk: scsiusb.Disk, data: bytearray, tmp_path: Path
) -> None:
    for resume in (False, True):
        (tmp_path / "a.img").write_bytes(b"")
        (tmp_path / "a.img.journal").write_bytes(text)
        dump(disk, tmp_path / "a.img", resume=resume)
        assert (tmp_path / "a.img").read_bytes() == data


def interrupted(tmp_path: Path, data: bytearray, serial: str = "DUMP0001") -> Path:
    with scsiusb.open_on(plug(data, serial)) as disk, pytest.raises(Stop):
        dump(disk, tmp_path / "a.img", progress=StopAt("reading", 2 * FRAME))
    return tmp_path / "a.img"


@pytest.mark.parametrize(
    ("other", "serial"),
    [(contents(size=SIZE), "OTHER"), (contents(size=SIZE + 512), "DUMP0001"), (contents(2, SIZE), "DUMP0001")],
)
def test_another_device_is_refused(other: bytearray, serial: str, data: bytearray, tmp_path: Path) -> None:
    path = interrupted(tmp_path, data)
    before = path.read_bytes()
    with scsiusb.open_on(plug(other, serial)) as disk, pytest.raises(DeviceMismatch):
        dump(disk, path, resume=True)
    assert path.read_bytes() == before


def test_another_range_is_refused(data: bytearray, disk: scsiusb.Disk, tmp_path: Path) -> None:
    path = interrupted(tmp_path, data)
    with pytest.raises(ImageError, match="began with lba"):
        dump(disk, path, lba=1, resume=True)


def test_a_frame_of_zeros_is_in_the_file_before_it_is_in_the_journal(tmp_path: Path) -> None:
    with scsiusb.open_on(plug(bytearray(SIZE))) as disk:
        with pytest.raises(Stop):
            dump(disk, tmp_path / "a.img", progress=StopAt("reading", 2 * FRAME))
        assert (tmp_path / "a.img").stat().st_size == 2 * FRAME
        assert dump(disk, tmp_path / "a.img", resume=True).resumed == 2 * FRAME


def test_a_file_that_was_changed_is_refused(data: bytearray, disk: scsiusb.Disk, tmp_path: Path) -> None:
    path = interrupted(tmp_path, data)
    with open(path, "r+b") as file:
        file.write(b"changed")
    with pytest.raises(ImageError, match="changed"):
        dump(disk, path, resume=True)


def test_a_frame_that_the_host_lost_is_read_again(data: bytearray, disk: scsiusb.Disk, tmp_path: Path) -> None:
    path = interrupted(tmp_path, data)
    os.truncate(path, FRAME + 100)
    assert dump(disk, path, resume=True).resumed == FRAME
    assert path.read_bytes() == data


def test_a_journal_that_was_cut_off_counts_as_far_as_it_goes(
    data: bytearray, disk: scsiusb.Disk, tmp_path: Path
) -> None:
    path = interrupted(tmp_path, data)
    journal = tmp_path / "a.img.journal"
    os.truncate(journal, journal.stat().st_size - 3)
    assert dump(disk, path, resume=True).resumed == FRAME
    assert path.read_bytes() == data


@pytest.mark.parametrize("text", ["nonsense\n", "[]\n", '{"scsiusb_journal": 99}\n', '{"scsiusb_journal": 1}\n{}\n'])
def test_a_damaged_journal_is_refused(text: str, data: bytearray, disk: scsiusb.Disk, tmp_path: Path) -> None:
    path = interrupted(tmp_path, data)
    (tmp_path / "a.img.journal").write_text(text)
    with pytest.raises(ImageError):
        dump(disk, path, resume=True)


def test_a_bad_block_ends_the_dump_and_keeps_what_was_read(data: bytearray, tmp_path: Path) -> None:
    bad = (2 * FRAME) // 512 + 7
    stick = Stick([Unit(Memory(data))])
    stick.faults.add(f"sense=3/11/00,opcode=28,lba={bad},times=always")
    with scsiusb.open_on(Bus(stick)) as disk:
        with pytest.raises(scsiusb.MediumError) as caught:
            dump(disk, tmp_path / "a.img")
        assert caught.value.lba == bad
        stick.faults.clear()
        assert dump(disk, tmp_path / "a.img", resume=True).resumed == 2 * FRAME
    assert (tmp_path / "a.img").read_bytes() == data
