"""Opens the device that a command names, with the settings that it was given."""

from __future__ import annotations

from scsiusb.cli.options import settings
from scsiusb.disk import Disk
from scsiusb.opening import open as open_disk


def opened(device: str | None, lun: int) -> Disk:
    """For a `with`."""
    given = settings()
    return open_disk(device, lun=lun, timeout=given.timeout, trace=given.trace)
