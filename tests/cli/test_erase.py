"""erase: what scripts rely on, and that nothing is erased without a confirmation."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest

from scsiusb.cli.commands import erase
from scsiusb.virtual import Flawed, Memory, Stick, Unit
from tests.cli.conftest import Attached, Cli
from tests.imaging.sticks import contents, stick

SIZE = 64 * 1024

pytestmark = pytest.mark.usefixtures("state_folder")


class Person(io.StringIO):
    """A terminal at which the user types a line."""

    def isatty(self) -> bool:
        return True


class Interrupting:
    """A progress bar during which the user presses Ctrl-C."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None: ...

    def __call__(self, progress: object) -> None:
        raise KeyboardInterrupt


def test_erase_prints_how_and_how_much(attach: Attached, cli: Cli) -> None:
    data = contents(size=SIZE)
    attach(stick(data, "S1"))
    result = cli("erase", "serial=S1", "--yes", "--json")
    assert result.status == 0
    record = result.record
    assert record.pop("seconds") >= 0
    assert record == {"method": "zero", "bytes": SIZE, "verified": "sample", "bad": [], "resumed": 0, "differences": []}
    assert data == bytes(SIZE)


@pytest.mark.parametrize(
    ("words", "method", "how"),
    [
        (["--method", "auto"], "zero", "a sample read back"),
        (["--method", "random", "--verify", "whole"], "random", "all read back"),
        (["--pattern", "0x55aa", "--verify", "none"], "pattern", "not verified"),
    ],
)
def test_each_method_as_text(attach: Attached, cli: Cli, words: list[str], method: str, how: str) -> None:
    data = contents(size=SIZE)
    attach(stick(data))
    result = cli("erase", "1-1", "--yes", *words)
    assert (result.status, result.out) == (0, b"")
    assert f"erased 65536 bytes (64 KiB) by {method}, {how}" in result.err
    assert (data == b"\x55\xaa" * (SIZE // 2)) == (method == "pattern")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--method", "pattern"], "needs --pattern"),
        (["--method", "zero", "--pattern", "00"], "not for --method zero"),
        (["--pattern", "xyz"], "'xyz' is not"),
        (["--pattern", "123"], "'123' is not"),
    ],
)
def test_options_that_do_not_go_together(attach: Attached, cli: Cli, words: list[str], text: str) -> None:
    data = contents(size=SIZE)
    attach(stick(data))
    assert cli("erase", "1-1", "--yes", *words).failed(1, text)
    assert data == contents(size=SIZE)


def test_erase_asks_and_shows_who_would_be_erased(
    attach: Attached, screen: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    attach(Stick.formatted(), stick(contents(size=SIZE), "S2"))
    monkeypatch.setattr(sys, "stdin", Person("n\n"))
    result = screen("erase", "1-1")
    assert result.status == 1
    assert "Erase all of 1-1, scsiusb Virtual Stick" in result.err
    assert ", with 1 partition (fat16 7 MiB)? [y/N]" in result.err
    monkeypatch.setattr(sys, "stdin", Person("y\n"))
    result = screen("erase", "1-2")
    assert result.status == 0
    assert "serial S2 (64 KiB), without partitions, with unknown content? [y/N]" in result.err


def test_without_a_terminal_nothing_is_erased(attach: Attached, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    data = contents(size=SIZE)
    attach(stick(data))
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert cli("erase", "1-1").failed(1, "cannot ask", "--yes")
    assert data == contents(size=SIZE)


def test_a_partition_table_that_cannot_be_read_is_no_obstacle(
    attach: Attached, screen: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = stick(contents(size=SIZE))
    each.faults.add("sense=3/11/00,opcode=28,lba=0,times=always")
    attach(each)
    monkeypatch.setattr(sys, "stdin", Person("n\n"))
    assert ", which cannot be read (" in screen("erase", "1-1").err


def test_ctrl_c_says_how_far_and_how_to_go_on(
    attach: Attached, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = contents(size=SIZE)
    attach(stick(data))
    place = tmp_path / "a b"
    with monkeypatch.context() as patch:
        patch.setattr(erase, "job_progress", Interrupting)
        result = cli("erase", "1-1", "--method", "random", "--verify", "whole", "--journal", place, "--yes")
    command = f"`scsiusb erase 1-1 --method random --verify whole --journal '{place}' --resume`"
    assert result.failed(130, "writing: 64 KiB of 64 KiB", command)
    record = cli("erase", "1-1", "--verify", "whole", "--journal", place, "--resume", "--yes", "--json").record
    assert (record["method"], record["verified"], record["resumed"]) == ("random", "whole", SIZE)


def test_another_device_is_not_erased_by_resume(attach: Attached, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    other = contents(size=SIZE)
    attach(stick(contents(size=SIZE), "S1"), stick(other, "S2"))
    with monkeypatch.context() as patch:
        patch.setattr(erase, "job_progress", Interrupting)
        assert cli("erase", "serial=S1", "--pattern", "55", "--yes").failed(
            130, "`scsiusb erase serial=S1 --pattern 55 --resume`"
        )
    assert cli("erase", "serial=S2", "--resume", "--yes").failed(15, "no interrupted erase of this device", "S1")
    assert other == contents(size=SIZE)
    assert cli("erase", "serial=S1", "--resume", "--yes").status == 0
    assert cli("erase", "serial=S2", "--resume", "--yes").status == 0, "no erase was interrupted"


def test_blocks_that_cannot_be_written_are_named_by_status_3(attach: Attached, cli: Cli) -> None:
    each = stick(contents(size=SIZE))
    each.faults.add("sense=3/0C/00,opcode=2a,lba=7-8,times=always")
    attach(each)
    result = cli("erase", "1-1", "--yes", "--json")
    assert result.status == 3
    assert result.json["bad"] == [{"lba": 7, "blocks": 2}]
    assert "2 blocks cannot be written, the first is LBA 7" in result.line


class Forgetful(Memory):
    """A medium that drops all writes."""

    def _write(self, offset: int, view: memoryview) -> None: ...


def test_a_device_that_keeps_its_blocks_is_found_out_by_status_14(attach: Attached, cli: Cli) -> None:
    attach(Stick([Unit(Forgetful(b"\xaa" * SIZE))]))
    assert cli("erase", "1-1", "--yes").failed(14, "128 blocks of a sample of 128", "do not rely on this device")


def test_the_blocks_that_an_erase_did_not_change_are_listed(attach: Attached, cli: Cli) -> None:
    attach(Stick([Unit(Flawed(Memory(b"\xaa" * SIZE), dropped=[(3, 5), (100, 100)]))]))
    result = cli("erase", "1-1", "--yes", "--json")
    assert result.status == 14
    assert result.json["differences"] == [{"lba": 3, "blocks": 3}, {"lba": 100, "blocks": 1}]
    assert "4 blocks of a sample of 128" in result.line


def test_resume_refuses_another_method(attach: Attached, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    attach(stick(contents(size=SIZE)))
    with monkeypatch.context() as patch:
        patch.setattr(erase, "job_progress", Interrupting)
        assert cli("erase", "1-1", "--pattern", "55aa", "--yes").status == 130
    refused = cli("erase", "1-1", "--resume", "--method", "zero", "--yes")
    assert refused.failed(15, "began with method pattern, not zero", "begin anew")
    assert cli("erase", "1-1", "--resume", "--pattern", "aa55", "--yes").failed(15, "pattern 55aa, not aa55")
    assert cli("erase", "1-1", "--resume", "--method", "pattern", "--pattern", "55AA", "--yes").status == 0


def test_a_pattern_that_is_given_as_a_word_is_explained(attach: Attached, cli: Cli) -> None:
    attach(stick(contents(size=SIZE)))
    refused = cli("erase", "1-1", "--method", "pattern", "55aa", "--yes")
    assert refused.failed(1, "unexpected extra argument (55aa): bytes to repeat are given as --pattern 55aa")
    assert cli("erase", "1-1", "other", "--yes").failed(1, "unexpected extra argument (other); run `scsiusb erase")


def test_an_unmap_that_is_not_supported_has_status_5(attach: Attached, cli: Cli) -> None:
    attach(stick(contents(size=SIZE)))
    assert cli("erase", "1-1", "--method", "unmap", "--yes").failed(5, "UNMAP", "zero")


def test_a_virtual_ssd_is_unmapped_and_a_disk_that_cannot_be_is_named(cli: Cli) -> None:
    done = cli("erase", "virtual:?profile=sat-ssd", "--method", "unmap", "--yes", "--json")
    assert (done.status, done.record["method"]) == (0, "unmap")
    refused = cli("erase", "virtual:?profile=sat-ssd&thin=no", "--method", "unmap", "--yes")
    assert refused.failed(5, "ATA Virtual SSD 870 at 1-1 does not say that it supports UNMAP")
    assert cli("inquiry", "virtual:?profile=cd-rw&thin=yes").failed(1, "a cd-rw has no UNMAP")
