"""scsiusb partitions: the table as text and JSON, and what is wrong with it as warnings."""

from __future__ import annotations

from scsiusb.virtual import Memory, Stick, Unit
from tests.cli.conftest import Attached, Cli
from tests.volume.tables import DISK_ID, LINUX, OWN_ID, gpt, logical_drives, put, record

CONTRACT = {"number", "lba", "blocks", "type", "name", "content"}


def disk(data: bytes | bytearray, block_size: int = 512, *faults: str) -> Stick:
    return Stick([Unit(Memory(data, block_size))], faults=faults)


def test_an_mbr_has_the_contracts_keys(cli: Cli, attach: Attached) -> None:
    attach(Stick.formatted())
    found = cli("partitions", "--json").record
    (row,) = found.pop("partitions")
    assert found == {"table": "mbr", "hybrid": [], "content": None, "id": "5c510001", "problems": []}
    assert row == {
        "number": 1,
        "lba": 2048,
        "blocks": 14336,
        "bytes": 7340032,
        "type": "0e",
        "type_text": "FAT16, LBA",
        "name": "",
        "uuid": None,
        "bootable": False,
        "content": "fat16",
    }
    assert row.keys() >= CONTRACT


def test_a_gpt_as_json(cli: Cli, attach: Attached) -> None:
    data = gpt(1000, 512, (LINUX, 40, 99, "räksmörgås"))
    put(data, 0, record((0xEE, 1, 39), (0x83, 40, 60)))
    attach(disk(data))
    found = cli("partitions", "--json").record
    assert (found["table"], found["id"], found["problems"]) == ("gpt", str(DISK_ID), [])
    (row,), (hybrid,) = found["partitions"], found["hybrid"]
    assert (row["type"], row["name"], row["uuid"]) == (str(LINUX), "räksmörgås", str(OWN_ID))
    assert (hybrid["number"], hybrid["type"], hybrid["uuid"]) == (2, "83", None)


def test_partitions_as_text(cli: Cli, attach: Attached) -> None:
    data = logical_drives()
    put(data, 405 * 512, b"XFSB")
    attach(disk(data), disk(gpt(1000, 512, (LINUX, 40, 99, "root"))))
    assert [line.split() for line in cli("partitions", "1-1").text.splitlines()] == [
        ["number", "LBA", "blocks", "size", "type", "name", "content"],
        ["1", "10", "90", "45", "KiB", "Linux", "-", "-"],
        ["2", "100", "500", "250", "KiB", "extended,", "LBA", "-", "-"],
        ["5", "110", "40", "20", "KiB", "Linux", "-", "-"],
        ["6", "201", "50", "25", "KiB", "NTFS,", "exFAT", "-", "-"],
        ["7", "405", "60", "30", "KiB", "FAT32,", "LBA", "-", "xfs"],
    ]
    assert cli("partitions", "1-2").text.splitlines()[1].split() == ["1", "40", "60", "30", "KiB", "Linux", "root", "-"]


def test_partitions_fit_80_columns(screen: Cli, attach: Attached) -> None:
    attach(disk(gpt(1000, 512, (LINUX, 40, 99, "x" * 36))))
    lines = screen("partitions").text.splitlines()
    assert max(map(len, lines)) <= 80
    assert "xxxx" in lines[-1]


def test_a_disk_without_partitions(cli: Cli, attach: Attached) -> None:
    xfs = bytearray(1 << 20)
    put(xfs, 0, b"XFSB")
    empty = bytearray(1 << 20)
    put(empty, 0, record())
    attach(disk(bytes(1 << 20)), disk(xfs), disk(empty), disk(gpt(1000, 512)))
    assert cli("partitions", "1-1").text == "no partition table; content of the disk: unknown\n"
    assert cli("partitions", "1-2").text == "no partition table; content of the disk: xfs\n"
    assert cli("partitions", "1-3").text == "MBR without partitions\n"
    assert cli("partitions", "1-4").text == "GPT without partitions\n"
    found = cli("partitions", "1-2", "--json").record
    assert (found["table"], found["partitions"], found["content"]) == ("none", [], "xfs")


def test_what_is_wrong_is_a_warning(cli: Cli, attach: Attached) -> None:
    data = gpt(1000, 512, (LINUX, 40, 99, "a"))
    put(data, 512, bytes(512))
    attach(disk(data))
    ended = cli("partitions")
    assert ended.status == 0
    assert ended.err.splitlines() == [
        "scsiusb: warning: the primary table cannot be used: there is no header at LBA 1",
        "scsiusb: warning: the backup table is used, as the primary one is damaged",
    ]
    assert ended.text.splitlines()[1].split()[0] == "1"
    ended = cli("partitions", "--json")
    assert (ended.err, len(ended.record["problems"])) == ("", 2)


def test_a_disk_that_cannot_be_read(cli: Cli, attach: Attached) -> None:
    attach(disk(bytes(4096), 512, "sense=3/11/00,lba=0,times=always"))
    assert cli("partitions").failed(3, "LBA 0")
