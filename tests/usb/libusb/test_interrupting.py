"""Transfers that another thread interrupts, handles in a forked child, and drivers that are bound late."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from pathlib import Path

import pytest

from scsiusb.usb.backend import Code, UsbError
from scsiusb.usb.libusb import backend as module
from scsiusb.usb.libusb import library
from scsiusb.usb.libusb.backend import LibusbBackend
from scsiusb.usb.libusb.transfer import Transfers
from scsiusb.usb.system import linux
from tests.deadlines import within
from tests.sticks import PATIENCE, Worker, frequent_thread_switches, run_all, wait_until
from tests.usb.libusb.fake_libusb import CONTEXT, DEVICE, HANDLE, FakeBackend, FakeDevice, FakeLibusb

IN = 0x81


@pytest.fixture
def lib() -> FakeLibusb:
    return FakeLibusb()


@pytest.fixture
def transfers(lib: FakeLibusb) -> Transfers:
    return Transfers(lib, ctypes.c_void_p(CONTEXT), ctypes.c_void_p(HANDLE))


def read(transfers: Transfers) -> tuple[Code, int]:
    return transfers.bulk(IN, memoryview(bytearray(512)), within(1000))


# --- transfers ------------------------------------------------------------------------------------


def test_an_interrupt_ends_the_transfer_in_progress_and_refuses_later_ones_until_it_is_lifted(
    lib: FakeLibusb, transfers: Transfers
) -> None:
    lib.outcome = lambda transfer: None
    worker = Worker(lambda: read(transfers))
    wait_until(lambda: lib.in_flight)
    transfers.interrupt(True)
    assert worker.result() == (Code.INTERRUPTED, 0)
    assert read(transfers) == (Code.INTERRUPTED, 0)
    assert len(lib.of("submit_transfer")) == 1
    lib.outcome = lambda transfer: (0, 3)
    transfers.interrupt(False)
    assert read(transfers) == (Code.OK, 3)
    assert len(lib.allocated) == 1


def test_an_interrupt_ends_every_transfer_in_progress(lib: FakeLibusb, transfers: Transfers) -> None:
    lib.outcome = lambda transfer: None
    workers = [Worker(lambda: read(transfers)) for _ in range(4)]
    wait_until(lambda: len(lib.in_flight) == 4)
    transfers.interrupt(True)
    assert [worker.result() for worker in workers] == [(Code.INTERRUPTED, 0)] * 4


def test_an_interrupt_just_before_the_submission_is_not_missed(lib: FakeLibusb, transfers: Transfers) -> None:
    def submit(pointer: object) -> int:
        transfers.interrupt(True)
        return int(take(pointer))

    take = lib.libusb_submit_transfer.action
    lib.outcome = lambda transfer: None
    lib.libusb_submit_transfer.action = submit
    assert read(transfers) == (Code.INTERRUPTED, 0)


def test_an_interrupt_without_transfers_or_after_their_end_does_nothing(lib: FakeLibusb, transfers: Transfers) -> None:
    transfers.interrupt(True)
    transfers.interrupt(False)
    assert read(transfers) == (Code.OK, 512)
    transfers.close()
    transfers.interrupt(True)
    assert "cancel_transfer" not in lib.names()


def test_interrupts_at_any_moment_lose_no_transfer_and_each_is_freed_once(
    lib: FakeLibusb, transfers: Transfers
) -> None:
    def work() -> None:
        for _ in range(50):
            codes.add(read(transfers)[0])

    def interrupt() -> None:
        for _ in range(50):
            transfers.interrupt(True)
            transfers.interrupt(False)

    codes: set[Code] = set()
    with frequent_thread_switches():
        run_all(work, work, interrupt)
    assert codes <= {Code.OK, Code.INTERRUPTED}
    assert lib.in_flight == {}
    transfers.close()
    assert sorted(lib.freed) == sorted(lib.allocated)


# --- in a forked child ----------------------------------------------------------------------------


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    fake = FakeBackend(FakeDevice(1, 7, (4,)))
    monkeypatch.setattr(library, "load", lambda: fake)
    monkeypatch.setattr(module, "ON_LINUX", False)
    return fake


def test_a_handle_interrupts_its_transfers(fake: FakeBackend) -> None:
    handle = LibusbBackend().open(DEVICE)
    buffer = handle.allocate(512)
    handle.interrupt(True)
    assert handle.bulk(IN, buffer, within(100)) == (Code.INTERRUPTED, 0)
    handle.interrupt(False)
    assert handle.bulk(IN, buffer, within(100)) == (Code.OK, 512)


def test_a_handle_that_is_dropped_is_closed(fake: FakeBackend) -> None:
    handle = LibusbBackend().open(DEVICE)
    fake.lib.calls.clear()
    del handle
    assert [call[0] for call in fake.lib.calls] == ["close", "exit"]


def test_a_handle_that_is_dropped_in_a_forked_child_does_not_call_libusb(
    fake: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = LibusbBackend().open(DEVICE)
    fake.lib.calls.clear()
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: 0)
        del handle
    assert fake.lib.calls == []


def test_on_linux_a_forked_child_closes_its_copy_of_the_node(
    fake: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[object] = []
    monkeypatch.setattr(module, "ON_LINUX", True)
    monkeypatch.setattr(linux, "close_node", closed.append)
    LibusbBackend().after_fork(DEVICE)
    assert closed == [DEVICE]


def test_a_child_may_not_use_the_library_that_its_parent_used(fake: FakeBackend) -> None:
    if sys.platform == "win32":
        pytest.skip("there is no fork")
    LibusbBackend()
    child = os.fork()
    if not child:
        try:
            assert fake.ctx is None, "pyusb would free it"
            LibusbBackend()
        except UsbError as error:
            os._exit(7 if error.code is Code.NOT_SUPPORTED and "before it forked this one" in error.detail else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert len(LibusbBackend().devices()) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="procfs is Linux's")
def test_close_node_closes_only_the_descriptors_of_the_devices_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, other = tmp_path / "node", tmp_path / "other"
    monkeypatch.setattr(linux, "node", lambda device: str(node))
    descriptors = [os.open(path, os.O_RDWR | os.O_CREAT) for path in (node, other, node)]
    linux.close_node(DEVICE)
    for descriptor in (descriptors[0], descriptors[2]):
        with pytest.raises(OSError):
            os.fstat(descriptor)
    os.close(descriptors[1])


# --- a device that was just plugged in ------------------------------------------------------------


class Kernel:
    """A kernel that binds a driver after it was asked for `after` times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, connected: str | None, after: int) -> None:
        self.asked = 0
        self.slept = 0.0
        self._after = after
        monkeypatch.setattr(linux, "driver", self._driver)
        monkeypatch.setattr(linux, "read_text", lambda path: connected)
        monkeypatch.setattr("scsiusb.usb.system.linux.time.sleep", self._sleep)
        monkeypatch.setattr("scsiusb.usb.system.linux.time.monotonic", lambda: self.slept)

    def _driver(self, device: object, interface: int) -> str | None:
        self.asked += 1
        return "usb-storage" if self.asked > self._after else None

    def _sleep(self, seconds: float) -> None:
        self.slept += seconds


@pytest.mark.parametrize(
    ("connected", "after", "is_awaited"),
    [("100", 3, True), ("100", 0, False), ("2999", 3, True), ("3000", 3, False), (None, 3, False)],
    ids=["just plugged in", "already bound", "less than 3 s ago", "3 s ago", "not known"],
)
def test_a_driver_is_waited_for_if_the_device_was_just_plugged_in(
    monkeypatch: pytest.MonkeyPatch, connected: str | None, after: int, is_awaited: bool
) -> None:
    kernel = Kernel(monkeypatch, connected, after)
    linux.await_driver(DEVICE, 0)
    assert (kernel.slept > 0) == is_awaited
    assert not is_awaited or kernel.asked == after + 1


def test_the_wait_for_a_driver_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch, "100", 10**9)
    linux.await_driver(DEVICE, 0)
    assert linux.DRIVER_TIMEOUT <= kernel.slept < 2 * linux.DRIVER_TIMEOUT


def test_a_transfer_that_ends_does_not_wait_for_an_interrupt(lib: FakeLibusb, transfers: Transfers) -> None:
    """`interrupt` holds a lock while it cancels; a thread whose transfer ends must not need that lock."""
    reached, go_on = threading.Event(), threading.Event()

    def cancel(address: int) -> int:
        reached.set()
        assert go_on.wait(PATIENCE)
        return int(take(address))

    take = lib.libusb_cancel_transfer.action
    lib.libusb_cancel_transfer.action = cancel
    lib.outcome = lambda transfer: None
    worker = Worker(lambda: read(transfers))
    wait_until(lambda: lib.in_flight)
    interrupter = Worker(lambda: transfers.interrupt(True))
    assert reached.wait(PATIENCE)
    lib.outcome = lambda transfer: (0, 512)
    assert worker.result() == (Code.OK, 512)
    go_on.set()
    interrupter.result()
