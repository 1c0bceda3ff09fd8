"""Device memory is shared: every device gets some, none gets all, and freed memory is granted again."""

from __future__ import annotations

from pathlib import Path

import pytest

from scsiusb.usb.libusb import backend as libusb_module
from scsiusb.usb.libusb import library
from scsiusb.usb.libusb import memory as memory_module
from scsiusb.usb.libusb.backend import LibusbBackend
from scsiusb.usb.libusb.memory import ALWAYS_GRANTED, MIN_DEVICE_MEMORY, DeviceMemory, usbfs_limit
from tests.interrupts import At, of_module
from tests.usb.libusb.fake_libusb import DEVICE, FakeBackend, FakeDevice

MIB = 1 << 20


def test_sixteen_devices_all_have_memory_for_a_command() -> None:
    memory = DeviceMemory(16 * MIB)
    reserved = [memory.reserve(MIB) for _ in range(16)]
    assert reserved == sorted(reserved, reverse=True)
    assert reserved[0] == MIB
    assert reserved[-1] >= 4 * MIN_DEVICE_MEMORY
    assert all(size % MIN_DEVICE_MEMORY == 0 for size in reserved)
    assert sum(reserved) <= 14 * MIB


def test_when_little_is_left_nothing_is_reserved_but_a_small_buffer_is_granted() -> None:
    memory = DeviceMemory(MIB)
    while memory.reserve(MIB):
        pass
    while memory.allocate(2 * ALWAYS_GRANTED):
        pass
    assert memory.allocate(ALWAYS_GRANTED)
    assert memory.reserve(MIB) == 0


def test_memory_that_was_given_back_is_granted_again() -> None:
    memory = DeviceMemory(16 * MIB)
    first = [memory.reserve(MIB) for _ in range(16)]
    for size in first:
        memory.give_back(size)
    assert [memory.reserve(MIB) for _ in range(16)] == first


def test_without_a_limit_all_is_granted() -> None:
    memory = DeviceMemory(None)
    assert [memory.reserve(MIB) for _ in range(100)] == [MIB] * 100
    assert memory.allocate(1 << 40)
    memory.give_back(5)


@pytest.mark.parametrize(
    ("text", "limit"), [("16\n", 16 * MIB), ("0\n", None), ("many\n", None), (None, None), ("200", 200 * MIB)]
)
def test_the_limit_is_read_from_the_kernel(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None, limit: int | None
) -> None:
    monkeypatch.setattr(memory_module, "LIMIT", tmp_path / "usbfs_memory_mb")
    if text is not None:
        (tmp_path / "usbfs_memory_mb").write_text(text)
    assert usbfs_limit() == limit


def test_handles_share_the_memory_and_give_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeBackend(FakeDevice(1, 7, (4,)))
    monkeypatch.setattr(library, "load", lambda: fake)
    monkeypatch.setattr(libusb_module, "ON_LINUX", True)
    monkeypatch.setattr(libusb_module, "usbfs_limit", lambda: 2 * MIB)
    backend = LibusbBackend()
    left = backend._memory.left
    handles = [LibusbBackend().open(DEVICE) for _ in range(4)]  # as each call of `scsiusb.open` has its own
    sizes = [handle.limit_transfer_size(MIB) for handle in handles]
    assert sizes == [size * 1024 for size in (192, 192, 128, 128)]
    wrappers = [handle.allocate(4096) for handle in handles]  # do not reduce the reservation
    buffers = [handle.allocate(size) for handle, size in zip(handles, sizes, strict=True)]
    assert sorted(map(len, fake.lib.memory.values())) == sorted([*sizes, *[4096] * len(wrappers)])
    for handle, wrapper in zip(handles, wrappers, strict=True):
        handle.free(wrapper)
    del wrappers, wrapper
    assert isinstance(handles[0].allocate(2 * MIB).obj, bytearray), "not more than the limit is allocated"
    assert handles[0].limit_transfer_size(120 * 1024) == 120 * 1024
    for handle, buffer in zip(handles, buffers, strict=True):
        handle.free(buffer)
        handle.close()
        handle.close()
    del buffers, buffer
    assert fake.lib.memory == {}
    assert backend._memory.left == left


def test_the_account_is_correct_if_libusb_grants_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeBackend(FakeDevice(1, 7, (4,)))
    fake.lib.device_memory = False
    monkeypatch.setattr(library, "load", lambda: fake)
    monkeypatch.setattr(libusb_module, "usbfs_limit", lambda: 2 * MIB)
    backend = LibusbBackend()
    left = backend._memory.left
    handle = backend.open(DEVICE)
    assert isinstance(handle.allocate(4096).obj, bytearray)
    assert backend._memory.left == left
    handle.close()


@pytest.mark.parametrize("method", ["reserve", "allocate", "give_back"])
def test_a_signal_handler_may_give_memory_back_on_any_line(method: str) -> None:
    """A handler that closes a device runs in the thread that it interrupted."""
    memory = DeviceMemory(16 * MIB)
    start = memory.left

    def handler() -> None:
        memory.allocate(4096)
        memory.give_back(4096)

    each_line = At(of_module(memory_module), 0, handler, event="line")
    granted = each_line.watch(lambda: getattr(memory, method)(MIB))
    assert each_line.times > 3
    memory.give_back(-MIB if method == "give_back" else MIB)
    assert granted is None or granted
    assert memory.left == start


def test_the_account_stays_short_and_right() -> None:
    memory = DeviceMemory(16 * MIB)
    for _ in range(1000):
        assert memory.allocate(4096)
        memory.give_back(4096)
    assert memory.left == 14 * MIB
    assert memory._changes is not None
    assert len(memory._changes) <= memory_module.MAX_CHANGES + 1
