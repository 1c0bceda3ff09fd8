"""The power mode of a disk: ask for it without waking the disk, and put it to rest (ACS-3 4.15)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from scsiusb.ata.bridges import dialects_of
from scsiusb.ata.device import ATA, check_disk
from scsiusb.ata.passthrough import SAT
from scsiusb.ata.refusals import refusals_named
from scsiusb.ata.smart import AtaChannel
from scsiusb.errors import DeviceUnsupported, MalformedReply
from scsiusb.scsi.unit import LogicalUnit

CHECK_POWER_MODE, STANDBY_IMMEDIATE = 0xE5, 0xE0
MODES: Final[Mapping[int, str]] = {  # the COUNT field of CHECK POWER MODE (ACS-3 table 33)
    0x00: "standby_z",
    0x01: "standby_y",
    0x40: "active, its NV cache spun down",
    0x41: "active, its NV cache spun up",
    0x80: "idle",
    0x81: "idle_a",
    0x82: "idle_b",
    0x83: "idle_c",
    0xFF: "active or idle",
}
RESTING: Final = (0x00, 0x01)


def power_mode(unit: LogicalUnit, via: str | None = None) -> str:
    """Return the power mode of the disk behind a bridge, in the standard's words: "standby_z", "active or idle", …

    A disk that rests is not woken by this, as it is by most other commands. `via`: the dialect of the bridge, one of
    those of `ata.device.ATA`; None: what the table of bridges says.
    Raises ValueError for another dialect, DeviceUnsupported where the bridge does not return the registers, and as
    `read_smart`.
    """
    channel = _channel(unit, via)
    with refusals_named("power mode", (channel.via or SAT,)):
        found = channel.registers(CHECK_POWER_MODE)
    if found is None:
        raise DeviceUnsupported("the bridge does not return the registers, which have the power mode")
    if found.sectors not in MODES:
        raise MalformedReply(f"CHECK POWER MODE: {found.sectors:02X}h is no power mode")
    return MODES[found.sectors]


def is_resting(mode: str) -> bool:
    """Return whether a disk in this power mode has stopped its medium, so that a read would wake it."""
    return mode in [MODES[each] for each in RESTING]


def standby(unit: LogicalUnit, via: str | None = None) -> None:
    """Put the disk to rest: it writes its cache to the medium and stops it (STANDBY IMMEDIATE, ACS-3 7.56).

    The next command that needs the medium wakes it. Raises as `power_mode`, and as `LogicalUnit.synchronize_cache`.
    """
    channel = _channel(unit, via)
    unit.synchronize_cache()
    channel.registers(STANDBY_IMMEDIATE)


def _channel(unit: LogicalUnit, via: str | None) -> AtaChannel:
    if via is not None and via not in ATA:
        raise ValueError(f"{via!r} is no dialect for ATA commands; use {', '.join(ATA)}")
    data, info = check_disk(unit, via), unit.transport.info
    names = (via,) if via is not None else dialects_of(info.vid, info.pid, is_removable=data.removable)
    name = next((each for each in names if each in ATA), None)
    if name is None:
        raise DeviceUnsupported(f"{info} is a bridge to NVMe, and the power modes are those of ATA")
    return ATA[name](unit)
