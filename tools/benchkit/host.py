"""The part that runs on the host: boots the guest, collects its results, measures natively, prints."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from labkit.host import PYTHON, ROOT, LabError, say

from benchkit import native
from benchkit.compare import compared
from benchkit.compiled import compile_ceiling
from benchkit.machine import machine
from benchkit.names import IN_GUEST
from benchkit.report import Run, load, save
from benchkit.samples import Name, Samples
from benchkit.table import document, text

LIMITS = ("--silence", "900", "--total", "7200")
ROOM = 4 << 30  # bytes, for the image files of the sticks
MEMORY = Path("/dev/shm")
DOCUMENT = ROOT / "docs" / "speed.md"


def bench(options: argparse.Namespace) -> int:
    """Measure what the options name, or load figures; print, save and compare them. Return the exit status."""
    if options.docs and options.quick:
        raise LabError(
            "--quick and --docs exclude each other: the documents need figures of full rounds; leave one out", 2
        )
    earlier = load(options.compare) if options.compare else None
    run = load(options.source) if options.source else _measured(options)
    print(text(run), flush=True)
    if options.json:
        save(run, options.json)
    if options.docs:
        DOCUMENT.write_text(document(DOCUMENT.read_text(encoding="utf-8"), run), encoding="utf-8")
    worse: list[Name] = []
    if earlier:
        if earlier.is_native != run.is_native:
            raise LabError("figures of the native lab do not compare with those of QEMU's", 2)
        lines, worse = compared(earlier, run, options.worse / 100)
        print("\n".join(lines))
    return 1 if worse or run.samples.errors else 0


def _measured(options: argparse.Namespace) -> Run:
    run = Run(Samples(), machine(options.native), options.rounds, options.quick)
    parts = [part for part in options.only if part in IN_GUEST]
    if parts:
        compile_ceiling()
        _collect("in the lab", lambda: _in_guest(parts, run), run)
    for part in options.only:
        if part in native.PARTS:
            _collect(part, partial(_natively, part, run), run)
    return run


def _collect(what: str, measure: Callable[[], None], run: Run) -> None:
    """Run one measurement. An error of the lab is recorded: the figures from before it are still reported."""
    try:
        measure()
    except LabError as error:
        run.samples.fail(what, str(error))


def _natively(part: str, run: Run) -> None:
    say(f"measuring {part} natively")
    for key, number, figures in native.PARTS[part](run.quick):
        run.samples.add(key, number, figures)


def _in_guest(parts: Sequence[str], run: Run) -> None:
    words = ["run", "--", str(PYTHON), "tools/bench", "--in-guest", "--only", ",".join(parts)]
    words += ["--rounds", str(run.rounds), *["--quick"] * run.quick]
    native = ["--native"] * run.is_native
    command = [str(PYTHON), str(ROOT / "tools" / "lab"), *native, "--zoo", "bench", *LIMITS, *words]
    with (
        TemporaryDirectory(prefix="scsiusb-bench-", dir=_image_folder()) as folder,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": folder}) as lab,
    ):
        try:
            for line in lab.stdout or ():
                _record(json.loads(line), run)
        except BaseException:
            lab.terminate()
            raise
    if lab.returncode:
        raise LabError(f"the lab ended with status {lab.returncode}; see its output above", lab.returncode)


def _record(line: dict[str, Any], run: Run) -> None:
    if "machine" in line:
        run.machine |= line["machine"]
    elif "error" in line:
        run.samples.fail(line["key"], line["error"])
    else:
        run.samples.add(line["key"], line["round"], line["figures"])


def _image_folder() -> Path | None:
    """Return a folder in memory for the image files, if there is room: the host's disk must not be what is measured."""
    with suppress(OSError):
        if shutil.disk_usage(MEMORY).free >= ROOM:
            return MEMORY
    say(f"not enough room in {MEMORY}: the image files are on the host's disk")
    return None
