"""Restore: each disk gets exactly the image's bytes, and a result says so only if they are on its medium."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from inspect import signature
from pathlib import Path

import pytest

import scsiusb
from scsiusb.errors import DeviceMismatch, ImageError, MediumError, Miscompare, OutOfRange, TransportError
from scsiusb.imaging import BlockRange, Progress, SomeFailed, clone, compare, dump, restore, sources, target
from scsiusb.imaging.bmap import ZEROS_MARK, read_bmap
from scsiusb.imaging.codecs import ZST, least_of_gzip
from scsiusb.imaging.journal import Journal
from scsiusb.imaging.restoring import Verify, checked, restore_each
from scsiusb.transport.port_transport import PortTransport
from scsiusb.virtual import Bus, Flawed, Memory, Stick, Unit
from scsiusb.virtual.target.task import Parameters, Task
from tests.imaging.sticks import Stop, StopAt, contents, plug, stick
from tests.sticks import Counting

PIECE = 32 * 1024
SIZE = 8 * PIECE
IMAGE = bytes(contents())
FORMATS: dict[str, Callable[[bytes], bytes]] = {
    "a.img": bytes,
    "a.gz": gzip.compress,
    "a.bz2": bz2.compress,
    "a.xz": lzma.compress,
    "a.zst": ZST.compress,
}


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PIECE", PIECE)
    monkeypatch.setattr(target, "CHECKPOINT", PIECE)
    monkeypatch.setattr(target, "MOST_WAITING", 2)
    monkeypatch.setattr(target, "STREAM_PART", PIECE // 2)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.img"
    path.write_bytes(IMAGE)
    return path


def blank(extra: int = 0) -> bytearray:
    return bytearray(b"\xaa" * (SIZE + extra))


@pytest.mark.slow
@pytest.mark.parametrize("verify", ["none", "read", "medium"])
@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_known_by_its_content(name: str, verify: str, tmp_path: Path) -> None:
    path, data = tmp_path / "nameless", blank(512)
    path.write_bytes(FORMATS[name](IMAGE))
    with scsiusb.open_on(plug(data)) as disk:
        (result,) = restore(path, disk, verify=verify)  # type: ignore[arg-type]
    assert data == IMAGE + b"\xaa" * 512, "what is after the image stays"
    assert (result.written, result.verified, result.differences, result.error) == (SIZE, verify, (), None)
    assert os.listdir(tmp_path) == ["nameless"]


def test_a_stream_is_written_and_verified(tmp_path: Path) -> None:
    data = blank()
    with scsiusb.open_on(plug(data)) as disk:
        source = sources.ImageSource(None, stream=Pipe(gzip.compress(IMAGE)))
        (result,) = restore_each(source, [disk], verify="medium", resume=False, progress=lambda progress: None)
    assert bytes(data) == IMAGE
    assert (result.verified, result.error) == ("medium", None)


def test_an_image_that_is_too_large_is_refused_before_the_first_write(tmp_path: Path) -> None:
    (tmp_path / "a.img").write_bytes(IMAGE + bytes(512))
    data = blank()
    with scsiusb.open_on(plug(data)) as disk:
        with pytest.raises(OutOfRange):
            restore(tmp_path / "a.img", disk)
        dumped = tmp_path / "a.zst"
        with scsiusb.open_on(plug(blank(512), "LARGER")) as larger:
            dump(larger, dumped)
        with pytest.raises(OutOfRange):
            restore(dumped, disk)
    assert data == blank()


@pytest.mark.parametrize("name", ["a.gz", "a.xz"])
def test_a_compressed_image_that_says_it_is_too_large_is_refused_before_the_first_write(
    name: str, tmp_path: Path
) -> None:
    data = blank()
    (tmp_path / name).write_bytes(FORMATS[name](IMAGE + bytes(512)))
    with scsiusb.open_on(plug(data)) as disk, pytest.raises(OutOfRange, match=f"{SIZE + 512} bytes, .* only {SIZE}"):
        restore(tmp_path / name, disk)
    assert data == blank()


def test_the_end_of_an_image_says_how_large_it_is_at_least(tmp_path: Path) -> None:
    path = tmp_path / "a"
    lengths: dict[bytes, tuple[int, int | None]] = {
        gzip.compress(IMAGE): (SIZE, None),
        gzip.compress(bytes(SIZE)) + gzip.compress(IMAGE[:1000]): (1000, None),  # the others may be empty
        gzip.compress(IMAGE) + bytes(1): (SIZE >> 8, None),
        lzma.compress(IMAGE): (SIZE, SIZE),
        lzma.compress(IMAGE) + lzma.compress(bytes(512)): (SIZE + 512, SIZE + 512),
        lzma.compress(IMAGE)[:-1]: (0, None),
    }
    for packed, expected in lengths.items():
        path.write_bytes(packed)
        with sources.ImageSource(path) as source:
            assert (source.least, source.length) == expected


@pytest.mark.parametrize("name", FORMATS)
def test_an_image_without_bytes_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(FORMATS[name](b""))
    with scsiusb.open_on(plug(blank())) as disk, pytest.raises(ImageError, match="empty"):
        restore(tmp_path / name, disk)
    assert os.listdir(tmp_path) == [name]


def test_a_stream_without_bytes_is_refused() -> None:
    with pytest.raises(ImageError, match="the input is empty"):
        sources.ImageSource(None, stream=Pipe())
    with scsiusb.open_on(plug(blank())) as disk:
        source = sources.ImageSource(None, stream=Pipe(gzip.compress(b"")))
        (result,) = restore_each(source, [disk], verify="medium", resume=False, progress=lambda _: None)
    assert isinstance(result.error, ImageError)


def test_a_length_that_deflate_cannot_reach_is_not_believed() -> None:
    packed = gzip.compress(bytes(100))
    assert least_of_gzip(io.BytesIO(packed)) == 100
    assert least_of_gzip(io.BytesIO(packed[:-4] + b"\xff" * 4)) == 0
    assert least_of_gzip(io.BytesIO(packed[:2])) == 0


@pytest.mark.parametrize("job", [restore, compare])
def test_a_compressed_image_that_turns_out_too_large_ends_with_an_error(
    job: Callable[..., object], tmp_path: Path
) -> None:
    (tmp_path / "a.bz2").write_bytes(bz2.compress(IMAGE + bytes(512)))
    with scsiusb.open_on(plug(bytearray(IMAGE))) as disk, pytest.raises(OutOfRange, match="larger than the disk"):
        job(tmp_path / "a.bz2", disk)


@pytest.mark.parametrize("length", [SIZE - 1, 100])
def test_an_image_that_ends_within_a_block_is_refused(length: int, tmp_path: Path) -> None:
    (tmp_path / "a.img").write_bytes(IMAGE[:length])
    (tmp_path / "a.gz").write_bytes(gzip.compress(IMAGE[:length]))
    with scsiusb.open_on(plug(blank())) as disk:
        for name in ("a.img", "a.gz"):
            with pytest.raises(ImageError, match="block"):
                restore(tmp_path / name, disk)


@pytest.mark.parametrize("name", ["a.gz", "a.bz2", "a.xz", "a.zst"])
def test_a_damaged_image_is_an_error(name: str, tmp_path: Path) -> None:
    packed = bytearray(FORMATS[name](IMAGE))
    packed[len(packed) // 2] ^= 0xFF
    (tmp_path / name).write_bytes(packed)
    (tmp_path / f"cut.{name}").write_bytes(packed[: len(packed) // 2])
    with scsiusb.open_on(plug(blank())) as disk:
        for path in (tmp_path / name, tmp_path / f"cut.{name}"):
            with pytest.raises(ImageError):
                restore(path, disk)


def test_an_image_that_cannot_be_read_to_its_end_ends_each_disk_with_a_result(tmp_path: Path) -> None:
    path, medias = tmp_path / "a.bz2", [blank() for _ in range(3)]
    path.write_bytes(bz2.compress(IMAGE[:PIECE]) + bz2.compress(IMAGE[PIECE:])[:-10])
    with ExitStack() as held:
        sticks = [stick(data, f"S{at}") for at, data in enumerate(medias)]
        sticks[1].faults.add("sense=3/0C/00,opcode=2a,lba=0,times=always")
        disks = [held.enter_context(scsiusb.open_on(Bus(each))) for each in sticks]
        source = held.enter_context(sources.ImageSource(path))
        results = restore_each(source, disks, verify="medium", resume=False, progress=lambda _: None)
        with pytest.raises(SomeFailed):
            checked(results)
        with pytest.raises(ImageError):
            checked([results[0], results[2]])
    assert [type(result.error) for result in results] == [ImageError, MediumError, ImageError]
    assert [result.verified for result in results] == ["none"] * 3
    assert results[0].written >= PIECE


class Fading:
    """A source that can be read once, and then not any more."""

    def __init__(self, source: sources.Source) -> None:
        self.name, self.length, self.least = source.name, source.length, source.least
        self.path: Path | None = None
        self.is_repeatable = True
        self.record = source.record
        self._source, self._reads = source, 0

    def extents(self, start: int = 0) -> Iterator[sources.Extent]:
        self._reads += 1
        for extent in self._source.extents(start):
            if self._reads > 1 and extent.offset:
                raise OSError("the image has gone")
            yield extent


def test_a_source_that_fails_while_it_is_compared_leaves_the_disks_unverified(image: Path) -> None:
    data = blank()
    with scsiusb.open_on(plug(data)) as disk, sources.ImageSource(image) as source:
        (result,) = restore_each(Fading(source), [disk], verify="read", resume=False, progress=lambda _: None)
    assert data == IMAGE
    assert (result.verified, str(result.error)) == ("none", "the image has gone")


# --- several disks --------------------------------------------------------------------------------


def test_several_disks_are_written_at_once(image: Path) -> None:
    medias = [blank() for _ in range(4)]
    with ExitStack() as held:
        disks = [held.enter_context(scsiusb.open_on(plug(data, f"S{at}"))) for at, data in enumerate(medias)]
        results = restore(image, *disks)
    assert medias == [IMAGE] * 4
    assert [(result.serial, result.verified) for result in results] == [(f"S{at}", "medium") for at in range(4)]


def test_a_disk_that_fails_ends_alone(image: Path) -> None:
    medias = [blank() for _ in range(3)]
    with ExitStack() as held:
        sticks = [stick(data, f"S{at}") for at, data in enumerate(medias)]
        sticks[1].faults.add(f"sense=3/0C/00,opcode=2a,lba={SIZE // 1024},times=always")
        disks = [held.enter_context(scsiusb.open_on(Bus(each))) for each in sticks]
        with pytest.raises(SomeFailed, match="1 of 3") as caught:
            restore(image, *disks)
    assert [bytes(medias[0]), bytes(medias[2])] == [IMAGE, IMAGE]
    results = caught.value.results
    assert [result.error is None for result in results] == [True, False, True]
    assert isinstance(results[1].error, scsiusb.MediumError)
    assert results[1].verified == "none"
    assert [path.name for path in image.parent.iterdir() if "journal" in path.name] == ["a.img.1209-0001-S1-0.journal"]


def test_clone_copies_a_disk_to_larger_ones() -> None:
    copies = [blank(), blank(1024)]
    with ExitStack() as held:
        master = held.enter_context(scsiusb.open_on(plug(bytearray(IMAGE), "MASTER")))
        disks = [held.enter_context(scsiusb.open_on(plug(data, f"S{at}"))) for at, data in enumerate(copies)]
        results = clone(master, *disks)
        small = held.enter_context(scsiusb.open_on(plug(bytearray(512), "SMALL")))
        with pytest.raises(OutOfRange):
            clone(master, small)
    assert [data[:SIZE] for data in copies] == [IMAGE, IMAGE]
    assert [result.error for result in results] == [None, None]


def test_a_clone_that_cannot_go_on_offers_no_resume() -> None:
    assert "resume" not in signature(clone).parameters


def test_a_disk_that_cannot_be_read_ends_the_clone() -> None:
    data = blank()
    master = stick(bytearray(IMAGE), "MASTER")
    master.faults.add(f"sense=3/11/00,opcode=28,lba={SIZE // 1024},times=always")
    with scsiusb.open_on(Bus(master)) as source, scsiusb.open_on(plug(data)) as disk:
        (result,) = restore_each(
            sources.DiskSource(source), [disk], verify="medium", resume=False, progress=lambda _: None
        )
        with pytest.raises(MediumError, match=r"^scsiusb Virtual Stick at 1-1: .* LBA 256"):
            clone(source, disk)
    assert isinstance(result.error, MediumError)


# --- verification ---------------------------------------------------------------------------------


class Forgetful(Memory):
    """A medium that drops writes to some bytes."""

    lost = range(5 * PIECE + 512, 5 * PIECE + 3 * 512)

    def _write(self, offset: int, view: memoryview) -> None:
        kept = bytes(self.data[self.lost.start : self.lost.stop])
        super()._write(offset, view)
        self.data[self.lost.start : self.lost.stop] = kept


@pytest.mark.parametrize("verify", ["read", "medium"])
@pytest.mark.parametrize("is_stream", [False, True])
def test_a_write_that_was_dropped_is_found(is_stream: bool, verify: str, image: Path) -> None:
    bus = Bus(Stick([Unit(Forgetful(SIZE))]))
    with scsiusb.open_on(bus) as disk, ExitStack() as held:
        source = sources.ImageSource(image) if not is_stream else sources.ImageSource(None, stream=Pipe(IMAGE))
        held.enter_context(source)
        (result,) = restore_each(source, [disk], verify=verify, resume=False, progress=lambda _: None)  # type: ignore[arg-type]
    assert isinstance(result.error, Miscompare)
    first = 5 * PIECE // 512
    expected = BlockRange(first, PIECE // 1024) if is_stream else BlockRange(first + 1, 2)
    assert result.differences == (expected,)
    assert result.error.lba == expected.lba


class Pipe(io.BytesIO):
    """A stream that cannot seek."""

    def seek(self, *arguments: int) -> int:
        raise io.UnsupportedOperation


def test_verification_past_the_cache_resets_the_device(image: Path) -> None:
    each = stick(blank())
    with scsiusb.open_on(Bus(each)) as disk:
        disk.read(0, 1)
        before = disk.unit.resets
        restore(image, disk, verify="read")
        assert disk.unit.resets == before
        restore(image, disk, verify="medium")
        assert disk.unit.resets > before


@pytest.mark.parametrize("has_fua", [False, True])
def test_verification_uses_fua_where_the_unit_has_it(has_fua: bool, image: Path) -> None:
    unit = Unit(Memory(blank()))
    forced = []

    def execute(cdb: bytes) -> Task:
        if cdb[0] == 0x1A:
            return Parameters(bytes([3, 0, 0x10 * has_fua, 0]), 4)
        if cdb[0] == 0x28:
            forced.append(bool(cdb[1] & 8))
        return Unit.execute(unit, cdb)

    unit.execute = execute  # type: ignore[method-assign]
    with scsiusb.open_on(Bus(Stick([unit]))) as disk:
        (result,) = restore(image, disk)
    assert result.verified == "medium"
    assert any(forced) == has_fua


def unresettable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no port be reset, as on some platforms."""

    def reset_port(*_: object) -> None:
        raise TransportError("the port cannot be reset here", "unplug the device")

    monkeypatch.setattr(PortTransport, "reset_port", reset_port)


def test_where_the_port_cannot_be_reset_reads_past_the_cache_verify(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unresettable(monkeypatch)
    unit = Unit(Memory(blank()))
    execute = unit.execute
    has_fua = True

    def answer(cdb: bytes) -> Task:
        return Parameters(bytes([3, 0, 0x10 * has_fua, 0]), 4) if cdb[0] == 0x1A else execute(cdb)

    unit.execute = answer  # type: ignore[method-assign]
    with scsiusb.open_on(Bus(Stick([unit]))) as disk:
        (result,) = restore(image, disk)
        assert result.verified == "medium"
        has_fua = False
        with pytest.raises(TransportError, match="--verify read"):
            restore(image, disk)


def test_two_sticks_with_one_serial_number_are_written_at_once(image: Path) -> None:
    bus = Bus(stick(blank()), stick(blank()))
    with scsiusb.open_on(bus, "1-1") as one, scsiusb.open_on(bus, "1-2") as other:
        assert [result.error for result in restore(image, one, other)] == [None, None]
    assert os.listdir(image.parent) == [image.name]


def test_sticks_of_one_name_on_two_buses_have_a_journal_each(image: Path) -> None:
    """Two `virtual:` sticks: their records went to one file, by which neither could go on."""
    data = blank(), blank()
    with scsiusb.open_on(plug(data[0])) as one, scsiusb.open_on(plug(data[1])) as other:
        with pytest.raises(Stop):
            restore(image, one, other, progress=StopAt("writing", 4 * PIECE))
        assert len(list(image.parent.glob("*.journal"))) == 2
        assert all(result.resumed for result in restore(image, one, other, resume=True))
    assert data[0] == data[1] == IMAGE


def test_an_image_in_a_folder_that_cannot_be_written_to_is_restored(
    image: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    data = blank()
    with scsiusb.open_on(plug(data)) as disk:
        with pytest.raises(Stop):
            restore(image, disk, progress=StopAt("writing", 4 * PIECE))
        assert os.listdir(image.parent) == [image.name]
        (result,) = restore(image, disk, resume=True)
    assert data == IMAGE
    assert result.resumed


def test_after_a_verification_that_found_differences_the_restore_begins_anew(image: Path) -> None:
    with scsiusb.open_on(Bus(Stick([Unit(Flawed(Memory(SIZE), dropped=[(5, 5)]))]))) as disk:
        for _ in range(2):
            with pytest.raises(Miscompare):
                restore(image, disk)
    assert os.listdir(image.parent) == [image.name]


# --- interrupted ----------------------------------------------------------------------------------


@pytest.mark.parametrize("done", [PIECE, 4 * PIECE, SIZE])
@pytest.mark.parametrize("name", FORMATS)
def test_an_interrupted_restore_goes_on(name: str, done: int, tmp_path: Path) -> None:
    path, data = tmp_path / name, blank()
    path.write_bytes(FORMATS[name](IMAGE))
    with scsiusb.open_on(plug(data)) as disk:
        with pytest.raises(Stop):
            restore(path, disk, progress=StopAt("writing", done))
        if done > PIECE:  # otherwise nothing is done yet, and the restore may begin anew
            with pytest.raises(ImageError, match="interrupted"):
                restore(path, disk)
        (result,) = restore(path, disk, resume=True)
    assert data == IMAGE
    assert result.resumed >= done - 5 * PIECE
    assert (result.written, result.verified) == (SIZE, "medium")
    assert os.listdir(tmp_path) == [name]


def test_an_interrupted_verification_writes_nothing_again(image: Path) -> None:
    each = stick(blank())
    with scsiusb.open_on(Bus(each)) as disk:
        with pytest.raises(Stop):
            restore(image, disk, progress=StopAt("verifying", PIECE))
        (result,) = restore(image, disk, resume=True)
    assert (result.resumed, result.written) == (SIZE, SIZE)


@pytest.mark.parametrize(
    ("first", "then", "goes_on"),
    [("medium", "medium", True), ("read", "read", True), ("read", "medium", False), ("medium", "read", False)],
)
def test_what_was_verified_is_not_read_again(first: Verify, then: Verify, goes_on: bool, image: Path) -> None:
    medium = Counting(blank())
    with scsiusb.open_on(Bus(Stick([Unit(medium)]))) as disk:
        with pytest.raises(Stop):
            restore(image, disk, verify=first, progress=StopAt("verifying", 7 * PIECE))
        medium.read = 0
        (result,) = restore(image, disk, verify=then, resume=True)
    assert result.verified == then
    assert (medium.read < 7 * PIECE) == goes_on, "of another kind of verification, nothing is taken over"
    assert medium.read >= PIECE


def test_a_wrong_block_that_was_found_is_found_again(image: Path) -> None:
    wrong = PIECE // 512 + 3
    with scsiusb.open_on(Bus(Stick([Unit(Flawed(Memory(blank()), dropped=[(wrong, wrong)]))]))) as disk:
        with pytest.raises(Stop):
            restore(image, disk, progress=StopAt("verifying", 7 * PIECE))
        with pytest.raises(Miscompare) as failure:
            restore(image, disk, resume=True)
    assert failure.value.lba == wrong


@pytest.mark.parametrize("kind", ["serial", "renamed", "size", "contents"])
def test_another_device_is_refused_and_not_written(kind: str, image: Path) -> None:
    with scsiusb.open_on(plug(blank())) as disk, pytest.raises(Stop):
        restore(image, disk, progress=StopAt("writing", 6 * PIECE))
    other = blank(512 if kind == "size" else 0)
    before = bytes(other)
    (journal,) = image.parent.glob("*.journal")
    serial = "OTHER" if kind in ("serial", "renamed") else "DUMP0001"
    if kind == "renamed":
        journal.rename(journal.with_name(journal.name.replace("DUMP0001", "OTHER")))
    with scsiusb.open_on(plug(other, serial)) as disk, pytest.raises(DeviceMismatch):
        restore(image, disk, resume=True)
    assert other == before


def test_an_image_that_was_changed_is_refused(image: Path) -> None:
    data = blank()
    with scsiusb.open_on(plug(data)) as disk:
        with pytest.raises(Stop):
            restore(image, disk, progress=StopAt("writing", 6 * PIECE))
        before = bytes(data)
        os.utime(image, ns=(1, 1))
        with pytest.raises(ImageError, match="changed"):
            restore(image, disk, resume=True)
    assert data == before


# --- block maps and sparse images -----------------------------------------------------------------


def dump_with_map(folder: Path, *, is_foreign: bool = False) -> Path:
    """Dump IMAGE with a map; a foreign one is as other programs make it, and says nothing of the other blocks."""
    with scsiusb.open_on(plug(bytearray(IMAGE))) as disk:
        dump(disk, folder / "a.img", bmap=True)
    if is_foreign:
        path = folder / "a.img.bmap"
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if ZEROS_MARK not in line and "BmapFileChecksum" not in line))
    return folder / "a.img"


def test_by_the_map_of_a_dump_the_zeros_are_written_too(tmp_path: Path) -> None:
    data = blank()
    image = dump_with_map(tmp_path)
    with scsiusb.open_on(plug(data)) as disk:
        (result,) = restore(image, disk)
        assert compare(image, disk).equal
    assert data == IMAGE
    assert (result.written, result.verified) == (SIZE, "medium")


def test_data_that_the_map_of_a_dump_does_not_list_is_refused(tmp_path: Path) -> None:
    image = dump_with_map(tmp_path)
    changed = bytearray(IMAGE)
    changed[SIZE // 3] = 1
    image.write_bytes(changed)
    with scsiusb.open_on(plug(blank())) as disk, pytest.raises(ImageError, match="does not list"):
        restore(image, disk)


def test_a_later_dump_leaves_no_map_and_no_digest_of_an_earlier_one(tmp_path: Path) -> None:
    changed = bytearray(IMAGE)
    changed[SIZE // 3] = 1
    data = blank()
    with scsiusb.open_on(plug(bytearray(IMAGE))) as disk:
        dump(disk, tmp_path / "a.img", bmap=True, sha256_file=True)
    with scsiusb.open_on(plug(bytearray(changed))) as disk:
        dump(disk, tmp_path / "a.img")
    assert os.listdir(tmp_path) == ["a.img"]
    with scsiusb.open_on(plug(data)) as disk:
        restore(tmp_path / "a.img", disk)
    assert data == changed


def test_a_disk_of_520_bytes_a_block_comes_back_with_its_map(tmp_path: Path) -> None:
    data, copy = bytearray(b"\1" * 520 * 900 + bytes(520 * 900)), bytearray(520 * 1800)
    with scsiusb.open_on(Bus(Stick([Unit(Memory(data, block_size=520))]))) as disk:
        dump(disk, tmp_path / "a.img", bmap=True)
    found = read_bmap(tmp_path / "a.img.bmap")
    assert [(each.start, each.end) for each in found.ranges] == [(0, -(-520 * 900 // 4096) * 4096)]
    with scsiusb.open_on(Bus(Stick([Unit(Memory(copy, block_size=520))]))) as disk:
        restore(tmp_path / "a.img", disk)
    assert copy == data


@pytest.mark.skipif(not Path("/proc/self/mem").is_file(), reason="needs a file that cannot be read")
def test_an_error_of_the_image_names_the_image() -> None:
    with pytest.raises(OSError, match="Input/output error") as caught, scsiusb.open_on(plug(blank())) as disk:
        restore("/proc/self/mem", disk)
    assert caught.value.filename == "/proc/self/mem"


@pytest.mark.skipif(not Path("/dev/null").is_char_device(), reason="needs a file that cannot be cut off")
def test_an_error_of_the_journal_names_the_journal() -> None:
    with pytest.raises(OSError, match="Invalid argument") as caught:
        Journal(Path("/dev/null"))
    assert caught.value.filename == "/dev/null"


@pytest.mark.skipif(not Path("/dev/zero").is_char_device(), reason="needs a file without an end")
def test_a_block_map_without_an_end_is_refused() -> None:
    with pytest.raises(ImageError, match="too large for a block map"):
        read_bmap(Path("/dev/zero"))


def test_a_block_map_beside_the_image_is_used(tmp_path: Path) -> None:
    dump_with_map(tmp_path, is_foreign=True)
    data = blank()
    with scsiusb.open_on(plug(data)) as disk:
        (result,) = restore(tmp_path / "a.img", disk)
    zeros = range(SIZE // 4, SIZE // 2)
    assert data[: zeros.start] == IMAGE[: zeros.start]
    assert data[zeros.stop :] == IMAGE[zeros.stop :]
    assert data[zeros.start : zeros.stop] == blank()[zeros.start : zeros.stop], "what is not mapped stays"
    assert (result.written, result.verified) == (SIZE - len(zeros), "medium")


@pytest.mark.parametrize("done", [PIECE, 5 * PIECE])
def test_an_interrupted_restore_by_a_block_map_goes_on(done: int, tmp_path: Path) -> None:
    dump_with_map(tmp_path, is_foreign=True)
    data = blank()
    with scsiusb.open_on(plug(data)) as disk:
        with pytest.raises(Stop):
            restore(tmp_path / "a.img", disk, progress=StopAt("writing", done))
        (result,) = restore(tmp_path / "a.img", disk, resume=True)
    assert bytes(data[: SIZE // 4] + data[SIZE // 2 :]) == IMAGE[: SIZE // 4] + IMAGE[SIZE // 2 :]
    assert (result.written, result.verified) == (SIZE - SIZE // 4, "medium")
    assert sorted(os.listdir(tmp_path)) == ["a.img", "a.img.bmap"]


def test_an_image_that_is_not_that_of_its_block_map_is_refused(tmp_path: Path) -> None:
    dump_with_map(tmp_path)
    changed = bytearray(IMAGE)
    changed[100] ^= 1
    (tmp_path / "a.img").write_bytes(changed)
    with scsiusb.open_on(plug(blank())) as disk, pytest.raises(ImageError, match="block map"):
        restore(tmp_path / "a.img", disk)


def sparse(block: int = 4096) -> bytes:
    """Return an Android sparse image of 8 blocks: 2 of data, 3 filled, 2 skipped, 1 of data."""

    def chunk(kind: int, blocks: int, body: bytes) -> bytes:
        head = kind.to_bytes(2, "little") + bytes(2) + blocks.to_bytes(4, "little")
        return head + (12 + len(body)).to_bytes(4, "little") + body

    head = bytes.fromhex("3aff26ed 0100 0000 1c00 0c00") + block.to_bytes(4, "little")
    chunks = [
        chunk(0xCAC1, 2, IMAGE[: 2 * block]),
        chunk(0xCAC2, 3, b"fill"),
        chunk(0xCAC3, 2, b""),
        chunk(0xCAC4, 0, bytes(4)),
        chunk(0xCAC1, 1, IMAGE[:block]),
    ]
    return head + (8).to_bytes(4, "little") + len(chunks).to_bytes(4, "little") + bytes(4) + b"".join(chunks)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("is_stream", [False, True])
def test_an_android_sparse_image_is_unfolded(is_stream: bool, pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(pack(sparse()))
    data = blank()
    with scsiusb.open_on(plug(data)) as disk, ExitStack() as held:
        source = (
            sources.ImageSource(None, stream=Pipe(pack(sparse()))) if is_stream else sources.ImageSource(tmp_path / "a")
        )
        held.enter_context(source)
        (result,) = restore_each(source, [disk], verify="medium", resume=False, progress=lambda _: None)
    assert result.error is None
    unfolded = IMAGE[:8192] + b"fill" * 3072 + b"\xaa" * 8192 + IMAGE[:4096]
    assert data == unfolded + blank()[len(unfolded) :]


@pytest.mark.slow
@pytest.mark.parametrize("at", range(0, 120, 3))
def test_a_damaged_sparse_image_is_an_image_error_or_written(at: int, tmp_path: Path) -> None:
    damaged = bytearray(sparse())
    damaged[at] ^= 0x5A
    (tmp_path / "a").write_bytes(damaged)
    with scsiusb.open_on(plug(blank())) as disk:
        try:
            restore(tmp_path / "a", disk)
        except (ImageError, OutOfRange):
            return


# --- comparing ------------------------------------------------------------------------------------


def test_compare_names_the_blocks_that_differ(image: Path) -> None:
    data = bytearray(IMAGE)
    with scsiusb.open_on(plug(data)) as disk:
        assert compare(image, disk).equal
        data[3 * 512] ^= 1
        data[4 * 512 + 511] ^= 1
        data[-1] ^= 1
        found = compare(image, disk)
        assert not found.equal
        assert found.differences == (BlockRange(3, 2), BlockRange(SIZE // 512 - 1, 1))
        with scsiusb.open_on(plug(bytearray(IMAGE), "OTHER")) as other:
            assert compare(other, disk).differences == found.differences


def test_compare_takes_an_image_that_ends_within_a_block(image: Path) -> None:
    image.write_bytes(IMAGE[:-100])
    with scsiusb.open_on(plug(bytearray(IMAGE))) as disk:
        assert compare(image, disk).equal


def test_progress_ends_at_the_total(image: Path) -> None:
    seen: list[Progress] = []
    with scsiusb.open_on(plug(blank())) as disk:
        restore(image, disk, progress=seen.append)
    assert [each for each in seen if each.done == each.total] == [
        Progress("writing", SIZE, SIZE),
        Progress("verifying", SIZE, SIZE),
    ]


@pytest.mark.parametrize("phase", ["writing", "verifying"])
@pytest.mark.parametrize("change", ["cut off", "other bytes"])
def test_an_image_that_is_changed_meanwhile_is_the_error_and_not_the_disk(phase: str, change: str, image: Path) -> None:
    """A cut off image was taken for a complete one, and other bytes for a disk that does not keep them."""

    def interfere(progress: Progress) -> None:
        if progress.phase == phase and progress.done == 2 * PIECE:
            if change == "cut off":
                os.truncate(image, SIZE // 2)
            else:
                with image.open("r+b") as file:
                    file.seek(SIZE - 512)
                    file.write(bytes(512))
            os.utime(image, ns=(1, 1))

    with scsiusb.open_on(plug(blank())) as disk, pytest.raises(ImageError, match="was changed while it was read"):
        restore(image, disk, progress=interfere)
    assert os.listdir(image.parent) != [image.name], "its journal is there, which refuses the changed image"
