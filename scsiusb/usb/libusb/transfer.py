"""Bulk transfers through libusb's asynchronous interface.

pyusb's synchronous transfers lose the count of bytes moved if the transfer ends with a STALL, and cannot be interrupted
by Ctrl-C or by another thread. These report the count for any result, and can be interrupted at once.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import struct
import threading
import time
from collections import deque
from typing import Any, Final

from scsiusb.usb.backend import ABANDONED, Code, UsbError

BULK_TRANSFER: Final = 2  # LIBUSB_TRANSFER_TYPE_BULK
STREAM_TRANSFER: Final = 4  # LIBUSB_TRANSFER_TYPE_BULK_STREAM
# Written into `status` before a transfer is submitted; no libusb_transfer_status has this value. When libusb has
# written another one, the transfer has ended, and the kernel no longer uses its buffer.
PENDING: Final = -1
TIMED_OUT: Final = 2  # LIBUSB_TRANSFER_TIMED_OUT
CANCELLED: Final = 3  # LIBUSB_TRANSFER_CANCELLED
STATUS: Final = {  # by enum libusb_transfer_status
    PENDING: Code.TIMEOUT,  # it could not even be cancelled
    0: Code.OK,
    1: Code.IO,
    TIMED_OUT: Code.TIMEOUT,
    CANCELLED: Code.INTERRUPTED,
    4: Code.PIPE,
    5: Code.NO_DEVICE,
    6: Code.OVERFLOW,
}
# The longest single call into libusb, in milliseconds. Python runs a signal's handler, as for Ctrl-C, only after the
# call has returned; a signal ends the call early in the thread that polls, but not in one that waits for that thread.
SLICE_MS: Final = 100
ABANDON_SECONDS: Final = 5.0  # how long to wait for the end of a cancelled transfer
NOT_SUBMITTED_SECONDS: Final = 0.5  # how long to wait for one that libusb does not have in flight
# Transfers that could not be cancelled, with their buffers. They are kept as long as the process lives: the kernel may
# still write to them, and freed memory would be overwritten.
LEAKED: Final[list[object]] = []

_at: Final = ctypes.c_char.from_buffer
_address: Final = ctypes.addressof


class LibusbTransfer(ctypes.Structure):
    """`struct libusb_transfer`, without the isochronous packets at its end."""

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


# Fields are written and read by `struct`, which is faster than ctypes attributes: one call covers the adjacent fields
# status, length and actual_length.
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
ONE_MILLISECOND: Final = Timeval(0, 1000)
POLLOUT: Final = 4  # poll(2); usbfs reports the end of a transfer by it


def _owner(anchor: Any) -> int:
    """Return the id of the object whose memory a transfer uses; see `ABANDONED`."""
    kept = getattr(anchor, "_objects", None)  # ctypes keeps a memoryview of the object here
    views = kept.values() if isinstance(kept, dict) else [kept]
    return next((id(view.obj) for view in views if isinstance(view, memoryview)), 0)


def declare(lib: Any) -> None:
    """Set the prototypes that pyusb does not set; without them, ctypes would cut pointers to 32 bits."""
    lib.libusb_cancel_transfer.argtypes = [ctypes.c_void_p]
    lib.libusb_transfer_set_stream_id.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    lib.libusb_transfer_set_stream_id.restype = None
    lib.libusb_handle_events_timeout_completed.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    lib.libusb_get_pollfds.argtypes = [ctypes.c_void_p]
    lib.libusb_get_pollfds.restype = ctypes.POINTER(ctypes.POINTER(PollDescriptor))
    lib.libusb_free_pollfds.argtypes = [ctypes.c_void_p]
    lib.libusb_dev_mem_alloc.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    lib.libusb_dev_mem_alloc.restype = ctypes.c_void_p
    lib.libusb_dev_mem_free.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]


class _Transfer:
    """One libusb_transfer to one endpoint, or one stream of it, which is reused for many transfers.

    It has no callback: a call from C into Python would take as long as everything else here. Instead, `status` changes
    from PENDING when it has ended. It has no timeout either, as libusb would read the clock and set a timer twice for
    each transfer; `Transfers` cancels it after the deadline.
    """

    def __init__(self, pointer: Any, handle: ctypes.c_void_p, endpoint: int, stream: int) -> None:
        self.is_being_cancelled = False
        self.pipe = pipe_key(endpoint, stream)
        self.address = ctypes.addressof(pointer.contents)
        self.place = ctypes.c_void_p(self.address)
        self.fields = fields = LibusbTransfer.from_address(self.address)
        fields.dev_handle = handle.value
        fields.type = STREAM_TRANSFER if stream else BULK_TRANSFER
        fields.endpoint = endpoint
        self.memory = memoryview(fields).cast("B")
        # A ctypes object over the buffer. While it exists, the buffer can neither be freed nor resized. Set between
        # `submit` and `outcome`.
        self.anchor: Any = None
        # libusb's `completed` argument: it returns at once, instead of waiting for events that another thread handles,
        # if the int there is not 0. actual_length is such an int: it is 0 until the transfer has ended with data.
        self.completed = ctypes.c_void_p(self.address + LibusbTransfer.actual_length.offset)

    @property
    def is_pending(self) -> bool:
        """Return whether it was submitted and has not ended."""
        return bool(self.fields.status == PENDING)


def pipe_key(endpoint: int, stream: int) -> int:
    """Return a number for a stream of an endpoint; the endpoint itself where there is no stream."""
    return endpoint | stream << 8


def _node(lib: Any, context: ctypes.c_void_p) -> int:
    """Return the usbfs descriptor of the one device that is open in the context; -1 if none can be polled.

    Only the usbfs descriptor is polled for writing: the context's others, for its own events, are polled for reading.
    """
    found = lib.libusb_get_pollfds(context)
    if not found:
        return -1
    try:
        each = itertools.takewhile(bool, (found[number] for number in itertools.count()))
        return next((one.contents.fd for one in each if one.contents.events & POLLOUT), -1)
    finally:
        lib.libusb_free_pollfds(found)


class Transfers:
    """The bulk transfers of one device handle; any number of threads may have a transfer in progress.

    Implements `AsyncTransfers`, and `bulk` and `interrupt` of `Handle`.
    """

    def __init__(self, lib: Any, context: ctypes.c_void_p, handle: ctypes.c_void_p) -> None:
        self._lib = lib
        # lib[name] makes new function objects, without prototypes: these two are called for each transfer, and their
        # arguments already are c_void_p objects that need no conversion.
        self._submit = lib["libusb_submit_transfer"]
        self._handle_events = lib["libusb_handle_events_timeout_completed"]
        self._context = context
        self._handle = ctypes.c_void_p(handle.value)
        self._whole_slice = Timeval(0, SLICE_MS * 1000)
        self._slice = ctypes.c_void_p(ctypes.addressof(self._whole_slice))
        self._no_time = ctypes.c_void_p(ctypes.addressof(NO_TIME))
        self._moment = ctypes.c_void_p(ctypes.addressof(ONE_MILLISECOND))
        self._node = _node(lib, context)
        self._idle: dict[int, list[_Transfer]] = {}
        self._abandoned: list[tuple[_Transfer, Any]] = []
        self._all: list[_Transfer] = []
        self._pointers: list[Any] = []  # what libusb_alloc_transfer returned, for each transfer
        self._refusal: Code | None = None  # the code that new transfers end with: INTERRUPTED, NO_DEVICE when closed
        # Keeps a transfer from being freed while `interrupt` cancels it. Transfers themselves do not take it.
        self._cancel_lock = threading.RLock()

    def bulk(self, endpoint: int, buffer: memoryview, deadline: float) -> tuple[Code, int]:
        """See `Handle.bulk`."""
        if self._refusal is not None:
            return self._refusal, 0
        anchor = _at(buffer)
        # If an exception comes before the next line but one, `close` finds the transfer.
        transfer = self._prepare(endpoint, buffer, anchor)
        try:
            refused = self._submit(transfer.place)
            if not refused:
                # `interrupt` may have come after the check above, but before the submission, where it found nothing to
                # cancel. Checked again, no moment is left in which it would be missed.
                if self._refusal is not None:
                    self._begin_cancel(transfer)
                # Usually one call is enough; only if not, the deadline is looked at.
                self._handle_events(self._context, self._slice, transfer.completed)
                status, _, count = _state(transfer.memory, STATE_OFFSET)
                if status == PENDING:
                    status, count = self._wait_or_cancel(transfer, anchor, deadline)
        except BaseException:
            # Ctrl-C may come even between the submission and the next line: the buffer belongs to the kernel until
            # the transfer has ended, so it must not be left in progress.
            self._cancel(transfer, anchor)
            raise
        if refused:  # not in the `try`: an exception after it must not make the transfer idle twice
            return self._refused(transfer, refused)
        if status != PENDING:  # an abandoned transfer is not reused
            self._idle[endpoint].append(transfer)
        return STATUS[status], count

    def _prepare(self, endpoint: int, buffer: memoryview, anchor: Any, stream: int = 0) -> _Transfer:
        """Return a transfer with the buffer in it, ready to submit: an idle one, or a new one."""
        try:
            transfer = self._idle[pipe_key(endpoint, stream) if stream else endpoint].pop()
        except (KeyError, IndexError):  # a check before the pop would be a race with other threads
            transfer = self._add(endpoint, stream)
        transfer.is_being_cancelled = False
        _set_buffer(transfer.memory, BUFFER_OFFSET, _address(anchor))
        _set_state(transfer.memory, STATE_OFFSET, PENDING, len(buffer), 0)
        return transfer

    # --- AsyncTransfers --------------------------------------------------------------------------------

    def fileno(self) -> int:
        """See `AsyncTransfers.fileno`; -1 if the platform has none. It is the usbfs descriptor of the device."""
        return self._node

    def submit(self, endpoint: int, buffer: memoryview, held: list[_Transfer], stream: int = 0) -> None:
        """See `AsyncTransfers.submit`."""
        if self._refusal is not None:
            raise UsbError(self._refusal)
        anchor = _at(buffer)
        transfer = self._prepare(endpoint, buffer, anchor, stream)
        transfer.anchor = anchor
        held.append(transfer)
        refused = self._submit(transfer.place)
        if refused:
            transfer.anchor = None
            held.clear()
            raise UsbError(self._refused(transfer, refused)[0])
        if self._refusal is not None:  # as in `bulk`: interrupted between the check and the submission
            self._begin_cancel(transfer)

    def handle_events(self, held: list[_Transfer] | None = None) -> None:
        """See `AsyncTransfers.handle_events`."""
        if held:
            self._handle_events(self._context, self._moment, held[0].completed)
        else:
            self._handle_events(self._context, self._no_time, None)

    def await_events(self, seconds: float) -> None:
        """See `AsyncTransfers.await_events`."""
        slice_ = Timeval(0, min(SLICE_MS * 1000, max(0, math.ceil(seconds * 1e6))))
        code = self._handle_events(self._context, ctypes.c_void_p(_address(slice_)), None)
        if code not in (Code.OK, Code.INTERRUPTED):
            time.sleep(SLICE_MS / 1000)  # as in `_wait`

    def outcome(self, held: list[_Transfer]) -> tuple[Code, int] | None:
        """See `AsyncTransfers.outcome`."""
        transfer = held[0]
        status, _, count = _state(transfer.memory, STATE_OFFSET)
        if status == PENDING:
            return None
        transfer.anchor = None
        held.clear()  # before others can use it: an exception in between only keeps it from being used again
        self._idle[transfer.pipe].append(transfer)
        return STATUS[status], count

    def cancel(self, held: list[_Transfer]) -> tuple[Code, int]:
        """See `AsyncTransfers.cancel`."""
        transfer, anchor = held[0], held[0].anchor
        was_pending = transfer.is_pending
        try:
            if was_pending:
                self._end(transfer)
        except BaseException:  # Ctrl-C: the caller may use the buffer for something else after this
            self._cancel(transfer, anchor, held)
            raise
        status, count = self._settle(transfer, anchor, held)
        return STATUS[TIMED_OUT if was_pending and status == CANCELLED else status], count

    def _refused(self, transfer: _Transfer, code: int) -> tuple[Code, int]:
        """Mark a transfer that libusb refused to submit as not pending, and return the result."""
        transfer.fields.status = CANCELLED
        self._idle[transfer.pipe].append(transfer)
        return Code(code), 0

    def interrupt(self, on: bool) -> None:
        """See `Handle.interrupt`."""
        with self._cancel_lock:
            if self._refusal is Code.NO_DEVICE:
                return
            self._refusal = Code.INTERRUPTED if on else None
            if on:
                for transfer in self._all.copy():
                    if transfer.is_pending:
                        self._begin_cancel(transfer)

    def close(self) -> bool:
        """Cancel and free all transfers. May be called again; later transfers end with NO_DEVICE.

        Transfers that cannot be cancelled are kept for ever, with their buffers. Returns True if there were none; else
        the context must not be freed either.
        """
        with self._cancel_lock:
            self._refusal = Code.NO_DEVICE
            given_up = {id(transfer) for transfer, _ in self._abandoned}
            for transfer in self._all:
                # Left by a user of `AsyncTransfers` that an exception ended.
                if transfer.is_pending and id(transfer) not in given_up:
                    self._cancel(transfer, transfer.anchor)
            leaked = [(transfer, anchor) for transfer, anchor in self._abandoned if transfer.is_pending]
            LEAKED.extend(leaked)
            for transfer, anchor in self._abandoned:
                if not transfer.is_pending:
                    ABANDONED.discard(_owner(anchor))
            self._idle.clear()
            self._all.clear()
            self._abandoned.clear()
            kept = {transfer.address for transfer, _ in leaked}
            # All others, those included that an exception kept from being used. One call: nothing is freed twice.
            self._pointers[:] = [each for each in self._pointers if ctypes.addressof(each.contents) not in kept]
            last = itertools.repeat(-1, len(self._pointers))
            deque(map(self._lib.libusb_free_transfer, map(self._pointers.pop, last)), maxlen=0)
            return not leaked

    def _add(self, endpoint: int, stream: int) -> _Transfer:
        """Allocate a transfer for the endpoint, or for one stream of it."""
        self._idle.setdefault(pipe_key(endpoint, stream), [])
        with self._cancel_lock:
            # One call, which is implemented in C: Ctrl-C cannot come between the allocation and the list.
            self._pointers.extend(map(self._lib.libusb_alloc_transfer, (0,)))
            if not self._pointers[-1]:
                self._pointers.pop()
                raise MemoryError("libusb_alloc_transfer")
            transfer = _Transfer(self._pointers[-1], self._handle, endpoint, stream)
            if stream:
                self._lib.libusb_transfer_set_stream_id(transfer.address, stream)
            self._all.append(transfer)
        return transfer

    def _wait_or_cancel(self, transfer: _Transfer, anchor: object, deadline: float) -> tuple[int, int]:
        """Wait until the transfer has ended, or cancel it at the deadline; return its status and count.

        The status is PENDING if it could not be cancelled within ABANDON_SECONDS: then the transfer and its buffer are
        abandoned.
        """
        self._wait(transfer, deadline)
        is_late = transfer.is_pending
        if is_late:
            self._begin_cancel(transfer)
            self._wait(transfer, time.monotonic() + ABANDON_SECONDS)
        status, _, count = _state(transfer.memory, STATE_OFFSET)
        transfer.is_being_cancelled = False
        if status == PENDING:
            self._abandon(transfer, anchor)
            return PENDING, 0
        # A transfer may end by itself just before it is cancelled: then its own status counts, not the timeout.
        return (TIMED_OUT if is_late and status == CANCELLED else status), count

    def _wait(self, transfer: _Transfer, deadline: float) -> None:
        """Handle events until the transfer has ended or the deadline has passed (by `time.monotonic`)."""
        # Limited by time, not by a number of calls: a call returns early for an event of any other transfer.
        while transfer.is_pending and (left := deadline - time.monotonic()) > 0:
            slice_ = Timeval(0, min(SLICE_MS * 1000, math.ceil(left * 1e6)))
            place = ctypes.c_void_p(_address(slice_))
            code = self._handle_events(self._context, place, transfer.completed)
            if code not in (Code.OK, Code.INTERRUPTED):
                time.sleep(SLICE_MS / 1000)  # a call that fails at once each time must not use all the processor

    def _cancel(self, transfer: _Transfer, anchor: object, held: list[_Transfer] | None = None) -> None:
        """End a transfer that an exception interrupted; abandon it if it does not end within ABANDON_SECONDS."""
        try:
            self._end(transfer)
        finally:  # also when a second Ctrl-C ends the wait
            self._settle(transfer, anchor, held)

    def _end(self, transfer: _Transfer) -> None:
        """Cancel a transfer and wait for its end, ABANDON_SECONDS at most. May be called again."""
        # Only the status shows that the kernel has given the buffer back. NOT_FOUND from libusb_cancel_transfer does
        # not: libusb also returns it for a transfer that is already being cancelled, whose end another thread is about
        # to write, or that was not submitted.
        was_being_cancelled = transfer.is_being_cancelled
        is_in_flight = self._begin_cancel(transfer) or was_being_cancelled
        self._wait(transfer, time.monotonic() + (ABANDON_SECONDS if is_in_flight else NOT_SUBMITTED_SECONDS))
        if not is_in_flight and transfer.is_pending:  # the exception came before it was submitted
            transfer.fields.status = CANCELLED

    def _settle(self, transfer: _Transfer, anchor: object, held: list[_Transfer] | None) -> tuple[int, int]:
        """Make a transfer idle if it has ended, else abandon it; return its status and count, and empty `held`."""
        transfer.is_being_cancelled = False
        status, _, count = _state(transfer.memory, STATE_OFFSET)
        if status == PENDING:
            self._abandon(transfer, anchor)
        if held is not None:
            transfer.anchor = None
            held.clear()
        if status == PENDING:
            return PENDING, 0
        self._idle[transfer.pipe].append(transfer)
        return status, count

    def _begin_cancel(self, transfer: _Transfer) -> bool:
        """Cancel a transfer, without waiting for its end; False if libusb does not have it in flight."""
        transfer.is_being_cancelled = True  # before the call: libusb does not say it a second time after a Ctrl-C
        return bool(self._lib.libusb_cancel_transfer(transfer.address) == Code.OK)

    def _abandon(self, transfer: _Transfer, anchor: object) -> None:
        """Leave a transfer to the kernel, with its buffer, which must not be used for anything else."""
        self._abandoned.append((transfer, anchor))
        ABANDONED.add(_owner(anchor))
