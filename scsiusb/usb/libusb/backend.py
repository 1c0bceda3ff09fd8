"""The real USB: pyusb's libusb1 backend on libusb-package's library, with what pyusb lacks."""

from __future__ import annotations

import ctypes
import os
import sys
import weakref
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, Final

from scsiusb.base.text import printable
from scsiusb.usb.backend import Backend, Code, Device, Endpoint, Handle, Hotplug, Setting, Strings, UsbError
from scsiusb.usb.libusb import library
from scsiusb.usb.libusb.context import Context, check
from scsiusb.usb.libusb.memory import LEAST, DeviceMemory, usbfs_limit
from scsiusb.usb.libusb.transfer import Transfers, declare
from scsiusb.usb.system import linux
from scsiusb.usb.translate import translate

SPEEDS: Final = {1: "low", 2: "full", 3: "high", 4: "super", 5: "super-plus", 6: "super-plus"}  # enum libusb_speed
STRING_SIZE: Final = 256
HUB_CLASS: Final = 0x09
ON_LINUX: Final = sys.platform == "linux"


class LibusbBackend:
    """Looks around in pyusb's one libusb context, which ends with the interpreter; each handle has one of its own."""

    identity: Hashable = "libusb"
    is_shared = True

    def __init__(self) -> None:
        import usb.backend.libusb1 as pyusb

        backend = library.load()
        if backend is None:
            raise UsbError(Code.NOT_SUPPORTED, "libusb cannot be loaded")
        _check_process(backend)
        self._pyusb = pyusb
        self._backend = backend
        self._lib = backend.lib
        # Kept where all that open devices in this process find it: usbfs has one limit for them together.
        self._memory = vars(backend).setdefault("scsiusb_memory", DeviceMemory(usbfs_limit() if ON_LINUX else None))
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
            descriptor = self._find(device)
            handle = LibusbHandle(self._lib, device, self._memory)
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
        return LibusbHandle(self._lib, device, self._memory)

    def after_fork(self, device: Device) -> None:
        """libusb cannot, and the copies of its descriptors would keep the device from everybody."""
        if ON_LINUX:
            linux.close_node(device)

    def watch(self) -> Hotplug:
        from scsiusb.usb.libusb.hotplug import hotplug

        return hotplug(self._lib)

    def close(self) -> None:
        """The context stays: it is pyusb's, and others in this process may use it."""

    def _find(self, device: Device) -> Any:
        """Its descriptor, as pyusb has it."""
        for _, descriptor in self._references():
            if (descriptor.bus, descriptor.address) == (device.bus, device.number):
                return descriptor
        raise UsbError(Code.NO_DEVICE)

    def _scan(self) -> Iterator[tuple[Any, Device]]:
        for reference, descriptor in self._references():
            if descriptor.bDeviceClass != HUB_CLASS:
                configuration, settings = self._active_configuration(reference)
                yield reference, _device(descriptor, configuration, settings)

    def _references(self) -> Iterator[tuple[Any, Any]]:
        """Every device with its descriptor; pyusb's errors become ours."""
        try:
            for reference in self._backend.enumerate_devices():
                yield reference, self._backend.get_device_descriptor(reference)
        except self._pyusb.USBError as error:
            raise UsbError(Code(error.backend_error_code), error.strerror or "") from error
        except NotImplementedError as error:
            raise UsbError(Code.NOT_SUPPORTED) from error

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

    def __init__(self, lib: Any, device: Device, memory: DeviceMemory) -> None:
        self._lib = lib
        self._memory = memory
        self._promised = 0
        self._device = device
        self._owner = os.getpid()
        self._handle = ctypes.c_void_p()
        self._context = Context(lib)
        try:
            self._context.open(device, self._handle)
        except BaseException:
            self.close()
            raise
        self._transfers = Transfers(lib, self._context.pointer, self._handle)
        self.bulk = self._transfers.bulk
        self.chain = self._transfers.chain
        self.async_transfers = self._transfers if self._transfers.fileno() >= 0 else None

    def claim(self, interface: int) -> None:
        try:
            self._call("claim_interface", interface)
        except UsbError as error:
            if error.code is Code.BUSY and ON_LINUX:
                raise UsbError(Code.BUSY, printable(", ".join(linux.openers(self._device)))) from None
            raise

    def release(self, interface: int) -> None:
        self._call("release_interface", interface)

    def set_alternate(self, interface: int, alternate: int) -> None:
        self._call("set_interface_alt_setting", interface, alternate)

    def driver_active(self, interface: int) -> bool:
        """False where the platform has no kernel drivers to detach."""
        if ON_LINUX:
            linux.await_driver(self._device, interface)
        try:
            return bool(self._call("kernel_driver_active", interface))
        except UsbError as error:
            if error.code is Code.NOT_SUPPORTED:
                return False
            raise

    def detach_driver(self, interface: int) -> None:
        with linux.exclusive(linux.disks(self._device, interface) if ON_LINUX else []):
            self._call("detach_kernel_driver", interface)

    def attach_driver(self, interface: int) -> None:
        self._call("attach_kernel_driver", interface)

    def clear_halt(self, endpoint: int) -> None:
        self._call("clear_halt", endpoint)

    def reset(self) -> None:
        self._call("reset_device")

    def control_in(
        self, request_type: int, request: int, value: int, index: int, length: int, timeout_ms: int
    ) -> bytes:
        data = (ctypes.c_ubyte * length)()
        count = self._control(request_type, request, value, index, data, timeout_ms)
        return bytes(data[:count])

    def control_out(
        self, request_type: int, request: int, value: int, index: int, data: bytes, timeout_ms: int
    ) -> None:
        self._control(
            request_type, request, value, index, (ctypes.c_ubyte * len(data)).from_buffer_copy(data), timeout_ms
        )

    def _control(
        self,
        request_type: int,
        request: int,
        value: int,
        index: int,
        data: ctypes.Array[ctypes.c_ubyte],
        timeout_ms: int,
    ) -> int:
        return self._call("control_transfer", request_type, request, value, index, data, len(data), timeout_ms)

    def string(self, index: int) -> str | None:
        """A string descriptor in the device's first language."""
        data = (ctypes.c_ubyte * STRING_SIZE)()
        count = self._lib.libusb_get_string_descriptor_ascii(self._handle, index, data, STRING_SIZE) if index else 0
        return bytes(data[:count]).decode("ascii", "replace") if count > 0 else None

    def interrupt(self, on: bool) -> None:
        self._transfers.interrupt(on)

    def limit_transfer_size(self, size: int) -> int:
        """See `Handle.limit_transfer_size`; where no device memory is left, what other transfers leave room for."""
        granted = self._memory.reserve(1 << (size - 1).bit_length())
        self._promised += granted
        return min(size, granted or LEAST)

    def allocate(self, size: int) -> memoryview:
        """Device memory (zero copy in usbfs), ordinary memory where there is none or none is left."""
        if not self._handle or not self._may_have(size):
            return memoryview(bytearray(size))
        address = self._lib.libusb_dev_mem_alloc(self._handle, size)
        if not address:
            self._memory.give_back(size)
            return memoryview(bytearray(size))
        memory = (ctypes.c_ubyte * size).from_address(address)
        weakref.finalize(memory, _give_back, self._lib, address, size, os.getpid(), self._memory).atexit = False
        return memoryview(memory).cast("B")

    def _may_have(self, size: int) -> bool:
        if LEAST <= size <= self._promised:  # a CBW's would leave too little of it for a command's data
            self._promised -= size
            return True
        return self._memory.allocate(size)

    def free(self, buffer: memoryview) -> None:
        """The memory goes with the last slice of it, or transfer on it; BufferError while an object exports it."""
        buffer.release()

    def close(self) -> None:
        handle, self._handle = self._handle, ctypes.c_void_p()
        self._memory.give_back(self._promised)
        self._promised = 0
        try:
            if handle:
                self._close(handle)
        finally:
            if hasattr(self, "_context"):
                self._context.close()

    def _close(self, handle: ctypes.c_void_p) -> None:
        try:
            if hasattr(self, "_transfers") and not self._transfers.close():
                self._context.leak()
        finally:
            self._lib.libusb_close(handle)

    def __del__(self) -> None:
        """Ctrl-C may have come before anybody had it. libusb is not for a fork's child."""
        if self._owner == os.getpid():
            self.close()

    def _call(self, name: str, *arguments: object) -> int:
        """libusb's function of that name on the handle; a closed one would crash it."""
        if not self._handle:
            raise UsbError(Code.NO_DEVICE, "the handle is closed")
        return check(getattr(self._lib, f"libusb_{name}")(self._handle, *arguments))


def libusb() -> Backend:
    """The real USB, as it is. Raises ScsiUsbError where it cannot be had."""
    try:
        return LibusbBackend()
    except UsbError as error:
        raise translate(error, "loading libusb") from error


def _check_process(backend: Any) -> None:
    """libusb's state does not survive a fork: its thread is not there, its locks may be held for ever."""
    owner = getattr(backend, "scsiusb_process", None)
    if owner is None:
        backend.scsiusb_process = os.getpid()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=lambda: _drop_context(backend))
    elif owner != os.getpid():
        raise UsbError(
            Code.NOT_SUPPORTED,
            f"process {owner} used libusb before it forked this one: fork earlier, or start the process by spawn",
        )


def _drop_context(backend: Any) -> None:
    """Keeps pyusb from ending, at the child's exit, the event thread that the parent still uses."""
    backend.ctx = None


def _give_back(lib: Any, address: int, size: int, owner: int, memory: DeviceMemory) -> None:
    """Without the handle, which may be closed by now: usbfs, which alone has device memory, does not look at it."""
    if os.getpid() == owner:  # a fork's child does not have the memory
        lib.libusb_dev_mem_free(None, address, size)
        memory.give_back(size)
