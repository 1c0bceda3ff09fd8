"""What the devices that the virtual stick plays answer: all profiles, behind all bridges, and a disk with copies."""

from __future__ import annotations

from functools import cache
from typing import Final

from comparison import SMARTCTL_BRIDGES

import scsiusb.ata
from scsiusb.scsi.catalog import Declared, declared, declared_in
from scsiusb.virtual.address import open_stick
from scsiusb.virtual.profiles import PROFILES
from scsiusb.virtual.target import third_party_copy
from scsiusb.virtual.target.unit import Unit

TEST_UNIT_READY: Final = bytes(6)
ATTENTIONS: Final = 3  # pending at most
VPD, MODE, LOG = "VPD", "mode", "log"
BRIDGE_OF: Final = {**SMARTCTL_BRIDGES, "AtaPassThrough12": "sat", "AtaSend": "sat"}
"""The virtual bridge of each declaration of scsiusb.ata: smartctl's name of it, but for these two."""
OTHER_FORMS: Final = frozenset({"FormatTrack", "ReadTocBytes", "TcgLevel0Discovery"})  # of a command with a row


@cache
def units() -> tuple[Unit, ...]:
    """Return the first unit of each."""
    names = [f"?profile={name}" for name in PROFILES]
    sticks = [open_stick(name) for name in ("?thin=yes", *names)]
    with_copies = Unit()
    third_party_copy.furnish(with_copies)
    return (*(stick.units[0] for stick in sticks), with_copies)


@cache
def behind(bridge: str) -> Unit:
    """Return the disk behind a bridge."""
    (profile, *_) = [name for name, each in PROFILES.items() if bridge in each.bridges]
    return open_stick(f"?profile={profile}&bridge={bridge}").units[0]


def answers(each: Declared) -> bool:
    """Return whether one of the units answers the command, as one of its own device type."""
    name = each.kind.__name__
    if each in declared_in(scsiusb.ata.__name__):
        return name in BRIDGE_OF and each.opcode in behind(BRIDGE_OF[name]).opcodes
    if name in OTHER_FORMS:
        return False
    return any(_serves(unit, each) for unit in units())


def _serves(unit: Unit, each: Declared) -> bool:
    is_for_it = each.opcode in unit.opcodes and _means(unit.device_type, each)
    return is_for_it and (each.service is None or each.service in unit.services.get(each.opcode, {each.service: None}))


def _means(device_type: int, each: Declared) -> bool:
    """Return whether the operation code means this command to a device of the type, not another one's."""
    types = each.kind.device_types
    if types is not None:
        return device_type in types
    same = [other.kind.device_types for other in declared() if other.opcode == each.opcode]
    return not any(device_type in others for others in same if others is not None)


def has_page(kind: str, code: int, subpage: int, device_type: int | None = None) -> bool:
    """Return whether one of the units, of that type if it is given, returns the page."""
    cdbs = {
        VPD: bytes((0x12, 1, code, 0, 252, 0)),
        MODE: bytes((0x5A, 0, code, subpage, 0, 0, 0, 0, 252, 0)),
        LOG: bytes((0x4D, 0, 0x40 | code, subpage, 0, 0, 0, 0, 252, 0)),
    }
    asked = [unit for unit in units() if device_type in (None, unit.device_type)]
    return kind in cdbs and any(_succeeds(unit, cdbs[kind]) for unit in asked)


def _succeeds(unit: Unit, cdb: bytes) -> bool:
    if cdb[0] not in unit.opcodes:
        return False
    for _ in range(ATTENTIONS):
        unit.execute(TEST_UNIT_READY)  # takes one of those that are pending
    return not unit.execute(cdb).failed
