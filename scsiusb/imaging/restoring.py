"""Restore: writes an image, or another disk, to one or several disks at once, and checks what is on their media."""

from __future__ import annotations

import glob
import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Literal

from scsiusb.base.dataclass import dataclass
from scsiusb.disk.disk import Disk
from scsiusb.errors import ImageError, ScsiUsbError
from scsiusb.imaging.arguments import check_different, check_job
from scsiusb.imaging.bmap import SUFFIX as BMAP
from scsiusb.imaging.bmap import read_bmap
from scsiusb.imaging.events import VERIFYING, WRITING, OnProgress, Progress, ignore
from scsiusb.imaging.journal import SUFFIX, journal_of
from scsiusb.imaging.readback import BlockRange
from scsiusb.imaging.sources import DiskSource, ImageSource, MappedSource, Source, in_blocks, too_large
from scsiusb.imaging.state import check_not_exchanged, state_folder
from scsiusb.imaging.target import Target

Verify = Literal["none", "read", "medium"]
VERIFICATIONS: Final[tuple[Verify, ...]] = ("none", "read", "medium")


@dataclass(frozen=True)
class Restored:
    """What was done to one disk."""

    address: str
    serial: str | None
    written: int
    """Bytes that the device has acknowledged, with those of earlier runs."""
    verified: Verify
    """How it was verified; "none" also if there was an error before."""
    differences: tuple[BlockRange, ...]
    """Blocks that do not have what was written to them."""
    seconds: float
    error: Exception | None
    """Why it is not complete; a Miscompare if there are differences."""
    resumed: int
    """Bytes that earlier runs had written."""


class SomeFailed(ScsiUsbError):
    """Raised by a job on several disks if not all of them are right; `results` says it for each."""

    def __init__(self, results: Sequence[Restored]) -> None:
        self.results = tuple(results)
        failed = [result for result in results if result.error is not None]
        texts = ", ".join(f"{result.address}: {result.error}" for result in failed)
        super().__init__(f"{len(failed)} of {len(results)} disks failed: {texts}", "")


def restore(
    path: str | os.PathLike[str],
    *disks: Disk,
    verify: Verify = "medium",
    bmap: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: OnProgress = ignore,
) -> list[Restored]:
    """Write the image at `path`, of any format that `dump` writes or an Android sparse image, to each disk.

    `verify`: "medium" flushes, resets the device, so that it does not answer from its cache, and reads all back;
    "read" only reads back. `bmap`: a block map; by default the one beside the image, if there is one. `resume`: go on
    with a restore that was interrupted; the journals beside the image say what is done.

    Return a result for each disk; one that fails ends alone. Raise its error if there is one disk, SomeFailed if there
    are several; ImageError, or OSError, if the image ended the work on all of them; OutOfRange, before anything is
    written, if it is too large for a disk.
    """
    check_job(progress, *disks)
    with ImageSource(path) as source:
        return checked(restore_each(mapped(source, bmap), disks, verify=verify, resume=resume, progress=progress))


def clone(source: Disk, *disks: Disk, verify: Verify = "medium", progress: OnProgress = ignore) -> list[Restored]:
    """Write all blocks of one disk to others, which may be larger; the rest is as for `restore`.

    It keeps no journal, and cannot go on after an interruption: dump the source to a file and restore that instead.
    Raise the error of the source, as `Disk.reading`, if it ended the work on all disks.
    """
    check_job(progress, source, *disks)
    check_different([source, *disks])
    return checked(restore_each(DiskSource(source), disks, verify=verify, resume=False, progress=progress))


def mapped(source: ImageSource, bmap: str | os.PathLike[str] | None) -> Source:
    """Return the source within its block map: the one that is given, or the one beside the image, if there is one."""
    place = None if bmap is None else Path(bmap)
    if place is None and source.path is not None:
        place = next((beside for beside in _places(source.path) if beside.is_file()), None)
    return source if place is None else MappedSource(source, read_bmap(place))


def _places(path: Path) -> list[Path]:
    """Return where a block map may be: image.gz.bmap and image.bmap."""
    return [path.with_name(path.name + BMAP), path.with_suffix(BMAP)]


def checked(results: list[Restored]) -> list[Restored]:
    """Return the results if all are good. Raise the error that ended all disks, which is the source's, or the one's.

    Raise SomeFailed if several disks have different ends.
    """
    failed = [result.error for result in results if result.error is not None]
    if not failed:
        return results
    if all(result.error is failed[0] for result in results):
        raise failed[0]
    raise SomeFailed(results) from failed[0]


def restore_each(
    source: Source, disks: Sequence[Disk], *, verify: Verify, resume: bool, progress: OnProgress
) -> list[Restored]:
    """Do as `restore`, but return errors in results only: of a disk in its own, of the source in all unfinished ones.

    What is known before the first write is still raised.
    """
    if verify not in VERIFICATIONS:
        raise ValueError(f"verify must be one of {', '.join(VERIFICATIONS)}, not {verify!r}")
    if not disks:
        raise ValueError("give at least one disk")
    check_different(disks)
    began = time.monotonic()
    for disk in disks:
        _check_size(source, disk)
    with ExitStack() as held:
        targets = [Target(disk, source) for disk in disks]
        for target in targets:
            held.callback(target.close)
        places = _journals(source, targets)
        if resume and source.path is not None:
            known = [place for place in places if place is not None]
            check_not_exchanged("restore", known, f"{glob.escape(source.path.name)}.*{SUFFIX}")
        for target, place in zip(targets, places, strict=True):  # all before anything is written to one
            target.prepare(place, resume=resume)
        _write(source, targets, progress)
        if verify != "none":
            _verify(source, targets, progress, past_cache=verify == "medium")
        for target in targets:
            target.finish()
    seconds = time.monotonic() - began
    return [_result(target, verify, seconds) for target in targets]


def _check_size(source: Source, disk: Disk) -> None:
    """Raise OutOfRange for an image that is too large, ImageError for one that ends in the middle of a block."""
    if source.least > disk.size:
        raise too_large(source, disk)
    if source.length is not None and source.length % disk.block_size:
        what = f"{source.name} has {source.length} bytes, not a multiple of the block size {disk.block_size}"
        raise ImageError(what, "give an image of whole blocks")


def _journals(source: Source, targets: Sequence[Target]) -> list[Path | None]:
    """Return where each journal is: beside the image, or in the user's state folder if nothing can be written there."""
    if source.path is None or not source.is_repeatable:
        return [None for _ in targets]
    beside = source.path if os.access(source.path.parent, os.W_OK) else state_folder() / source.path.name
    keys = [target.key for target in targets]
    # Cheap sticks share a serial number: then their addresses tell them apart.
    addresses = [target.disk.unit.transport.info.address.replace(":", "_") for target in targets]
    named = [key if keys.count(key) == 1 else f"{key}.{at}" for key, at in zip(keys, addresses, strict=True)]
    return [journal_of(beside, name) for name in named]


def _write(source: Source, targets: list[Target], progress: OnProgress) -> None:
    """Write the image to each target, from where the one that has the least stands."""
    start = min(target.done for target in targets)
    for target in targets:
        target.start_writing()
    _give(source, start, targets, lambda done: progress(Progress(WRITING, done, source.length)))


def _give(source: Source, start: int, targets: Sequence[Target], show: Callable[[int], object]) -> None:
    """Give the targets the image from byte `start` on, until its end, or until all have failed; end their pass.

    An error of the source becomes that of each target which has not failed by its own.
    """
    extents = in_blocks(source.extents(start), _common_size(targets))
    cause: Exception | None = None
    while any(target.error is None for target in targets):
        try:
            extent = next(extents, None)
        except (ScsiUsbError, OSError) as error:
            cause = error
            break
        if extent is None:
            break
        for target in targets:
            target.put(extent)
        show(extent.offset + len(extent.data))
    for target in targets:
        target.end_pass(cause)


def _common_size(targets: Sequence[Target]) -> int:
    """Return the smallest number of bytes that is a number of whole blocks of each target."""
    return math.lcm(*(target.disk.block_size for target in targets))


def _verify(source: Source, targets: list[Target], progress: OnProgress, *, past_cache: bool) -> None:
    good = [target for target in targets if target.error is None]
    for target in good:
        target.start_verifying(past_cache=past_cache)
    if not source.is_repeatable:
        for target in good:
            target.end_pass()
        return
    start = min((target.compared for target in good), default=0)
    _give(source, start, good, lambda done: progress(Progress(VERIFYING, done, source.length)))


def _result(target: Target, verify: Verify, seconds: float) -> Restored:
    info = target.disk.unit.transport.info
    return Restored(
        address=info.address,
        serial=info.serial,
        written=target.written,
        verified=verify if target.is_verified else "none",
        differences=tuple(target.differences),
        seconds=seconds,
        error=target.error,
        resumed=target.resumed,
    )
