"""Disks of the zoo are copied to images and back, through the real kernel and libusb.

In both labs: the first blocks of every disk, and the last ones of the huge one. Natively each disk in each format;
under emulation, where packing a MiB as bzip2 takes ten seconds, each in one, in turn, so that each format is met.
Natively only: whole disks, images of many frames, and jobs that are killed.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

import scsiusb
from scsiusb.imaging import compare, dump, restore

from .command import scsiusb as cli
from .machine import Device, Unit, is_native, units

slowly = pytest.mark.native("under emulation they take minutes")

LARGEST = 64 << 20  # bytes
UNITS = [unit for unit in units(medium=True) if unit.size <= LARGEST]
FORMATS = ["a.img", "a.gz", "a.bz2", "a.xz", "a.zst"]
OPENERS = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}  # by the end of the image's name
RANGE = (128 << 10) + 5 * 4096  # bytes of a disk
WRITABLE = [unit for unit in units(medium=True) if unit.type == "disk" and not unit.read_only]
FIXED = [unit for unit in units(medium=True) if unit not in WRITABLE]
DIAGONAL = [(unit, FORMATS[at % len(FORMATS)]) for at, unit in enumerate(WRITABLE)]
PAIRS = [(unit, name) for unit in WRITABLE for name in FORMATS] if is_native() else DIAGONAL


def whole(unit: Unit) -> bytes:
    return unit.backing(0, unit.blocks)


def digest(data: bytes) -> str:
    """Return what is compared in place of the bytes, of whose differences pytest would make a report for minutes."""
    return hashlib.sha256(data).hexdigest()


def opened(unit: Unit) -> scsiusb.Disk:
    return scsiusb.open(unit.device.wait().address, lun=unit.lun)


def contents_of(image: Path) -> bytes:
    """Return what the format's own program gets out of the image; of a raw one its bytes."""
    program = OPENERS.get(image.suffix)
    if program is None:
        return image.read_bytes()
    subprocess.run([program, "-t", "-q", image], check=True, timeout=60)
    return subprocess.run([program, "-d", "-c", image], check=True, timeout=60, stdout=subprocess.PIPE).stdout


@pytest.mark.parametrize(("unit", "name"), PAIRS, ids=str)
def test_every_disk_is_dumped_compared_and_restored(unit: Unit, name: str, tmp_path: Path) -> None:
    """All in one opening, as the kernel's probe after each one takes seconds under emulation."""
    blocks = min(RANGE, unit.size) // unit.block_size
    before = unit.backing(0, blocks)
    other = before[::-1]
    image = tmp_path / name
    with opened(unit) as disk:
        done = dump(disk, image, blocks=blocks)
        assert digest(contents_of(image)) == digest(before)
        try:
            disk.write(0, other)
            disk.flush()  # a gadget with blocks of 4096 bytes stands on a loop device, which has a cache
            assert digest(unit.backing(0, blocks)) == digest(other)
            assert not compare(image, disk).equal
            (result,) = restore(image, disk)
            assert digest(unit.backing(0, blocks)) == digest(before)
        finally:
            disk.write(0, before)
        assert compare(image, disk).equal
    assert done.sha256 == digest(before)
    assert (result.verified, result.error, result.written) == ("medium", None, len(before))


@pytest.mark.parametrize("unit", FIXED, ids=str)
def test_every_unit_that_cannot_be_written_is_dumped_and_compared(unit: Unit, tmp_path: Path) -> None:
    blocks = min(RANGE, unit.size) // unit.block_size
    with opened(unit) as disk:
        dump(disk, tmp_path / "a.zst", blocks=blocks)
        assert compare(tmp_path / "a.zst", disk).equal
    assert digest(contents_of(tmp_path / "a.zst")) == digest(unit.backing(0, blocks))


def test_the_end_of_a_huge_disk_is_dumped(huge: Unit, tmp_path: Path) -> None:
    """Its addresses do not fit into the commands with 32 bits."""
    blocks = RANGE // huge.block_size
    with opened(huge) as disk:
        dump(disk, tmp_path / "a.zst", lba=huge.blocks - blocks)
    assert digest(contents_of(tmp_path / "a.zst")) == digest(huge.backing(huge.blocks - blocks, blocks))


def test_every_format_is_met() -> None:
    assert {name for _, name in PAIRS} == set(FORMATS)
    assert {unit for unit, _ in PAIRS} == set(WRITABLE)


@slowly
@pytest.mark.parametrize("unit", UNITS, ids=str)
def test_a_dump_has_the_bytes_of_the_backing_file(unit: Unit, tmp_path: Path) -> None:
    address = unit.device.wait().address
    done = cli("dump", address, tmp_path / "a.zst", "--lun", unit.lun, "--json").json()
    assert done["sha256"] == digest(whole(unit))
    assert cli("compare", tmp_path / "a.zst", address, "--lun", unit.lun, "--json").json()["equal"] is True


@slowly
@pytest.mark.parametrize("name", FORMATS)
def test_a_disk_is_restored_from_each_format(name: str, scratch: Device, tmp_path: Path) -> None:
    unit = scratch.units[0]
    before = whole(unit)
    cli("dump", scratch.address, tmp_path / name).ok()
    cli("erase", scratch.wait().address, "--pattern", "a5", "--verify", "none", "--yes").ok()
    assert digest(whole(unit)) == digest(b"\xa5" * unit.size)
    (done,) = cli("restore", tmp_path / name, scratch.wait().address, "--yes", "--json").json()
    assert (done["verified"], done["error"], done["bytes"]) == ("medium", None, unit.size)
    assert digest(whole(unit)) == digest(before)


@slowly
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
    assert digest(whole(unit)) == digest(before)
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
