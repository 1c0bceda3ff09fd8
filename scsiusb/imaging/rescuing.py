"""Rescue: copies what can be read of a failing disk, the easy parts first; goes on where an interrupted run stopped."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from scsiusb.base.arguments import function_or_none, integer, number_or_none
from scsiusb.base.dataclass import dataclass
from scsiusb.disk.disk import Disk
from scsiusb.errors import ImageError
from scsiusb.imaging.arguments import check_job
from scsiusb.imaging.codecs import codec_by_name
from scsiusb.imaging.events import OnProgress, ignore
from scsiusb.imaging.identity import DiskIdentity
from scsiusb.imaging.image_file import refuse_folder
from scsiusb.imaging.mapfile import BAD, RESCUED, Area
from scsiusb.imaging.rescue_device import Reopen, RescueDevice
from scsiusb.imaging.rescue_passes import Passes, Range
from scsiusb.imaging.rescue_record import RescueRecord

DEADLINE: Final = 5.0  # seconds for a read of the copying phase
WAIT: Final = 60.0  # seconds for a device that has left the bus


@dataclass(frozen=True)
class Rescue:
    """What a rescue has copied; sizes and positions are in bytes."""

    device: DiskIdentity
    rescued: int
    """Bytes that were read with good status, with those of earlier runs."""
    bad: int
    """Bytes of blocks that could not be read."""
    size: int
    """Bytes that were to be rescued."""
    map: tuple[Area, ...]
    """All of that, in areas."""
    seconds: float
    """Of this run."""
    errors: int
    """How many reads failed in this run."""
    returns: int
    """How often the device left the bus in this run, and came back."""
    resumed: int
    """Bytes that earlier runs had rescued."""

    @property
    def is_complete(self) -> bool:
        """Whether all is rescued."""
        return self.rescued == self.size


def rescue(
    disk: Disk,
    path: str | os.PathLike[str],
    mapfile: str | os.PathLike[str],
    *,
    lba: int = 0,
    blocks: int | None = None,
    retries: int = 0,
    timeout: float = DEADLINE,
    reopen: Reopen | None = None,
    wait: float = WAIT,
    progress: OnProgress = ignore,
) -> Rescue:
    """Copy all that can be read of `blocks` blocks from `lba` on, by default all, into the raw image at `path`.

    `mapfile` says what was rescued, in the format of GNU ddrescue, which can go on with it, and the other way round. A
    rescue that was interrupted, by anything, goes on when it is called again. Each block is read at most twice, in a
    large command and alone, and then once in each of `retries` passes.

    `timeout`: seconds for a read, twice as many for a block alone; then the device is recovered, and that read has
    failed. `reopen` opens the device after it has left the bus, and is called until that succeeds or `wait` seconds are
    over: `lambda: scsiusb.open("serial=TEXT")`. `disk` is closed before.

    Raise OutOfRange, DeviceMismatch if the device is another one, ImageError if image and map do not fit, or if the
    image has the name of a compressed one, OSError for the files, DeviceGone and NotReady after the wait, ValueError.
    `progress` is called in this thread, with the bytes that are rescued; what it raises ends the rescue.
    """
    check_job(progress, disk)
    range_ = _range(disk, integer("lba", lba), blocks if blocks is None else integer("blocks", blocks))
    _check_options(integer("retries", retries), timeout, wait, reopen)
    for each in (path, mapfile):
        refuse_folder(Path(each))
    if codec_by_name(Path(path).name) is not None:
        what = f"{path}: a rescue writes a raw image, which cannot be compressed while it is made"
        raise ImageError(what, "give a name such as disk.img, and compress the image when it is complete")
    if Path(path).absolute() == Path(mapfile).absolute():
        raise ImageError(f"{path} cannot be both the image and the map file", "give two names")
    began = time.monotonic()
    identity = DiskIdentity.of(disk)
    with RescueRecord(Path(path), Path(mapfile), identity) as record:
        before = record.map.total(RESCUED, range_.start, range_.end)
        device = RescueDevice(disk, identity, record.known_blocks, reopen=reopen, wait=wait, timeout=timeout)
        try:
            is_foreign = identity.serial is None or not record.has_journal
            device.recognize(is_thorough=True, needs_proof=is_foreign)
            passes = Passes(record, device, range_, disk.block_size, timeout, progress)
            passes.run(retries)
        finally:
            device.close()
        if record.rescued_bytes == record.map.size:
            record.finish()
    areas = tuple(record.map.areas(range_.start, range_.end))
    return Rescue(
        device=identity,
        rescued=sum(area.size for area in areas if area.status == RESCUED),
        bad=sum(area.size for area in areas if area.status == BAD),
        size=range_.end - range_.start,
        map=areas,
        seconds=time.monotonic() - began,
        errors=passes.errors,
        returns=device.returns,
        resumed=before,
    )


def _range(disk: Disk, lba: int, blocks: int | None) -> Range:
    disk.check_range(lba, blocks or 0)
    size = disk.block_size
    return Range(lba * size, (disk.blocks if blocks is None else lba + blocks) * size)


def _check_options(retries: int, timeout: float, wait: float, reopen: object) -> None:
    """Raise TypeError, or ValueError for numbers that are not possible."""
    number_or_none("timeout", timeout)
    number_or_none("wait", wait)
    function_or_none("reopen", reopen)
    if retries < 0 or not timeout > 0 or not wait >= 0:
        raise ValueError(f"retries={retries}, timeout={timeout}, wait={wait}: none can be negative, or the timeout 0")
