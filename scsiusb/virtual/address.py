"""Names of virtual sticks: `virtual:FILE`, or `virtual:` for one in memory, with options: `?luns=2&fault=nak`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote

from scsiusb.virtual.device.descriptors import Identity, InterfaceDescriptor, bot_interface, uas_interface
from scsiusb.virtual.faults.faults import Fault
from scsiusb.virtual.stick import Stick
from scsiusb.virtual.target import bridges
from scsiusb.virtual.target.ata import HEALTHS, KINDS, AtaDisk
from scsiusb.virtual.target.fat import Formatted
from scsiusb.virtual.target.media import File
from scsiusb.virtual.target.nvme import NvmeDisk
from scsiusb.virtual.target.options import MEDIUM_OPTIONS, apply_options
from scsiusb.virtual.target.unit import Unit

PREFIX = "virtual:"
NVME_BRIDGE = "nvme-bridge"
MOST_LUNS = 16  # GET MAX LUN reports 15 at most (BOT 3.2)
BLOCK_SIZE = 512
PROFILES = ("flash", *KINDS, NVME_BRIDGE, "card-reader")
PROTOCOLS: Mapping[str, Sequence[InterfaceDescriptor]] = {
    "bot": (bot_interface(),),
    "uas": (uas_interface(alternate=0),),
    "both": (bot_interface(), uas_interface()),
}
CARD_SLOTS = 4  # of the card reader, of which the first has a card


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
    def block_size(self) -> int:
        """Return the bytes in a block."""
        return int(self.values.get("block-size", BLOCK_SIZE))


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
    values, size = address.values, address.block_size
    disk, bridge = _disk(values)
    names = ("vid", "pid", "serial", "speed")
    given = {each: values[each] for each in names if each in values}
    ids = dict(zip(("vid", "pid"), bridges.IDS[bridge], strict=True)) if bridge in bridges.IDS else {}
    identity = Identity(**{**ids, **given})
    more = [Unit(Formatted(size)) for _ in range(1, values.get("luns", 1))]
    first = File(address.path, size, values.get("read-only") or None) if address.path else Formatted(size)
    try:
        unit = Unit(apply_options(first, values), write_protected=bool(values.get("read-only")))
        if disk is not None:
            unit.vendor, unit.product = "ATA" if isinstance(disk, AtaDisk) else "NVMe", disk.model
            bridges.furnish(unit, disk, bridge)
        elif values.get("profile") == "card-reader":
            more += [Unit(product="Card Reader") for _ in range(CARD_SLOTS - 1 - len(more))]
            unit.product = "Card Reader"
        units = [unit, *more]
        for unit in units:
            unit.removable = values.get("removable", disk is None)
        return Stick(units, identity, PROTOCOLS[values.get("protocol", "bot")], faults=address.faults)
    except BaseException:
        first.close()
        raise


def _disk(values: Mapping[str, Any]) -> tuple[AtaDisk | NvmeDisk | None, str]:
    """Return the disk after the bridge, None for a stick, and the bridge. Raise ValueError if they do not fit."""
    profile, health = values.get("profile", "flash"), values.get("health", HEALTHS[0])
    if profile in KINDS:
        disk: AtaDisk | NvmeDisk = AtaDisk(profile, health)
    elif profile == NVME_BRIDGE:
        disk = NvmeDisk(health)
    elif "bridge" in values:
        raise ValueError(f"bridge: a {profile} has none; give profile={NVME_BRIDGE}, or one of {', '.join(KINDS)}")
    else:
        return None, ""
    known = bridges.ATA if isinstance(disk, AtaDisk) else bridges.NVME
    bridge = values.get("bridge", next(iter(known)))
    if bridge not in known:
        raise ValueError(f"bridge: {bridge} has no {profile}; use {', '.join(known)}")
    return disk, bridge
