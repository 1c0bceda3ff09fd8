"""The `Backend` for real devices: pyusb's libusb1 backend with libusb-package's library, and what pyusb lacks."""

from __future__ import annotations

import ctypes
import os
import sys
import weakref
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from scsiusb.base.copying import Uncopyable
from scsiusb.base.text import printable
from scsiusb.usb.backend import (
    Backend,
    BlockDisk,
    Code,
    Device,
    Endpoint,
    Handle,
    Hotplug,
    Setting,
    Strings,
    UsbError,
    endpoint_extras,
)
from scsiusb.usb.libusb import library
from scsiusb.usb.libusb.context import Context, check
from scsiusb.usb.libusb.memory import MIN_DEVICE_MEMORY, DeviceMemory, usbfs_limit
from scsiusb.usb.libusb.transfer import Transfers, declare
from scsiusb.usb.system import block_nodes, disk_uses, linux
from scsiusb.usb.translate import translate

SPEEDS: Final = {1: "low", 2: "full", 3: "high", 4: "super", 5: "super-plus", 6: "super-plus"}  # enum libusb_speed
STRING_SIZE: Final = 256
HUB_CLASS: Final = 0x09
ON_LINUX: Final = sys.platform == "linux"


class LibusbBackend(Uncopyable):
    """See `Backend`. Devices are listed in pyusb's context, which exists until the interpreter ends.

    Each handle has a separate context. Raises UsbError: NOT_SUPPORTED if libusb cannot be loaded, or if the parent
    process had used libusb before it forked this process.
    """

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
        # One account for all instances in this process, as usbfs has one limit for all devices: it is kept as an
        # attribute of pyusb's backend, which exists once.
        self._memory = vars(backend).setdefault("scsiusb_memory", DeviceMemory(usbfs_limit() if ON_LINUX else None))
        declare(self._lib)
        self._lib.libusb_get_active_config_descriptor.argtypes = [
            ctypes.c_void_p,
            ctypes.POINTER(ctypes.POINTER(pyusb._libusb_config_descriptor)),
        ]

    def devices(self) -> Sequence[Device]:
        """See `Backend.devices`; hubs are left out."""
        return [device for _, device in self._scan()]

    def strings(self, device: Device) -> Strings:
        """See `Backend.strings`. On Linux they come from sysfs; elsewhere the device is opened for a moment."""
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
        """See `Backend.driver`; None on other platforms than Linux."""
        return linux.driver(device, interface) if ON_LINUX else None

    def uses(self, device: Device, interface: int) -> Sequence[str]:
        """See `Backend.uses`; empty on other platforms than Linux."""
        return disk_uses.uses(device, interface) if ON_LINUX else []

    def disks(self, device: Device, interface: int) -> Sequence[BlockDisk]:
        """See `Backend.disks`; empty on other platforms than Linux."""
        return block_nodes.disks(device, interface) if ON_LINUX else []

    def open(self, device: Device) -> Handle:
        """See `Backend.open`."""
        handle = LibusbHandle(self._lib, device, self._memory)
        try:
            # After the opening: from then on the handle stays with the device that had the number.
            self._check_identity(device)
        except BaseException:
            handle.close()
            raise
        return handle

    def _check_identity(self, device: Device) -> None:
        """Raise UsbError (NO_DEVICE) if another device has the device's bus and number by now."""
        now = _device(self._find(device), 0, ())
        if now.identity != device.identity:
            raise UsbError(Code.NO_DEVICE, f"{now.vid:04x}:{now.pid:04x} at {now.address} has its number now")

    def after_fork(self, device: Device) -> None:
        """See `Backend.after_fork`."""
        # libusb does not work in a forked child, so it cannot close its handles there. Their descriptors must be
        # closed, as a child that lives on would keep the device claimed.
        if ON_LINUX:
            linux.close_node(device)

    def watch(self) -> Hotplug:
        """See `Backend.watch`."""
        from scsiusb.usb.libusb.hotplug import hotplug

        return hotplug(self._lib)

    def close(self) -> None:
        """See `Backend.close`. pyusb's context stays, as other parts of the program may use it."""

    def _find(self, device: Device) -> Any:
        """Return pyusb's descriptor of the device. Raises UsbError: NO_DEVICE."""
        for _, descriptor in self._references():
            if (descriptor.bus, descriptor.address) == (device.bus, device.number):
                return descriptor
        raise UsbError(Code.NO_DEVICE)

    def _scan(self) -> Iterator[tuple[Any, Device]]:
        """Yield each device that is not a hub, with pyusb's reference to it. Raises UsbError."""
        for reference, descriptor in self._references():
            if descriptor.bDeviceClass != HUB_CLASS:
                configuration, settings = self._active_configuration(reference)
                device = _device(descriptor, configuration, settings)
                # pyusb's context may list a device for some time after the kernel has removed it.
                if device.connection is not None or not (ON_LINUX and linux.USB_DEVICES.is_dir()):
                    yield reference, device

    def _references(self) -> Iterator[tuple[Any, Any]]:
        """Yield pyusb's reference to each device, and its descriptor. Raises UsbError."""
        try:
            for reference in self._backend.enumerate_devices():
                yield reference, self._backend.get_device_descriptor(reference)
        except self._pyusb.USBError as error:
            raise UsbError(Code(error.backend_error_code), error.strerror or "") from error
        except NotImplementedError as error:
            raise UsbError(Code.NOT_SUPPORTED) from error

    def _active_configuration(self, reference: Any) -> tuple[int, tuple[Setting, ...]]:
        """Read the number and the settings of the active configuration.

        If there is none, the number is 0, and the settings are those of the first one, if that can be read.
        """
        pointer = ctypes.POINTER(self._pyusb._libusb_config_descriptor)()
        is_active = self._lib.libusb_get_active_config_descriptor(reference.devid, ctypes.byref(pointer)) >= 0
        if not is_active and self._lib.libusb_get_config_descriptor(reference.devid, 0, ctypes.byref(pointer)) < 0:
            return 0, ()
        try:
            number = pointer.contents.bConfigurationValue if is_active else 0
            return number, tuple(_settings(pointer.contents))
        finally:
            self._lib.libusb_free_config_descriptor(pointer)


def _device(descriptor: Any, configuration: int, settings: tuple[Setting, ...]) -> Device:
    """Return the device that pyusb's descriptor describes."""
    device = Device(
        bus=descriptor.bus,
        ports=tuple(descriptor.port_numbers or ()),
        number=descriptor.address,
        vid=descriptor.idVendor,
        pid=descriptor.idProduct,
        release=descriptor.bcdDevice,
        speed=SPEEDS.get(descriptor.speed, "unknown"),
        configuration=configuration,
        settings=settings,
        usb=descriptor.bcdUSB,
    )
    return replace(device, connection=linux.connection(device)) if ON_LINUX else device


def _settings(configuration: Any) -> Iterator[Setting]:
    """Yield each alternate setting in a libusb configuration descriptor."""
    for interface in configuration.interface[: configuration.bNumInterfaces]:
        for setting in interface.altsetting[: interface.num_altsetting]:
            endpoints = setting.endpoint[: setting.bNumEndpoints]
            yield Setting(
                interface=setting.bInterfaceNumber,
                alternate=setting.bAlternateSetting,
                interface_class=setting.bInterfaceClass,
                subclass=setting.bInterfaceSubClass,
                protocol=setting.bInterfaceProtocol,
                endpoints=tuple(map(_endpoint, endpoints)),
            )


def _endpoint(found: Any) -> Endpoint:
    pipe, streams = endpoint_extras(bytes(found.extra[: found.extra_length]))
    return Endpoint(found.bEndpointAddress, found.bmAttributes, found.wMaxPacketSize, pipe, streams)


class LibusbHandle:
    """An open libusb device handle, its context, its transfers and its device memory. See `Handle`."""

    def __init__(self, lib: Any, device: Device, memory: DeviceMemory) -> None:
        """Open the device. Raises UsbError: NO_DEVICE, ACCESS, …"""
        self._lib = lib
        self._memory = memory
        self._reserved = 0
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
        self.async_transfers = self._transfers

    def claim(self, interface: int) -> None:
        """See `Handle.claim`. On Linux, a BUSY error names the processes that have the device open."""
        try:
            self._call("claim_interface", interface)
        except UsbError as error:
            if error.code is Code.BUSY and ON_LINUX:
                raise UsbError(Code.BUSY, printable(", ".join(linux.openers(self._device)))) from None
            raise

    def release(self, interface: int) -> None:
        """See `Handle.release`."""
        self._call("release_interface", interface)

    def set_alternate(self, interface: int, alternate: int) -> None:
        """See `Handle.set_alternate`."""
        self._call("set_interface_alt_setting", interface, alternate)

    def alloc_streams(self, endpoints: Sequence[int], count: int) -> int:
        """See `Handle.alloc_streams`."""
        addresses = bytes(endpoints)
        return self._call("alloc_streams", ctypes.c_uint32(count), addresses, len(addresses))

    def free_streams(self, endpoints: Sequence[int]) -> None:
        """See `Handle.free_streams`."""
        addresses = bytes(endpoints)
        self._call("free_streams", addresses, len(addresses))

    def driver_active(self, interface: int) -> bool:
        """See `Handle.driver_active`. False on a platform without kernel drivers to detach."""
        if ON_LINUX:
            linux.await_driver(self._device, interface)
        try:
            return bool(self._call("kernel_driver_active", interface))
        except UsbError as error:
            if error.code is Code.NOT_SUPPORTED:
                return False
            raise

    def detach_driver(self, interface: int) -> None:
        """See `Handle.detach_driver`. On Linux, raises UsbError (BUSY) if the system uses the disk."""
        # The disks are held until the driver is gone, so that no file system is mounted in between.
        with disk_uses.exclusive(linux.disks(self._device, interface) if ON_LINUX else []):
            self._call("detach_kernel_driver", interface)

    def attach_driver(self, interface: int) -> None:
        """See `Handle.attach_driver`."""
        self._call("attach_kernel_driver", interface)

    def clear_halt(self, endpoint: int) -> None:
        """See `Handle.clear_halt`."""
        self._call("clear_halt", endpoint)

    def reset(self) -> None:
        """See `Handle.reset`."""
        self._call("reset_device")

    def control_in(
        self, request_type: int, request: int, value: int, index: int, length: int, timeout_ms: int
    ) -> bytes:
        """See `Handle.control_in`."""
        data = (ctypes.c_ubyte * length)()
        count = self._control(request_type, request, value, index, data, timeout_ms)
        return bytes(data[:count])

    def control_out(
        self, request_type: int, request: int, value: int, index: int, data: bytes, timeout_ms: int
    ) -> None:
        """See `Handle.control_out`."""
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
        """Read a string descriptor in the device's first language; None if there is none or it cannot be read."""
        data = (ctypes.c_ubyte * STRING_SIZE)()
        count = self._lib.libusb_get_string_descriptor_ascii(self._handle, index, data, STRING_SIZE) if index else 0
        return bytes(data[:count]).decode("ascii", "replace") if count > 0 else None

    def interrupt(self, on: bool) -> None:
        """See `Handle.interrupt`."""
        self._transfers.interrupt(on)

    def limit_transfer_size(self, size: int) -> int:
        """See `Handle.limit_transfer_size`. MIN_DEVICE_MEMORY if no device memory is left for this device."""
        # Rounded up to a power of two, as buffers are allocated in these sizes.
        granted = self._memory.reserve(1 << (size - 1).bit_length())
        self._reserved += granted
        return min(size, granted or MIN_DEVICE_MEMORY)

    def allocate(self, size: int) -> memoryview:
        """See `Handle.allocate`. Returns device memory if there is some left, else ordinary memory.

        The kernel's driver transfers to and from device memory without a copy.
        """
        if not self._handle or not self._may_allocate(size):
            return memoryview(bytearray(size))
        address = self._lib.libusb_dev_mem_alloc(self._handle, size)
        if not address:
            self._memory.give_back(size)
            return memoryview(bytearray(size))
        memory = (ctypes.c_ubyte * size).from_address(address)
        # Freed when the last slice of it, or transfer on it, is gone, even if that is after `close`: to unmap memory
        # that is in use would crash the process. At the interpreter's exit the kernel frees it.
        weakref.finalize(memory, _give_back, self._lib, address, size, os.getpid(), self._memory).atexit = False
        return memoryview(memory).cast("B")

    def _may_allocate(self, size: int) -> bool:
        """Take `size` bytes from this handle's reservation, or else from what is left for all."""
        # Small buffers, as for a CBW, must not reduce the reservation: too little would be left for a command's data.
        if MIN_DEVICE_MEMORY <= size <= self._reserved:
            self._reserved -= size
            return True
        return self._memory.allocate(size)

    def free(self, buffer: memoryview) -> None:
        """See `Handle.free`. The memory is freed with the last slice of it, or transfer on it.

        Raises BufferError while an object exports the buffer.
        """
        buffer.release()

    def close(self) -> None:
        """See `Handle.close`."""
        handle, self._handle = self._handle, ctypes.c_void_p()
        self._memory.give_back(self._reserved)
        self._reserved = 0
        try:
            if handle:
                self._close(handle)
        finally:
            if hasattr(self, "_context"):  # not if making it failed
                self._context.close()

    def _close(self, handle: ctypes.c_void_p) -> None:
        """Free the transfers and close libusb's handle."""
        try:
            if hasattr(self, "_transfers") and not self._transfers.close():
                self._context.leak()
        finally:
            self._lib.libusb_close(handle)

    def __del__(self) -> None:
        """Close a handle that Ctrl-C kept from reaching its caller. Does nothing in a forked child."""
        if self._owner == os.getpid():
            self.close()

    def _call(self, name: str, *arguments: object) -> int:
        """Call `libusb_<name>` on the handle. Raises UsbError, with NO_DEVICE after `close`."""
        # libusb would use the freed handle, and crash.
        if not self._handle:
            raise UsbError(Code.NO_DEVICE, "the handle is closed")
        return check(getattr(self._lib, f"libusb_{name}")(self._handle, *arguments))


def libusb() -> Backend:
    """Return a backend for real devices. Raises DeviceUnsupported if libusb cannot be used."""
    try:
        return LibusbBackend()
    except UsbError as error:
        raise translate(error, "loading libusb") from error


def _check_process(backend: Any) -> None:
    """Raise UsbError if the parent process had used libusb before it forked this process.

    libusb does not survive a fork: its event thread does not exist in the child, and its locks may be held for ever.
    """
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
    """Keep pyusb from freeing, at the exit of a forked child, the context that it shares with the parent."""
    backend.ctx = None


def _give_back(lib: Any, address: int, size: int, owner: int, memory: DeviceMemory) -> None:
    """Free device memory, unless this is a forked child, where it is not mapped."""
    if os.getpid() == owner:
        # The handle may be closed by now; NULL does, as only the Linux backend has device memory, and it ignores it.
        lib.libusb_dev_mem_free(None, address, size)
        memory.give_back(size)
