"""Registry of the attached mass-storage interfaces; one thread reports changes to callbacks and iterators."""

from __future__ import annotations

import itertools
import logging
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Set
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any, Final, TypeAlias

from scsiusb.base.copying import Uncopyable
from scsiusb.base.dataclass import dataclass
from scsiusb.base.releases import Releases
from scsiusb.errors import DeviceClosed
from scsiusb.manager.events import ATTACHED, DETACHED, Event, Events, Match, is_selected
from scsiusb.manager.watcher import Watcher
from scsiusb.usb.backend import Backend, Device, UsbError
from scsiusb.usb.interface import InterfaceInfo, interfaces_of
from scsiusb.usb.translate import translate

SETTLE_TIME: Final = 1.0  # seconds to wait at most until a new device is configured and has its kernel driver
POLL_INTERVAL: Final = 0.03  # seconds between two checks of a device that is not ready yet
ON_LINUX: Final = sys.platform == "linux"

Identity: TypeAlias = tuple[Any, ...]  # Device.identity

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Subscription(Uncopyable):
    """A callback for one kind of event, called with the InterfaceInfo until `cancel`."""

    kind: str
    callback: Callable[[InterfaceInfo], object]
    match: Match
    is_active: bool = True

    def cancel(self) -> None:
        """Stop the calls; a call that is already running goes on."""
        self.is_active = False

    def wants(self, event: Event) -> bool:
        """Return whether to call the callback for the event. Raises what a filter function raises."""
        return self.is_active and self.kind == event.kind and is_selected(self.match, event.device)

    def call(self, event: Event) -> None:
        """Call the callback if it wants the event. Exceptions of the user's code are logged, not raised."""
        try:
            if self.wants(event):
                self.callback(event.device)
        except BaseException:  # also sys.exit(), which would end the thread for all callbacks
            log.exception("a callback for a device %s failed", event.kind)


class Registry:
    """Attached interfaces of one backend. Subscribes to changes before it enumerates, so that no device is missed."""

    def __init__(self, backend: Backend, releases: Releases | None = None) -> None:
        """Begin to watch; `close` is added to `releases` before the thread is started."""
        self._backend = backend
        self._lock = threading.RLock()
        self._generations = itertools.count(1)
        self._attached: dict[Identity, list[Event]] = {}  # an empty list: no mass storage
        self._first_seen: dict[Identity, float] = {}  # time, of devices that are not ready yet
        self._subscriptions: list[Subscription] = []
        self._readers: weakref.WeakSet[Events] = weakref.WeakSet()
        self._calls: deque[tuple[Subscription, Event]] = deque()
        self._is_closed = False
        self._is_forked = False
        self._watcher = Watcher(backend, self._look, "scsiusb manager")
        try:
            if releases is not None:
                releases.add(self.close)
            self._watcher.subscribe()
            self._update(settle_time=0)
            self._watcher.start()
        except BaseException:
            self._watcher.close()
            raise

    def devices(self) -> list[InterfaceInfo]:
        """Return the attached mass-storage interfaces, sorted by bus and port. Raises DeviceClosed."""
        with self._lock:
            self._check()
            events = [event for group in self._attached.values() for event in group]
        return sorted((event.device for event in events), key=lambda info: (info.device.bus, info.device.ports))

    def on_attach(self, callback: Callable[[InterfaceInfo], object], match: Match) -> Subscription:
        """Call `callback` for each interface that is attached, now or later. Raises DeviceClosed."""
        return self.subscribe(ATTACHED, callback, match)

    def on_detach(self, callback: Callable[[InterfaceInfo], object], match: Match) -> Subscription:
        """Call `callback` for each interface that is detached later. Raises DeviceClosed."""
        return self.subscribe(DETACHED, callback, match)

    def subscribe(self, kind: str, callback: Callable[[InterfaceInfo], object], match: Match) -> Subscription:
        """Call `callback` in the registry's thread for each event of `kind`. Raises DeviceClosed."""
        subscription = Subscription(kind, callback, match)
        with self._lock:
            self._check()
            self._subscriptions = [each for each in self._subscriptions if each.is_active]
            self._subscriptions.append(subscription)
            self._calls.extend((subscription, event) for event in self._attach_events() if kind == ATTACHED)
        self._watcher.poke()
        return subscription

    def events(self, timeout: float | None, match: Match) -> Events:
        """Return an iterator that begins with the interfaces attached now; see `Events`. Raises DeviceClosed."""
        reader = Events(timeout, match)
        with self._lock:
            self._check()
            for event in self._attach_events():
                reader.offer(event)
            self._readers.add(reader)
        return reader

    def close(self) -> None:
        """Stop the callbacks, end the iterations and join the thread. May be called again, also by a callback."""
        with self._lock:
            self._is_closed = True
            readers = tuple(self._readers)
        with ExitStack() as stack:
            stack.callback(self._watcher.close)
            for reader in readers:
                stack.callback(reader.close)

    def after_fork(self) -> None:
        """End the iterations in the child of a fork; every later use raises DeviceClosed."""
        self._lock = threading.RLock()
        self._is_closed = self._is_forked = True
        for reader in tuple(self._readers):
            reader.after_fork()
        self._watcher.after_fork()

    def _check(self) -> None:
        if self._is_forked:
            raise DeviceClosed("the manager belongs to the process that forked this one", "make one in this process")
        if self._is_closed:
            raise DeviceClosed("the manager was closed", "make another one")

    def _attach_events(self) -> list[Event]:
        events = [event for group in self._attached.values() for event in group]
        return sorted(events, key=lambda event: event.generation)

    # --- in the thread --------------------------------------------------------------------------

    def _look(self) -> float | None:
        try:
            self._update(SETTLE_TIME)
        finally:
            self._deliver()
        return POLL_INTERVAL if self._first_seen else None

    def _deliver(self) -> None:
        while self._calls and not self._is_closed:
            subscription, event = self._calls.popleft()
            subscription.call(event)

    def _update(self, settle_time: float) -> None:
        """Compare the devices on the bus with the known ones, and announce detached interfaces, then attached ones.

        A new device may take `settle_time` seconds until it is ready. Raises TransportError.
        """
        try:
            devices = {device.identity: device for device in self._backend.devices()}
            new = [identity for identity in sorted(devices, key=_place) if identity not in self._attached]
            found = {place: self._ready_interfaces(devices[place], settle_time) for place in new}
        except UsbError as error:
            raise translate(error, "looking for devices") from error
        with self._lock:
            self._first_seen = {place: since for place, since in self._first_seen.items() if place in devices}
            self._drop(self._attached.keys() - devices.keys())
            for place, infos in found.items():
                if infos is not None:
                    self._first_seen.pop(place, None)
                    self._attached[place] = [self._attach(info) for info in infos]

    def _ready_interfaces(self, device: Device, settle_time: float) -> list[InterfaceInfo] | None:
        """Return the mass-storage interfaces of a new device, or None while the kernel is still setting it up."""
        infos = interfaces_of(self._backend, device)
        waits_for_driver = self._backend.is_shared and ON_LINUX and any(info.driver is None for info in infos)
        if device.configuration and not waits_for_driver:
            return infos
        since = self._first_seen.setdefault(device.identity, time.monotonic())
        return None if time.monotonic() - since < settle_time else infos

    def _drop(self, identities: Set[Identity]) -> None:
        gone = [event for identity in identities for event in self._attached.pop(identity)]
        for event in sorted(gone, key=lambda event: event.generation):
            self._announce(replace(event, kind=DETACHED, time=_now()))

    def _attach(self, info: InterfaceInfo) -> Event:
        event = Event(ATTACHED, info, next(self._generations), _now())
        self._announce(event)
        return event

    def _announce(self, event: Event) -> None:
        log.info("%s %s", event.device, event.kind)
        self._calls.extend((each, event) for each in self._subscriptions if each.kind == event.kind)
        for reader in tuple(self._readers):
            reader.offer(event)


def _place(identity: Identity) -> Identity:
    """Return bus and device number, to sort by: some of the other values cannot be compared."""
    return identity[:2]


def _now() -> datetime:
    return datetime.now(timezone.utc).astimezone()
