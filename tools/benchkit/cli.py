"""The command line compared with dd: device to a file on tmpfs and back, one process per slice."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from labkit.host import VENV

from benchkit import names, programs
from benchkit.work import MIB, Runner, Slice, Timing
from tests.kernel.machine import Unit

PROGRAM = VENV / "bin" / "scsiusb"
FOLDER = Path(tempfile.gettempdir())  # in the guest, it is in memory


def figures(timing: Timing) -> dict[str, float]:
    """Return the speed of the transfer alone and the time of the whole process: Python starts slowly in the guest."""
    return {names.MBS: timing.speed, names.WALL: timing.whole}


@contextmanager
def read(unit: Unit, size: int) -> Iterator[Runner]:
    """Run `scsiusb read` to a file."""
    with _path() as path:
        yield partial(_read, unit, path)


@contextmanager
def write(unit: Unit, size: int) -> Iterator[Runner]:
    """Run `scsiusb write` from a file."""
    with _path() as path:
        yield partial(_write, unit, programs.file_of(size, path))


@contextmanager
def dd_read(unit: Unit, size: int) -> Iterator[Runner]:
    """Run dd from the block device to a file."""
    with _path() as path:
        yield partial(_dd_read, programs.node(unit), path)


@contextmanager
def dd_write(unit: Unit, size: int) -> Iterator[Runner]:
    """Run dd from a file to the block device."""
    with _path() as path:
        yield partial(_dd_write, programs.node(unit), programs.file_of(size, path))


@contextmanager
def _path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        yield Path(folder) / "image"


def _read(unit: Unit, path: Path, piece: Slice) -> Timing:
    path.unlink(missing_ok=True)
    blocks = piece.bytes // unit.block_size
    return _scsiusb(unit, piece, "read", "--lba", piece.lbas[0], "--blocks", blocks, "-o", path)


def _write(unit: Unit, path: Path, piece: Slice) -> Timing:
    return _scsiusb(unit, piece, "write", "--lba", piece.lbas[0], "-i", path, "--yes")


def _scsiusb(unit: Unit, piece: Slice, command: str, *words: object) -> Timing:
    """Run one command; return after the kernel has bound and probed the device again, because dd comes next."""
    address = unit.device.wait().address
    began = time.perf_counter()
    output, _ = programs.run([PROGRAM, command, address, *words, "--json"])
    whole = time.perf_counter() - began
    programs.node(unit)
    return Timing(piece.bytes, float(json.loads(output)["seconds"]), whole=whole)


def _dd_read(node: Path, path: Path, piece: Slice) -> Timing:
    path.unlink(missing_ok=True)
    return _dd(piece, f"if={node}", f"of={path}", "iflag=direct", f"skip={_first(piece)}")


def _dd_write(node: Path, path: Path, piece: Slice) -> Timing:
    return _dd(piece, f"if={path}", f"of={node}", "oflag=direct", "conv=fsync", f"seek={_first(piece)}")


def _first(piece: Slice) -> int:
    return piece.lbas[0] * programs.SECTOR // MIB


def _dd(piece: Slice, *words: str) -> Timing:
    began = time.perf_counter()
    timing = programs.dd(*words, f"bs={MIB}", f"count={piece.bytes // MIB}")
    return Timing(timing.bytes, timing.seconds, whole=time.perf_counter() - began)
