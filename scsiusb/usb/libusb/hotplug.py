"""Notices devices that are plugged in or unplugged: by libusb's hotplug events, or by polling where it has none."""

from __future__ import annotations

import ctypes
import threading
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Final

from scsiusb.usb.backend import Code, Hotplug, UsbError
from scsiusb.usb.libusb.transfer import Timeval

HAS_HOTPLUG: Final = 1  # enum libusb_capability
ARRIVED_OR_LEFT: Final = 0x01 | 0x02  # libusb_hotplug_event
MATCH_ANY: Final = -1  # LIBUSB_HOTPLUG_MATCH_ANY
POLL_SECONDS: Final = 0.5
MAX_WAIT: Final = 3600.0  # seconds; an infinite timeout does not fit a timeval

Callback: Final[Any] = getattr(ctypes, "WINFUNCTYPE", ctypes.CFUNCTYPE)(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p
)


def hotplug(lib: Any) -> Hotplug:
    """Begin to watch, with hotplug events if this libusb supports them on this platform. Raises UsbError."""
    return LibusbHotplug(lib) if lib.libusb_has_capability(HAS_HOTPLUG) else Polling()


class Polling:
    """A `Hotplug` for platforms without hotplug events: it reports a possible change every `interval` seconds."""

    def __init__(self, interval: float = POLL_SECONDS) -> None:
        self._interval = interval
        self._woken: SimpleQueue[None] = SimpleQueue()  # not an Event: a signal's handler could wait for its lock

    def wait(self, timeout: float) -> bool:
        """See `Hotplug.wait`."""
        is_woken = False
        with suppress(Empty):
            self._woken.get(timeout=min(timeout, self._interval))
            is_woken = True
            while True:  # wakes before this wait, which all count as one
                self._woken.get_nowait()
        return not is_woken

    def wake(self) -> None:
        """See `Hotplug.wake`."""
        self._woken.put(None)

    def close(self) -> None:
        """See `Hotplug.close`; there is nothing to release."""


class LibusbHotplug:
    """A `Hotplug` by libusb's events, in a separate context.

    A thread that waits in a context handles all its events. In the context of a device's transfers, it would handle the
    transfers' events, and the threads that wait for those would be woken late.
    """

    def __init__(self, lib: Any) -> None:
        self._lib = lib
        self._context = ctypes.c_void_p()
        self._using = threading.RLock()  # keeps the context from being freed while `wake` uses it
        self._changed = False
        self._callback = Callback(self._note)  # kept here: libusb calls it as long as the context exists
        _declare(lib)
        try:
            _check(lib.libusb_init(ctypes.byref(self._context)))
            arguments = (ARRIVED_OR_LEFT, 0, MATCH_ANY, MATCH_ANY, MATCH_ANY, self._callback, None, None)
            _check(lib.libusb_hotplug_register_callback(self._context, *arguments))
        except BaseException:
            self.close()
            raise

    def wait(self, timeout: float) -> bool:
        """See `Hotplug.wait`. Raises UsbError."""
        self._changed = False
        seconds, rest = divmod(min(timeout, MAX_WAIT), 1)
        limit = Timeval(int(seconds), int(rest * 1e6))
        _check(self._lib.libusb_handle_events_timeout_completed(self._context, ctypes.addressof(limit), None))
        return self._changed

    def wake(self) -> None:
        """See `Hotplug.wake`; does nothing after `close`."""
        with self._using:
            # After `close` the pointer is NULL, which libusb takes for the default context.
            if self._context:
                self._lib.libusb_interrupt_event_handler(self._context)

    def close(self) -> None:
        """See `Hotplug.close`. May be called again."""
        with self._using:
            context, self._context = self._context, ctypes.c_void_p()
            if context:
                self._lib.libusb_exit(context)  # this also removes the callback
        self._callback = None  # it refers to this object: without it there is no reference cycle

    def _note(self, context: int, device: int, event: int, data: int) -> int:
        """Note a change, as libusb's callback; it must do no I/O, and returns 0 to stay registered."""
        self._changed = True
        return 0


def _declare(lib: Any) -> None:
    """Set the prototypes that pyusb does not set."""
    lib.libusb_interrupt_event_handler.argtypes = [ctypes.c_void_p]
    lib.libusb_hotplug_register_callback.argtypes = [
        ctypes.c_void_p,
        *(ctypes.c_int,) * 5,
        Callback,
        ctypes.c_void_p,
        ctypes.c_void_p,
    ]


def _check(code: int) -> None:
    """Raise UsbError for an error code. A wait that a signal interrupted is not an error."""
    if code < 0 and code != Code.INTERRUPTED:
        raise UsbError(Code(code))
