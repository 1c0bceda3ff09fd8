"""read and write: all data correct, and nothing written before all checks and the confirmation."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

from scsiusb.cli import files
from scsiusb.cli.commands import blocks as blocks_module
from scsiusb.virtual import Memory, Stick, Unit
from tests.cli.conftest import Attached, Cli
from tests.sticks import InterceptedBus, stick

WRITES = ("cbw 2a", "cbw 8a")


class Person(io.StringIO):
    """A terminal as stdin, with what the user types."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch, screen: Cli) -> Callable[[str], Person]:
    def types(text: str) -> Person:
        user = Person(text)
        monkeypatch.setattr(sys, "stdin", user)
        return user

    return types


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], None]]:
    """Replace stdin by a pipe with the given bytes."""
    opened = []

    def feed(data: bytes) -> None:
        reader, writer = os.pipe()
        os.write(writer, data)
        os.close(writer)
        opened.append(os.fdopen(reader))
        monkeypatch.setattr(sys, "stdin", opened[-1])

    yield feed
    for stdin in opened:
        stdin.close()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(bytes(range(256)) * 4)  # two blocks
    return path


def held(target: Stick) -> bytearray:
    medium = target.units[0].medium
    assert isinstance(medium, Memory)
    return medium.data


def wrote(bus: InterceptedBus) -> bool:
    return any(entry in WRITES for entry in bus.wire.log)


def test_read_into_a_pipe_is_the_raw_bytes(cli: Cli, attach: Attached) -> None:
    target = stick()
    attach(target)
    ended = cli("read", "1-1", "--lba", "3", "--blocks", "2")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out == held(target)[3 * 512 : 5 * 512]


@pytest.mark.parametrize("lba", ["2047", "0x7ff", "0X7FF", "02047"])
def test_numbers_are_decimal_or_hex(cli: Cli, attach: Attached, lba: str) -> None:
    attach(stick())
    assert cli("read", "--lba", lba).out[:4] == (2047).to_bytes(4, "big")


@pytest.mark.parametrize("word", ["", "x", "1.5", "0x", "1_0", "٣", "1e3", "9" * 5000, "--"])
def test_an_invalid_number(cli: Cli, attach: Attached, word: str) -> None:
    bus = attach(stick())
    ended = cli("read", f"--blocks={word}")
    assert ended.failed(1, "--blocks", "is not a whole number")
    assert len(ended.err) < 200
    assert bus.wire.log == []


def test_negative_numbers(cli: Cli, attach: Attached) -> None:
    bus = attach(stick())
    assert cli("read", "--lba", "-1").failed(1, "--lba", "-1 is negative")
    assert cli("read", "--blocks=-5").failed(1, "--blocks", "-5 is negative")
    assert bus.wire.log == []


def test_read_of_0_blocks_is_empty(cli: Cli, attach: Attached, tmp_path: Path) -> None:
    attach(stick())
    assert cli("read", "--blocks", "0").out == b""
    assert cli("read", "--blocks", "0", "-o", tmp_path / "empty").status == 0
    assert (tmp_path / "empty").read_bytes() == b""


def test_a_long_read_is_split_into_commands_without_a_gap(cli: Cli, attach: Attached) -> None:
    target = stick(blocks=5003)
    bus = attach(target)
    assert cli("read", "--blocks", "5003").out == held(target)
    assert bus.wire.log.count("cbw 28") > 2


def test_read_into_a_file(cli: Cli, attach: Attached, tmp_path: Path) -> None:
    target, path = stick(), tmp_path / "part.img"
    attach(target)
    path.write_bytes(b"longer than before" * 100)
    ended = cli("read", "--lba", "1", "-o", path)
    assert (ended.status, ended.out) == (0, b"")
    assert re.fullmatch(r"read 512 bytes \(512 bytes\) in [0-9.]+ s, [0-9.]+ MB/s\n", ended.err)
    assert path.read_bytes() == held(target)[512:1024]
    record = cli("read", "--lba", "1", "-o", path, "--json").record
    assert record.pop("seconds") > 0
    assert record == {
        "lba": 1,
        "blocks": 1,
        "block_size": 512,
        "bytes": 512,
        "output": str(path),
    }


def test_read_with_json_has_the_data_in_hex(cli: Cli, attach: Attached) -> None:
    target = stick()
    attach(target)
    record = cli("read", "--lba", "9", "--json").json
    assert record["data"] == bytes(held(target)[9 * 512 : 10 * 512]).hex()
    assert [record[key] for key in ("lba", "blocks", "block_size", "bytes")] == [9, 1, 512, 512]


def test_a_dash_is_stdout_even_on_a_terminal(screen: Cli, attach: Attached, monkeypatch: pytest.MonkeyPatch) -> None:
    bus = attach(stick())
    assert screen("read", "--lba", "5", "-o", "-").out[:4] == b"\0\0\0\5"
    assert not Path("-").exists()
    bus.wire.log.clear()
    assert screen("read", "-o", "-", "--json").failed(1, "stdout")
    assert bus.wire.log == []


def test_read_on_a_terminal_is_a_hex_dump(screen: Cli, attach: Attached) -> None:
    target = stick()
    held(target)[512 : 512 + 20] = b"Hello, terminal!\x00\x1b\xff~"
    attach(target)
    lines = screen("read", "--lba", "1").text.splitlines()
    assert len(lines) == 32
    assert lines[0] == "00000200  48 65 6c 6c 6f 2c 20 74  65 72 6d 69 6e 61 6c 21  |Hello, terminal!|"
    assert lines[1] == "00000210  00 1b ff 7e 00 00 00 00  00 00 00 00 00 00 00 00  |...~............|"
    assert screen("read", "--blocks", "0").out == b""


def test_too_much_data_for_the_terminal_is_refused(
    screen: Cli, attach: Attached, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks_module, "MOST_AS_TEXT", 1024)
    bus = attach(stick())
    assert screen("read", "--blocks", "3").failed(1, "1.5 KiB", "-o FILE")
    assert "cbw 28" not in bus.wire.log


@pytest.mark.parametrize(
    ("lba", "count"),
    [("2048", "1"), ("2047", "2"), ("0", "2049"), ("2049", "0"), ("0", "9" * 23), ("9" * 23, "1"), ("0xffffffff", "1")],
)
def test_blocks_that_the_medium_does_not_have(cli: Cli, attach: Attached, tmp_path: Path, lba: str, count: str) -> None:
    """Nothing is read, and an existing file is not changed."""
    bus, path = attach(stick()), tmp_path / "kept"
    path.write_bytes(b"kept")
    assert cli("read", "--lba", lba, "--blocks", count, "-o", path).failed(22, "the last block is 2047")
    assert path.read_bytes() == b"kept"
    assert cli("read", "--lba", lba, "--blocks", count, "-o", tmp_path / "new").failed(22)
    assert not (tmp_path / "new").exists()
    assert "cbw 28" not in bus.wire.log


def test_an_output_that_cannot_be_opened(cli: Cli, attach: Attached, tmp_path: Path) -> None:
    """Detected before the device is opened."""
    bus = attach(stick())
    assert cli("read", "-o", tmp_path).failed(15, str(tmp_path))
    assert cli("read", "-o", tmp_path / "no" / "way").failed(15, "way", "check the path")
    assert cli("read", "-o", "").failed(15, "an empty file name")
    assert bus.wire.log == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk(cli: Cli, attach: Attached) -> None:
    attach(stick())
    assert cli("read", "-o", "/dev/full").failed(15, "/dev/full: No space left on device; free some space")


def test_the_file_of_a_virtual_stick_cannot_be_input_or_output(cli: Cli, image: Path) -> None:
    content = image.read_bytes()
    assert cli("read", f"virtual:{image}", "-o", image).failed(1, "is the device itself")
    assert cli("write", f"virtual:{image}", "--lba", "0", "-i", image, "--yes").failed(1, "is the device itself")
    assert image.read_bytes() == content


def test_a_trace_overwrites_no_file_that_is_used_otherwise(cli: Cli, image: Path, tmp_path: Path) -> None:
    before, data = image.read_bytes(), tmp_path / "data"
    data.write_bytes(b"d" * 512)
    device, link, new = f"virtual:{image}", tmp_path / "link", tmp_path / "new"
    link.symlink_to(data)
    assert cli("read", device, "--trace", image).failed(1, "is the device itself")
    assert cli("inquiry", device, "--trace", image).failed(1, "is the device itself")
    assert cli("read", device, "-o", new, "--trace", new).failed(1, "the command itself uses this file")
    assert cli("write", device, "--lba", "0", "-i", data, "--yes", "--trace", link).failed(1, "the command itself uses")
    assert cli("raw", device, "2a 00 00000000 00 0001 00", "--out", data, "--yes", "--trace", data).failed(1, "uses")
    assert cli("read", device, "--trace", data).failed(15, "it exists and is not a trace")
    assert (image.read_bytes(), data.read_bytes(), new.exists()) == (before, b"d" * 512, False)


def test_an_image_is_written_by_one_program_at_a_time(cli: Cli, image: Path, tmp_path: Path) -> None:
    data, before = tmp_path / "data", image.read_bytes()
    data.write_bytes(b"d" * 512)
    with Stick.open_file(image):
        words = ("write", f"virtual:{image}", "--lba", "0", "-i", data, "--yes")
        assert cli(*words).failed(15, "another virtual stick has this image open; close the program that uses it")
        assert image.read_bytes() == before
    assert cli(*words).status == 0


def test_write_changes_only_the_blocks_of_the_file(cli: Cli, attach: Attached, image: Path) -> None:
    target = stick()
    before = bytes(held(target))
    attach(target)
    ended = cli("write", "1-1", "--lba", "7", "-i", image, "--yes", "--verify", "--json")
    assert ended.record.pop("seconds") > 0
    assert {**ended.record, "seconds": 0} == {"lba": 7, "blocks": 2, "bytes": 1024, "verified": True, "seconds": 0}
    assert held(target) == before[: 7 * 512] + image.read_bytes() + before[9 * 512 :]


def test_write_reports_the_result_on_stderr(cli: Cli, attach: Attached, image: Path) -> None:
    attach(stick())
    ended = cli("write", "--lba", "0", "-i", image, "--yes")
    assert (ended.out, ended.err) == (b"", "wrote 2 blocks at LBA 0\n")
    ended = cli("write", "--lba", "0x10", "-i", image, "--yes", "--verify")
    assert ended.err == "wrote 2 blocks at LBA 16, read back and compared\n"


def test_write_from_stdin(cli: Cli, attach: Attached, pipe: Callable[[bytes], None]) -> None:
    target = stick()
    attach(target)
    pipe(b"p" * 1536)
    assert cli("write", "--lba", "1", "-i", "-", "--yes", "--verify").status == 0
    assert held(target)[512:2052] == b"p" * 1536 + b"\0\0\0\4"


def test_stdin_that_is_a_file_is_read_from_its_position(
    cli: Cli, attach: Attached, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = stick()
    attach(target)
    with image.open() as stdin:
        os.lseek(stdin.fileno(), 512, os.SEEK_SET)
        monkeypatch.setattr(sys, "stdin", stdin)
        assert cli("write", "--lba", "0", "-i", "-", "--yes").err == "wrote 1 block at LBA 0\n"
    assert held(target)[:512] == image.read_bytes()[512:]


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs /dev/zero")
def test_an_endless_source_is_read_only_as_far_as_it_could_fit(
    cli: Cli, attach: Attached, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = attach(stick(blocks=64))
    assert cli("write", "--lba", "60", "-i", "/dev/zero", "--yes").failed(22, "the last block is 63")
    with open("/dev/zero") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert cli("write", "--lba", "0", "-i", "-", "--yes").failed(22, "the last block is 63")
    assert not wrote(bus)


@pytest.mark.parametrize("length", [1, 511, 513, 1023])
@pytest.mark.parametrize("way", ["file", "pipe"])
def test_a_length_that_is_not_a_multiple_of_the_block_size(
    cli: Cli, attach: Attached, tmp_path: Path, pipe: Callable[[bytes], None], length: int, way: str
) -> None:
    bus, path = attach(stick()), tmp_path / "odd"
    path.write_bytes(bytes(length))
    pipe(bytes(length))
    name = str(path) if way == "file" else "-"
    assert cli("write", "--lba", "0", "-i", name, "--yes").failed(1, f"{length} byte", "block size 512")
    assert not wrote(bus)


@pytest.mark.parametrize("way", ["file", "pipe"])
def test_an_empty_input_is_an_error(
    cli: Cli, attach: Attached, tmp_path: Path, pipe: Callable[[bytes], None], way: str
) -> None:
    bus, path = attach(stick()), tmp_path / "empty"
    path.touch()
    pipe(b"")
    name = path if way == "file" else "-"
    assert cli("write", "--lba", "0", "-i", name, "--yes").failed(1, "is empty: nothing was written")
    assert cli("write", "--lba", "2049", "-i", name, "--yes").failed(22)
    assert not wrote(bus)


# --- streams --------------------------------------------------------------------------------------


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], None]]:
    """Replace stdin by a pipe that a thread fills with the given bytes, which may be more than a pipe holds."""
    opened: list[Any] = []

    def feed(data: bytes) -> None:
        reader, writer = os.pipe()
        threading.Thread(target=_fill, args=(writer, data), daemon=True).start()
        opened.append(os.fdopen(reader))
        monkeypatch.setattr(sys, "stdin", opened[-1])

    yield feed
    for stdin in opened:
        stdin.close()


def _fill(writer: int, data: bytes) -> None:
    with suppress(BrokenPipeError), os.fdopen(writer, "wb") as file:
        file.write(data)


def test_a_stream_is_written_as_it_comes_and_verified_without_a_copy(
    cli: Cli, attach: Attached, stream: Callable[[bytes], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: pytest.fail("a copy of the stream"))
    target, data = stick(blocks=6000), os.urandom(5000 * 512)
    attach(target)
    stream(data)
    ended = cli("write", "--lba", "7", "-i", "-", "--yes", "--verify", "--json")
    assert (ended.record["blocks"], ended.record["bytes"]) == (5000, len(data))
    assert held(target)[7 * 512 : 5007 * 512] == data


def test_a_stream_that_fills_the_medium_to_the_last_block(
    cli: Cli, attach: Attached, stream: Callable[[bytes], None]
) -> None:
    target, data = stick(blocks=5000), os.urandom(5000 * 512)
    attach(target)
    stream(data)
    assert cli("write", "--lba", "0", "-i", "-", "--yes").err == "wrote 5000 blocks at LBA 0\n"
    assert held(target) == data


def test_a_stream_that_does_not_fit_says_what_was_written(
    cli: Cli, attach: Attached, stream: Callable[[bytes], None]
) -> None:
    target, data = stick(blocks=5000), os.urandom(6000 * 512)
    attach(target)
    stream(data)
    ended = cli("write", "--lba", "10", "-i", "-", "--yes")
    assert ended.failed(22, "beyond the medium's 5000 blocks: wrote ", " from LBA 10 on")
    (count,) = re.findall(r"wrote (\d+) blocks", ended.err)
    assert held(target)[10 * 512 : (10 + int(count)) * 512] == data[: int(count) * 512]


def test_a_stream_that_ends_within_a_block_says_what_was_written(
    cli: Cli, attach: Attached, stream: Callable[[bytes], None]
) -> None:
    target, data = stick(blocks=6000), os.urandom(5000 * 512 + 100)
    attach(target)
    stream(data)
    ended = cli("write", "--lba", "0", "-i", "-", "--yes")
    assert ended.failed(1, "stdin ended within a block, after 100 bytes of 512: wrote 5000 blocks from LBA 0 on")
    assert held(target)[: 5000 * 512] == data[:-100]


def test_verify_of_a_stream_names_the_range_that_differs(
    cli: Cli, attach: Attached, stream: Callable[[bytes], None]
) -> None:
    medium = LosesOneBlock(6000 * 512)
    medium.lost = 4321
    attach(Stick([Unit(medium)]))
    stream(os.urandom(5000 * 512))
    ended = cli("write", "--lba", "9", "-i", "-", "--yes", "--verify", "--json")
    assert ended.failed(14, "LBA 4105 to 5008 do not have the data that was written")
    assert json.loads(ended.err)["error"]["lba"] == 4105


def test_an_error_in_the_middle_of_a_write_says_what_was_written(cli: Cli, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(8000 * 512))
    device = "virtual:?fault=sense=3/0C/00,opcode=2a,lba=4500,times=always"
    ended = cli("write", device, "--lba", "0", "-i", image, "--yes")
    assert ended.failed(3, ": wrote ", " blocks from LBA 0 on")


# --- read: digests, all blocks, suffixes ----------------------------------------------------------


def test_read_prints_a_digest_of_the_data(cli: Cli, attach: Attached, tmp_path: Path) -> None:
    target, path = stick(), tmp_path / "all.img"
    attach(target)
    digest = hashlib.sha256(held(target)).hexdigest()
    assert cli("read", "--blocks", "all", "-o", path, "--hash", "sha256").text == f"{digest}  {path}\n"
    assert path.read_bytes() == held(target)
    ended = cli("read", "--blocks", "all", "--hash", "sha256")
    assert (ended.out, ended.err) == (bytes(held(target)), f"{digest}  -\n")
    record = cli("read", "--lba", "2047", "--blocks", "all", "--hash", "sha1", "--json").record
    assert (record["blocks"], record["sha1"]) == (1, hashlib.sha1(held(target)[-512:]).hexdigest())
    assert cli("read", "--hash", "crc").failed(1, "--hash")


def test_all_blocks_from_the_end_on_are_none(cli: Cli, attach: Attached) -> None:
    attach(stick())
    assert cli("read", "--lba", "2048", "--blocks", "all").out == b""
    assert cli("read", "--lba", "2049", "--blocks", "all").failed(22)


def test_numbers_of_blocks_may_have_a_suffix(cli: Cli, attach: Attached) -> None:
    target = stick()
    attach(target)
    assert cli("read", "--lba", "1K", "--blocks", "1k").out == held(target)[1024 * 512 :]
    assert cli("read", "--lba", "1M").failed(22, "LBA 1048576")
    for word in ("K", "1KB", "0x1K", "-1K", "1.5K"):
        assert cli("read", f"--blocks={word}").failed(1, "--blocks")


@pytest.mark.parametrize(("command", "said"), [("read", "read "), ("write", "wrote ")])
def test_ctrl_c_says_how_far_the_command_came(
    cli: Cli, attach: Attached, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, said: str
) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(9000 * 512))
    attach(stick(blocks=9000))
    seen: list[int] = []

    def interrupt(done: int) -> None:
        seen.append(done)
        if len(seen) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(blocks_module, "progress", lambda *_: nullcontext(interrupt))
    options = {"read": ["--blocks", "all", "-o", image], "write": ["--lba", "0", "-i", image, "--yes"]}
    ended = cli(command, *options[command])
    assert ended.failed(130, f"interrupted: {said}", "from LBA 0 on", "all devices were released")


def test_a_file_that_does_not_fit(cli: Cli, attach: Attached, image: Path) -> None:
    bus = attach(stick())
    assert cli("write", "--lba", "2047", "-i", image, "--yes").failed(22, "2 blocks at LBA 2047")
    assert not wrote(bus)


def test_an_input_that_cannot_be_read(cli: Cli, attach: Attached, tmp_path: Path) -> None:
    """Detected before the device is opened."""
    bus = attach(stick())
    assert cli("write", "--lba", "0", "-i", tmp_path / "none", "--yes").failed(15, "none", "check the path")
    assert cli("write", "--lba", "0", "-i", tmp_path, "--yes").failed(15, str(tmp_path))
    assert cli("write", "--lba", "0", "-i", "", "--yes").failed(15, "an empty file name")
    assert bus.wire.log == []


def test_a_missing_option(cli: Cli, image: Path) -> None:
    assert cli("write", "-i", image, "--yes").failed(1, "--lba")
    assert cli("write", "--lba", "0", "--yes").failed(1, "--input")


def test_a_file_that_shrinks_during_the_write_is_an_error(
    cli: Cli, attach: Attached, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attach(stick())
    measure = files.Source.measure

    def truncated(source: files.Source) -> None:
        measure(source)
        os.truncate(image, 512)

    monkeypatch.setattr(files.Source, "measure", truncated)
    assert cli("write", "--lba", "0", "-i", image, "--yes").failed(15, "it became shorter")


class LosesOneBlock(Memory):
    """A medium that does not keep one block."""

    lost = 10

    def _write(self, offset: int, view: memoryview) -> None:
        super()._write(offset, view)
        self.data[self.lost * 512 : (self.lost + 1) * 512] = bytes(512)


def test_verify_names_the_first_block_that_differs(cli: Cli, attach: Attached, image: Path) -> None:
    attach(Stick([Unit(LosesOneBlock(64 * 512))]))
    ended = cli("write", "--lba", "9", "-i", image, "--yes", "--verify", "--json")
    assert ended.failed(14, "LBA 10 does not have")
    assert json.loads(ended.err)["error"]["lba"] == 10
    assert cli("write", "--lba", "9", "-i", image, "--yes").status == 0


def test_verify_compares_all_chunks(cli: Cli, attach: Attached, image: Path) -> None:
    medium = LosesOneBlock(6000 * 512)
    medium.lost = 4321
    attach(Stick([Unit(medium)]))
    image.write_bytes(os.urandom(5000 * 512))
    assert cli("write", "--lba", "9", "-i", image, "--yes", "--verify").failed(14, "LBA 4321 does not have")


def test_without_a_terminal_a_write_needs_yes(
    cli: Cli, attach: Attached, image: Path, pipe: Callable[[bytes], None]
) -> None:
    """Even if stdin contains y: that is data, not a user."""
    bus = attach(stick())
    pipe(b"y\n")
    assert cli("write", "--lba", "0", "-i", image).failed(1, "not a terminal", "give --yes")
    assert bus.wire.log == []


def test_the_question_names_the_device_and_the_range(
    screen: Cli, attach: Attached, image: Path, person: Callable[[str], Person]
) -> None:
    attach(stick(vendor="ACME", product="Rocket"))
    person("y\n")
    question = "Overwrite LBA 5 to 6 (2 blocks, 1 KiB) of ACME Rocket (1 MiB), {}? [y/N] wrote 2 blocks at LBA 5\n"
    assert screen("write", "1209:0001", "--lba", "5", "-i", image).err == question.format("1209:0001")
    person("Yes\n")
    assert screen("write", "--lba", "5", "-i", image).err == question.format("1-1"), (
        "the question names the only device, too"
    )


@pytest.mark.parametrize("answer", ["n\n", "\n", "", "ja\n", "yy\n", "n\ny\n"])
def test_any_answer_but_yes_writes_nothing(
    screen: Cli, attach: Attached, image: Path, person: Callable[[str], Person], answer: str
) -> None:
    target = stick()
    before, bus = bytes(held(target)), attach(target)
    person(answer)
    ended = screen("write", "--lba", "0", "-i", image)
    assert ended.status == 1
    assert ended.err.endswith("scsiusb: error: not confirmed, nothing was written; answer y, or give --yes\n")
    assert ended.err.count("[y/N]") == 1, "it asks once"
    assert held(target) == before
    assert not wrote(bus)


def test_all_checks_are_done_before_the_question(
    screen: Cli, attach: Attached, image: Path, person: Callable[[str], Person]
) -> None:
    attach(stick())
    person("y\n")
    assert screen("write", "--lba", "2047", "-i", image).failed(22)


def test_the_question_if_the_name_of_the_device_is_unknown(
    screen: Cli, attach: Attached, image: Path, person: Callable[[str], Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    attach(stick())
    person("n\n")
    monkeypatch.setattr("scsiusb.cli.device.devices", list)
    assert "the only device attached?" in screen("write", "--lba", "0", "-i", image).err


def test_a_write_protected_medium(cli: Cli, attach: Attached, image: Path) -> None:
    target = stick(write_protected=True)
    before = bytes(held(target))
    attach(target)
    assert cli("write", "--lba", "0", "-i", image, "--yes").failed(7, "write protected")
    assert held(target) == before


def test_a_long_read_shows_its_progress_on_the_terminal_only(
    cli: Cli, screen: Cli, attach: Attached, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scsiusb.cli.progress.WORTH_SHOWING", 1024)
    monkeypatch.setenv("TERM", "xterm")
    attach(stick())
    assert "reading" in screen("read", "--blocks", "2048", "-o", tmp_path / "image").err
    assert "reading" not in screen("read", "--blocks", "2", "-o", tmp_path / "image").err
    assert "reading" not in cli("read", "--blocks", "2048", "-o", tmp_path / "image").err


def test_a_protected_medium_is_refused_before_the_question(
    screen: Cli, attach: Attached, image: Path, person: Callable[[str], Person]
) -> None:
    bus = attach(Stick([Unit(Memory(64 * 512), write_protected=True)]))
    typed = person("y\n")
    ended = screen("write", "--lba", "0", "-i", str(image))
    assert ended.failed(7, "the medium is write protected: nothing was written", "--quirks 1209:0001:w")
    assert typed.tell() == 0
    assert not wrote(bus)


def test_a_blank_medium_of_a_device_that_does_not_answer_mode_sense_is_written(
    cli: Cli, attach: Attached, image: Path
) -> None:
    target = Stick([Unit(Memory(64 * 512))], faults=["nak@csw,opcode=1a,times=always"])
    attach(target)
    ended = cli("write", "--lba", "0", "-i", image, "--yes", "--verify", "--timeout", "0.2")
    assert ended.status == 0, ended.err
    assert held(target)[:1024] == image.read_bytes()
