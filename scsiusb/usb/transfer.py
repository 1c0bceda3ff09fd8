"""Bulk transfers by libusb's asynchronous interface: the true count always, and Ctrl-C at once."""

from __future__ import annotations

import ctypes
import math
import operator
import threading
import time
from functools import partial
from typing import Any, Final

from scsiusb.usb.backend import Code

BULK_TRANSFER: Final = 2  # LIBUSB_TRANSFER_TYPE_BULK
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
SLICE_MICROSECONDS: Final = 100_000
ABANDON_SECONDS: Final = 5.0
LEAKED: Final[list[object]] = []  # the kernel may still write to these: they live as long as the process

Callback: Final[Any] = getattr(ctypes, "WINFUNCTYPE", ctypes.CFUNCTYPE)(None, ctypes.c_void_p)  # LIBUSB_CALL


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
        ("callback", Callback),
        ("user_data", ctypes.c_void_p),
        ("buffer", ctypes.c_void_p),
        ("num_iso_packets", ctypes.c_int),
    )


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
    """One libusb_transfer, used again and again."""

    def __init__(self, lib: Any, handle: ctypes.c_void_p) -> None:
        self.pointer = lib.libusb_alloc_transfer(0)
        if not self.pointer:
            raise MemoryError("libusb_alloc_transfer")
        self.address = ctypes.addressof(self.pointer.contents)
        self.fields = LibusbTransfer.from_address(self.address)
        self.done = (ctypes.c_int * 1)()
        # Builtins all the way: a Python function could take a KeyboardInterrupt here, and ctypes would lose it and
        # the completion with it. What lands in `done` is the transfer's address, all that matters is that it is not 0.
        self.fields.callback = self._callback = Callback(partial(operator.setitem, self.done, 0))
        self.fields.dev_handle = handle.value
        self.fields.type = BULK_TRANSFER


class Transfers:
    """The bulk transfers of one device handle; any number of threads may have one under way."""

    def __init__(self, lib: Any, context: ctypes.c_void_p, handle: ctypes.c_void_p) -> None:
        self._lib = lib
        self._context = context
        self._handle = ctypes.c_void_p(handle.value)
        self._idle: list[_Transfer] = []
        self._abandoned: list[tuple[_Transfer, Any]] = []
        self._active: set[_Transfer] = set()
        self._interrupted = False
        self._freeing = threading.RLock()

    def bulk(self, endpoint: int, buffer: memoryview, timeout: int) -> tuple[Code, int]:
        """See `Handle.bulk`."""
        if self._interrupted:
            return Code.INTERRUPTED, 0
        anchor = ctypes.c_char.from_buffer(buffer)
        transfer = self._take()
        fields = transfer.fields
        fields.endpoint = endpoint
        fields.timeout = timeout
        fields.buffer = ctypes.addressof(anchor)
        fields.length = len(buffer)
        transfer.done[0] = 0
        self._active.add(transfer)
        try:
            code = self._lib.libusb_submit_transfer(transfer.pointer)
            if code == 0:
                if self._interrupted:  # it may have come too early to meet this transfer
                    self._lib.libusb_cancel_transfer(transfer.address)
                self._wait(transfer)
        except BaseException:
            self._cancel(transfer, anchor)
            raise
        finally:
            self._active.discard(transfer)
        if code != 0:
            self._idle.append(transfer)
            return Code(code), 0
        result = STATUS[fields.status], fields.actual_length
        self._idle.append(transfer)
        return result

    def interrupt(self, on: bool) -> None:
        """See `Handle.interrupt`."""
        with self._freeing:
            self._interrupted = on
            if on:
                for transfer in self._active.copy():
                    self._lib.libusb_cancel_transfer(transfer.address)

    def close(self) -> None:
        """Frees the transfers. One that the kernel never gave back is leaked, with its buffer: it may still write."""
        with self._freeing:
            for transfer in self._idle:
                self._lib.libusb_free_transfer(transfer.pointer)
            self._idle.clear()
            for transfer, anchor in self._abandoned:
                if transfer.done[0]:
                    self._lib.libusb_free_transfer(transfer.pointer)
                else:
                    LEAKED.append((transfer, anchor))
            self._abandoned.clear()

    def _take(self) -> _Transfer:
        try:
            return self._idle.pop()
        except IndexError:  # asking first whether there is one would be a race with other threads
            return _Transfer(self._lib, self._handle)

    def _wait(self, transfer: _Transfer, seconds: float = math.inf) -> None:
        """Not counted in calls: libusb's comes back early for every event of any other transfer."""
        done = ctypes.addressof(transfer.done)
        deadline = time.monotonic() + seconds
        while not transfer.done[0] and time.monotonic() < deadline:
            slice_ = Timeval(0, SLICE_MICROSECONDS)
            code = self._lib.libusb_handle_events_timeout_completed(self._context, ctypes.addressof(slice_), done)
            if code not in (Code.OK, Code.INTERRUPTED):
                time.sleep(SLICE_MICROSECONDS / 1e6)  # it may fail at once each time, and must not take the processor

    def _cancel(self, transfer: _Transfer, anchor: object) -> None:
        """Ends a transfer that an exception interrupted: until it has ended, the buffer belongs to the kernel.

        Only the callback tells that. That there is nothing to cancel (NOT_FOUND) does not: libusb says so as well of a
        transfer that it is cancelling itself, after a timeout, or whose callback another thread is about to call.
        """
        try:
            self._lib.libusb_cancel_transfer(transfer.address)
            self._wait(transfer, ABANDON_SECONDS)
        finally:
            if transfer.done[0]:
                self._idle.append(transfer)
            else:
                self._abandoned.append((transfer, anchor))
