"""Unplugging: every client of the device ends at once, is notified once, and never works again."""

from __future__ import annotations

import gc
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from scsiusb import DeviceClosed, DeviceGone, Disk, Manager, ScsiUsbError, TransportError, ledger, opening
from scsiusb.manager.attachment import Attachment
from scsiusb.manager.client import Client
from scsiusb.manager.process import PROCESS
from scsiusb.opening import open_on
from scsiusb.usb.backend import Code, Device, UsbError
from scsiusb.usb.interface import InterfaceInfo
from scsiusb.virtual import Bus
from scsiusb.virtual.bus.watch import Watch
from tests.manager.test_sharing import first, hanging_read, unplug
from tests.sticks import PATIENCE, InterceptedBus, Worker, frequent_thread_switches, run_all, stick, wait_until


@pytest.fixture
def bus() -> Iterator[InterceptedBus]:
    bus = InterceptedBus(stick(64))
    yield bus
    assert not bus.handles
    assert PROCESS._attachments == {}
    assert threading.active_count() == 1


def test_the_running_command_and_all_later_ones_fail_and_the_handle_is_closed_automatically(
    bus: InterceptedBus,
) -> None:
    disk, other = open_on(bus), open_on(bus)
    worker = hanging_read(bus, disk)
    unplug(bus)
    with pytest.raises(DeviceGone):
        worker.result()
    wait_until(lambda: not bus.handles)
    for each in (disk, other):
        with pytest.raises(DeviceGone, match="was unplugged"):
            each.inquiry()
        each.close()
        each.close()
        with pytest.raises(DeviceClosed):
            each.inquiry()


def test_on_gone_of_each_client_is_called_once_with_the_interface_or_without(bus: InterceptedBus) -> None:
    calls: list[str] = []
    done = threading.Event()

    def with_interface(info: InterfaceInfo) -> None:
        calls.append(info.address)

    callbacks = [with_interface, lambda: calls.append("nothing"), None, done.set]
    disks = [open_on(bus, on_gone=callback) for callback in callbacks]
    unplug(bus)
    assert done.wait(PATIENCE)
    for disk in disks:
        with pytest.raises(DeviceGone):
            disk.inquiry()
        disk.close()
    assert calls == ["1-1", "nothing"]


def test_on_gone_of_a_closed_client_is_not_called(bus: InterceptedBus) -> None:
    calls: list[object] = []
    done = threading.Event()
    with open_on(bus, on_gone=done.set):
        open_on(bus, on_gone=calls.append).close()
        unplug(bus)
        assert done.wait(PATIENCE)
    assert calls == []


def test_on_gone_is_called_when_everything_is_released_and_may_close_its_disk(bus: InterceptedBus) -> None:
    seen: list[object] = []
    done = threading.Event()

    def on_gone() -> None:
        seen.extend(bus.handles)
        seen.extend(entry for entry in ledger.outstanding() if entry.kind in ("handle", "driver", "claim", "memory"))
        disk.close()
        done.set()

    disk = open_on(bus, on_gone=on_gone)
    unplug(bus)
    assert done.wait(PATIENCE)
    assert seen == []


def test_an_exception_of_on_gone_is_logged_and_the_others_are_called(
    bus: InterceptedBus, caplog: pytest.LogCaptureFixture
) -> None:
    done = threading.Event()

    def fail() -> None:
        raise RuntimeError("mine")

    with caplog.at_level(logging.ERROR), open_on(bus, on_gone=fail), open_on(bus, on_gone=done.set):
        unplug(bus)
        assert done.wait(PATIENCE)
    assert "RuntimeError: mine" in caplog.text


def test_on_gone_of_every_client_is_called_if_a_release_fails(
    bus: InterceptedBus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: Attachment) -> None:
        give_back(self)
        raise RuntimeError("a bug")

    give_back = Attachment._give_back
    done, other = threading.Event(), threading.Event()
    bus.plug(stick(64))
    with open_on(bus, "1-1", on_gone=done.set), open_on(bus, "1-2", on_gone=other.set), caplog.at_level(logging.ERROR):
        with monkeypatch.context() as broken:
            broken.setattr(Attachment, "_give_back", fail)
            unplug(bus)
            assert done.wait(PATIENCE)
        unplug(bus)
        assert other.wait(PATIENCE)
    assert "a bug" in caplog.text


class SkipFirstCall:
    """Stands for `Client.check`: the first call checks nothing, the later ones do."""

    def __init__(self, check: Callable[..., None]) -> None:
        self._check = check
        self._called = False

    def __get__(self, client: Client, owner: object) -> Callable[..., None]:
        called, self._called = self._called, True
        return partial(self._check, client) if called else lambda: None


class SilentBus(InterceptedBus):
    """A bus that does not report detached devices."""

    def _notify(self) -> None:
        pass


def test_the_first_command_that_finds_the_device_gone_ends_it_for_all_clients() -> None:
    bus = SilentBus(stick(64))
    done = threading.Event()
    with open_on(bus, on_gone=done.set), open_on(bus) as disk:
        unplug(bus)
        assert not done.is_set()
        with pytest.raises(DeviceGone):
            disk.inquiry()
        assert done.wait(PATIENCE)
        wait_until(lambda: not bus.handles)


class UnwatchableBus(InterceptedBus):
    """A bus whose devices cannot be watched."""

    def watch(self) -> Watch:
        raise UsbError(Code.NO_MEM)


def test_commands_fail_after_an_unplug_also_if_the_bus_cannot_be_watched(caplog: pytest.LogCaptureFixture) -> None:
    bus = UnwatchableBus(stick(64))
    with open_on(bus) as disk:
        unplug(bus)
        with pytest.raises(DeviceGone):
            disk.inquiry()
    assert "an unplug will be noticed only by the next command" in caplog.text
    assert not bus.handles


def test_an_old_client_never_works_again_after_a_replug(bus: InterceptedBus) -> None:
    done = threading.Event()
    with open_on(bus, on_gone=done.set) as old:
        mine = bus._connection(bus.devices()[0])
        assert mine is not None
        unplug(bus)
        bus.plug(mine.stick, (1,))
        with open_on(bus) as new:
            assert first(new, 5) == 5
            assert done.wait(PATIENCE)
            with pytest.raises(DeviceGone):
                old.read(0, 1)
            assert first(new, 6) == 6
        with pytest.raises(DeviceGone):
            old.read(0, 1)


def test_closing_after_an_unplug_raises_nothing_if_a_write_has_already_raised(bus: InterceptedBus) -> None:
    disk = open_on(bus)
    disk.write(0, bytes(512))
    unplug(bus)
    with pytest.raises(DeviceGone):
        disk.write(0, bytes(512))
    disk.close()


def use(disk: Disk) -> None:
    with disk:
        for _ in range(5):
            disk.inquiry()


@pytest.mark.parametrize("clients", [1, 3])
def test_opening_using_and_closing_while_unplugging_raises_only_our_errors(bus: InterceptedBus, clients: int) -> None:
    """Each on_gone is called at most once, and never after its disk was closed."""

    def work() -> None:
        calls: list[object] = []
        try:
            use(open_on(bus, on_gone=calls.append))
        except (TransportError, ScsiUsbError) as error:
            errors.append(error)
        assert len(calls) <= 1

    def replug() -> None:
        mine = stick(64)
        unplug(bus)
        bus.plug(mine)

    errors: list[ScsiUsbError] = []
    with frequent_thread_switches():
        for _ in range(25):
            run_all(replug, *[work] * clients)
    assert {type(error).__name__ for error in errors} <= {"DeviceGone", "DeviceNotFound", "DeviceNotUnique"}


@pytest.mark.slow
def test_on_gone_of_every_open_client_is_called_at_each_of_many_unplugs(bus: InterceptedBus) -> None:
    with frequent_thread_switches():
        for _ in range(20):
            calls: list[object] = []
            disks = [open_on(bus, on_gone=calls.append) for _ in range(4)]
            workers = [Worker(lambda disk=disk: read_until_gone(disk)) for disk in disks]  # type: ignore[misc]
            device: Device = bus.devices()[0]
            bus.unplug(device)
            for worker in workers:
                worker.result()
            wait_until(lambda calls=calls: len(calls) == 4)  # type: ignore[misc]
            for disk in disks:
                disk.close()
            assert len(calls) == 4
            bus.plug(stick(64))


def test_an_unplug_that_another_client_met_is_no_change_of_medium(bus: InterceptedBus) -> None:
    """The exchange that failed at the unplug is counted as a change; the next client in the queue finds the count."""
    first, second = open_on(bus), open_on(bus)
    for disk in (first, second):
        disk.read(0, 1)
    bus.unplug(bus.devices()[0])
    with pytest.raises(DeviceGone):
        first.read(0, 1)
    attentions = second.unit.attentions
    attentions.losses_seen = attentions.losses.count
    attentions.medium_changes += 1
    with pytest.raises(DeviceGone):
        second.read(0, 1)
    for disk in (first, second):
        disk.close()


def read_until_gone(disk: Disk) -> None:
    with pytest.raises(DeviceGone):
        while True:
            disk.read(0, 1)


def test_close_does_not_report_an_unplug_that_another_call_has_raised() -> None:
    """Before or after the watcher saw it, and also if the call fails before anything is sent."""
    for call in ("read", "write"):
        bus = Bus(stick())
        disk = open_on(bus)
        disk.write(0, bytes(512))
        bus.unplug(bus.devices()[0])
        for _ in range(3):
            with pytest.raises(DeviceGone):
                disk.read(0, 1) if call == "read" else disk.write(0, bytes(512))
        disk.close()


def test_close_reports_writes_that_were_not_flushed_if_no_other_call_did() -> None:
    bus = Bus(stick())
    disk = open_on(bus)
    disk.write(0, bytes(512))
    bus.unplug(bus.devices()[0])
    with pytest.raises(DeviceGone):
        disk.close()
    disk.close()


def test_plugging_many_times_does_not_leak() -> None:
    """Nothing is kept in the manager, in the process or on the virtual bus."""
    bus, thing = Bus(), stick()

    def ours() -> int:
        gc.collect()
        return sum(str(type(each).__module__).startswith("scsiusb.") for each in gc.get_objects())

    with Manager(bus) as manager:
        events = manager.events(timeout=PATIENCE)
        counts = []
        for _ in range(12):
            bus.plug(thing)
            assert next(events).kind == "attached"
            gone = threading.Event()
            disk = manager.open(on_gone=gone.set)
            bus.unplug(thing)
            assert gone.wait(PATIENCE)
            assert next(events).kind == "detached"
            disk.close()
            del disk
            counts.append(ours())
    assert counts[3] == counts[-1]


def test_a_callback_that_calls_sys_exit_does_not_end_the_thread(caplog: pytest.LogCaptureFixture) -> None:
    """SystemExit is not an Exception; it would end the one thread that calls all callbacks."""
    bus, things = Bus(), [stick(), stick()]
    places = [bus.plug(thing).address for thing in things]
    notified = threading.Event()
    with Manager(bus) as manager:
        manager.on_detach(lambda info: sys.exit(3))
        first = manager.open(places[0], on_gone=lambda: sys.exit("unplugged"))
        second = manager.open(places[1], on_gone=notified.set)
        events = manager.events(timeout=PATIENCE)
        for thing in things:
            bus.unplug(thing)
        assert notified.wait(PATIENCE)
        assert [next(events).kind for _ in range(4)] == ["attached", "attached", "detached", "detached"]
        wait_until(lambda: len([entry for entry in caplog.records if entry.exc_info]) == 3)
        first.close()
        second.close()


def test_a_device_opened_while_the_manager_closes_is_closed_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    bus = Bus(stick())
    manager = Manager(bus)
    really = opening._open

    def slow(*arguments: Any) -> Disk:
        disk = really(*arguments)
        manager.close()
        return disk

    monkeypatch.setattr(opening, "_open", slow)
    with pytest.raises(DeviceClosed, match="the manager was closed"):
        manager.open()
    assert not bus.handles
