"""The bus and its handles behave like libusb over usbfs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import pytest

from scsiusb.usb.backend import Backend, Code, Device, Endpoint, Handle, Setting, Strings, UsbError
from scsiusb.virtual import Bus, Identity, Memory, Stick, Unit, bot_interface, hid_interface, uas_interface
from scsiusb.virtual.device.descriptors import InterfaceDescriptor
from tests.deadlines import within
from tests.sticks import PATIENCE, Worker
from tests.virtual.host import IN, OUT, Host, cbw

READ_FIRST_BLOCK = bytes.fromhex("28 00 00000000 00 0001 00")
FOREVER = 1_000_000  # milliseconds


def make(*interfaces: InterfaceDescriptor, identity: Identity | None = None) -> tuple[Bus, Device]:
    bus = Bus()
    return bus, bus.plug(Stick([Unit(Memory(4096))], identity, interfaces))


def refused(code: Code, call: Callable[..., object], *arguments: object) -> None:
    with pytest.raises(UsbError) as caught:
        call(*arguments)
    assert caught.value.code is code


def claimed(bus: Bus, device: Device) -> Handle:
    handle = bus.open(device)
    handle.detach_driver(0)
    handle.claim(0)
    return handle


# --- the bus ------------------------------------------------------------------------------------


def test_the_bus_and_its_handles_implement_the_protocols() -> None:
    backend: Backend = Bus(Stick.formatted())
    handle: Handle = backend.open(backend.devices()[0])
    handle.close()
    backend.close()


def test_a_device_has_the_fields_of_its_descriptors() -> None:
    identity = Identity(vid=0x0781, pid=0x5581, release=0x0123, speed="super")
    bus, device = make(identity=identity)
    endpoints = (Endpoint(0x81, 2, 1024), Endpoint(0x02, 2, 1024))
    assert device == Device(
        1, (1,), 2, 0x0781, 0x5581, 0x0123, "super", 1, (Setting(0, 0, 0x08, 0x06, 0x50, endpoints),), 1, 0x0300
    )
    assert bus.devices() == [device]
    assert device.address == "1-1"


def test_sticks_are_plugged_into_the_first_free_port_or_a_given_one() -> None:
    bus = Bus(Stick.formatted(), Stick.formatted(), number=2)
    hub = bus.plug(Stick.formatted(), (3, 4))
    assert [device.address for device in bus.devices()] == ["2-1", "2-2", "2-3.4"]
    bus.unplug(bus.devices()[0])
    assert bus.plug(Stick.formatted()).address == "2-1"
    for port in ((3, 4), ()):
        with pytest.raises(ValueError, match="not free"):
            bus.plug(Stick.formatted(), port)
    bus.unplug(hub)
    assert [device.address for device in bus.devices()] == ["2-2", "2-1"]


def test_a_stick_that_is_plugged_in_again_is_a_new_device() -> None:
    bus = Bus()
    stick = Stick.formatted()
    first = bus.plug(stick)
    with pytest.raises(ValueError, match="already"):
        bus.plug(stick)
    bus.unplug(stick)
    with pytest.raises(ValueError, match="not plugged in"):
        bus.unplug(first)
    second = bus.plug(stick)
    assert (second.ports, second.number) == (first.ports, first.number + 1)
    refused(Code.NO_DEVICE, bus.open, first)
    assert bus.strings(first) == Strings()
    assert bus.driver(first, 0) is None
    assert bus.uses(first, 0) == ()


def test_a_device_of_another_bus_cannot_be_opened() -> None:
    _, device = make()
    refused(Code.NO_DEVICE, Bus(Stick.formatted(), number=2).open, device)


def test_strings() -> None:
    bus, device = make(identity=Identity(serial="ÄÖ0123456789", manufacturer=None))
    assert bus.strings(device) == Strings("ÄÖ0123456789", None, "Virtual Stick")


def test_strings_may_be_hidden() -> None:
    stick = Stick.formatted()
    stick.has_readable_strings = False
    bus = Bus(stick)
    assert bus.strings(bus.devices()[0]) == Strings()


def test_a_device_may_be_inaccessible() -> None:
    stick = Stick.formatted()
    stick.accessible = False
    bus = Bus(stick)
    refused(Code.ACCESS, bus.open, bus.devices()[0])
    stick.accessible = True
    bus.open(bus.devices()[0]).close()


def test_uses_are_reported_while_a_kernel_driver_is_bound_to_the_disk() -> None:
    stick = Stick([Unit()], interfaces=[hid_interface(0), bot_interface(1)])
    stick.uses = ["/dev/sda1 is mounted on /mnt"]
    bus = Bus(stick)
    device = bus.devices()[0]
    assert bus.uses(device, 0) == ()
    assert bus.uses(device, 1) == ("/dev/sda1 is mounted on /mnt",)
    bus.open(device).detach_driver(1)
    assert bus.uses(device, 1) == ()


def test_closing_the_bus_closes_handles_and_sticks() -> None:
    medium = Memory(512)
    bus = Bus(Stick([Unit(medium)]))
    handle = bus.open(bus.devices()[0])
    assert bus.handles == (handle,)
    bus.close()
    assert not bus.handles
    assert not bus.devices()
    assert medium.is_closed


# --- kernel drivers and claims ------------------------------------------------------------------


def test_the_kernel_binds_usb_storage_uas_and_usbhid() -> None:
    bus, device = make(hid_interface(0), bot_interface(1))
    assert [bus.driver(device, interface) for interface in (0, 1, 2)] == ["usbhid", "usb-storage", None]
    for layout in ((bot_interface(), uas_interface()), (uas_interface(0, 0),)):
        bus, device = make(*layout)
        assert bus.driver(device, 0) == "uas"


def test_an_interface_with_a_kernel_driver_is_busy() -> None:
    bus, device = make()
    handle = bus.open(device)
    assert handle.driver_active(0)
    refused(Code.BUSY, handle.claim, 0)
    handle.detach_driver(0)
    assert not handle.driver_active(0)
    refused(Code.NOT_FOUND, handle.detach_driver, 0)
    handle.claim(0)
    handle.claim(0)
    assert bus.driver(device, 0) is None


def test_an_interface_that_another_handle_has_claimed_is_busy() -> None:
    bus, device = make()
    claimed(bus, device)
    other = bus.open(device)
    refused(Code.BUSY, other.claim, 0)
    refused(Code.NOT_FOUND, other.release, 0)
    refused(Code.BUSY, other.attach_driver, 0)


def test_a_driver_can_be_attached_only_after_release() -> None:
    bus, device = make()
    handle = claimed(bus, device)
    refused(Code.BUSY, handle.attach_driver, 0)
    handle.release(0)
    refused(Code.NOT_FOUND, handle.release, 0)
    handle.attach_driver(0)
    assert bus.driver(device, 0) == "usb-storage"
    refused(Code.BUSY, handle.attach_driver, 0)


def test_close_releases_the_claims_but_binds_no_driver() -> None:
    bus, device = make()
    handle = claimed(bus, device)
    handle.close()
    handle.close()
    assert bus.driver(device, 0) is None
    refused(Code.NO_DEVICE, handle.claim, 0)
    bus.open(device).claim(0)


def test_calls_for_an_interface_that_does_not_exist_fail() -> None:
    bus, device = make()
    handle = bus.open(device)
    assert not handle.driver_active(7)
    for call in (handle.claim, handle.detach_driver, handle.attach_driver, handle.release):
        refused(Code.NOT_FOUND, call, 7)


def test_attaching_fails_if_no_kernel_driver_matches() -> None:
    bus, device = make(InterfaceDescriptor(0, 0, 0xFF, 0, 0, ()), bot_interface(1))
    assert bus.driver(device, 0) is None
    refused(Code.NOT_FOUND, bus.open(device).attach_driver, 0)


# --- transfers need a claim ---------------------------------------------------------------------


def test_transfers_without_a_claim_fail() -> None:
    bus, device = make()
    handle = bus.open(device)
    handle.detach_driver(0)
    assert handle.bulk(IN, memoryview(bytearray(13)), within(10)) == (Code.NOT_FOUND, 0)
    refused(Code.NOT_FOUND, handle.set_alternate, 0, 0)
    refused(Code.NOT_FOUND, handle.clear_halt, IN)
    refused(Code.NOT_FOUND, handle.control_in, 0xA1, 0xFE, 0, 0, 1, 100)
    refused(Code.NOT_FOUND, handle.control_out, 0x02, 1, 0, IN, b"", 100)
    assert handle.control_in(0x80, 6, 0x0100, 0, 18, 100)[:2] == b"\x12\x01"


def test_transfers_to_an_endpoint_that_does_not_exist_fail() -> None:
    host = Host(Stick.formatted())
    assert host.handle.bulk(0x85, memoryview(bytearray(13)), within(10)) == (Code.NOT_FOUND, 0)
    refused(Code.NOT_FOUND, host.handle.clear_halt, 0x85)


def test_a_control_request_with_a_value_out_of_range_is_refused() -> None:
    host = Host(Stick.formatted())
    refused(Code.INVALID_PARAM, host.handle.control_out, 0x21, 0xFF, 0x10000, 0, b"", 100)


def test_a_control_request_that_the_device_does_not_support_is_stalled() -> None:
    host = Host(Stick.formatted())
    refused(Code.PIPE, host.handle.control_in, 0x80, 6, 0x0F00, 0, 5, 100)


# --- alternate settings -------------------------------------------------------------------------


def test_the_alternate_setting_of_uas_remains_after_detaching_and_bot_needs_the_other_one() -> None:
    bus, device = make(bot_interface(), uas_interface())
    assert [(each.alternate, each.protocol, len(each.endpoints)) for each in device.settings] == [
        (0, 0x50, 2),
        (1, 0x62, 4),
    ]
    handle = claimed(bus, device)
    assert handle.control_in(0x81, 10, 0, 0, 1, 100) == b"\x01"
    assert handle.bulk(0x83, memoryview(bytearray(16)), within(10)) == (Code.TIMEOUT, 0)
    assert handle.bulk(OUT, memoryview(bytearray(31)), within(10)) == (Code.TIMEOUT, 0)
    refused(Code.PIPE, handle.control_out, 0x21, 0xFF, 0, 0, b"", 100)
    handle.set_alternate(0, 0)
    assert handle.bulk(0x83, memoryview(bytearray(16)), within(10)) == (Code.NOT_FOUND, 0)
    refused(Code.NOT_FOUND, handle.set_alternate, 0, 2)
    assert handle.bulk(OUT, memoryview(bytearray(cbw(1, 0, 0, 0, bytes(6)))), 100) == (Code.OK, 31)
    handle.release(0)
    handle.attach_driver(0)
    assert handle.control_in(0x80, 8, 0, 0, 1, 100) == b"\x01"
    assert bus.driver(device, 0) == "uas"


def test_an_endpoint_of_uas_can_be_halted_and_cleared() -> None:
    bus, device = make(uas_interface(0, 0))
    handle = claimed(bus, device)
    handle.control_out(0x02, 3, 0, 0x83, b"", 100)
    assert handle.bulk(0x83, memoryview(bytearray(16)), within(10)) == (Code.PIPE, 0)
    assert handle.control_in(0x82, 0, 0, 0x83, 2, 100) == b"\x01\x00"
    handle.clear_halt(0x83)
    assert handle.bulk(0x83, memoryview(bytearray(16)), within(10)) == (Code.TIMEOUT, 0)


def test_two_mass_storage_interfaces_have_separate_units() -> None:
    units = {0: [Unit()], 1: [Unit(), Unit()]}
    layout = (bot_interface(0), bot_interface(1, address=5))
    bus = Bus(Stick(units, interfaces=layout))
    handle = bus.open(bus.devices()[0])
    for interface, last in ((0, b"\0"), (1, b"\1")):
        handle.detach_driver(interface)
        handle.claim(interface)
        assert handle.control_in(0xA1, 0xFE, 0, interface, 1, 100) == last
    with pytest.raises(ValueError, match="interfaces"):
        Stick({0: [Unit()]}, interfaces=layout)


# --- reset --------------------------------------------------------------------------------------


def test_reset_keeps_the_claims_and_resets_the_device() -> None:
    bus, device = make(bot_interface(), uas_interface())
    handle = claimed(bus, device)
    handle.reset()
    assert handle.control_in(0x81, 10, 0, 0, 1, 100) == b"\x00"
    assert handle.bulk(OUT, memoryview(bytearray(5)), within(100)) == (Code.OK, 5)
    assert handle.bulk(OUT, memoryview(bytearray(5)), within(100)) == (Code.PIPE, 0)
    handle.reset()
    assert handle.bulk(OUT, memoryview(bytearray(cbw(1, 0, 0, 0, bytes(6)))), 100) == (Code.OK, 31)
    answer = memoryview(bytearray(13))
    assert handle.bulk(IN, answer, within(100)) == (Code.OK, 13)
    assert answer[12] == 1


def test_after_reset_a_bound_driver_selects_its_alternate_setting_again() -> None:
    bus, device = make(bot_interface(), uas_interface())
    handle = bus.open(device)
    handle.reset()
    handle.detach_driver(0)
    handle.claim(0)
    assert handle.control_in(0x81, 10, 0, 0, 1, 100) == b"\x01"


# --- unplug -------------------------------------------------------------------------------------


def waiting(host: Host, call: Callable[[], tuple[Code, int]]) -> Worker:
    """Begin the transfer in another thread; return when the stick has it wait."""
    begun = first_wait(host)
    worker = Worker(call)
    assert begun.wait(PATIENCE)
    return worker


def first_wait(host: Host) -> threading.Event:
    """Return the event that is set when the stick has a transfer wait."""
    begun = threading.Event()
    wait = host.stick._wait

    def note(deadline: float | None) -> bool:
        begun.set()
        return wait(deadline)

    host.stick._wait = note  # type: ignore[method-assign]
    return begun


@pytest.mark.parametrize(("endpoint", "length", "moved"), [(IN, 1024, 0), (OUT, 1024, 512)])
def test_unplug_ends_a_waiting_transfer(endpoint: int, length: int, moved: int) -> None:
    host = Host(Stick.formatted())
    if endpoint == OUT:
        host.command(bytes.fromhex("2a 00 00000000 00 0001 00"), 512, 0)
    buffer = memoryview(bytearray(length))
    worker = waiting(host, lambda: host.handle.bulk(endpoint, buffer, within(FOREVER)))
    host.bus.unplug(host.device)
    assert worker.result() == (Code.NO_DEVICE, moved)


def test_ctrl_c_interrupts_a_waiting_transfer() -> None:
    host = Host(Stick.formatted())
    begun = first_wait(host)

    def interrupt() -> None:
        assert begun.wait(PATIENCE)
        signal.raise_signal(signal.SIGINT)

    worker = Worker(interrupt)
    with pytest.raises(KeyboardInterrupt):
        host.read(13, timeout_ms=FOREVER)
    worker.result()
    host.ok(bytes(6))


def test_reset_ends_a_waiting_transfer() -> None:
    host = Host(Stick.formatted())
    worker = waiting(host, lambda: host.handle.bulk(IN, memoryview(bytearray(13)), within(FOREVER)))
    host.handle.reset()
    assert worker.result() == (Code.IO, 0)


def test_after_unplug_every_call_reports_no_device_also_after_replug() -> None:
    host = Host(Stick.formatted())
    handle = host.handle
    host.bus.unplug(host.stick)
    host.bus.plug(host.stick)
    for interface_call in (
        handle.claim,
        handle.release,
        handle.driver_active,
        handle.detach_driver,
        handle.attach_driver,
        handle.clear_halt,
    ):
        refused(Code.NO_DEVICE, interface_call, 0)
    refused(Code.NO_DEVICE, handle.set_alternate, 0, 0)
    refused(Code.NO_DEVICE, handle.reset)
    refused(Code.NO_DEVICE, handle.control_in, 0x80, 6, 0x0100, 0, 18, 100)
    refused(Code.NO_DEVICE, handle.control_out, 0x21, 0xFF, 0, 0, b"", 100)
    assert handle.bulk(IN, memoryview(bytearray(13)), within(100)) == (Code.NO_DEVICE, 0)
    handle.close()


def test_a_replugged_stick_starts_in_its_power_on_state() -> None:
    host = Host(Stick.formatted())
    host.command(READ_FIRST_BLOCK, 512)
    host.bus.unplug(host.stick)
    again = host.bus.plug(host.stick)
    assert host.bus.driver(again, 0) == "usb-storage"
    host.handle = host.bus.open(again)
    host.handle.detach_driver(0)
    host.handle.claim(0)
    assert host.sense() == (0x6, 0x29, 0x00)


# --- buffers ------------------------------------------------------------------------------------


def test_buffers_are_counted_until_they_are_freed() -> None:
    handle = Host(Stick.formatted()).handle
    first, second = handle.allocate(512), handle.allocate(1 << 20)
    assert (len(first), len(second), handle.outstanding) == (512, 1 << 20, 2)
    handle.free(first)
    handle.free(second)
    assert handle.outstanding == 0
    with pytest.raises(ValueError, match="not allocated"):
        handle.free(memoryview(bytearray(4)))
    with pytest.raises(ValueError, match="released"):
        bytes(first)


def test_several_threads_can_use_several_sticks_of_one_bus() -> None:
    hosts = [Host(Stick.formatted()) for _ in range(4)]
    failures: list[BaseException] = []

    def work(host: Host) -> None:
        try:
            for _ in range(50):
                assert len(host.data(READ_FIRST_BLOCK, 512)) == 512
        except AssertionError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(host,)) for host in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not failures
