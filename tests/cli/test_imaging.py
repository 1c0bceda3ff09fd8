"""dump, restore, clone, compare: what scripts rely on, and that nothing is overwritten without a confirmation."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

from scsiusb.cli import jobs
from scsiusb.cli import progress as progress_module
from scsiusb.virtual import Memory, Stick, Unit
from scsiusb.virtual.device.descriptors import Identity
from tests.cli.conftest import Attached, Cli
from tests.imaging.sticks import contents, stick

SIZE = 64 * 1024
IMAGE = bytes(contents(size=SIZE))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.img"
    path.write_bytes(IMAGE)
    return path


def blank() -> bytearray:
    return bytearray(b"\xaa" * SIZE)


def test_dump_prints_who_what_and_the_digest(attach: Attached, cli: Cli, tmp_path: Path) -> None:
    attach(stick(bytearray(IMAGE), "S1"))
    result = cli("dump", "serial=S1", tmp_path / "a.img.gz", "--json")
    assert result.status == 0
    record = result.record
    assert record.pop("seconds") >= 0
    assert record == {
        "lba": 0,
        "blocks": SIZE // 512,
        "block_size": 512,
        "bytes": SIZE,
        "output": str(tmp_path / "a.img.gz"),
        "sha256": hashlib.sha256(IMAGE).hexdigest(),
        "resumed": 0,
    }
    assert gzip.decompress((tmp_path / "a.img.gz").read_bytes()) == IMAGE


def test_dump_of_a_range_as_text(attach: Attached, cli: Cli, tmp_path: Path) -> None:
    attach(stick(bytearray(IMAGE)))
    result = cli("dump", "1-1", tmp_path / "part", "--lba", 1, "--blocks", 2, "--sha256")
    digest = hashlib.sha256(IMAGE[512:1536]).hexdigest()
    assert result.text == f"{digest}  {tmp_path / 'part'}\n"
    assert (tmp_path / "part.sha256").read_text() == f"{digest}  part\n"
    assert "dumped 1024 bytes" in result.err


@pytest.mark.parametrize("words", [("dump", "virtual:", "-"), ("rescue", "virtual:", "-", "a.map")])
def test_an_image_is_not_written_to_stdout(
    words: tuple[str, ...], cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli(*words).failed(1, "stdout", "scsiusb read DEVICE --blocks all")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [".", "..", "/", "folder"])
def test_a_folder_is_no_image(path: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("folder.bmap").write_text("of something else")
    assert cli("dump", "virtual:", path).failed(15, f"{path}: Is a directory", "give a file")
    assert cli("rescue", "virtual:", "a.img", path).failed(15, f"{path}: Is a directory", "give a file")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["folder", "folder.bmap"]


@pytest.mark.parametrize("data", [b"", gzip.compress(b"", mtime=0)])
def test_an_empty_image_is_refused(data: bytes, attach: Attached, cli: Cli, tmp_path: Path) -> None:
    attach(stick(blank()))
    (tmp_path / "a.img").write_bytes(data)
    for words in (("restore", tmp_path / "a.img", "1-1", "--yes"), ("compare", tmp_path / "a.img", "1-1")):
        result = cli(*words)
        assert result.status == 15
        assert "a.img is empty; give an image" in result.err
        assert result.out == b""


def test_a_dump_that_cannot_go_on_says_why(attach: Attached, cli: Cli, image: Path) -> None:
    attach(stick(blank()))
    assert cli("dump", "1-1", image, "--resume").failed(15, "no complete dump", "remove it")
    assert image.read_bytes() == IMAGE


def test_ctrl_c_says_how_far_the_dump_came_and_how_to_go_on(
    attach: Attached, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attach(stick(bytearray(IMAGE)))

    class Interrupting:
        def __enter__(self) -> Any:
            return self

        def __exit__(self, *error: object) -> None: ...

        def __call__(self, progress: object) -> None:
            raise KeyboardInterrupt

    from scsiusb.cli.commands import imaging

    with monkeypatch.context() as patch:
        patch.setattr(imaging, "job_progress", Interrupting)
        result = cli("dump", "1-1", tmp_path / "a b.img")
    assert result.failed(130, "reading: 64 KiB of 64 KiB", f"`scsiusb dump 1-1 '{tmp_path / 'a b.img'}' --resume`")
    assert cli("dump", "1-1", tmp_path / "a b.img").failed(15, "interrupted", "--resume")
    assert cli("dump", "1-1", tmp_path / "a b.img", "--resume").status == 0
    assert (tmp_path / "a b.img").read_bytes() == IMAGE


@pytest.mark.parametrize(
    "words",
    [
        ("dump", "1-1", "{folder}/b.img", "--lba", "1", "--blocks", "2", "--sha256"),
        ("restore", "{folder}/a.img", "1-1", "--lun", "0", "--verify", "none"),
    ],
)
def test_the_command_to_go_on_has_all_options_but_yes(
    words: tuple[str, ...], attach: Attached, cli: Cli, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attach(stick(bytearray(IMAGE)))

    def interrupted(reached: object, progress: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs.Reached, "__call__", interrupted)
    given = [word.format(folder=image.parent) for word in words]
    result = cli(*given, *(["--yes"] if words[0] == "restore" else []))
    assert result.failed(130, f"`scsiusb {' '.join(given)} --resume`")


def test_restore_to_two_devices(attach: Attached, cli: Cli, image: Path) -> None:
    one, two = blank(), blank()
    attach(stick(one, "S1"), stick(two, "S2"))
    result = cli("restore", image, "serial=S1", "serial=S2", "--yes", "--json")
    assert result.status == 0
    assert bytes(one) == bytes(two) == IMAGE
    for serial, record in zip(("S1", "S2"), result.json, strict=True):
        assert record.pop("seconds") >= 0
        assert record.pop("address").startswith("1-")
        assert record == {
            "serial": serial,
            "bytes": SIZE,
            "verified": "medium",
            "differences": [],
            "error": None,
            "resumed": 0,
            "left_out": 0,
        }


def mapped(image: Path) -> None:
    """Put a block map beside the image, as another program makes it, which lists its first 16 KiB only."""
    lines = f"<ImageSize>{SIZE}</ImageSize><BlockSize>4096</BlockSize><BlockMap><Range>0-3</Range></BlockMap>"
    image.with_name(f"{image.name}.bmap").write_text(f'<bmap version="2.0">{lines}</bmap>')


def test_the_summary_says_what_a_block_map_left_out(attach: Attached, cli: Cli, image: Path) -> None:
    data = blank()
    attach(stick(data, "S1"))
    mapped(image)
    said = cli("restore", image, "1-1", "--yes").err
    assert "wrote 16384 bytes (16 KiB)" in said
    assert said.endswith("; 48 KiB were not written, as the block map does not list them (--bmap none writes all)\n")
    assert data == IMAGE[: 16 * 1024] + b"\xaa" * (SIZE - 16 * 1024)
    (row,) = cli("restore", image, "1-1", "--yes", "--json").json
    assert (row["bytes"], row["left_out"]) == (16 * 1024, 48 * 1024)
    assert "; 48 KiB of the image were not compared" in cli("compare", image, "1-1").err
    assert cli("compare", image, "1-1", "--json").record["left_out"] == 48 * 1024


def test_without_its_block_map_all_of_an_image_is_written(attach: Attached, cli: Cli, image: Path) -> None:
    data = blank()
    attach(stick(data, "S1"))
    mapped(image)
    assert cli("compare", image, "1-1", "--bmap", "none").status == 14
    (row,) = cli("restore", image, "1-1", "--yes", "--bmap", "none", "--json").json
    assert (row["bytes"], row["left_out"]) == (SIZE, 0)
    assert bytes(data) == IMAGE
    assert cli("compare", image, "1-1", "--bmap", "none", "--json").record["bytes"] == SIZE


@pytest.mark.parametrize("is_stream", [False, True])
def test_the_summary_says_what_a_sparse_image_leaves_out(
    is_stream: bool, attach: Attached, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = blank()
    attach(stick(data, "S1"))
    header = struct.pack("<IHHHHIIII", 0xED26FF3A, 1, 0, 28, 12, 4096, SIZE // 4096, 2, 0)
    chunks = struct.pack("<HHII", 0xCAC1, 0, 1, 12 + 4096) + IMAGE[:4096] + struct.pack("<HHII", 0xCAC3, 0, 15, 12)
    path = tmp_path / "a.simg"
    path.write_bytes(header + chunks)
    with path.open("rb") as file:

        class Stdin:
            buffer = io.BytesIO(file.read())

            def isatty(self) -> bool:
                return False

    monkeypatch.setattr(sys, "stdin", Stdin())
    result = cli("restore", "-" if is_stream else path, "1-1", "--yes")
    assert result.status == 0, result.err
    assert "; 60 KiB were not written, as the image has no data for them" in result.err


def test_a_device_that_fails_is_named_and_the_other_is_completed(attach: Attached, cli: Cli, image: Path) -> None:
    one, two = blank(), blank()
    bad = stick(one, "S1")
    bad.faults.add("sense=3/0C/00,opcode=2a,lba=100,times=always")
    attach(bad, stick(two, "S2"))
    result = cli("restore", image, "serial=S1", "serial=S2", "--yes", "--json")
    assert result.status == 3
    first, second = result.json
    assert (first["serial"], first["verified"]) == ("S1", "none")
    assert "LBA 100" in first["error"]
    assert (second["error"], second["verified"]) == (None, "medium")
    assert bytes(two) == IMAGE
    text = cli("restore", image, "serial=S1", "serial=S2", "--yes", "--resume")
    assert text.status == 3
    assert "failed after" in text.err
    assert "serial S2: wrote 65536 bytes" in text.err


def test_restore_asks_and_shows_who_would_be_overwritten(
    attach: Attached, screen: Cli, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = blank()
    attach(stick(data, "S1"))

    class Person(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Person("n\n"))
    result = screen("restore", image, "1-1")
    assert result.status == 1
    assert "Overwrite 1-1, " in result.err
    assert "serial S1 (64 KiB), without partitions, with unknown content, with " in result.err
    assert data == blank()
    monkeypatch.setattr(sys, "stdin", Person("y\n"))
    assert screen("restore", image, "1-1").status == 0
    assert bytes(data) == IMAGE


@pytest.mark.parametrize("words", [("restore", "{image}", "1-1"), ("clone", "1-1", "1-2")])
def test_without_a_terminal_and_yes_nothing_is_written(
    words: tuple[str, ...], attach: Attached, cli: Cli, image: Path
) -> None:
    data = blank()
    bus = attach(stick(data), stick(data, "S2"))
    assert cli(*(word.format(image=image) for word in words)).failed(1, "--yes")
    assert not [entry for entry in bus.wire.log if entry == "cbw 2a"]


def test_the_question_names_the_partitions(attach: Attached, screen: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    class Person(io.StringIO):
        def isatty(self) -> bool:
            return True

    attach(stick(bytearray(IMAGE), "MASTER"), Stick.formatted())
    monkeypatch.setattr(sys, "stdin", Person("n\n"))
    result = screen("clone", "1-1", "1-2")
    assert result.status == 1
    assert "with 1 partition (fat16" in result.err


def test_restore_reads_a_pipe(attach: Attached, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    data = blank()
    attach(stick(data))

    class Stdin:
        buffer = io.BytesIO(gzip.compress(IMAGE))

        def isatty(self) -> bool:
            return False

    monkeypatch.setattr(sys, "stdin", Stdin())
    result = cli("restore", "-", "1-1", "--yes", "--json")
    assert (result.status, result.json[0]["verified"]) == (0, "medium")
    assert bytes(data) == IMAGE


def test_one_device_is_not_given_twice(attach: Attached, cli: Cli, image: Path) -> None:
    data = blank()
    attach(stick(data, "S1"))
    assert cli("restore", image, "1-1", "serial=S1", "--yes").failed(1, "twice")
    assert cli("clone", "1-1", "serial=S1", "--yes").failed(1, "twice")
    assert data == blank()


def test_an_image_that_is_too_large(attach: Attached, cli: Cli, image: Path) -> None:
    attach(stick(bytearray(512)))
    assert cli("restore", image, "1-1", "--yes").failed(22, "65536 bytes", "larger disk")
    assert cli("restore", image.parent / "none", "1-1", "--yes").failed(15, "No such file")


def test_an_image_that_is_damaged_has_a_result_for_each_device(attach: Attached, cli: Cli, tmp_path: Path) -> None:
    attach(stick(blank(), "S1"), stick(blank(), "S2"))
    (tmp_path / "a.gz").write_bytes(gzip.compress(IMAGE[:512]) + gzip.compress(IMAGE[512:])[:-8] + bytes(8))
    result = cli("restore", tmp_path / "a.gz", "serial=S1", "serial=S2", "--yes", "--json")
    assert result.status == 15
    assert [(each["serial"], each["verified"], "damaged" in each["error"]) for each in result.json] == [
        ("S1", "none", True),
        ("S2", "none", True),
    ]
    assert "damaged" in result.line


def test_a_master_that_cannot_be_read_is_named(attach: Attached, cli: Cli) -> None:
    master = stick(bytearray(IMAGE), "MASTER")
    master.faults.add("sense=3/11/00,opcode=28,lba=100,times=always")
    attach(master, stick(blank(), "COPY"))
    result = cli("clone", "serial=MASTER", "serial=COPY", "--yes", "--json")
    assert result.status == 3
    (record,) = result.json
    assert record["serial"] == "COPY"
    assert "Stick at 1-1: " in record["error"]


@pytest.mark.parametrize(
    "words",
    [("restore", "{image}", "1-1", "1-2", "--yes"), ("clone", "1-1", "1-2", "--yes"), ("compare", "1-1", "1-2")],
)
def test_a_trace_of_several_devices_is_refused(
    words: tuple[str, ...], attach: Attached, cli: Cli, image: Path, tmp_path: Path
) -> None:
    data = blank()
    attach(stick(bytearray(data), "S1"), stick(data, "S2"))
    trace = tmp_path / "a.pcapng"
    refused = cli(*(word.format(image=image) for word in words), "--trace", trace)
    assert refused.failed(1, "--trace records one device")
    assert data == blank()
    assert not trace.exists()
    assert cli("restore", image, "1-1", "--yes", "--trace", trace).status == 0
    assert cli("compare", image, "1-1", "--trace", trace).status == 0


def test_clone_of_other_logical_units(attach: Attached, cli: Cli) -> None:
    copy, other = blank(), blank()
    attach(
        Stick([Unit(Memory(blank())), Unit(Memory(bytearray(IMAGE)))], identity=Identity(serial="READER")),
        Stick([Unit(Memory(other)), Unit(Memory(copy))], identity=Identity(serial="COPY")),
    )
    result = cli("clone", "serial=READER", "serial=COPY", "--source-lun", 1, "--lun", 1, "--yes")
    assert result.status == 0
    assert copy == IMAGE
    assert other == blank()
    result = cli("clone", "serial=READER", "serial=COPY", "--source-lun", 1, "--yes")
    assert result.status == 0
    assert other == IMAGE


def test_an_image_that_is_cut_off(attach: Attached, cli: Cli, image: Path) -> None:
    attach(stick(blank()))
    cut = image.with_suffix(".xz")
    cut.write_bytes(lzma.compress(IMAGE)[:-100])
    result = cli("restore", cut, "1-1", "--yes")
    assert result.status == 15
    assert f"{cut} ends in the middle of a frame of xz; get the image again" in result.line


def test_clone(attach: Attached, cli: Cli) -> None:
    data = blank()
    attach(stick(bytearray(IMAGE), "MASTER"), stick(data, "COPY"))
    result = cli("clone", "serial=MASTER", "serial=COPY", "--yes", "--json")
    assert (result.status, result.json[0]["serial"]) == (0, "COPY")
    assert bytes(data) == IMAGE


def test_compare_exits_with_14_and_names_the_blocks(attach: Attached, cli: Cli, image: Path) -> None:
    data = bytearray(IMAGE)
    attach(stick(data, "S1"), stick(bytearray(IMAGE), "S2"))
    assert cli("compare", image, "serial=S1", "--json").record == {
        "equal": True,
        "bytes": SIZE,
        "differences": [],
        "left_out": 0,
    }
    data[5 * 512] ^= 1
    for other in (image, "serial=S2"):
        result = cli("compare", other, "serial=S1", "--json")
        assert result.status == 14
        assert result.record == {
            "equal": False,
            "bytes": SIZE,
            "differences": [{"lba": 5, "blocks": 1}],
            "left_out": 0,
        }
    text = cli("compare", image, "serial=S1")
    assert text.text == "LBA 5\n"
    assert "1 block differs" in text.err


def test_compare_with_a_file_that_is_not_there_names_the_file(attach: Attached, cli: Cli, image: Path) -> None:
    attach(stick(bytearray(IMAGE)))
    assert cli("compare", "nosuch.img", "1-1").failed(15, "nosuch.img: No such file or directory; check the path")
    assert cli("compare", image.parent, "1-1").failed(15, f"{image.parent}: ", "directory")
    assert cli("compare", "9-9", "1-1").failed(15, "'9-9': no attached device matches")


def test_the_error_of_one_of_several_devices_names_it(attach: Attached, cli: Cli, image: Path) -> None:
    bad = stick(blank(), "S2")
    bad.faults.add("sense=3/0C/00,opcode=2a,lba=100,times=always")
    attach(stick(blank(), "S1"), bad)
    result = cli("restore", image, "1-1", "1-2", "--yes")
    assert result.err.splitlines()[-1].startswith("scsiusb: error: 1-2: WRITE(10)")


def test_a_bar_for_each_phase_on_a_terminal(
    attach: Attached, screen: Cli, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attach(stick(blank()))
    quick = screen("restore", image, "1-1", "--yes")
    assert "writing" not in quick.err, "a short job has no bar"
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("scsiusb.cli.progress.WORTH_SHOWING", 1024)
    result = screen("restore", image, "1-1", "--yes")
    assert result.status == 0
    assert "writing" in result.err
    assert "verifying" in result.err


def test_several_devices_have_a_bar_each(
    attach: Attached, screen: Cli, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = stick(blank(), "S2")
    bad.faults.add("sense=3/0C/00,opcode=2a,lba=100,times=always")
    attach(stick(blank(), "S1"), bad)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("scsiusb.cli.progress.WORTH_SHOWING", 1024)
    result = screen("restore", image, "1-1", "1-2", "--yes")
    assert result.status == 3
    assert "1-1 S1" in result.err
    assert "1-2 S2" in result.err
    assert "1 of 2 failed" in result.err


def test_without_a_terminal_there_is_no_bar(attach: Attached, cli: Cli, image: Path) -> None:
    attach(Stick([Unit(Memory(blank()))]))
    assert "writing" not in cli("restore", image, "1-1", "--yes").err
    with progress_module.job_progress() as show:
        show(None)  # type: ignore[arg-type]
