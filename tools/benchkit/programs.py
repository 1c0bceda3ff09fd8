"""The other programs: dd, sg_dd, and ceiling.c."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import libusb_package

from benchkit.compiled import CEILING
from benchkit.work import MIB, Runner, Slice, Timing, Way
from tests.kernel.machine import Unit

TIMEOUT = 600  # seconds for a program
SECTOR = 512  # bytes, the block size of the sticks
DD_OUTPUT = re.compile(r"(\d+) bytes .* copied, ([0-9.e+-]+) s")
SG_DD_OUTPUT = re.compile(r"time to transfer data.*?([0-9.]+) secs")


class ProgramFailed(Exception):
    """A measured program did not do its work."""


def run(words: Sequence[object]) -> tuple[str, str]:
    """Run a program; return its stdout and stderr. Raises ProgramFailed on a nonzero status."""
    command = [str(word) for word in words]
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, env=environment, check=False)
    if done.returncode:
        raise ProgramFailed(f"{' '.join(command)}: status {done.returncode}: {_last_line(done.stderr)}")
    return done.stdout, done.stderr


def _last_line(output: str) -> str:
    """Return the last line that is not empty: of a traceback, the error."""
    return next((line for line in reversed(output.splitlines()) if line.strip()), "no message")


def node(unit: Unit) -> Path:
    """Return the kernel's block device, after udev has finished probing it."""
    unit.device.wait()
    run(["udevadm", "settle"])
    return unit.node


def dd_seconds(output: str) -> tuple[int, float]:
    """Return the bytes and seconds in dd's last line. Raises ProgramFailed."""
    found = DD_OUTPUT.search(output)
    if found is None:
        raise ProgramFailed(f"no bytes and seconds in the output of dd: {output!r}")
    return int(found[1]), float(found[2])


def dd(*words: object) -> Timing:
    """Run dd; return what it reports."""
    _, output = run(["dd", *words])
    return Timing(*dd_seconds(output))


@contextmanager
def dd_read(unit: Unit, size: int) -> Iterator[Runner]:
    """Read with dd, O_DIRECT."""
    disk = node(unit)
    yield lambda piece: dd(f"if={disk}", "of=/dev/null", "iflag=direct", *_place(unit, piece, "skip"))


@contextmanager
def dd_write(unit: Unit, size: int) -> Iterator[Runner]:
    """Write with dd, O_DIRECT."""
    disk = node(unit)
    yield lambda piece: dd("if=/dev/zero", f"of={disk}", "oflag=direct", *_place(unit, piece, "seek"))


def _place(unit: Unit, piece: Slice, skip: str) -> tuple[str, str, str]:
    first = piece.lbas[0] * unit.block_size // piece.size
    return f"bs={piece.size}", f"count={len(piece.lbas)}", f"{skip}={first}"


@contextmanager
def sg_dd_read(unit: Unit, size: int) -> Iterator[Runner]:
    """Read with sg_dd."""
    node(unit)
    yield partial(_sg_dd, unit)


def _sg_dd(unit: Unit, piece: Slice) -> Timing:
    block = unit.block_size
    words = [f"bs={block}", f"bpt={piece.size // block}", f"skip={piece.lbas[0]}", f"count={piece.bytes // block}"]
    _, output = run(["sg_dd", f"if={unit.sg}", "of=/dev/null", *words, "time=1"])
    found = SG_DD_OUTPUT.search(output)
    if found is None:
        raise ProgramFailed(f"no seconds in the output of sg_dd: {output!r}")
    return Timing(piece.bytes, float(found[1]))


@contextmanager
def pread(unit: Unit, size: int) -> Iterator[Runner]:
    """Read the block device with pread in C, O_DIRECT."""
    with _ceiling("pread", node(unit), size) as run:
        yield run


def on_usb(what: str, memory: str) -> Way:
    """Return the way of C on libusb: `what` is "read" or "write", `memory` is "device" or "ordinary"."""

    @contextmanager
    def opening(unit: Unit, size: int) -> Iterator[Runner]:
        folder = unit.device.wait().folder
        place = [(folder / name).read_text().strip() for name in ("busnum", "devnum")]
        library = libusb_package.get_library_path()
        with _ceiling(what, library, *place, *map(hex, endpoints(unit)), memory, size) as run:
            yield run

    return opening


def endpoints(unit: Unit) -> tuple[int, int]:
    """Return the addresses of bulk-in and bulk-out."""
    found = [int(path.name[3:], 16) for path in unit.device.interface.glob("ep_*")]
    return next(e for e in found if e & 0x80), next(e for e in found if not e & 0x80)


@contextmanager
def _ceiling(*words: object) -> Iterator[Runner]:
    """Start ceiling.c, which runs slices until the context ends."""
    command = [str(word) for word in (_program(), *words)]
    pipe = subprocess.PIPE
    with (
        TemporaryDirectory() as folder,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process,
    ):
        yield partial(_slice_in_c, process, Path(folder) / "lbas")


def _slice_in_c(process: subprocess.Popen[str], path: Path, piece: Slice) -> Timing:
    assert process.stdin
    assert process.stdout
    assert process.stderr
    path.write_bytes(array("I", piece.lbas).tobytes())
    with suppress(BrokenPipeError):  # unbuffered: after a BrokenPipeError, closing a buffered file would write again
        os.write(process.stdin.fileno(), f"{piece.warming} {path}\n".encode())
    output = process.stdout.readline()
    if not output:
        status = process.wait(TIMEOUT)
        raise ProgramFailed(f"ceiling: status {status}: {_last_line(process.stderr.read())}")
    return Timing(**json.loads(output))


@cache
def _program() -> Path:
    """Return a copy of the program in the guest's memory: the host's file system is slow from there."""
    return Path(shutil.copy(CEILING, "/tmp/ceiling"))


def file_of(size: int, path: Path) -> Path:
    """Write a file of random content; return its path."""
    with path.open("wb") as file:
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))
    return path
