"""Erase: overwrites every block of a disk, or unmaps it, and checks on the medium that it did."""

from __future__ import annotations

import os
import random
import secrets
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

from scsiusb.base.dataclass import dataclass
from scsiusb.disk.disk import Disk
from scsiusb.errors import IllegalRequest, ImageError, MediumChanged, Miscompare, ScsiUsbError, UnitAttention
from scsiusb.imaging.arguments import check_job
from scsiusb.imaging.bad_blocks import move_around
from scsiusb.imaging.events import VERIFYING, WRITING, OnProgress, Progress, ignore
from scsiusb.imaging.fills import KEY, Fill, Keyed, Repeated
from scsiusb.imaging.identity import BEGIN_ANEW, DiskIdentity
from scsiusb.imaging.journal import Journal, Record, read_journal_of
from scsiusb.imaging.readback import BlockRange, Ranges, Read, differing, medium_reader
from scsiusb.imaging.state import can_resume, journal_place
from scsiusb.imaging.unmapping import Unmapping, find_unmapping, unmap
from scsiusb.scsi.sense import MISCOMPARE, Sense

Method = Literal["zero", "random", "pattern", "unmap", "auto"]
METHODS: Final[tuple[Method, ...]] = ("zero", "random", "pattern", "unmap", "auto")
VerifyErase = Literal["none", "sample", "whole"]
VERIFICATIONS: Final[tuple[VerifyErase, ...]] = ("none", "sample", "whole")
CHECKPOINT: Final = 8 * 1024 * 1024  # bytes; so many at most are written again after an interruption
SAMPLES: Final = 1000  # blocks that a verification by samples reads
KNOWN_AGAIN: Final = 64  # blocks that are looked at before an erase goes on
MOST_BAD: Final = 1000  # blocks that cannot be written, before the erase ends with the error
UNSUPPORTED: Final = Sense(0x5, 0x20, 0)
SAME: Final = "give the same as then, or begin anew without --resume"
DIFFERENT: Final = "attach the one that the erase began with, or begin anew without --resume"


@dataclass(frozen=True)
class Erased:
    """What an erase did."""

    method: Method
    """What was done: "auto" becomes "unmap" or "zero"."""
    size: int
    """Bytes that were erased, with those of earlier runs; without `bad`."""
    verified: VerifyErase
    """How it was verified; "none" also after an unmap, unless the unit says that its blocks read as zeros after it."""
    bad: tuple[BlockRange, ...]
    """Blocks that could not be written: they keep what they had."""
    differences: tuple[BlockRange, ...]
    """Blocks, other than those, that do not have what was written to them, as far as they were read back."""
    error: Miscompare | None
    """What `erase` raises if there are differences."""
    seconds: float
    resumed: int
    """Bytes that earlier runs had erased."""


def erase(
    disk: Disk,
    *,
    method: Method | None = None,
    pattern: bytes = b"",
    verify: VerifyErase = "sample",
    resume: bool = False,
    journal: str | os.PathLike[str] | None = None,
    progress: OnProgress = ignore,
) -> Erased:
    """Overwrite all blocks of the disk, and check that they are overwritten on the medium, past the device's cache.

    `method`: "zero", the default; "random", bytes of which only the key is kept, until the erase is done; "pattern",
    the bytes `pattern`, which begin anew in each block; "unmap", where the unit supports that; "auto": "unmap" if the
    blocks read as zeros after it, else "zero". `verify`: "sample" reads at least 1000 blocks at random, or all; "whole"
    all.

    `journal` says what is done, by default in the user's state folder; with `resume` an erase that was interrupted goes
    on, with the method and the pattern that it began with; ImageError if others are given. It begins anew without
    `resume`, and if there is no journal.

    A block that cannot be written is in the result's `bad`, and the erase goes on after it; it raises the error of the
    block if there are more than 1000. Raise Miscompare with the first `lba` if blocks do not have what was written,
    DataProtect before anything is written, IllegalRequest if the unit does not support UNMAP, ImageError for the
    journal, DeviceMismatch if it is of another device, OSError, and as `Disk.write`.
    """
    check_job(progress, disk)
    result = try_erase(
        disk, method=method, pattern=pattern, verify=verify, resume=resume, journal=journal, progress=progress
    )
    if result.error is not None:
        raise result.error
    return result


def try_erase(
    disk: Disk,
    *,
    method: Method | None,
    pattern: bytes,
    verify: VerifyErase,
    resume: bool,
    journal: str | os.PathLike[str] | None,
    progress: OnProgress,
) -> Erased:
    """Do as `erase`, but return the Miscompare in the result."""
    if method not in (None, *METHODS):
        raise ValueError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    if verify not in VERIFICATIONS:
        raise ValueError(f"verify must be one of {', '.join(VERIFICATIONS)}, not {verify!r}")
    if bool(pattern) != (method == "pattern"):
        raise ValueError("give a pattern with the method 'pattern', and with no other")
    began = time.monotonic()
    erasure = _Erasure(disk, progress)
    place = journal_place("erase", disk, erasure.identity, journal)
    with ExitStack() as held:
        held.callback(erasure.close)
        if resume and can_resume("erase", place, journal):
            erasure.resume(place, method, pattern)
        else:
            erasure.begin(place, method or "zero", pattern)
        erasure.run()
        verified = erasure.verify(verify)
        erasure.finish()
    return Erased(
        method=erasure.method,
        size=disk.size - erasure.bad.blocks * disk.block_size,
        verified=verified,
        bad=tuple(erasure.bad),
        differences=tuple(erasure.wrong),
        error=erasure.error,
        seconds=time.monotonic() - began,
        resumed=erasure.resumed,
    )


class _Erasure:
    """One run of an erase."""

    def __init__(self, disk: Disk, progress: OnProgress) -> None:
        self.disk = disk
        self.identity = DiskIdentity.of(disk)
        self.method: Method = "zero"
        self.bad = Ranges()
        self.wrong = Ranges()
        """What the verification found."""
        self.error: Miscompare | None = None
        self.resumed = 0
        self._progress = progress
        self._medium = disk.medium_to_write(0)
        self._size = disk.block_size
        self._fill: Fill = Repeated(b"\0", self._size)
        self._unmapping: Unmapping | None = None
        self._journal: Journal | None = None
        self._done = 0
        """The block up to which all is erased and flushed."""
        self._compared = 0
        """The block up to which all was read back from the medium, and is right."""

    @property
    def _name(self) -> str:
        """The unit's own name, which for a disk behind a bridge is not the bridge's."""
        return f"{self.identity.vendor} {self.identity.product} at {self.disk.unit.transport.info.address}"

    # --- the journal --------------------------------------------------------------------------------

    def begin(self, place: Path, method: Method, pattern: bytes) -> None:
        """Choose the method, and begin a journal."""
        if method in ("unmap", "auto"):
            self._unmapping = find_unmapping(self.disk)
            if method == "auto":
                method = "unmap" if self._unmapping is not None and self._unmapping.zeros else "zero"
        self._choose(method, pattern, secrets.token_bytes(KEY))
        self._journal = Journal(place)
        self._journal.begin(job="erase", device=self.identity.record(), method=method, **self._fill.record())

    def _choose(self, method: Method, pattern: bytes, key: bytes) -> None:
        if method == "unmap" and self._unmapping is None:
            what = f"{self._name} does not say that it supports UNMAP"
            raise IllegalRequest(what, UNSUPPORTED, "use another method, such as zero")
        self.method = method
        if method == "pattern":
            self._fill = Repeated(pattern, self._size)
        elif method == "random":
            self._fill = Keyed(key)

    def resume(self, place: Path, method: Method | None, pattern: bytes) -> None:
        """Take over what an earlier run did. Raise ImageError if it was by another method or pattern than is asked."""
        job, records, length = read_journal_of("erase", place)
        self.identity.check(job.get("device"))
        try:
            self._take_over(job, records)
        except (KeyError, TypeError, ValueError) as error:
            raise ImageError(f"{place} is damaged: {error}", BEGIN_ANEW) from error
        self._check_same(method, pattern, job.get("pattern", ""))
        self._check_contents()
        self.resumed = self._done * self._size
        self._journal = Journal(place, length)

    def _check_same(self, method: Method | None, pattern: bytes, begun: str) -> None:
        """Raise ImageError if the erase was begun by another method or pattern than is given."""
        if method == "auto" and self.method in ("unmap", "zero"):
            return
        for name, was, given in (("method", self.method, method), ("pattern", begun, pattern.hex())):
            if given and given != was:
                raise ImageError(f"the erase began with {name} {was}, not {given}", SAME)

    def _take_over(self, job: Record, records: list[Record]) -> None:
        method: Method = job["method"]
        if method not in METHODS[:-1]:
            raise ValueError(f"the method {method!r} is not known")
        if method == "unmap":
            self._unmapping = find_unmapping(self.disk)
        self._choose(method, bytes.fromhex(job.get("pattern", "")), bytes.fromhex(job.get("key", "")))
        for record in records:
            for lba, blocks in record.get("bad", ()):
                self.bad.add(int(lba), int(blocks))
            self._done = int(record["done"])
            self._compared = int(record.get("compared", 0))
        if not 0 <= self._compared <= self._done <= self._medium.blocks:
            raise ValueError(f"{self._done} blocks cannot be done, {self._compared} of them compared")

    def _check_contents(self) -> None:
        """Raise ImageError unless blocks that are erased have what they should have: two devices may look the same."""
        if self._has_no_content() or not self._done:
            return
        bad = _members(self.bad)
        for lba in _samples(self._done, KNOWN_AGAIN, self._done):
            if lba not in bad and self._differs(self.disk.read_from, lba, memoryview(bytearray(self._size))):
                what = f"LBA {lba} is not erased, but the journal says it is: the device is another one, or was changed"
                raise ImageError(what, DIFFERENT)

    def _has_no_content(self) -> bool:
        return self.method == "unmap" and not (self._unmapping is not None and self._unmapping.zeros)

    def _checkpoint(self, done: int, bad: list[BlockRange]) -> None:
        """Flush, then note in the journal what is on the medium now."""
        self.disk.flush()
        assert self._journal is not None
        self._journal.add(done=done, **({"bad": bad} if bad else {}))
        self._done = done

    def finish(self) -> None:
        """Remove the journal: nothing is left to go on with, also where differences were found, as after a restore."""
        if self._journal is not None:
            self._journal.remove()

    def close(self) -> None:
        """Close the journal, which stays if not all is done."""
        if self._journal is not None:
            self._journal.close()

    # --- erasing ------------------------------------------------------------------------------------

    def run(self) -> None:
        """Erase what is not erased yet."""
        if self.method == "unmap":
            self._unmap_all()
        else:
            self._write_all()

    def _unmap_all(self) -> None:
        assert self._unmapping is not None
        while self._done < self._medium.blocks:
            count = min(self._unmapping.most, self._medium.blocks - self._done)
            unmap(self.disk, self._done, count)
            self._checkpoint(self._done + count, [])
            self._progress(Progress(WRITING, self._done * self._size, self.disk.size))

    def _write_all(self) -> None:
        step = max(min(self.disk.max_blocks, CHECKPOINT // self._size), 1)
        most = max(CHECKPOINT // self._size // step, 1) * step
        with self.disk.buffer(step * self._size) as buffer:
            if self._fill.is_constant:
                self._fill.put(buffer, 0)
            while self._done < self._medium.blocks:
                self._write_part(buffer, step, min(self._done + most, self._medium.blocks))

    def _write_part(self, buffer: memoryview, step: int, end: int, *, is_again: bool = False) -> None:
        """Write up to the block `end`, flush, and note it; a second time if the unit was reset and may have lost it."""
        bad: list[BlockRange] = []
        for lba in range(self._done, end, step):
            view = buffer[: min(step, end - lba) * self._size]
            if not self._fill.is_constant:
                self._fill.put(view, lba * self._size)
            for _ in move_around(self._write, lba, view, self._size, partial(self._note_bad, bad)):
                pass
            if lba + step < end:
                self._progress(Progress(WRITING, (lba + step) * self._size, self.disk.size))
        try:
            self._checkpoint(end, bad)
        except UnitAttention as error:
            if is_again or isinstance(error, MediumChanged):
                raise
            self._write_part(buffer, step, end, is_again=True)
            return
        for each in bad:
            self.bad.add(*each)
        self._progress(Progress(WRITING, end * self._size, self.disk.size))

    def _write(self, lba: int, view: memoryview) -> None:
        self.disk.write_to(self._medium, lba, view)

    def _note_bad(self, bad: list[BlockRange], error: ScsiUsbError) -> None:
        if self.bad.blocks + len(bad) >= MOST_BAD:
            raise error
        assert error.lba is not None
        bad.append(BlockRange(error.lba, 1))

    # --- verifying ----------------------------------------------------------------------------------

    def verify(self, how: VerifyErase) -> VerifyErase:
        """Read back from the medium. Return how it was verified; what is wrong is in `wrong` and `error`."""
        if how == "none" or self._has_no_content():
            return "none"
        self._medium, read = medium_reader(self.disk, self.identity)
        bad = _members(self.bad)
        self.wrong = self._wrong_whole(read, bad) if how == "whole" else self._wrong_samples(read, bad)
        first = next(iter(self.wrong), None)
        if first is not None:
            sampled = "" if how == "whole" else f" of a sample of {min(SAMPLES, self._medium.blocks)}"
            what = f"{self.wrong.blocks} blocks{sampled} do not have what was written, the first is LBA {first.lba}"
            remedy = "erase it by the method zero" if self.method == "unmap" else "do not rely on this device"
            self.error = Miscompare(f"{self._name}: {what}", MISCOMPARE, remedy)
            self.error.lba = first.lba
        return how

    def _wrong_samples(self, read: Read, bad: set[int]) -> Ranges:
        """Return which blocks of a sample are wrong, or cannot be read, other than the bad ones."""
        wrong = Ranges()
        chosen = _samples(self._medium.blocks, SAMPLES)
        for done, lba in enumerate(chosen, 1):
            if lba not in bad and self._differs(read, lba, memoryview(bytearray(self._size))):
                wrong.add(lba, 1)
            self._progress(Progress(VERIFYING, done * self._size, len(chosen) * self._size))
        return wrong

    def _differs(self, read: Read, lba: int, view: memoryview) -> bool:
        failed: list[ScsiUsbError] = []
        for _ in move_around(partial(read, self._medium), lba, view, self._size, failed.append):
            pass
        return bool(failed) or bool(self._differing(lba, view))

    def _differing(self, lba: int, view: memoryview) -> list[int]:
        wanted = memoryview(bytearray(len(view)))
        self._fill.put(wanted, lba * self._size)
        return [lba + block for block in differing(view, wanted, self._size)]

    def _wrong_whole(self, read: Read, bad: set[int]) -> Ranges:
        """Return which of all blocks are wrong, or cannot be read, other than the bad ones.

        Go on where an earlier run stopped; note in the journal how far this one is, until it finds a wrong block, which
        the next run must find again.
        """
        wrong = Ranges()
        step = max(min(self.disk.max_blocks, CHECKPOINT // self._size), 1)
        whole = memoryview(bytearray(step * self._size))
        for lba in range(self._compared, self._medium.blocks, step):
            view = whole[: (self._medium.blocks - lba) * self._size]
            failed: list[int] = []
            for at, piece in move_around(partial(read, self._medium), lba, view, self._size, partial(_keep, failed)):
                failed += self._differing(at, piece)
            for block in sorted(set(failed) - bad):
                wrong.add(block, 1)
            if not wrong and lba + step - self._compared >= CHECKPOINT // self._size:
                self._note_compared(min(lba + step, self._medium.blocks))
            self._progress(Progress(VERIFYING, lba * self._size + len(view), self.disk.size))
        return wrong

    def _note_compared(self, end: int) -> None:
        assert self._journal is not None
        self._journal.add(done=self._done, compared=end)
        self._compared = end


def _keep(failed: list[int], error: ScsiUsbError) -> None:
    assert error.lba is not None
    failed.append(error.lba)


def _samples(blocks: int, count: int, seed: Any = None) -> list[int]:
    """Return numbers of blocks at random, in order: the first and the last, and all if there are not more."""
    if blocks <= count:
        return list(range(blocks))
    chosen = random.Random(seed).sample(range(1, blocks - 1), count - 2)
    return [0, *sorted(chosen), blocks - 1]


def _members(ranges: Ranges) -> set[int]:
    return {lba for each in ranges for lba in range(each.lba, each.lba + each.blocks)}
