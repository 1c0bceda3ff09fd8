"""Finds the mass-storage interfaces on a bus, by class and protocol, in all alternate settings."""

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
PROTOCOLS: Final = {0x50: "bot", 0x62: "uas"}  # bInterfaceProtocol, the preferred one first


@dataclass(frozen=True)
class InterfaceInfo:
    """A mass-storage interface that was found: a value that holds no resource and may outlive the device."""

    address: str
    """The kernel's name of the device, "2-1"; "2-1:1.0" if the device has several mass-storage interfaces."""
    vid: int
    """idVendor"""
    pid: int
    """idProduct"""
    serial: str | None
    manufacturer: str | None
    product: str | None
    protocol: str
    """"bot"; "uas" only if the interface has no BOT setting."""
    speed: str
    """"low", "full", "high", "super", "super-plus", "unknown"."""
    driver: str | None
    """The kernel driver that is bound; None if there is none or it is not known."""
    interface: int
    """bInterfaceNumber"""
    alternate: int
    """bAlternateSetting of the setting that speaks `protocol`."""
    device: Device = field(repr=False)
    setting: Setting = field(repr=False)

    @property
    def name(self) -> str:
        """Return the kernel's name of the interface: "2-1:1.0"."""
        return self.device.interface_name(self.interface)

    def __str__(self) -> str:
        label = " ".join(filter(None, (self.manufacturer, self.product))) or "a USB mass-storage device"
        return f"{label} at {self.address}"


def is_same(info: InterfaceInfo, other: InterfaceInfo) -> bool:
    """Return whether both are of one device that was not unplugged in between."""
    serials = {info.serial, other.serial} - {None}
    return info.device.identity == other.device.identity and len(serials) < 2


def matches(info: InterfaceInfo, words: str) -> bool:
    """Return whether a user's text names this interface: an address, "VID:PID" in hex, or "serial=TEXT"."""
    if words.startswith(SERIAL):
        return info.serial == words.removeprefix(SERIAL)
    identity = VID_PID.fullmatch(words)
    if identity:
        return (info.vid, info.pid) == tuple(int(number, 16) for number in identity.groups())
    return words in (info.address, info.device.address, info.name)


def find(backend: Backend) -> list[InterfaceInfo]:
    """Return the mass-storage interfaces that are attached now, in the order of bus and port.

    Raises TransportError if the devices cannot be listed.
    """
    try:
        devices = sorted(backend.devices(), key=lambda device: (device.bus, device.ports))
        return [info for device in devices for info in interfaces_of(backend, device)]
    except UsbError as error:
        raise translate(error, "looking for devices") from error


def interfaces_of(backend: Backend, device: Device) -> list[InterfaceInfo]:
    """Return the mass-storage interfaces of one device. Raises UsbError."""
    settings = _mass_storage_settings(device)
    if not settings:
        return []
    strings = _printable(backend.strings(device))
    return [_info(backend, device, setting, strings, alone=len(settings) == 1) for setting in settings]


def _mass_storage_settings(device: Device) -> list[Setting]:
    """Return, for each mass-storage interface, the setting with the preferred protocol."""
    # UAS is an alternate setting of the same interface, usually 1, with BOT in setting 0.
    usable = sorted((s for s in device.settings if _is_usable(s)), key=_preference)
    by_interface = groupby(usable, key=lambda setting: setting.interface)
    return [next(group) for _, group in by_interface]


def _preference(setting: Setting) -> tuple[int, int, int]:
    """Return a sort key: by interface, then by preference."""
    return setting.interface, list(PROTOCOLS).index(setting.protocol), setting.alternate


def _is_usable(setting: Setting) -> bool:
    """Return whether the setting is a mass-storage one with a known protocol and both bulk endpoints."""
    return (
        setting.interface_class == MASS_STORAGE
        and setting.subclass in SUBCLASSES
        and setting.protocol in PROTOCOLS
        and bulk_in(setting) is not None
        and bulk_out(setting) is not None
    )


def bulk_in(setting: Setting) -> Endpoint | None:
    """Return the setting's first usable bulk-in endpoint, if any."""
    return _first([endpoint for endpoint in setting.endpoints if endpoint.is_bulk_in])


def bulk_out(setting: Setting) -> Endpoint | None:
    """Return the setting's first usable bulk-out endpoint, if any."""
    return _first([endpoint for endpoint in setting.endpoints if endpoint.is_bulk_out])


def _first(endpoints: Sequence[Endpoint]) -> Endpoint | None:
    """Return the first usable endpoint; a wMaxPacketSize of 0, which some devices report, cannot be used."""
    return next((endpoint for endpoint in endpoints if endpoint.max_packet_size > 0), None)


def _info(backend: Backend, device: Device, setting: Setting, strings: Strings, *, alone: bool) -> InterfaceInfo:
    """Describe the setting's interface; `alone`: it is the device's only mass-storage interface."""
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
    """Make the device's strings safe to print."""
    texts = (strings.serial, strings.manufacturer, strings.product)
    return Strings(*(None if text is None else printable(text) for text in texts))
