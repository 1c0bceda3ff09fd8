"""Opens the device that a command names, with the settings that it was given."""

from __future__ import annotations

import click

from scsiusb.cli.options import settings
from scsiusb.disk import Disk
from scsiusb.manager.recovery import recover
from scsiusb.opening import VIRTUAL, devices
from scsiusb.opening import open as open_disk
from scsiusb.usb.interface import InterfaceInfo


def opened(device: str | None, lun: int) -> Disk:
    """For a `with`."""
    given = settings()
    if device is None or not device.startswith(VIRTUAL):
        recover()  # also where the words then mean no device
    try:
        return open_disk(device, lun=lun, timeout=given.timeout, trace=given.trace, quirks=given.quirks)
    except ValueError as error:  # of a file that is no whole number of blocks, or of quirks
        raise click.UsageError(str(error)) from error


def attached() -> list[InterfaceInfo]:
    """The mass-storage interfaces that a command could name; what others left behind is put right first."""
    recover()
    return devices()


def seen() -> list[InterfaceInfo]:
    """As `attached`, with everything left as it is."""
    return devices()


def name_of(device: str | None) -> str:
    """The device as a question should name it, also where the command left it out."""
    if device is not None:
        return device
    found = attached()
    return found[0].address if len(found) == 1 else "the only device attached"
