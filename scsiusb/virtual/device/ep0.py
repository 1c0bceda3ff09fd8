"""The default control pipe (EP0): standard requests (USB 2.0 9.4), and routing of class requests to interfaces."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from scsiusb.virtual.device.function import Setup, Stall

if TYPE_CHECKING:
    from scsiusb.virtual.stick import Stick

_SETUP = struct.Struct("<BBHHH")
_IN = 0x80
_TYPE, _STANDARD, _CLASS = 0x60, 0x00, 0x20
_RECIPIENT, _TO_DEVICE, _TO_INTERFACE, _TO_ENDPOINT = 0x1F, 0, 1, 2
_ENDPOINT_HALT = 0
_REMOTE_WAKEUP, _U1_ENABLE, _U2_ENABLE, _LTM_ENABLE = 1, 48, 49, 50  # accepted and ignored
_DEVICE_FEATURES = (_REMOTE_WAKEUP, _U1_ENABLE, _U2_ENABLE, _LTM_ENABLE)


def control(stick: Stick, packet: bytes, data: bytes = b"") -> bytes:
    """Answer a setup packet: return the data-in stage; `data` is the data-out stage. The stick's lock must be held.

    Raises `Stall` if the request is not supported.
    """
    if len(packet) != _SETUP.size:
        raise Stall
    setup = Setup(*_SETUP.unpack(packet))
    if setup.request_type & _TYPE == _STANDARD:
        request = _REQUESTS.get((setup.request_type, setup.request))
        if request is None:
            raise Stall
        answer = request(stick, setup)
    elif setup.request_type & (_TYPE | _RECIPIENT) == _CLASS | _TO_INTERFACE:
        answer = stick.function_of_interface(setup.index & 0xFF).control(setup, data)
    else:
        raise Stall
    return answer[: setup.length] if setup.request_type & _IN else b""


def _get_descriptor(stick: Stick, setup: Setup) -> bytes:
    return _or_stall(stick.descriptor(setup.value >> 8, setup.value & 0xFF))


def _get_interface_descriptor(stick: Stick, setup: Setup) -> bytes:
    """Return a class-specific descriptor, such as a HID report descriptor (HID 7.1.1)."""
    return _or_stall(stick.descriptors.class_descriptor(setup.index & 0xFF, setup.value >> 8))


def _or_stall(answer: bytes | None) -> bytes:
    if answer is None:
        raise Stall
    return answer


def _get_configuration(stick: Stick, setup: Setup) -> bytes:
    return bytes((stick.configuration,))


def _set_configuration(stick: Stick, setup: Setup) -> bytes:
    if setup.value > 1:
        raise Stall
    stick.configure(setup.value)
    return b""


def _get_interface(stick: Stick, setup: Setup) -> bytes:
    stick.function_of_interface(setup.index)
    return bytes((stick.alternates[setup.index],))


def _set_interface(stick: Stick, setup: Setup) -> bytes:
    stick.function_of_interface(setup.index)
    stick.select(setup.index, setup.value)
    return b""


def _get_device_status(stick: Stick, setup: Setup) -> bytes:
    return bytes(2)  # bus powered, no remote wakeup


def _get_interface_status(stick: Stick, setup: Setup) -> bytes:
    stick.function_of_interface(setup.index & 0xFF)
    return bytes(2)


def _get_endpoint_status(stick: Stick, setup: Setup) -> bytes:
    if setup.index & 0x7F == 0:
        return bytes(2)
    halted = stick.function_of_endpoint(setup.index).is_halted(setup.index)
    return struct.pack("<H", halted)


def _device_feature(stick: Stick, setup: Setup) -> bytes:
    if setup.value not in _DEVICE_FEATURES:
        raise Stall
    return b""


def _interface_feature(stick: Stick, setup: Setup) -> bytes:
    if setup.value != 0:  # FUNCTION_SUSPEND (USB 3.2 table 9-9)
        raise Stall
    stick.function_of_interface(setup.index & 0xFF)
    return b""


def _check_halt_request(stick: Stick, setup: Setup) -> None:
    if setup.value != _ENDPOINT_HALT:
        raise Stall
    stick.function_of_endpoint(setup.index)


def _set_halt(stick: Stick, setup: Setup) -> bytes:
    _check_halt_request(stick, setup)
    stick.function_of_endpoint(setup.index).halt(setup.index)
    return b""


def _clear_halt(stick: Stick, setup: Setup) -> bytes:
    _check_halt_request(stick, setup)
    stick.function_of_endpoint(setup.index).clear_halt(setup.index)
    return b""


def _ignore(stick: Stick, setup: Setup) -> bytes:
    """Accept SET_ADDRESS, SET_SEL and SET_ISOCH_DELAY: here the bus keeps the address, and the others have no use."""
    return b""


_REQUESTS: Mapping[tuple[int, int], Callable[[Stick, Setup], bytes]] = {
    (_IN | _TO_DEVICE, 0): _get_device_status,
    (_IN | _TO_INTERFACE, 0): _get_interface_status,
    (_IN | _TO_ENDPOINT, 0): _get_endpoint_status,
    (_TO_DEVICE, 1): _device_feature,
    (_TO_INTERFACE, 1): _interface_feature,
    (_TO_ENDPOINT, 1): _clear_halt,
    (_TO_DEVICE, 3): _device_feature,
    (_TO_INTERFACE, 3): _interface_feature,
    (_TO_ENDPOINT, 3): _set_halt,
    (_TO_DEVICE, 5): _ignore,
    (_IN | _TO_DEVICE, 6): _get_descriptor,
    (_IN | _TO_INTERFACE, 6): _get_interface_descriptor,
    (_IN | _TO_DEVICE, 8): _get_configuration,
    (_TO_DEVICE, 9): _set_configuration,
    (_IN | _TO_INTERFACE, 10): _get_interface,
    (_TO_INTERFACE, 11): _set_interface,
    (_TO_DEVICE, 48): _ignore,
    (_TO_DEVICE, 49): _ignore,
}
