"""The command line beside dd: a file on tmpfs out of the device and back onto it."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from labkit.host import VENV

from benchkit import names, programs
from benchkit.cases import Case, Extent, Figures
from benchkit.names import key
from benchkit.work import MIB, Timing
from tests.kernel.machine import Unit, zoo

PROGRAM = VENV / "bin" / "scsiusb"
FOLDER = Path(tempfile.gettempdir())  # the guest's is in memory
READ = "read to a file"
WRITE = "write from a file"


def cases(extent: Extent) -> Iterator[Case]:
    size = extent.sequential
    stick, scratch = (zoo()[name].units[0] for name in ("stick", "scratch"))
    yield Case(key(READ, names.CLI), lambda: _timed(_read, stick, size))
    yield Case(key(READ, names.DD), lambda: _timed(_dd_read, stick, size))
    yield Case(key(WRITE, names.CLI), lambda: _timed(_write, scratch, size))
    yield Case(key(WRITE, names.DD), lambda: _timed(_dd_write, scratch, size))


def _timed(way: Callable[[Unit, Path, int], tuple[float, float]], unit: Unit, size: int) -> Figures:
    """Of the transfer alone and of the whole process, as Python takes its time to start in the guest."""
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        seconds, wall = way(unit, Path(folder) / "image", size)
    return {names.MBS: size / 1e6 / seconds, names.WALL: wall}


def _read(unit: Unit, path: Path, size: int) -> tuple[float, float]:
    address = unit.device.wait().address
    return _scsiusb("read", address, "--lba", 0, "--blocks", size // unit.block_size, "-o", path)


def _write(unit: Unit, path: Path, size: int) -> tuple[float, float]:
    programs.file_of(size, path)
    return _scsiusb("write", unit.device.wait().address, "--lba", 0, "-i", path, "--yes")


def _scsiusb(*words: object) -> tuple[float, float]:
    began = time.perf_counter()
    said, _ = programs.run([PROGRAM, *words, "--json"])
    wall = time.perf_counter() - began
    return float(json.loads(said)["seconds"]), wall


def _dd_read(unit: Unit, path: Path, size: int) -> tuple[float, float]:
    return _dd(f"if={programs.node(unit)}", f"of={path}", "iflag=direct", f"count={size // MIB}")


def _dd_write(unit: Unit, path: Path, size: int) -> tuple[float, float]:
    programs.file_of(size, path)
    return _dd(f"if={path}", f"of={programs.node(unit)}", "oflag=direct", "conv=fsync")


def _dd(*words: str) -> tuple[float, float]:
    began = time.perf_counter()
    timing: Timing = programs.dd(*words, f"bs={MIB}")
    return timing.seconds, time.perf_counter() - began
