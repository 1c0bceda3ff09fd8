"""Reads the health of a disk behind a USB bridge, by whichever dialect the bridge speaks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from scsiusb.ata import dialects, nvme_bridges
from scsiusb.ata.bridges import dialects_of
from scsiusb.ata.identify import SSD
from scsiusb.ata.nvme import NvmeChannel, NvmeSmart, read_nvme
from scsiusb.ata.passthrough import DISK_TYPES, SAT, SAT_12, Ata
from scsiusb.ata.refusals import refusals_named
from scsiusb.ata.smart import LIFE_LEFT, AtaChannel, Smart, read_ata
from scsiusb.ata.statistics import read_percent_used
from scsiusb.errors import CheckCondition, DeviceTimeout, DeviceUnsupported, MalformedReply
from scsiusb.scsi.pages.inquiry import InquiryData
from scsiusb.scsi.unit import LogicalUnit

log = logging.getLogger(__name__)

ATA: Final[Mapping[str, Callable[[LogicalUnit], AtaChannel]]] = {
    SAT: Ata,
    SAT_12: partial(Ata, via=SAT_12),
    "usbcypress": dialects.Cypress,
    "usbjmicron": dialects.Jmicron,
    "usbjmicron,0": dialects.FirstPort,
    "usbjmicron,p": dialects.Pl3507,
    "usbprolific": dialects.Prolific,
    "usbsunplus": dialects.Sunplus,
}
NVME: Final[Mapping[str, Callable[[LogicalUnit], NvmeChannel]]] = {
    "sntasmedia": nvme_bridges.Asmedia,
    "sntjmicron": nvme_bridges.Jmicron,
    "sntrealtek": nvme_bridges.Realtek,
}
DIALECTS: Final = (*ATA, *NVME)
"""How a bridge can be asked: names as smartctl's `-d` has them."""


def read_smart(unit: LogicalUnit, via: str | None = None) -> Smart | NvmeSmart:
    """Ask the disk behind a bridge for its identity and its health.

    `via`: the dialect to use, one of `DIALECTS`; by default the table of bridges says it, and where either may be,
    the other one is tried. Each command has a short deadline, after which the device is recovered.

    Raises ValueError for an unknown dialect, DeviceUnsupported for a unit that is no disk, UnsupportedOpcode or
    IllegalRequest where the bridge speaks none of them, MalformedReply for an identification that is none, and as
    `LogicalUnit.execute`.
    """
    data = check_disk(unit, via)
    info = unit.transport.info
    names = (via,) if via is not None else dialects_of(info.vid, info.pid, is_removable=data.removable)
    with refusals_named("SMART", names):
        for name in names[:-1]:
            try:
                return _read(unit, name)
            except (CheckCondition, DeviceTimeout, MalformedReply) as error:
                log.info("%s: not %s: %s", info.name, name, error.what)
                first = error
        try:
            return _read(unit, names[-1])
        except (CheckCondition, DeviceTimeout, MalformedReply):
            if len(names) > 1 and names[0] == "sat":
                raise first from None  # what a bridge that is not in the table says by itself
            raise


def _read(unit: LogicalUnit, name: str) -> Smart | NvmeSmart:
    if name in NVME:
        return read_nvme(NVME[name](unit))
    found = read_ata(ATA[name](unit))
    says_wear = any(each.name in LIFE_LEFT for each in found.attributes)
    if found.via != SAT or found.identity.rotation_rate != SSD or says_wear:
        return found
    return replace(found, percent_used=_percent_used(unit))


def _percent_used(unit: LogicalUnit) -> int | None:
    """Return what the device statistics of an SSD say of its wear; None where it keeps none, or the bridge no logs."""
    try:
        return read_percent_used(unit)
    except (CheckCondition, MalformedReply, DeviceUnsupported, DeviceTimeout) as error:
        log.info("%s: no device statistics: %s", unit.transport.info.name, error.what)
        return None


def check_disk(unit: LogicalUnit, via: str | None) -> InquiryData:
    """Return the unit's INQUIRY data, if it is a disk, and `via` a dialect or None; else raise as `read_smart`.

    Other units have other commands of the same operation codes.
    """
    if via is not None and via not in DIALECTS:
        raise ValueError(f"there is no dialect {via!r}; use {', '.join(DIALECTS)}")
    data = unit.inquiry()
    if data.peripheral_device_type not in DISK_TYPES:
        what = f"a disk's health is asked for, and the unit is one of type {data.type_text}"
        raise DeviceUnsupported(what, "name a unit that is a disk (--lun)")
    return data
