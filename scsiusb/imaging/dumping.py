"""Dump: copies a disk, or a part of it, to an image file; goes on where an interrupted run stopped."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any, Final, NamedTuple

from scsiusb.base.arguments import integer
from scsiusb.base.dataclass import dataclass
from scsiusb.base.files import named
from scsiusb.base.waits import result_of
from scsiusb.disk.disk import Disk
from scsiusb.errors import DeviceMismatch, ImageError
from scsiusb.imaging.arguments import check_job
from scsiusb.imaging.bmap import SUFFIX as BMAP
from scsiusb.imaging.bmap import MapMaker, bmap_text
from scsiusb.imaging.codecs import FRAME, Codec, codec_by_name, decompressed
from scsiusb.imaging.events import READING, OnProgress, Progress, ignore
from scsiusb.imaging.identity import BEGIN_ANEW, DiskIdentity, Piece, check_contents, digest_of
from scsiusb.imaging.image_file import ImageFile, refuse_folder
from scsiusb.imaging.journal import Journal, Record, journal_of, must_be_minded, read_journal
from scsiusb.imaging.seekable import Frame, frame_of
from scsiusb.imaging.sources import ImageSource

log = logging.getLogger(__name__)

SHA256: Final = ".sha256"
# After a kill, what is not in the file is read again, at most 8 MiB with the samples by which the device is known: the
# frames in the hands of the threads, and the one that is being read.
AHEAD: Final = 2
MOST_THREADS: Final = AHEAD + 1  # that compress


@dataclass(frozen=True)
class Dump:
    """What a dump has copied."""

    device: DiskIdentity
    lba: int
    blocks: int
    block_size: int
    size: int
    """Of the device; a compressed file has another length."""
    output: Path
    sha256: str
    """In hex, of the device's bytes."""
    seconds: float
    """Of this run."""
    resumed: int
    """Bytes that earlier runs had copied."""


class _Done(NamedTuple):
    """A frame that is in the file: its file length and contents, and a digest of the contents."""

    frame: Frame
    digest: str
    first: str
    """The digest of its first block."""


def dump(
    disk: Disk,
    path: str | os.PathLike[str],
    *,
    lba: int = 0,
    blocks: int | None = None,
    resume: bool = False,
    sha256_file: bool = False,
    bmap: bool = False,
    progress: OnProgress = ignore,
) -> Dump:
    """Copy `blocks` blocks from `lba` on, by default all, to the file at `path`.

    The end of its name says the format: .gz, .bz2, .xz, .zst (seekable zstd), or else raw, where long runs of zeros
    take no space. `resume`: go on with a dump that was interrupted; the journal beside the file says what is done.
    `sha256_file`, `bmap`: also write the digest of the file, or a map of the blocks that are not zeros, beside it;
    without, what an earlier dump has left there is removed.

    Raise OutOfRange, ImageError if the dump cannot go on, DeviceMismatch if the device is another one, OSError for the
    file, and as `Disk.reading`; the journal then stays. `progress` is called in this thread; what it raises ends the
    dump in the same way.
    """
    check_job(progress, disk)
    lba = integer("lba", lba)
    disk.check_range(lba, 0 if blocks is None else integer("blocks", blocks))
    count = disk.blocks - lba if blocks is None else blocks
    refuse_folder(Path(path))
    work = _Work(disk, Path(path), lba, count, progress, MapMaker() if bmap else None)
    began = time.monotonic()
    digest = work.run(resume=resume)
    if sha256_file:
        of_file = digest if codec_by_name(work.path.name) is None else _digest_of_file(work.path)
        _write_beside(work.path, SHA256, _checksum_line(of_file, work.path.name))
    size = disk.block_size
    seconds = time.monotonic() - began
    return Dump(work.identity, lba, count, size, count * size, work.path, digest, seconds, work.resumed)


class _Work:
    """One run of a dump."""

    def __init__(
        self, disk: Disk, path: Path, lba: int, blocks: int, progress: OnProgress, map_maker: MapMaker | None
    ) -> None:
        self.path = path
        self.identity = DiskIdentity.of(disk)
        self.resumed = 0
        self._disk = disk
        self._lba, self._blocks = lba, blocks
        self._block_size = disk.block_size
        self._frame = max(FRAME // self._block_size, 1) * self._block_size
        self._total = blocks * self._block_size
        self._progress = progress
        self._map = map_maker
        self._codec = codec_by_name(path.name)
        self._sha256 = hashlib.sha256()
        self._frames_done: list[Frame] = []
        """For the table of a .zst file; of another one, which needs none, empty."""
        self._spare: list[bytearray] = []
        self._is_broken = False
        self._journal: Journal | None = None
        self._job: dict[str, Any] = {
            "job": "dump",
            "device": self.identity.record(),
            "lba": lba,
            "blocks": blocks,
            "format": "raw" if self._codec is None else self._codec.name,
        }

    def run(self, *, resume: bool) -> str:
        """Do the work; return the digest of all bytes."""
        place = journal_of(self.path)
        has_journal = must_be_minded(place, resume=resume)
        if has_journal and not resume:
            what = f"{self.path} is a dump that was interrupted: {place.name} is beside it"
            raise ImageError(what, f"go on with --resume, or remove {place}")
        with ExitStack() as held:
            for suffix in (SHA256, BMAP):  # an earlier dump's would be wrong, and a restore would use the map
                _beside(self.path, suffix).unlink(missing_ok=True)
            if resume and not has_journal and self.path.is_file() and self.path.stat().st_size:
                self._check_complete()
            else:
                file, done = self._open(held, place, has_journal=has_journal)
                self._copy(file, done)
                file.finish(self._frames_done)
            if self._map is not None:
                _write_beside(self.path, BMAP, bmap_text(self._total, self._map.ranges()))
            if self._journal is not None:
                self._journal.remove()
        return self._sha256.hexdigest()

    def _open(self, held: ExitStack, place: Path, *, has_journal: bool) -> tuple[ImageFile, int]:
        """Open the image and its journal; return the image, and the bytes of the device that it has."""
        is_special = self.path.exists() and not self.path.is_file()
        if has_journal:
            file, done, length = self._resume(held, place)
        else:
            file, done, length = ImageFile(self.path, self._codec), 0, 0
            held.callback(file.close)
        if not is_special:  # a pipe or /dev/null cannot be resumed
            self._journal = journal = Journal(place, length)
            held.callback(journal.close)
            if not length:
                journal.begin(**self._job)
        return file, done

    # --- going on -----------------------------------------------------------------------------------

    def _resume(self, held: ExitStack, place: Path) -> tuple[ImageFile, int, int]:
        """Check what is there; return the image, cut off after what is good, the bytes done, the journal's length."""
        job, records, length = read_journal(place)
        self.identity.check(job.get("device"))
        for name, value in self._job.items():
            if name != "device" and job.get(name) != value:
                what = f"the dump to {self.path} began with {name} {job.get(name)}, not {value}"
                raise ImageError(what, "give the same as then, or begin anew without --resume")
        frames = _frames_of(records, place)
        if not self.path.exists():
            raise ImageError(f"{self.path} is gone; its journal is there", BEGIN_ANEW)
        good = self._check_file(frames)
        check_contents(self._disk, self._pieces(good))
        file = ImageFile(self.path, self._codec, sum(each.frame.compressed for each in good))
        held.callback(file.close)
        for each in good:
            self._remember(each.frame)
        self.resumed = sum(each.frame.size for each in good)
        if len(good) < len(frames):  # the host lost the end of the file: so must the journal
            length = _length_up_to(place, len(good))
        return file, self.resumed, length

    def _check_file(self, frames: list[_Done]) -> list[_Done]:
        """Read the frames that the file has, and take their digest. Raise ImageError if more than the last is wrong."""
        good = 0
        with open(self.path, "rb") as file:
            for each in frames:
                data = _contents(file.read(each.frame.compressed), self._codec, str(self.path))
                if data is None or len(data) != each.frame.size or digest_of(data) != each.digest:
                    break
                self._take(data)
                good += 1
                self._progress(Progress("checking", good * self._frame, self._total))
        if good < len(frames) - 1:
            what = f"{self.path} was changed since the dump was interrupted, after {good * self._frame} bytes of data"
            raise ImageError(what, BEGIN_ANEW)
        return frames[:good]

    def _check_complete(self) -> None:
        """Read a file without a journal. Raise ImageError unless it is a complete dump of this device.

        A program may be killed after its dump was complete, and before it could say so.
        """
        pieces, at, source = [], 0, ImageSource(self.path)
        with source:
            for offset, data in source.extents() if source.least <= self._total else ():
                if offset != at or at + len(data) > self._total or len(data) % self._block_size:
                    break
                lba, blocks = self._lba + at // self._block_size, len(data) // self._block_size
                pieces.append(Piece(lba, blocks, digest_of(data), digest_of(data[: self._block_size])))
                at += len(data)
                self._take(data)
                self._progress(Progress("checking", at, self._total))
        try:
            if at == self._total:
                check_contents(self._disk, pieces)
                self.resumed = at
                return
        except DeviceMismatch as error:
            log.info("%s", error)
        what = f"there is no journal beside {self.path}, and it is no complete dump of this device"
        raise ImageError(what, "remove it, or choose another name, to dump again")

    def _pieces(self, frames: list[_Done]) -> list[Piece]:
        pieces, lba = [], self._lba
        for each in frames:
            blocks = each.frame.size // self._block_size
            pieces.append(Piece(lba, 1, each.first, each.first))
            lba += blocks
        return pieces

    # --- copying ------------------------------------------------------------------------------------

    def _copy(self, file: ImageFile, done: int) -> None:
        """Read the rest, a frame at a time; other threads take its digest, compress it, and write it to the file."""
        threads = min(MOST_THREADS, os.cpu_count() or 1)
        with (
            ThreadPoolExecutor(threads, thread_name_prefix="scsiusb dump") as pool,
            ThreadPoolExecutor(1, thread_name_prefix="scsiusb digest") as digester,
            ThreadPoolExecutor(1, thread_name_prefix="scsiusb file") as writer,
        ):
            waiting: deque[Future[None]] = deque()
            try:
                for data in self._frames(done):
                    packing = pool.submit(_packed, data, self._codec, self._block_size if self._journal else 0)
                    taking = digester.submit(self._take, data)
                    waiting.append(writer.submit(self._keep, file, data, taking, packing))
                    done += len(data)
                    if len(waiting) > AHEAD:
                        result_of(waiting.popleft())
                    self._progress(Progress(READING, done, self._total))
            finally:
                # Also after an error, such as a block that cannot be read: what was read before it is kept.
                while waiting:
                    result_of(waiting.popleft())

    def _frames(self, done: int) -> Iterator[bytearray]:
        """Yield the rest of the device in frames; the last one is shorter. Each is read into where it stays."""
        size, medium = self._block_size, self._disk.medium()
        lba, end = self._lba + done // size, self._lba + self._blocks
        while lba < end:
            length = min(self._frame, (end - lba) * size)
            frame = self._spare.pop() if self._spare and length == self._frame else bytearray(length)
            with memoryview(frame) as view:
                self._disk.read_from(medium, lba, view)
            yield frame
            lba += length // size

    def _take(self, data: bytes | bytearray) -> None:
        self._sha256.update(data)
        if self._map is not None:
            self._map.add(data)

    def _keep(
        self,
        file: ImageFile,
        data: bytearray,
        taking: Future[None],
        packing: Future[tuple[_Done, bytes | bytearray]],
    ) -> None:
        """Write a frame to the file, then note in the journal that it is there; nothing after one that failed."""
        if self._is_broken:
            return
        self._is_broken = True
        done, packed = packing.result()
        taking.result()
        file.add(packed)
        self._note(done)
        self._is_broken = False
        self._spare.append(data)

    def _remember(self, frame: Frame) -> None:
        if self._codec is not None and self._codec.name == "zst":
            self._frames_done.append(frame)

    def _note(self, done: _Done) -> None:
        self._remember(done.frame)
        if self._journal is not None:
            frame = done.frame
            record = {"file": frame.compressed, "bytes": frame.size, "checksum": frame.checksum.hex()}
            self._journal.add(**record, digest=done.digest, first=done.first)


def _write_beside(path: Path, suffix: str, text: str) -> None:
    place = _beside(path, suffix)
    with named(place):
        place.write_bytes(os.fsencode(text))  # a name need not be text of the system's encoding


def _checksum_line(digest: str, name: str) -> str:
    """Return the line as `sha256sum` writes it: a name with a backslash or a line's end is marked and escaped."""
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    mark = "" if escaped == name else "\\"
    return f"{mark}{digest}  {escaped}\n"


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _digest_of_file(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while data := file.read(FRAME):
            digest.update(data)
    return digest.hexdigest()


def _packed(data: bytearray, codec: Codec | None, block_size: int) -> tuple[_Done, bytes | bytearray]:
    """Compress a frame, and take its digests, unless `block_size` is 0; runs in a thread of the pool."""
    digests = (digest_of(data), digest_of(data[:block_size])) if block_size else ("", "")
    if codec is None:
        return _Done(Frame(len(data), len(data)), *digests), data
    packed = codec.compress(data)
    frame = frame_of(packed, len(data)) if codec.name == "zst" else Frame(len(packed), len(data))
    return _Done(frame, *digests), packed


def _contents(data: bytes, codec: Codec | None, name: str) -> bytes | None:
    """Return the contents of a frame; None if it is damaged."""
    if codec is None:
        return data
    try:
        return b"".join(decompressed(BytesIO(data), codec, name))
    except ImageError:
        return None


def _frames_of(records: list[Record], place: Path) -> list[_Done]:
    try:
        return [
            _Done(
                Frame(int(each["file"]), int(each["bytes"]), bytes.fromhex(each["checksum"])),
                str(each["digest"]),
                str(each["first"]),
            )
            for each in records
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ImageError(f"{place} is damaged: {error}", BEGIN_ANEW) from error


def _length_up_to(place: Path, records: int) -> int:
    """Return the length of a journal's first line and so many records."""
    return sum(len(line) for line in place.read_bytes().splitlines(keepends=True)[: records + 1])
