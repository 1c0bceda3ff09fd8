"""Finds the mass-storage interfaces on a bus: by class and protocol, over all alternate settings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import field
from itertools import groupby
from typing import Final

from scsiusb.base.dataclass import dataclass
from scsiusb.base.text import printable
from scsiusb.usb.backend import Backend, Device, Endpoint, Setting, Strings, UsbError
from scsiusb.usb.translate import translate

MASS_STORAGE: Final = 0x08  # bInterfaceClass
SUBCLASSES: Final = {  # bInterfaceSubClass (USB MSC overview 2)
    0x00: "not reported",
    0x01: "RBC",
    0x02: "MMC",
    0x04: "UFI",
    0x05: "SFF-8070i",
    0x06: "SCSI",
}
SERIAL: Final = "serial="
VID_PID: Final = re.compile(r"([0-9a-fA-F]{4}):([0-9a-fA-F]{4})")
PROTOCOLS: Final = {0x50: "bot", 0x62: "uas"}  # bInterfaceProtocol, the one we rather use first


@dataclass(frozen=True)
class InterfaceInfo:
    """A mass-storage interface found: a value that holds no resource and may outlive the device."""

    address: str
    """As the kernel prints it: "2-1"; "2-1:1.0" where the device has several mass-storage interfaces."""
    vid: int
    pid: int
    serial: str | None
    manufacturer: str | None
    product: str | None
    protocol: str
    """"bot" or "uas" (only where the interface has no BOT setting)."""
    speed: str
    """"low", "full", "high", "super", "super-plus", "unknown"."""
    driver: str | None
    """The kernel driver that is bound; None: none, or the platform does not tell."""
    interface: int
    """bInterfaceNumber"""
    alternate: int
    """bAlternateSetting of the setting that speaks `protocol`."""
    device: Device = field(repr=False)
    setting: Setting = field(repr=False)

    @property
    def name(self) -> str:
        """The kernel's name of the interface: "2-1:1.0"."""
        return self.device.interface_name(self.interface)

    def __str__(self) -> str:
        label = " ".join(filter(None, (self.manufacturer, self.product))) or "a USB mass-storage device"
        return f"{label} at {self.address}"


def matches(info: InterfaceInfo, words: str) -> bool:
    """Do the words of a user mean this interface: an address, "VID:PID", "serial=TEXT"?"""
    if words.startswith(SERIAL):
        return info.serial == words.removeprefix(SERIAL)
    identity = VID_PID.fullmatch(words)
    if identity:
        return (info.vid, info.pid) == tuple(int(number, 16) for number in identity.groups())
    return words in (info.address, info.device.address, info.name)


def find(backend: Backend) -> list[InterfaceInfo]:
    """The mass-storage interfaces attached now, ordered by address."""
    try:
        devices = sorted(backend.devices(), key=lambda device: (device.bus, device.ports))
        return [info for device in devices for info in interfaces_of(backend, device)]
    except UsbError as error:
        raise translate(error, "looking for devices") from error


def interfaces_of(backend: Backend, device: Device) -> list[InterfaceInfo]:
    """The mass-storage interfaces of one device. Raises UsbError."""
    settings = _mass_storage_settings(device)
    if not settings:
        return []
    strings = _printable(backend.strings(device))
    return [_info(backend, device, setting, strings, alone=len(settings) == 1) for setting in settings]


def _mass_storage_settings(device: Device) -> list[Setting]:
    """For each mass-storage interface, the setting whose protocol we rather use."""
    usable = sorted((s for s in device.settings if _is_usable(s)), key=_preference)
    by_interface = groupby(usable, key=lambda setting: setting.interface)
    return [next(group) for _, group in by_interface]


def _preference(setting: Setting) -> tuple[int, int, int]:
    return setting.interface, list(PROTOCOLS).index(setting.protocol), setting.alternate


def _is_usable(setting: Setting) -> bool:
    return (
        setting.interface_class == MASS_STORAGE
        and setting.subclass in SUBCLASSES
        and setting.protocol in PROTOCOLS
        and bulk_in(setting) is not None
        and bulk_out(setting) is not None
    )


def bulk_in(setting: Setting) -> Endpoint | None:
    return _first([endpoint for endpoint in setting.endpoints if endpoint.is_bulk_in])


def bulk_out(setting: Setting) -> Endpoint | None:
    return _first([endpoint for endpoint in setting.endpoints if endpoint.is_bulk_out])


def _first(endpoints: Sequence[Endpoint]) -> Endpoint | None:
    """An endpoint without room for a packet is a lie of the device's."""
    return next((endpoint for endpoint in endpoints if endpoint.max_packet_size > 0), None)


def _info(backend: Backend, device: Device, setting: Setting, strings: Strings, *, alone: bool) -> InterfaceInfo:
    return InterfaceInfo(
        address=device.address if alone else device.interface_name(setting.interface),
        vid=device.vid,
        pid=device.pid,
        serial=strings.serial,
        manufacturer=strings.manufacturer,
        product=strings.product,
        protocol=PROTOCOLS[setting.protocol],
        speed=device.speed,
        driver=backend.driver(device, setting.interface),
        interface=setting.interface,
        alternate=setting.alternate,
        device=device,
        setting=setting,
    )


def _printable(strings: Strings) -> Strings:
    texts = (strings.serial, strings.manufacturer, strings.product)
    return Strings(*(None if text is None else printable(text) for text in texts))
