"""Devices that need care, a row each: who they are, what they do wrong, and where that is known from."""

from __future__ import annotations

from enum import Flag, auto
from typing import Final, NamedTuple

from scsiusb.usb.backend import Device


class Quirk(Flag):
    """What to do about it; beside each, the letter that Linux's `usb-storage.quirks=` has for the same."""

    NONE = 0
    MAX_SECTORS_64 = auto()  # m: commands of more than 64 sectors (32 KiB) break it
    IGNORE_RESIDUE = auto()  # r: its residue is false
    SINGLE_LUN = auto()  # s: it claims more logical units than it has


class Row(NamedTuple):
    """A device by vendor, product and a range of releases (bcdDevice)."""

    vid: int
    pid: int
    first: int
    last: int
    quirks: Quirk
    device: str
    source: str


LINUX: Final = "Linux, drivers/usb/storage/unusual_devs.h"

QUIRKS: Final = (
    Row(0x03EB, 0x2002, 0x0100, 0x0100, Quirk.IGNORE_RESIDUE, "Atmel SND1", LINUX),
    Row(0x03EE, 0x6901, 0x0000, 0x0200, Quirk.SINGLE_LUN, "Mitsumi USB floppy drive", LINUX),
    Row(0x03EE, 0x6906, 0x0003, 0x0003, Quirk.IGNORE_RESIDUE, "Mitsumi multi card reader", LINUX),
    Row(0x0409, 0x0040, 0x0000, 0x9999, Quirk.SINGLE_LUN, "NEC UF000x floppy drive", LINUX),
    Row(0x040D, 0x6205, 0x0003, 0x0003, Quirk.IGNORE_RESIDUE, "VIA USB 2.0 card reader", LINUX),
    Row(0x0419, 0x0100, 0x0100, 0x0100, Quirk.IGNORE_RESIDUE, "Samsung MP3 player", LINUX),
    Row(0x0419, 0xAACE, 0x0100, 0x0100, Quirk.IGNORE_RESIDUE, "Samsung MP3 player", LINUX),
    Row(0x0420, 0x0001, 0x0100, 0x0100, Quirk.IGNORE_RESIDUE, "MyMusix PD-205", LINUX),
    Row(0x0421, 0x0019, 0x0592, 0x0592, Quirk.MAX_SECTORS_64, "Nokia 6288", LINUX),
    Row(0x0421, 0x047C, 0x0370, 0x0610, Quirk.MAX_SECTORS_64, "Nokia 6131", LINUX),
    Row(0x0421, 0x0492, 0x0452, 0x0452, Quirk.MAX_SECTORS_64, "Nokia 6233", LINUX),
    Row(0x0421, 0x0495, 0x0370, 0x0370, Quirk.MAX_SECTORS_64, "Nokia 6234", LINUX),
    Row(0x0424, 0x0FDC, 0x0210, 0x0210, Quirk.SINGLE_LUN, "SMSC FDC GOLD floppy drive", LINUX),
    Row(0x04A5, 0x3010, 0x0100, 0x0100, Quirk.IGNORE_RESIDUE, "BenQ DC5330", LINUX),
)


def quirks_of(device: Device) -> Quirk:
    """All that the table says of the device."""
    found = Quirk.NONE
    for row in QUIRKS:
        if (row.vid, row.pid) == (device.vid, device.pid) and row.first <= device.release <= row.last:
            found |= row.quirks
    return found
