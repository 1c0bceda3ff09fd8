"""The sanitize of a SATA disk: asked about, begun, and followed to its end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from scsiusb.cli.ask import confirm
from scsiusb.cli.jobs import contents_of, name
from scsiusb.cli.progress import interruptible, percent_bar

if TYPE_CHECKING:
    from scsiusb.disk.disk import Disk

ON: Final = "the disk goes on by itself"
THEN: Final = "`scsiusb sanitize --ata --wait` shows when it is done"
POLL: Final = 0.5  # seconds between two looks


def sanitize_ata(disk: Disk, method: str | None, pattern: bytes, passes: int, *, asks: bool) -> bool:
    """Begin the operation, if a method is given, and follow it; return whether one was there and is completed."""
    from scsiusb.ata.sanitize import begin_sanitize, check_sanitizable, read_sanitize
    from scsiusb.errors import MalformedReply

    state = read_sanitize(disk.unit)
    if method is not None:
        check_sanitizable(state, method)
        if asks:
            confirm(f"Sanitize {name(disk)}, {contents_of(disk)}? All data on it will be lost.")
    elif not state.running:
        return False
    with interruptible(lambda: ON, THEN), percent_bar("sanitize") as show:
        if method is not None:
            state = begin_sanitize(disk.unit, method, pattern=pattern or bytes(4), passes=passes)
        while state.running:
            show(None if state.percent is None else state.percent / 100)
            time.sleep(POLL)
            state = read_sanitize(disk.unit)
    if not state.completed:
        raise MalformedReply("the sanitize runs no more, and the disk does not say that it was completed")
    return True
