"""The host's side of a plugged-in stick: what a kernel keeps about it, such as address, drivers and claims."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from scsiusb.usb.backend import BlockDisk, Code, Device, Setting, Strings, UsbError
from scsiusb.virtual.device import descriptors
from scsiusb.virtual.device.function import Stall
from scsiusb.virtual.stick import CancelToken, Stick


class Connection:
    """A stick that is plugged into a bus, from `plug` to `unplug`.

    `lock` guards the drivers and claims; the stick has its own lock. `plugging` is `Device.connection`.
    """

    def __init__(self, bus: int, ports: tuple[int, ...], number: int, stick: Stick, plugging: int) -> None:
        self.bus, self.ports, self.number, self.stick = bus, ports, number, stick
        self.plugging = plugging
        self.token = CancelToken()
        self.lock = threading.RLock()
        self.claims: dict[int, object] = {}  # interface number to the handle that claimed it
        self.streams: dict[int, int] = {}  # how many are allocated, by endpoint
        self._drivers: dict[int, str] = {}
        self._on_leave: Callable[[], None] | None = None
        stick.plug_in()
        stick.configure(1)
        self.settings = descriptors.parse_settings(stick.descriptor(descriptors.CONFIGURATION) or b"")
        for interface in {each.interface for each in self.settings}:
            self.bind(interface)

    def device(self) -> Device:
        """Return the device as the bus lists it now; one without a configuration has no settings."""
        stick = self.stick
        described = stick.descriptors.device()
        vid, pid, release = descriptors.parse_identity(described)
        configuration = stick.configuration
        return Device(
            bus=self.bus,
            ports=self.ports,
            number=self.number,
            vid=vid,
            pid=pid,
            release=release,
            speed=stick.identity.speed,
            configuration=configuration,
            settings=self.settings if configuration else (),
            connection=self.plugging,
            usb=int.from_bytes(described[2:4], "little"),
        )

    def strings(self) -> Strings:
        """Return the string descriptors that the device descriptor refers to; see `Backend.strings`."""
        if not self.stick.has_readable_strings:
            return Strings()
        manufacturer, product, serial = self.stick.descriptors.device()[14:17]  # iManufacturer, iProduct, iSerialNumber
        return Strings(self._string(serial), self._string(manufacturer), self._string(product))

    def _string(self, index: int) -> str | None:
        found = self.stick.descriptor(descriptors.STRING, index) if index else None
        return found[2 : found[0] & ~1].decode("utf-16-le", "replace") if found else None

    def has(self, interface: int) -> bool:
        """Return whether the current configuration has the interface, according to the descriptors."""
        return self.stick.configuration != 0 and any(each.interface == interface for each in self.settings)

    def interface_of_endpoint(self, address: int) -> int | None:
        """Return the interface whose selected setting has the endpoint, according to the descriptors; or None.

        The descriptors may be wrong (fault "descriptor"), so `Stick.interface_of_endpoint` may differ.
        """
        alternates = self.stick.alternates
        for setting in self.settings:
            is_selected = alternates.get(setting.interface, 0) == setting.alternate
            if is_selected and any(endpoint.address == address for endpoint in setting.endpoints):
                return setting.interface
        return None

    def set_on_leave(self, callback: Callable[[], None] | None) -> None:
        """Set the callback for the device leaving by itself, in place of the one before; None removes it."""
        if self._on_leave is not None:
            self.stick.on_leave.remove(self._on_leave)
        self._on_leave = callback
        if callback is not None:
            self.stick.on_leave.append(callback)

    def disconnect(self) -> None:
        """End the connection: transfers in progress and later ones end with NO_DEVICE."""
        self.set_on_leave(None)
        self.stick.cancel_transfers(self.token, Code.NO_DEVICE)

    @property
    def is_disconnected(self) -> bool:
        """Whether the stick was unplugged or has left the bus."""
        return self.token.code is not None

    # --- kernel drivers -------------------------------------------------------------------------

    def driver(self, interface: int) -> str | None:
        """Return the name of the kernel driver bound to the interface, or None."""
        return self._drivers.get(interface)

    def uses(self, interface: int) -> Sequence[str]:
        """Return what uses the interface's disks; nothing unless a storage driver, which makes the disks, is bound."""
        with self.lock:
            return tuple(self.stick.uses) if self.driver(interface) in ("usb-storage", "uas") else ()

    def disks(self, interface: int) -> Sequence[BlockDisk]:
        """Return the system's disks of the interface; nothing unless a storage driver, which makes them, is bound."""
        with self.lock:
            return tuple(self.stick.disks) if self.driver(interface) in ("usb-storage", "uas") else ()

    def bind(self, interface: int) -> bool:
        """Bind a kernel driver if one matches, and return whether it did; `uas` selects its own alternate setting."""
        settings = [each for each in self.settings if each.interface == interface]
        driver, alternate = _match(settings)
        if driver is None:
            return False
        try:
            self.stick.select(interface, alternate)
        except Stall:  # the device does not have the setting that its descriptors list
            return False
        self._drivers[interface] = driver
        return True

    def unbind(self, interface: int) -> None:
        """Unbind the kernel driver; raises UsbError (NOT_FOUND) if none is bound."""
        if self._drivers.pop(interface, None) is None:
            raise UsbError(Code.NOT_FOUND)

    def reset(self) -> None:
        """Reset the port; bound drivers then select their alternate settings again."""
        self.streams.clear()
        self.stick.power_on()
        self.stick.configure(1)
        for interface in tuple(self._drivers):
            self.bind(interface)


def _match(settings: Sequence[Setting]) -> tuple[str | None, int]:
    """Return the driver that Linux binds to the interface, and the alternate setting that the driver selects."""
    for setting in settings:
        if setting.interface_class == descriptors.MASS_STORAGE and setting.protocol == descriptors.UAS:
            return "uas", setting.alternate
    for setting in settings:
        if setting.interface_class == descriptors.MASS_STORAGE and setting.protocol == descriptors.BOT:
            return "usb-storage", setting.alternate
        if setting.interface_class == descriptors.HID:
            return "usbhid", setting.alternate
    return None, 0
