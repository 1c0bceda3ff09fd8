"""Run the command-line program, in this process or in another one."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import IO, Any

from scsiusb.cli.app import run

NOBODY = 65534


@dataclass(frozen=True)
class Ran:
    """Result of a command: its arguments, exit status and output."""

    words: tuple[str, ...]
    status: int
    out: bytes
    err: str

    def ok(self) -> Ran:
        """Assert that the exit status is 0; return this object."""
        assert self.status == 0, f"{' '.join(self.words)}: status {self.status}: {self.err}"
        return self

    def json(self) -> Any:
        return json.loads(self.ok().out)

    @property
    def text(self) -> str:
        return self.out.decode()


def start(*words: object, stdin: int = subprocess.DEVNULL, **options: Any) -> subprocess.Popen[bytes]:
    """Start `scsiusb WORDS…` and leave it running; the options are Popen's."""
    command = [sys.executable, "-m", "scsiusb", *map(str, words)]
    return subprocess.Popen(
        command, **{"stdin": stdin, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    )


def scsiusb(*words: object) -> Ran:
    """Run `scsiusb WORDS…` in this process, which saves the seconds that a start takes under emulation."""
    arguments = [str(word) for word in words]
    with TemporaryFile() as out, TemporaryFile() as error:
        with _text(out) as stdout, _text(error) as stderr, redirect_stdout(stdout), redirect_stderr(stderr):
            status = run(arguments)
        return Ran(tuple(arguments), status, _content(out), _content(error).decode(errors="replace"))


def _text(file: IO[bytes]) -> io.TextIOWrapper:
    return io.TextIOWrapper(os.fdopen(os.dup(file.fileno()), "wb", buffering=0), write_through=True)


def _content(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


def as_user(user: int) -> list[str]:
    """Return the command prefix that runs a program as the user, for root an empty one.

    The user gets only one capability: to read root's folders, because this Python is there.
    """
    look = "+dac_read_search"
    words = ["--reuid", str(user), "--regid", str(user), "--clear-groups", "--inh-caps", look, "--ambient-caps", look]
    return ["setpriv", *words] if user else []
