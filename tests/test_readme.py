"""What the README shows works, word for word, on the virtual stick."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import scsiusb
from scsiusb.cli.app import run

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(r"^\$ scsiusb (\w+ 2-1.*?)(?: +#.*)?$", README, re.MULTILINE)


def test_the_python_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    use, declare = (block.replace('"2-1"', '"virtual:"') for block in BLOCKS)
    exec(compile(use, "README.md", "exec"), {})
    assert capsys.readouterr().out == "Virtual Stick 16384 512\n"
    with pytest.raises(scsiusb.UnsupportedOpcode, match="READ TEMPERATURE"):
        exec(compile(declare, "README.md", "exec"), {})


@pytest.mark.parametrize("command", COMMANDS)
def test_the_shell_examples_run(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "image.img").write_bytes(bytes(4096))
    words = shlex.split(command.replace("2-1", "virtual:"))
    assert run([*words, *(["--yes"] if words[0] == "write" else [])]) == 0


def test_there_are_examples() -> None:
    assert len(BLOCKS) == 2
    assert {command.split()[0] for command in COMMANDS} == {"inquiry", "capacity", "read", "write", "raw"}
