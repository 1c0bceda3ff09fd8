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

from scsiusb.base.arguments import function_or_none, number_or_none
from scsiusb.base.dataclass import dataclass
from scsiusb.disk.disk import Disk
from scsiusb.errors import ImageError, ScsiUsbError
from scsiusb.imaging.arguments import check_different, check_job
from scsiusb.imaging.bmap import SUFFIX as BMAP
from scsiusb.imaging.bmap import read_bmap
from scsiusb.imaging.events import VERIFYING, WRITING, OnProgress, TargetProgress, TargetsProgress, ignore
from scsiusb.imaging.journal import SUFFIX, journal_of
from scsiusb.imaging.mapped_source import MappedSource
from scsiusb.imaging.readback import BlockRange
from scsiusb.imaging.replugging import WAIT, Replug, await_replug
from scsiusb.imaging.sources import DiskSource, ImageSource, Source, in_blocks, too_large
from scsiusb.imaging.state import check_not_exchanged, state_folder
from scsiusb.imaging.target import Target

POLL: Final = 0.05  # seconds between two looks at how far the targets are

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
    left_out: int = 0
    """Bytes of a complete image that were not written, as its block map does not list them, or a sparse image has no
    data for them: there the disk keeps what it had."""


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
    bmap: str | os.PathLike[str] | Literal[False] | None = None,
    resume: bool = False,
    replug: Replug | None = None,
    wait: float = WAIT,
    progress: OnProgress = ignore,
) -> list[Restored]:
    """Write the image at `path`, of any format that `dump` writes or an Android sparse image, to each disk.

    `verify`: "medium" flushes, resets the device, so that it does not answer from its cache, and reads all back;
    "read" only reads back. `bmap`: a block map; by default the one beside the image, if there is one; False: none, so
    that all is written. `resume`: go on
    with a restore that was interrupted; the journals beside the image say what is done.

    `replug`, with "medium": in place of the reset, wait until each device was unplugged and plugged in again, `wait`
    seconds at most. `progress` says when to unplug it; `replug(disk)` is then called, in this thread, until it returns
    the device of that disk, open, which `restore` closes. Another device is refused.

    Return a result for each disk; one that fails ends alone. Raise its error if there is one disk, SomeFailed if there
    are several; ImageError, or OSError, if the image ended the work on all of them; OutOfRange, before anything is
    written, if it is too large for a disk.
    """
    check_job(progress, *disks)
    with ImageSource(path) as source:
        wanted = mapped(source, bmap)
        return checked(
            restore_each(wanted, disks, verify=verify, resume=resume, replug=replug, wait=wait, progress=progress)
        )


def clone(
    source: Disk,
    *disks: Disk,
    verify: Verify = "medium",
    replug: Replug | None = None,
    wait: float = WAIT,
    progress: OnProgress = ignore,
) -> list[Restored]:
    """Write all blocks of one disk to others, which may be larger; the rest is as for `restore`.

    It keeps no journal, and cannot go on after an interruption: dump the source to a file and restore that instead.
    Raise the error of the source, as `Disk.reading`, if it ended the work on all disks.
    """
    check_job(progress, source, *disks)
    check_different([source, *disks])
    wanted = DiskSource(source)
    return checked(
        restore_each(wanted, disks, verify=verify, resume=False, replug=replug, wait=wait, progress=progress)
    )


def mapped(source: ImageSource, bmap: str | os.PathLike[str] | Literal[False] | None) -> Source:
    """Return the source within its block map: the one that is given, or the one beside the image, if there is one.

    False: none.
    """
    place = None if bmap is None or bmap is False else Path(bmap)
    if bmap is None and source.path is not None:
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
    source: Source,
    disks: Sequence[Disk],
    *,
    verify: Verify,
    resume: bool,
    replug: Replug | None = None,
    wait: float = WAIT,
    progress: OnProgress,
) -> list[Restored]:
    """Do as `restore`, but return errors in results only: of a disk in its own, of the source in all unfinished ones.

    What is known before the first write is still raised.
    """
    _check_arguments(disks, verify, replug, wait)
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
        if replug is not None:
            await_replug(targets, replug, wait, progress)
        if verify != "none":
            _verify(source, targets, progress, past_cache=verify == "medium")
        for target in targets:
            target.finish()
    seconds = time.monotonic() - began
    return [_result(target, verify, seconds, source.length) for target in targets]


def _check_arguments(disks: Sequence[Disk], verify: str, replug: Replug | None, wait: float) -> None:
    """Raise ValueError, TypeError."""
    if verify not in VERIFICATIONS:
        raise ValueError(f"verify must be one of {', '.join(VERIFICATIONS)}, not {verify!r}")
    function_or_none("replug", replug)
    if replug is not None and verify != "medium":
        raise ValueError(f"replug is for verify='medium', not {verify!r}")
    number_or_none("wait", wait)
    if not wait >= 0:
        raise ValueError(f"wait={wait}: it cannot be negative")
    if not disks:
        raise ValueError("give at least one disk")
    check_different(disks)


def _check_size(source: Source, disk: Disk) -> None:
    """Raise OutOfRange for an image that is too large, ImageError for one that ends in the middle of a block."""
    if source.least > disk.size:
        raise too_large(source, disk)
    if source.length is not None and source.length % disk.block_size:
        size = disk.block_size
        what = f"{source.name} has {source.length} bytes, not a multiple of the block size {size}"
        whole = -(-source.length // size) * size
        raise ImageError(what, f"get the image again, or, if that is all of it, pad it with zeros to {whole} bytes")


def _journals(source: Source, targets: Sequence[Target]) -> list[Path | None]:
    """Return where each journal is: beside the image, or in the user's state folder if nothing can be written there."""
    if source.path is None or not source.is_repeatable:
        return [None for _ in targets]
    beside = source.path if os.access(source.path.parent, os.W_OK) else state_folder() / source.path.name
    keys = [target.key for target in targets]
    # Cheap sticks share a serial number: then their addresses tell them apart.
    addresses = [target.disk.unit.transport.info.address.replace(":", "_") for target in targets]
    named = [key if keys.count(key) == 1 else f"{key}.{at}" for key, at in zip(keys, addresses, strict=True)]
    # Virtual sticks, each on a bus of its own, may share that, too: then their order does.
    ordered = [
        f"{name}.{named[:at].count(name) + 1}" if named.count(name) > 1 else name for at, name in enumerate(named)
    ]
    return [journal_of(beside, name) for name in ordered]


def _write(source: Source, targets: list[Target], progress: OnProgress) -> None:
    """Write the image to each target, from where the one that has the least stands."""
    start = min(target.done for target in targets)
    for target in targets:
        target.start_writing()
    _give(source, start, targets, _shown(progress, WRITING, source, targets))


def _shown(progress: OnProgress, phase: str, source: Source, targets: Sequence[Target]) -> Callable[[int], object]:
    """Return a function that reports how far a pass over all targets has come."""

    def show(done: int) -> object:
        return progress(TargetsProgress(phase, done, source.length, tuple(each.progress for each in targets)))

    return show


def _give(source: Source, start: int, targets: Sequence[Target], show: Callable[[int], object]) -> None:
    """Give the targets the image from byte `start` on, until its end, or until all have failed; end their pass.

    An error of the source becomes that of each target which has not failed by its own.
    """
    extents = in_blocks(source.extents(start), _common_size(targets))
    cause: Exception | None = None
    given = 0
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
        given = extent.offset + len(extent.data)
        show(given)
    _end_pass(targets, cause, show, given)


def _end_pass(
    targets: Sequence[Target], cause: Exception | None, show: Callable[[int], object], given: int = 0
) -> None:
    """Wait until all targets have done what they were given. Report meanwhile: a flush may take long.

    `cause`: why that is not all. `given`: the place in the image up to which they were given it, if it was given here.
    """
    for target in targets:
        target.put(cause)
    before: list[TargetProgress] = []
    while any(target.is_working(POLL) for target in targets):
        now = [target.progress for target in targets]
        if now != before:
            show(given or min(each.done for each in now))
        before = now
    for target in targets:
        target.end_pass()


def _common_size(targets: Sequence[Target]) -> int:
    """Return the smallest number of bytes that is a number of whole blocks of each target."""
    return math.lcm(*(target.disk.block_size for target in targets))


def _verify(source: Source, targets: list[Target], progress: OnProgress, *, past_cache: bool) -> None:
    good = [target for target in targets if target.error is None]
    for target in good:
        target.start_verifying(past_cache=past_cache)
    show = _shown(progress, VERIFYING, source, targets)
    if source.is_repeatable:
        _give(source, min((target.compared for target in good), default=0), good, show)
    else:
        _end_pass(good, None, show)


def _result(target: Target, verify: Verify, seconds: float, length: int | None) -> Restored:
    is_written = target.error is None or target.is_verified
    return Restored(
        address=target.info.address,
        serial=target.info.serial,
        written=target.written,
        verified=verify if target.is_verified else "none",
        differences=tuple(target.differences),
        seconds=seconds,
        error=target.error,
        resumed=target.resumed,
        left_out=max(length - target.written, 0) if length is not None and is_written else 0,
    )
