"""Reads return the bytes of the backing file; writes change exactly their bytes in it."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path

import pytest

import scsiusb
from scsiusb.scsi.commands.sbc import Verify10

from .command import scsiusb as cli
from .machine import Device, Unit, units, zoo

WITH_MEDIUM = units(medium=True)
WRITABLE = [unit for unit in WITH_MEDIUM if unit.device.name in ("scratch", "gadget-high", "gadget-super", "stick-4k")]
SEED = 20261122
MOST = 700  # blocks: needs more than one command at any speed
BOUNDARY = (2 << 40) // 512


def places(unit: Unit) -> list[tuple[int, int]]:
    """Return pairs of LBA and blocks: both ends, odd counts, and random ones where the content is random."""
    source = random.Random(f"{SEED} {unit}")
    ends = [(0, 1), (unit.blocks - 1, 1), (0, 3), (unit.blocks - 5, 5)]
    for offset, length in unit.regions or ((0, unit.size),):
        first, count = offset // unit.block_size, length // unit.block_size
        for _ in range(6):
            blocks = source.randint(1, min(MOST, count))
            ends.append((first + source.randint(0, count - blocks), blocks))
    return ends


@pytest.mark.parametrize("unit", WITH_MEDIUM, ids=str)
def test_random_reads_equal_the_backing_file(unit: Unit) -> None:
    with scsiusb.open(unit.device.wait().address, lun=unit.lun) as disk:
        for lba, blocks in places(unit):
            assert disk.read(lba, blocks) == unit.backing(lba, blocks), (lba, blocks)


def test_reads_across_two_tebibytes(huge: Unit) -> None:
    with scsiusb.open(huge.device.address, lun=huge.lun) as disk:
        assert disk.blocks == huge.blocks > BOUNDARY * 1.4
        for lba, blocks in [(BOUNDARY - 1, 2), (BOUNDARY - 1, 1), (BOUNDARY, 1), (BOUNDARY - 1000, 3333)]:
            assert disk.read(lba, blocks) == huge.backing(lba, blocks)
        last = huge.backing(huge.blocks - 1, 1)
        assert disk.read(huge.blocks - 1, 1) == last != bytes(512)


def test_the_command_reads_a_whole_stick_into_a_file(stick_4k: Device, tmp_path: Path) -> None:
    unit = stick_4k.units[0]
    cli("read", stick_4k.address, "--lba", 0, "--blocks", unit.blocks, "-o", tmp_path / "image").ok()
    assert unit.path is not None
    assert digest(tmp_path / "image") == digest(unit.path)


def test_the_command_reads_into_a_pipe(stick: Device) -> None:
    unit = stick.units[0]
    ended = cli("read", f"serial={stick.serial}", "--lba", unit.blocks - 1).ok()
    assert ended.out == unit.backing(unit.blocks - 1, 1)
    assert ended.err == ""


@pytest.mark.parametrize("unit", WRITABLE, ids=str)
def test_writes_change_only_their_blocks_of_the_backing_file(unit: Unit) -> None:
    if unit.read_only:
        before = whole(unit)
        with pytest.raises(scsiusb.DataProtect), scsiusb.open(unit.device.wait().address, lun=unit.lun) as disk:
            disk.write(0, bytes(unit.block_size))
        assert whole(unit) == before
        return
    wanted = bytearray(whole(unit))
    source = random.Random(f"{SEED} write {unit}")
    with scsiusb.open(unit.device.wait().address, lun=unit.lun) as disk:
        for lba, blocks in places(unit):
            data = source.randbytes(blocks * unit.block_size)
            wanted[lba * unit.block_size : (lba + blocks) * unit.block_size] = data
            assert disk.write(lba, data) == blocks
        disk.flush()
        assert digest_of(whole(unit)) == digest_of(bytes(wanted))
        disk.execute(Verify10(0, min(unit.blocks, 0xFFFF)))
    unit.device.wait()
    assert unit.kernel_read(0, 8) == bytes(wanted[: 8 * unit.block_size])


def test_writes_across_two_tebibytes(huge: Unit) -> None:
    data = os.urandom(512 * 5)
    before = huge.backing(BOUNDARY - 10, 30)
    with scsiusb.open(huge.device.address, lun=huge.lun) as disk:
        old = disk.read(BOUNDARY - 2, 5)
        disk.write(BOUNDARY - 2, data)
        disk.flush()
        assert huge.backing(BOUNDARY - 10, 30) == before[: 8 * 512] + data + before[13 * 512 :]
        assert huge.backing(0, 8) == disk.read(0, 8)
        disk.write(BOUNDARY - 2, old)


def test_the_command_writes_a_file_and_reads_it_back(scratch: Device, tmp_path: Path) -> None:
    unit = scratch.units[0]
    image = tmp_path / "image"
    image.write_bytes(os.urandom(5000 * 512))
    before = whole(unit)
    cli("write", scratch.address, "--lba", 77, "-i", image, "--yes", "--verify").ok()
    assert whole(unit) == before[: 77 * 512] + image.read_bytes() + before[5077 * 512 :]


def whole(unit: Unit) -> bytes:
    return unit.backing(0, unit.blocks)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return digest_of(file.read())


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_the_zoo_has_the_devices_that_these_tests_need() -> None:
    assert {unit.block_size for unit in WITH_MEDIUM} == {512, 2048, 4096}
    assert {device.speed for device in zoo().values()} == {480, 5000}
    assert any(unit.read_only for unit in WRITABLE)
