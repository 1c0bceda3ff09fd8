"""Finds the mass-storage interfaces on a bus, by class and protocol, in all alternate settings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import field, replace
from itertools import groupby
from typing import Final, NamedTuple

from scsiusb.base.dataclass import dataclass
from scsiusb.base.text import printable
from scsiusb.usb.backend import Backend, BlockDisk, Device, Endpoint, Setting, Strings, UsbError
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
CONTROL_BULK_INTERRUPT: Final = (0x00, 0x01)  # bInterfaceProtocol; with and without command completion interrupt
NODE: Final = "/dev/"
SERIAL: Final = "serial="
VID_PID: Final = re.compile(r"([0-9a-fA-F]{4}):([0-9a-fA-F]{4})")
PIPES: Final = (1, 2, 3, 4)  # bPipeID: command, status, data-in, data-out
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
    """"bot"; "uas" only if the interface has no BOT setting; "cbi" or "other" if it is not supported."""
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
    unsupported: str | None = None
    """Why the interface cannot be opened; None if it can."""
    disks: tuple[BlockDisk, ...] = field(default=(), compare=False, repr=False)
    """The disks that the kernel has made of the logical units, as it was when the interface was found (Linux)."""

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
    """Return whether a user's text names this interface: an address, "VID:PID" in hex, "serial=TEXT", or "/dev/sdX"."""
    if words.startswith(NODE):
        return any(words == disk.node for disk in info.disks)
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
    usable = [setting for setting in settings if _problem(device, setting) is None]
    return [_info(backend, device, each, strings, alone=(usable or settings) == [each]) for each in settings]


def _mass_storage_settings(device: Device) -> list[Setting]:
    """Return, for each mass-storage interface, the setting with the preferred protocol; one that is usable, if any."""
    # UAS is an alternate setting of the same interface, usually 1, with BOT in setting 0.
    storage = [setting for setting in device.settings if setting.interface_class == MASS_STORAGE]
    ordered = sorted(storage, key=lambda setting: _preference(device, setting))
    by_interface = groupby(ordered, key=lambda setting: setting.interface)
    return [next(group) for _, group in by_interface]


def _preference(device: Device, setting: Setting) -> tuple[int, bool, int, int]:
    """Return a sort key: by interface, then by preference."""
    protocols = list(PROTOCOLS)
    rank = protocols.index(setting.protocol) if setting.protocol in protocols else len(protocols)
    return setting.interface, _problem(device, setting) is not None, rank, setting.alternate


def _problem(device: Device, setting: Setting) -> str | None:
    """Return why a mass-storage setting cannot be used; None if it has a known protocol and both bulk endpoints."""
    if not device.configuration:
        return "the device is not configured; unplug it and plug it in again"
    if setting.protocol in CONTROL_BULK_INTERRUPT:
        return "it speaks CBI (Control/Bulk/Interrupt), the protocol of floppy drives"
    if setting.protocol not in PROTOCOLS:
        return f"its protocol {setting.protocol:02X}h is neither Bulk-Only Transport nor UAS"
    if setting.subclass not in SUBCLASSES:
        return f"its subclass {setting.subclass:02X}h has no SCSI commands"
    if PROTOCOLS[setting.protocol] == "uas" and uas_pipes(setting) is None:
        return "its descriptors do not say which endpoints are the four pipes of UAS"
    if bulk_in(setting) is None or bulk_out(setting) is None:
        return "its descriptors have no usable pair of bulk endpoints"
    return None


def _protocol(setting: Setting) -> str:
    return "cbi" if setting.protocol in CONTROL_BULK_INTERRUPT else PROTOCOLS.get(setting.protocol, "other")


class UasPipes(NamedTuple):
    """The four endpoints of a UAS setting, as its pipe usage descriptors name them (UAS-3 5.2.3.3)."""

    command: Endpoint
    status: Endpoint
    data_in: Endpoint
    data_out: Endpoint

    @property
    def streaming(self) -> tuple[Endpoint, Endpoint, Endpoint]:
        """The endpoints that have streams at SuperSpeed: all but the command pipe."""
        return self.status, self.data_in, self.data_out


def uas_pipes(setting: Setting) -> UasPipes | None:
    """Return the pipes of a UAS setting; None if one is missing, twice there, or goes the wrong way."""
    found = {number: [each for each in setting.endpoints if each.pipe == number] for number in PIPES}
    if any(len(each) != 1 or not each[0].max_packet_size for each in found.values()):
        return None
    pipes = UasPipes(*(found[number][0] for number in PIPES))
    ways = (pipes.command.is_bulk_out, pipes.status.is_bulk_in, pipes.data_in.is_bulk_in, pipes.data_out.is_bulk_out)
    return pipes if all(ways) else None


def by_protocol(info: InterfaceInfo, protocol: str) -> InterfaceInfo | None:
    """Return the interface as it is used by "bot" or "uas"; None if it has no usable setting for it."""
    for setting in info.device.settings:
        if (
            setting.interface == info.interface
            and setting.interface_class == MASS_STORAGE
            and PROTOCOLS.get(setting.protocol) == protocol
            and _problem(info.device, setting) is None
        ):
            return replace(info, protocol=protocol, alternate=setting.alternate, setting=setting, unsupported=None)
    return None


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
    """Describe the setting's interface; `alone`: it is the device's only mass-storage interface, or only usable one."""
    return InterfaceInfo(
        address=device.address if alone else device.interface_name(setting.interface),
        vid=device.vid,
        pid=device.pid,
        serial=strings.serial,
        manufacturer=strings.manufacturer,
        product=strings.product,
        protocol=_protocol(setting),
        speed=device.speed,
        driver=backend.driver(device, setting.interface),
        interface=setting.interface,
        alternate=setting.alternate,
        device=device,
        setting=setting,
        unsupported=_problem(device, setting),
        disks=tuple(backend.disks(device, setting.interface)),
    )


def _printable(strings: Strings) -> Strings:
    """Make the device's strings safe to print."""
    texts = (strings.serial, strings.manufacturer, strings.product)
    return Strings(*(None if text is None else printable(text) for text in texts))
