"""The real USB: pyusb's libusb1 backend on libusb-package's library, with what pyusb lacks."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

from scsiusb.usb import linux
from scsiusb.usb.backend import Code, Device, Endpoint, Handle, Setting, Strings, UsbError
from scsiusb.usb.transfer import Transfers, declare

SPEEDS: Final = {1: "low", 2: "full", 3: "high", 4: "super", 5: "super-plus", 6: "super-plus"}  # enum libusb_speed
STRING_SIZE: Final = 256
HUB_CLASS: Final = 0x09
ON_LINUX: Final = sys.platform == "linux"


class LibusbBackend:
    """Shares pyusb's one libusb context; that ends with the interpreter."""

    def __init__(self) -> None:
        import libusb_package
        import usb.backend.libusb1 as pyusb

        backend = libusb_package.get_libusb1_backend()
        if backend is None:
            raise UsbError(Code.NOT_SUPPORTED, "libusb cannot be loaded")
        self._pyusb = pyusb
        self._backend = backend
        self._lib = backend.lib
        declare(self._lib)
        self._lib.libusb_get_active_config_descriptor.argtypes = [
            ctypes.c_void_p,
            ctypes.POINTER(ctypes.POINTER(pyusb._libusb_config_descriptor)),
        ]

    def devices(self) -> Sequence[Device]:
        return [device for _, device in self._scan()]

    def strings(self, device: Device) -> Strings:
        """On Linux from sysfs; elsewhere the device is opened for a moment, if we may."""
        if ON_LINUX:
            return linux.strings(device)
        try:
            reference, descriptor = self._find(device)
            handle = LibusbHandle(self._backend, reference, device)
        except UsbError:
            return Strings()
        indexes = (descriptor.iSerialNumber, descriptor.iManufacturer, descriptor.iProduct)
        try:
            return Strings(*map(handle.string, indexes))
        finally:
            handle.close()

    def driver(self, device: Device, interface: int) -> str | None:
        return linux.driver(device, interface) if ON_LINUX else None

    def uses(self, device: Device, interface: int) -> Sequence[str]:
        return linux.uses(device, interface) if ON_LINUX else []

    def open(self, device: Device) -> Handle:
        reference, _ = self._find(device)
        return LibusbHandle(self._backend, reference, device)

    def close(self) -> None:
        """The context stays: it is pyusb's, and others in this process may use it."""

    def _find(self, device: Device) -> tuple[Any, Any]:
        for reference in self._backend.enumerate_devices():
            descriptor = self._backend.get_device_descriptor(reference)
            if (descriptor.bus, descriptor.address) == (device.bus, device.number):
                return reference, descriptor
        raise UsbError(Code.NO_DEVICE)

    def _scan(self) -> Iterator[tuple[Any, Device]]:
        for reference in self._backend.enumerate_devices():
            descriptor = self._backend.get_device_descriptor(reference)
            if descriptor.bDeviceClass != HUB_CLASS:
                configuration, settings = self._active_configuration(reference)
                yield reference, _device(descriptor, configuration, settings)

    def _active_configuration(self, reference: Any) -> tuple[int, tuple[Setting, ...]]:
        """(0, ()) where there is none or it cannot be read."""
        pointer = ctypes.POINTER(self._pyusb._libusb_config_descriptor)()
        if self._lib.libusb_get_active_config_descriptor(reference.devid, ctypes.byref(pointer)) < 0:
            return 0, ()
        try:
            return pointer.contents.bConfigurationValue, tuple(_settings(pointer.contents))
        finally:
            self._lib.libusb_free_config_descriptor(pointer)


def _device(descriptor: Any, configuration: int, settings: tuple[Setting, ...]) -> Device:
    return Device(
        bus=descriptor.bus,
        ports=tuple(descriptor.port_numbers or ()),
        number=descriptor.address,
        vid=descriptor.idVendor,
        pid=descriptor.idProduct,
        release=descriptor.bcdDevice,
        speed=SPEEDS.get(descriptor.speed, "unknown"),
        configuration=configuration,
        settings=settings,
    )


def _settings(configuration: Any) -> Iterator[Setting]:
    for interface in configuration.interface[: configuration.bNumInterfaces]:
        for setting in interface.altsetting[: interface.num_altsetting]:
            endpoints = setting.endpoint[: setting.bNumEndpoints]
            yield Setting(
                interface=setting.bInterfaceNumber,
                alternate=setting.bAlternateSetting,
                interface_class=setting.bInterfaceClass,
                subclass=setting.bInterfaceSubClass,
                protocol=setting.bInterfaceProtocol,
                endpoints=tuple(Endpoint(e.bEndpointAddress, e.bmAttributes, e.wMaxPacketSize) for e in endpoints),
            )


class LibusbHandle:
    """An open libusb device handle, its transfers and its device memory."""

    def __init__(self, backend: Any, reference: Any, device: Device) -> None:
        self._lib = backend.lib
        self._device = device
        self._handle = ctypes.c_void_p()
        self._memory: dict[int, int] = {}  # id of a view: address of its device memory
        self._check(self._lib.libusb_open(reference.devid, ctypes.byref(self._handle)))
        self._transfers = Transfers(self._lib, backend.ctx, self._handle)

    def claim(self, interface: int) -> None:
        code = self._lib.libusb_claim_interface(self._handle, interface)
        if code == Code.BUSY and ON_LINUX:
            raise UsbError(Code.BUSY, ", ".join(linux.openers(self._device)))
        self._check(code)

    def release(self, interface: int) -> None:
        self._check(self._lib.libusb_release_interface(self._handle, interface))

    def set_alternate(self, interface: int, alternate: int) -> None:
        self._check(self._lib.libusb_set_interface_alt_setting(self._handle, interface, alternate))

    def driver_active(self, interface: int) -> bool:
        """False where the platform has no kernel drivers to detach."""
        code = self._lib.libusb_kernel_driver_active(self._handle, interface)
        return code != Code.NOT_SUPPORTED and bool(self._check(code))

    def detach_driver(self, interface: int) -> None:
        with linux.exclusive(linux.disks(self._device, interface) if ON_LINUX else []):
            self._check(self._lib.libusb_detach_kernel_driver(self._handle, interface))

    def attach_driver(self, interface: int) -> None:
        self._check(self._lib.libusb_attach_kernel_driver(self._handle, interface))

    def clear_halt(self, endpoint: int) -> None:
        self._check(self._lib.libusb_clear_halt(self._handle, endpoint))

    def reset(self) -> None:
        self._check(self._lib.libusb_reset_device(self._handle))

    def control_in(self, request_type: int, request: int, value: int, index: int, length: int, timeout: int) -> bytes:
        data = (ctypes.c_ubyte * length)()
        count = self._control(request_type, request, value, index, data, timeout)
        return bytes(data[:count])

    def control_out(self, request_type: int, request: int, value: int, index: int, data: bytes, timeout: int) -> None:
        self._control(request_type, request, value, index, (ctypes.c_ubyte * len(data)).from_buffer_copy(data), timeout)

    def _control(
        self, request_type: int, request: int, value: int, index: int, data: ctypes.Array[ctypes.c_ubyte], timeout: int
    ) -> int:
        return self._check(
            self._lib.libusb_control_transfer(
                self._handle, request_type, request, value, index, data, len(data), timeout
            )
        )

    def string(self, index: int) -> str | None:
        """A string descriptor in the device's first language."""
        data = (ctypes.c_ubyte * STRING_SIZE)()
        count = self._lib.libusb_get_string_descriptor_ascii(self._handle, index, data, STRING_SIZE) if index else 0
        return bytes(data[:count]).decode("ascii", "replace") if count > 0 else None

    def bulk(self, endpoint: int, buffer: memoryview, timeout: int) -> tuple[Code, int]:
        return self._transfers.bulk(endpoint, buffer, timeout)

    def allocate(self, size: int) -> memoryview:
        """Device memory (zero copy in usbfs), ordinary memory where libusb grants none."""
        address = self._lib.libusb_dev_mem_alloc(self._handle, size)
        if not address:
            return memoryview(bytearray(size))
        view = memoryview((ctypes.c_ubyte * size).from_address(address)).cast("B")
        self._memory[id(view)] = address
        return view

    def free(self, buffer: memoryview) -> None:
        """Raises BufferError while part of the buffer is still in use elsewhere."""
        size = len(buffer)
        buffer.release()
        address = self._memory.pop(id(buffer), None)
        if address is not None:
            self._lib.libusb_dev_mem_free(self._handle, address, size)

    def close(self) -> None:
        handle, self._handle = self._handle, ctypes.c_void_p()
        if handle:
            self._transfers.close()
            self._lib.libusb_close(handle)

    def _check(self, code: int) -> int:
        if code < 0:
            raise UsbError(Code(code) if code in Code._value2member_map_ else Code.OTHER)
        return code
