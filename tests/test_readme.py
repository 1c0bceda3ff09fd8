"""What the README shows works, word for word, on the virtual stick."""

from __future__ import annotations

import hashlib
import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import scsiusb
from scsiusb.cli.app import run
from scsiusb.usb.interface import find
from scsiusb.virtual import Bus, Identity, Stick

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(r"^\$ scsiusb (\w+ 2-1[^&]*?)(?: +#.*)?$", README, re.MULTILINE)
STICKS = [block.replace('"2-1"', '"virtual:"') for block in BLOCKS]


def test_reading_and_writing(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(STICKS[0], "README.md", "exec"), {})
    assert capsys.readouterr().out == "Virtual Stick 16384 512\n"


def test_a_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"scsiusb": scsiusb}
    exec(compile(STICKS[1], "README.md", "exec"), names)
    data = (tmp_path / "copy.img").read_bytes()
    assert names["hash"].digest() == hashlib.sha256(data).digest()
    assert len(data) == 16384 * 512


def test_many_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    good, bad = Stick.formatted(), Stick.formatted()
    bad.faults.add("sense=3/11/00,lba=5000,times=always")
    bus = Bus(good, bad)
    named = {"devices": lambda: find(bus), "open": lambda address: scsiusb.open_on(bus, address)}
    names = {"scsiusb": SimpleNamespace(**named, read_many=scsiusb.read_many)}
    exec(compile(STICKS[2], "README.md", "exec"), names)
    assert [path.stat().st_size for path in sorted(tmp_path.iterdir())] == [16384 * 512, 5000 * 512]
    out = capsys.readouterr().out
    assert "LBA 5000 cannot be read" in out
    assert "5000 blocks were read" in out


def test_the_manager(capsys: pytest.CaptureFixture[str]) -> None:
    stick = Stick.formatted(identity=Identity(serial="LABSTICK01"))
    bus = Bus(stick)
    names = {"scsiusb": SimpleNamespace(Manager=lambda: scsiusb.Manager(bus))}
    exec(compile(STICKS[3], "README.md", "exec"), names)
    out = capsys.readouterr().out
    assert "scsiusb Virtual Stick at 1-1\n" in out
    assert "attached LABSTICK01\n" in out
    assert not bus.handles


def test_asyncio() -> None:
    names = {"scsiusb": scsiusb}
    exec(compile(STICKS[4], "README.md", "exec"), names)


def test_a_stick_that_misbehaves(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(STICKS[5], "README.md", "exec"), {})
    sense, fired = capsys.readouterr().out.splitlines()
    assert "3/11/00" in sense
    assert "stall" in fired
    assert "sense" in fired


def test_a_command_of_ones_own() -> None:
    with pytest.raises(scsiusb.UnsupportedOpcode, match="READ TEMPERATURE"):
        exec(compile(STICKS[6], "README.md", "exec"), {})


@pytest.mark.parametrize("command", COMMANDS)
def test_the_shell_examples_run(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "image.img").write_bytes(bytes(4096))
    words = shlex.split(command.replace("2-1", "virtual:"))
    assert run([*words, *(["--yes"] if words[0] == "write" else [])]) == 0


def test_there_are_examples() -> None:
    assert len(BLOCKS) == 7
    named = {command.split()[0] for command in COMMANDS}
    assert named == {"inquiry", "capacity", "read", "write", "raw", "check", "quirks"}
