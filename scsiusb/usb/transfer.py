"""Bulk transfers by libusb's asynchronous interface: the true count always, and Ctrl-C at once."""

from __future__ import annotations

import ctypes
import math
import struct
import threading
import time
from typing import Any, Final

from scsiusb.usb.backend import Code

BULK_TRANSFER: Final = 2  # LIBUSB_TRANSFER_TYPE_BULK
PENDING: Final = -1  # no libusb_transfer_status: stands there until libusb writes one
CANCELLED: Final = 3  # LIBUSB_TRANSFER_CANCELLED
STATUS: Final = (  # by enum libusb_transfer_status
    Code.OK,
    Code.IO,
    Code.TIMEOUT,
    Code.INTERRUPTED,
    Code.PIPE,
    Code.NO_DEVICE,
    Code.OVERFLOW,
)
# How long libusb may keep this thread when another thread handles the events; a signal shortens it where it can.
SLICE: Final = 100  # milliseconds
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


def declare(lib: Any) -> None:
    """The prototypes that pyusb does not have."""
    lib.libusb_cancel_transfer.argtypes = [ctypes.c_void_p]
    lib.libusb_handle_events_timeout_completed.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
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
        self.fields = fields = LibusbTransfer.from_address(self.address)
        fields.dev_handle = handle.value
        fields.type = BULK_TRANSFER
        fields.endpoint = endpoint
        self.memory = memoryview(fields).cast("B")
        # Where libusb looks, before it waits for another thread's news, whether they came already.
        self.completed = ctypes.c_void_p(self.address + LibusbTransfer.actual_length.offset)

    @property
    def is_pending(self) -> bool:
        """Was it begun, and has not ended?"""
        return bool(self.fields.status == PENDING)


class Transfers:
    """The bulk transfers of one device handle; any number of threads may have one under way."""

    def __init__(self, lib: Any, context: ctypes.c_void_p, handle: ctypes.c_void_p) -> None:
        self._lib = lib
        self._submit = lib.libusb_submit_transfer
        self._handle_events = lib.libusb_handle_events_timeout_completed
        self._context = context
        self._handle = ctypes.c_void_p(handle.value)
        self._whole_slice = Timeval(0, SLICE * 1000)
        self._slice = ctypes.c_void_p(ctypes.addressof(self._whole_slice))
        self._idle: dict[int, list[_Transfer]] = {}
        self._abandoned: list[tuple[_Transfer, Any]] = []
        self._all: list[_Transfer] = []
        self._refusal: Code | None = None
        self._freeing = threading.RLock()

    def bulk(self, endpoint: int, buffer: memoryview, timeout: int) -> tuple[Code, int]:
        """See `Handle.bulk`."""
        if self._refusal is not None:
            return self._refusal, 0
        anchor = _at(buffer)
        try:
            transfer = self._idle[endpoint].pop()
        except (KeyError, IndexError):  # asking first whether there is one would be a race with other threads
            transfer = self._add(endpoint)
        memory = transfer.memory
        _set_buffer(memory, BUFFER_OFFSET, _address(anchor))
        _set_state(memory, STATE_OFFSET, PENDING, len(buffer), 0)
        is_late = False
        try:
            code = self._submit(transfer.pointer)
            if code:
                return self._refused(transfer, code)
            if self._refusal is not None:  # it may have come too early to meet this transfer
                self._lib.libusb_cancel_transfer(transfer.address)
            if timeout >= SLICE:
                self._handle_events(self._context, self._slice, transfer.completed)
            status, _, count = _state(memory, STATE_OFFSET)
            if status == PENDING:
                is_late = self._outlast(transfer, anchor, timeout)
                status, _, count = _state(memory, STATE_OFFSET)
                if status == PENDING:
                    return Code.TIMEOUT, 0
        except BaseException:
            self._cancel(transfer, anchor)
            raise
        self._idle[endpoint].append(transfer)
        return (Code.TIMEOUT if is_late and status == CANCELLED else STATUS[status]), count

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

    def _outlast(self, transfer: _Transfer, anchor: object, timeout: int) -> bool:
        """Waits on until a transfer has ended; after `timeout` more milliseconds it is cancelled. Was it?

        A timeout is kept to a slice of time, so that what comes at once needs no clock.
        """
        self._wait(transfer, timeout / 1000)
        if not transfer.is_pending:
            return False
        self._lib.libusb_cancel_transfer(transfer.address)
        self._wait(transfer, ABANDON_SECONDS)
        if transfer.is_pending:
            self._abandoned.append((transfer, anchor))
        return True

    def _wait(self, transfer: _Transfer, seconds: float = math.inf) -> None:
        """Not counted in calls: libusb's comes back early for every event of any other transfer."""
        deadline = time.monotonic() + seconds
        while transfer.is_pending and (left := deadline - time.monotonic()) > 0:
            slice_ = Timeval(0, min(SLICE * 1000, math.ceil(left * 1e6)))
            place = ctypes.c_void_p(_address(slice_))
            code = self._handle_events(self._context, place, transfer.completed)
            if code not in (Code.OK, Code.INTERRUPTED):
                time.sleep(SLICE / 1000)  # it may fail at once each time, and must not take the processor

    def _cancel(self, transfer: _Transfer, anchor: object) -> None:
        """Ends a transfer that an exception interrupted: until it has ended, the buffer belongs to the kernel.

        Only its status tells that. That there is nothing to cancel (NOT_FOUND) does not: libusb says so as well of a
        transfer that it is cancelling itself, or whose end another thread is about to note.
        """
        try:
            self._lib.libusb_cancel_transfer(transfer.address)
            self._wait(transfer, ABANDON_SECONDS)
        finally:
            if not transfer.is_pending:
                self._idle[transfer.fields.endpoint].append(transfer)
            else:
                self._abandoned.append((transfer, anchor))
