"""Where things are on the host, how the lab speaks, and how it runs a step."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".lab"
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
GUEST_SHARE = "/run/lab"  # where a guest has the folder that it shares with the host


class LabError(Exception):
    """The lab itself failed: not the command that ran in it."""

    def __init__(self, message: str, status: int = 125) -> None:
        super().__init__(message)
        self.status = status


def say(message: str) -> None:
    """Print what is being done to stderr; standard output belongs to the guest's command."""
    print(f"lab: {message}", file=sys.stderr, flush=True)


def run(command: Sequence[str | Path], **environment: str) -> None:
    """Run one step of the preparation, its output on standard error."""
    words = [str(word) for word in command]
    done = subprocess.run(words, stdout=sys.stderr, env={**os.environ, **environment}, check=False)
    if done.returncode:
        raise LabError(f"failed with status {done.returncode}: {' '.join(words)}")


def output(command: Sequence[str | Path]) -> str:
    """Run a query and return what it printed."""
    words = [str(word) for word in command]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise LabError(f"failed with status {done.returncode}: {' '.join(words)}")
    return done.stdout


def find(program: str) -> str | None:
    """Find a program, also where only root looks."""
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin")


def need(program: str) -> str:
    """Find a program that must be there."""
    found = find(program)
    if found is None:
        raise LabError(f"{program} is not installed")
    return found
