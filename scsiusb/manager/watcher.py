"""A thread that calls a function whenever the devices on a bus may have changed. Its creator closes and joins it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from scsiusb import ledger
from scsiusb.base.releases import Releases
from scsiusb.base.waits import join, long_lock
from scsiusb.errors import TransportError
from scsiusb.usb.backend import Backend, Hotplug, UsbError
from scsiusb.usb.translate import translate

IDLE_INTERVAL: Final = 3600.0  # seconds between two calls without a notification
RETRY_INTERVAL: Final = 1.0  # seconds from a failure to the next try
STOP_INTERVAL: Final = 0.02  # seconds; meanwhile it is looked whether to stop
JOIN_TIMEOUT: Final = 5.0  # seconds; without it a callback that waits for the closing thread would be a deadlock

log = logging.getLogger(__name__)


class Watcher:
    """Subscription to the notifications of a backend, and the thread that calls `look` from `start` on.

    `look` returns the seconds after which to call it again even without a notification, or None. It may raise
    TransportError or UsbError: these are logged, and it is called again later.
    """

    def __init__(self, backend: Backend, look: Callable[[], float | None], name: str) -> None:
        self._backend = backend
        self._look = look
        self._name = name
        # Not an Event: a signal's handler that closes a device could wait for its lock.
        self._is_stopped = False
        self._ending = threading.RLock()
        self._joining = long_lock()
        self._is_joining = False
        self._has_run = False
        self._thread: _Thread | None = None
        self._source: Hotplug | None = None
        self._resources = Releases()

    def subscribe(self) -> None:
        """Subscribe to the notifications. Call once, when `close` is registered. Raises TransportError."""
        try:
            self._resources.hold(ledger.entry("hotplug", f"for {self._name}"))
            self._resources.add(self._close_source)
            self._source = _watch(self._backend)
        except BaseException:
            self._resources.close()
            raise

    def start(self) -> None:
        """Start the thread. Call once."""
        self._resources.hold(ledger.entry("thread", self._name))
        self._thread = _Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def poke(self) -> None:
        """Make the thread call `look` now."""
        if self._source is not None:
            self._source.wake()

    @property
    def is_retired(self) -> bool:
        """`retire` or `close` was called."""
        return self._is_stopped

    @property
    def has_ended(self) -> bool:
        """The thread is not running."""
        return self._thread is None or not self._thread.is_alive()

    def retire(self) -> None:
        """Make the thread release the subscription and end; do not wait for it."""
        self._is_stopped = True
        self.poke()

    def close(self) -> None:
        """End the thread and join it, for at most `JOIN_TIMEOUT` seconds.

        In a callback, which runs in a watcher's thread, it does not join: two threads could wait for each other.
        """
        try:
            self._close()
        except BaseException:  # Ctrl-C may have interrupted the call before it did anything
            self._close()
            raise

    def after_fork(self) -> None:
        """Forget thread and subscription in the child of a fork: they exist only in the parent."""
        self._ending = threading.RLock()
        self._joining = long_lock()
        self._is_joining = False
        self._resources.forget()
        self._thread = self._source = None

    def _close(self) -> None:
        self.retire()
        thread = self._thread
        if thread is None or thread.ident is None:
            self._end()
        elif not isinstance(threading.current_thread(), _Thread):
            with self._joining:  # Python 3.11's join fails if several threads call it at once
                self._join(thread)
                runs_on = not self._has_run and thread.is_alive()
            if runs_on:
                log.warning("a callback is still running in %s; the thread ends when it returns", self._name)

    def _join(self, thread: threading.Thread) -> None:
        if self._is_joining:
            # A signal's handler, in the middle of the join of its own thread, which may have the lock that another join
            # would wait for.
            deadline = time.monotonic() + JOIN_TIMEOUT
            while not self._has_run and time.monotonic() < deadline:
                time.sleep(STOP_INTERVAL)
            return
        self._is_joining = True
        try:
            join(thread, JOIN_TIMEOUT)
        finally:
            self._is_joining = False

    def _close_source(self) -> None:
        if self._source is not None:
            self._source.close()

    def _end(self) -> None:
        with self._ending:
            self._resources.close()
        self._look = _do_nothing  # `look` may refer to this object: break the cycle

    # --- in the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._is_stopped:
                seconds = self._turn()
                if not self._is_stopped:
                    self._wait(seconds)
        finally:
            self._end()
            self._has_run = True

    def _turn(self) -> float:
        try:
            seconds = self._look()
        except (TransportError, UsbError) as error:
            log.warning("cannot list the attached devices: %s", error)
            seconds = RETRY_INTERVAL
        except Exception:
            log.exception("looking for devices failed")
            seconds = RETRY_INTERVAL
        return IDLE_INTERVAL if seconds is None else seconds

    def _wait(self, seconds: float) -> None:
        assert self._source is not None
        try:
            self._source.wait(seconds)
        except UsbError as error:
            log.warning("cannot wait for device notifications: %s", error)
            deadline = time.monotonic() + RETRY_INTERVAL
            while not self._is_stopped and time.monotonic() < deadline:
                time.sleep(STOP_INTERVAL)


class _Thread(threading.Thread):
    """Thread of any watcher; `close` recognizes a callback by it."""


def _do_nothing() -> None:
    pass


def _watch(backend: Backend) -> Hotplug:
    try:
        return backend.watch()
    except UsbError as error:
        raise translate(error, "watching for devices") from error
