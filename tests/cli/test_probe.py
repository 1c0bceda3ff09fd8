"""probe: what scripts rely on, and that nothing is written without a confirmation."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from scsiusb.imaging import probing
from scsiusb.virtual import Fake, Memory, Sparse, Stick, Unit
from tests.cli.conftest import Attached, Cli
from tests.imaging.sticks import contents

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "ROUNDS", (32, 64))


def test_a_fake_is_named_as_json(attach: Attached, cli: Cli) -> None:
    inner = Sparse(16 * 2048)
    attach(Stick([Unit(Fake(inner, "chain", 5000))]))
    result = cli("probe", "1-1", "--destructive", "--yes", "--json")
    assert result.status == 0
    record = result.record
    assert record.pop("seconds") >= 0
    assert 0 < record.pop("written_bytes") < 16 * MIB
    findings = record.pop("findings")
    assert any("what is written from LBA 5000 on is not kept" in each for each in findings)
    assert record == {
        "kind": "chain",
        "announced_blocks": 32768,
        "usable_blocks": 5000,
        "block_size": 512,
        "lost_blocks": 0,
    }
    assert not any(map(any, inner.chunks.values())), "all blocks are given back"


def test_a_fake_is_named_as_text(cli: Cli) -> None:
    result = cli("probe", "virtual:?fake=limbo:4M", "--destructive", "--yes")
    first, second, *findings = result.text.splitlines()
    assert (result.status, first) == (0, "limbo: a fake: it drops what is written after its end")
    assert second == "usable: 4 MiB of 8 MiB"
    assert findings
    assert all(each.startswith("  ") for each in findings)
    assert result.err.startswith("wrote ")
    assert result.err.endswith("the blocks that were marked have again what they had\n")


def test_a_real_one(cli: Cli, tmp_path: Path) -> None:
    image = tmp_path / "a.img"
    image.write_bytes(bytes(contents(size=8 * MIB)))
    result = cli("probe", f"virtual:{image}", "--destructive", "--yes", "--json")
    assert (result.record["kind"], result.json["usable_blocks"]) == ("real", 16384)
    assert image.read_bytes() == contents(size=8 * MIB)


def test_without_destructive_it_only_reads(attach: Attached, cli: Cli) -> None:
    memory = Memory(8 * MIB)
    attach(Stick([Unit(memory)]))
    result = cli("probe", "1-1", "--json")
    assert result.status == 0
    assert (result.json["kind"], result.json["usable_blocks"], result.json["written_bytes"]) == ("unknown", None, 0)
    text = cli("probe", "1-1")
    assert text.text.startswith("unknown: it cannot be said\n")
    assert "nothing was written" in text.err
    assert memory.writes == 0


def test_nothing_is_written_without_a_confirmation(attach: Attached, cli: Cli) -> None:
    memory = Memory(8 * MIB)
    attach(Stick([Unit(memory)]))
    assert cli("probe", "1-1", "--destructive").failed(1, "cannot ask to confirm the probe", "--yes")
    assert cli("probe", "1-1", "--yes").failed(1, "--yes without --destructive")
    assert memory.writes == 0


class Person(io.StringIO):
    """A terminal as stdin, with what the user types."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "writes"), [("y\n", True), ("n\n", False), ("", False)])
def test_it_asks_at_a_terminal(
    attach: Attached, screen: Cli, monkeypatch: pytest.MonkeyPatch, answer: str, writes: bool
) -> None:
    memory = Memory(8 * MIB)
    attach(Stick([Unit(memory)]))
    monkeypatch.setattr(sys, "stdin", Person(answer))
    result = screen("probe", "1-1", "--destructive")
    assert "Write to some thousand blocks of 1-1, scsiusb Virtual Stick" in result.err
    assert (result.status == 0) is writes
    assert (memory.writes > 0) is writes


def test_a_write_protected_device_is_refused(cli: Cli) -> None:
    assert cli("probe", "virtual:?read-only=yes", "--destructive", "--yes").failed(7, "write protected")


def test_after_ctrl_c_it_says_that_the_blocks_are_given_back(
    attach: Attached, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Memory(bytearray(contents(size=8 * MIB)))
    attach(Stick([Unit(memory)]))

    def interrupt(attempt: probing.Attempt, overwhelming: int) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(probing.Attempt, "is_lasting", interrupt)
    result = cli("probe", "1-1", "--destructive", "--yes")
    assert result.status == 130
    assert "the blocks that were marked have again what they had" in result.err
    assert memory.writes
    assert memory.data == contents(size=8 * MIB)
