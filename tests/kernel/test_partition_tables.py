"""Seeded partition tables: Linux, sfdisk and partx read them from a loop device, scsiusb from a virtual stick."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from uuid import UUID

import pytest

from tests.programs import run, sfdisk_table
from tests.volume.tables import LINUX, GptRow, MbrRow, gpt, put, record, table_of

from .machine import wait_for

pytestmark = pytest.mark.native("no device of QEMU's takes part")

BLOCKS = 2000  # User-Mode Linux has a mapping of the host's for each page, and a process there has 65,530 at most
SEEDS = range(6)
BASIC_DATA = UUID("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7")
Place = tuple[int, int, int]  # number, first block, blocks


def ranges(chance: random.Random, count: int, first: int, end: int) -> list[tuple[int, int]]:
    """Return first block and length of parts that do not overlap, some without a gap between them, not in order."""
    bounds = sorted(chance.sample(range(first, end), 2 * count))
    found = [(bounds[2 * at], bounds[2 * at + 1] - bounds[2 * at]) for at in range(count)]
    found = [
        (lba, found[at + 1][0] - lba if at + 1 < count and chance.random() < 0.3 else n)
        for at, (lba, n) in enumerate(found)
    ]
    chance.shuffle(found)
    return found


def primaries(chance: random.Random, block_size: int) -> bytearray:
    data = bytearray(BLOCKS * block_size)
    rows: list[MbrRow] = [
        (chance.choice([0x83, 0x07, 0x0C]), *each) for each in ranges(chance, chance.randint(1, 4), 1, BLOCKS)
    ]
    for at in sorted(chance.sample(range(4), 4 - len(rows))):
        rows.insert(min(at, len(rows)), (0, 0, 0))  # an entry that is empty keeps its number
    put(data, 0, record(*rows[:4]))
    return data


def extended(chance: random.Random, block_size: int) -> bytearray:
    """Return a disk with a primary partition, and a chain of logical drives, which may be linked in any order."""
    data = bytearray(BLOCKS * block_size)
    start, size = 500, 1400
    kind = chance.choice([0x05, 0x0F, 0x85])
    put(data, 0, record((0x83, 100, chance.randint(1, 400)), (kind, start, size)))
    slots = [start + at * 200 for at in range(7)]
    chain = [slots[0], *chance.sample(slots[1:], chance.randint(0, 6))]
    for at, place in enumerate(chain):
        gap = chance.randint(1, 9)
        rows: list[MbrRow] = [(chance.choice([0x83, 0x07, 0x82]), gap, chance.randint(1, 190))]
        if at + 1 < len(chain):
            rows.append((0x05, chain[at + 1] - start, 200))
        put(data, place * block_size, record(*rows))
    return data


def gpt_rows(chance: random.Random) -> list[GptRow]:
    places = ranges(chance, chance.randint(1, 20), 100, BLOCKS - 100)
    rows = [(chance.choice([LINUX, BASIC_DATA]), lba, lba + blocks - 1, f"part {lba}") for lba, blocks in places]
    for _ in range(chance.randint(0, 5)):
        rows.insert(chance.randint(0, len(rows)), (UUID(int=0), 0, 0, ""))
    return rows


def guid(chance: random.Random, block_size: int) -> bytearray:
    return gpt(BLOCKS, block_size, *gpt_rows(chance))


def hybrid(chance: random.Random, block_size: int) -> bytearray:
    rows = gpt_rows(chance)
    data = gpt(BLOCKS, block_size, *rows)
    shown = [(0x83, first, last - first + 1) for kind, first, last, _ in rows if kind.int][:3]
    put(data, 0, record((0xEE, 1, 99), *shown, signature=7))
    return data


KINDS = {"primary": primaries, "extended": extended, "gpt": guid, "hybrid": hybrid}


@contextmanager
def looped(path: Path, block_size: int) -> Iterator[Path]:
    """Give the kernel the file as a disk with these blocks, whose partitions it reads."""
    command = ["losetup", "--find", "--show", "--partscan", "--sector-size", str(block_size), str(path)]
    node = Path(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip())
    try:
        yield node
    finally:
        subprocess.run(["losetup", "--detach", node], check=True, timeout=60)


def of_the_kernel(node: Path, block_size: int) -> list[Place]:
    """Return what the kernel has in sysfs and in /proc/partitions; sizes there are in sectors of 512 bytes."""
    unit = block_size // 512
    found: list[Place] = []
    listed = {row.split()[3]: int(row.split()[2]) for row in Path("/proc/partitions").read_text().splitlines()[2:]}
    for folder in (Path("/sys/block") / node.name).glob(f"{node.name}p*"):
        number, start, size = (int((folder / name).read_text()) for name in ("partition", "start", "size"))
        assert listed[folder.name] == size // 2
        found.append((number, start // unit, size // unit))
    return sorted(found)


def of_sfdisk(node: Path) -> list[Place]:
    rows = sfdisk_table(node).get("partitions", [])
    return sorted((int(row["node"].rpartition("p")[2]), row["start"], row["size"]) for row in rows)


def of_partx(node: Path, block_size: int) -> list[Place]:
    """Return what partx reads by itself, with libblkid; in sectors of 512 bytes."""
    unit = block_size // 512
    rows = run("partx", "--show", "--noheadings", "--output", "NR,START,SECTORS", node).splitlines()
    places = [tuple(map(int, row.split())) for row in rows]
    return sorted((number, start // unit, size // unit) for number, start, size in places)


def _has(node: Path, block_size: int, wanted: list[Place], containers: set[int]) -> bool:
    """Return whether the kernel has these partitions; not while udev has them read again, and they come and go."""
    try:
        found = of_the_kernel(node, block_size)
    except (OSError, KeyError):
        return False
    return [(number, lba, 0 if number in containers else blocks) for number, lba, blocks in found] == wanted


@pytest.mark.parametrize("block_size", [512, 4096])
@pytest.mark.parametrize("kind", KINDS)
def test_all_read_the_same_partitions(kind: str, block_size: int, tmp_path: Path) -> None:
    for seed in SEEDS:
        data = KINDS[kind](random.Random(f"{kind} {block_size} {seed}"), block_size)
        table = table_of(bytearray(data), block_size)
        ours = sorted((each.number, each.lba, each.blocks) for each in table)
        containers = {each.number for each in table if each.is_container}
        path = tmp_path / "disk"
        path.write_bytes(data)
        with looped(path, block_size) as node:
            # Of an extended partition Linux shows two sectors, in which a boot loader has room.
            shown = [(number, lba, 0 if number in containers else blocks) for number, lba, blocks in ours]
            wait_for(partial(_has, node, block_size, shown, containers), f"Linux to have {kind} {seed}: {shown}", 20)
            assert of_sfdisk(node) == ours, (kind, seed)
            assert of_partx(node, block_size) == ours, (kind, seed)
        assert table.problems == (), (kind, seed)
