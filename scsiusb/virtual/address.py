"""Names of virtual sticks: `virtual:FILE`, or `virtual:` for one in memory, with options: `?luns=2&fault=nak`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple
from urllib.parse import unquote

from scsiusb.virtual.device.descriptors import Identity, InterfaceDescriptor, bot_interface, uas_interface
from scsiusb.virtual.faults.faults import Fault
from scsiusb.virtual.profiles import PROFILES, Profile
from scsiusb.virtual.stick import Stick
from scsiusb.virtual.target import bridges
from scsiusb.virtual.target.ata import HEALTHS
from scsiusb.virtual.target.fat import Formatted
from scsiusb.virtual.target.media import File
from scsiusb.virtual.target.options import MEDIUM_OPTIONS, apply_options
from scsiusb.virtual.target.unit import Unit

PREFIX = "virtual:"
MOST_LUNS = 16  # GET MAX LUN reports 15 at most (BOT 3.2)
FLASH = "flash"
PROTOCOLS: Mapping[str, Sequence[InterfaceDescriptor]] = {
    "bot": (bot_interface(),),
    "uas": (uas_interface(alternate=0),),
    "both": (bot_interface(), uas_interface()),
}


def _whole(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError(f"{text!r} is not a whole number; write one such as 512")
    return int(text)


def _luns(text: str) -> int:
    count = _whole(text)
    if not 1 <= count <= MOST_LUNS:
        raise ValueError(f"{count} logical units are not possible; write 1 to {MOST_LUNS}")
    return count


def _hex_16(text: str) -> int:
    if not re.fullmatch(r"(0[xX])?[0-9a-fA-F]{1,4}", text):
        raise ValueError(f"{text!r} is not a number of four hex digits; write one such as 1209")
    return int(text, 16)


def _yes(text: str) -> bool:
    if text not in ("", "yes", "no"):
        raise ValueError(f"{text!r} is neither yes nor no; write one of them")
    return text != "no"


def _profile(text: str) -> str:
    if text not in PROFILES:
        raise ValueError(f"there is no profile {text!r}; use {', '.join(PROFILES)}")
    return text


def _health(text: str) -> str:
    if text not in HEALTHS:
        raise ValueError(f"there is no health {text!r}; use {', '.join(HEALTHS)}")
    return text


def _bridge(text: str) -> str:
    if text not in (*bridges.ATA, *bridges.NVME):
        raise ValueError(f"there is no bridge {text!r}; use {', '.join((*bridges.ATA, *bridges.NVME))}")
    return text


def _protocol(text: str) -> str:
    if text not in PROTOCOLS:
        raise ValueError(f"there is no protocol {text!r}; use {', '.join(PROTOCOLS)}")
    return text


OPTIONS: Mapping[str, Callable[[str], object]] = {
    "fault": Fault.parse,
    "block-size": _whole,
    "luns": _luns,
    "read-only": _yes,
    "removable": _yes,
    "thin": _yes,
    "vid": _hex_16,
    "pid": _hex_16,
    "serial": str,
    "speed": str,
    "profile": _profile,
    "health": _health,
    "bridge": _bridge,
    "protocol": _protocol,
    **{name: option.read for name, option in MEDIUM_OPTIONS.items()},
}


class Address(NamedTuple):
    """The parts of the name: the path of the file, "" for a stick in memory, and the options that were given."""

    path: str
    values: dict[str, Any]
    faults: tuple[Fault, ...]

    @property
    def profile(self) -> Profile:
        """What it plays."""
        return PROFILES[self.values.get("profile", FLASH)]

    @property
    def block_size(self) -> int:
        """The bytes in a block."""
        return int(self.values.get("block-size", self.profile.block_size))


def split(name: str) -> tuple[str, str]:
    """Return the path and the options of a name, with or without "virtual:"; a file of the whole name has none."""
    name = name.removeprefix(PREFIX)
    path, mark, options = name.rpartition("?")
    return (path, options) if mark and not os.path.exists(name) else (name, "")


def parse(name: str) -> Address:
    """Return the parts of a name. Raises ValueError, with a message for users, for unknown and wrong options.

    Options are separated by "&"; %26 stands for an "&" in a value. Only `fault` may be repeated.
    """
    path, options = split(name)
    values: dict[str, Any] = {}
    faults = []
    for each in filter(None, options.split("&")):
        option, _, text = each.partition("=")
        value = _value(option, unquote(text))
        if isinstance(value, Fault):
            faults.append(value)
        elif option in values:
            raise ValueError(f"the option {option!r} is given twice; give it once")
        else:
            values[option] = value
    return Address(path, values, tuple(faults))


def _value(option: str, text: str) -> object:
    if option not in OPTIONS:
        from difflib import get_close_matches

        near = get_close_matches(option, OPTIONS, 1)
        hint = f"did you mean {near[0]}?" if near else f"use {', '.join(OPTIONS)}"
        raise ValueError(f"unknown option {option!r}; {hint}")
    try:
        return OPTIONS[option](text)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from error


def open_stick(name: str) -> Stick:
    """Return the stick of that name. LUN 0 has the file; the other LUNs have a small formatted medium in memory.

    The options of `MEDIUM_OPTIONS` are for LUN 0.

    Raises OSError if the file cannot be opened; ValueError for wrong options, or if its size is not a multiple of the
    block size.
    """
    address = parse(name)
    values, profile, size = address.values, address.profile, address.block_size
    bridge = _bridge_of(profile, values)
    ids = dict(zip(("vid", "pid"), bridges.IDS[bridge], strict=True)) if bridge in bridges.IDS else profile.ids
    names = ("vid", "pid", "serial", "speed")
    identity = Identity(**{**ids, **{each: values[each] for each in names if each in values}})
    others = [Unit(Formatted(size)) for _ in range(1, values.get("luns", 1))]
    others += [Unit() for _ in range(profile.empty_slots - len(others))]
    first = File(address.path, size, values.get("read-only") or None) if address.path else profile.memory(size)
    try:
        medium = profile.medium(apply_options(first, values), values)
        unit = Unit(medium, device_type=profile.device_type, write_protected=bool(values.get("read-only")))
        unit.thin = _is_thin(profile, values)
        profile.furnish(unit, values)
        for other in others:
            other.product = unit.product
        for each in (unit, *others):
            each.removable = values.get("removable", profile.is_removable)
        layout = PROTOCOLS[values.get("protocol", "bot")]
        interfaces = [replace(each, subclass=profile.subclass) for each in layout]
        return Stick([unit, *others], identity, interfaces, faults=address.faults)
    except BaseException:
        first.close()
        raise


def _is_thin(profile: Profile, values: Mapping[str, Any]) -> bool:
    """Return whether the unit has UNMAP. Raise ValueError if its kind cannot have it."""
    is_thin = bool(values.get("thin", profile.is_thin))
    if is_thin and not profile.can_be_thin:
        those = ", ".join(name for name, each in PROFILES.items() if each.can_be_thin)
        raise ValueError(f"thin: a {values['profile']} has no UNMAP; give one of the profiles {those}")
    return is_thin


def _bridge_of(profile: Profile, values: Mapping[str, Any]) -> str:
    """Return the bridge that the device is behind, "" for none. Raise ValueError if it cannot be behind that."""
    bridge = values.get("bridge", next(iter(profile.bridges), ""))
    if bridge and bridge not in profile.bridges:
        name = values.get("profile", FLASH)
        if not profile.bridges:
            those = ", ".join(name for name, each in PROFILES.items() if each.bridges)
            raise ValueError(f"bridge: a {name} has none; give a profile that has one: {those}")
        raise ValueError(f"bridge: {bridge} has no {name}; use {', '.join(profile.bridges)}")
    return str(bridge)
