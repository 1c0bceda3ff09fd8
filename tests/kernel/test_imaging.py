"""Whole disks of the zoo are copied to images and back, through the real kernel and libusb."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .command import scsiusb as cli
from .machine import Device, Unit, units

pytestmark = pytest.mark.native("under emulation they take minutes")

LARGEST = 64 << 20  # bytes
UNITS = [unit for unit in units(medium=True) if unit.size <= LARGEST]
FORMATS = ["a.img", "a.gz", "a.bz2", "a.xz", "a.zst"]


def whole(unit: Unit) -> bytes:
    return unit.backing(0, unit.blocks)


@pytest.mark.parametrize("unit", UNITS, ids=str)
def test_a_dump_has_the_bytes_of_the_backing_file(unit: Unit, tmp_path: Path) -> None:
    address = unit.device.wait().address
    done = cli("dump", address, tmp_path / "a.zst", "--lun", unit.lun, "--json").json()
    assert done["sha256"] == hashlib.sha256(whole(unit)).hexdigest()
    assert cli("compare", tmp_path / "a.zst", address, "--lun", unit.lun, "--json").json()["equal"] is True


@pytest.mark.parametrize("name", FORMATS)
def test_a_disk_is_restored_from_each_format(name: str, scratch: Device, tmp_path: Path) -> None:
    unit = scratch.units[0]
    before = whole(unit)
    cli("dump", scratch.address, tmp_path / name).ok()
    cli("erase", scratch.wait().address, "--pattern", "a5", "--verify", "none", "--yes").ok()
    assert whole(unit) == b"\xa5" * unit.size
    (done,) = cli("restore", tmp_path / name, scratch.wait().address, "--yes", "--json").json()
    assert (done["verified"], done["error"], done["bytes"]) == ("medium", None, unit.size)
    assert whole(unit) == before


def test_jobs_that_are_killed_go_on(scratch: Device, tmp_path: Path) -> None:
    unit = scratch.units[0]
    before = whole(unit)
    image = tmp_path / "a.img.gz"
    kill_once_begun(tmp_path, "dump", scratch.address, str(image))
    cli("dump", scratch.wait().address, image, "--resume").ok()
    cli("erase", scratch.wait().address, "--pattern", "5a", "--verify", "none", "--yes").ok()
    kill_once_begun(tmp_path, "restore", str(image), scratch.wait().address, "--yes")
    (done,) = cli("restore", image, scratch.wait().address, "--yes", "--resume", "--json").json()
    assert (done["verified"], done["error"]) == ("medium", None)
    assert whole(unit) == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.img.gz"]


def kill_once_begun(folder: Path, *words: str) -> None:
    """Kill the command when its journal has a record."""
    command = [sys.executable, "-m", "scsiusb", *words]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            if any(path.read_bytes().count(b"\n") > 1 for path in folder.glob("*.journal")):
                process.kill()
                break
            time.sleep(0.005)
        assert process.wait() < 0, "it ended before it was killed"
