"""Where jobs without an image file keep their journals: the user's folder for the state of programs."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from scsiusb.disk.disk import Disk
from scsiusb.errors import DeviceMismatch
from scsiusb.imaging.identity import BEGIN_ANEW, DiskIdentity
from scsiusb.imaging.journal import SUFFIX, is_begun


def key_of(disk: Disk, known: DiskIdentity) -> str:
    """Return a part of a file's name that is of this disk alone: IDs, serial number or address, LUN."""
    text = known.serial or disk.unit.transport.info.address
    return re.sub(r"[^0-9A-Za-z-]+", "_", f"{known.vid:04x}-{known.pid:04x}-{text}-{known.lun}")[:100]


def journal_place(job: str, disk: Disk, known: DiskIdentity, given: str | os.PathLike[str] | None) -> Path:
    """Return the path of a job's journal: the one that is given, or one for this device in the user's state folder.

    The folder is made if it is not there. Raise OSError.
    """
    if given is not None:
        return Path(given)
    return state_folder() / f"{job}-{key_of(disk, known)}{SUFFIX}"


def state_folder() -> Path:
    """Return the user's state folder, which is made if it is not there. Raise OSError."""
    import platformdirs

    folder = platformdirs.user_state_path("scsiusb", appauthor=False)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def can_resume(job: str, place: Path, given: str | os.PathLike[str] | None) -> bool:
    """Return whether the journal at `place` says what to go on with; not if the job was interrupted before that.

    Raise DeviceMismatch as `check_not_exchanged`, unless the caller has given the place.
    """
    if given is None:
        check_not_exchanged(job, [place], f"{job}-*{SUFFIX}")
    return is_begun(place)


def check_not_exchanged(job: str, places: Sequence[Path], pattern: str) -> None:
    """Raise DeviceMismatch if a device has no journal among `places`, but one that is not here has: it was exchanged.

    `pattern` matches the names of all journals of this job, in the folder of `places`.
    """
    missing = [place for place in places if not is_begun(place)]
    if not missing:
        return
    folder = missing[0].parent
    others = sorted(path.name for path in folder.glob(pattern) if path not in places and is_begun(path))
    if others:
        what = f"no interrupted {job} of this device is known, but of another: {', '.join(others)} in {folder}"
        raise DeviceMismatch(what, f"attach the one that the job began with, or {BEGIN_ANEW}")
