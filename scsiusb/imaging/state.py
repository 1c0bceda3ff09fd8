"""Where jobs without an image file keep their journals: the user's folder for the state of programs."""

from __future__ import annotations

import os
import re
from pathlib import Path

from scsiusb.disk.disk import Disk
from scsiusb.imaging.identity import DiskIdentity
from scsiusb.imaging.journal import SUFFIX


def key_of(disk: Disk, known: DiskIdentity) -> str:
    """Return a part of a file's name that tells this disk from others: IDs, serial number or address, LUN."""
    text = known.serial or disk.unit.transport.info.address
    return re.sub(r"[^0-9A-Za-z-]+", "_", f"{known.vid:04x}-{known.pid:04x}-{text}-{known.lun}")[:100]


def journal_place(job: str, disk: Disk, known: DiskIdentity, given: str | os.PathLike[str] | None) -> Path:
    """Return the path of a job's journal: the one that is given, or one for this device in the user's state folder.

    The folder is made if it is not there. Raise OSError.
    """
    if given is not None:
        return Path(given)
    import platformdirs

    folder = platformdirs.user_state_path("scsiusb", appauthor=False)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{job}-{key_of(disk, known)}{SUFFIX}"
