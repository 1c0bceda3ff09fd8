"""Files that we put are read by Linux, and the other way round; Linux's fsck finds nothing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from .command import scsiusb as cli
from .machine import Device

NAME = "Straße, a long name.bin"


@contextmanager
def mounted(node: Path, folder: Path) -> Iterator[Path]:
    subprocess.run(["mount", "-t", "vfat", "-o", "iocharset=utf8,codepage=437", node, folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def check(node: Path) -> None:
    done = subprocess.run(["fsck.vfat", "-n", node], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert len(done.stdout.splitlines()) == 2, done.stdout


@pytest.mark.parametrize("held", [False, True], ids=["free", "held"])
def test_files_are_exchanged_with_linux(fat: Device, tmp_path: Path, held: bool) -> None:
    """Each side writes files, the other one reads them, and fsck judges.

    A node that is held keeps its name, as udev's programs do at times: the kernel then gives the disk another one.
    """
    unit, place = fat.units[0], f"{fat.address}:1"
    ours, theirs = os.urandom(300_001), os.urandom(200_003)
    (tmp_path / "ours").write_bytes(ours)
    folder = tmp_path / "mnt"
    folder.mkdir()
    with unit.node.open("rb") if held else nullcontext():
        cli("mkdir", place, "/dir", "--yes").ok()
        cli("put", place, f"/dir/{NAME}", "-i", tmp_path / "ours", "--yes").ok()
        check(unit.partition)
    with mounted(unit.partition, folder):
        assert (folder / "dir" / NAME).read_bytes() == ours
        (folder / "from Linux ä").write_bytes(theirs)
        (folder / "dir" / NAME).unlink()
    assert cli("cat", place, "/from Linux ä").ok().out == theirs
    assert cli("ls", place, "/dir", "--json").json() == []
    cli("rm", place, "/from Linux ä", "--yes").ok()
    cli("rm", place, "/dir", "--yes").ok()
    check(unit.partition)


def test_linux_uses_a_file_system_that_we_made(scratch: Device, tmp_path: Path) -> None:
    done = cli("mkfs", f"{scratch.address}:0", "--label", "made here", "--yes", "--json").json()
    assert done["kind"] == "fat16"
    node = scratch.units[0].node
    done = subprocess.run(["blkid", "-p", node], check=True, capture_output=True, text=True)
    assert 'LABEL_FATBOOT="MADE HERE"' in done.stdout
    assert 'TYPE="vfat"' in done.stdout
    folder = tmp_path / "mnt"
    folder.mkdir()
    with mounted(node, folder):
        (folder / "a").write_bytes(b"1" * 100_000)
    done = subprocess.run(["fsck.vfat", "-n", node], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert cli("cat", f"{scratch.address}:0", "/a").ok().out == b"1" * 100_000
