"""What is on a partition: signatures as the formats' own programs write them."""

from __future__ import annotations

import io
import os
import struct
import subprocess
from pathlib import Path

import pytest

from scsiusb.virtual.target import fat
from scsiusb.volume import content, partitions
from scsiusb.volume.source import Source
from scsiusb.volume.types import GPT_TYPES, MBR_TYPES
from tests.programs import program
from tests.volume.tables import disk_of, put, record, table_of

SIZE = 1 << 20


def found(data: bytes | bytearray, block_size: int = 512) -> str | None:
    return content.find(Source(io.BytesIO(data), block_size, len(data) // block_size))


def with_bytes(*parts: tuple[int, bytes]) -> bytearray:
    data = bytearray(SIZE)
    for at, part in parts:
        put(data, at, part)
    return data


def ext(compatible: int, incompatible: int, ro: int) -> bytearray:
    """Return an ext2 superblock with these features."""
    return with_bytes((1024 + 56, b"\x53\xef"), (1024 + 92, struct.pack("<III", compatible, incompatible, ro)))


def boot_sector(sectors: int, fat_sectors: int, **changes: int) -> bytearray:
    """Return a FAT's boot sector with one sector in a cluster; fat_sectors 0: that of FAT32."""
    values = {"jump": 0xEB, "size": 512, "cluster": 1, "reserved": 1, "fats": 2, "root": 512, "media": 0xF8} | changes
    head = struct.pack(
        "<B2x8sHBHBHHBH8xII",
        values["jump"],
        b"mkfs.fat",
        values["size"],
        values["cluster"],
        values["reserved"],
        values["fats"],
        values["root"],
        sectors if sectors < 0x10000 else 0,
        values["media"],
        fat_sectors,
        sectors if sectors >= 0x10000 else 0,
        0 if fat_sectors else 600,
    )
    return with_bytes((0, head), (510, b"\x55\xaa"))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (bytearray(SIZE), None),
        (with_bytes((0, b"\xff" * SIZE)), None),
        (b"", None),
        (bytes(512), None),
        (with_bytes((3, b"NTFS    ")), "ntfs"),
        (with_bytes((3, b"EXFAT   ")), "exfat"),
        (with_bytes((3, b"-FVE-FS-")), "bitlocker"),
        (with_bytes((0, b"LUKS\xba\xbe\0\x01")), "luks1"),
        (with_bytes((0, b"LUKS\xba\xbe\0\x02")), "luks2"),
        (with_bytes((0, b"LUKS\xba\xbe\0\x03")), None),
        (with_bytes((0, b"XFSB")), "xfs"),
        (with_bytes((1024, b"\x10\x20\xf5\xf2")), "f2fs"),
        (with_bytes((0x10040, b"_BHRfS_M")), "btrfs"),
        (with_bytes((4086, b"SWAPSPACE2")), "swap"),
        (with_bytes((65526, b"SWAPSPACE2")), "swap"),
        (with_bytes((4096, b"SWAPSPACE2")), None),
        (ext(0, 0, 0), "ext2"),
        (ext(0x38, 0x2, 0x3), "ext2"),
        (ext(0x3C, 0x6, 0x7), "ext3"),
        (ext(0x3C, 0x2C2, 0x46B), "ext4"),
        (ext(0x4, 0x2, 0x8), "ext4"),
        (with_bytes((0x8000, b"\1CD001\1")), "iso9660"),
        (with_bytes((0x8000, b"\1CD001\1"), (0x9800, b"\0BEA01\1"), (0xA000, b"\0NSR02\1")), "udf"),
        (with_bytes((0x8000, b"\0BEA01\1"), (0x8800, b"\0NSR03\1")), "udf"),
        (boot_sector(2880, 9), "fat12"),
        (boot_sector(4084 + 1 + 2 * 12 + 32, 12), "fat12"),
        (boot_sector(4085 + 1 + 2 * 16 + 32, 16), "fat16"),
        (boot_sector(65524 + 1 + 2 * 256 + 32, 256), "fat16"),
        (boot_sector(70000, 0, root=0, reserved=32), "fat32"),
        (boot_sector(2880, 9, jump=0), None),
        (boot_sector(2880, 9, size=0), None),
        (boot_sector(2880, 9, cluster=0), None),
        (boot_sector(2880, 9, cluster=3), None),
        (boot_sector(2880, 9, reserved=0), None),
        (boot_sector(2880, 9, fats=0), None),
        (boot_sector(2880, 9, media=0x55), None),
        (boot_sector(40, 9), None),
        (boot_sector(0, 9), None),
        (boot_sector(2880, 9)[:510], None),
    ],
)
def test_signatures(data: bytearray, expected: str | None) -> None:
    assert found(data) == expected


def test_udf_on_blocks_of_4096_bytes() -> None:
    data = with_bytes((0x8000, b"\0BEA01\1"), (0x9000, b"\0NSR03\1"))
    assert (found(data, 4096), found(data, 512)) == ("udf", "udf")


@pytest.mark.parametrize("block_size", [512, 1024, 2048, 4096])
def test_the_formatted_stick(block_size: int) -> None:
    (partition,) = table_of(fat.image(block_size), block_size)
    assert partition.content == ("fat16" if block_size <= 1024 else "fat12")


def test_a_disk_that_is_one_file_system_has_no_table() -> None:
    """The boot sector of a FAT ends with the same two bytes as a partition table."""
    data = boot_sector(2000, 9)
    put(data, 446, record((0x83, 10, 20))[446:])
    table = table_of(data)
    assert (table.kind, len(table), table.content, table.problems) == ("none", 0, "fat12", ())


def test_a_disk_without_a_table_has_its_content() -> None:
    table = table_of(ext(0x3C, 0x2C2, 0x46B))
    assert (table.kind, table.content) == ("none", "ext4")


def test_a_partition_is_looked_at_only_within_its_blocks() -> None:
    data = with_bytes((0, record((0x83, 10, 20), (0x82, 30, 100))), (10 * 512 + 0x10040, b"_BHRfS_M"))
    put(data, 30 * 512 + 4086, b"SWAPSPACE2")
    assert [each.content for each in table_of(data)] == [None, "swap"]


def test_a_partition_that_cannot_be_read_is_named() -> None:
    data = with_bytes((0, record((0x83, 10, 20), (0x82, 30, 100))), (30 * 512 + 4086, b"SWAPSPACE2"))
    with disk_of(data, 512, "sense=3/11/00,lba=12,times=always") as disk:
        table = partitions(disk)
    assert [each.content for each in table] == [None, "swap"]
    assert len(table.problems) == 1
    assert table.problems[0].startswith("LBA 10: ")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["mkfs.vfat", "-F", "12"], "fat12"),
        (["mkfs.vfat", "-F", "16"], "fat16"),
        (["mkfs.vfat", "-F", "32"], "fat32"),
        (["mke2fs", "-q", "-t", "ext2"], "ext2"),
        (["mke2fs", "-q", "-t", "ext3"], "ext3"),
        (["mke2fs", "-q", "-t", "ext4"], "ext4"),
        (["mkswap"], "swap"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_formats_own_programs_make(tmp_path: Path, words: list[str], expected: str) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"")
    os.truncate(path, 40 << 20 if expected in ("fat16", "fat32") else 8 << 20)
    subprocess.run([program(words[0]), *words[1:], path], check=True, capture_output=True)
    assert found(path.read_bytes()) == expected


@pytest.mark.parametrize("label", ["dos", "gpt"])
def test_types_are_those_of_sfdisk(label: str) -> None:
    done = subprocess.run(
        [program("sfdisk"), "--list-types", "--label", label], check=True, capture_output=True, text=True
    )
    known = {line.split()[0].lower() for line in done.stdout.splitlines() if line.strip()}
    ours = {f"{code:x}" for code in MBR_TYPES} if label == "dos" else {str(code) for code in GPT_TYPES}
    assert ours - known == set()
