"""Several clients of one device: sharing it, closing one by one, and dropping them."""

from __future__ import annotations

import gc
import logging
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from scsiusb import DeviceBusy, DeviceClosed, DeviceGone, Disk, Manager, ScsiUsbError, ledger
from scsiusb.base import finalizing
from scsiusb.manager import watcher as watcher_module
from scsiusb.manager.attachment import Attachment
from scsiusb.manager.process import PROCESS, Process
from scsiusb.opening import open_on
from scsiusb.transport.base import Direction
from scsiusb.usb.backend import Code, UsbError
from scsiusb.usb.interface import find
from scsiusb.usb.port import Port
from tests.interrupts import At, CtrlC, Selects, of_files
from tests.sticks import (
    PATIENCE,
    InterceptedBus,
    Wire,
    Worker,
    frequent_thread_switches,
    garbage_collector_off,
    hangs_at,
    run_all,
    stick,
    wait_until,
)

READ_10 = 0x28


@pytest.fixture
def bus() -> Iterator[InterceptedBus]:
    bus = InterceptedBus(stick(64))
    yield bus
    assert not bus.handles
    assert PROCESS._attachments == {}
    wait_until(lambda: threading.active_count() == 1)  # a finalizer's thread ends after what it released


def first(disk: Disk, lba: int) -> int:
    return int.from_bytes(disk.read(lba, 1)[:4], "big")


def unplug(bus: InterceptedBus) -> None:
    bus.unplug(bus.devices()[0])


def hanging_read(bus: InterceptedBus, disk: Disk) -> Worker:
    """Return a thread that is executing a command which the device never completes."""
    reached = threading.Event()
    disk.read(0, 1)
    bus.wire.intercept = hangs_at(READ_10, reached)
    worker = Worker(lambda: disk.read(0, 1))
    assert reached.wait(PATIENCE)
    return worker


# --- signal handlers --------------------------------------------------------------------------------

# What the last close of a device goes through.
LOCKING = of_files("watcher.py", "watch.py", "threading.py", "queue.py", "process.py", "attachment.py", "client.py")


def close_again_at(number: int, disk: Disk, selects: Selects = LOCKING) -> bool:
    """Close the disk; a signal's handler closes it, too, on the line `number` of what is selected. False: none."""

    def handler() -> None:
        with suppress(DeviceBusy):  # the handler interrupted a command
            disk.close()

    signal = At(selects, number, handler, event="line")
    signal.watch(disk.close)
    return signal.times > 0


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_signal_handler_may_close_a_disk_that_is_being_closed(caplog: pytest.LogCaptureFixture) -> None:
    """An Event has a plain lock: a handler that comes while its own thread holds it would wait for ever.

    So has a thread that is joined: there the handler waited for 5 s, and logged that a callback is still running.
    """
    number = 1
    while close_again_at(number, open_on(InterceptedBus(stick(64)))):
        number += 1
        assert PROCESS._attachments == {}
    assert number > 20
    assert threading.active_count() == 1
    assert not caplog.records


def test_a_signal_handler_may_close_a_disk_while_what_was_needed_for_it_is_removed() -> None:
    def selects(frame: FrameType) -> bool:
        return frame.f_code in (Process.tidy.__code__, Attachment._report_learned_quirks.__code__)

    number = 1
    while close_again_at(number, open_on(InterceptedBus(stick(64))), selects):
        number += 1
        assert PROCESS._attachments == {}
    assert number > 10


def test_a_signal_handler_does_not_join_a_thread_that_its_own_thread_is_joining(
    bus: InterceptedBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The join that it interrupts may have the lock that the other one would wait for."""
    joined: list[threading.Thread] = []

    def join(thread: threading.Thread, timeout: float | None = None) -> None:
        joined.append(thread)
        thread.join(timeout)
        if len(joined) == 1:  # then a signal comes
            watcher.close()

    monkeypatch.setattr(watcher_module, "join", join)
    disk = open_on(bus)
    (watcher,) = PROCESS._watchers.values()
    disk.close()
    assert len(joined) == 1


# --- sharing --------------------------------------------------------------------------------------


def test_the_device_is_claimed_once_and_released_by_the_last_client(bus: InterceptedBus) -> None:
    with ExitStack() as stack:
        disks = [stack.enter_context(open_on(bus)) for _ in range(3)]
        assert len(bus.handles) == 1
        assert [first(disk, 5) for disk in disks] == [5, 5, 5]
        for disk in disks[:2]:
            disk.close()
        assert bus.driver(bus.devices()[0], 0) is None
        assert first(disks[2], 7) == 7
    assert bus.driver(bus.devices()[0], 0) == "usb-storage"


def test_the_last_client_releases_in_the_required_order(bus: InterceptedBus, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = open_on(bus)
    (handle,) = bus.handles
    steps: list[str] = []

    def note(name: str, action: Callable[..., None], *arguments: int) -> None:
        steps.append(name)
        action(*arguments)

    for name in ("release", "attach_driver", "close"):
        monkeypatch.setattr(handle, name, partial(note, name, getattr(handle, name)))
    disk.close()
    assert steps == ["release", "attach_driver", "close"]
    assert ledger.outstanding() == []


def test_everything_else_is_released_if_one_release_fails(
    bus: InterceptedBus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise UsbError(Code.IO)

    disk = open_on(bus)
    (handle,) = bus.handles
    monkeypatch.setattr(handle, "release", fail)
    monkeypatch.setattr(handle, "attach_driver", fail)
    with caplog.at_level(logging.WARNING):
        disk.close()
    assert "releasing" in caplog.text
    assert "giving the kernel back its driver" in caplog.text


def test_eight_threads_with_a_client_each_get_the_right_data(bus: InterceptedBus) -> None:
    def work(number: int) -> None:
        with open_on(bus) as disk:
            mine = bytes([number]) * 512
            for turn in range(10):
                disk.write(40 + number, mine)
                assert disk.read(40 + number, 1) == mine
                assert first(disk, turn * 4 % 40) == turn * 4 % 40

    with frequent_thread_switches():
        run_all(*[partial(work, number) for number in range(8)])


def test_opening_and_closing_from_many_threads_never_finds_the_device_busy(bus: InterceptedBus) -> None:
    def work() -> None:
        for _ in range(15):
            with open_on(bus) as disk:
                assert disk.inquiry()

    with frequent_thread_switches():
        run_all(*[work] * 6)


def test_a_reset_that_the_unit_reports_once_is_counted_for_all_clients(bus: InterceptedBus) -> None:
    with open_on(bus) as one, open_on(bus) as other:
        one.read(0, 1)
        other.read(0, 1)
        before = other.unit.resets
        bus.handles[0].reset()
        one.unit.test_unit_ready()
        assert other.unit.resets == one.unit.resets == before + 1


def test_a_device_held_by_a_handle_outside_the_manager_is_busy(bus: InterceptedBus) -> None:
    with Port(bus, find(bus)[0]), pytest.raises(DeviceBusy):
        open_on(bus)


def test_a_trace_must_be_the_first_client_and_shares_the_device_later(bus: InterceptedBus, tmp_path: Path) -> None:
    path = tmp_path / "trace.pcapng"
    with open_on(bus), pytest.raises(DeviceBusy, match=r"this process has .* open already"):
        open_on(bus, trace=str(path))
    with open_on(bus, trace=str(path)) as disk, open_on(bus) as other:
        size = path.stat().st_size
        assert first(other, 9) == first(disk, 9) == 9
    assert path.stat().st_size > size


# --- closing --------------------------------------------------------------------------------------


def test_closing_ends_a_command_in_another_thread_and_the_device_is_usable_at_once(bus: InterceptedBus) -> None:
    disk, other = open_on(bus), open_on(bus)
    worker = hanging_read(bus, disk)
    disk.close()
    with pytest.raises(DeviceClosed, match="was closed"):
        worker.result()
    bus.wire.intercept = None
    assert first(other, 3) == 3
    other.close()


def test_closing_the_last_client_ends_its_command_in_another_thread_and_recovers_the_device(
    bus: InterceptedBus,
) -> None:
    disk = open_on(bus)
    worker = hanging_read(bus, disk)
    disk.close()
    with pytest.raises(DeviceClosed):
        worker.result()
    assert bus.wire.log[-3:] == ["request ff", "clear in", "clear out"]
    assert bus.driver(bus.devices()[0], 0) == "usb-storage"


def test_closing_a_client_does_not_end_the_command_of_another(bus: InterceptedBus) -> None:
    disk, other = open_on(bus), open_on(bus)
    worker = hanging_read(bus, disk)
    other.close()
    assert worker.is_alive()
    disk.close()
    with pytest.raises(DeviceClosed):
        worker.result()


def test_using_a_closed_client_is_an_error_and_closing_again_is_not(bus: InterceptedBus) -> None:
    disk = open_on(bus)
    for _ in range(3):
        disk.close()
        for use in (lambda: disk.read(0, 1), disk.inquiry, disk.flush, lambda: disk.unit.transport.check()):
            with pytest.raises(DeviceClosed, match=r"was closed; open it again"):
                use()


def test_closing_one_client_from_many_threads_raises_nothing_and_all_return_when_it_is_done(
    bus: InterceptedBus,
) -> None:
    def close(disk: Disk) -> None:
        disk.close()
        assert bus.driver(bus.devices()[0], 0) == "usb-storage"

    with frequent_thread_switches():
        for _ in range(15):
            disk = open_on(bus)
            run_all(*[partial(close, disk)] * 4)


def test_ctrl_c_at_any_line_of_closing_leaves_nothing_open(bus: InterceptedBus) -> None:
    """The second attempt is made by `close` itself, or when the disk is dropped."""
    for after in range(200):
        disks = [open_on(bus)]
        ctrl_c = CtrlC(of_files("client.py"), after + 1, event="line")
        ctrl_c.run(disks[0].close)
        if not ctrl_c.came_out:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            disks.clear()
        assert ledger.outstanding() == []
    pytest.fail("close was interrupted at every one of 200 lines")


# --- dropping -------------------------------------------------------------------------------------


def test_a_disk_that_is_dropped_is_freed_at_once_and_warns_with_its_place(bus: InterceptedBus) -> None:
    with garbage_collector_off():
        disk: Disk | None = open_on(bus)
        line = sys._getframe().f_lineno - 1
        gone = weakref.ref(disk)
        with pytest.warns(ResourceWarning, match=f"not closed; opened at test_sharing.py:{line}"):
            disk = None
        assert gone() is None
    assert bus.driver(bus.devices()[0], 0) == "usb-storage"


def test_closed_objects_are_freed_without_the_garbage_collector(bus: InterceptedBus) -> None:
    with garbage_collector_off():
        for _ in range(3):
            with open_on(bus) as disk, open_on(bus):
                disk.read(0, 1)
            gone = weakref.ref(disk.unit.transport)
            del disk
            assert gone() is None


def test_closed_objects_are_not_in_a_reference_cycle(bus: InterceptedBus) -> None:
    with garbage_collector_off():
        with Manager(bus) as manager, manager.open() as disk:
            watched: list[weakref.ref[Any]] = [
                *map(weakref.ref, PROCESS._attachments.values()),
                weakref.ref(manager._registry),
            ]
            watched += [weakref.ref(bus.handles[0])]
        del manager, disk
        assert bus.handles == ()
        assert [ref() for ref in watched] == [None] * 3


def test_a_dropped_client_is_closed_although_the_warning_is_an_error(
    bus: InterceptedBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: raised.append(args.exc_value))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PROCESS.join(bus, find(bus)[0])
    assert [type(error) for error in raised] == [ResourceWarning]
    assert not bus.handles


def test_a_client_collected_during_the_command_of_another_is_released_later(
    bus: InterceptedBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def collect(*_: object) -> None:
        dropped.clear()

    with open_on(bus) as disk:
        disk.read(0, 1)
        dropped = [PROCESS.join(bus, find(bus)[0])]
        bus.wire.intercept = collect
        with pytest.warns(ResourceWarning, match="a client of .* was not closed"):
            disk.read(0, 1)
        bus.wire.intercept = None
        assert [entry.kind for entry in ledger.outstanding()].count("client") == 1


def test_a_disk_collected_during_the_command_of_another_is_flushed_and_released_later(bus: InterceptedBus) -> None:
    def collect(*_: object) -> None:
        dropped.clear()

    with open_on(bus) as disk:
        disk.read(0, 1)
        dropped = [open_on(bus)]
        dropped[0].write(1, bytes(512))
        bus.wire.log.clear()
        bus.wire.intercept = collect
        with pytest.warns(ResourceWarning, match="was not closed"):
            disk.read(0, 1)
        bus.wire.intercept = None
        wait_until(lambda: [entry.kind for entry in ledger.outstanding()].count("client") == 1)
        assert "cbw 35" in bus.wire.log


def owned() -> list[str]:
    """Return the kinds of what is held, without buffers: the device keeps them."""
    return sorted(entry.kind for entry in ledger.outstanding() if entry.kind != "memory")


@pytest.mark.parametrize("what", ["a lock of the program", "the lock of the turns"])
@pytest.mark.parametrize("drop", ["disk", "client", "manager"])
def test_a_finalizer_does_not_wait_for_ever_for_a_thread_that_waits_for_a_lock_of_this_one(
    bus: InterceptedBus, monkeypatch: pytest.MonkeyPatch, what: str, drop: str
) -> None:
    """The garbage collector may run it while this thread has the lock."""
    monkeypatch.setattr(finalizing, "PATIENCE", 0.05)
    reached = threading.Event()
    with open_on(bus) as disk:
        disk.read(0, 1)
        client: Any = disk.unit.transport
        lock = client._turns.interrupting if what == "the lock of the turns" else threading.Lock()

        def wants_lock(wire: Wire, endpoint: int, buffer: memoryview) -> None:
            if wire.opcode == 0x28 and lock is not client._turns.interrupting:
                reached.set()
                with lock:
                    pass
            reached.set()

        held = owned()
        dropped: list[Any] = [Manager(bus)] if drop == "manager" else []
        if drop == "client":
            dropped = [PROCESS.join(bus, find(bus)[0])]
        else:
            dropped.append(dropped[0].open() if dropped else open_on(bus))
            dropped[-1].write(1, bytes(512))
        bus.wire.intercept = wants_lock
        with lock:
            worker = Worker(lambda: disk.read(0, 1))
            assert reached.wait(PATIENCE)
            with pytest.warns(ResourceWarning, match="was not closed"):
                dropped.clear()
        assert worker.result()
        bus.wire.intercept = None
        wait_until(lambda: owned() == held)


def test_what_is_dropped_is_released_where_no_thread_can_be_had(
    bus: InterceptedBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    dropped: list[object] = [open_on(bus), PROCESS.join(bus, find(bus)[0])]
    monkeypatch.setattr("_thread.start_new_thread", fail)
    with pytest.warns(ResourceWarning, match="was not closed"):
        dropped.clear()
    assert not bus.handles


def test_a_failed_open_leaves_nothing_open_and_the_next_one_works(
    bus: InterceptedBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(threading.Thread, "start", lambda self: (_ for _ in ()).throw(RuntimeError("no more threads")))
        with pytest.raises(RuntimeError, match="no more threads"):
            open_on(bus)
    assert ledger.outstanding() == []
    bus.wire.fail_requests = {"request fe": Code.NO_DEVICE}
    with pytest.raises(DeviceGone):
        open_on(bus)
    wait_until(lambda: not ledger.outstanding())  # the watcher's thread may notice it first, and then ends by itself
    bus.wire.fail_requests = {}
    open_on(bus).close()


def test_opening_many_times_does_not_leak_memory(bus: InterceptedBus) -> None:
    def round_() -> int:
        with suppress(ScsiUsbError), open_on(bus) as disk:
            disk.unit.send(bytes(6), Direction.NONE, memoryview(b""), 5)
        gc.collect()
        return len(gc.get_objects())

    sizes = [round_() for _ in range(12)]
    assert max(sizes[6:]) - sizes[5] < 50
