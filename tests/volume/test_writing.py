"""Partition tables written by scsiusb: where partitions go, what is refused, and what sfdisk and sgdisk say to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from uuid import UUID

import pytest

import scsiusb
from scsiusb import DataProtect, Disk, MediumChanged, MediumError, Miscompare, OutOfRange
from scsiusb.virtual import Bus, Memory, Stick, Unit
from scsiusb.volume import (
    BASIC_DATA,
    EFI_SYSTEM,
    LINUX,
    LINUX_SWAP,
    NewPartition,
    Partition,
    PartitionTable,
    partitions,
    write_gpt,
    write_mbr,
)
from tests.programs import run, sfdisk_table, verified_by_sfdisk, verified_by_sgdisk
from tests.sticks import OddUnit
from tests.volume.tables import LINUX as LINUX_TYPE
from tests.volume.tables import disk_of, gpt, put, record

MIB = 1 << 20
SIZE = 64 * MIB
OWN = UUID("aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee")


def places(table: PartitionTable) -> list[tuple[int, int, int]]:
    return [(each.number, each.lba, each.blocks) for each in table]


def test_partitions_are_aligned_and_the_last_one_takes_the_rest() -> None:
    with disk_of(bytearray(SIZE)) as disk:
        table = write_mbr(disk, [NewPartition(0x0C, blocks=3000), NewPartition(0x83)])
        assert places(table) == [(1, 2048, 3000), (2, 6144, 131072 - 6144)]
        table = write_gpt(disk, [NewPartition(EFI_SYSTEM, blocks=3000, name="ESP"), NewPartition(LINUX)])
        assert places(table) == [(1, 2048, 3000), (2, 6144, 129024 - 6144)]
        assert (table.kind, table.problems, table[0].name) == ("gpt", (), "ESP")


def test_addresses_that_are_given_stay() -> None:
    with disk_of(bytearray(SIZE), 4096) as disk:
        table = write_gpt(disk, [NewPartition(LINUX, 7, 1), NewPartition(LINUX), NewPartition(LINUX, 1000, 5)])
        assert places(table) == [(1, 7, 1), (2, 256, 512), (3, 1000, 5)], "up to the next one, in whole MiB"
        table = write_mbr(disk, [NewPartition(0x83, 1, 1), NewPartition(0x83, 2, 16382)])
        assert places(table) == [(1, 1, 1), (2, 2, 16382)]


def test_what_was_asked_for_is_read_back() -> None:
    with disk_of(bytearray(SIZE)) as disk:
        rows = [
            NewPartition(LINUX, name="\N{SNOWMAN} " * 18, uuid=OWN, blocks=1, is_bootable=True, attributes=1 << 63),
            NewPartition(LINUX_SWAP),
        ]
        table = write_gpt(disk, rows, disk_uuid=OWN)
        assert (table.id, table[0].uuid, table[0].attributes) == (OWN, OWN, 1 << 63 | 4)
        assert (table[0].is_bootable, table[1].is_bootable) == (True, False)
        assert table[1].uuid not in (OWN, None)
        assert table == partitions(disk)
        table = write_mbr(disk, [NewPartition(0x0B, is_bootable=True)], signature=0xCAFE)
        assert (table.kind, table.id, table[0].is_bootable) == ("mbr", 0xCAFE, True)
        assert write_mbr(disk, []).id == 0xCAFE, "the identifier stays if none is given"


def test_logical_drives_have_an_extended_partition_around_them() -> None:
    rows = [
        NewPartition(0x0C, blocks=2048),
        NewPartition(0x83, blocks=2048, is_logical=True),
        NewPartition(0x83, blocks=100, is_logical=True, is_bootable=True),
        NewPartition(0x82, blocks=2048, is_logical=True),
        NewPartition(0x07),
    ]
    with disk_of(bytearray(SIZE)) as disk:
        table = write_mbr(disk, rows)
    assert places(table) == [
        (1, 2048, 2048),
        (2, 4096, 10240),
        (3, 14336, 116736),
        (5, 6144, 2048),
        (6, 10240, 100),
        (7, 12288, 2048),
    ]
    assert [each.is_container for each in table] == [False, True, False, False, False, False]
    assert table.find(6).is_bootable
    assert table.problems == ()


@pytest.mark.parametrize("write", [write_mbr, write_gpt])
def test_content_and_boot_code_stay(write: Callable[[Disk, list[NewPartition]], PartitionTable]) -> None:
    data = bytearray(Random(1).randbytes(SIZE // 8))
    data[:512] = b"\xee" * 440 + record((0x83, 1, 5))[440:]
    before = bytes(data)
    with disk_of(data) as disk:
        write(disk, [NewPartition(0x83 if write is write_mbr else LINUX)])
    assert data[:440] == before[:440]
    assert data[34 * 512 : -33 * 512] == before[34 * 512 : -33 * 512]


def test_a_file_system_on_the_whole_disk_is_replaced() -> None:
    """Otherwise its boot sector would still say that there is no table."""
    data = bytearray(SIZE // 8)
    put(data, 3, b"NTFS    ")
    put(data, 510, b"\x55\xaa")
    with disk_of(data) as disk:
        assert partitions(disk).content == "ntfs"
        assert write_mbr(disk, [NewPartition(0x07)]).kind == "mbr"


def test_an_mbr_erases_the_headers_of_a_gpt() -> None:
    data = gpt(20_000, 512, (LINUX_TYPE, 40, 99, "a"))
    with disk_of(data) as disk:
        table = write_mbr(disk, [NewPartition(0x83)])
    assert table.problems == ()
    assert b"EFI PART" not in data


Refusal = tuple[list[NewPartition], type[Exception], str]
MBR_REFUSALS: list[Refusal] = [
    ([NewPartition(0x83, 0, 5)], OutOfRange, "not within the LBAs 1 to 16383"),
    ([NewPartition(0x83, 1, 16384)], OutOfRange, "not within"),
    ([NewPartition(0x83, 16384)], OutOfRange, "no room at LBA 16384"),
    ([NewPartition(0x83, 5, 0)], OutOfRange, "no room"),
    ([NewPartition(0x83, 5, -1)], OutOfRange, "no room"),
    ([NewPartition(0x83, 100, 100), NewPartition(0x83, 199, 5)], ValueError, "LBA 100 and LBA 199 overlap"),
    ([NewPartition(0x83, 100, 100), NewPartition(0x83, 50, 51)], ValueError, "overlap"),
    ([NewPartition(0x83), NewPartition(0x83)], ValueError, "give one of the two"),
    ([NewPartition(0x83, blocks=1)] * 5, ValueError, "5 primary partitions are too many"),
    ([NewPartition(0)], ValueError, "type 0x00"),
    ([NewPartition(0x05)], ValueError, "type 0x05"),
    ([NewPartition(0xEE)], ValueError, "type 0xee"),
    ([NewPartition(0x100)], ValueError, "type 0x100"),
    ([NewPartition(0x83, name="a")], ValueError, "no names"),
    ([NewPartition(LINUX)], TypeError, "type must be an int in an MBR"),
    ([NewPartition(0x83, 1.5)], TypeError, "lba must be an int"),  # type: ignore[arg-type]
    ([NewPartition(0x83, 1, 5, is_logical=True)], ValueError, "no block before the logical drive at LBA 1"),
    (
        [NewPartition(0x83, 10, 5, is_logical=True), NewPartition(0x83, 15, 5, is_logical=True)],
        ValueError,
        "no block before the logical drive at LBA 15",
    ),
    (
        [NewPartition(0x83, 20, 5, is_logical=True), NewPartition(0x83, 10, 5, is_logical=True)],
        ValueError,
        "no block before the logical drive at LBA 10",
    ),
    (
        [
            NewPartition(0x83, 10, 5, is_logical=True),
            NewPartition(0x83, 20, 5),
            NewPartition(0x83, 30, 5, is_logical=True),
        ],
        ValueError,
        "overlap",
    ),
]
GPT_REFUSALS: list[Refusal] = [
    ([NewPartition(LINUX, 33, 5)], OutOfRange, "not within the LBAs 34 to 16350"),
    ([NewPartition(LINUX, 34, 16318)], OutOfRange, "not within"),
    ([NewPartition(LINUX, 34, 2**64)], OutOfRange, "not within"),
    ([NewPartition(LINUX, 100, 100), NewPartition(LINUX, 199, 5)], ValueError, "overlap"),
    ([NewPartition(LINUX, 100 + n, 1) for n in range(129)], ValueError, "129 partitions are too many"),
    ([NewPartition(UUID(int=0))], ValueError, "type of all zeros"),
    ([NewPartition(0x83)], TypeError, "type must be a UUID in a GPT"),
    ([NewPartition(LINUX, name="x" * 37)], ValueError, "up to 36"),
    ([NewPartition(LINUX, name="\N{GRINNING FACE}" * 19)], ValueError, "up to 36"),
    ([NewPartition(LINUX, name="a\0b")], ValueError, "printable"),
    ([NewPartition(LINUX, name="\ud800")], ValueError, "printable"),
    ([NewPartition(LINUX, is_logical=True)], ValueError, "no logical drives"),
    ([NewPartition(LINUX, attributes=1 << 64)], ValueError, "64 bits"),
    ([NewPartition(LINUX, attributes="4")], TypeError, "attributes must be an int"),  # type: ignore[arg-type]
    ([NewPartition(LINUX, name=b"a")], TypeError, "name must be a str"),  # type: ignore[arg-type]
    ([NewPartition(LINUX, uuid=str(OWN))], TypeError, "uuid must be a UUID"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(
    ("write", "rows", "error", "text"),
    [*((write_mbr, *row) for row in MBR_REFUSALS), *((write_gpt, *row) for row in GPT_REFUSALS)],
)
def test_what_is_refused_writes_nothing(
    write: Callable[[Disk, list[NewPartition]], PartitionTable],
    rows: list[NewPartition],
    error: type[Exception],
    text: str,
) -> None:
    medium = Memory(8 * MIB)
    with scsiusb.open_on(Bus(Stick([Unit(medium)]))) as disk, pytest.raises(error, match=text):
        write(disk, rows)
    assert medium.writes == 0


def test_identifiers_of_the_disk_are_checked() -> None:
    medium = Memory(8 * MIB)
    with scsiusb.open_on(Bus(Stick([Unit(medium)]))) as disk:
        for signature in (-1, 1 << 32):
            with pytest.raises(ValueError, match="32 bits"):
                write_mbr(disk, [], signature=signature)
        with pytest.raises(TypeError, match="disk_uuid must be a UUID"):
            write_gpt(disk, [], disk_uuid=str(OWN))  # type: ignore[arg-type]
    assert medium.writes == 0


def test_a_medium_that_is_too_small_for_a_gpt() -> None:
    with disk_of(bytearray(67 * 512)) as disk:
        with pytest.raises(OutOfRange, match="too small"):
            write_gpt(disk, [])
        write_mbr(disk, [NewPartition(0x83, 1, 66)])
    with disk_of(bytearray(68 * 512)) as disk:
        assert write_gpt(disk, [NewPartition(LINUX, 34, 1)]).problems == ()


def test_a_write_protected_medium() -> None:
    medium = Memory(8 * MIB, read_only=True)
    with scsiusb.open_on(Bus(Stick([Unit(medium)]))) as disk, pytest.raises(DataProtect):
        write_gpt(disk, [NewPartition(LINUX)])


class Forgetful(Memory):
    """A medium that drops the writes of LBA 0."""

    def _write(self, offset: int, view: memoryview) -> None:
        if offset:
            super()._write(offset, view)


def test_what_is_read_back_is_compared() -> None:
    with scsiusb.open_on(Bus(Stick([Unit(Forgetful(8 * MIB))]))) as disk, pytest.raises(Miscompare, match="read back"):
        write_mbr(disk, [NewPartition(0x83)])


@pytest.mark.parametrize("lba", [16351, 16383, 2, 1, 0])
def test_a_gpt_is_whole_whichever_write_fails(lba: int) -> None:
    stick = Stick([Unit(Memory(8 * MIB))])
    with scsiusb.open_on(Bus(stick)) as disk:
        write_gpt(disk, [NewPartition(LINUX, 100, 5, name="old")])
        stick.faults.add(f"sense=3/0c/00,opcode=2a,lba={lba},times=always")
        with pytest.raises(MediumError):
            write_gpt(disk, [NewPartition(LINUX, 200, 5, name="new")])
        (partition,) = partitions(disk)
        assert partition.name == ("new" if lba < 2 else "old")


@pytest.mark.parametrize("lba", [4096, 0, 1, 16383])
def test_an_mbr_is_whole_whichever_write_fails(lba: int) -> None:
    stick = Stick([Unit(Memory(8 * MIB))])
    with scsiusb.open_on(Bus(stick)) as disk:
        write_gpt(disk, [NewPartition(LINUX, 100, 5, name="old")])
        stick.faults.add(f"sense=3/0c/00,opcode=2a,lba={lba},times=always")
        with pytest.raises(MediumError):
            write_mbr(disk, [NewPartition(0x83, 2048, 2048), NewPartition(0x83, is_logical=True)])
        table = partitions(disk)
        assert (table.kind, len(table)) == (("gpt", 1) if lba in (4096, 0) else ("mbr", 3))


@pytest.mark.parametrize("write", [write_mbr, write_gpt])
def test_a_table_is_never_written_to_another_medium(
    write: Callable[[Disk, list[NewPartition]], PartitionTable],
) -> None:
    """The medium is exchanged after each of the commands of a write."""
    rows = [NewPartition(0x83 if write is write_mbr else LINUX)]
    for number in range(1, 40):
        unit, other = OddUnit(Memory(8 * MIB)), Memory(8 * MIB)
        with scsiusb.open_on(Bus(Stick([unit]))) as disk:
            disk.read(0, 1)
            unit.cdbs.clear()

            def exchange(cdb: bytes, unit: OddUnit = unit, other: Memory = other, number: int = number) -> None:
                if len(unit.cdbs) == number:
                    unit.insert(other)

            unit.answer = exchange
            try:
                write(disk, rows)
            except MediumChanged:
                disk._unflushed.take()
            else:
                break  # the write has fewer commands
        assert other.writes == 0
    assert 5 < number < 39


def judged(tmp_path: Path, data: bytearray, table: PartitionTable) -> None:
    """Check a written table by sfdisk, and by sgdisk if it is a GPT; what they read is what we read."""
    path = tmp_path / "image"
    path.write_bytes(data)
    verified_by_sfdisk(path)
    if table.kind == "gpt":
        verified_by_sgdisk(path)
    same(sfdisk_table(path), table)


def same(theirs: dict[str, object], table: PartitionTable) -> None:
    assert theirs["label"] == ("dos" if table.kind == "mbr" else "gpt")
    assert isinstance(theirs["partitions"], list)
    rows = [
        (int(row["node"].rpartition("image")[2]), row["start"], row["size"], row["type"].lower(), row.get("name", ""))
        for row in theirs["partitions"]
    ]
    assert rows == [(each.number, each.lba, each.blocks, code(each), each.name) for each in table]
    if table.kind == "gpt":
        assert [row["uuid"].lower() for row in theirs["partitions"]] == [str(each.uuid) for each in table]
        assert str(theirs["id"]).lower() == str(table.id)
    else:
        assert [row.get("bootable", False) for row in theirs["partitions"]] == [each.is_bootable for each in table]


def code(partition: Partition) -> str:
    return f"{partition.type:x}" if isinstance(partition.type, int) else str(partition.type)


def random_rows(random: Random, blocks: int, *, is_gpt: bool) -> list[NewPartition]:
    """Return partitions of random sizes, aligned and not, logical drives among them."""
    rows, at = list[NewPartition](), 40
    logical = range(*sorted((random.randrange(5), random.randrange(5)))) if not is_gpt else range(0)
    for number in range(random.randint(1, 12) if is_gpt else 4 + (len(logical) > 1)):
        at += random.choice((1, 63, 2048))
        count = random.randint(1, blocks // 16)
        kind: int | UUID = random.choice((BASIC_DATA, LINUX)) if is_gpt else random.choice((0x0C, 0x83, 0x07))
        name = "".join(random.choices("abc äöü", k=random.randrange(36))).strip() if is_gpt else ""
        rows.append(NewPartition(kind, at, count, name, number == 1, number in logical))
        at += count
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_the_judges_accept_what_we_write(tmp_path: Path, seed: int) -> None:
    random, data = Random(seed), bytearray(SIZE)
    rows = random_rows(random, SIZE // 512, is_gpt=bool(seed % 2))
    with disk_of(data) as disk:
        table = (write_gpt if seed % 2 else write_mbr)(disk, rows)
    assert table.problems == ()
    judged(tmp_path, data, table)


def test_the_judges_accept_what_we_place(tmp_path: Path) -> None:
    data = bytearray(SIZE)
    with disk_of(data) as disk:
        judged(tmp_path, data, write_gpt(disk, [NewPartition(EFI_SYSTEM, blocks=9999), NewPartition(LINUX)]))
        rows = [NewPartition(0x83, blocks=4096, is_logical=number > 1) for number in range(6)]
        judged(tmp_path, data, write_mbr(disk, rows))


def test_fdisk_accepts_a_gpt_on_blocks_of_4096_bytes(tmp_path: Path) -> None:
    data, path = bytearray(SIZE), tmp_path / "image"
    with disk_of(data, 4096) as disk:
        write_gpt(disk, [NewPartition(LINUX, 300, 1000)])
    path.write_bytes(data)
    said = run("fdisk", "-b", "4096", path, text="v\nq\n")
    assert "No errors detected." in said
    assert "300 1299" in " ".join(run("fdisk", "-b", "4096", "-l", path).split())


SFDISK_SCRIPTS = {
    "one": "label: dos\n2048,,c,*\n",
    "primaries": "label: dos\nlabel-id: 0x12345678\n2048,2048,83\n8192,100,7,*\n,4096,82\n",
    "logical drives": "label: dos\n2048,4096,c\n,60000,5\n,8192,83\n,8192,7\n,,82\n",
    "gaps": "label: dos\nimage1: start=2048, size=100\nimage3: start=50000, size=9, type=ef\n",
    "linux extended": "label: dos\n2048,60000,85\n,8192,83\n,8192,83\n",
    "gpt": 'label: gpt\nsize=4096, type=U, name="ESP"\ntype=L, name="räksmörgås", attrs="LegacyBIOSBootable"\n',
    "gpt, few entries": "label: gpt\ntable-length: 128\nfirst-lba: 2048\n2048,8\n,8\n,8\n",
    "gpt, many entries": "label: gpt\ntable-length: 512\n" + ",64\n" * 20,
    "empty gpt": "label: gpt\n",
    "empty mbr": "label: dos\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("script", SFDISK_SCRIPTS.values(), ids=SFDISK_SCRIPTS.keys())
def test_what_sfdisk_writes_is_read(tmp_path: Path, script: str) -> None:
    path = tmp_path / "image"
    path.write_bytes(bytes(SIZE))
    run("sfdisk", "--wipe=never", path, text=script)
    with disk_of(bytearray(path.read_bytes())) as disk:
        table = partitions(disk)
    assert table.problems == ()
    theirs = sfdisk_table(path)
    same({"partitions": []} | theirs, table)


@pytest.mark.slow
def test_what_sgdisk_writes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(bytes(SIZE))
    run("sgdisk", "-n", "1:0:+8M", "-t", "1:ef00", "-c", "1:boot", "-n", "7:0:+3M", "-A", "7:set:2", path)
    run("sgdisk", "-h", "1", path)
    with disk_of(bytearray(path.read_bytes())) as disk:
        table = partitions(disk)
    assert table.problems == ()
    assert [(each.number, each.name, each.type, each.is_bootable) for each in table] == [
        (1, "boot", EFI_SYSTEM, False),
        (7, "", LINUX, True),
    ]
    assert [(each.lba, each.blocks, each.type) for each in table.hybrid] == [(table[0].lba, table[0].blocks, 0xEF)]


def test_a_damaged_gpt_is_repaired_by_writing_what_was_read(tmp_path: Path) -> None:
    data = gpt(20_000, 512, (LINUX_TYPE, 40, 9999, "a"))
    data[512:1024] = bytes(512)
    with disk_of(data) as disk:
        table = partitions(disk)
        assert table.problems
        rows = [NewPartition(each.type, each.lba, each.blocks, each.name, uuid=each.uuid) for each in table]
        assert isinstance(table.id, UUID)
        table = write_gpt(disk, rows, disk_uuid=table.id)
    assert table.problems == ()
    judged(tmp_path, data, table)
