"""The system's programs for file systems, and a mount that ends with a `with`."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def tool(*words: str | Path, status: int = 0) -> str:
    """Run a program of the system; return its output."""
    command = [str(word) for word in words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == status, f"{' '.join(command)}: status {done.returncode}: {said}"
    return said


@contextmanager
def mounted(node: Path, at: Path) -> Iterator[Path]:
    at.mkdir(exist_ok=True)
    tool("mount", "-t", "vfat", node, at)
    try:
        yield at
    finally:
        tool("umount", at)
