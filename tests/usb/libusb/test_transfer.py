"""Bulk transfers over libusb's asynchronous interface report the true count and survive Ctrl-C."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from scsiusb.usb.backend import Code, UsbError
from scsiusb.usb.libusb import transfer as transfer_module
from scsiusb.usb.libusb.transfer import LibusbTransfer, Timeval, Transfers, declare
from tests.deadlines import within
from tests.usb.libusb.fake_libusb import (
    CANCELLED,
    COMPLETED,
    CONTEXT,
    ERROR,
    HANDLE,
    NO_DEVICE,
    OVERFLOW,
    STALL,
    TIMED_OUT,
    Ending,
    FakeLibusb,
)

IN, OUT = 0x81, 0x02


class Bytes(bytearray):
    """A bytearray with weak references, to notice that it is freed."""


def interrupt() -> None:
    raise KeyboardInterrupt


def make(lib: FakeLibusb) -> Transfers:
    return Transfers(lib, ctypes.c_void_p(CONTEXT), ctypes.c_void_p(HANDLE))


@pytest.fixture
def lib() -> FakeLibusb:
    return FakeLibusb()


@pytest.fixture
def transfers(lib: FakeLibusb) -> Transfers:
    return make(lib)


@pytest.fixture
def give_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Abandon a transfer at once if it does not end when it is cancelled."""
    monkeypatch.setattr(transfer_module, "ABANDON_SECONDS", 0.0)


def read(transfers: Transfers, length: int = 512, timeout_ms: int = 1000) -> tuple[Code, int, bytes]:
    buffer = bytearray(length)
    code, count = transfers.bulk(IN, memoryview(buffer), within(timeout_ms))
    return code, count, bytes(buffer[:count])


def always(*ending: object) -> Callable[[LibusbTransfer], Ending]:
    return lambda transfer: ending  # type: ignore[return-value]


# --- results --------------------------------------------------------------------------------------


def test_a_read_fills_the_callers_buffer(lib: FakeLibusb, transfers: Transfers) -> None:
    lib.outcome = always(COMPLETED, b"hello")
    assert read(transfers) == (Code.OK, 5, b"hello")


def test_a_write_sends_the_callers_buffer(lib: FakeLibusb, transfers: Transfers) -> None:
    sent: list[bytes] = []

    def device(transfer: LibusbTransfer) -> Ending:
        sent.append(ctypes.string_at(transfer.buffer, transfer.length))
        return COMPLETED, transfer.length

    lib.outcome = device
    whole = memoryview(bytearray(b"0123456789"))
    assert transfers.bulk(OUT, whole[2:6], within(1000)) == (Code.OK, 4)
    assert sent == [b"2345"]


def test_a_transfer_has_the_handle_the_endpoint_the_type_and_no_timeout(lib: FakeLibusb, transfers: Transfers) -> None:
    seen: list[tuple[int, ...]] = []

    def device(transfer: LibusbTransfer) -> Ending:
        seen.append((transfer.dev_handle, transfer.endpoint, transfer.type, transfer.timeout, transfer.length))
        return COMPLETED, 0

    lib.outcome = device
    read(transfers, 31, 1234)
    assert seen == [(HANDLE, IN, 2, 0, 31)]
    assert lib.of("handle_events_timeout_completed")[0][0] == CONTEXT


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (STALL, Code.PIPE),
        (TIMED_OUT, Code.TIMEOUT),
        (OVERFLOW, Code.OVERFLOW),
        (ERROR, Code.IO),
        (CANCELLED, Code.INTERRUPTED),
        (NO_DEVICE, Code.NO_DEVICE),
    ],
)
def test_the_count_is_true_whatever_the_status_is(
    lib: FakeLibusb, transfers: Transfers, status: int, code: Code
) -> None:
    lib.outcome = always(status, b"some")
    assert read(transfers) == (code, 4, b"some")
    lib.outcome = always(status, b"")
    assert read(transfers) == (code, 0, b"")


@pytest.mark.parametrize(
    ("returned", "code"), [(-4, Code.NO_DEVICE), (-5, Code.NOT_FOUND), (-11, Code.NO_MEM), (-42, Code.OTHER)]
)
def test_a_transfer_that_cannot_be_submitted_moves_nothing_and_can_be_used_again(
    lib: FakeLibusb, transfers: Transfers, returned: int, code: Code
) -> None:
    lib.libusb_submit_transfer.results = [returned]
    assert read(transfers) == (code, 0, b"")
    assert read(transfers)[0] is Code.OK
    assert lib.names().count("alloc_transfer") == 1


def test_events_are_handled_until_the_transfer_has_ended(lib: FakeLibusb, transfers: Transfers) -> None:
    lib.events = [lambda: None, lambda: None]
    assert read(transfers)[0] is Code.OK
    assert lib.names().count("handle_events_timeout_completed") == 3


def test_libusb_gets_the_address_of_actual_length_and_a_slice_of_time(lib: FakeLibusb, transfers: Transfers) -> None:
    seen: list[tuple[int, int, int]] = []

    def handle(context: object, slice_: ctypes.c_void_p, done: ctypes.c_void_p) -> int:
        assert slice_.value
        assert done.value
        there, count = Timeval.from_address(slice_.value), ctypes.c_int.from_address(done.value)
        seen.append((there.tv_sec, there.tv_usec, count.value))
        lib.handle_events()
        seen.append((0, 0, bool(count.value)))
        return 0

    lib.libusb_handle_events_timeout_completed.action = handle
    read(transfers)
    assert seen == [(0, 100_000, 0), (0, 0, True)]


def test_after_a_failed_allocation_the_next_transfer_works(lib: FakeLibusb, transfers: Transfers) -> None:
    lib.libusb_alloc_transfer.results = [None]
    with pytest.raises(MemoryError):
        read(transfers)
    assert read(transfers)[0] is Code.OK


@pytest.mark.parametrize("wrong", [b"read-only", bytearray(0)])
def test_a_buffer_that_cannot_be_written_to_is_refused_and_leaks_no_transfer(
    lib: FakeLibusb, transfers: Transfers, wrong: bytes | bytearray
) -> None:
    read(transfers)
    with pytest.raises((TypeError, ValueError)):
        transfers.bulk(IN, memoryview(wrong), within(1000))
    read(transfers)
    assert lib.names().count("alloc_transfer") == 1


# --- the life of a transfer and its buffer --------------------------------------------------------


def test_a_transfer_is_reused_and_freed_once(lib: FakeLibusb, transfers: Transfers) -> None:
    for _ in range(5):
        read(transfers)
    assert lib.names().count("alloc_transfer") == 1
    transfers.close()
    transfers.close()
    assert lib.names().count("free_transfer") == 1
    assert lib.freed == list(lib.allocated)


def test_the_buffer_is_exported_only_while_the_kernel_has_it(lib: FakeLibusb, transfers: Transfers) -> None:
    buffer = bytearray(512)

    def resize() -> None:
        with pytest.raises(BufferError):
            buffer.append(0)

    view = memoryview(buffer)
    lib.events = [view.release, resize]
    transfers.bulk(IN, view, within(1000))
    assert lib.events == []
    buffer.append(0)


def test_each_thread_has_its_own_transfer(lib: FakeLibusb, transfers: Transfers) -> None:
    """A thread may handle the event of another's transfer; each still gets its own bytes."""

    def device(transfer: LibusbTransfer) -> Ending:
        return COMPLETED, bytes([transfer.length & 0xFF]) * (transfer.length & 0x3F)

    def work(number: int) -> None:
        for turn in range(100):
            length = number + 1 << 6 | turn & 0x3F
            wrong.append(read(transfers, length) != (Code.OK, turn & 0x3F, bytes([length & 0xFF]) * (turn & 0x3F)))

    wrong: list[bool] = []
    lib.outcome = device
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(wrong) == 400
    assert not any(wrong)
    assert lib.names().count("alloc_transfer") <= 4
    transfers.close()
    assert sorted(lib.freed) == sorted(lib.allocated)


def test_a_transfer_that_another_thread_takes_first_is_replaced(
    lib: FakeLibusb, transfers: Transfers, monkeypatch: pytest.MonkeyPatch
) -> None:
    class TakenMeanwhile(list[object]):
        def __bool__(self) -> bool:
            return True

        def __len__(self) -> int:
            return 1

    monkeypatch.setattr(transfers, "_idle", {IN: TakenMeanwhile()})
    assert read(transfers)[0] is Code.OK


# --- interrupted ----------------------------------------------------------------------------------


def test_ctrl_c_cancels_the_transfer_and_waits_until_it_has_ended(lib: FakeLibusb, transfers: Transfers) -> None:
    lib.outcome = lambda transfer: None
    lib.events = [interrupt, lambda: None]
    with pytest.raises(KeyboardInterrupt):
        read(transfers)
    assert lib.in_flight == {}
    assert lib.names()[-4:] == [
        "handle_events_timeout_completed",
        "cancel_transfer",
        "handle_events_timeout_completed",
        "handle_events_timeout_completed",
    ]
    lib.outcome = always(COMPLETED, b"next")
    assert read(transfers) == (Code.OK, 4, b"next")
    assert lib.names().count("alloc_transfer") == 1


def test_ctrl_c_just_after_the_submission_cancels_the_transfer_too(lib: FakeLibusb, transfers: Transfers) -> None:
    def submit(pointer: object) -> int:
        lib.libusb_submit_transfer.action = take
        lib.outcome = lambda transfer: None
        take(pointer)
        raise KeyboardInterrupt

    take = lib.libusb_submit_transfer.action
    lib.libusb_submit_transfer.action = submit
    with pytest.raises(KeyboardInterrupt):
        read(transfers)
    assert lib.in_flight == {}
    lib.outcome = always(COMPLETED, b"next")
    assert read(transfers) == (Code.OK, 4, b"next")


def test_a_cancelled_transfer_is_not_abandoned_because_others_have_events(
    lib: FakeLibusb, transfers: Transfers
) -> None:
    """libusb returns early for an event of any transfer."""
    lib.outcome = lambda transfer: None
    lib.events = [interrupt, *[lambda: None] * 300]
    with pytest.raises(KeyboardInterrupt):
        read(transfers)
    assert lib.in_flight == {}
    lib.outcome = always(COMPLETED, b"next")
    read(transfers)
    assert lib.names().count("alloc_transfer") == 1


def test_a_transfer_that_libusb_is_already_cancelling_is_waited_for(lib: FakeLibusb, transfers: Transfers) -> None:
    """libusb returns NOT_FOUND for a second cancel, although the kernel still has the buffer."""

    def timeout() -> None:
        (address,) = lib.in_flight
        lib.cancelling.add(address)
        raise KeyboardInterrupt

    lib.events = [timeout]
    with pytest.raises(KeyboardInterrupt):
        read(transfers)
    assert lib.in_flight == {}
    assert read(transfers)[0] is Code.OK
    assert lib.names().count("alloc_transfer") == 1


def test_a_transfer_that_ended_before_it_could_be_cancelled_is_used_again(
    lib: FakeLibusb, transfers: Transfers
) -> None:
    def end_and_interrupt() -> None:
        lib.handle_events()
        raise KeyboardInterrupt

    lib.events = [end_and_interrupt]
    with pytest.raises(KeyboardInterrupt):
        read(transfers)
    assert read(transfers)[0] is Code.OK
    assert lib.names().count("alloc_transfer") == 1


@pytest.mark.usefixtures("give_up_at_once")
def test_a_transfer_that_never_ends_is_not_reused_and_its_buffer_is_not_freed(
    lib: FakeLibusb, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaked: list[object] = []
    monkeypatch.setattr(transfer_module, "LEAKED", leaked)
    transfers = make(lib)
    lib.outcome = lambda transfer: None
    lib.ignores_cancel = True
    lib.events = [interrupt]
    buffer = Bytes(512)
    watch = weakref.ref(buffer)
    with pytest.raises(KeyboardInterrupt):
        transfers.bulk(IN, memoryview(buffer), within(1000))
    with pytest.raises(BufferError):
        buffer.append(0)
    (address,) = lib.in_flight
    lib.outcome = always(COMPLETED, b"next")
    assert read(transfers) == (Code.OK, 4, b"next")
    assert list(lib.in_flight) == [address]
    transfers.close()
    assert address not in lib.freed
    assert len(lib.freed) == 1
    del transfers, buffer
    gc.collect()
    assert watch() is not None, "the kernel may still write to it"
    lib.end(address, (COMPLETED, b"late"))
    assert bytes(watch() or b"") == b"late" + bytes(508)
    leaked.clear()


@pytest.mark.usefixtures("give_up_at_once")
def test_an_abandoned_transfer_that_ends_late_is_freed_at_close(lib: FakeLibusb, transfers: Transfers) -> None:
    lib.outcome = lambda transfer: None
    lib.ignores_cancel = True
    lib.events = [interrupt]
    buffer = bytearray(512)
    with pytest.raises(KeyboardInterrupt):
        transfers.bulk(IN, memoryview(buffer), within(1000))
    (address,) = lib.in_flight
    lib.end(address, (COMPLETED, b""))
    transfers.close()
    transfers.close()
    assert lib.freed == [address]
    buffer.append(0)


def test_a_second_ctrl_c_while_the_first_is_waiting_abandons_the_transfer(
    lib: FakeLibusb, transfers: Transfers
) -> None:
    lib.outcome = lambda transfer: None
    lib.events = [interrupt, interrupt]
    with pytest.raises(KeyboardInterrupt):
        read(transfers)
    assert len(lib.in_flight) == 1
    lib.cancelling.clear()
    lib.outcome = always(COMPLETED, b"next")
    assert read(transfers) == (Code.OK, 4, b"next")
    assert lib.names().count("alloc_transfer") == 2
    transfers.close()


# --- timeouts -------------------------------------------------------------------------------------


def busy(seconds: float) -> None:
    """Wait as libusb does until the slice of time is over."""
    time.sleep(seconds)


@pytest.mark.parametrize("timeout_ms", [1, 30, 120])
def test_a_transfer_that_does_not_end_in_time_is_cancelled_and_its_count_is_true(
    lib: FakeLibusb, transfers: Transfers, timeout_ms: int
) -> None:
    def cancel(address: int) -> int:
        lib.end(address, (CANCELLED, b"part"))
        return 0

    lib.outcome = lambda transfer: None
    lib.libusb_cancel_transfer.action = cancel
    began = time.monotonic()
    assert read(transfers, timeout_ms=timeout_ms) == (Code.TIMEOUT, 4, b"part")
    assert time.monotonic() - began >= timeout_ms / 1000
    assert lib.names().count("cancel_transfer") == 1
    lib.outcome = always(COMPLETED, b"next")
    assert read(transfers) == (Code.OK, 4, b"next")
    assert lib.names().count("alloc_transfer") == 1


def test_data_that_arrives_before_the_cancellation_is_not_lost(lib: FakeLibusb, transfers: Transfers) -> None:
    def cancel(address: int) -> int:
        lib.end(address, (COMPLETED, b"all"))
        return Code.NOT_FOUND

    lib.outcome = lambda transfer: None
    lib.libusb_cancel_transfer.action = cancel
    assert read(transfers, timeout_ms=1) == (Code.OK, 3, b"all")


def test_a_slow_transfer_within_its_timeout_is_not_cancelled(lib: FakeLibusb, transfers: Transfers) -> None:
    lib.events = [lambda: busy(0.01)] * 5
    assert read(transfers, timeout_ms=60_000)[0] is Code.OK
    assert "cancel_transfer" not in lib.names()


@pytest.mark.usefixtures("give_up_at_once")
def test_a_transfer_that_cannot_be_cancelled_is_abandoned_with_its_buffer(
    lib: FakeLibusb, transfers: Transfers, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaked: list[object] = []
    monkeypatch.setattr(transfer_module, "LEAKED", leaked)
    lib.outcome = lambda transfer: None
    lib.ignores_cancel = True
    buffer = bytearray(512)
    assert transfers.bulk(IN, memoryview(buffer), within(1)) == (Code.TIMEOUT, 0)
    with pytest.raises(BufferError):
        buffer.append(0)
    lib.outcome = always(COMPLETED, b"next")
    assert read(transfers) == (Code.OK, 4, b"next")
    assert lib.names().count("alloc_transfer") == 2
    transfers.close()
    assert len(leaked) == 1


def test_handle_events_waits_a_millisecond_for_the_given_transfer_only(lib: FakeLibusb, transfers: Transfers) -> None:
    held: list[Any] = []
    transfers.submit(IN, memoryview(bytearray(4)), held)
    transfers.handle_events(held)
    _, slice_, completed = lib.of("handle_events_timeout_completed")[-1]
    waited = Timeval.from_address(slice_)
    assert (waited.tv_sec, waited.tv_usec) == (0, 1000)
    assert completed == held[0].address + LibusbTransfer.actual_length.offset
    transfers.handle_events()
    _, slice_, completed = lib.of("handle_events_timeout_completed")[-1]
    assert (Timeval.from_address(slice_).tv_usec, completed) == (0, None)


# --- prototypes -----------------------------------------------------------------------------------


def test_the_structure_has_the_offsets_of_pyusbs() -> None:
    """pyusb's structure is proven by use, and its pointers are passed to libusb."""
    import usb.backend.libusb1 as pyusb

    theirs = {name: getattr(pyusb._libusb_transfer, name).offset for name, *_ in pyusb._libusb_transfer._fields_}
    ours = {name: getattr(LibusbTransfer, name).offset for name, _ in LibusbTransfer._fields_}
    assert ours == {name: theirs[name] for name in ours}


def test_pointers_are_declared_with_their_full_width(lib: FakeLibusb) -> None:
    declare(lib)
    assert lib.libusb_dev_mem_alloc.restype is ctypes.c_void_p
    assert lib.libusb_dev_mem_alloc.argtypes == [ctypes.c_void_p, ctypes.c_size_t]
    assert lib.libusb_dev_mem_free.argtypes == [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    assert lib.libusb_cancel_transfer.argtypes == [ctypes.c_void_p]
    assert lib.libusb_handle_events_timeout_completed.argtypes == [ctypes.c_void_p] * 3


# --- asynchronous transfers -----------------------------------------------------------------------


def test_fileno_is_the_descriptor_that_is_polled_for_writing(lib: FakeLibusb) -> None:
    assert make(lib).fileno() == 8
    assert lib.names().count("free_pollfds") == 1


@pytest.mark.parametrize("descriptors", [None, [], [(7, 1)]])
def test_fileno_is_minus_one_if_no_descriptor_is_polled_for_writing(
    lib: FakeLibusb, descriptors: list[tuple[int, int]] | None
) -> None:
    lib.poll_descriptors = descriptors
    assert make(lib).fileno() == -1


def test_an_asynchronous_transfer_is_submitted_and_its_outcome_is_read(lib: FakeLibusb, transfers: Transfers) -> None:
    buffer = bytearray(4)
    lib.outcome = always(COMPLETED, b"abcd")
    held: list[Any] = []
    transfers.submit(IN, memoryview(buffer), held)
    (transfer,) = held
    with pytest.raises(BufferError):
        buffer.append(0)
    assert transfers.outcome(held) is None
    assert held == [transfer]
    transfers.handle_events()
    assert transfers.outcome(held) == (Code.OK, 4)
    assert held == []
    assert buffer == b"abcd"
    buffer.append(0)
    transfers.submit(IN, memoryview(buffer), held)
    assert held == [transfer]


def test_two_asynchronous_transfers_may_be_in_progress(lib: FakeLibusb, transfers: Transfers) -> None:
    buffers = [bytearray(2), bytearray(3)]
    begun: list[list[Any]] = [[], []]
    for buffer, held in zip(buffers, begun, strict=True):
        transfers.submit(IN, memoryview(buffer), held)
    transfers.handle_events()
    assert [transfers.outcome(each) for each in begun] == [(Code.OK, 2), (Code.OK, 3)]


def test_a_refused_submission_raises_its_code(lib: FakeLibusb, transfers: Transfers) -> None:
    lib.libusb_submit_transfer.results = [Code.NO_MEM]
    held: list[Any] = []
    with pytest.raises(UsbError) as caught:
        transfers.submit(IN, memoryview(bytearray(4)), held)
    assert held == []
    assert caught.value.code is Code.NO_MEM
    assert read(transfers)[0] is Code.OK


def test_an_interrupt_ends_an_asynchronous_transfer_and_refuses_new_ones(lib: FakeLibusb, transfers: Transfers) -> None:
    lib.outcome = lambda transfer: None
    held: list[Any] = []
    transfers.submit(IN, memoryview(bytearray(4)), held)
    transfers.interrupt(True)
    transfers.handle_events()
    assert transfers.outcome(held) == (Code.INTERRUPTED, 0)
    with pytest.raises(UsbError) as caught:
        transfers.submit(IN, memoryview(bytearray(4)), held)
    assert caught.value.code is Code.INTERRUPTED


def test_cancel_ends_a_transfer_with_a_timeout(lib: FakeLibusb, transfers: Transfers) -> None:
    lib.outcome = lambda transfer: None
    held: list[Any] = []
    transfers.submit(IN, memoryview(bytearray(4)), held)
    assert transfers.cancel(held) == (Code.TIMEOUT, 0)
    assert held == []
    assert lib.in_flight == {}


def test_cancel_returns_the_result_of_a_transfer_that_had_ended(lib: FakeLibusb, transfers: Transfers) -> None:
    held: list[Any] = []
    transfers.submit(IN, memoryview(bytearray(4)), held)
    transfers.handle_events()
    assert transfers.cancel(held) == (Code.OK, 4)


def test_close_ends_a_transfer_that_is_still_in_progress(lib: FakeLibusb, transfers: Transfers) -> None:
    lib.outcome = lambda transfer: None
    transfers.submit(IN, memoryview(bytearray(4)), [])
    assert transfers.close()
    assert lib.in_flight == {}
    assert len(lib.freed) == len(lib.allocated)


def test_close_reports_a_transfer_that_never_ends(
    lib: FakeLibusb, transfers: Transfers, give_up_at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer_module, "LEAKED", leaked := list[object]())
    lib.outcome = lambda transfer: None
    lib.ignores_cancel = True
    transfers.submit(IN, memoryview(bytearray(4)), [])
    assert not transfers.close()
    assert len(leaked) == 1
