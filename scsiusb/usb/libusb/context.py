"""A libusb context for one device: no thread waits for the events of another device, or is woken by them."""

from __future__ import annotations

import ctypes
from typing import Any

from scsiusb.usb.backend import Code, Device, UsbError


class Context:
    """A libusb context. Close the handle that was opened in it before the context itself."""

    def __init__(self, lib: Any) -> None:
        """Make the context. Raises UsbError."""
        self._lib = lib
        self.pointer = ctypes.c_void_p()
        check(lib.libusb_init(ctypes.byref(self.pointer)))

    def open(self, device: Device, handle: ctypes.c_void_p) -> None:
        """Open the device into `handle`, if it was not unplugged since. Raises UsbError: NO_DEVICE, ACCESS, …"""
        devices = ctypes.POINTER(ctypes.c_void_p)()
        count = check(self._lib.libusb_get_device_list(self.pointer, ctypes.byref(devices)))
        try:
            for each in devices[:count]:
                place = self._lib.libusb_get_bus_number(each), self._lib.libusb_get_device_address(each)
                if place == (device.bus, device.number):
                    check(self._lib.libusb_open(each, ctypes.byref(handle)))
                    return
        finally:
            self._lib.libusb_free_device_list(devices, 1)
        raise UsbError(Code.NO_DEVICE)

    def leak(self) -> None:
        """Keep the context for ever, because the kernel still has a transfer of it."""
        self.pointer = ctypes.c_void_p()

    def close(self) -> None:
        """Free the context. May be called again."""
        pointer, self.pointer = self.pointer, ctypes.c_void_p()
        if pointer:  # libusb takes NULL for the default context, which other libraries share
            self._lib.libusb_exit(pointer)


def check(code: int) -> int:
    """Return a libusb function's result. Raises UsbError if it is an error code."""
    if code < 0:
        raise UsbError(Code(code))
    return code
