"""ls, cat, get, put, mkdir, rm, mkfs: what scripts rely on, and that nothing is lost without a confirmation."""

from __future__ import annotations

import hashlib
import io
import os
import sys
from pathlib import Path

import pytest

import scsiusb
from scsiusb.cli.commands.files import divided
from scsiusb.virtual import Memory, Stick, Unit
from scsiusb.volume import NewPartition, filesystem, make_filesystem, write_mbr
from tests.cli.conftest import Attached, Cli
from tests.volume.tables import disk_of

MIB = 1 << 20
CONTRACT = {"name", "bytes", "directory", "modified"}


class Typed(io.StringIO):
    """A terminal as stdin, with what the user types."""

    def isatty(self) -> bool:
        return True


def formatted(data: bytearray) -> bytearray:
    """Make two partitions, of which the second has a FAT with a few files."""
    with disk_of(data) as disk:
        table = write_mbr(disk, [NewPartition(0x83, 2048, 2048), NewPartition(0x0E)])
        make_filesystem(table[1])
        with filesystem(table[1], "r+b") as files:
            files.make_directory("/Photos")
            files.write("/Photos/1.jpg", io.BytesIO(b"one"))
            files.write("/Photos/2.jpg", io.BytesIO(b"two" * 1000))
            files.write("/readme.txt", io.BytesIO(b"hello\n"))
    return data


@pytest.fixture(scope="module")
def content() -> bytes:
    return bytes(formatted(bytearray(8 * MIB)))


@pytest.fixture
def data(content: bytes, attach: Attached) -> bytearray:
    """The content of the attached stick."""
    data = bytearray(content)
    attach(Stick([Unit(Memory(data))]))
    return data


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("2-1:3", ("2-1", 3)),
        ("2-1", ("2-1", None)),
        ("1209:0001", ("1209:0001", None)),
        ("1209:0001:1", ("1209:0001", 1)),
        ("virtual:", ("virtual:", None)),
        ("virtual::1", ("virtual:", 1)),
        ("virtual:1", ("virtual:1", None)),
        ("virtual:s.img?luns=2:0", ("virtual:s.img?luns=2", 0)),
        ("/dev/sdb:12", ("/dev/sdb", 12)),
        ("serial=AB:C", ("serial=AB:C", None)),
    ],
)
def test_a_partition_is_named_after_the_device(device: str, expected: tuple[str, int | None]) -> None:
    assert divided(device) == expected


def test_ls_has_the_contracts_keys(cli: Cli, data: bytearray) -> None:
    rows = cli("ls", "1-1", "--json").json
    assert [(row["name"], row["bytes"], row["directory"]) for row in rows] == [
        ("Photos", 0, True),
        ("readme.txt", 6, False),
    ]
    assert all(row.keys() == CONTRACT and row["modified"].startswith("20") for row in rows)
    (row,) = cli("ls", "1-1:2", "/photos/1.jpg", "--json").json
    assert (row["name"], row["bytes"]) == ("1.jpg", 3)
    text = cli("ls", "1-1").text.splitlines()
    assert text[0].split() == ["modified", "bytes", "name"]
    assert [line.split()[-1] for line in text[1:]] == ["Photos/", "readme.txt"]


def test_cat_under_json_has_the_bytes_in_hex(cli: Cli, data: bytearray, monkeypatch: pytest.MonkeyPatch) -> None:
    record = cli("cat", "1-1", "/Photos/1.jpg", "--json").record
    assert record == {"path": "/Photos/1.jpg", "bytes": 3, "data": b"one".hex()}
    monkeypatch.setattr("scsiusb.cli.commands.files.MOST_AS_TEXT", 2)
    assert cli("cat", "1-1", "/Photos/1.jpg", "--json").failed(1, "too much for JSON", "use `scsiusb get`")


def test_a_partition_that_is_not_there(cli: Cli, data: bytearray) -> None:
    assert cli("ls", "1-1:7").failed(1, "there is no partition 7", "`scsiusb partitions` shows them")


def test_cat_writes_the_bytes(cli: Cli, data: bytearray) -> None:
    assert cli("cat", "1-1", "/Photos/2.jpg").out == b"two" * 1000
    assert cli("cat", "1-1", "/nothing").failed(15, "/nothing", "no such file", "check the path")
    assert cli("cat", "1-1", "/Photos").failed(15, "/Photos", "directory")


def test_get_copies_a_file_or_all_of_a_directory(cli: Cli, data: bytearray, here: Path) -> None:
    found = cli("get", "1-1", "/readme.txt", "--json").record
    assert (found["files"], found["bytes"], found["output"]) == (1, 6, "readme.txt")
    assert (here / "readme.txt").read_bytes() == b"hello\n"
    assert cli("get", "1-1", "/Photos", "-o", "all").status == 0
    assert {path.name: path.read_bytes() for path in (here / "all").iterdir()} == {
        "1.jpg": b"one",
        "2.jpg": b"two" * 1000,
    }


def test_get_writes_into_a_pipe_and_does_not_replace_it(cli: Cli, data: bytearray, here: Path) -> None:
    """The node of a device, such as /dev/null, was replaced by a file."""
    if sys.platform == "win32":
        pytest.skip("has no pipes in folders")
    os.mkfifo("pipe")
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    assert cli("get", "1-1", "/readme.txt", "-o", "pipe").failed(15, "pipe", "exists")
    assert cli("get", "1-1", "/readme.txt", "-o", "pipe", "--force").status == 0
    assert os.read(reader, 100) == b"hello\n"
    os.close(reader)
    assert (here / "pipe").is_fifo()


@pytest.mark.skipif(sys.platform != "linux", reason="has no /dev/full")
def test_get_to_a_full_device_is_an_error(cli: Cli, data: bytearray, here: Path) -> None:
    (here / "full").symlink_to("/dev/full")  # which could be replaced without harm
    assert cli("get", "1-1", "/readme.txt", "-o", "full", "--force").failed(15, "full", "No space left")
    assert (here / "full").is_symlink()


def test_a_minus_is_no_file_to_get_or_to_trace_to(cli: Cli, data: bytearray, here: Path) -> None:
    assert cli("get", "1-1", "/readme.txt", "-o", "-").failed(1, "- is stdout", "`scsiusb cat DEVICE PATH`")
    assert cli("capacity", "1-1", "--trace", "-").failed(1, "--trace - would write to stdout", "give a file")
    assert list(here.iterdir()) == []


def test_get_replaces_nothing_without_force(cli: Cli, data: bytearray, here: Path) -> None:
    (here / "readme.txt").write_bytes(b"mine")
    (here / "link").symlink_to("readme.txt")
    assert cli("get", "1-1", "/readme.txt").failed(15, "readme.txt", "does not exist yet")
    assert cli("get", "1-1", "/readme.txt", "-o", "link").failed(15, "link")
    assert (here / "readme.txt").read_bytes() == b"mine"
    assert cli("get", "1-1", "/readme.txt", "--force").status == 0
    assert (here / "readme.txt").read_bytes() == b"hello\n"
    assert sorted(path.name for path in here.iterdir()) == ["link", "readme.txt"]


def test_get_into_a_folder_that_is_not_there_names_the_file_as_it_was_given(
    cli: Cli, data: bytearray, here: Path
) -> None:
    target = here / "none" / "x"
    assert cli("get", "1-1", "/readme.txt", "-o", target).failed(15, f"{target}: No such file")


def test_a_name_that_leads_out_of_the_folder_stays_in_it(cli: Cli, data: bytearray, here: Path) -> None:
    (here / "a").write_bytes(b"evil")
    assert cli("put", "1-1", "/Photos/ABCDEF.jpg.long", "-i", "a", "--yes").status == 0
    at = data.index("ABCDE".encode("utf-16-le"))
    data[at : at + 10] = "../.x".encode("utf-16-le")
    inner = here / "inner"
    inner.mkdir()
    assert cli("get", "1-1", "/Photos", "-o", "inner/photos").status == 0
    assert {path.name for path in here.iterdir()} == {"a", "inner"}
    assert {path.name for path in inner.iterdir()} == {"photos"}
    names = {path.name for path in (inner / "photos").iterdir()}
    assert names == {"1.jpg", "2.jpg", ".._.xF.jpg.long"}, "the slash is replaced"


def test_put_needs_a_confirmation_and_reads_back(
    cli: Cli, data: bytearray, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "new.bin").write_bytes(b"new" * 5000)
    before = bytes(data)
    assert cli("put", "1-1", "/new.bin").failed(1, "not a terminal", "--yes")
    assert bytes(data) == before
    found = cli("put", "1-1:2", "/Photos/3.jpg", "-i", "new.bin", "--yes", "--json").record
    assert found["done"] is True
    assert (found["bytes"], found["sha256"]) == (15000, hashlib.sha256(b"new" * 5000).hexdigest())
    assert cli("cat", "1-1", "/photos/3.jpg").out == b"new" * 5000
    assert cli("put", "1-1", "/readme.txt", "-i", "new.bin", "--yes").failed(15, "/readme.txt", "exists")
    assert cli("put", "1-1", "/readme.txt", "-i", "new.bin", "--yes", "--force").status == 0
    assert cli("put", "1-1", "/missing", "--yes").failed(15, "missing")


def test_put_asks_and_shows_the_device(
    screen: Cli, data: bytearray, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "a").write_bytes(b"1")
    before = bytes(data)
    for answer in ("n\n", "", "y\n"):
        monkeypatch.setattr(sys, "stdin", Typed(answer))
        ended = screen("put", "1-1", "/a")
        assert (ended.status == 0, bytes(data) != before) == (answer == "y\n",) * 2
        for words in ("Write /a", "partition 2", "fat", "1-1"):
            assert words in " ".join(ended.err.split())


def test_put_from_stdin(cli: Cli, data: bytearray, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO(b"piped")

    monkeypatch.setattr(sys, "stdin", Stdin())
    assert cli("put", "1-1", "/piped", "-i", "-", "--yes").status == 0
    assert cli("cat", "1-1", "/piped").out == b"piped"


def test_mkdir_and_rm(cli: Cli, data: bytearray) -> None:
    assert cli("mkdir", "1-1", "/new").failed(1, "--yes")
    assert cli("mkdir", "1-1", "/new", "--yes", "--json").record["done"] is True
    assert cli("rm", "1-1", "/Photos", "--yes").failed(15, "not empty")
    assert cli("rm", "1-1", "/new").failed(1, "--yes")
    for path in ("/new", "/Photos/1.jpg"):
        assert cli("rm", "1-1", path, "--yes").status == 0
    assert [row["name"] for row in cli("ls", "1-1", "/Photos", "--json").json] == ["2.jpg"]


def test_mkfs_names_its_place_and_keeps_the_rest(cli: Cli, data: bytearray) -> None:
    before = bytes(data)
    assert cli("mkfs", "1-1", "--yes").failed(15, "2 partitions", "DEVICE:1")
    assert cli("mkfs", "1-1:1").failed(1, "--yes")
    assert cli("mkfs", "1-1:3", "--yes").failed(1, "no partition 3")
    assert bytes(data) == before
    assert cli("mkfs", "1-1:1", "--label", "new", "--yes", "--json").record["kind"] == "fat12"
    assert bytes(data[4096 * 512 :]) == before[4096 * 512 :]
    assert cli("ls", "1-1").failed(15, "2 partitions", "1 (fat12), 2 (fat")
    assert cli("ls", "1-1:1", "--json").json == []
    assert cli("mkfs", "1-1:0", "--yes").status == 0
    assert cli("ls", "1-1", "--json").json == []


def test_one_partition_to_choose_from_is_not_are(cli: Cli) -> None:
    assert cli("mkfs", "virtual:", "--yes").failed(15, "there is 1 partition to choose from")


def test_a_disk_without_files_says_what_is_there(cli: Cli, attach: Attached) -> None:
    attach(Stick([Unit(Memory(bytearray(MIB)))]))
    assert cli("ls", "1-1").failed(15, "nothing is on it that is known", "scsiusb partitions")


def test_a_stick_that_does_not_keep_what_is_put_is_found(cli: Cli, content: bytes, here: Path) -> None:
    (here / "s.img").write_bytes(content)
    (here / "a").write_bytes(os.urandom(300_000))
    ended = cli("put", "virtual:s.img?fault=drop,opcode=2A,lba=4352-99999,times=always", "/a", "--yes")
    assert ended.status != 0


def test_fsspec_reads_a_stick(tmp_path: Path, content: bytes) -> None:
    import fsspec

    path = tmp_path / "s.img"
    path.write_bytes(content)
    place = f"usb://virtual:{str(path).replace('/', '%2F')}/2"
    with fsspec.open(f"{place}/Photos/2.jpg") as file:
        assert file.read(6) == b"twotwo"
        assert file.seek(-3, os.SEEK_END) == 2997
        assert file.read() == b"two"
    files = fsspec.filesystem("usb")
    assert [name.rpartition("/")[2] for name in files.ls(f"{place}/Photos", detail=False)] == ["1.jpg", "2.jpg"]
    info = files.info(f"{place}/readme.txt")
    assert (info["size"], info["type"]) == (6, "file")
    assert files.isdir(f"{place}/Photos")
    assert files.exists(f"{place}/readme.txt")
    assert not files.exists(f"{place}/nothing")
    assert files.cat(f"{place}/readme.txt") == b"hello\n"
    assert len(files.find(place)) == 3
    with pytest.raises(ValueError, match="mode"):
        files.open(f"{place}/new", "wb")
    with pytest.raises(ValueError, match="usb://DEVICE/PART"):
        files.ls("usb://2-1")
    with pytest.raises(scsiusb.FileSystemError):
        files.ls(f"{place[:-1]}1/")
