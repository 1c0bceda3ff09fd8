"""The other programs: dd, sg_dd, and our own in C."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import libusb_package

from benchkit.compiled import CEILING
from benchkit.work import MIB, Timing, Work
from tests.kernel.machine import Unit

PATIENCE = 600  # seconds
DD_SAID = re.compile(r"(\d+) bytes .* copied, ([0-9.e+-]+) s")
SG_DD_SAID = re.compile(r"time to transfer data.*?([0-9.]+) secs")


class ProgramFailed(Exception):
    """A program that is measured did not do its work."""


def run(words: Sequence[object]) -> tuple[str, str]:
    """What the program printed on both streams. Raises ProgramFailed."""
    command = [str(word) for word in words]
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=environment, check=False)
    if done.returncode:
        raise ProgramFailed(f"{' '.join(command)}: status {done.returncode}: {_last_line(done.stderr)}")
    return done.stdout, done.stderr


def _last_line(said: str) -> str:
    """Of a traceback, the error."""
    return next((line for line in reversed(said.splitlines()) if line.strip()), "it said nothing")


def node(unit: Unit) -> Path:
    """The kernel's block device, when everybody is done with looking at it."""
    unit.device.wait()
    run(["udevadm", "settle"])
    return unit.node


def dd_seconds(said: str) -> tuple[int, float]:
    """What dd's last line says: bytes and seconds."""
    found = DD_SAID.search(said)
    if found is None:
        raise ProgramFailed(f"dd says nothing of bytes and seconds: {said!r}")
    return int(found[1]), float(found[2])


def dd(*words: object) -> Timing:
    _, said = run(["dd", *words])
    return Timing(*dd_seconds(said))


def dd_read(work: Work) -> Timing:
    return dd(f"if={node(work.unit)}", "of=/dev/null", "iflag=direct", f"bs={work.size}", f"count={len(work.lbas)}")


def dd_write(work: Work) -> Timing:
    return dd("if=/dev/zero", f"of={node(work.unit)}", "oflag=direct", f"bs={work.size}", f"count={len(work.lbas)}")


def sg_dd_read(work: Work) -> Timing:
    node(work.unit)
    size = work.unit.block_size
    words = [f"if={work.unit.sg}", "of=/dev/null", f"bs={size}", f"bpt={work.size // size}", f"count={work.blocks}"]
    _, said = run(["sg_dd", *words, "time=1"])
    found = SG_DD_SAID.search(said)
    if found is None:
        raise ProgramFailed(f"sg_dd says nothing of seconds: {said!r}")
    return Timing(work.bytes, float(found[1]))


def c_read(work: Work) -> Timing:
    return _on_usb("read", "device", work)


def c_read_ordinary(work: Work) -> Timing:
    return _on_usb("read", "ordinary", work)


def c_write(work: Work) -> Timing:
    return _on_usb("write", "device", work)


def c_write_ordinary(work: Work) -> Timing:
    return _on_usb("write", "ordinary", work)


def pread(work: Work) -> Timing:
    with work.addresses() as path:
        return _c(["pread", node(work.unit), work.size, path])


def _on_usb(what: str, memory: str, work: Work) -> Timing:
    folder = work.unit.device.wait().folder
    place = [(folder / name).read_text().strip() for name in ("busnum", "devnum")]
    library = libusb_package.get_library_path()
    with work.addresses() as path:
        return _c([what, library, *place, *map(hex, endpoints(work.unit)), memory, work.size, path])


def endpoints(unit: Unit) -> tuple[int, int]:
    """The addresses of bulk-in and bulk-out."""
    found = [int(path.name[3:], 16) for path in unit.device.interface.glob("ep_*")]
    return next(e for e in found if e & 0x80), next(e for e in found if not e & 0x80)


def _c(words: Sequence[object]) -> Timing:
    said, _ = run([_ceiling(), *words])
    return Timing(**json.loads(said))


@cache
def _ceiling() -> Path:
    """The program, where the guest reads it quickly."""
    return Path(shutil.copy(CEILING, "/tmp/ceiling"))


def file_of(size: int, path: Path) -> Path:
    """A file with content that does not repeat."""
    with path.open("wb") as file:
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))
    return path
