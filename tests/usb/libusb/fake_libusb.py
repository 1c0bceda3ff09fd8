"""A fake libusb and a fake pyusb backend: the functions that are called, without any device.

Transfers are real structures; the test decides how they end.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import usb.backend.libusb1 as pyusb

from scsiusb.usb.backend import Code, Device
from scsiusb.usb.libusb.transfer import POLLOUT, LibusbTransfer, PollDescriptor

POLLIN = 1  # poll(2)
COMPLETED, ERROR, TIMED_OUT, CANCELLED, STALL, NO_DEVICE, OVERFLOW = range(7)  # enum libusb_transfer_status
CONTEXT = 0xC0
HANDLE = 0x1000
OWN_CONTEXT = 0xD0  # what libusb_init makes

Ending = tuple[int, bytes | int]
"""The status, and the data that was received, or the number of bytes that were moved."""


class Function:
    """A function of the library: it accepts prototypes, records its calls, and returns the next of `results`."""

    def __init__(self, name: str, action: Callable[..., Any], lib: FakeLibusb) -> None:
        self.name = name
        self.action = action
        self.lib = lib
        self.argtypes: list[Any] = []
        self.restype: Any = None
        self.results: list[Any] = []

    def __call__(self, *arguments: Any) -> Any:
        self.lib.calls.append((self.name, *(_plain(argument) for argument in arguments)))
        if self.results:
            result = self.results.pop(0)
            if isinstance(result, BaseException):
                raise result
            return result
        return self.action(*arguments)


class FakeLibusb:
    """`outcome` decides how a transfer ends when events are handled; None: it stays in progress."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.outcome: Callable[[LibusbTransfer], Ending | None] = lambda transfer: (COMPLETED, transfer.length)
        self.events: list[Callable[[], object]] = []  # what happens first in the next calls that handle events
        self.ignores_cancel = False
        self.poll_descriptors: list[tuple[int, int]] | None = [(7, POLLIN), (8, POLLOUT)]
        self.device_memory = True
        self.devices: list[FakeDevice] = []
        self.memory: dict[int, Any] = {}
        self.allocated: dict[int, Any] = {}
        self.freed: list[int] = []
        self.subscribed: Any = None
        self.in_flight: dict[int, LibusbTransfer] = {}
        self.cancelling: set[int] = set()
        self._lock = threading.RLock()
        for name in dir(type(self)):
            if name.startswith("_libusb_"):
                setattr(self, name[1:], Function(name.removeprefix("_libusb_"), getattr(self, name), self))

    def __getattr__(self, name: str) -> Function:
        """Any other function succeeds."""
        if not name.startswith("libusb_"):
            raise AttributeError(name)
        function = Function(name.removeprefix("libusb_"), lambda *_: 0, self)
        setattr(self, name, function)
        return function

    def __getitem__(self, name: str) -> Function:
        """Return the function; ctypes would return a new function object, which makes no difference here."""
        function: Function = getattr(self, name)
        return function

    def names(self) -> list[str]:
        return [call[0] for call in self.calls]

    def of(self, name: str) -> list[tuple[Any, ...]]:
        return [call[1:] for call in self.calls if call[0] == name]

    # --- transfers ------------------------------------------------------------------------------

    def _libusb_alloc_transfer(self, packets: int) -> Any:
        transfer = LibusbTransfer()
        self.allocated[ctypes.addressof(transfer)] = transfer
        return ctypes.cast(ctypes.pointer(transfer), ctypes.POINTER(pyusb._libusb_transfer))

    def _libusb_free_transfer(self, pointer: Any) -> None:
        address = ctypes.addressof(pointer.contents)
        assert address not in self.in_flight, "freed while the kernel has it"
        assert address not in self.freed, "freed twice"
        self.freed.append(address)

    def _libusb_submit_transfer(self, place: ctypes.c_void_p) -> int:
        address = place.value
        assert address is not None
        assert address not in self.in_flight, "submitted while the kernel has it"
        assert address not in self.freed, "submitted after it was freed"
        with self._lock:
            self.in_flight[address] = self.allocated[address]
        return 0

    def _libusb_cancel_transfer(self, address: int) -> int:
        if address not in self.in_flight or address in self.cancelling:
            return Code.NOT_FOUND
        self.cancelling.add(address)
        return 0

    def _libusb_handle_events_timeout_completed(self, context: Any, slice_: int, done: int) -> int:
        if self.events:
            self.events.pop(0)()
        else:
            self.handle_events()
        return 0

    def handle_events(self) -> None:
        for address in tuple(self.in_flight):
            with self._lock:  # another thread may end it, and submit it again for something else
                transfer = self.in_flight.get(address)
                if transfer is None:
                    continue
                if address not in self.cancelling:
                    self.end(address, self.outcome(transfer))
                elif not self.ignores_cancel:
                    self.end(address, (CANCELLED, 0))

    def end(self, address: int, ending: Ending | None) -> None:
        """End the transfer, once, even if several threads call this."""
        with self._lock:
            transfer = self.in_flight.pop(address, None) if ending is not None else None
        if transfer is None or ending is None:
            return
        self.cancelling.discard(address)
        status, data = ending
        if isinstance(data, bytes):
            ctypes.memmove(transfer.buffer, data, len(data))
        transfer.actual_length = data if isinstance(data, int) else len(data)
        transfer.status = status

    def _libusb_get_pollfds(self, context: Any) -> Any:
        """Return a list that ends with NULL; a null pointer if the platform does not support it."""
        if self.poll_descriptors is None:
            return ctypes.POINTER(ctypes.POINTER(PollDescriptor))()
        self.polled = [PollDescriptor(*each) for each in self.poll_descriptors]
        pointers = (ctypes.POINTER(PollDescriptor) * (len(self.polled) + 1))(*map(ctypes.pointer, self.polled))
        self.pointers = pointers
        return ctypes.cast(pointers, ctypes.POINTER(ctypes.POINTER(PollDescriptor)))

    # --- hotplug --------------------------------------------------------------------------------

    def _libusb_init(self, context: Any) -> int:
        context._obj.value = OWN_CONTEXT
        return 0

    def _libusb_hotplug_register_callback(self, context: Any, *arguments: Any) -> int:
        self.subscribed = arguments[5]
        return 0

    def announce(self) -> Any:
        """Call the callback as libusb does when a device is plugged in; return its result."""
        return self.subscribed(OWN_CONTEXT, None, 1, None)

    # --- memory ---------------------------------------------------------------------------------

    def _libusb_dev_mem_alloc(self, handle: Any, size: int) -> int | None:
        if not self.device_memory:
            return None
        memory = ctypes.create_string_buffer(size)
        self.memory[ctypes.addressof(memory)] = memory
        return ctypes.addressof(memory)

    def _libusb_dev_mem_free(self, handle: Any, address: int, size: int) -> int:
        assert ctypes.sizeof(self.memory.pop(address)) == size
        return 0

    # --- devices --------------------------------------------------------------------------------

    def _libusb_get_device_list(self, context: Any, pointer: Any) -> int:
        numbers = (ctypes.c_void_p * len(self.devices))(*(each.reference.devid for each in self.devices))
        self.listed = numbers
        pointer._obj.contents = ctypes.cast(numbers, ctypes.POINTER(ctypes.c_void_p)).contents
        return len(self.devices)

    def _libusb_get_bus_number(self, number: int) -> int:
        return number >> 8

    def _libusb_get_device_address(self, number: int) -> int:
        return number & 0xFF

    def _libusb_open(self, number: int, handle: Any) -> int:
        handle._obj.value = HANDLE + number
        return 0

    def _libusb_get_active_config_descriptor(self, number: int, pointer: Any) -> int:
        configuration = next(each.configuration for each in self.devices if each.reference.devid == number)
        if configuration is None:
            return Code.NOT_FOUND
        pointer._obj.contents = configuration
        return 0

    def _libusb_get_config_descriptor(self, number: int, index: int, pointer: Any) -> int:
        assert index == 0
        configuration = next(each.inactive for each in self.devices if each.reference.devid == number)
        if configuration is None:
            return Code.NOT_FOUND
        pointer._obj.contents = configuration
        return 0


class FakeDevice:
    """A device as pyusb lists it; `configuration` and `inactive` are real structures, as libusb parses them."""

    def __init__(self, bus: int, number: int, ports: tuple[int, ...] | None, speed: int = 3, **fields: Any) -> None:
        self.reference = SimpleNamespace(devid=bus << 8 | number)
        self.configuration: Any = None
        self.inactive: Any = None
        self.descriptor = SimpleNamespace(
            bus=bus, address=number, port_numbers=ports, speed=speed, bDeviceClass=0, idVendor=0x0781, idProduct=0x5581
        )
        self.descriptor.__dict__.update(
            {"bcdUSB": 0x0210, "bcdDevice": 0x0100, "iSerialNumber": 3, "iManufacturer": 1, "iProduct": 0}
        )
        self.descriptor.__dict__.update(fields)


class FakeBackend:
    """A fake of pyusb's libusb1 backend."""

    def __init__(self, *devices: FakeDevice) -> None:
        self.lib = FakeLibusb()
        self.lib.devices = list(devices)
        self.ctx = ctypes.c_void_p(CONTEXT)
        self.error: Exception | None = None

    def enumerate_devices(self) -> Iterator[Any]:
        if self.error is not None:
            raise self.error
        return iter([device.reference for device in self.lib.devices])

    def get_device_descriptor(self, reference: Any) -> Any:
        return next(device.descriptor for device in self.lib.devices if device.reference is reference)


DEVICE = Device(1, (4,), 7, 0x0781, 0x5581, 0x0100, "high", 1, ())


def configuration(
    value: int, *interfaces: list[tuple[tuple[int, int, int, int, int], list[tuple[int, int, int]]]]
) -> Any:
    """Make a configuration of interfaces, each with its settings.

    A setting is (number, alternate, class, subclass, protocol), and its endpoints.
    """
    result = pyusb._libusb_config_descriptor(bConfigurationValue=value, bNumInterfaces=len(interfaces))
    result.interface = (pyusb._libusb_interface * len(interfaces))()
    for index, settings in enumerate(interfaces):
        alternates = (pyusb._libusb_interface_descriptor * len(settings))()
        for alternate, (numbers, endpoints) in zip(alternates, settings, strict=True):
            alternate.bInterfaceNumber, alternate.bAlternateSetting = numbers[:2]
            alternate.bInterfaceClass, alternate.bInterfaceSubClass, alternate.bInterfaceProtocol = numbers[2:]
            alternate.bNumEndpoints = len(endpoints)
            if endpoints:
                alternate.endpoint = (pyusb._libusb_endpoint_descriptor * len(endpoints))(
                    *(
                        pyusb._libusb_endpoint_descriptor(bEndpointAddress=a, bmAttributes=b, wMaxPacketSize=c)
                        for a, b, c in endpoints
                    )
                )
        result.interface[index].altsetting = alternates
        result.interface[index].num_altsetting = len(settings)
    return result


def _plain(argument: Any) -> Any:
    """Return an argument as it is recorded: a plain value that keeps no object alive."""
    if isinstance(argument, ctypes.c_void_p):
        return argument.value
    if isinstance(argument, ctypes.Array):
        return bytes(argument)
    return argument if argument is None or isinstance(argument, int) else type(argument).__name__
