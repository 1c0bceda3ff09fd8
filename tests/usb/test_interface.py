"""Mass-storage interfaces are found by class and protocol, over all alternate settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from scsiusb.errors import AccessDenied
from scsiusb.usb.backend import Code, Device, Endpoint, Setting, Strings, UsbError
from scsiusb.usb.interface import InterfaceInfo, find
from scsiusb.virtual import Bus, Identity, Memory, Stick, Unit, bot_interface, hid_interface, uas_interface
from scsiusb.virtual.device.descriptors import InterfaceDescriptor

IN, OUT = Endpoint(0x81, 2, 512), Endpoint(0x02, 2, 512)
BOT = Setting(0, 0, 0x08, 0x06, 0x50, (IN, OUT))
PIPES = tuple(Endpoint(address, 2, 1024, pipe) for address, pipe in ((0x04, 1), (0x83, 2), (0x81, 3), (0x02, 4)))
UAS = replace(BOT, alternate=1, protocol=0x62, endpoints=PIPES)
STRINGS = Strings("0123", "ACME", "Stick")


def device(*settings: Setting, bus: int = 1, ports: tuple[int, ...] = (1,), configuration: int = 1) -> Device:
    return Device(bus, ports, 2, 0x0781, 0x5581, 0x0100, "super", configuration, settings)


class Shown(Bus):
    """A bus with just these devices, each with the strings and a driver."""

    def __init__(self, *shown: Device, strings: Strings = STRINGS) -> None:
        super().__init__()
        self.shown = shown
        self.answer = strings
        self.asked: list[Device] = []

    def devices(self) -> Sequence[Device]:
        return self.shown

    def strings(self, device: Device) -> Strings:
        self.asked.append(device)
        return self.answer

    def driver(self, device: Device, interface: int) -> str | None:
        return f"driver{interface}"


def found(*settings: Setting) -> list[tuple[str, str, int]]:
    return [(info.address, info.protocol, info.alternate) for info in find(Shown(device(*settings)))]


def on_stick(*interfaces: InterfaceDescriptor, identity: Identity | None = None) -> list[InterfaceInfo]:
    numbers = {each.number for each in interfaces if each.interface_class == 0x08}
    units = {number: [Unit(Memory(512))] for number in numbers}
    return find(Bus(Stick(units, identity, interfaces)))


def test_an_interface_is_described_by_what_the_bus_tells() -> None:
    here = device(BOT)
    assert find(Shown(here)) == [
        InterfaceInfo(
            address="1-1",
            vid=0x0781,
            pid=0x5581,
            serial="0123",
            manufacturer="ACME",
            product="Stick",
            protocol="bot",
            speed="super",
            driver="driver0",
            interface=0,
            alternate=0,
            device=here,
            setting=BOT,
        )
    ]


def test_an_interface_has_the_kernels_name_and_a_label_for_people() -> None:
    (info,) = find(Shown(device(replace(BOT, interface=3), ports=(1, 4), configuration=2)))
    assert info.name == "1-1.4:2.3"
    assert str(info) == "ACME Stick at 1-1.4"
    assert str(replace(info, manufacturer=None)) == "Stick at 1-1.4"
    assert str(replace(info, manufacturer=None, product=None)) == "a USB mass-storage device at 1-1.4"


# --- alternate settings ---------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [(BOT, UAS), (UAS, BOT)], ids=["bot first", "uas first"])
def test_bot_is_preferred_where_the_interface_also_speaks_uas(settings: tuple[Setting, ...]) -> None:
    assert found(*settings) == [("1-1", "bot", 0)]


def test_bot_is_found_behind_any_alternate_setting() -> None:
    assert found(replace(UAS, alternate=0), replace(BOT, alternate=5)) == [("1-1", "bot", 5)]


def test_the_first_of_several_bot_settings_is_taken() -> None:
    assert found(replace(BOT, alternate=2), replace(BOT, alternate=1)) == [("1-1", "bot", 1)]


def test_an_interface_that_speaks_only_uas_is_listed_as_such() -> None:
    assert found(UAS) == [("1-1", "uas", 1)]


def test_uas_is_taken_where_the_bot_setting_is_broken() -> None:
    assert found(replace(BOT, endpoints=()), UAS) == [("1-1", "uas", 1)]


def test_a_stick_with_bot_and_uas_is_one_interface_and_its_uas_driver_is_told() -> None:
    (info,) = on_stick(bot_interface(), uas_interface())
    assert (info.address, info.protocol, info.alternate, info.driver) == ("1-1", "bot", 0, "uas")


# --- several interfaces ---------------------------------------------------------------------------


def test_a_composite_device_is_known_by_its_address_alone() -> None:
    (info,) = on_stick(hid_interface(0), bot_interface(1))
    assert (info.address, info.interface, info.name) == ("1-1", 1, "1-1:1.1")


def test_several_mass_storage_interfaces_are_told_apart_by_the_kernels_names() -> None:
    infos = on_stick(bot_interface(0), hid_interface(1), bot_interface(2, address=3))
    assert [(info.address, info.interface) for info in infos] == [("1-1:1.0", 0), ("1-1:1.2", 2)]


def test_each_interface_of_several_has_its_own_best_setting() -> None:
    second = replace(UAS, interface=1)
    assert found(second, UAS, BOT) == [("1-1:1.0", "bot", 0), ("1-1:1.1", "uas", 1)]


def test_the_order_is_by_address_as_numbers_and_then_by_interface() -> None:
    second = replace(BOT, interface=1)
    shown = [
        device(BOT, bus=2),
        device(BOT, ports=(10,)),
        device(second, BOT, ports=(2,)),
        device(BOT, ports=(2, 1)),
        device(BOT, bus=10),
    ]
    addresses = [info.address for info in find(Shown(*shown))]
    assert addresses == ["1-2:1.0", "1-2:1.1", "1-2.1", "1-10", "2-1", "10-1"]


# --- what is none ---------------------------------------------------------------------------------


@pytest.mark.parametrize("subclass", [0x00, 0x01, 0x02, 0x04, 0x05, 0x06])
def test_every_subclass_that_carries_scsi_commands_is_taken(subclass: int) -> None:
    assert found(replace(BOT, subclass=subclass)) == [("1-1", "bot", 0)]


@pytest.mark.parametrize(
    ("setting", "protocol", "reason"),
    [
        (replace(BOT, subclass=0x03), "bot", "its subclass 03h has no SCSI commands"),
        (replace(BOT, subclass=0xFF), "bot", "its subclass FFh"),
        (replace(BOT, protocol=0x00), "cbi", "it speaks CBI"),
        (replace(BOT, protocol=0x01), "cbi", "it speaks CBI"),
        (replace(BOT, protocol=0xFE), "other", "its protocol FEh is neither"),
        (replace(BOT, endpoints=()), "bot", "no usable pair of bulk endpoints"),
        (replace(BOT, endpoints=(IN,)), "bot", "no usable pair of bulk endpoints"),
        (replace(BOT, endpoints=(OUT,)), "bot", "no usable pair of bulk endpoints"),
        (replace(BOT, endpoints=(Endpoint(0x81, 3, 64), OUT)), "bot", "no usable pair"),  # interrupt
        (replace(BOT, endpoints=(replace(IN, max_packet_size=0), OUT)), "bot", "no usable pair"),
        (replace(BOT, endpoints=(IN, replace(OUT, max_packet_size=0))), "bot", "no usable pair"),
    ],
    ids=str,
)
def test_an_interface_that_cannot_be_driven_is_listed_with_the_reason(
    setting: Setting, protocol: str, reason: str
) -> None:
    (info,) = find(Shown(device(setting)))
    assert (info.address, info.protocol) == ("1-1", protocol)
    assert info.unsupported is not None
    assert reason in info.unsupported


def test_an_interface_of_another_class_is_not_listed_and_not_asked_for_its_strings() -> None:
    bus = Shown(device(replace(BOT, interface_class=0x03)))
    assert find(bus) == []
    assert bus.asked == []


def test_a_usable_setting_is_preferred_and_a_usable_interface_keeps_the_address() -> None:
    assert found(replace(BOT, protocol=0x00), replace(BOT, alternate=1)) == [("1-1", "bot", 1)]
    floppy = replace(BOT, interface=1, protocol=0x01)
    assert found(BOT, floppy) == [("1-1", "bot", 0), ("1-1:1.1", "cbi", 0)]


def test_a_device_that_is_not_configured_is_listed_with_the_reason() -> None:
    (info,) = find(Shown(device(BOT, configuration=0)))
    assert info.unsupported is not None
    assert info.unsupported.startswith("the device is not configured")


def test_a_device_without_an_active_configuration_has_no_interfaces() -> None:
    assert find(Shown(device(configuration=0))) == []


def test_an_endpoint_without_room_for_a_packet_is_passed_over() -> None:
    both = (replace(IN, max_packet_size=0), Endpoint(0x83, 2, 64), OUT)
    assert found(replace(BOT, endpoints=both)) == [("1-1", "bot", 0)]


# --- strings --------------------------------------------------------------------------------------


def test_a_hostile_string_sends_nothing_to_the_terminal() -> None:
    hostile = Identity(serial="12\0\n34", manufacturer="\x1b]0;owned\x07", product="A\u202eB\x9b2J")
    (info,) = on_stick(bot_interface(), identity=hostile)
    assert info.serial == "12\ufffd\ufffd34"
    assert info.manufacturer == "\ufffd]0;owned\ufffd"
    assert info.product == "A\ufffdB\ufffd2J"
    assert str(info).isprintable()


def test_letters_of_any_language_stay() -> None:
    (info,) = on_stick(bot_interface(), identity=Identity(product="Müller 記憶 棒"))
    assert info.product == "Müller 記憶 棒"


def test_strings_that_may_not_be_read_are_none() -> None:
    stick = Stick.formatted()
    stick.has_readable_strings = False
    (info,) = find(Bus(stick))
    assert (info.serial, info.manufacturer, info.product) == (None, None, None)
    assert str(info) == "a USB mass-storage device at 1-1"


def test_a_stack_that_fails_raises_the_public_error() -> None:
    class Failing(Bus):
        def devices(self) -> Sequence[Device]:
            raise UsbError(Code.ACCESS)

    with pytest.raises(AccessDenied, match="looking for devices"):
        find(Failing())
