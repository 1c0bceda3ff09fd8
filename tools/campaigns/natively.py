"""A campaign that starts the native lab for itself: its JSON lines and its verdict come out here."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from labkit.host import PYTHON, ROOT

LIMITS = ("--silence", "600", "--total", "86400")  # seconds


def command(arguments: Sequence[str], zoo: str = "tests") -> list[str]:
    """Return the command that runs the same campaign in the native lab, and prints its lines."""
    campaign: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--output":
            next(words)
        elif not word.startswith("--output="):
            campaign.append(word)
    lab = [str(PYTHON), str(ROOT / "tools" / "lab"), "--native", "--zoo", zoo, *LIMITS]
    return [*lab, "run", "--", str(PYTHON), str(ROOT / "tools" / "campaign"), *campaign]


def in_native_lab(arguments: Sequence[str], output: Path | None, zoo: str) -> int:
    """Run the campaign in the native lab with these devices; return its exit status."""
    signal.signal(signal.SIGTERM, _terminated)
    with ExitStack() as stack:
        out = stack.enter_context(output.open("w")) if output else None
        lab = stack.enter_context(subprocess.Popen(command(arguments, zoo), stdout=out))
        try:
            return lab.wait()
        except BaseException:
            lab.terminate()  # it ends its guest
            raise


def _terminated(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
