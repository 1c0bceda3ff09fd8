"""Opens the device that a command names, with the settings that it was given."""

from __future__ import annotations

from scsiusb.cli.options import settings
from scsiusb.devices import open as open_disk
from scsiusb.disk import Disk


def opened(device: str | None, lun: int) -> Disk:
    """For a `with`."""
    given = settings()
    return open_disk(device, lun=lun, timeout=given.timeout)
