"""Notices devices that come and leave: by libusb's hotplug in a context of its own, or by looking again and again."""

from __future__ import annotations

import ctypes
import threading
from typing import Any, Final

from scsiusb.usb.backend import Code, Hotplug, UsbError
from scsiusb.usb.libusb.transfer import Timeval

HAS_HOTPLUG: Final = 1  # enum libusb_capability
ARRIVED_OR_LEFT: Final = 0x01 | 0x02  # libusb_hotplug_event
MATCH_ANY: Final = -1
POLL_SECONDS: Final = 0.5
LONGEST_WAIT: Final = 3600.0

Callback: Final[Any] = getattr(ctypes, "WINFUNCTYPE", ctypes.CFUNCTYPE)(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p
)


def hotplug(lib: Any) -> Hotplug:
    """What this libusb on this platform can do. Raises UsbError."""
    return LibusbHotplug(lib) if lib.libusb_has_capability(HAS_HOTPLUG) else Polling()


class Polling:
    """For platforms without hotplug: something may always have changed."""

    def __init__(self, interval: float = POLL_SECONDS) -> None:
        self._interval = interval
        self._woken = threading.Event()

    def wait(self, timeout: float) -> bool:
        is_woken = self._woken.wait(min(timeout, self._interval))
        self._woken.clear()
        return not is_woken

    def wake(self) -> None:
        self._woken.set()

    def close(self) -> None:
        """Holds nothing."""


class LibusbHotplug:
    """A context of its own: waiting in the one that transfers use would take their events away from them."""

    def __init__(self, lib: Any) -> None:
        self._lib = lib
        self._context = ctypes.c_void_p()
        self._using = threading.RLock()
        self._changed = False
        self._callback = Callback(self._note)
        _declare(lib)
        try:
            _check(lib.libusb_init(ctypes.byref(self._context)))
            arguments = (ARRIVED_OR_LEFT, 0, MATCH_ANY, MATCH_ANY, MATCH_ANY, self._callback, None, None)
            _check(lib.libusb_hotplug_register_callback(self._context, *arguments))
        except BaseException:
            self.close()
            raise

    def wait(self, timeout: float) -> bool:
        self._changed = False
        seconds, rest = divmod(min(timeout, LONGEST_WAIT), 1)
        limit = Timeval(int(seconds), int(rest * 1e6))
        _check(self._lib.libusb_handle_events_timeout_completed(self._context, ctypes.addressof(limit), None))
        return self._changed

    def wake(self) -> None:
        with self._using:  # it may be closed by now, and NULL means another context
            if self._context:
                self._lib.libusb_interrupt_event_handler(self._context)

    def close(self) -> None:
        """The callback goes with the context."""
        with self._using:
            context, self._context = self._context, ctypes.c_void_p()
            if context:
                self._lib.libusb_exit(context)
        self._callback = None  # it refers to this object

    def _note(self, context: int, device: int, event: int, data: int) -> int:
        """libusb forbids I/O in here; 0 keeps the callback."""
        self._changed = True
        return 0


def _declare(lib: Any) -> None:
    """The prototypes that pyusb does not have."""
    lib.libusb_interrupt_event_handler.argtypes = [ctypes.c_void_p]
    lib.libusb_hotplug_register_callback.argtypes = [
        ctypes.c_void_p,
        *(ctypes.c_int,) * 5,
        Callback,
        ctypes.c_void_p,
        ctypes.c_void_p,
    ]


def _check(code: int) -> None:
    if code < 0 and code != Code.INTERRUPTED:
        raise UsbError(Code(code))
