"""What the README and the pages in docs/ show works, word for word, each block by itself, on virtual sticks."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from contextlib import nullcontext, redirect_stderr
from pathlib import Path

import pytest

import scsiusb
from scsiusb.cli.app import run
from tests.docs.conftest import Attach
from tests.docs.pages import CONSOLE, PYTHON, Block, Command, commands

BLOCKS = [block for block in PYTHON if not block.not_run]
SHELL = [block for block in CONSOLE if not block.not_run]
MOST_NOT_RUN = 5
MOST_NOT_COMPARED = 2


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
def test_python_examples_run(block: Block, attach: Attach, capsys: pytest.CaptureFixture[str]) -> None:
    attach(block.attached)
    code = compile("\n" * block.line + block.text, str(block.page), "exec")
    with pytest.raises(getattr(scsiusb, block.raises)) if block.raises else nullcontext():
        exec(code, {"__name__": "__main__"})
    assert block.output in (None, capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.parametrize("block", SHELL, ids=lambda block: block.name)
def test_shell_examples_run(block: Block, attach: Attach, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for command in commands(block):
        attach(block.attached)  # before each, as a real device is attached again after each
        capfd.readouterr()
        status = (run_in_shell if command.needs_shell else run_here)(command.line, tmp_path)
        printed, _ = capfd.readouterr()
        assert (status != 0) is command.is_refused, command.line
        assert not (block.is_compared and command.shown) or command.prints(printed), printed


def run_here(line: str, folder: Path) -> int:
    """Run the command line in this process, without a question, and with messages among the results on stdout."""
    words = shlex.split(line)[1:]
    asks = {"write", "--destructive", "--write"}.intersection(words)
    with redirect_stderr(sys.stdout):
        return run([*words, "--yes"] if asks else words)


def run_in_shell(line: str, folder: Path) -> int:
    """Run a pipe by bash, with the virtual stick in memory in place of the attached one."""
    if sys.platform == "win32":
        pytest.skip("needs a POSIX shell")
    program = folder / "scsiusb"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m scsiusb "$@"\n')
    program.chmod(0o755)
    environment = {**os.environ, "PATH": os.pathsep.join((str(folder), os.environ.get("PATH", "")))}
    script = f"set -e -o pipefail; {line.replace('2-1', 'virtual:')}"
    return subprocess.run(["bash", "-c", script], env=environment, stdin=subprocess.DEVNULL, check=False).returncode


def test_examples_are_found() -> None:
    assert len(BLOCKS) > 20
    words = {word for block in SHELL for command in commands(block) for word in shlex.split(command.line)}
    assert words >= {"inquiry", "capacity", "read", "write", "raw", "check", "quirks", "leases", "recover"}


@pytest.mark.parametrize(
    ("shown", "printed", "expected"),
    [
        ("a  b", "a  b\n", True),
        ("a", "a \n\n", True),
        ("a", "a\nb\n", False),
        ("took … s (1 of 2)", "took 0.5 s (1 of 2)\n", True),
        ("took … s (1 of 2)", "took 0.5 s\n(1 of 2)\n", False),
        ("a\n…\nd", "a\nb\nc\nd\n", True),
        ("a\n…\nd", "a\nb\n", False),
    ],
)
def test_an_ellipsis_stands_for_what_changes(shown: str, printed: str, expected: bool) -> None:
    assert Command("", False, shown).prints(printed) is expected


def test_few_examples_are_not_run() -> None:
    assert sum(bool(block.not_run) for block in (*PYTHON, *CONSOLE)) <= MOST_NOT_RUN
    assert sum(not block.is_compared for block in CONSOLE) <= MOST_NOT_COMPARED
