"""What a rescue keeps: the image, the map file, and between two saves of that a journal of each change of it.

The map file is saved every 30 seconds, after the image is on the host's disk. The journal has, for what was rescued
since, a digest: a crash of the host may lose bytes of the image whose record survives.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from scsiusb.base.copying import Uncopyable
from scsiusb.disk.witness import is_distinct
from scsiusb.errors import ImageError
from scsiusb.imaging.identity import DiskIdentity, digest_of
from scsiusb.imaging.journal import Journal, is_begun, journal_of, read_journal
from scsiusb.imaging.mapfile import RESCUED, STATUSES, Area, RescueMap, Stage, load, save

SAVE_EVERY: Final = 30.0  # seconds
MOST_KNOWN: Final = 16  # blocks by which a device is known again
BINARY: Final = getattr(os, "O_BINARY", 0)
REMEDY: Final = "give the image and the map file of one rescue, or new names for both"
NEW: Final = ".new"


class InPlaceFile(Uncopyable):
    """An image that is written at any position, and is at least `size` bytes long from the start on. Close it."""

    def __init__(self, path: Path, size: int) -> None:
        """Open the file, and make it if there is none. Raise ImageError if it is no regular file, OSError."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | BINARY, 0o666)
        try:
            found = os.fstat(self._descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise ImageError(f"{path} is no regular file: a rescue cannot go on in it", "give another file")
            if found.st_size < size:
                os.ftruncate(self._descriptor, size)
        except BaseException:
            self.close()
            raise

    def read(self, pos: int, size: int) -> bytes:
        """Return bytes of the file; fewer at its end."""
        os.lseek(self._descriptor, pos, os.SEEK_SET)
        found = bytearray()
        while len(found) < size:
            piece = os.read(self._descriptor, size - len(found))
            if not piece:
                break
            found += piece
        return bytes(found)

    def write(self, pos: int, data: bytes) -> None:
        """Write bytes; zeros where there are zeros stay a hole, which takes no space on the host's disk."""
        if data.count(0) == len(data) and self.read(pos, len(data)) == data:
            return
        os.lseek(self._descriptor, pos, os.SEEK_SET)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def sync(self) -> None:
        """Return when all that was written is on the host's disk."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file. May be called again."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class RescueRecord(Uncopyable):
    """The image, the map and the journal of a rescue. Use it in a `with`, which saves the map at its end."""

    def __init__(self, path: Path, map_path: Path, device: DiskIdentity) -> None:
        """Open what is there, or begin. Raise DeviceMismatch if it is of another device, ImageError, OSError."""
        self._map_path = map_path
        self._journal_path = journal_of(map_path)
        self._device = device
        self._journal: Journal | None = None
        self._left: set[int] = set()
        self._is_finished = False
        self.has_journal = False
        """Whether an earlier run of this program wrote a journal, which says which device it was."""
        size, is_new = device.blocks * device.block_size, not map_path.exists()
        records = [] if is_new else self._earlier_records()
        self.map = RescueMap(size) if is_new else load(map_path, size, device.block_size)
        self._check_image(path, is_new=is_new)
        if is_new:  # before the image: one that has data, but no map, is refused
            save(map_path, self.map)
        self._file = InPlaceFile(path, size)
        try:
            for record in records:
                self._replay(record)
            self.rescued_bytes = self.map.total(RESCUED)
            """How many bytes of the device are rescued."""
            self.save()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> RescueRecord:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            if not self._is_finished:
                self.save()
        finally:
            self.close()

    def close(self) -> None:
        """Close the files; what was not saved is in the journal. May be called again."""
        if self._journal is not None:
            self._journal.close()
        self._file.close()

    def finish(self) -> None:
        """Save the map for the last time, and remove the journal: all is rescued."""
        self.save()
        if self._journal is not None:
            self._journal.remove()
        self._is_finished = True

    # --- what was there ---------------------------------------------------------------------------

    def _earlier_records(self) -> list[dict[str, Any]]:
        """Return the records of the journal; none if ddrescue made the map. Raise DeviceMismatch, ImageError."""
        if not is_begun(self._journal_path):
            return []
        job, records, _ = read_journal(self._journal_path)
        if job.get("job") != "rescue":
            raise ImageError(f"{self._journal_path} is the journal of another job", REMEDY)
        self._device.check(job.get("device"))
        self.has_journal = True
        left = job.get("left")
        self._left = {each for each in left if isinstance(each, int)} if isinstance(left, list) else set()
        return records

    def _check_image(self, path: Path, *, is_new: bool) -> None:
        """Raise ImageError for an image that has data and no map, and for a map whose image does not have its data."""
        length = path.stat().st_size if path.exists() else 0
        if is_new and length:
            raise ImageError(f"{path} has data, and {self._map_path} does not exist: what is rescued?", REMEDY)
        last = self.map.find_last(RESCUED, 0, self.map.size)
        if last is not None and length < last.end:
            what = f"{self._map_path} says that {last.end} bytes are rescued, {path} has only {length}"
            raise ImageError(what, REMEDY)

    def _replay(self, record: dict[str, Any]) -> None:
        """Repeat a change that was not saved. A status never goes back: ddrescue may have gone on with the map."""
        pos, size, status = record.get("pos"), record.get("size"), record.get("status")
        if isinstance(left := record.get("left"), int):
            self._left.add(left)
        if not isinstance(pos, int) or not isinstance(size, int) or status not in tuple(STATUSES):
            return
        if not 0 <= pos < pos + size <= self.map.size or (pos | size) % self._device.block_size:
            return
        if status == RESCUED and digest_of(self._file.read(pos, size)) != record.get("digest"):
            return
        for area in list(self.map.areas(pos, pos + size)):
            if STATUSES.index(area.status) < STATUSES.index(status):
                self.map.mark(area.pos, area.size, status)

    # --- what happens -----------------------------------------------------------------------------

    def stage(self, pos: int, status: str, number: int) -> None:
        """Set what the rescue does now: where, in which phase, and in which of its passes."""
        self.map.stage = Stage(pos, status, number)

    def rescued(self, pos: int, data: bytes) -> None:
        """Write bytes that were read with good status to the image, and then to the map."""
        self._file.write(pos, data)
        self._note(pos=pos, size=len(data), status=RESCUED, digest=digest_of(data))
        self.map.mark(pos, len(data), RESCUED)
        self.rescued_bytes += len(data)
        self._save_at_times()

    def mark(self, pos: int, size: int, status: str) -> None:
        """Give bytes that could not be read a status."""
        if not size:
            return
        self._note(pos=pos, size=size, status=status)
        self.map.mark(pos, size, status)
        self._save_at_times()

    def left(self, pos: int) -> bool:
        """Note that the device left the bus while the block at `pos` was read; return whether that had happened."""
        if pos in self._left:
            return True
        self._note(left=pos)
        self._left.add(pos)
        return False

    def known_blocks(self) -> Iterator[tuple[int, bytes]]:
        """Yield some rescued blocks, as LBA and bytes; first those with distinct contents."""
        size = self._device.block_size
        areas = [area for area in self.map.areas() if area.status == RESCUED]
        step = -(-len(areas) // MOST_KNOWN) or 1
        places = [pos for area in areas[::step] for pos in _places(area, MOST_KNOWN // min(len(areas), MOST_KNOWN))]
        blocks = [(pos // size, self._file.read(pos - pos % size, size)) for pos in places]
        yield from sorted(blocks[:MOST_KNOWN], key=lambda block: not is_distinct(block[1]))

    # --- saving -----------------------------------------------------------------------------------

    def _note(self, **record: Any) -> None:
        if self._journal is not None:
            self._journal.add(**record)

    def _save_at_times(self) -> None:
        if time.monotonic() >= self._next_save:
            self.save()

    def save(self) -> None:
        """Have the image on the host's disk, then the map; then begin the journal anew."""
        self._file.sync()
        save(self._map_path, self.map)
        self._begin_journal()
        self._next_save = time.monotonic() + SAVE_EVERY

    def _begin_journal(self) -> None:
        """Replace the journal by one that has no changes, in one step that a crash cannot divide."""
        fresh = Journal(self._journal_path.with_name(self._journal_path.name + NEW))
        try:
            fresh.begin(job="rescue", device=self._device.record(), left=sorted(self._left))
        finally:
            fresh.close()
        if self._journal is not None:
            self._journal.close()
        os.replace(fresh.path, self._journal_path)
        self._journal = Journal(self._journal_path, self._journal_path.stat().st_size)


def _places(area: Area, count: int) -> list[int]:
    """Return the positions of so many bytes of an area, evenly spaced, with its first."""
    step = max(area.size // max(count, 1), 1)
    return list(range(area.pos, area.end, step))[: max(count, 1)]
