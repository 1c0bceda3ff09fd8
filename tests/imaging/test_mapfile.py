"""The map of a rescue: areas that always cover the device, and a file that GNU ddrescue wrote or could have written."""

from __future__ import annotations

import random
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from scsiusb.errors import ImageError
from scsiusb.imaging.mapfile import BEGINNING, STATUSES, Area, RescueMap, Stage, load, save

MANUALS_EXAMPLE = """\
# Mapfile. Created by GNU ddrescue version 1.27
# Command line: ddrescue -d -c18 /dev/fd0 fdimage mapfile
# Start time:   2015-07-21 09:37:44
# Current time: 2015-07-21 09:38:19
# Copying non-tried blocks... Pass 1 (forwards)
# current_pos  current_status  current_pass
0x00120000     ?               1
#      pos        size  status
0x00000000  0x00117000  +
0x00117000  0x00000200  -
0x00117200  0x00001000  /
0x00118200  0x00007E00  *
0x00120000  0x00048000  ?
"""
FLOPPY = 0x168000
EXAMPLES_AREAS = [
    Area(0, 0x117000, "+"),
    Area(0x117000, 0x200, "-"),
    Area(0x117200, 0x1000, "/"),
    Area(0x118200, 0x7E00, "*"),
    Area(0x120000, 0x48000, "?"),
]


def loaded(tmp_path: Path, text: str, size: int = FLOPPY, block_size: int = 512) -> RescueMap:
    (tmp_path / "map").write_text(text)
    return load(tmp_path / "map", size, block_size)


# --- the areas ------------------------------------------------------------------------------------


def runs(model: list[str], start: int, end: int) -> list[Area]:
    """Return the areas of a list that has the status of each byte."""
    found: list[Area] = []
    for at in range(start, end):
        if found and found[-1].status == model[at]:
            found[-1] = found[-1]._replace(size=found[-1].size + 1)
        else:
            found.append(Area(at, 1, model[at]))
    return found


@pytest.mark.parametrize("seed", range(40))
def test_the_areas_are_those_of_a_list_of_bytes(seed: int) -> None:
    chance = random.Random(seed)
    size = chance.randint(1, 40)
    found, model = RescueMap(size), ["?"] * size
    for _ in range(60):
        pos = chance.randrange(size)
        count, status = chance.randint(1, size - pos), chance.choice(STATUSES)
        found.mark(pos, count, status)
        model[pos : pos + count] = [status] * count
        assert list(found.areas()) == runs(model, 0, size)
        start = chance.randrange(size)
        end, statuses = chance.randint(start, size), "".join(chance.sample(STATUSES, 2))
        wanted = [area for area in runs(model, start, end) if area.status in statuses]
        assert list(found.areas(start, end)) == runs(model, start, end)
        assert found.find(statuses, start, end) == (wanted[0] if wanted else None)
        assert found.find_last(statuses, start, end) == (wanted[-1] if wanted else None)
        assert found.total(status, start, end) == model[start:end].count(status)
        assert found.status_at(pos) == model[pos]


def test_no_bytes_are_no_mark_and_there_is_nothing_outside() -> None:
    found = RescueMap(10)
    found.mark(3, 0, "+")
    assert list(found.areas()) == [Area(0, 10, "?")]
    assert (found.status_at(-1), found.status_at(10)) == ("", "")


# --- the file -------------------------------------------------------------------------------------


def test_the_example_of_ddrescues_manual(tmp_path: Path) -> None:
    found = loaded(tmp_path, MANUALS_EXAMPLE)
    assert list(found.areas()) == EXAMPLES_AREAS
    assert found.stage == Stage(0x120000, "?", 1)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_saved_is_loaded_again(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    wanted = RescueMap(1 << 40)
    for _ in range(100):
        wanted.mark(chance.randrange(1 << 30) * 512, 512 * chance.randint(1, 1 << 10), chance.choice(STATUSES))
    wanted.stage = Stage(512, "-", 3)
    save(tmp_path / "map", wanted)
    found = load(tmp_path / "map", wanted.size, 512)
    assert list(found.areas()) == list(wanted.areas())
    assert found.stage == wanted.stage


def test_the_file_before_stays_as_bak_and_nothing_else_is_left(tmp_path: Path) -> None:
    found = loaded(tmp_path, MANUALS_EXAMPLE)
    found.mark(0, FLOPPY, "+")
    save(tmp_path / "map", found)
    assert (tmp_path / "map.bak").read_text() == MANUALS_EXAMPLE
    assert {path.name for path in tmp_path.iterdir()} == {"map", "map.bak"}


def test_a_map_in_a_folder_that_is_not_there_is_named_as_it_was_given(tmp_path: Path) -> None:
    found = loaded(tmp_path, MANUALS_EXAMPLE)
    with pytest.raises(FileNotFoundError) as caught:
        save(tmp_path / "none" / "map", found)
    assert caught.value.filename == str(tmp_path / "none" / "map")


def test_a_map_is_as_before_if_it_cannot_be_saved(tmp_path: Path) -> None:
    found = loaded(tmp_path, MANUALS_EXAMPLE)
    (tmp_path / "map.tmp").mkdir()
    with pytest.raises(OSError, match=r"map\.tmp"):
        save(tmp_path / "map", found)
    assert (tmp_path / "map").read_text() == MANUALS_EXAMPLE


def test_a_link_to_a_map_stays_a_link(tmp_path: Path) -> None:
    found = loaded(tmp_path, MANUALS_EXAMPLE)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "map")
    save(link, found)
    assert link.is_symlink()
    assert list(load(tmp_path / "map", FLOPPY, 512).areas()) == EXAMPLES_AREAS


@pytest.mark.skipif(not Path("/dev/null").is_char_device(), reason="needs a device that anybody may write to")
def test_a_device_is_no_map_and_is_not_replaced() -> None:
    with pytest.raises(ImageError, match="/dev/null is no regular file"):
        load(Path("/dev/null"), FLOPPY, 512)


@pytest.mark.parametrize("text", ["", "# only a comment\n\n"])
def test_an_empty_file_says_that_nothing_was_tried(text: str, tmp_path: Path) -> None:
    found = loaded(tmp_path, text)
    assert list(found.areas()) == [Area(0, FLOPPY, "?")]
    assert found.stage == BEGINNING


def test_numbers_may_be_decimal_or_octal_and_comments_after_them(tmp_path: Path) -> None:
    found = loaded(tmp_path, "1024 + # done\n0 01000 +\n0x200 512 -\t# bad\n", 1024)
    assert list(found.areas()) == [Area(0, 512, "+"), Area(512, 512, "-")]
    assert found.stage == Stage(1024, "+", 1)


def test_a_part_of_the_device_is_continued_as_not_tried(tmp_path: Path) -> None:
    found = loaded(tmp_path, "0 ? 1\n1024 512 +\n", 4096)
    assert list(found.areas()) == [Area(0, 1024, "?"), Area(1024, 512, "+"), Area(1536, 2560, "?")]


def test_the_end_of_a_map_that_was_made_without_knowing_the_size(tmp_path: Path) -> None:
    found = loaded(tmp_path, "0 ? 1\n0 512 +\n512 0x7FFFFFFFFFFFFDFF ?\n", 4096)
    assert list(found.areas()) == [Area(0, 512, "+"), Area(512, 3584, "?")]


def test_a_block_with_several_statuses_has_the_least(tmp_path: Path) -> None:
    text = "0 ? 1\n0 4608 +\n4608 3584 -\n8192 512 *\n8704 7680 +\n"
    found = loaded(tmp_path, text, 16384, 4096)
    assert [(area.pos, area.status) for area in found.areas()] == [(0, "+"), (4096, "-"), (8192, "*"), (12288, "+")]


HOSTILE = {
    "no status line": "0 0x168000 ?\n",
    "two words": "0 ? 1\n0 0x168000\n",
    "four words": "0 ? 1\n0 0x168000 ? x\n",
    "an unknown status": "0 ? 1\n0 0x168000 x\n",
    "two statuses": "0 ? 1\n0 0x168000 ++\n",
    "an unknown status of the job": "0 x 1\n0 0x168000 ?\n",
    "pass 0": "0 ? 0\n0 0x168000 ?\n",
    "a pass that is no number": "0 ? 0x1\n0 0x168000 ?\n",
    "a negative position": "0 ? 1\n-512 0x168000 ?\n",
    "no number": "0 ? 1\nzero 0x168000 ?\n",
    "a number of 100 digits": f"0 ? 1\n0 0x{'f' * 100} ?\n",
    "octal with a 9": "0 ? 1\n0 0900 ?\n",
    "an area without bytes": "0 ? 1\n0 0 ?\n",
    "an area beyond 63 bits": "0 ? 1\n0 0xFFFFFFFFFFFFFFFF ?\n",
    "a gap": "0 ? 1\n0 512 +\n1024 512 +\n",
    "an overlap": "0 ? 1\n0 1024 +\n512 512 +\n",
    "areas backwards": "0 ? 1\n512 512 +\n0 512 +\n",
    "more than the device": "0 ? 1\n0 0x168200 +\n",
    "a cut-off file": "0 ? 1\n",
    "no text": "\0\xff\0\xff\n",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_file_that_ddrescue_did_not_write_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="map"):
        loaded(tmp_path, text)


@pytest.mark.parametrize("seed", range(30))
def test_a_file_of_random_changes_is_a_map_or_refused(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    data = bytearray(MANUALS_EXAMPLE, "ascii")
    for _ in range(chance.randint(1, 4)):
        data[chance.randrange(len(data))] = chance.choice(b"0123456789ABCDEFx?*/-+# \n\0\xff")
    (tmp_path / "map").write_bytes(data)
    try:
        found = list(load(tmp_path / "map", FLOPPY, 512).areas())
    except ImageError:
        return
    assert found[0].pos == 0
    assert found[-1].end == FLOPPY
    assert all(one.end == other.pos and one.size > 0 for one, other in pairwise(found))


# --- ddrescuelog ----------------------------------------------------------------------------------


def ddrescuelog(*words: object) -> str:
    if shutil.which("ddrescuelog") is None:
        pytest.skip("ddrescuelog (package gddrescue) is not installed")
    return subprocess.run(
        ["ddrescuelog", *map(str, words)], check=True, capture_output=True, text=True, timeout=60
    ).stdout


def test_ddrescuelog_lists_the_same_blocks(tmp_path: Path) -> None:
    found = loaded(tmp_path, MANUALS_EXAMPLE)
    save(tmp_path / "ours", found)
    for status in STATUSES:
        parts = [area for area in found.areas() if area.status == status]
        wanted = [lba for area in parts for lba in range(area.pos // 512, area.end // 512)]
        assert [int(word) for word in ddrescuelog("-l", status, tmp_path / "ours").split()] == wanted
