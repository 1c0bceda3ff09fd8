"""The backend on libusb: what it reads from the bus, and the calls that its handles make."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import usb.core

from scsiusb.usb.backend import Backend, Code, Device, Endpoint, Handle, Setting, Strings, UsbError
from scsiusb.usb.interface import find
from scsiusb.usb.libusb import backend as module
from scsiusb.usb.libusb import library
from scsiusb.usb.libusb import transfer as transfer_module
from scsiusb.usb.libusb.backend import LibusbBackend, LibusbHandle
from scsiusb.usb.system import disk_uses, linux
from tests.deadlines import within
from tests.usb.libusb.fake_libusb import (
    DEVICE,
    HANDLE,
    OWN_CONTEXT,
    STALL,
    FakeBackend,
    FakeDevice,
    FakeLibusb,
    configuration,
)

MASS_STORAGE = [((0, 0, 8, 6, 0x50), [(0x81, 2, 512), (0x02, 2, 512)]), ((0, 1, 8, 6, 0x62), [])]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    stick = FakeDevice(1, 7, (4,))
    stick.configuration = configuration(1, MASS_STORAGE)
    fake = FakeBackend(stick)
    monkeypatch.setattr(library, "load", lambda: fake)
    monkeypatch.setattr(module, "ON_LINUX", False)
    return fake


@pytest.fixture
def lib(fake: FakeBackend) -> FakeLibusb:
    return fake.lib


@pytest.fixture
def backend(fake: FakeBackend) -> LibusbBackend:
    return LibusbBackend()


@pytest.fixture
def handle(backend: LibusbBackend, lib: FakeLibusb) -> LibusbHandle:
    handle = backend.open(DEVICE)
    assert isinstance(handle, LibusbHandle)
    lib.calls.clear()
    return handle


@pytest.fixture
def on_linux(fake: FakeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ON_LINUX", True)


@contextmanager
def fails(code: Code, detail: str = "") -> Iterator[None]:
    with pytest.raises(UsbError) as caught:
        yield
    assert (caught.value.code, caught.value.detail) == (code, detail)


# --- the real library -----------------------------------------------------------------------------


def test_the_real_library_lists_devices_even_where_there_is_no_bus() -> None:
    backend: Backend = LibusbBackend()
    devices = backend.devices()
    assert all(isinstance(device, Device) for device in devices)
    assert all(backend.driver(each.device, each.interface) != "" for each in find(backend))
    nowhere = Device(250, (1,), 126, 0, 0, 0, "high", 1, ())
    with fails(Code.NO_DEVICE):
        backend.open(nowhere)
    assert backend.strings(nowhere) == Strings()
    assert backend.driver(nowhere, 0) is None
    assert list(backend.uses(nowhere, 0)) == []
    backend.close()


def test_it_is_an_error_if_libusb_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "load", lambda: None)
    with fails(Code.NOT_SUPPORTED, "libusb cannot be loaded"):
        LibusbBackend()


# --- what is on the bus ---------------------------------------------------------------------------


def test_a_device_has_what_libusb_reports(backend: LibusbBackend, lib: FakeLibusb) -> None:
    assert backend.devices() == [
        Device(
            bus=1,
            ports=(4,),
            number=7,
            vid=0x0781,
            pid=0x5581,
            release=0x0100,
            speed="high",
            configuration=1,
            settings=(
                Setting(0, 0, 8, 6, 0x50, (Endpoint(0x81, 2, 512), Endpoint(0x02, 2, 512))),
                Setting(0, 1, 8, 6, 0x62, ()),
            ),
            usb=0x0210,
        )
    ]
    assert "open" not in lib.names()
    assert lib.names().count("free_config_descriptor") == 1


def test_all_interfaces_with_all_their_settings_are_read(backend: LibusbBackend, lib: FakeLibusb) -> None:
    hid = [((0, 0, 3, 0, 0), [(0x88, 3, 8)])]
    empty: list[tuple[tuple[int, int, int, int, int], list[tuple[int, int, int]]]] = []
    second = [((2, 5, 8, 6, 0x50), [(0x83, 2, 64)])]
    lib.devices[0].configuration = configuration(2, hid, empty, second)
    (device,) = backend.devices()
    assert device.configuration == 2
    assert device.settings == (
        Setting(0, 0, 3, 0, 0, (Endpoint(0x88, 3, 8),)),
        Setting(2, 5, 8, 6, 0x50, (Endpoint(0x83, 2, 64),)),
    )


def test_hubs_are_left_out(backend: LibusbBackend, lib: FakeLibusb) -> None:
    lib.devices.insert(0, FakeDevice(1, 1, None, bDeviceClass=9))
    assert [device.number for device in backend.devices()] == [7]


def test_a_device_without_an_active_configuration_or_ports_or_a_known_speed_is_listed(
    backend: LibusbBackend, lib: FakeLibusb
) -> None:
    lib.devices = [FakeDevice(2, 3, None, speed=99)]
    (device,) = backend.devices()
    assert (device.configuration, device.settings) == (0, ())
    assert (device.ports, device.speed, device.address) == ((), "unknown", "usb2")
    assert "free_config_descriptor" not in lib.names()


@pytest.mark.parametrize(
    ("number", "speed"),
    [(0, "unknown"), (1, "low"), (2, "full"), (3, "high"), (4, "super"), (5, "super-plus"), (6, "super-plus")],
)
def test_the_speed_is_named(backend: LibusbBackend, lib: FakeLibusb, number: int, speed: str) -> None:
    lib.devices = [FakeDevice(1, 2, (1,), speed=number)]
    assert backend.devices()[0].speed == speed


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (usb.core.USBError("Access denied", -3, 13), Code.ACCESS),
        (usb.core.USBError("No memory", -11, 12), Code.NO_MEM),
        (usb.core.USBError("What?", -77, 5), Code.OTHER),
        (NotImplementedError("not on this platform"), Code.NOT_SUPPORTED),
    ],
)
def test_pyusbs_errors_become_usb_errors(
    backend: LibusbBackend, fake: FakeBackend, error: Exception, code: Code
) -> None:
    fake.error = error
    with pytest.raises(UsbError) as caught:
        backend.devices()
    assert caught.value.code is code


@pytest.mark.parametrize(("function", "exits"), [("init", 0), ("get_device_list", 1)])
def test_a_context_or_list_that_cannot_be_made_raises_its_code(
    backend: LibusbBackend, lib: FakeLibusb, function: str, exits: int
) -> None:
    getattr(lib, f"libusb_{function}").results = [Code.NO_MEM]
    with fails(Code.NO_MEM):
        backend.open(DEVICE)
    assert lib.names().count("exit") == exits


def test_each_handle_has_a_separate_context_and_frees_it_last(backend: LibusbBackend, lib: FakeLibusb) -> None:
    handle = backend.open(DEVICE)
    lib.outcome = lambda transfer: (0, b"")
    handle.bulk(0x81, handle.allocate(512), within(100))
    assert lib.of("handle_events_timeout_completed")[0][0] == OWN_CONTEXT
    assert lib.names().count("free_device_list") == 1
    handle.close()
    assert lib.names()[-2:] == ["close", "exit"]
    assert lib.of("exit") == [(OWN_CONTEXT,)]


def test_a_context_stays_while_the_kernel_has_a_transfer_of_it(
    backend: LibusbBackend, lib: FakeLibusb, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaked: list[object] = []
    monkeypatch.setattr(transfer_module, "LEAKED", leaked)
    monkeypatch.setattr(transfer_module, "ABANDON_SECONDS", 0.0)
    handle = backend.open(DEVICE)
    lib.outcome = lambda transfer: None
    lib.ignores_cancel = True
    assert handle.bulk(0x81, handle.allocate(512), within(1)) == (Code.TIMEOUT, 0)
    handle.close()
    assert "exit" not in lib.names()
    assert len(leaked) == 1


def test_only_the_same_plugging_in_of_a_device_is_opened(backend: LibusbBackend, lib: FakeLibusb) -> None:
    lib.devices.insert(0, FakeDevice(2, 7, (4,)))
    handle: Handle = backend.open(DEVICE)
    handle.claim(0)
    assert lib.of("claim_interface") == [(HANDLE + (1 << 8 | 7), 0)]
    lib.devices[1] = FakeDevice(1, 8, (4,))
    with fails(Code.NO_DEVICE):
        backend.open(DEVICE)


@pytest.mark.parametrize(
    "fields", [{"idVendor": 0x0951}, {"idProduct": 0x1666}, {"bcdDevice": 2}, {"port_numbers": (2,)}]
)
def test_another_device_with_the_same_number_is_not_opened(
    backend: LibusbBackend, lib: FakeLibusb, fields: dict[str, Any]
) -> None:
    lib.devices = [FakeDevice(1, 7, (4,), **fields)]
    with pytest.raises(UsbError, match="has its number now") as caught:
        backend.open(DEVICE)
    assert caught.value.code is Code.NO_DEVICE
    assert lib.names().count("open") == lib.names().count("close") == 1


@pytest.mark.usefixtures("on_linux")
def test_an_equal_device_that_was_plugged_in_since_is_not_opened_on_linux(
    backend: LibusbBackend, lib: FakeLibusb, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections = iter([11, 11, 12])
    monkeypatch.setattr(linux, "connection", lambda device: next(connections))
    (device,) = backend.devices()
    assert device.connection == 11
    backend.open(device).close()
    with pytest.raises(UsbError, match="has its number now"):
        backend.open(device)


@pytest.mark.usefixtures("on_linux")
def test_a_device_that_the_kernel_has_removed_is_not_listed(
    backend: LibusbBackend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(linux, "USB_DEVICES", tmp_path)
    assert backend.devices() == []
    monkeypatch.setattr(linux, "USB_DEVICES", tmp_path / "no sysfs here")
    assert len(backend.devices()) == 1


def test_a_device_that_may_not_be_opened_raises_its_code(backend: LibusbBackend, lib: FakeLibusb) -> None:
    lib.libusb_open.results = [Code.ACCESS]
    with fails(Code.ACCESS):
        backend.open(DEVICE)
    assert "close" not in lib.names()


# --- strings, drivers and uses --------------------------------------------------------------------


def text(content: bytes) -> Callable[..., int]:
    def answer(handle: object, index: int, data: Any, size: int) -> int:
        data[: len(content)] = content
        return len(content)

    return answer


def test_on_other_platforms_strings_are_read_from_the_device_which_is_closed_again(
    backend: LibusbBackend, lib: FakeLibusb
) -> None:
    lib.libusb_get_string_descriptor_ascii.action = text(b"4C53\xff")
    assert backend.strings(DEVICE) == Strings("4C53\ufffd", "4C53\ufffd", None)
    assert [call[1] for call in lib.of("get_string_descriptor_ascii")] == [3, 1]  # iProduct is 0: it has none
    assert lib.names()[-2:] == ["close", "exit"]


def test_strings_that_cannot_be_read_or_are_empty_are_none(backend: LibusbBackend, lib: FakeLibusb) -> None:
    lib.libusb_get_string_descriptor_ascii.results = [Code.PIPE, 0]
    assert backend.strings(DEVICE) == Strings()
    assert lib.names()[-2:] == ["close", "exit"]
    lib.libusb_open.results = [Code.ACCESS]
    assert backend.strings(DEVICE) == Strings()


def test_on_other_platforms_drivers_and_uses_are_not_known(backend: LibusbBackend) -> None:
    assert backend.driver(DEVICE, 0) is None
    assert backend.uses(DEVICE, 0) == []


@pytest.mark.usefixtures("on_linux")
def test_on_linux_sysfs_is_read_and_nothing_is_opened(
    backend: LibusbBackend, lib: FakeLibusb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linux, "strings", lambda device: Strings(f"of {device.address}"))
    monkeypatch.setattr(linux, "driver", lambda device, interface: f"driver{interface}")
    monkeypatch.setattr(disk_uses, "uses", lambda device, interface: [f"use of {interface}"])
    assert backend.strings(DEVICE) == Strings("of 1-4")
    assert backend.driver(DEVICE, 2) == "driver2"
    assert backend.uses(DEVICE, 2) == ["use of 2"]
    assert "open" not in lib.names()


# --- handles --------------------------------------------------------------------------------------

Request = Callable[[LibusbHandle], object]
REQUESTS: list[tuple[str, Request, tuple[int, ...]]] = [
    ("claim_interface", lambda handle: handle.claim(2), (2,)),
    ("release_interface", lambda handle: handle.release(2), (2,)),
    ("set_interface_alt_setting", lambda handle: handle.set_alternate(2, 1), (2, 1)),
    ("kernel_driver_active", lambda handle: handle.driver_active(2), (2,)),
    ("detach_kernel_driver", lambda handle: handle.detach_driver(2), (2,)),
    ("attach_kernel_driver", lambda handle: handle.attach_driver(2), (2,)),
    ("clear_halt", lambda handle: handle.clear_halt(0x81), (0x81,)),
    ("reset_device", lambda handle: handle.reset(), ()),
]
each_request = pytest.mark.parametrize(("name", "request_", "arguments"), REQUESTS, ids=[row[0] for row in REQUESTS])


@each_request
def test_a_request_is_passed_to_libusb_with_the_handle(
    handle: LibusbHandle, lib: FakeLibusb, name: str, request_: Request, arguments: tuple[int, ...]
) -> None:
    request_(handle)
    assert lib.calls == [(name, HANDLE + (1 << 8 | 7), *arguments)]


@each_request
def test_a_request_that_fails_raises_its_code_even_an_unknown_one(
    handle: LibusbHandle, lib: FakeLibusb, name: str, request_: Request, arguments: tuple[int, ...]
) -> None:
    getattr(lib, f"libusb_{name}").results = [Code.NO_DEVICE, Code.BUSY, -55]
    for code in (Code.NO_DEVICE, Code.BUSY, Code.OTHER):
        with fails(code):
            request_(handle)


@each_request
def test_a_request_on_a_closed_handle_does_not_reach_libusb(
    handle: LibusbHandle, lib: FakeLibusb, name: str, request_: Request, arguments: tuple[int, ...]
) -> None:
    """libusb would use the freed handle."""
    handle.close()
    lib.calls.clear()
    with fails(Code.NO_DEVICE, "the handle is closed"):
        request_(handle)
    assert lib.calls == []


def test_driver_active_is_true_false_or_false_if_not_supported(handle: LibusbHandle, lib: FakeLibusb) -> None:
    lib.libusb_kernel_driver_active.results = [1, 0, Code.NOT_SUPPORTED]
    assert [handle.driver_active(0) for _ in range(3)] == [True, False, False]


@pytest.mark.usefixtures("on_linux")
def test_a_busy_claim_names_the_processes_that_have_the_device_open(
    handle: LibusbHandle, lib: FakeLibusb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linux, "openers", lambda device: [f"pid 12 (sg\x1b) of {device.number}", "pid 13 (b)"])
    lib.libusb_claim_interface.results = [Code.BUSY, Code.NO_DEVICE]
    with fails(Code.BUSY, "pid 12 (sg\ufffd) of 7, pid 13 (b)"):
        handle.claim(0)
    with fails(Code.NO_DEVICE):
        handle.claim(0)


@pytest.mark.usefixtures("on_linux")
def test_on_linux_the_disks_are_held_while_the_driver_is_detached(
    handle: LibusbHandle, lib: FakeLibusb, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def exclusive(names: list[str]) -> Iterator[None]:
        log.append(f"hold {names}")
        assert lib.calls == []
        yield
        log.append(f"released after {lib.names()}")

    log: list[str] = []
    monkeypatch.setattr(linux, "disks", lambda device, interface: [f"{device.address}:{interface}"])
    monkeypatch.setattr(disk_uses, "exclusive", exclusive)
    handle.detach_driver(3)
    assert log == ["hold ['1-4:3']", "released after ['detach_kernel_driver']"]


def test_control_requests_carry_data_both_ways(handle: LibusbHandle, lib: FakeLibusb) -> None:
    sent: list[tuple[object, ...]] = []

    def transfer(handle: object, kind: int, *arguments: Any) -> int:
        *setup, data, length, timeout = arguments
        sent.append((kind, *setup, bytes(data), length, timeout))
        if kind != 0xA1:
            return len(data)
        data[:2] = b"\x07\x08"
        return 2

    lib.libusb_control_transfer.action = transfer
    assert handle.control_in(0xA1, 0xFE, 1, 2, 4, 500) == b"\x07\x08"
    handle.control_out(0x21, 0xFF, 1, 2, b"abc", 600)
    handle.control_out(0x21, 0xFF, 0, 0, b"", 600)
    assert sent == [
        (0xA1, 0xFE, 1, 2, bytes(4), 4, 500),
        (0x21, 0xFF, 1, 2, b"abc", 3, 600),
        (0x21, 0xFF, 0, 0, b"", 0, 600),
    ]


def test_a_control_request_that_fails_raises_its_code(handle: LibusbHandle, lib: FakeLibusb) -> None:
    lib.libusb_control_transfer.results = [Code.PIPE, Code.TIMEOUT]
    with fails(Code.PIPE):
        handle.control_in(0xA1, 0xFE, 0, 0, 1, 500)
    with fails(Code.TIMEOUT):
        handle.control_out(0x21, 0xFF, 0, 0, b"", 500)


def test_bulk_transfers_keep_the_true_count(handle: LibusbHandle, lib: FakeLibusb) -> None:
    lib.outcome = lambda transfer: (STALL, b"some")
    buffer = handle.allocate(512)
    assert handle.bulk(0x81, buffer, within(100)) == (Code.PIPE, 4)
    assert bytes(buffer[:5]) == b"some\0"


# --- closing --------------------------------------------------------------------------------------


def test_a_handle_is_closed_once_after_its_transfers_were_freed(handle: LibusbHandle, lib: FakeLibusb) -> None:
    handle.bulk(0x81, handle.allocate(512), within(100))
    handle.close()
    handle.close()
    assert lib.names()[-3:] == ["free_transfer", "close", "exit"]
    assert lib.of("close") == [(HANDLE + (1 << 8 | 7),)]


def test_a_handle_is_closed_even_if_ctrl_c_interrupts_the_freeing_of_its_transfers(
    handle: LibusbHandle, lib: FakeLibusb
) -> None:
    handle.bulk(0x81, handle.allocate(512), within(100))
    lib.libusb_free_transfer.results = [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        handle.close()
    assert lib.names().count("close") == 1


def test_a_transfer_on_a_closed_handle_ends_at_once(handle: LibusbHandle, lib: FakeLibusb) -> None:
    handle.close()
    lib.calls.clear()
    assert handle.bulk(0x81, memoryview(bytearray(13)), within(100)) == (Code.NO_DEVICE, 0)
    assert len(handle.allocate(512)) == 512
    assert lib.calls == []


def test_closing_the_backend_keeps_pyusbs_context(backend: LibusbBackend, lib: FakeLibusb) -> None:
    before = list(lib.calls)
    backend.close()
    assert lib.calls == before
    assert len(backend.devices()) == 1


# --- device memory --------------------------------------------------------------------------------


def test_a_buffer_is_device_memory_if_granted_and_is_freed_once(handle: LibusbHandle, lib: FakeLibusb) -> None:
    buffer = handle.allocate(8192)
    ((address, memory),) = lib.memory.items()
    buffer[:3] = b"abc"
    assert (len(buffer), buffer.readonly, buffer.format) == (8192, False, "B")
    assert memory.raw[:3] == b"abc"
    handle.free(buffer)
    handle.free(buffer)
    handle.close()
    assert lib.of("dev_mem_free") == [(None, address, 8192)]


def test_a_buffer_is_ordinary_memory_if_no_device_memory_is_granted(handle: LibusbHandle, lib: FakeLibusb) -> None:
    lib.device_memory = False
    buffer = handle.allocate(8192)
    buffer[:3] = b"abc"
    assert bytes(buffer) == b"abc" + bytes(8189)
    handle.free(buffer)
    with pytest.raises(ValueError, match="released"):
        buffer[0] = 1
    assert "dev_mem_free" not in lib.names()


@pytest.mark.parametrize("has_device_memory", [True, False])
def test_a_buffer_that_an_object_exports_is_not_freed(
    handle: LibusbHandle, lib: FakeLibusb, has_device_memory: bool
) -> None:
    lib.device_memory = has_device_memory
    buffer = handle.allocate(4096)
    export = pickle.PickleBuffer(buffer)
    with pytest.raises(BufferError):
        handle.free(buffer)
    assert "dev_mem_free" not in lib.names()
    export.release()
    handle.free(buffer)
    assert lib.names().count("dev_mem_free") == has_device_memory


def test_device_memory_outlives_the_handle_while_a_slice_of_it_is_in_use(handle: LibusbHandle, lib: FakeLibusb) -> None:
    """A traceback can keep a slice alive; unmapping its memory would crash the process."""
    buffer = handle.allocate(4096)
    part = buffer[100:200]
    handle.free(buffer)
    handle.close()
    assert "dev_mem_free" not in lib.names()
    part[:] = bytes(100)
    del part
    assert lib.names()[-1] == "dev_mem_free"
    assert lib.memory == {}


def test_device_memory_outlives_a_transfer_on_it(handle: LibusbHandle, lib: FakeLibusb) -> None:
    def free() -> None:
        handle.free(buffer)
        assert "dev_mem_free" not in lib.names()

    buffer = handle.allocate(4096)
    lib.outcome = lambda transfer: (0, b"data")
    lib.events = [free]
    assert handle.bulk(0x81, buffer, within(100)) == (Code.OK, 4)
    assert lib.names().count("dev_mem_free") == 1


def test_a_buffer_that_is_dropped_is_freed_too(handle: LibusbHandle, lib: FakeLibusb) -> None:
    handle.allocate(4096)
    assert lib.names() == ["dev_mem_alloc", "dev_mem_free"]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_forked_child_unmaps_nothing(handle: LibusbHandle, lib: FakeLibusb, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory is not mapped in the child, and something else may be at its address."""
    buffer = handle.allocate(4096)
    with monkeypatch.context() as child:
        child.setattr("os.getpid", lambda: -1)
        handle.free(buffer)
    assert "dev_mem_free" not in lib.names()


def test_without_an_active_configuration_the_settings_are_those_of_the_first_one(
    backend: LibusbBackend, lib: FakeLibusb
) -> None:
    idle = FakeDevice(2, 3, (1,))
    idle.inactive = configuration(2, [((0, 0, 8, 6, 0x50), [(0x81, 2, 512)])])
    lib.devices = [idle]
    (device,) = backend.devices()
    assert (device.configuration, device.settings) == (0, (Setting(0, 0, 8, 6, 0x50, (Endpoint(0x81, 2, 512),)),))
    assert lib.names().count("free_config_descriptor") == 1
