"""Commands in text: with -v as they are sent, and from a file that --trace recorded."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from scsiusb.trace.recorder import INTERFACE_DESCRIPTION, SECTION_HEADER
from scsiusb.virtual import Memory, Stick, Unit
from tests.cli.conftest import Attached, Cli


def test_the_command_line_tells_them(cli: Cli, attach: Attached) -> None:
    attach(Stick([Unit(Memory(512 * 64))]))
    assert "INQUIRY [12 00 00 00 24 00], 36 bytes in: good" in cli("-v", "inquiry", "1-1").err
    assert "INQUIRY [12" not in cli("inquiry", "1-1").err


@pytest.mark.parametrize("protocol", ["bot", "uas"])
def test_what_was_recorded_is_read(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str) -> None:
    path = tmp_path / "a.pcapng"
    out = str(tmp_path / "out")
    shown = cli(
        "-v", "--trace", str(path), "read", f"virtual:?protocol={protocol}", "--lba", "0", "--blocks", "8", "-o", out
    )
    live = [line.split("LUN ", 1)[1] for line in shown.err.splitlines() if ": LUN " in line and "bytes in" in line]
    lines = [line.split("LUN ", 1)[1] for line in cli("decode", "pcapng", f"@{path}").text.splitlines()]
    names = [line.split("]")[0] for line in lines]
    assert [line.split("]")[0] for line in live] == [name for name in names if "TEST UNIT READY" not in name]
    records = cli("decode", "pcapng", f"@{path}", "--json").json
    assert [record["text"].split("]")[0] for record in records] == [f"LUN {name}" for name in names]
    assert records[-1]["bytes"] == 4096
    assert any(record["sense"] is not None for record in records) == (protocol == "uas"), "it comes with the status"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
    assert cli("decode", "pcapng", "-").out == cli("decode", "pcapng", f"@{path}").out
    assert cli("decode", "pcapng", "00").failed(1, "@FILE")
    assert cli("decode", "pcapng", "@nothing").failed(15, "nothing")
    (tmp_path / "other").write_bytes(b"no packets at all")
    assert cli("decode", "pcapng", f"@{tmp_path / 'other'}").failed(97, "no pcapng file")


def test_a_file_without_commands_is_said_to_have_none(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "empty.pcapng"
    path.write_bytes(SECTION_HEADER.build({}) + INTERFACE_DESCRIPTION.build({}))
    ended = cli("decode", "pcapng", f"@{path}")
    assert (ended.status, ended.out, ended.err) == (0, b"", "scsiusb: warning: no commands found\n")
    assert cli("decode", "pcapng", f"@{path}", "--json").json == []
