"""Partition tables that are right, that are damaged as they often are, and that are hostile."""

from __future__ import annotations

import binascii
from collections.abc import Callable
from random import Random
from uuid import UUID

import pytest

import scsiusb
from scsiusb import MediumChanged, MediumError, NoMedium, OutOfRange, ScsiUsbError
from scsiusb.virtual import Bus, Memory, Sparse, Stick, Unit
from scsiusb.volume import PartitionTable, partitions
from tests.volume.tables import (
    DISK_ID,
    LINUX,
    OWN_ID,
    array_of,
    disk_of,
    gpt,
    header,
    logical_drives,
    put,
    record,
    table_of,
)

Place = tuple[int, int, int, "int | UUID"]


def places(table: PartitionTable) -> list[Place]:
    """Return number, first block, blocks and type of each partition."""
    return [(each.number, each.lba, each.blocks, each.type) for each in table]


def test_primary_partitions() -> None:
    data = bytearray(1000 * 512)
    put(data, 0, record((0x0C, 1, 9), (0, 0, 0), (0x83, 10, 990), status=0x80))
    table = table_of(data)
    assert (table.kind, table.id, table.problems, table.content) == ("mbr", 0x12345678, (), None)
    assert places(table) == [(1, 1, 9, 0x0C), (3, 10, 990, 0x83)]
    assert [each.is_bootable for each in table] == [True, True]
    assert [each.type_text for each in table] == ["FAT32, LBA", "Linux"]
    assert table[0].size == 9 * 512


def test_a_table_is_a_sequence() -> None:
    table = table_of(logical_drives())
    assert len(table) == 5
    assert table[-1].number == 7
    assert [each.number for each in table[:2]] == [1, 2]
    assert table.find(5) is table[2]
    with pytest.raises(ValueError, match="there is no partition 3; the table has 1, 2, 5, 6, 7"):
        table.find(3)
    assert table[0] in table


def test_logical_drives() -> None:
    table = table_of(logical_drives())
    assert table.problems == ()
    assert places(table) == [
        (1, 10, 90, 0x83),
        (2, 100, 500, 0x0F),
        (5, 110, 40, 0x83),
        (6, 201, 50, 0x07),
        (7, 405, 60, 0x0C),
    ]


def test_an_extended_partition_that_is_empty() -> None:
    data = bytearray(1000 * 512)
    put(data, 0, record((0x05, 100, 500)))
    table = table_of(data)
    assert (places(table), table.problems) == ([(1, 100, 500, 0x05)], ())


@pytest.mark.parametrize(
    ("link", "problem"),
    [
        ((0x05, 0, 500), "returns to LBA 100"),
        ((0x05, 100, 500), "returns to LBA 200"),
        ((0x05, 500, 1), "leaves it, to LBA 600"),
        ((0x05, 0xFFFF_FFFF, 1), "leaves it, to LBA 4294967395"),
        ((0x05, 450, 1), "no table of a logical drive at LBA 550"),
    ],
    ids=["to the first", "to itself", "outside", "far outside", "to nothing"],
)
def test_a_chain_of_logical_drives_ends(link: tuple[int, int, int], problem: str) -> None:
    data = logical_drives()
    put(data, 200 * 512, record((0x07, 1, 50), link))
    table = table_of(data)
    assert [each.number for each in table] == [1, 2, 5, 6], "what is known is there"
    assert problem in "\n".join(table.problems)


def test_a_chain_without_end_is_bounded() -> None:
    blocks = 1000
    medium = Memory(blocks * 512)
    put(medium.data, 0, record((0x05, 1, blocks - 1)))
    for at in range(1, blocks - 1):
        put(medium.data, at * 512, record((0x83, 1, 1), (0x05, at, 1)))
    table = table_of(medium.data)
    assert len(table) == 1 + 256
    assert "more than 256 logical drives" in table.problems[0]


def test_a_logical_drive_that_ends_outside_is_named() -> None:
    data = logical_drives()
    put(data, 400 * 512, record((0x0C, 5, 400)))
    assert "the logical drive at LBA 405 does not end within partition 2" in table_of(data).problems


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([(0x83, 10, 991)], "partition 1 ends at LBA 1000, beyond the medium's 1000 blocks"),
        ([(0x83, 0xFFFF_FFFF, 0xFFFF_FFFF)], "beyond the medium"),
        ([(0x83, 10, 20), (0x83, 29, 5)], "partitions 1 and 2 overlap"),
        ([(0x83, 10, 500), (0x83, 20, 5), (0x83, 400, 5)], "partitions 1 and 3 overlap"),
        ([(0x83, 10, 0)], "partition 1 has no blocks"),
        ([(0x17, 0, 100)], "partition 1 begins at LBA 0"),
    ],
)
def test_what_is_wrong_is_named(rows: list[tuple[int, int, int]], problem: str) -> None:
    data = bytearray(1000 * 512)
    put(data, 0, record(*rows))
    table = table_of(data)
    assert table.kind == "mbr"
    assert problem in "\n".join(table.problems)


def test_a_status_that_is_not_possible_is_no_table() -> None:
    data = bytearray(1000 * 512)
    put(data, 0, record((0x83, 10, 20), status=0x41))
    assert table_of(data) == PartitionTable("none", ())


def test_a_partition_beyond_the_medium_cannot_be_opened() -> None:
    data = bytearray(1000 * 512)
    put(data, 0, record((0x83, 10, 991), (0x83, 2000, 5)))
    with disk_of(data) as disk:
        for partition in partitions(disk):
            with pytest.raises(OutOfRange):
                partition.open()


@pytest.mark.parametrize("block_size", [512, 4096])
def test_a_gpt(block_size: int) -> None:
    table = table_of(gpt(1000, block_size, (LINUX, 40, 99, "a ü"), (LINUX, 100, 100, "x" * 36)), block_size)
    assert (table.kind, table.id, table.problems, table.hybrid) == ("gpt", DISK_ID, (), ())
    assert places(table) == [(1, 40, 60, LINUX), (2, 100, 1, LINUX)]
    assert [each.name for each in table] == ["a ü", "x" * 36]
    assert (table[0].uuid, table[0].type_text, table[0].is_bootable) == (OWN_ID, "Linux", False)


def damaged(*offsets: int) -> bytearray:
    """Return a GPT of 1000 blocks with these bytes changed."""
    data = gpt(1000, 512, (LINUX, 40, 99, "a"))
    for offset in offsets:
        data[offset] ^= 1
    return data


FIRST = 512
LAST = 999 * 512


@pytest.mark.parametrize(
    ("offsets", "problem"),
    [
        ([FIRST], "there is no header at LBA 1"),
        ([FIRST + 17], "the CRC of its header is wrong"),
        ([FIRST + 70], "the CRC of its header is wrong"),
        ([FIRST + 12], "the CRC of its header is wrong"),
        ([FIRST + 15], "impossible length of 16777308 bytes"),
        ([FIRST + 512 + 200], "the CRC of its entries is wrong"),
    ],
)
def test_the_backup_is_used_if_the_primary_is_damaged(offsets: list[int], problem: str) -> None:
    table = table_of(damaged(*offsets))
    assert places(table) == [(1, 40, 60, LINUX)]
    assert table.problems[0].startswith("the primary table cannot be used: ")
    assert problem in table.problems[0]
    assert table.problems[1:] == ("the backup table is used, as the primary one is damaged",)


@pytest.mark.parametrize("lba", ["1", "2-20"])
def test_the_backup_is_used_if_the_primary_cannot_be_read(lba: str) -> None:
    table = table_of(gpt(1000, 512, (LINUX, 40, 99, "a")), 512, f"sense=3/11/00,lba={lba},times=always")
    assert places(table) == [(1, 40, 60, LINUX)]
    assert "the backup table is used" in table.problems[1]


def test_a_damaged_backup_is_named() -> None:
    table = table_of(damaged(LAST + 20))
    assert places(table) == [(1, 40, 60, LINUX)]
    assert table.problems == ("the backup table cannot be used: the CRC of its header is wrong",)


def test_both_damaged() -> None:
    table = table_of(damaged(FIRST, LAST))
    assert (table.kind, len(table), len(table.problems)) == ("gpt", 0, 2)


def test_a_backup_that_differs_is_named() -> None:
    data, other = gpt(1000, 512, (LINUX, 40, 99, "a")), gpt(1000, 512, (LINUX, 40, 98, "a"))
    data[900 * 512 :] = other[900 * 512 :]
    table = table_of(data)
    assert places(table) == [(1, 40, 60, LINUX)]
    assert table.problems == ("the backup table differs from the primary one, which is used",)


def test_a_small_image_on_a_larger_stick() -> None:
    data = gpt(1000, 512, (LINUX, 40, 99, "a")) + bytearray(500 * 512)
    table = table_of(data)
    assert places(table) == [(1, 40, 60, LINUX)]
    assert table.problems == ("the backup table is at LBA 999, not at the last LBA, 1499",)


def test_a_large_image_on_a_smaller_stick() -> None:
    data = gpt(1000, 512, (LINUX, 40, 99, "a"), (LINUX, 500, 900, "b"))[: 600 * 512]
    with disk_of(data) as disk:
        table = partitions(disk)
        assert places(table) == [(1, 40, 60, LINUX), (2, 500, 401, LINUX)]
        assert "partition 2 ends at LBA 900, beyond the medium's 600 blocks" in table.problems
        assert table[0].open().size == 60 * 512
        with pytest.raises(OutOfRange):
            table[1].open()


def test_a_gpt_without_a_protective_mbr() -> None:
    table = table_of(gpt(1000, 512, (LINUX, 40, 99, "a"), protective=False))
    assert (table.kind, table.problems) == ("gpt", ("there is no protective MBR",))
    assert len(table) == 1


def test_a_gpt_that_an_mbr_replaced_is_ignored() -> None:
    data = gpt(1000, 512, (LINUX, 40, 99, "a"))
    put(data, 0, record((0x0C, 40, 900)))
    table = table_of(data)
    assert (table.kind, places(table)) == ("mbr", [(1, 40, 900, 0x0C)])
    assert "a GPT at LBA 1 is ignored" in table.problems[0]


def test_a_backup_alone_is_named() -> None:
    data = gpt(1000, 512, (LINUX, 40, 99, "a"))
    data[: 34 * 512] = bytes(34 * 512)
    table = table_of(data)
    assert (table.kind, len(table)) == ("none", 0)
    assert table.problems == ("there is no table, but the backup of a GPT at the last LBA",)


def test_a_hybrid_mbr() -> None:
    data = gpt(1000, 512, (LINUX, 40, 99, "a"))
    put(data, 0, record((0xEE, 1, 39), (0x83, 40, 60), signature=5))
    table = table_of(data)
    assert (table.kind, table.problems, len(table)) == ("gpt", (), 1)
    assert [(each.number, each.lba, each.blocks, each.type) for each in table.hybrid] == [(2, 40, 60, 0x83)]


def test_a_table_for_another_block_size_is_named() -> None:
    table = table_of(gpt(8000, 512, (LINUX, 40, 99, "a")), 4096)
    assert (table.kind, len(table)) == ("gpt", 0)
    assert "the table was written for blocks of 512 bytes, as through another adapter" in table.problems


def with_header(**changes: int) -> bytearray:
    """Return a GPT whose two headers have right CRCs and odd values."""
    data, array = gpt(1000, 512, (LINUX, 40, 99, "a")), array_of([(LINUX, 40, 99, "a")])
    array_lba = changes.pop("array_lba", 2)
    put(data, FIRST, header(1, 999, array_lba, array, (34, 966), **changes))
    put(data, LAST, header(999, 1, array_lba, array, (34, 966), **changes))
    return data[: 1000 * 512]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"count": 0xFFFF_FFFF}, "4294967295 entries"),
        ({"count": 1025}, "1025 entries"),
        ({"count": 0}, "the CRC of its entries is wrong"),
        ({"size": 0}, "impossible length of 0 bytes"),
        ({"size": 64}, "impossible length of 64 bytes"),
        ({"size": 129}, "impossible length of 129 bytes"),
        ({"size": 0x8000_0000}, "impossible length of 2147483648 bytes"),
        ({"array_lba": 1}, "its entries cannot be at LBA 1"),
        ({"array_lba": 990}, "its entries cannot be at LBA 990"),
        ({"array_lba": 0xFFFF_FFFF_FFFF_FFFF}, "its entries cannot be at LBA 18446744073709551615"),
        ({"length": 513}, "impossible length of 513 bytes"),
    ],
)
def test_a_header_with_a_right_crc_and_odd_values(changes: dict[str, int], problem: str) -> None:
    table = table_of(with_header(**changes))
    assert (table.kind, len(table)) == ("gpt", 0)
    assert problem in table.problems[0]


def test_larger_entries_and_headers_are_read() -> None:
    data, array = gpt(1000, 512), array_of([(LINUX, 40, 99, "a")], 16, 256)
    put(data, FIRST, header(1, 999, 2, array, (34, 966), count=16, size=256, length=512))
    put(data, 2 * 512, array)
    assert places(table_of(data)) == [(1, 40, 60, LINUX)]


@pytest.mark.parametrize(
    ("rows", "problem", "left"),
    [
        ([(LINUX, 99, 40, "a")], "partition 1 ends at LBA 40, before it begins at LBA 99", 0),
        ([(LINUX, 5, 40, "a")], "partition 1 is not within the table's usable blocks", 1),
        ([(LINUX, 40, 2**64 - 1, "a")], "beyond the medium", 1),
        ([(LINUX, 40, 50, "a"), (LINUX, 50, 60, "b")], "partitions 1 and 2 overlap", 2),
    ],
)
def test_odd_entries(rows: list[tuple[UUID, int, int, str]], problem: str, left: int) -> None:
    table = table_of(gpt(1000, 512, *rows))
    assert problem in "\n".join(table.problems)
    assert len(table) == left


def test_names_are_safe_to_print() -> None:
    table = table_of(gpt(1000, 512, (LINUX, 40, 50, "a\x1b[2J\nb\0c")))
    assert table[0].name == "a\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize("block_size", [512, 4096])
def test_a_formatted_stick_is_read_and_its_partition_opened(block_size: int) -> None:
    with scsiusb.open_on(Bus(Stick.formatted(block_size=block_size))) as disk:
        (partition,) = partitions(disk)
        assert partition.content in ("fat12", "fat16")
        with partition.open() as file:
            assert file.size == partition.size
            assert file.read(3) == disk.read(partition.lba, 1)[:3]
            assert b"This is a USB stick made of software." in file.read()


def test_writes_stay_within_their_partition() -> None:
    data = bytearray(1000 * 512)
    put(data, 0, record((0x83, 10, 20)))
    before = bytes(data)
    with disk_of(data) as disk, partitions(disk)[0].open("r+b") as file:
        assert file.write(b"x" * (21 * 512)) == 20 * 512
    assert data == before[: 10 * 512] + b"x" * (20 * 512) + before[30 * 512 :]


def test_a_partition_belongs_to_the_medium_whose_table_was_read() -> None:
    data = bytearray(1000 * 512)
    put(data, 0, record((0x83, 10, 20)))
    unit, other = Unit(Memory(bytearray(data))), Memory(bytearray(data[: 15 * 512]))
    with scsiusb.open_on(Bus(Stick([unit]))) as disk:
        partition = partitions(disk)[0]
        unit.insert(other)
        with pytest.raises(MediumChanged):
            partition.open().read(1)
        assert disk.blocks == 15
        with pytest.raises(MediumChanged):
            partition.open("r+b")
    assert other.writes == 0


def test_without_a_medium() -> None:
    with scsiusb.open_on(Bus(Stick([Unit()]))) as disk, pytest.raises(NoMedium):
        partitions(disk)


def test_block_0_must_be_readable() -> None:
    with pytest.raises(MediumError):
        table_of(bytearray(4096), 512, "sense=3/11/00,lba=0,times=always")


def test_unreadable_parts_are_named() -> None:
    table = table_of(logical_drives(), 512, "sense=3/11/00,lba=200-220,times=always")
    assert [each.number for each in table] == [1, 2, 5]
    assert table.problems[0].startswith("LBA 200: ")


@pytest.mark.parametrize("blocks", [1, 2, 3, 34])
@pytest.mark.parametrize("block_size", [512, 4096])
def test_small_media(blocks: int, block_size: int) -> None:
    for first in (bytes(512), record((0xEE, 1, 5)), record((0x05, 1, 5)), record((0x83, 1, 5))):
        data = bytearray(blocks * block_size)
        put(data, 0, first)
        assert table_of(data, block_size).kind in ("mbr", "gpt", "none")


def test_a_medium_beyond_2_tib() -> None:
    medium = Sparse(6 << 30)
    with scsiusb.open_on(Bus(Stick([Unit(medium)]))) as disk:
        scsiusb.volume.write_gpt(disk, [scsiusb.volume.NewPartition(LINUX, lba=5 << 30, blocks=1000)])
        (partition,) = partitions(disk)
        assert (partition.lba, partition.blocks) == (5 << 30, 1000)
        with partition.open("r+b") as file:
            file.seek(700)
            file.write(b"far away")
        assert disk.read((5 << 30) + 1, 1)[188:196] == b"far away"


SEEDS: tuple[Callable[[], bytearray], ...] = (
    logical_drives,
    lambda: gpt(1000, 512, (LINUX, 40, 99, "a"), (LINUX, 100, 900, "b")),
    lambda: gpt(200, 4096, (LINUX, 40, 99, "a")),
)


def mutated(seed: int) -> tuple[bytearray, int]:
    """Return a disk with a table in which a few bytes, numbers or whole blocks are changed; its block size."""
    random = Random(seed)
    at = random.randrange(len(SEEDS))
    data, block_size = SEEDS[at](), 4096 if at == 2 else 512
    used = [block for block in range(0, len(data), 512) if any(data[block : block + 512])]
    for _ in range(random.randint(1, 6)):
        block = random.choice(used)
        place, length = block + random.randrange(512), random.choice((1, 1, 4, 8, 512))
        put(
            data, place, random.choice((bytes(length), b"\xff" * length, random.randbytes(length)))[: 512 - place % 512]
        )
        if random.random() < 0.3:  # a record in another place
            put(data, random.choice(used), data[block : block + 512])
    return (data if random.random() < 0.8 else data[: random.randint(1, len(data) // 4096) * 4096]), block_size


def with_right_crcs(data: bytearray, block_size: int) -> None:
    """Make the CRCs of both headers right again, so that the values which they cover are looked at."""
    for at in (block_size, len(data) - block_size):
        if data[at : at + 8] == b"EFI PART":
            array = int.from_bytes(data[at + 72 : at + 80], "little") * block_size
            put(data, at + 88, binascii.crc32(data[array : array + 128 * 128]).to_bytes(4, "little"))
            put(data, at + 16, bytes(4))
            put(data, at + 16, binascii.crc32(data[at : at + 92]).to_bytes(4, "little"))


def judge(seeds: range) -> None:
    """A table or an error of scsiusb, and partitions that can be opened where they are within the medium."""
    kinds = set()
    for seed in seeds:
        data, block_size = mutated(seed)
        if seed % 2:
            with_right_crcs(data, block_size)
        with disk_of(data, block_size) as disk:
            try:
                table = partitions(disk)
            except ScsiUsbError:
                continue
            kinds.add((table.kind, bool(table.problems)))
            for text in (*table.problems, *(each.name for each in table)):
                assert text.isprintable()
            for each in table:
                assert each.blocks > 0
                if each.end <= disk.blocks:
                    each.open().read(1)
    assert {("mbr", True), ("gpt", True)} <= kinds


def test_mutated_tables() -> None:
    judge(range(16))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_many_mutated_tables(part: int) -> None:
    judge(range(100 + 50 * part, 150 + 50 * part))
