"""Descriptors and standard requests on the default control pipe (USB 2.0 chapter 9)."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from scsiusb.usb.backend import Code
from scsiusb.virtual import Bus, Identity, Stick, Unit, bot_interface, hid_interface, uas_interface
from scsiusb.virtual.device.descriptors import InterfaceDescriptor
from scsiusb.virtual.device.function import Stall

DEVICE, CONFIGURATION, STRING, QUALIFIER, OTHER_SPEED, BOS = 1, 2, 3, 6, 7, 15


def make(*interfaces: InterfaceDescriptor, speed: str = "high", configured: bool = True) -> Stick:
    stick = Stick([Unit()], Identity(vid=0x1234, pid=0x5678, release=0x0102, speed=speed), interfaces)
    if configured:
        ask(stick, 0x00, 9, 1)
    return stick


def ask(stick: Stick, request_type: int, request: int, value: int = 0, index: int = 0, length: int = 0) -> bytes:
    return stick.control(struct.pack("<BBHHH", request_type, request, value, index, length))


def get(stick: Stick, kind: int, index: int = 0, length: int = 0xFFFF) -> bytes:
    return ask(stick, 0x80, 6, kind << 8 | index, 0x0409 if kind == STRING else 0, length)


# --- descriptors --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("speed", "usb", "packet"),
    [("full", "1001", 64), ("high", "0002", 64), ("super", "0003", 9), ("super-plus", "1003", 9)],
)
def test_the_device_descriptor(speed: str, usb: str, packet: int) -> None:
    expected = f"12 01 {usb} 00 00 00 {packet:02x} 3412 7856 0201 01 02 03 01"
    assert get(make(speed=speed), DEVICE) == bytes.fromhex(expected)


def test_the_configuration_of_a_high_speed_stick() -> None:
    expected = "09 02 2000 01 01 00 80 fa09 04 00 00 02 08 06 50 0007 05 81 02 0002 0007 05 02 02 0002 00"
    assert get(make(), CONFIGURATION) == bytes.fromhex(expected)


def test_superspeed_endpoints_have_companions() -> None:
    expected = (
        "09 02 2c00 01 01 00 80 70"
        "09 04 00 00 02 08 06 50 00"
        "07 05 81 02 0004 00 06 30 00 00 0000"
        "07 05 02 02 0004 00 06 30 00 00 0000"
    )
    assert get(make(speed="super"), CONFIGURATION) == bytes.fromhex(expected)


def test_uas_pipes_have_pipe_usage_descriptors() -> None:
    configuration = get(make(bot_interface(), uas_interface(), speed="super"), CONFIGURATION)
    assert configuration[4] == 1
    expected = (
        "09 04 00 01 04 08 06 62 00"
        "07 05 04 02 0004 00 06 30 00 00 0000 04 24 01 00"
        "07 05 83 02 0004 00 06 30 00 04 0000 04 24 02 00"
        "07 05 81 02 0004 00 06 30 00 04 0000 04 24 03 00"
        "07 05 02 02 0004 00 06 30 00 04 0000 04 24 04 00"
    )
    assert configuration[44:] == bytes.fromhex(expected)


def test_a_composite_device_has_a_hid_interface_with_its_descriptors() -> None:
    stick = make(hid_interface(0), bot_interface(1), speed="super")
    configuration = get(stick, CONFIGURATION)
    assert configuration[4] == 2
    report = ask(stick, 0x81, 6, 0x2200, 0, 255)
    hid = bytes.fromhex("09 21 1101 00 01 22") + struct.pack("<H", len(report))
    assert configuration[9:40] == bytes.fromhex("09 04 00 00 01 03 00 00 00") + hid + bytes.fromhex(
        "07 05 88 03 0800 0a 06 30 00 00 0800"
    )
    assert ask(stick, 0x81, 6, 0x2100, 0, 255) == hid
    assert ask(stick, 0x21, 0x0A) == b""
    with pytest.raises(Stall):
        ask(stick, 0xA1, 0x01, 0x0100, 0, 8)


@pytest.mark.parametrize("length", [0, 9, 18, 255])
def test_a_descriptor_is_truncated_to_the_requested_length(length: int) -> None:
    assert len(get(make(), CONFIGURATION, length=length)) == min(length, 32)


def test_string_descriptors() -> None:
    stick = make()
    assert get(stick, STRING, 0) == bytes.fromhex("04 03 0904")
    assert get(stick, STRING, 1) == b"\x10\x03" + "scsiusb".encode("utf-16-le")
    assert get(stick, STRING, 3) == b"\x1a\x03" + "0123456789AB".encode("utf-16-le")
    with pytest.raises(Stall):
        get(stick, STRING, 4)


def test_a_missing_string_has_index_zero() -> None:
    stick = Stick([Unit()], Identity(serial=None, product=None))
    assert get(stick, DEVICE)[14:17] == bytes((1, 0, 0))
    with pytest.raises(Stall):
        get(stick, STRING, 3)


def test_only_a_high_speed_device_has_a_qualifier_and_another_speed() -> None:
    stick = make()
    assert get(stick, QUALIFIER) == bytes.fromhex("0a 06 0002 00 00 00 40 01 00")
    other = get(stick, OTHER_SPEED)
    assert (other[1], other[22:24]) == (7, b"\x40\x00")
    for speed in ("full", "super"):
        for kind in (QUALIFIER, OTHER_SPEED):
            with pytest.raises(Stall):
                get(make(speed=speed), kind)


def test_only_superspeed_devices_have_a_binary_device_object_store() -> None:
    bos = get(make(speed="super"), BOS)
    assert bos == bytes.fromhex("05 0f 1600 02 07 10 02 02000000 0a 10 03 00 0e00 01 0a ff07")
    plus = get(make(speed="super-plus"), BOS)
    assert plus == bytes.fromhex("05 0f 2a00 03") + bos[5:] + bytes.fromhex(
        "14 10 0a 00 01000000 0011 0000 30400a00 b0400a00"
    )
    with pytest.raises(Stall):
        get(make(), BOS)


def test_requests_for_missing_descriptors_are_stalled() -> None:
    stick = make()
    for kind, index in ((DEVICE, 1), (CONFIGURATION, 1), (9, 0)):
        with pytest.raises(Stall):
            get(stick, kind, index)
    for interface in (0, 5):
        with pytest.raises(Stall):
            ask(stick, 0x81, 6, 0x2200, interface, 255)


@pytest.mark.parametrize(
    "identity",
    [
        {"speed": "low"},
        {"vid": 0x10000},
        {"pid": -1},
        {"serial": "0" * 127},
    ],
)
def test_an_invalid_identity_is_refused(identity: dict[str, str | int]) -> None:
    with pytest.raises(ValueError):
        Identity(**identity)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "layout",
    [(bot_interface(), bot_interface()), (bot_interface(0), bot_interface(1)), (bot_interface(), uas_interface(1, 1))],
)
def test_an_invalid_layout_of_interfaces_is_refused(layout: tuple[InterfaceDescriptor, ...]) -> None:
    with pytest.raises(ValueError, match="interface"):
        Stick([Unit()], interfaces=layout)


def test_a_bot_interface_without_its_endpoints_never_answers() -> None:
    layout = replace(bot_interface(), endpoints=bot_interface().endpoints[:1])
    assert make(layout).transfer(0x81, memoryview(bytearray(13)), 0) == (Code.TIMEOUT, 0)


def test_a_device_without_mass_storage_is_possible() -> None:
    stick = Stick({}, interfaces=[hid_interface()])
    assert stick.units == ()
    assert Bus(stick).devices()[0].settings[0].interface_class == 0x03


# --- requests -----------------------------------------------------------------------------------


def test_an_unconfigured_device_has_no_interfaces_and_endpoints() -> None:
    stick = make(configured=False)
    assert ask(stick, 0x80, 8, length=1) == b"\x00"
    for request in ((0x81, 10, 0, 0, 1), (0xA1, 0xFE, 0, 0, 1), (0x82, 0, 0, 0x81, 2), (0x81, 0, 0, 0, 2)):
        with pytest.raises(Stall):
            ask(stick, *request)
    assert stick.transfer(0x81, memoryview(bytearray(13)), 0.01) == (Code.NOT_FOUND, 0)


def test_the_configuration_can_be_set_and_read() -> None:
    stick = make(configured=False)
    for value in (1, 0, 1):
        assert ask(stick, 0x00, 9, value) == b""
        assert ask(stick, 0x80, 8, length=1) == bytes((value,))
    with pytest.raises(Stall):
        ask(stick, 0x00, 9, 2)


def test_a_host_sees_a_device_without_configuration() -> None:
    bus = Bus(make())
    handle = bus.open(bus.devices()[0])
    handle.control_out(0x00, 9, 0, 0, b"", 100)
    assert (bus.devices()[0].configuration, bus.devices()[0].settings) == (0, ())


def test_alternate_settings_can_be_set_and_read() -> None:
    stick = make(bot_interface(), uas_interface())
    ask(stick, 0x01, 11, 1, 0)
    assert ask(stick, 0x81, 10, 0, 0, 1) == b"\x01"
    for alternate, interface in ((2, 0), (0, 1)):
        with pytest.raises(Stall):
            ask(stick, 0x01, 11, alternate, interface)


def test_get_status() -> None:
    stick = make()
    for request_type, index in ((0x80, 0), (0x81, 0), (0x82, 0), (0x82, 0x80), (0x82, 0x81)):
        assert ask(stick, request_type, 0, 0, index, 2) == b"\x00\x00"
    with pytest.raises(Stall):
        ask(stick, 0x82, 0, 0, 0x85, 2)


def test_features_without_effect_are_accepted_and_others_stalled() -> None:
    stick = make(speed="super")
    for request in (1, 3):
        assert ask(stick, 0x00, request, 48) == b""
        assert ask(stick, 0x01, request, 0) == b""
        for request_type, value in ((0x00, 2), (0x01, 1), (0x02, 1)):
            with pytest.raises(Stall):
                ask(stick, request_type, request, value, 0x81 if request_type == 2 else 0)


def test_other_requests_of_an_enumeration_are_accepted() -> None:
    stick = make(configured=False)
    for request in (5, 48, 49):
        assert ask(stick, 0x00, request, 7) == b""


@pytest.mark.parametrize(
    "setup",
    [
        b"",
        bytes(7),
        bytes.fromhex("c0 01 0000 0000 0100"),
        bytes.fromhex("a0 fe 0000 0000 0100"),
        bytes.fromhex("82 0c 0000 8100 0200"),
        bytes.fromhex("a1 fe 0000 0700 0100"),
    ],
)
def test_other_setup_packets_are_stalled(setup: bytes) -> None:
    with pytest.raises(Stall):
        make().control(setup)
