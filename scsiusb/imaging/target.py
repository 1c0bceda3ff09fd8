"""One disk that an image is written to: its thread, its journal, what is done, and what went wrong."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import Full, Queue
from typing import Final

from scsiusb import ledger
from scsiusb.base.copying import Uncopyable
from scsiusb.base.waits import SLICE
from scsiusb.disk.disk import Disk
from scsiusb.errors import ImageError, Miscompare
from scsiusb.imaging.events import COMPLETE, FAILED, FLUSHING, VERIFYING, WAITING, WRITING, TargetProgress
from scsiusb.imaging.identity import BEGIN_ANEW, DiskIdentity, Piece, check_contents, digest_of
from scsiusb.imaging.journal import Journal, Record, must_be_minded, read_journal
from scsiusb.imaging.readback import Ranges, Read, differing, medium_reader
from scsiusb.imaging.sources import Extent, Source, too_large
from scsiusb.imaging.state import key_of
from scsiusb.scsi.sense import MISCOMPARE

MOST_WAITING: Final = 8  # extents, of a MiB at most, that may wait for a target
PROMPT: Final = 2.0  # seconds that a stopped thread has to end its command by itself
CHECKPOINT: Final = 7 * 1024 * 1024  # bytes; so many, and an extent, at most are written again after an interruption
COMPARED: Final = "compared"  # in the records of the journal that are about reading back
STREAM_PART: Final = 1024 * 1024  # bytes of a stream, which cannot be read twice, that have one digest


def _nothing() -> None: ...


class Target(Uncopyable):
    """A disk, which a thread of its own writes and verifies. Close it, which ends the thread."""

    def __init__(self, disk: Disk, source: Source) -> None:
        self.disk = disk
        self.info = disk.unit.transport.info
        """The device as it was when the job began."""
        self.phase = WRITING
        """See `TargetProgress.phase`."""
        self.at = 0
        """The place in the image up to which this phase is done."""
        self.identity = DiskIdentity.of(disk)
        self.error: Exception | None = None
        """What ended the work on this disk."""
        self.written = 0
        """Bytes that the device has acknowledged."""
        self.done = 0
        """The place in the image up to which all is written and flushed."""
        self.compared = 0
        """The place in the image up to which all was read back, and is right."""
        self.resumed = 0
        self.is_verified = False
        self.differences = Ranges()
        self._source = source
        self._medium = disk.medium()
        self._size = disk.block_size
        self._journal: Journal | None = None
        self._digests: list[tuple[int, int, bytes]] | None = None if source.is_repeatable else []
        self._since = 0
        self._last: tuple[int, bytes] = 0, b""
        self._queue: Queue[Extent | Exception | None] = Queue(MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._entry: ledger.Entry | None = None
        self._is_stopped = False
        self._cancel: Callable[[], None] = _nothing
        self._read: Read = disk.read_from
        self._is_past_cache = False
        self._adopted: Disk | None = None
        self._compared_before: dict[tuple[bool, bool], int] = {}  # by an earlier run; see `_how`

    @property
    def key(self) -> str:
        """A part of a file's name that tells this disk apart from others."""
        return key_of(self.disk, self.identity)

    @property
    def progress(self) -> TargetProgress:
        """How far it has come."""
        phase = self.phase if self.error is None else FAILED
        return TargetProgress(self.info.address, self.info.serial, phase, self.at, self.error)

    # --- the journal --------------------------------------------------------------------------------

    def prepare(self, place: Path | None, *, resume: bool) -> None:
        """Open the journal at `place`, and find where to go on. Raise ImageError, DeviceMismatch, OSError."""
        if place is None:
            if resume:
                raise ImageError(f"{self._source.name} cannot be read again from its start", "give the image as a file")
            return
        length = 0
        if must_be_minded(place, resume=resume):
            if not resume:
                what = f"a restore of {self._source.name} to this device was interrupted: {place.name} is there"
                raise ImageError(what, f"go on with --resume, or remove {place}")
            length = self._resume(place)
        self._journal = Journal(place, length)
        if not length:
            self._journal.begin(job="restore", device=self.identity.record(), source=self._source.record())

    def _resume(self, place: Path) -> int:
        """Take over what an earlier run did; return the length of its journal."""
        job, records, length = read_journal(place)
        self.identity.check(job.get("device"))
        if job.get("source") != self._source.record():
            raise ImageError(f"{self._source.name} was changed since the restore was interrupted", BEGIN_ANEW)
        try:
            self._take_over(records)
        except (KeyError, TypeError, ValueError) as error:
            raise ImageError(f"{place} is damaged: {error}", BEGIN_ANEW) from error
        return length

    def _take_over(self, records: list[Record]) -> None:
        """Continue after what the records say is done, if the disk has it. Raise KeyError, TypeError, ValueError."""
        pieces: list[Piece] = []
        for each in records:
            if COMPARED in each:
                how = bool(each["past_cache"]), bool(each.get("replugged"))
                self._compared_before[how] = int(each[COMPARED])
            else:
                pieces.append(Piece(int(each["lba"]), int(each["blocks"]), each["digest"], each["first"]))
                self.written = self.resumed = int(each["written"])
        if pieces:
            check_contents(self.disk, pieces)
            self.done = (pieces[-1].lba + pieces[-1].blocks) * self._size

    def finish(self) -> None:
        """Remove the journal if nothing is left to go on with: all is right, or was found to be wrong."""
        self.phase = COMPLETE
        if self._journal is not None and (self.error is None or self.is_verified):
            self._journal.remove()

    def close(self) -> None:
        """End the thread and close the journal, which stays if not all is done. May be called again."""
        self._is_stopped = True
        with ExitStack() as held:
            if self._journal is not None:
                held.callback(self._journal.close)
            if self._adopted is not None:
                held.callback(self._adopted.close)
            self._join()

    # --- after a re-plug ----------------------------------------------------------------------------

    def adopt(self, disk: Disk) -> None:
        """Go on with `disk`, the same device at another opening, to read it back; `close` closes it.

        If it is another device, or fails, close it and raise DeviceMismatch or its error.
        """
        try:
            DiskIdentity.of(disk).check(self.identity.record())
            self._medium, self._read = disk.medium(), disk.read_from
        except BaseException:
            disk.close()
            raise
        self.disk = self._adopted = disk
        self.phase = WAITING

    # --- the thread ---------------------------------------------------------------------------------

    def start_writing(self) -> None:
        """Write each extent that `put` gives."""
        self.phase, self.at = WRITING, self.done
        self._start(self._write, self._end_writing)

    def start_verifying(self, *, past_cache: bool) -> None:
        """Read back each extent that `put` gives, of a stream all that was written. `past_cache`: from the medium.

        What an earlier run has compared in this way need not be put, and is not read again.
        """
        self._is_past_cache, self._since = past_cache, 0
        self.compared = self._compared_before.get(self._how, 0)
        self.phase, self.at = VERIFYING, self.compared
        if past_cache and self._adopted is None:
            self._start(self._verify, self._end_verifying, self._leave_cache)
        else:
            self._start(self._verify, self._end_verifying)

    @property
    def _how(self) -> tuple[bool, bool]:
        """How it is read back: past the device's cache or not, after a re-plug or not."""
        return self._is_past_cache, self._adopted is not None

    def _start(
        self, step: Callable[[Extent], None], end: Callable[[], None], begin: Callable[[], None] = _nothing
    ) -> None:
        info = self.disk.unit.transport.info
        self._entry = ledger.acquire("thread", f"that works on {info.name}")
        scope = self.disk.unit.transport.scope()
        self._cancel = scope.cancel
        arguments = self._run, begin, step, end
        self._thread = threading.Thread(target=scope.run, args=arguments, name="scsiusb imaging", daemon=True)
        self._thread.start()

    def put(self, given: Extent | Exception | None) -> None:
        """Give the thread an extent, when it has room; nothing if the work on this disk has ended by an error.

        None: there are no more in this pass. An exception: there are no more because of it.
        """
        while self.error is None:
            try:
                self._queue.put(given, timeout=SLICE)
            except Full:
                continue
            return

    def is_working(self, seconds: float) -> bool:
        """Return whether the thread has something to do, or waits for it, after so many seconds at most."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self._thread is not None and self._thread.is_alive()

    def end_pass(self) -> None:
        """Wait until the thread has done all that it was given, after `put` said that there is no more."""
        self._join()

    def _join(self) -> None:
        thread, entry = self._thread, self._entry
        if thread is None:
            return
        began = time.monotonic()
        while thread.is_alive():  # in slices: a signal handler runs between them on every platform
            if self._is_stopped:
                with suppress(Full):
                    self._queue.put_nowait(None)
                if time.monotonic() - began > PROMPT:
                    self._cancel()
            thread.join(SLICE)
        self._thread = None
        if entry is not None:
            entry.release()

    def _run(self, begin: Callable[[], None], step: Callable[[Extent], None], end: Callable[[], None]) -> None:
        try:
            begin()
            while isinstance(given := self._queue.get(), Extent) and not self._is_stopped:
                step(given)
            if isinstance(given, Exception):
                raise given
            if not self._is_stopped:
                end()
        except Exception as error:  # noqa: BLE001 - it is in the result
            self.error = error.with_traceback(None)
        while not self._queue.empty():
            self._queue.get()

    # --- writing ------------------------------------------------------------------------------------

    def _write(self, extent: Extent) -> None:
        offset, data = extent
        if offset + len(data) <= self.done:
            return
        if offset < self.done:
            offset, data = self.done, data[self.done - offset :]
        self._check(offset, data)
        lba = offset // self._size
        with memoryview(data) as view:
            self.disk.write_to(self._medium, lba, view)
        self.written += len(data)
        self._since += len(data)
        self.at = offset + len(data)
        self._note_digests(offset, data)
        if self._journal is not None:
            self._last = lba, data
            if self._since >= CHECKPOINT:
                self._checkpoint()

    def _check(self, offset: int, data: bytes) -> None:
        """Raise OutOfRange beyond the disk's end, ImageError for a part of a block."""
        if offset + len(data) > self.disk.size:
            raise too_large(self._source, self.disk)
        if offset % self._size or len(data) % self._size:
            what = f"{self._source.name} ends in the middle of a block of {self._size} bytes"
            raise ImageError(what, "give an image of whole blocks")

    def _note_digests(self, offset: int, data: bytes) -> None:
        """Of a stream, remember digests to verify it by."""
        if self._digests is None:
            return
        for at in range(0, len(data), STREAM_PART):
            piece = data[at : at + STREAM_PART]
            self._digests.append((offset + at, len(piece), hashlib.sha256(piece).digest()))

    def _checkpoint(self) -> None:
        """Flush, then note in the journal what is on the medium now."""
        self.disk.flush()
        assert self._journal is not None
        lba, data = self._last
        last = Piece(lba, len(data) // self._size, digest_of(data), digest_of(data[: self._size]))
        self._journal.add(**last._asdict(), written=self.written)
        self.done, self._since = (last.lba + last.blocks) * self._size, 0

    def _end_writing(self) -> None:
        self.phase = FLUSHING
        self.disk.flush()
        if self._journal is not None and self._since:
            self._checkpoint()
        self.phase = WAITING

    # --- verifying ----------------------------------------------------------------------------------

    def _leave_cache(self) -> None:
        """Make the disk answer from its medium."""
        self._medium, self._read = medium_reader(self.disk, self.identity)

    def _verify(self, extent: Extent) -> None:
        offset, data = extent
        if offset + len(data) <= self.compared:
            return
        lba = offset // self._size
        found = memoryview(bytearray(len(data)))
        self._read(self._medium, lba, found)
        for block in differing(found, memoryview(data), self._size):
            self.differences.add(lba + block, 1)
        self._since += len(data)
        self.at = offset + len(data)
        # Not after a difference: the run that goes on must find it again.
        if self._journal is not None and self._since >= CHECKPOINT and not self.differences:
            past_cache, replugged = self._how
            self._journal.add(**{COMPARED: offset + len(data)}, past_cache=past_cache, replugged=replugged)
            self._since = 0

    def _end_verifying(self) -> None:
        for offset, length, digest in self._digests or ():
            lba, blocks = offset // self._size, length // self._size
            if self._is_stopped:
                return
            view = memoryview(bytearray(length))
            self._read(self._medium, lba, view)
            if hashlib.sha256(view).digest() != digest:
                self.differences.add(lba, blocks)
            self.at = offset + length
        self.is_verified = True
        first = next(iter(self.differences), None)
        if first is not None:
            what = f"{self.differences.blocks} blocks do not have what was written, the first is LBA {first.lba}"
            error = Miscompare(f"{self.disk.unit.transport.info}: {what}", MISCOMPARE)
            error.lba = first.lba
            raise error
