"""Devices made of bytes: every descriptor field that the driver looks at, with any value."""

from __future__ import annotations

from collections.abc import Sequence

from scsiusb.usb.backend import Device, Endpoint, Setting, Strings
from scsiusb.virtual import Bus

SPEEDS = ("unknown", "low", "full", "high", "super", "super-plus")


class Bytes:
    """Takes numbers and pieces from the front of the bytes; zeros after the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return max(len(self._data) - self._at, 0)

    def take(self, count: int) -> bytes:
        piece = self._data[self._at : self._at + count]
        self._at += count
        return piece

    def number(self, size: int = 1) -> int:
        return int.from_bytes(self.take(size).ljust(size, b"\0"), "big")


class Shown(Bus):
    """A bus with one device, which has these strings."""

    def __init__(self, shown: Device, strings: Strings) -> None:
        super().__init__()
        self._shown = shown
        self._strings = strings

    def devices(self) -> Sequence[Device]:
        return [self._shown]

    def strings(self, device: Device) -> Strings:
        return self._strings


def device_of(data: bytes) -> tuple[Device, Strings]:
    """Return the device and the strings that the bytes stand for."""
    source = Bytes(data)
    ports = tuple(1 + source.number() % 30 for _ in range(source.number() % 6))
    number, vid, pid, release = source.number(), source.number(2), source.number(2), source.number(2)
    speed = SPEEDS[source.number() % len(SPEEDS)]
    bus, configuration = source.number(), source.number()
    settings = tuple(_setting(source) for _ in range(source.number() % 8))
    device = Device(bus, ports, number, vid, pid, release, speed, configuration, settings)
    return device, Strings(*(_text(source) for _ in range(3)))


def _setting(source: Bytes) -> Setting:
    interface, alternate, code, subclass, protocol = (source.number() for _ in range(5))
    endpoints = tuple(_endpoint(source) for _ in range(source.number() % 32))
    return Setting(interface, alternate, code, subclass, protocol, endpoints)


def _endpoint(source: Bytes) -> Endpoint:
    return Endpoint(source.number(), source.number(), source.number(2))


def _text(source: Bytes) -> str | None:
    """Return a string as read from sysfs, or None."""
    length = source.number()
    return source.take(length).decode("utf-8", "replace") if length else None
