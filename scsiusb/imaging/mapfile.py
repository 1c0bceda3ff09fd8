"""The map of a rescue: what was rescued, what failed and how; its file has the format of GNU ddrescue's map files.

The file has comments (`#`), a status line (position, status, pass), and a line for each area (position, size, status).
Positions and sizes are in bytes. ddrescue and ddrescuelog read these files, and this module reads theirs.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from scsiusb._version import __version__
from scsiusb.base.files import named
from scsiusb.errors import ImageError

NON_TRIED: Final = "?"
NON_TRIMMED: Final = "*"
NON_SCRAPED: Final = "/"
BAD: Final = "-"
RESCUED: Final = "+"
STATUSES: Final = "?*/-+"  # each may follow those before it
FINISHED: Final = "+"  # as the status of the job
JOB_STATUSES: Final = "?*/-FG+"  # ddrescue also has F (filling) and G (generating)

LARGEST: Final = 256 * 1024 * 1024  # bytes of a map file; one with a million areas has some 35 MB
END: Final = 1 << 63  # ddrescue's positions have 63 bits
NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]{1,16}|[0-9]{1,19}")
PASS: Final = re.compile(r"[1-9][0-9]{0,8}")
BACKUP: Final = ".bak"
TEMPORARY: Final = ".tmp"
REMEDY: Final = "give the map file that belongs to the image, or another name to begin anew"


class Area(NamedTuple):
    """Bytes next to each other that have the same status."""

    pos: int
    size: int
    status: str
    """"?" not tried, "*" failed in a large command, "/" is between bad blocks, "-" bad, "+" rescued."""

    @property
    def end(self) -> int:
        """The position after the last byte."""
        return self.pos + self.size


class Stage(NamedTuple):
    """What a rescue does now: its status line."""

    pos: int
    status: str
    number: int
    """Of the pass, from 1."""


BEGINNING: Final = Stage(0, NON_TRIED, 1)


class RescueMap:
    """The areas of a device, from its first byte to its last, and the stage of the job."""

    def __init__(self, size: int, areas: list[Area] | None = None, stage: Stage = BEGINNING) -> None:
        """`areas`: contiguous from 0 to `size`; by default nothing was tried."""
        self.size = size
        self.stage = stage
        self._marks = [(area.pos, area.status) for area in areas or [Area(0, size, NON_TRIED)]]
        """Where each area begins, and its status. Changed by one assignment at a time, which Ctrl-C cannot divide."""

    def areas(self, start: int = 0, end: int | None = None) -> Iterator[Area]:
        """Yield the areas from `start` to `end`, by default all, cut off there."""
        end = self.size if end is None else end
        marks = self._marks
        for at in range(self._index(start), len(marks)):
            first = max(marks[at][0], start)
            last = min(marks[at + 1][0] if at + 1 < len(marks) else self.size, end)
            if first >= end:
                return
            yield Area(first, last - first, marks[at][1])

    def find(self, statuses: str, start: int, end: int) -> Area | None:
        """Return the first area between `start` and `end` that has one of the statuses, cut off there."""
        return next((area for area in self.areas(start, end) if area.status in statuses), None)

    def find_last(self, statuses: str, start: int, end: int) -> Area | None:
        """Return the last area between `start` and `end` that has one of the statuses, cut off there."""
        if start >= end:
            return None
        marks = self._marks
        last = end
        for at in range(self._index(end - 1), -1, -1):
            first = max(marks[at][0], start)
            if marks[at][1] in statuses:
                return Area(first, last - first, marks[at][1])
            if first == start:
                return None
            last = first
        return None

    def status_at(self, pos: int) -> str:
        """Return the status of the byte at `pos`; "" before the first byte and after the last."""
        return self._marks[self._index(pos)][1] if 0 <= pos < self.size else ""

    def mark(self, pos: int, size: int, status: str) -> None:
        """Give `size` bytes from `pos` on a status."""
        if size <= 0:
            return
        marks, end = self._marks, pos + size
        first = self._index(pos)
        after = self._index(end - 1) + 1
        following = marks[after] if after < len(marks) else (self.size, "")
        fresh = [(pos, status)]
        if marks[first][0] < pos:  # a part of the area before stays
            fresh = [(pos, status)] if marks[first][1] != status else []
            first += 1
        elif first > 0 and marks[first - 1][1] == status:
            fresh = []
        if end < following[0]:
            if marks[after - 1][1] != status:
                fresh.append((end, marks[after - 1][1]))
        elif following[1] == status:
            after += 1
        marks[first:after] = fresh

    def total(self, status: str, start: int = 0, end: int | None = None) -> int:
        """Return how many bytes have the status."""
        return sum(area.size for area in self.areas(start, end) if area.status == status)

    def _index(self, pos: int) -> int:
        return max(bisect_right(self._marks, (pos, "\x7f")) - 1, 0)


# --- the file -------------------------------------------------------------------------------------


def load(path: Path, size: int, block_size: int) -> RescueMap:
    """Return the map in the file, for a device of `size` bytes; an empty file says that nothing was tried.

    A map that ends before the device does continues as not tried, as of a rescue of a part of it. A block of which
    parts have different statuses gets the least of them. Raise ImageError for anything else that ddrescue would not
    have written, or for what is no regular file, which `save` would replace; OSError.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ImageError(f"{path} is no regular file: it cannot be a map file", "give another file")
    if found.st_size > LARGEST:
        raise ImageError(f"{path} is too large to be a map file", REMEDY)
    try:
        text = path.read_bytes().decode("ascii", "replace")
        stage, areas = _parse(text)
        return RescueMap(size, _whole_blocks(_fitted(areas, size), block_size), stage)
    except ValueError as error:
        raise ImageError(f"{path}: {error}", REMEDY) from error


def _parse(text: str) -> tuple[Stage, list[Area]]:
    """Return the status line, and the areas as they are in the file. Raise ValueError, with the line's number."""
    stage: Stage | None = None
    areas: list[Area] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = re.sub(r"(^|\s)#.*", "", line).split()
        if not words:
            continue
        try:
            if stage is None:
                stage = _stage(words)
            else:
                areas.append(_area(words, areas[-1].end if areas else None))
        except ValueError as error:
            raise ValueError(f"line {number} is no line of a map file: {error}") from error
    if stage is not None and not areas:
        raise ValueError("it has a status line, and no areas: it is cut off")
    return stage or BEGINNING, areas


def _stage(words: list[str]) -> Stage:
    if len(words) not in (2, 3):  # ddrescue has written the pass since 1.20
        raise ValueError(f"a status line has 3 words, not {len(words)}")
    if words[1] not in JOB_STATUSES or len(words[1]) != 1:
        raise ValueError(f"{words[1][:20]!r} is no status of a rescue")
    if len(words) == 3 and not PASS.fullmatch(words[2]):
        raise ValueError(f"{words[2][:20]!r} is no number of a pass")
    return Stage(_number(words[0]), words[1], int(words[2]) if len(words) == 3 else 1)


def _area(words: list[str], expected: int | None) -> Area:
    if len(words) != 3:
        raise ValueError(f"an area has 3 words, not {len(words)}")
    pos, size, status = _number(words[0]), _number(words[1]), words[2]
    if status not in STATUSES or len(status) != 1:
        raise ValueError(f"{status[:20]!r} is no status of an area")
    if not size or pos + size > END:
        raise ValueError(f"an area of {size} bytes at {pos} is not possible")
    if expected is not None and pos != expected:
        raise ValueError(f"the area begins at {pos:#x}, the one before it ends at {expected:#x}")
    return Area(pos, size, status)


def _number(word: str) -> int:
    """Parse a number as in C: hexadecimal with 0x, octal with 0, or decimal."""
    if not NUMBER.fullmatch(word):
        raise ValueError(f"{word[:20]!r} is no number")
    base = 16 if word[1:2] in ("x", "X") else 8 if word[0] == "0" and len(word) > 1 else 10
    return int(word, base)


def _fitted(areas: list[Area], size: int) -> list[Area]:
    """Return the areas for a device of that size. Raise ValueError if something was tried beyond its end."""
    if not areas:
        return [Area(0, size, NON_TRIED)]
    if areas[0].pos:
        areas = [Area(0, areas[0].pos, NON_TRIED), *areas]
    if areas[-1].end < size:
        areas = [*areas, Area(areas[-1].end, size - areas[-1].end, NON_TRIED)]
    beyond = next((area for area in areas if area.end > size and area.status != NON_TRIED), None)
    if beyond is not None:
        raise ValueError(f"its area at {beyond.pos:#x} ends at {beyond.end:#x}, the device at {size:#x}")
    return [Area(area.pos, min(area.end, size) - area.pos, area.status) for area in areas if area.pos < size]


def _whole_blocks(areas: list[Area], block_size: int) -> list[Area]:
    """Return the areas with their edges between blocks; a block with several statuses has the least of them."""
    if all(area.pos % block_size == 0 for area in areas):
        return areas
    edges = RescueMap(areas[-1].end, areas)
    whole = RescueMap(areas[-1].end, areas)
    for area in areas:
        start = area.pos - area.pos % block_size
        if start != area.pos:
            least = min((each.status for each in edges.areas(start, start + block_size)), key=STATUSES.index)
            whole.mark(start, block_size, least)
    return list(whole.areas())


def save(path: Path, rescue_map: RescueMap) -> None:
    """Write the file, in one step that a crash cannot divide; the file as it was stays as FILE.bak. Raise OSError."""
    real = path.resolve()  # a link stays one
    temporary = real.with_name(real.name + TEMPORARY)
    with named(path, temporary), open(temporary, "w", encoding="ascii", newline="\n") as file:
        file.writelines(f"{line}\n" for line in _lines(rescue_map))
        file.flush()
        os.fsync(file.fileno())
    with suppress(OSError):  # "if possible", as ddrescue says; the map itself must be written
        shutil.copyfile(real, real.with_name(real.name + BACKUP))
    os.replace(temporary, real)


def _lines(rescue_map: RescueMap) -> Iterator[str]:
    stage = rescue_map.stage
    yield f"# Mapfile. Created by scsiusb {__version__}"
    yield "# current_pos  current_status  current_pass"
    yield f"0x{stage.pos:08X}     {stage.status}               {stage.number}"
    yield "#      pos        size  status"
    for area in rescue_map.areas():
        yield f"0x{area.pos:08X}  0x{area.size:08X}  {area.status}"
