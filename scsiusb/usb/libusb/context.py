"""A libusb context for one device alone: no thread waits for, or wakes with, the events of another device."""

from __future__ import annotations

import ctypes
from typing import Any

from scsiusb.usb.backend import Code, Device, UsbError


class Context:
    """`close` it after what was opened in it."""

    def __init__(self, lib: Any) -> None:
        """Raises UsbError."""
        self._lib = lib
        self.pointer = ctypes.c_void_p()
        check(lib.libusb_init(ctypes.byref(self.pointer)))

    def open(self, device: Device, handle: ctypes.c_void_p) -> None:
        """Opens this plugging-in of the device. Raises UsbError: NO_DEVICE, ACCESS, …"""
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
        """The kernel still has a transfer of it."""
        self.pointer = ctypes.c_void_p()

    def close(self) -> None:
        pointer, self.pointer = self.pointer, ctypes.c_void_p()
        if pointer:  # NULL means the context that all share
            self._lib.libusb_exit(pointer)


def check(code: int) -> int:
    if code < 0:
        raise UsbError(Code(code))
    return code
