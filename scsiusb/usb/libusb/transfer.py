"""Bulk transfers by libusb's asynchronous interface: the true count always, and Ctrl-C at once."""

from __future__ import annotations

import ctypes
import itertools
import math
import struct
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

from scsiusb.usb.backend import Code, Step, UsbError

BULK_TRANSFER: Final = 2  # LIBUSB_TRANSFER_TYPE_BULK
PENDING: Final = -1  # no libusb_transfer_status: stands there until libusb writes one
TIMED_OUT: Final = 2  # LIBUSB_TRANSFER_TIMED_OUT
CANCELLED: Final = 3  # LIBUSB_TRANSFER_CANCELLED
STATUS: Final = {  # by enum libusb_transfer_status
    PENDING: Code.TIMEOUT,  # the kernel did not even give it back
    0: Code.OK,
    1: Code.IO,
    TIMED_OUT: Code.TIMEOUT,
    CANCELLED: Code.INTERRUPTED,
    4: Code.PIPE,
    5: Code.NO_DEVICE,
    6: Code.OVERFLOW,
}
OK: Final = Code.OK
# How long libusb may keep this thread when another thread handles the events; a signal shortens it where it can.
SLICE_MS: Final = 100  # milliseconds
ABANDON_SECONDS: Final = 5.0
LEAKED: Final[list[object]] = []  # the kernel may still write to these: they live as long as the process

_at: Final = ctypes.c_char.from_buffer
_address: Final = ctypes.addressof


class LibusbTransfer(ctypes.Structure):
    """`struct libusb_transfer`."""

    _fields_ = (
        ("dev_handle", ctypes.c_void_p),
        ("flags", ctypes.c_uint8),
        ("endpoint", ctypes.c_ubyte),
        ("type", ctypes.c_ubyte),
        ("timeout", ctypes.c_uint),
        ("status", ctypes.c_int),
        ("length", ctypes.c_int),
        ("actual_length", ctypes.c_int),
        ("callback", ctypes.c_void_p),
        ("user_data", ctypes.c_void_p),
        ("buffer", ctypes.c_void_p),
        ("num_iso_packets", ctypes.c_int),
    )


# What a transfer is given and tells, each in one step: status, length and actual_length stand side by side.
STATE: Final = struct.Struct("@iii")
STATE_OFFSET: Final = LibusbTransfer.status.offset
BUFFER: Final = struct.Struct("@P")
BUFFER_OFFSET: Final = LibusbTransfer.buffer.offset

_set_state, _state = STATE.pack_into, STATE.unpack_from
_set_buffer = BUFFER.pack_into


class Timeval(ctypes.Structure):
    """`struct timeval`."""

    _fields_ = (("tv_sec", ctypes.c_long), ("tv_usec", ctypes.c_long))


class PollDescriptor(ctypes.Structure):
    """`struct libusb_pollfd`."""

    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short))


NO_TIME: Final = Timeval(0, 0)
MOMENT: Final = Timeval(0, 1000)
POLLOUT: Final = 4  # usbfs: a transfer has ended


def declare(lib: Any) -> None:
    """The prototypes that pyusb does not have."""
    lib.libusb_cancel_transfer.argtypes = [ctypes.c_void_p]
    lib.libusb_handle_events_timeout_completed.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    lib.libusb_get_pollfds.argtypes = [ctypes.c_void_p]
    lib.libusb_get_pollfds.restype = ctypes.POINTER(ctypes.POINTER(PollDescriptor))
    lib.libusb_free_pollfds.argtypes = [ctypes.c_void_p]
    lib.libusb_dev_mem_alloc.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    lib.libusb_dev_mem_alloc.restype = ctypes.c_void_p
    lib.libusb_dev_mem_free.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]


class _Transfer:
    """One libusb_transfer to one endpoint, used again and again.

    It has no callback, which would be Python's, and cost as much as the rest, nor a timeout, for which libusb asks
    the system for the time and sets a timer, twice each: its status tells that it has ended, and `Transfers` waits
    no longer than it should.
    """

    def __init__(self, lib: Any, handle: ctypes.c_void_p, endpoint: int) -> None:
        self.pointer = lib.libusb_alloc_transfer(0)
        if not self.pointer:
            raise MemoryError("libusb_alloc_transfer")
        self.address = ctypes.addressof(self.pointer.contents)
        self.place = ctypes.c_void_p(self.address)
        self.fields = fields = LibusbTransfer.from_address(self.address)
        fields.dev_handle = handle.value
        fields.type = BULK_TRANSFER
        fields.endpoint = endpoint
        self.memory = memoryview(fields).cast("B")
        self.anchor: Any = None  # keeps the buffer where it is, between `submit` and `outcome`
        # Where libusb looks, before it waits for another thread's news, whether they came already.
        self.completed = ctypes.c_void_p(self.address + LibusbTransfer.actual_length.offset)

    @property
    def is_pending(self) -> bool:
        """Was it begun, and has not ended?"""
        return bool(self.fields.status == PENDING)


def _node(lib: Any, context: ctypes.c_void_p) -> int:
    """The descriptor of the one device that is open in the context; -1 where it cannot be polled for writing."""
    found = lib.libusb_get_pollfds(context)
    if not found:
        return -1
    try:
        each = itertools.takewhile(bool, (found[number] for number in itertools.count()))
        return next((one.contents.fd for one in each if one.contents.events & POLLOUT), -1)
    finally:
        lib.libusb_free_pollfds(found)


class Transfers:
    """The bulk transfers of one device handle; any number of threads may have one under way."""

    def __init__(self, lib: Any, context: ctypes.c_void_p, handle: ctypes.c_void_p) -> None:
        self._lib = lib
        # Function objects of their own, without prototypes: what they are given needs no conversion.
        self._submit = lib["libusb_submit_transfer"]
        self._handle_events = lib["libusb_handle_events_timeout_completed"]
        self._context = context
        self._handle = ctypes.c_void_p(handle.value)
        self._whole_slice = Timeval(0, SLICE_MS * 1000)
        self._slice = ctypes.c_void_p(ctypes.addressof(self._whole_slice))
        self._no_time = ctypes.c_void_p(ctypes.addressof(NO_TIME))
        self._moment = ctypes.c_void_p(ctypes.addressof(MOMENT))
        self._node = _node(lib, context)
        self._idle: dict[int, list[_Transfer]] = {}
        self._abandoned: list[tuple[_Transfer, Any]] = []
        self._all: list[_Transfer] = []
        self._refusal: Code | None = None
        self._freeing = threading.RLock()

    def bulk(self, endpoint: int, buffer: memoryview, timeout_ms: int) -> tuple[Code, int]:
        """See `Handle.bulk`."""
        _, code, count = self.chain(((endpoint, buffer),), time.monotonic() + timeout_ms / 1000)
        return code, count

    def chain(self, steps: Sequence[Step], deadline: float) -> tuple[int, Code, int]:
        """See `Handle.chain`."""
        number = -1
        for endpoint, buffer in steps:
            number += 1
            if self._refusal is not None:
                return number, self._refusal, 0
            anchor = _at(buffer)
            transfer = self._prepare(endpoint, buffer, anchor)
            try:
                refused = self._submit(transfer.place)
                if refused:
                    return number, *self._refused(transfer, refused)
                if self._refusal is not None:  # it may have come too early to meet this transfer
                    self._lib.libusb_cancel_transfer(transfer.address)
                self._handle_events(self._context, self._slice, transfer.completed)
                status, length, count = _state(transfer.memory, STATE_OFFSET)
                if status == PENDING:
                    status, count = self._outlast(transfer, anchor, deadline)
            except BaseException:
                self._cancel(transfer, anchor)
                raise
            if status != PENDING:
                self._idle[endpoint].append(transfer)
            if status or count != length:
                return number, STATUS[status], count
        return number, OK, count

    def _prepare(self, endpoint: int, buffer: memoryview, anchor: Any) -> _Transfer:
        try:
            transfer = self._idle[endpoint].pop()
        except (KeyError, IndexError):  # asking first whether there is one would be a race with other threads
            transfer = self._add(endpoint)
        _set_buffer(transfer.memory, BUFFER_OFFSET, _address(anchor))
        _set_state(transfer.memory, STATE_OFFSET, PENDING, len(buffer), 0)
        return transfer

    # --- AsyncTransfers --------------------------------------------------------------------------------

    def fileno(self) -> int:
        """See `AsyncTransfers`. What libusb waits for so is usbfs's descriptor."""
        return self._node

    def submit(self, endpoint: int, buffer: memoryview) -> _Transfer:
        """See `AsyncTransfers`."""
        if self._refusal is not None:
            raise UsbError(self._refusal)
        anchor = _at(buffer)
        transfer = self._prepare(endpoint, buffer, anchor)
        transfer.anchor = anchor
        refused = self._submit(transfer.place)
        if refused:
            transfer.anchor = None
            raise UsbError(self._refused(transfer, refused)[0])
        if self._refusal is not None:
            self._lib.libusb_cancel_transfer(transfer.address)
        return transfer

    def handle_events(self, transfer: _Transfer | None = None) -> None:
        """See `AsyncTransfers`."""
        if transfer is None:
            self._handle_events(self._context, self._no_time, None)
        else:
            self._handle_events(self._context, self._moment, transfer.completed)

    def outcome(self, transfer: _Transfer) -> tuple[Code, int] | None:
        """See `AsyncTransfers`."""
        status, _, count = _state(transfer.memory, STATE_OFFSET)
        if status == PENDING:
            return None
        transfer.anchor = None
        self._idle[transfer.fields.endpoint].append(transfer)
        return STATUS[status], count

    def cancel(self, transfer: _Transfer) -> tuple[Code, int]:
        """See `AsyncTransfers`."""
        anchor, transfer.anchor = transfer.anchor, None
        status, count = self._outlast(transfer, anchor, time.monotonic())
        if status != PENDING:
            self._idle[transfer.fields.endpoint].append(transfer)
        return STATUS[status], count

    def _refused(self, transfer: _Transfer, code: int) -> tuple[Code, int]:
        """It was never begun, and is not pending."""
        transfer.fields.status = CANCELLED
        self._idle[transfer.fields.endpoint].append(transfer)
        return Code(code), 0

    def interrupt(self, on: bool) -> None:
        """See `Handle.interrupt`."""
        with self._freeing:
            if self._refusal is Code.NO_DEVICE:
                return
            self._refusal = Code.INTERRUPTED if on else None
            if on:
                for transfer in self._all.copy():
                    if transfer.is_pending:
                        self._lib.libusb_cancel_transfer(transfer.address)

    def close(self) -> bool:
        """Frees the transfers. One that the kernel never gave back is leaked, with its buffer: it may still write.

        Were there none?
        """
        with self._freeing:
            self._refusal = Code.NO_DEVICE
            given_up = {id(transfer) for transfer, _ in self._abandoned}
            for transfer in self._all:
                if (
                    transfer.is_pending and id(transfer) not in given_up
                ):  # of an `AsyncTransfers` that an exception ended
                    self._cancel(transfer, transfer.anchor)
            for transfers in self._idle.values():
                for transfer in transfers:
                    self._lib.libusb_free_transfer(transfer.pointer)
                transfers.clear()
            for transfer, anchor in self._abandoned:
                if not transfer.is_pending:
                    self._lib.libusb_free_transfer(transfer.pointer)
                else:
                    LEAKED.append((transfer, anchor))
            is_clean = not any(transfer.is_pending for transfer, _ in self._abandoned)
            self._abandoned.clear()
            return is_clean

    def _add(self, endpoint: int) -> _Transfer:
        self._idle.setdefault(endpoint, [])
        transfer = _Transfer(self._lib, self._handle, endpoint)
        self._all.append(transfer)
        return transfer

    def _outlast(self, transfer: _Transfer, anchor: object, deadline: float) -> tuple[int, int]:
        """Waits on until a transfer has ended, or cancels it: its status and count, PENDING where that was in vain.

        A deadline is kept to a slice of time, so that what comes at once needs no clock.
        """
        self._wait(transfer, deadline)
        is_late = transfer.is_pending
        if is_late:
            self._lib.libusb_cancel_transfer(transfer.address)
            self._wait(transfer, time.monotonic() + ABANDON_SECONDS)
        status, _, count = _state(transfer.memory, STATE_OFFSET)
        if status == PENDING:
            self._abandoned.append((transfer, anchor))
            return PENDING, 0
        return (TIMED_OUT if is_late and status == CANCELLED else status), count

    def _wait(self, transfer: _Transfer, deadline: float) -> None:
        """Not counted in calls: libusb's comes back early for every event of any other transfer."""
        while transfer.is_pending and (left := deadline - time.monotonic()) > 0:
            slice_ = Timeval(0, min(SLICE_MS * 1000, math.ceil(left * 1e6)))
            place = ctypes.c_void_p(_address(slice_))
            code = self._handle_events(self._context, place, transfer.completed)
            if code not in (Code.OK, Code.INTERRUPTED):
                time.sleep(SLICE_MS / 1000)  # it may fail at once each time, and must not take the processor

    def _cancel(self, transfer: _Transfer, anchor: object) -> None:
        """Ends a transfer that an exception interrupted: until it has ended, the buffer belongs to the kernel.

        Only its status tells that. That there is nothing to cancel (NOT_FOUND) does not: libusb says so as well of a
        transfer that it is cancelling itself, or whose end another thread is about to note.
        """
        try:
            self._lib.libusb_cancel_transfer(transfer.address)
            self._wait(transfer, time.monotonic() + ABANDON_SECONDS)
        finally:
            if not transfer.is_pending:
                self._idle[transfer.fields.endpoint].append(transfer)
            else:
                self._abandoned.append((transfer, anchor))
