"""The directive `terminal`: runs a command on a terminal of 80 columns when the documentation is built, and shows it.

    ```{terminal} health virtual:?profile=sat-hdd&health=failing
    :setup: truncate -s 8M stick.img
    ```

The option `setup` is a shell command that is run before, in the same empty folder, and is not shown.
"""

from __future__ import annotations

import hashlib
import io
import os
import pty
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from docutils import nodes
from docutils.parsers.rst import directives
from rich.console import Console
from rich.text import Text
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from sphinx.application import Sphinx

COLUMNS: Final = 80
FOLDER: Final = "_build/pictures"  # below the sources, as images are named from there
WEB_FONT: Final = re.compile(r"@font-face \{.*?\}", re.DOTALL)  # needs the network; any monospaced font does
SECONDS: Final = 60


def run_on_terminal(command: str, setup: str) -> str:
    """Return what the command line prints on a terminal, with its colours. Windows has no such terminals."""
    if sys.platform == "win32":
        raise NotImplementedError
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": "40"}
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment.get('PATH', '')}"
        if setup:
            subprocess.run(setup, shell=True, cwd=folder, env=environment, check=True, timeout=SECONDS)
        reader, writer = pty.openpty()
        words = [sys.executable, "-m", "scsiusb", *shlex.split(command)]
        # Progress bars, which are erased in the end, go to stderr; so that is no terminal, and its text comes last.
        with tempfile.TemporaryFile() as said:
            where: dict[str, Any] = {"cwd": folder, "env": environment, "stdin": writer, "stdout": writer}
            with subprocess.Popen(words, stderr=said, **where) as process:
                os.close(writer)
                text = _all_of(reader)
                process.wait(timeout=SECONDS)
            said.seek(0)
            return text + said.read().decode(errors="replace")


def _all_of(reader: int) -> str:
    parts = []
    try:
        while part := os.read(reader, 65536):
            parts.append(part)
    except OSError:  # Linux's way to say that the other side is closed
        pass
    finally:
        os.close(reader)
    return b"".join(parts).decode(errors="replace").replace("\r\n", "\n")


def picture(command: str, output: str) -> str:
    """Return an SVG of a terminal with the command and its output."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.assemble(("$ ", "bold green"), f"scsiusb {command}"), soft_wrap=False)
    console.print(Text.from_ansi(output.rstrip()))
    svg = console.export_svg(title="scsiusb", unique_id=f"t{hashlib.sha256(command.encode()).hexdigest()[:8]}")
    return WEB_FONT.sub("", svg)


class TerminalDirective(SphinxDirective):
    """The picture of a command that was run."""

    required_arguments = 1
    final_argument_whitespace = True
    option_spec: ClassVar[dict[str, Any]] = {"setup": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        """Run the command, and return the picture, with the output as its alternative text."""
        command = self.arguments[0]
        output = run_on_terminal(command, self.options.get("setup", ""))
        folder = Path(self.env.srcdir) / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{hashlib.sha256(command.encode()).hexdigest()[:16]}.svg"
        path.write_text(picture(command, output))
        bare = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output)
        return [nodes.image(uri=f"/{FOLDER}/{path.name}", alt=f"$ scsiusb {command}\n{bare}", width="100%")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive."""
    app.add_directive("terminal", TerminalDirective)
    return {"parallel_read_safe": True}
