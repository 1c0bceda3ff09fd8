"""Files on a stick: what is written is there for others, and what others wrote is read; nothing hostile does harm."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from random import Random

import pytest

import scsiusb
from scsiusb import Disk, FileSystemError, MediumChanged, MediumError, ScsiUsbError
from scsiusb.scsi.sense import Sense
from scsiusb.virtual import Bus, Memory, Stick, Unit
from scsiusb.volume import NewPartition, filesystem, make_filesystem, partitions, write_mbr
from scsiusb.volume.fat import DRAFT
from scsiusb.volume.fat_format import plan
from scsiusb.volume.names import DEEPEST, components, local_name
from tests.programs import run
from tests.volume.tables import disk_of

MIB = 1 << 20
TEXT = b"some text\n" * 3000


@contextmanager
def stick_file(path: Path, mib: int, block_size: int = 512) -> Iterator[Disk]:
    with path.open("ab") as file:
        file.truncate(mib * MIB)
    with scsiusb.open(f"virtual:{path}?block-size={block_size}") as disk:
        yield disk


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path / "stick.img"


@pytest.fixture
def fat() -> Iterator[Disk]:
    with disk_of(bytearray(4 * MIB)) as disk:
        make_filesystem(disk)
        yield disk


def put(disk: Disk, path: str, data: bytes = TEXT, *, replace: bool = False) -> None:
    with filesystem(disk, "r+b") as files:
        assert files.write(path, io.BytesIO(data), replace=replace) == len(data)


def content(disk: Disk, path: str) -> bytes:
    with filesystem(disk) as files, files.open(path) as file:
        return file.read()


def listed(disk: Disk, path: str = "/") -> list[str]:
    with filesystem(disk) as files:
        return [each.name for each in files.entries(path)]


# --- making one ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mib", "block_size", "kind"),
    [
        (1, 512, "fat12"),
        (4, 512, "fat16"),
        (64, 512, "fat16"),
        (512, 512, "fat32"),
        (9000, 512, "fat32"),
        (40000, 512, "fat32"),
        (64, 4096, "fat16"),
        (2000, 4096, "fat32"),
    ],
)
def test_a_new_file_system_is_clean_for_fsck(image: Path, mib: int, block_size: int, kind: str) -> None:
    with stick_file(image, mib, block_size) as disk:
        assert make_filesystem(disk, label="my stick") == kind
        with filesystem(disk) as files:
            assert (files.kind, files.entries()) == (kind, [])
    said = run("fsck.vfat", "-n", image)
    assert "1 files, 0/" in said or (kind == "fat32" and "1 files, 1/" in said), "the label; FAT32's root is a cluster"
    assert len(said.splitlines()) == 2, said


def test_every_size_has_a_layout_that_all_systems_take_for_the_same() -> None:
    random = Random(1)
    for size in (512, 1024, 2048, 4096):
        for _ in range(500):
            sectors = int(64 * 2 ** (random.random() * 26)) - 1 + 1
            layout = plan(min(sectors, (1 << 32) - 1), size)
            fewest, end = {12: (1, 4085), 16: (4085, 65525), 32: (65525, 0x0FFFFFF7)}[layout.bits]
            assert fewest <= layout.clusters < end
            assert layout.data + layout.clusters * layout.cluster <= sectors
            assert (layout.clusters + 2) * layout.bits <= layout.fat * size * 8
            assert layout.cluster * size <= 65536 or layout.bits == 12


@pytest.mark.parametrize(("sectors", "size"), [(63, 512), (1 << 32, 512), (1000, 520)])
def test_what_can_have_no_fat_is_refused(sectors: int, size: int) -> None:
    with pytest.raises(FileSystemError, match="cannot have a FAT"):
        plan(sectors, size)


@pytest.mark.parametrize("label", ["a name too long", "a.b", "ä", "\n"])
def test_a_label_that_fat_cannot_have_is_refused_before_anything_is_written(label: str) -> None:
    data = bytearray(b"\xaa" * MIB)
    with disk_of(data) as disk, pytest.raises(ValueError, match="label"):
        make_filesystem(disk, label=label)
    assert data == b"\xaa" * MIB


def test_a_partition_gets_its_own_and_the_rest_stays() -> None:
    data = bytearray(b"\xaa" * 8 * MIB)
    with disk_of(data) as disk:
        table = write_mbr(disk, [NewPartition(0x0E, 2048, 4096), NewPartition(0x0E, 8192, 4096)])
        make_filesystem(table[1])
        put(table[1], "/a", b"second")  # type: ignore[arg-type]
        assert partitions(disk)[1].content == "fat12"
        assert data[2048 * 512 : 6144 * 512] == b"\xaa" * 2 * MIB
        assert data[12288 * 512 :] == b"\xaa" * (8 * MIB - 12288 * 512)


def failing_writes(patch: pytest.MonkeyPatch, after: int, error: BaseException) -> list[int]:
    """Let a file's writes fail after so many; return a list that gets an item for each write that came then."""
    before, made, later = scsiusb.DiskFile.write, [], list[int]()

    def write(self: scsiusb.DiskFile, data: bytes) -> int:
        made.append(len(data))
        if len(made) > after:
            later.append(len(data))
            raise error
        return before(self, data)

    patch.setattr(scsiusb.DiskFile, "write", write)
    return later


BAD = MediumError("a block cannot be written", Sense(3, 0x0C, 0))


@pytest.mark.parametrize("after", range(6))
def test_a_half_made_file_system_is_none(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    data = bytearray(4 * MIB)
    with disk_of(data) as disk:
        make_filesystem(disk)
        with monkeypatch.context() as patch:
            later = failing_writes(patch, after, BAD)
            if after < 4:  # zeros, two FATs, the boot sector
                with pytest.raises(MediumError):
                    make_filesystem(disk)
                assert later == later[:1]
        if 0 < after < 4:
            with pytest.raises(FileSystemError, match="no files"):
                filesystem(disk)
        else:
            assert listed(disk) == []


# --- writing ------------------------------------------------------------------------------------


def test_files_are_written_replaced_and_removed(fat: Disk) -> None:
    put(fat, "/a file with a long name.txt")
    put(fat, "/B.TXT", b"")
    with filesystem(fat, "r+b") as files:
        files.make_directory("/Dir")
        files.make_directory("/Dir/inner")
    put(fat, "/dir/INNER/c", b"1" * 100_000)
    put(fat, "/B.TXT", b"new", replace=True)
    assert set(listed(fat)) == {"a file with a long name.txt", "B.TXT", "Dir"}
    assert content(fat, "/A FILE with a long name.TXT") == TEXT
    assert content(fat, "/b.txt") == b"new"
    with filesystem(fat, "r+b") as files:
        paths = [(path, each.size, each.is_directory) for path, each in files.walk()]
        at = paths.index(("/Dir", 0, True))
        assert paths[at : at + 3] == [("/Dir", 0, True), ("/Dir/inner", 0, True), ("/Dir/inner/c", 100_000, False)]
        with pytest.raises(OSError, match="not empty") as raised:
            files.remove("/Dir/inner")
        assert raised.value.errno == errno.ENOTEMPTY
        for path in ("/Dir/inner/c", "/Dir/inner", "/Dir"):
            files.remove(path)
    assert set(listed(fat)) == {"a file with a long name.txt", "B.TXT"}


def test_names_of_other_scripts_are_kept_or_refused(fat: Disk) -> None:
    put(fat, "/Straße, 50 % äöü.txt")
    assert listed(fat) == ["Straße, 50 % äöü.txt"]
    for name in ("漢字", "a:b", "a*", "end.", "end ", "x" * 256, "tab\t"):
        with filesystem(fat, "r+b") as files, pytest.raises(ValueError, match=r"name|written"):
            files.write(f"/{name}", io.BytesIO(TEXT))
    assert listed(fat) == ["Straße, 50 % äöü.txt"]


def test_a_file_has_the_time_at_which_it_was_written(fat: Disk) -> None:
    put(fat, "/a", b"1")
    with filesystem(fat, "r+b") as files:
        files.make_directory("/dir")
        for each in files.entries():
            assert each.modified is not None
            assert abs(datetime.now(timezone.utc) - each.modified) < timedelta(hours=1), each


def test_paths_that_do_not_fit_raise_what_the_operating_system_would(fat: Disk) -> None:
    put(fat, "/file", b"1")
    with filesystem(fat, "r+b") as files:
        files.make_directory("/dir")
        with pytest.raises(FileNotFoundError):
            files.entry("/nothing")
        with pytest.raises(NotADirectoryError):
            files.entries("/file")
        with pytest.raises(NotADirectoryError):
            files.entry("/file/in/it")
        with pytest.raises(IsADirectoryError):
            files.open("/dir")
        with pytest.raises(FileExistsError):
            files.write("/FILE", io.BytesIO(b"2"))
        with pytest.raises(IsADirectoryError):
            files.write("/dir", io.BytesIO(b"2"), replace=True)
        with pytest.raises(FileExistsError):
            files.make_directory("/dir")
        with pytest.raises(FileNotFoundError):
            files.write("/nowhere/a", io.BytesIO(b"2"))
        with pytest.raises(FileNotFoundError):
            files.remove("/nothing")
        with pytest.raises(IsADirectoryError):
            files.remove("/")
        with pytest.raises(ValueError, match="not possible"):
            files.entry("/dir/../file")
    assert content(fat, "/file") == b"1"


def test_without_room_nothing_is_left_and_the_old_file_stays(fat: Disk) -> None:
    put(fat, "/old", b"old")
    with filesystem(fat, "r+b") as files, pytest.raises(OSError, match="no room") as raised:
        files.write("/old", io.BytesIO(bytes(5 * MIB)), replace=True)
    assert raised.value.errno == errno.ENOSPC
    assert (listed(fat), content(fat, "/old")) == (["old"], b"old")
    put(fat, "/new", bytes(3 * MIB))


def test_the_clusters_of_a_file_are_written_together(fat: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have 512 bytes here; a command each would make a stick slow."""
    with filesystem(fat, "r+b") as files:
        sizes: list[int] = []
        write = type(files.file).write

        def counted(self: object, data: bytes) -> int:
            sizes.append(len(data))
            return int(write(files.file, data))

        monkeypatch.setattr(type(files.file), "write", counted)
        files.write("/a", io.BytesIO(TEXT * 30))
    assert len(sizes) < 80  # 1,758 sectors
    assert sum(sizes) < len(TEXT) * 31
    assert content(fat, "/a") == TEXT * 30


def test_an_error_of_the_source_leaves_no_file(fat: Disk) -> None:
    class Bad(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise ValueError("the source is bad")

    with filesystem(fat, "r+b") as files, pytest.raises(ValueError, match="the source is bad"):
        files.write("/a", Bad())  # type: ignore[arg-type]
    assert listed(fat) == []


@pytest.mark.parametrize("error", [BAD, KeyboardInterrupt()], ids=["device", "ctrl-c"])
@pytest.mark.parametrize("after", range(12))
def test_a_write_that_fails_raises_its_own_error_and_the_old_file_is_there(
    fat: Disk, monkeypatch: pytest.MonkeyPatch, after: int, error: BaseException
) -> None:
    put(fat, "/a", b"old")
    with filesystem(fat, "r+b") as files:
        with monkeypatch.context() as patch:
            later = failing_writes(patch, after, error)
            raised: list[BaseException] = []
            try:
                files.write("/a", io.BytesIO(TEXT), replace=True)
            except (MediumError, KeyboardInterrupt) as caught:
                raised.append(caught)
        assert (raised, len(later)) in (([error], 1), ([], 0)), "after the error nothing is written"
        assert raised or after > 5
    names = listed(fat)
    assert set(names) <= {"a", DRAFT}
    kept = [content(fat, f"/{name}") for name in names]
    assert b"old" in kept or TEXT in kept, kept


# --- reading what others wrote --------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ext2", "ext4"])
def test_a_file_system_of_linux_is_read(tmp_path: Path, image: Path, kind: str) -> None:
    folder = tmp_path / "folder"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "Name with ß").write_bytes(TEXT)
    (folder / "big").write_bytes(bytes(range(256)) * 8192)
    (folder / "link").symlink_to("big")
    image.write_bytes(b"")
    os.truncate(image, 16 * MIB)
    run("mke2fs", "-q", "-t", kind, "-d", folder, image)
    with scsiusb.open(f"virtual:{image}") as disk, filesystem(disk) as files:
        assert files.kind == kind
        assert {each.name for each in files.entries()} >= {"a", "big"}
        assert "link" not in {each.name for each in files.entries()}, "neither a file nor a directory"
        with files.open("/a/Name with ß") as file:
            assert file.read() == TEXT
        with files.open("/big") as file:
            file.seek(-1000, os.SEEK_END)
            assert file.read() == (bytes(range(256)) * 8192)[-1000:]
            assert file.seek(5) == 5
            assert file.read(3) == b"\x05\x06\x07"
        with pytest.raises(FileNotFoundError):
            files.entry("/BIG")
        assert not files.file.writable()
    with scsiusb.open(f"virtual:{image}") as disk, filesystem(disk, "r+b") as files, pytest.raises(FileSystemError):
        files.make_directory("/x")


@pytest.mark.parametrize(("program", "kind"), [("mkfs.vfat", "fat16"), ("mkfs.exfat", "exfat")])
def test_an_empty_file_system_of_another_program_is_read(image: Path, program: str, kind: str) -> None:
    image.write_bytes(b"")
    os.truncate(image, 32 * MIB)
    run(program, *(["-n", "LABEL"] if program == "mkfs.vfat" else []), image)
    with scsiusb.open(f"virtual:{image}") as disk, filesystem(disk) as files:
        assert (files.kind, files.entries()) == (kind, [])


def test_a_file_that_ntfs_3g_wrote_is_read(image: Path, tmp_path: Path) -> None:
    image.write_bytes(b"")
    os.truncate(image, 32 * MIB)
    (tmp_path / "a").write_bytes(TEXT)
    run("mkntfs", "-F", "-Q", "-q", image)
    run("ntfscp", "-q", image, tmp_path / "a", "Name with ß")
    with scsiusb.open(f"virtual:{image}") as disk, filesystem(disk) as files:
        assert (files.kind, [each.name for each in files.entries()]) == ("ntfs", ["Name with ß"])
        assert files.open("/name WITH ß").read() == TEXT


def test_an_iso_image_is_read() -> None:
    from pycdlib import PyCdlib

    made, image = PyCdlib(), io.BytesIO()
    made.new(joliet=3)
    made.add_directory("/DIR", joliet_path="/dir")
    made.add_fp(io.BytesIO(TEXT), len(TEXT), "/DIR/A.;1", joliet_path="/dir/Name of a file.txt")
    made.write_fp(image)
    made.close()
    data = bytearray(image.getvalue())
    with disk_of(data + bytes(-len(data) % 2048), 2048) as disk, filesystem(disk) as files:
        assert files.kind == "iso9660"
        assert files.open("/dir/Name of a file.txt").read() == TEXT


def test_what_is_not_known_says_what_is_there() -> None:
    with disk_of(bytearray(MIB)) as disk, pytest.raises(FileSystemError, match="nothing is on it that is known"):
        filesystem(disk)
    with disk_of(bytearray(b"LUKS\xba\xbe\x00\x02".ljust(MIB, b"\0"))) as disk:
        with pytest.raises(FileSystemError, match="luks2 is on it"):
            filesystem(disk)
        with pytest.raises(ValueError, match="mode"):
            filesystem(disk, "w")


def test_a_missing_library_is_named_with_its_extra(fat: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytsk3", None)
    with filesystem(fat) as files, pytest.raises(FileSystemError, match="pytsk3") as raised:
        files.entries()
    assert "scsiusb[files]" in str(raised.value.remedy)
    monkeypatch.setitem(sys.modules, "fatfs", None)
    with filesystem(fat, "r+b") as files, pytest.raises(FileSystemError, match="fatfs-ng"):
        files.make_directory("/x")


def test_read_only_and_closed_file_systems_say_so(fat: Disk) -> None:
    with filesystem(fat) as files, pytest.raises(io.UnsupportedOperation, match="r\\+b"):
        files.make_directory("/x")
    with pytest.raises(ValueError, match="closed"):
        files.entries()
    files.close()


def test_another_medium_is_never_read_or_written() -> None:
    unit = Unit(Memory(bytearray(4 * MIB)), removable=True)
    with scsiusb.open_on(Bus(Stick([unit]))) as disk:
        make_filesystem(disk)
        other = bytearray(4 * MIB)
        with filesystem(disk, "r+b") as files:
            files.entries()
            unit.insert(Memory(other))
            with pytest.raises(MediumChanged):
                files.write("/a", io.BytesIO(TEXT))
            with pytest.raises(MediumChanged):
                files.entries()
        assert other == bytes(4 * MIB)


# --- hostile file systems -----------------------------------------------------------------------


def test_a_directory_that_contains_itself_is_walked_once(fat: Disk) -> None:
    with filesystem(fat, "r+b") as files:
        files.make_directory("/dir")
        files.make_directory("/dir/inner")
        number = files.entry("/dir").number
    # The directory entry of /dir/inner gets the cluster of /dir.
    data = bytearray(fat.read(0, fat.blocks))
    outer, inner = data.index(b"DIR        \x10"), data.index(b"INNER      \x10")
    data[inner + 26 : inner + 28] = data[outer + 26 : outer + 28]
    fat.write(0, data)
    with filesystem(fat) as files:
        assert number == files.entry("/dir").number
        assert len(list(files.walk())) <= DEEPEST


def test_names_never_lead_out_of_a_folder() -> None:
    for name in ("..", ".", "", "a/b", "/etc/passwd", "\0"):
        made = local_name(name)
        assert made not in ("", ".", "..")
        assert "/" not in made
        assert "\0" not in made
    assert local_name("Name 1.txt") == "Name 1.txt"
    assert components("//a/./b/") == ("a", "b")
    with pytest.raises(ValueError, match="possible"):
        components("/a" * (DEEPEST + 1))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_file_system_raises_only_documented_errors(seed: int) -> None:
    with disk_of(bytearray(2 * MIB)) as disk:
        make_filesystem(disk)
        with filesystem(disk, "r+b") as files:
            files.make_directory("/dir")
            for at in range(5):
                files.write(f"/dir/file {at}", io.BytesIO(TEXT))
        good = disk.read(0, disk.blocks)
    random = Random(seed)
    for _ in range(60):
        damaged = bytearray(good)
        for _ in range(random.choice((1, 3, 30))):
            at = random.choice((random.randrange(64), random.randrange(40 * 512), random.randrange(len(damaged))))
            damaged[at] = random.choice((0, 0xFF, random.randrange(256)))
        with disk_of(damaged) as disk:
            try:
                with filesystem(disk, "r+b") as files:
                    for path, each in files.walk():
                        if not each.is_directory and each.size < 4 * MIB:
                            files.open(path).read()
                    files.write("/new", io.BytesIO(TEXT))
                    files.remove("/new")
            except (ScsiUsbError, OSError, ValueError):
                pass
