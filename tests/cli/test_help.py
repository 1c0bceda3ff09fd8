"""--help, --version and completion."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scsiusb import __version__
from scsiusb.cli.app import COMMANDS
from tests.cli.conftest import Attached, Cli
from tests.sticks import stick

ON_WINDOWS = sys.platform == "win32"


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_with_examples_in_80_columns(cli: Cli, command: str) -> None:
    for option in ("--help", "-h"):
        ended = cli(command, option)
        assert (ended.status, ended.err) == (0, "")
        assert ended.text.startswith(f"Usage: scsiusb {command} ")
        assert f"  Examples:\n    scsiusb {command}" in ended.text
        assert max(map(len, ended.text.splitlines())) < 80
        for shared in ("--json", "--verbose", "--timeout", "--quirks", "--trace", "--version"):
            assert shared in ended.text


def test_help_lists_every_command_in_full(cli: Cli) -> None:
    ended = cli("--help")
    assert ended.status == 0
    assert "..." not in ended.text.replace("[ARGS]...", "")
    for command in COMMANDS:
        assert f"\n  {command} " in ended.text
    assert max(map(len, ended.text.splitlines())) < 80


def test_version_before_and_after_the_command(cli: Cli) -> None:
    for words in (["--version"], ["read", "--version"]):
        assert cli(*words).text == f"scsiusb {__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_a_completion_script_for_each_shell(cli: Cli, shell: str) -> None:
    ended = cli("completion", shell)
    assert ended.status == 0
    assert re.search(f"_SCSIUSB_COMPLETE ?= ?'?{shell}_complete", ended.text)
    as_json = cli("completion", shell, "--json").json
    assert as_json == {"shell": shell, "script": ended.text.removesuffix("\n")}


@pytest.mark.parametrize(
    ("words", "word", "found"),
    [
        ("scsiusb ", 1, ["list", "read", "completion"]),
        ("scsiusb cap", 1, ["capacity"]),
        ("scsiusb inquiry ", 2, ["1-1", "virtual:"]),
        ("scsiusb raw ", 2, ["1-1", "virtual:"]),
        ("scsiusb inquiry vir", 2, ["virtual:"]),
        ("scsiusb read --bl", 2, ["--blocks"]),
        ("scsiusb completion ", 2, ["bash", "zsh", "fish", "powershell"]),
    ],
)
def test_completion(
    cli: Cli, attach: Attached, monkeypatch: pytest.MonkeyPatch, words: str, word: int, found: list[str]
) -> None:
    attach(stick())
    monkeypatch.setenv("_SCSIUSB_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(word))
    ended = cli()
    assert ended.status == 0
    values = [line.split(",")[1] for line in ended.text.splitlines()]
    assert set(found) <= set(values)


def test_completion_works_if_devices_cannot_be_listed(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from scsiusb.errors import AccessDenied

    def denied() -> None:
        raise AccessDenied("no")

    monkeypatch.setattr("scsiusb.cli.device.devices", denied)
    monkeypatch.setenv("_SCSIUSB_COMPLETE", "fish_complete")
    monkeypatch.setenv("COMP_WORDS", "scsiusb inquiry ")
    monkeypatch.setenv("COMP_CWORD", "")
    assert "virtual:" in cli().text


def test_the_powershell_script_registers_the_program_and_removes_its_variables(cli: Cli) -> None:
    script = cli("completion", "powershell").text
    assert "Register-ArgumentCompleter -Native -CommandName scsiusb -ScriptBlock {\n" in script
    variables = set(re.findall(r"\$env:(\w+) =", script))
    assert variables == {"_SCSIUSB_COMPLETE", "COMP_WORDS", "COMP_CWORD"}
    removed = re.search(r"finally \{\s+Remove-Item (.*?) -ErrorAction", script)
    assert removed is not None
    assert set(removed[1].split(", ")) == {f"Env:{name}" for name in variables}
    for left, right in ("{}", "()", "[]"):
        assert script.count(left) == script.count(right)
    assert "%" not in script, "all of click's placeholders are filled in; as an alias it would be hard to read"


@pytest.mark.parametrize(
    ("words", "word", "lines"),
    [
        (["scsiusb", "cap"], "cap", ["plain\tcapacity\tShow the capacity of the medium."]),
        (["scsiusb", "inquiry"], None, ["plain\t1-1\tVendor Virtual stick", "plain\tvirtual:\t"]),
        (["scsiusb", "inquiry", "vir"], "'vir", ["plain\tvirtual:\t"]),
        (["scsiusb", "read", "-o", "a b"], '"a b"', ["file\ta b\t"]),
    ],
)
def test_powershell_gets_lines_of_kind_value_and_help(
    cli: Cli, attach: Attached, monkeypatch: pytest.MonkeyPatch, words: list[str], word: str | None, lines: list[str]
) -> None:
    """Words are separated by line breaks; PowerShell has removed COMP_CWORD if it is empty."""
    attach(stick())
    monkeypatch.setenv("_SCSIUSB_COMPLETE", "powershell_complete")
    monkeypatch.setenv("COMP_WORDS", "\n".join(words))
    monkeypatch.delenv("COMP_CWORD", raising=False)
    if word is not None:
        monkeypatch.setenv("COMP_CWORD", word)
    ended = cli()
    assert ended.status == 0
    assert [line.split("\t")[:2] for line in ended.text.splitlines()] == [line.split("\t")[:2] for line in lines]


def test_an_unsupported_shell(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scsiusb.cli.commands.completion.get_completion_class", lambda shell: None)
    assert cli("completion", "bash").failed(1, "bash")


@pytest.mark.skipif(ON_WINDOWS or not shutil.which("bash"), reason="needs bash")
def test_bash_completes_by_the_script(cli: Cli, tmp_path: Path) -> None:
    """The script is sourced as by a user, with the console script on the PATH."""
    program = tmp_path / "scsiusb"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m scsiusb "$@"\n')
    program.chmod(0o755)
    script = tmp_path / "completion.bash"
    script.write_bytes(cli("completion", "bash").out)
    asked = (
        f'PATH="{tmp_path}:$PATH"; source {script}; COMP_WORDS=(scsiusb cap); COMP_CWORD=1; '
        '_scsiusb_completion scsiusb; echo "${COMPREPLY[@]}"'
    )
    ended = subprocess.run(["bash", "--norc", "-c", asked], capture_output=True, text=True, check=True)
    assert ended.stdout == "capacity\n"


def test_without_a_command_it_prints_the_help(cli: Cli) -> None:
    for words in ([], ["--json"], ["virtual"]):
        ended = cli(*words)
        assert (ended.status, ended.err) == (0, "")
        group = [word for word in words if not word.startswith("-")]
        assert ended.out == cli(*group, "--help").out


@pytest.mark.parametrize("words", [("check", "--list"), ("quirks", "--list"), ("command", "--list")], ids=" ".join)
def test_long_lists_are_tables_of_80_columns_with_wrapped_texts(screen: Cli, words: tuple[str, str]) -> None:
    lines = screen(*words).text.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("─") for line in lines), "it is a table"
    assert "…" not in "".join(lines), "no text is shortened"
