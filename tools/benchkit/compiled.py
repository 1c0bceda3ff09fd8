"""Compiles ceiling.c, on the host before the guest boots."""

from __future__ import annotations

from pathlib import Path

from labkit.host import CACHE, LabError, find, run, say

SOURCE = Path(__file__).with_name("ceiling.c")
CEILING = CACHE / "bench" / "ceiling"


def compile_ceiling() -> None:
    """Compile the program if the source is newer. Raises LabError without a compiler."""
    if CEILING.exists() and CEILING.stat().st_mtime > SOURCE.stat().st_mtime:
        return
    compiler = find("gcc") or find("cc")
    if compiler is None:
        raise LabError("no C compiler found; install gcc, or use --only python,start, which compare with nothing in C")
    say(f"compiling {SOURCE.name}")
    CEILING.parent.mkdir(parents=True, exist_ok=True)
    run([compiler, "-std=gnu11", "-O2", "-Wall", "-Wextra", "-o", CEILING, SOURCE, "-ldl"])
