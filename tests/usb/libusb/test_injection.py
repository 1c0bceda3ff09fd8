"""Ctrl-C at any bytecode of a transfer leaks nothing; a buffer that the kernel keeps is not used again."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from scsiusb.usb.backend import ABANDONED, Code
from scsiusb.usb.buffers import Buffers
from scsiusb.usb.libusb import transfer as module
from scsiusb.usb.libusb.transfer import LibusbTransfer, Transfers
from tests.deadlines import within
from tests.interrupts import CtrlC, of_module
from tests.usb.libusb.fake_libusb import COMPLETED, CONTEXT, HANDLE, Ending, FakeLibusb


@pytest.fixture(autouse=True)
def no_other_tests_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = ABANDONED.copy()
    ABANDONED.clear()
    monkeypatch.setattr(module, "LEAKED", [])
    yield
    ABANDONED.clear()
    ABANDONED.update(before)


def blocking(transfers: Transfers, buffer: memoryview) -> None:
    transfers.bulk(0x81, buffer, within(1000))


def polled(transfers: Transfers, buffer: memoryview) -> None:
    held: list[Any] = []
    try:
        transfers.submit(0x81, buffer, held)
        transfers.handle_events(held)
        transfers.outcome(held)
    finally:
        if held:
            transfers.cancel(held)


def cancelling(transfers: Transfers, buffer: memoryview) -> None:
    held: list[Any] = []
    try:
        transfers.submit(0x81, buffer, held)
        transfers.cancel(held)
    finally:
        if held:
            transfers.cancel(held)


def refused(transfers: Transfers, buffer: memoryview) -> None:
    transfers._lib.libusb_submit_transfer.results = [Code.NO_MEM]
    assert transfers.bulk(0x81, buffer, within(1000)) == (Code.NO_MEM, 0)


def closing(transfers: Transfers, buffer: memoryview) -> None:
    transfers.bulk(0x02, buffer, within(1000))
    transfers.close()


def interrupted_at(number: int, action: Callable[[], object]) -> bool:
    """Raise KeyboardInterrupt at a bytecode of the module that the action runs; False if there are not so many."""
    ctrl_c = CtrlC(of_module(module), number)
    ctrl_c.run(action)
    return ctrl_c.at >= 0


@pytest.mark.slow
@pytest.mark.parametrize("use", [blocking, polled, cancelling, refused, closing])
@pytest.mark.parametrize("is_first", [False, True])
def test_ctrl_c_at_any_bytecode_of_a_transfer_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, use: Callable[[Transfers, memoryview], None], is_first: bool
) -> None:
    monkeypatch.setattr(module, "NOT_SUBMITTED_SECONDS", 0.001)
    number, goes_on = 1, True
    while goes_on:
        lib = FakeLibusb()
        transfers = Transfers(lib, ctypes.c_void_p(CONTEXT), ctypes.c_void_p(HANDLE))
        buffer = memoryview(bytearray(512))
        if not is_first:
            transfers.bulk(0x81, buffer, within(1000))
        goes_on = interrupted_at(number, partial(use, transfers, buffer))
        assert not lib.in_flight, f"the kernel may still write to the buffer after bytecode {number}"
        for idle in transfers._idle.values():
            assert len(set(idle)) == len(idle), f"a transfer is idle twice after bytecode {number}"
        assert transfers.close(), f"a transfer was taken for one in flight after bytecode {number}"
        assert sorted(lib.freed) == sorted(lib.allocated), f"a transfer was not freed after bytecode {number}"
        number += 1
    assert number > 50
    assert not ABANDONED


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> tuple[FakeLibusb, Transfers, Buffers, int]:
    """A transfer that the kernel keeps, its address, and the buffers of its device."""
    monkeypatch.setattr(module, "ABANDON_SECONDS", 0.01)
    lib = FakeLibusb()
    transfers = Transfers(lib, ctypes.c_void_p(CONTEXT), ctypes.c_void_p(HANDLE))
    buffers = Buffers(lambda size: memoryview(bytearray(size)), "test")
    lib.ignores_cancel, lib.outcome = True, lambda transfer: None
    with buffers.lend(65536) as buffer:
        assert transfers.bulk(0x81, buffer, within(1)) == (Code.TIMEOUT, 0)
    lib.ignores_cancel = False
    (address,) = lib.in_flight
    return lib, transfers, buffers, address


def test_the_buffer_of_an_abandoned_transfer_is_not_lent_again(
    stuck: tuple[FakeLibusb, Transfers, Buffers, int],
) -> None:
    lib, transfers, buffers, old = stuck

    def outcome(transfer: LibusbTransfer) -> Ending | None:
        return None if ctypes.addressof(transfer) == old else (COMPLETED, b"B" * transfer.length)

    lib.outcome = outcome
    with buffers.lend(65536) as buffer:
        assert transfers.bulk(0x81, buffer, within(1000)) == (Code.OK, 65536)
        lib.end(old, (COMPLETED, b"A" * 32768))  # the kernel gives the old one back at last
        assert bytes(buffer) == b"B" * 65536
    buffers.drain(lambda view: None)


def test_memory_that_came_back_before_the_close_may_be_used_by_another_object(
    stuck: tuple[FakeLibusb, Transfers, Buffers, int],
) -> None:
    lib, transfers, buffers, old = stuck
    assert len(ABANDONED) == 1
    lib.end(old, (COMPLETED, b"A"))
    assert transfers.close()
    assert not ABANDONED
    buffers.drain(lambda view: None)


def test_memory_that_the_kernel_keeps_for_ever_stays_marked(stuck: tuple[FakeLibusb, Transfers, Buffers, int]) -> None:
    _, transfers, buffers, _ = stuck
    assert not transfers.close()
    assert len(module.LEAKED) == 1
    assert len(ABANDONED) == 1
    buffers.drain(lambda view: None)
