"""Media in memory and in files, and the formatted disk."""

from __future__ import annotations

import errno
import io
import os
import struct
from pathlib import Path

import pytest

from scsiusb.base import locks
from scsiusb.virtual import File, Medium, Memory, Sparse, Stick
from scsiusb.virtual.target import fat
from tests.programs import run
from tests.virtual.host import Host, cdb10


def filled(path: Path, size: int) -> Path:
    path.write_bytes(bytes(index & 0xFF for index in range(size)))
    return path


def roundtrip(medium: Medium, offset: int, data: bytes) -> bytes:
    medium.write(offset, memoryview(data))
    stored = bytearray(len(data))
    medium.readinto(offset, memoryview(stored))
    return bytes(stored)


def test_an_image_is_the_medium_of_one_stick_unless_all_are_read_only(tmp_path: Path) -> None:
    path = filled(tmp_path / "disk", 1024)
    first = File(path)
    for read_only in (None, True):
        with pytest.raises(BlockingIOError, match="another virtual stick has this image open"):
            File(path, read_only=read_only)
    first.close()
    first, second = File(path, read_only=True), File(path, read_only=True)
    with pytest.raises(BlockingIOError):
        File(path)
    first.close()
    second.close()
    File(path).close()


def test_a_file_system_without_locks_does_not_keep_an_image_from_being_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, *, shared: bool = False) -> bool:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks, "try_lock", refuse)
    File(filled(tmp_path / "disk", 1024)).close()


@pytest.mark.parametrize(("size", "block_size"), [(0, 512), (100, 512), (513, 512), (512, 0)])
def test_a_size_that_is_no_positive_multiple_of_the_block_size_is_refused(
    tmp_path: Path, size: int, block_size: int
) -> None:
    with pytest.raises(ValueError, match="block size"):
        Memory(size, block_size)
    with pytest.raises(ValueError, match="block size"):
        File(filled(tmp_path / "disk", size), block_size)


def test_sparse_stores_data_that_span_several_chunks() -> None:
    medium = Sparse(1 << 32)
    data = os.urandom(200_000)
    assert roundtrip(medium, (1 << 40) - 100_000, data) == data
    assert len(medium.chunks) == 4
    assert (medium.reads, medium.writes) == (1, 1)


def test_memory_uses_the_bytearray_it_is_given() -> None:
    data = bytearray(1024)
    assert roundtrip(Memory(data), 512, b"x" * 512) == b"x" * 512
    assert data == bytes(512) + b"x" * 512


def test_a_file_is_changed_in_place(tmp_path: Path) -> None:
    path = filled(tmp_path / "disk", 4096)
    medium = File(path)
    assert not medium.read_only
    assert medium.blocks == 8
    assert roundtrip(medium, 1024, b"y" * 512) == b"y" * 512
    medium.flush()
    assert path.read_bytes()[1024:1536] == b"y" * 512
    medium.close()
    medium.close()
    for use in (medium.flush, lambda: roundtrip(medium, 0, b"z" * 512)):
        with pytest.raises(OSError, match="closed"):
            use()


def test_a_file_that_has_become_shorter_cannot_be_read(tmp_path: Path) -> None:
    path = filled(tmp_path / "disk", 4096)
    medium = File(path)
    os.truncate(path, 1024)
    with pytest.raises(OSError, match="shorter"):
        medium.readinto(512, memoryview(bytearray(1024)))
    medium.close()


def test_a_read_only_file_is_write_protected(tmp_path: Path) -> None:
    path = filled(tmp_path / "disk", 4096)
    path.chmod(0o444)
    with Stick.open_file(path) as stick:
        host = Host(stick)
        assert host.fails(cdb10(0x2A, 0, 1), out=bytes(512)) == (0x7, 0x27, 0x00)
        assert host.data(bytes((0x1A, 8, 8, 0, 4, 0)), 4)[2] & 0x80
        host.ok(cdb10(0x35, 0, 0))
    with pytest.raises(PermissionError):
        File(path, read_only=False)
    path.chmod(0o644)
    medium = File(path, read_only=True)
    assert medium.read_only
    medium.close()


def test_a_file_that_the_system_does_not_permit_to_write_is_opened_for_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = filled(tmp_path / "disk", 4096)
    opener = fail_to_write(monkeypatch)
    medium = File(path)
    assert medium.read_only
    assert opener == ["r+", "r"]
    medium.close()
    with pytest.raises(PermissionError):
        File(path, read_only=False)


def fail_to_write(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Make opening for writing fail, also for root, and return the list of modes that files are opened with."""
    real, modes = io.FileIO, list[str]()

    def refuse(path: Path, mode: str) -> io.FileIO:
        modes.append(mode)
        if mode == "r+":
            raise PermissionError(path)
        return real(path, mode)

    monkeypatch.setattr("scsiusb.virtual.target.media.io.FileIO", refuse)
    return modes


def test_a_stick_over_a_file_with_4096_byte_blocks(tmp_path: Path) -> None:
    path = filled(tmp_path / "disk", 8 * 4096)
    with Stick.open_file(path, 4096) as stick:
        host = Host(stick)
        host.ok(cdb10(0x2A, 3, 1), out=b"q" * 4096)
        assert host.data(cdb10(0x25, 0, 0), 8) == struct.pack(">II", 7, 4096)
    assert path.read_bytes()[3 * 4096 : 4 * 4096] == b"q" * 4096


# --- the formatted disk -------------------------------------------------------------------------


def test_the_partition_table_names_one_fat_partition() -> None:
    disk = fat.image()
    kind, start, blocks = struct.unpack_from("<4xB3xII", disk, 446)
    assert (kind, start, blocks) == (0x0E, 2048, 14336)
    assert disk[462:510] == bytes(48)
    assert disk[510:512] == b"\x55\xaa"


@pytest.mark.parametrize(("block_size", "kind"), [(512, b"FAT16   "), (2048, b"FAT12   "), (4096, b"FAT12   ")])
def test_the_boot_sector_describes_the_volume(block_size: int, kind: bytes) -> None:
    volume = fat.image(block_size)[fat.START :]
    size, cluster, reserved, fats, root, blocks, media, length = struct.unpack_from("<HBHBHHBH", volume, 11)
    assert (size, cluster, reserved, fats, root) == (block_size, 1, 1, 2, 512)
    assert (blocks, media) == (len(volume) // block_size, 0xF8)
    assert volume[54:62] == kind
    assert volume[510:512] == b"\x55\xaa"
    data = (1 + 2 * length) * block_size + 512 * 32
    entries = (blocks - data // block_size + 2) * (16 if kind == b"FAT16   " else 12)
    assert length * block_size * 8 >= entries
    assert volume[data : data + len(fat.README)] == fat.README


def test_the_image_is_always_the_same() -> None:
    assert fat.image() == fat.image() == fat.Formatted().data


def test_a_block_size_that_fat_does_not_support_is_refused() -> None:
    with pytest.raises(ValueError, match="520"):
        fat.image(520)


@pytest.mark.parametrize("block_size", [512, 1024, 2048, 4096])
def test_fsck_finds_nothing_wrong(tmp_path: Path, block_size: int) -> None:
    path = tmp_path / "volume"
    path.write_bytes(fat.image(block_size)[fat.START :])
    run("fsck.vfat", "-n", path)


def test_the_readme_can_be_read_from_the_stick() -> None:
    host = Host(Stick.formatted())
    start = 2048 + 1 + 2 * 57 + 32
    assert host.data(cdb10(0x28, start, 1), 512).rstrip(b"\0") == fat.README
