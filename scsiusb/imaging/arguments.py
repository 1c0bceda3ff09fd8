"""Checks of what a job is given, before it does anything."""

from __future__ import annotations

from collections.abc import Sequence

from scsiusb.base.arguments import function, wrong_type
from scsiusb.disk.disk import Disk


def check_job(progress: object, *disks: object) -> None:
    """Raise TypeError unless all disks are Disks and `progress` is a function."""
    for disk in disks:
        if not isinstance(disk, Disk):
            raise wrong_type("each disk", "a Disk, as scsiusb.open returns it", disk)
    function("progress", progress)


def check_different(disks: Sequence[Disk]) -> None:
    """Raise ValueError if a logical unit is among them twice: it would be written from two threads, or onto itself."""
    for at, disk in enumerate(disks):
        for other in disks[:at]:
            if disk is other or _is_same_unit(disk, other):
                raise ValueError(f"{disk} is given twice; give each disk once")


def _is_same_unit(disk: Disk, other: Disk) -> bool:
    one, two = disk.unit, other.unit
    return one.lun == two.lun and one.transport.info is two.transport.info  # users of a device share this object
