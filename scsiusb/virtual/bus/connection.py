"""What the host's kernel keeps about one plugging-in of a stick: its address, drivers and claims."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from scsiusb.usb.backend import Code, Device, Setting, Strings, UsbError
from scsiusb.virtual.device import descriptors
from scsiusb.virtual.device.function import Stall
from scsiusb.virtual.stick import Line, Stick


class Connection:
    """One plugging-in; `lock` guards the drivers and claims, and the stick guards itself."""

    def __init__(self, bus: int, ports: tuple[int, ...], number: int, stick: Stick) -> None:
        self.bus, self.ports, self.number, self.stick = bus, ports, number, stick
        self.line = Line()
        self.lock = threading.RLock()
        self.claims: dict[int, object] = {}  # interface: the handle that claimed it
        self._drivers: dict[int, str] = {}
        self._on_leave: Callable[[], None] | None = None
        stick.plug_in()
        stick.configure(1)
        self.settings = descriptors.parse_settings(stick.descriptor(descriptors.CONFIGURATION) or b"")
        for interface in {each.interface for each in self.settings}:
            self.bind(interface)

    def device(self) -> Device:
        stick = self.stick
        vid, pid, release = descriptors.parse_identity(stick.descriptors.device())
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
        )

    def strings(self) -> Strings:
        if not self.stick.has_readable_strings:
            return Strings()
        manufacturer, product, serial = self.stick.descriptors.device()[14:17]  # iManufacturer, iProduct, iSerialNumber
        return Strings(self._string(serial), self._string(manufacturer), self._string(product))

    def _string(self, index: int) -> str | None:
        found = self.stick.descriptor(descriptors.STRING, index) if index else None
        return found[2 : found[0] & ~1].decode("utf-16-le", "replace") if found else None

    def has(self, interface: int) -> bool:
        """Is there such an interface now, as the descriptors say?"""
        return self.stick.configuration != 0 and any(each.interface == interface for each in self.settings)

    def interface_of_endpoint(self, address: int) -> int | None:
        """The interface that has the endpoint now, as the descriptors say."""
        alternates = self.stick.alternates
        for setting in self.settings:
            is_selected = alternates.get(setting.interface, 0) == setting.alternate
            if is_selected and any(endpoint.address == address for endpoint in setting.endpoints):
                return setting.interface
        return None

    def watch_leaving(self, call: Callable[[], None] | None) -> None:
        """Calls when the stick leaves by itself; None: no longer."""
        if self._on_leave is not None:
            self.stick.on_leave.remove(self._on_leave)
        self._on_leave = call
        if call is not None:
            self.stick.on_leave.append(call)

    def cut(self) -> None:
        """The plug was pulled."""
        self.watch_leaving(None)
        self.stick.cut(self.line, Code.NO_DEVICE)

    @property
    def is_cut(self) -> bool:
        return self.line.code is not None

    # --- kernel drivers -------------------------------------------------------------------------

    def driver(self, interface: int) -> str | None:
        return self._drivers.get(interface)

    def uses(self, interface: int) -> Sequence[str]:
        """Only a disk that the kernel drives can be mounted."""
        with self.lock:
            return tuple(self.stick.uses) if self.driver(interface) in ("usb-storage", "uas") else ()

    def bind(self, interface: int) -> bool:
        """Lets the kernel find a driver; `uas` selects its own alternate setting."""
        settings = [each for each in self.settings if each.interface == interface]
        driver, alternate = _match(settings)
        if driver is None:
            return False
        try:
            self.stick.select(interface, alternate)
        except Stall:  # it is not as its descriptors say
            return False
        self._drivers[interface] = driver
        return True

    def unbind(self, interface: int) -> None:
        if self._drivers.pop(interface, None) is None:
            raise UsbError(Code.NOT_FOUND)

    def reset(self) -> None:
        """Resets the port; a bound driver then selects its alternate setting again."""
        self.stick.power_on()
        self.stick.configure(1)
        for interface in tuple(self._drivers):
            self.bind(interface)


def _match(settings: Sequence[Setting]) -> tuple[str | None, int]:
    """The driver that takes the interface, and the alternate setting that it selects."""
    for setting in settings:
        if setting.interface_class == descriptors.MASS_STORAGE and setting.protocol == descriptors.UAS:
            return "uas", setting.alternate
    for setting in settings:
        if setting.interface_class == descriptors.MASS_STORAGE and setting.protocol == descriptors.BOT:
            return "usb-storage", setting.alternate
        if setting.interface_class == descriptors.HID:
            return "usbhid", setting.alternate
    return None, 0
