"""Debian's sg3_utils send the virtual stick what `tests/scsi/sg3_utils.txt` has, with which our CDBs are compared."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from scsiusb.virtual import Identity, Memory, Stick, Unit
from tests.scsi import recorded

from .served import serving

pytestmark = pytest.mark.native("no device of QEMU's takes part: under emulation they only take longer")

LINES = [line for line in recorded.lines() if recorded.NODE.search(line)]


@pytest.fixture(scope="module")
def nodes() -> Iterator[tuple[Path, Path]]:
    """The nodes that the lines have as /dev/sg0 and /dev/sg1: a disk and a CD drive."""
    disk = Stick([Unit(Memory(1 << 20), thin=True, copies=True)], Identity(serial="C0DE00000000"))
    drive = Stick([Unit.cd_rom(Memory(2048 * 1000, 2048))], Identity(serial="C0DE00000001"))
    with serving(disk) as first, serving(drive) as second:
        yield first.sg, second.sg


@pytest.mark.parametrize("line", LINES)
def test_a_program_sends_what_was_recorded(nodes: tuple[Path, Path], line: str) -> None:
    """In the order of the file, which ends with what keeps the unit busy."""
    words = recorded.NODE.sub(lambda node: str(nodes[int(node[1])]), line)
    done = subprocess.run(words, shell=True, capture_output=True, text=True, errors="replace", timeout=60, check=False)
    assert recorded.cdbs(done.stderr) == recorded.lines()[line], done.stderr
