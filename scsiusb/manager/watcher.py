"""One thread that looks at the bus whenever something may have changed there, owned and joined by whoever made it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from scsiusb import ledger
from scsiusb.errors import TransportError
from scsiusb.usb.backend import Backend, Hotplug, UsbError
from scsiusb.usb.translate import translate

FOR_EVER: Final = 3600.0  # seconds; then it looks once without a reason
AFTER_FAILURE: Final = 1.0
JOIN_PATIENCE: Final = 5.0  # a callback may be waiting for who waits here

log = logging.getLogger(__name__)


class Watcher:
    """Subscribed once it is made; looks from `start` on.

    `look` returns the seconds after which to look again in any case, or None. It may raise TransportError or UsbError.
    """

    def __init__(self, backend: Backend, look: Callable[[], float | None], name: str) -> None:
        self._look = look
        self._name = name
        self._stop = threading.Event()
        self._ending = threading.RLock()
        self._joining = threading.RLock()
        self._thread: _Thread | None = None
        self._source: Hotplug | None = None
        with ExitStack() as stack:
            stack.callback(ledger.acquire("hotplug", f"for {name}").release)
            stack.callback(self._close_source)
            self._source = _watch(backend)
            self._resources = stack.pop_all()

    def start(self) -> None:
        self._resources.callback(ledger.acquire("thread", self._name).release)
        self._thread = _Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def poke(self) -> None:
        """Has it look now."""
        if self._source is not None:
            self._source.wake()

    @property
    def is_retired(self) -> bool:
        return self._stop.is_set()

    @property
    def has_ended(self) -> bool:
        return self._thread is None or not self._thread.is_alive()

    def retire(self) -> None:
        """Has the thread end, which gives back what there is, without waiting for it."""
        self._stop.set()
        self.poke()

    def close(self) -> None:
        """Ends the thread and joins it.

        Called by a callback in a watcher's thread, it only has the thread end: two could wait for each other.
        """
        try:
            self._close()
        except BaseException:  # Ctrl-C may have come before anything was done
            self._close()
            raise

    def after_fork(self) -> None:
        """In a fork's child, which has no such thread."""
        self._ending = threading.RLock()
        self._joining = threading.RLock()
        self._resources.pop_all()
        self._thread = self._source = None

    def _close(self) -> None:
        self.retire()
        thread = self._thread
        if thread is None or thread.ident is None:
            self._end()
        elif not isinstance(threading.current_thread(), _Thread):
            with self._joining:  # Python 3.11's join cannot bear several at once
                thread.join(JOIN_PATIENCE)
                runs_on = thread.is_alive()
            if runs_on:
                log.warning("a callback still runs in %s, which ends after it", self._name)

    def _close_source(self) -> None:
        if self._source is not None:
            self._source.close()

    def _end(self) -> None:
        with self._ending:
            self._resources.close()
        self._look = _nowhere  # it may refer to this object

    # --- in the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                seconds = self._turn()
                if not self._stop.is_set():
                    self._wait(seconds)
        finally:
            self._end()

    def _turn(self) -> float:
        try:
            seconds = self._look()
        except (TransportError, UsbError) as error:
            log.warning("cannot see which devices are attached: %s", error)
            seconds = AFTER_FAILURE
        except Exception:
            log.exception("looking for devices failed")
            seconds = AFTER_FAILURE
        return FOR_EVER if seconds is None else seconds

    def _wait(self, seconds: float) -> None:
        assert self._source is not None
        try:
            self._source.wait(seconds)
        except UsbError as error:
            log.warning("cannot wait for devices: %s", error)
            self._stop.wait(AFTER_FAILURE)


class _Thread(threading.Thread):
    """A watcher's."""


def _nowhere() -> None:
    pass


def _watch(backend: Backend) -> Hotplug:
    try:
        return backend.watch()
    except UsbError as error:
        raise translate(error, "watching for devices") from error
