"""The manager: which devices are attached, and the reports of attach and detach."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import warnings
import weakref
from collections.abc import Iterator
from functools import partial

import pytest

from scsiusb import DeviceClosed, EventsLost, Manager, ledger
from scsiusb.manager import events as events_module
from scsiusb.manager.events import Event, Events
from scsiusb.usb.backend import Code, Device, UsbError
from scsiusb.usb.interface import InterfaceInfo
from scsiusb.virtual import Bus, Stick
from tests.sticks import PATIENCE, Worker, frequent_thread_switches, garbage_collector_off, run_all, stick, wait_until


@pytest.fixture
def bus() -> Bus:
    return Bus(stick(16))


@pytest.fixture
def manager(bus: Bus) -> Iterator[Manager]:
    with Manager(bus) as manager:
        yield manager


def kinds_and_addresses(events: Events) -> list[tuple[str, str]]:
    return [(event.kind, event.device.address) for event in events]


class CallbackLog(list[tuple[str, str]]):
    """Kind and address of each event that a manager called its callbacks for."""

    def __init__(self, manager: Manager) -> None:
        super().__init__()
        manager.on_attach(lambda info: self.append(("attached", info.address)))
        manager.on_detach(lambda info: self.append(("detached", info.address)))


# --- events ---------------------------------------------------------------------------------------


def test_devices_attached_before_are_the_first_events(manager: Manager) -> None:
    seen = CallbackLog(manager)
    wait_until(lambda: seen)
    assert seen == kinds_and_addresses(manager.events(timeout=0)) == [("attached", "1-1")]
    assert [info.address for info in manager.devices()] == ["1-1"]


def test_each_attach_and_detach_is_reported_once_with_a_growing_generation(bus: Bus, manager: Manager) -> None:
    events, seen = manager.events(timeout=PATIENCE), CallbackLog(manager)
    other = stick(16)
    for _ in range(3):
        bus.plug(other)
        assert next(events) if _ else [next(events), next(events)]
        bus.unplug(other)
        last = next(events)
        assert (last.kind, last.generation) == ("detached", _ + 2)
    wait_until(lambda: len(seen) == 7)
    assert seen == [("attached", "1-1"), *[("attached", "1-2"), ("detached", "1-2")] * 3]
    assert last.time.tzinfo is not None


def test_the_detach_event_has_the_generation_of_its_attach_event(bus: Bus, manager: Manager) -> None:
    events = manager.events(timeout=PATIENCE)
    attached = next(events)
    bus.unplug(bus.devices()[0])
    detached = next(events)
    assert (attached.generation, detached.generation) == (1, 1)
    assert detached.device == attached.device
    assert manager.devices() == []


@pytest.mark.parametrize("match", ["1-2", lambda info: info.address == "1-2"], ids=["selector", "function"])
def test_a_filter_selects_devices(bus: Bus, manager: Manager, match: str) -> None:
    seen: list[str] = []
    manager.on_attach(lambda info: seen.append(info.address), match)
    events = manager.events(5, match)
    bus.plug(stick(16))
    assert next(events).device.address == "1-2"
    wait_until(lambda: seen)
    assert seen == ["1-2"]


def test_a_cancelled_callback_is_not_called_again(bus: Bus, manager: Manager) -> None:
    seen: list[InterfaceInfo] = []
    subscription = manager.on_detach(seen.append)
    subscription.cancel()
    others = CallbackLog(manager)
    bus.unplug(bus.devices()[0])
    wait_until(lambda: len(others) == 2)
    assert seen == []


def test_an_iteration_ends_after_its_timeout_without_an_event(manager: Manager) -> None:
    assert kinds_and_addresses(manager.events(timeout=0.01)) == [("attached", "1-1")]


def test_async_for_returns_the_events_that_for_returns(bus: Bus, manager: Manager) -> None:
    async def read(timeout: float) -> list[tuple[str, str]]:
        seen = []
        async for event in manager.events(timeout):
            seen.append((event.kind, event.device.address))
            if len(seen) == 1 and timeout:
                bus.unplug(bus.devices()[0])
            if event.kind == "detached":
                break
        return seen

    assert asyncio.run(read(0)) == [("attached", "1-1")]
    assert asyncio.run(read(5)) == [("attached", "1-1"), ("detached", "1-1")]


def test_several_tasks_may_read_one_iterator(bus: Bus, manager: Manager) -> None:
    async def read() -> list[str]:
        events = manager.events(timeout=PATIENCE)
        assert (await anext(events)).kind == "attached"
        readers = [asyncio.create_task(one(events)) for _ in range(3)]
        await asyncio.sleep(0)
        for _ in range(3):
            bus.plug(stick(16))
        return sorted([await reader for reader in readers])

    async def one(events: Events) -> str:
        return (await anext(events)).device.address

    assert asyncio.run(read()) == ["1-2", "1-3", "1-4"]


def test_an_asynchronous_iteration_ends_when_the_manager_is_closed(bus: Bus) -> None:
    async def read() -> list[Event]:
        manager = Manager(bus)
        events = manager.events(device="1-9")
        reader = asyncio.create_task(all_of(events))
        await asyncio.sleep(0)
        manager.close()
        return await asyncio.wait_for(reader, 5)

    async def all_of(events: Events) -> list[Event]:
        return [event async for event in events]

    assert asyncio.run(read()) == []


def test_sixteen_sticks_plugged_and_unplugged_at_once_are_reported_exactly_once_and_in_order(bus: Bus) -> None:
    rounds = 5
    ports = range(10, 26)
    plugged = {port: threading.Semaphore(0) for port in ports}

    def play(port: int) -> None:
        mine = stick(1)
        for _ in range(rounds):
            bus.plug(mine, (port,))
            assert port % 4 == 0 or plugged[port].acquire(timeout=PATIENCE)  # a quarter is unplugged at once
            bus.unplug(mine)

    with frequent_thread_switches(), Manager(bus) as manager:
        seen = CallbackLog(manager)
        manager.on_attach(lambda info: plugged[info.device.ports[0]].release(), lambda info: info.address != "1-1")
        run_all(*[partial(play, port) for port in ports])
        bus.unplug(bus.devices()[0])
        wait_until(lambda: ("detached", "1-1") in seen)
        assert manager.devices() == []
    for port in ports:
        kinds = [kind for kind, address in seen if address == f"1-{port}"]
        assert kinds == ["attached", "detached"] * (len(kinds) // 2)
        assert port % 4 == 0 or len(kinds) == 2 * rounds


def test_too_many_unread_events_raise_events_lost_at_the_gap(
    bus: Bus, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "MOST_PENDING", 2)
    events, seen = manager.events(timeout=PATIENCE), CallbackLog(manager)
    others = [stick(1) for _ in range(3)]
    for other in others[:2]:
        bus.plug(other)
    wait_until(lambda: len(seen) == 3)
    assert next(events).device.address == "1-1"
    bus.plug(others[2])
    wait_until(lambda: len(seen) == 4)
    assert next(events).device.address == "1-2"
    with pytest.raises(EventsLost, match="more than 2 events"):
        next(events)
    bus.unplug(others[0])
    assert next(events).kind == "detached"


# --- the user's code ------------------------------------------------------------------------------


def test_an_exception_of_a_callback_is_logged_and_the_others_are_called(
    bus: Bus, manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(info: InterfaceInfo) -> None:
        raise RuntimeError("mine")

    manager.on_attach(fail)
    manager.on_attach(lambda info: None, fail)  # type: ignore[arg-type]
    seen = CallbackLog(manager)
    bus.unplug(bus.devices()[0])
    wait_until(lambda: len(seen) == 2)
    assert caplog.text.count("RuntimeError: mine") == 2
    assert "a callback for a device attached failed" in caplog.text


def test_an_exception_of_a_filter_is_logged_and_the_event_is_reported(
    manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    assert kinds_and_addresses(manager.events(0, lambda info: bool(1 / 0))) == [("attached", "1-1")]
    assert "the filter of an iteration over events failed" in caplog.text


def test_a_callback_may_use_the_manager_and_close_it(bus: Bus) -> None:
    manager = Manager(bus)
    done = threading.Event()

    def use(info: InterfaceInfo) -> None:
        with manager.open(info) as disk:
            assert disk.blocks == 16
        manager.close()
        done.set()

    manager.on_attach(use)
    assert done.wait(PATIENCE)
    manager.close()
    wait_until(lambda: not ledger.outstanding())


def test_callbacks_in_two_threads_may_each_close_what_the_other_thread_serves(bus: Bus) -> None:
    """`on_gone` closes the manager while `on_detach` closes the last disk: waiting for each other is a deadlock."""
    bus.plug(stick(16))
    both = threading.Barrier(2, timeout=PATIENCE)

    def shut_down() -> None:
        both.wait()
        manager.close()

    def close_other(info: InterfaceInfo) -> None:
        both.wait()
        other.close()

    manager = Manager(bus)
    disk, other = manager.open("1-1", on_gone=shut_down), manager.open("1-2")
    manager.on_detach(close_other)
    bus.unplug(bus.devices()[0])
    wait_until(lambda: not [entry for entry in ledger.outstanding() if entry.kind != "client"])
    disk.close()


# --- closing --------------------------------------------------------------------------------------


def test_closing_ends_an_iteration_in_another_thread(bus: Bus) -> None:
    manager = Manager(bus)
    events = manager.events()
    next(events)
    worker = Worker(lambda: list(events))
    manager.close()
    assert worker.result() == []


def test_closing_does_not_wait_forever_for_a_callback_that_waits_for_the_closing_thread(
    bus: Bus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("scsiusb.manager.watcher.JOIN_TIMEOUT", 0.01)

    def wait(info: InterfaceInfo) -> None:
        entered.set()
        go_on.wait(PATIENCE)

    entered, go_on = threading.Event(), threading.Event()
    manager = Manager(bus)
    manager.on_attach(wait)
    assert entered.wait(PATIENCE)
    manager.close()
    assert "a callback is still running in scsiusb manager" in caplog.text
    go_on.set()
    wait_until(lambda: threading.active_count() == 1)


def test_closing_again_and_from_many_threads_is_quiet(bus: Bus) -> None:
    for _ in range(20):
        manager = Manager(bus)
        run_all(*[manager.close] * 4)
        manager.close()
    assert threading.active_count() == 1


def test_using_a_closed_manager_is_an_error(manager: Manager) -> None:
    manager.close()
    for use in (manager.devices, manager.events, lambda: manager.on_attach(print)):
        with pytest.raises(DeviceClosed, match="the manager was closed; make another one"):
            use()


def test_a_disk_opened_by_the_manager_is_closed_with_it(bus: Bus) -> None:
    with Manager(bus) as manager:
        disk = manager.open()
    with pytest.raises(DeviceClosed):
        disk.read(0, 1)
    assert bus.driver(bus.devices()[0], 0) == "usb-storage"


def test_an_iterator_that_is_dropped_is_freed(manager: Manager) -> None:
    with garbage_collector_off():
        reader = weakref.ref(manager.events())
        assert reader() is None


def test_a_manager_that_is_dropped_is_freed_at_once_and_warns_with_its_place(bus: Bus) -> None:
    with garbage_collector_off():
        manager: Manager | None = Manager(bus)
        line = sys._getframe().f_lineno - 1
        gone = weakref.ref(manager)
        with pytest.warns(ResourceWarning, match=f"not closed; made at test_manager.py:{line}"):
            manager = None
        assert gone() is None
    assert ledger.outstanding() == []
    assert threading.active_count() == 1


def test_a_dropped_manager_is_closed_although_the_warning_is_an_error(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: raised.append(args.exc_value))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Manager(bus)
    assert [type(error) for error in raised] == [ResourceWarning]
    assert ledger.outstanding() == []


# --- a bus that fails -----------------------------------------------------------------------------


class FailingBus(Bus):
    """A bus whose next `left` listings fail with `error`."""

    left = 0
    error: type[Exception] = UsbError

    def devices(self) -> list[Device]:
        if self.left:
            self.left -= 1
            raise UsbError(Code.IO) if self.error is UsbError else self.error("a bug")
        return list(super().devices())


@pytest.mark.parametrize("error", [UsbError, RuntimeError])
def test_no_event_is_lost_while_the_bus_cannot_be_listed(
    error: type[Exception], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scsiusb.manager.watcher.RETRY_INTERVAL", 0.001)
    bus = FailingBus()
    with Manager(bus) as manager, caplog.at_level(logging.WARNING):
        seen = CallbackLog(manager)
        bus.left, bus.error = 3, error
        bus.plug(Stick.formatted())
        wait_until(lambda: seen)
    assert seen == [("attached", "1-1")]
    assert caplog.records


def test_a_manager_whose_creation_fails_holds_nothing() -> None:
    bus = FailingBus()
    bus.left = 1
    with pytest.raises(Exception, match="looking for devices"):
        Manager(bus)
    assert ledger.outstanding() == []
