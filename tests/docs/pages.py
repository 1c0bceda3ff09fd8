"""Finds the examples in the documentation's pages.

A page is Markdown. A fenced block of Python, and each line `$ scsiusb …` in a block of the language `console`, is an
example. An HTML comment on the line before a block changes how it is run:

    <!-- not run: REASON -->        the block is not run
    <!-- attached: N -->            N sticks are attached, not one
    <!-- raises: NAME -->           the block ends with scsiusb.NAME
    <!-- not compared: REASON -->   what the block shows is not compared with what its commands print

A block `text` right after a block of Python is what the latter prints. The lines after a `$ scsiusb …` are what that
prints, if there are any: there, … stands for any characters of a line, and a line … for any number of lines.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = [
    ROOT / "README.md",
    *sorted(set((ROOT / "docs").rglob("*.md")) - set((ROOT / "docs" / "_build").rglob("*"))),
]
FENCE: Final = re.compile(r"^```(?P<language>[\w{}-]*)[^\n]*\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
MARK: Final = re.compile(r"<!-- (not run|attached|raises|not compared): (.+?) -->\n+\Z")
OUTPUT: Final = re.compile(r"\n+```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMENT: Final = re.compile(r"\s+# .*$")
SHELL: Final = set("|&;<>`")
ANY: Final = "…"


class Block(NamedTuple):
    """A fenced block: its page and line, its text without the fences, and its marks."""

    page: Path
    line: int
    language: str
    text: str
    not_run: str
    """Why the block is not run; empty where it is."""
    attached: int
    raises: str
    """The error that the block ends with; empty where it ends well."""
    output: str | None
    """What the page says that the block prints; None where it says nothing."""
    is_compared: bool
    """Whether what a block of the console shows is compared with what is printed."""

    @property
    def name(self) -> str:
        """The test's name: page and line."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


class Command(NamedTuple):
    """A line `$ scsiusb …` without its comment, whether the page shows that it fails, and what it shows after it."""

    line: str
    is_refused: bool
    shown: str

    @property
    def needs_shell(self) -> bool:
        """Whether the line has a pipe or a redirection."""
        return any(set(word) & SHELL for word in shlex.split(self.line))

    def prints(self, printed: str) -> bool:
        """Return whether this text is what the page shows; spaces at the end of a line do not count."""
        lines = [re.escape(line).replace(ANY, ".*") for line in _trimmed(self.shown)]
        pattern = "".join("(.*\n)*" if line == ".*" else f"{line}\n" for line in lines)
        return re.fullmatch(pattern, "".join(f"{line}\n" for line in _trimmed(printed))) is not None


def _trimmed(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip("\n").splitlines()]


def blocks(path: Path) -> Iterator[Block]:
    """Yield the page's fenced blocks."""
    text = path.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        mark = MARK.search(text, 0, match.start())
        kind, value = mark.groups() if mark else ("", "")
        output = OUTPUT.match(text, match.end())
        yield Block(
            path,
            text.count("\n", 0, match.start()) + 1,
            match["language"],
            match["text"],
            value if kind == "not run" else "",
            int(value) if kind == "attached" else 1,
            value if kind == "raises" else "",
            output[1] if output else None,
            kind != "not compared",
        )


def commands(block: Block) -> Iterator[Command]:
    """Yield the block's `$ scsiusb` lines; those that the page shows to end with an error are marked."""
    lines = block.text.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("$ scsiusb "):
            output = lines[number + 1 :]
            end = next((at for at, other in enumerate(output) if other.startswith("$ ")), len(output))
            is_refused = any(other.startswith("scsiusb: error: ") for other in output[:end])
            yield Command(COMMENT.sub("", line[2:]), is_refused, "\n".join(output[:end]).strip("\n"))


ALL: Final = [block for page in PAGES for block in blocks(page)]
PYTHON: Final = [block for block in ALL if block.language == "python"]
CONSOLE: Final = [block for block in ALL if block.language == "console" and list(commands(block))]
