"""Noticing that devices come or leave: libusb's hotplug, against a fake library, and polling."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator

import pytest

from scsiusb.usb.backend import Code, Hotplug, UsbError
from scsiusb.usb.libusb.hotplug import MAX_WAIT, LibusbHotplug, Polling, hotplug
from scsiusb.usb.libusb.transfer import Timeval
from tests.sticks import frequent_thread_switches, garbage_collector_off, run_all
from tests.usb.libusb.fake_libusb import OWN_CONTEXT, FakeLibusb


@pytest.fixture
def lib() -> FakeLibusb:
    lib = FakeLibusb()
    lib.libusb_has_capability.action = lambda capability: capability == 1
    return lib


@pytest.fixture
def source(lib: FakeLibusb) -> Iterator[LibusbHotplug]:
    source = LibusbHotplug(lib)
    yield source
    source.close()


def test_hotplug_events_are_used_if_supported_and_else_polling(lib: FakeLibusb) -> None:
    made: Hotplug = hotplug(lib)
    assert isinstance(made, LibusbHotplug)
    made.close()
    lib.libusb_has_capability.action = lambda capability: 0
    assert isinstance(hotplug(lib), Polling)


def test_it_subscribes_to_all_devices_in_a_separate_context(lib: FakeLibusb, source: LibusbHotplug) -> None:
    assert lib.names()[:2] == ["init", "hotplug_register_callback"]
    assert lib.of("hotplug_register_callback")[0][:6] == (OWN_CONTEXT, 3, 0, -1, -1, -1)


def test_wait_returns_whether_something_changed(lib: FakeLibusb, source: LibusbHotplug) -> None:
    assert source.wait(1) is False
    lib.events = [lib.announce]
    assert source.wait(1) is True
    assert source.wait(1) is False


def test_the_callback_does_no_io_and_stays_subscribed(lib: FakeLibusb, source: LibusbHotplug) -> None:
    before = list(lib.calls)
    assert lib.announce() == 0
    assert lib.calls == before


@pytest.mark.parametrize(
    ("timeout", "limit"), [(0.0, (0, 0)), (1.25, (1, 250_000)), (float("inf"), (int(MAX_WAIT), 0))]
)
def test_a_wait_is_limited(lib: FakeLibusb, source: LibusbHotplug, timeout: float, limit: tuple[int, int]) -> None:
    def handle(context: object, address: int, done: object) -> int:
        there = Timeval.from_address(address)
        seen.append((there.tv_sec, there.tv_usec))
        return 0

    seen: list[tuple[int, int]] = []
    lib.libusb_handle_events_timeout_completed.action = handle
    source.wait(timeout)
    assert seen == [limit]


def test_an_interrupted_wait_is_no_error_and_a_failed_one_is(lib: FakeLibusb, source: LibusbHotplug) -> None:
    lib.libusb_handle_events_timeout_completed.results = [Code.INTERRUPTED, Code.IO]
    assert source.wait(1) is False
    with pytest.raises(UsbError) as caught:
        source.wait(1)
    assert caught.value.code is Code.IO


def test_waking_interrupts_the_context_until_it_is_closed(lib: FakeLibusb, source: LibusbHotplug) -> None:
    """libusb would take NULL for the default context."""
    source.wake()
    source.close()
    source.wake()
    source.close()
    assert lib.of("interrupt_event_handler") == [(OWN_CONTEXT,)]
    assert lib.of("exit") == [(OWN_CONTEXT,)]


def test_a_context_that_cannot_be_made_is_not_freed(lib: FakeLibusb) -> None:
    lib.libusb_init.results = [Code.NO_MEM]
    with pytest.raises(UsbError):
        LibusbHotplug(lib)
    assert "exit" not in lib.names()


@pytest.mark.parametrize("failure", [Code.NOT_SUPPORTED, KeyboardInterrupt()], ids=["refused", "Ctrl-C"])
def test_a_subscription_that_fails_frees_the_context(lib: FakeLibusb, failure: Code | KeyboardInterrupt) -> None:
    lib.libusb_hotplug_register_callback.results = [failure]
    with pytest.raises((UsbError, KeyboardInterrupt)):
        LibusbHotplug(lib)
    assert lib.of("exit") == [(OWN_CONTEXT,)]


def test_after_close_it_is_in_no_reference_cycle(lib: FakeLibusb) -> None:
    with garbage_collector_off():
        source = LibusbHotplug(lib)
        source.close()
        lib.subscribed = None
        assert sys.getrefcount(source) == 2


def test_a_context_is_not_woken_while_it_is_being_freed(lib: FakeLibusb) -> None:
    def wake(context: ctypes.c_void_p) -> int:
        used.append(context.value)
        assert not lib.of("exit")
        return 0

    used: list[int | None] = []
    lib.libusb_interrupt_event_handler.action = wake
    with frequent_thread_switches():
        for _ in range(30):
            lib.calls.clear()
            source = LibusbHotplug(lib)
            run_all(source.wake, source.wake, source.close, source.wake)
    assert set(used) <= {OWN_CONTEXT}


def test_polling_reports_a_possible_change_each_interval() -> None:
    source: Hotplug = Polling(interval=0.001)
    assert source.wait(5) is True
    assert source.wait(0) is True
    source.close()


def test_polling_can_be_woken_even_before_it_waits() -> None:
    source = Polling(interval=30)
    source.wake()
    assert source.wait(30) is False
    waiting = threading.Timer(0.01, source.wake)
    waiting.start()
    assert source.wait(30) is False
    waiting.join()
