"""The mass-storage interfaces attached now, and whoever wants to know of changes, served by one thread."""

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
from typing import Final

from scsiusb.base.dataclass import dataclass
from scsiusb.errors import DeviceClosed
from scsiusb.manager.events import ATTACHED, DETACHED, Event, Events, Match, is_meant
from scsiusb.manager.watcher import Watcher
from scsiusb.usb.backend import Backend, Device, UsbError
from scsiusb.usb.interface import InterfaceInfo, interfaces_of
from scsiusb.usb.translate import translate

SETTLING: Final = 1.0  # seconds that a device may take to be configured and to get its driver
LOOK_AGAIN: Final = 0.03
ON_LINUX: Final = sys.platform == "linux"

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Subscription:
    """A callback that is called with the InterfaceInfo until `cancel`."""

    kind: str
    callback: Callable[[InterfaceInfo], object]
    match: Match
    is_active: bool = True

    def cancel(self) -> None:
        self.is_active = False

    def wants(self, event: Event) -> bool:
        return self.is_active and self.kind == event.kind and is_meant(self.match, event.device)

    def call(self, event: Event) -> None:
        """What the user's code raises is reported and hurts nobody else."""
        try:
            if self.wants(event):
                self.callback(event.device)
        except BaseException:  # sys.exit() too would end the thread that serves everybody
            log.exception("a callback for a device %s failed", event.kind)


class Registry:
    """Subscribed first, then enumerated: no device falls into the gap."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._lock = threading.RLock()
        self._generations = itertools.count(1)
        self._attached: dict[tuple[int, int], list[Event]] = {}  # by bus and device number; also what is no storage
        self._settling: dict[tuple[int, int], float] = {}  # when it was seen first
        self._subscriptions: list[Subscription] = []
        self._readers: weakref.WeakSet[Events] = weakref.WeakSet()
        self._calls: deque[tuple[Subscription, Event]] = deque()
        self._is_closed = False
        self._is_foreign = False
        self._watcher = Watcher(backend, self._turn, "scsiusb manager")
        try:
            self._update(retry_state=0)
            self._watcher.start()
        except BaseException:
            self._watcher.close()
            raise

    def devices(self) -> list[InterfaceInfo]:
        """What is attached now, by address."""
        with self._lock:
            self._check()
            events = [event for group in self._attached.values() for event in group]
        return sorted((event.device for event in events), key=lambda info: (info.device.bus, info.device.ports))

    def on_attach(self, callback: Callable[[InterfaceInfo], object], match: Match) -> Subscription:
        return self.subscribe(ATTACHED, callback, match)

    def on_detach(self, callback: Callable[[InterfaceInfo], object], match: Match) -> Subscription:
        return self.subscribe(DETACHED, callback, match)

    def subscribe(self, kind: str, callback: Callable[[InterfaceInfo], object], match: Match) -> Subscription:
        subscription = Subscription(kind, callback, match)
        with self._lock:
            self._check()
            self._subscriptions = [each for each in self._subscriptions if each.is_active]
            self._subscriptions.append(subscription)
            self._calls.extend((subscription, event) for event in self._present() if kind == ATTACHED)
        self._watcher.poke()
        return subscription

    def events(self, timeout: float | None, match: Match) -> Events:
        reader = Events(timeout, match)
        with self._lock:
            self._check()
            for event in self._present():
                reader.offer(event)
            self._readers.add(reader)
        return reader

    def close(self) -> None:
        """Joins the thread; iterations end. May be called again, also by a callback."""
        with self._lock:
            self._is_closed = True
            readers = tuple(self._readers)
        with ExitStack() as stack:
            stack.callback(self._watcher.close)
            for reader in readers:
                stack.callback(reader.close)

    def after_fork(self) -> None:
        """In a fork's child, where iterations end."""
        self._lock = threading.RLock()
        self._is_closed = self._is_foreign = True
        for reader in tuple(self._readers):
            reader.after_fork()
        self._watcher.after_fork()

    def _check(self) -> None:
        if self._is_foreign:
            raise DeviceClosed("the manager belongs to the process that forked this one", "make one in this process")
        if self._is_closed:
            raise DeviceClosed("the manager was closed", "make another one")

    def _present(self) -> list[Event]:
        events = [event for group in self._attached.values() for event in group]
        return sorted(events, key=lambda event: event.generation)

    # --- in the thread --------------------------------------------------------------------------

    def _turn(self) -> float | None:
        try:
            self._update(SETTLING)
        finally:
            self._deliver()
        return LOOK_AGAIN if self._settling else None

    def _deliver(self) -> None:
        while self._calls and not self._is_closed:
            subscription, event = self._calls.popleft()
            subscription.call(event)

    def _update(self, retry_state: float) -> None:
        """Compares the bus with what is known; who left is told before who came."""
        try:
            devices = {(device.bus, device.number): device for device in self._backend.devices()}
            new = sorted(devices.keys() - self._attached.keys())
            come = {place: self._settled(devices[place], retry_state) for place in new}
        except UsbError as error:
            raise translate(error, "looking for devices") from error
        with self._lock:
            self._settling = {place: since for place, since in self._settling.items() if place in devices}
            self._drop(self._attached.keys() - devices.keys())
            for place, infos in come.items():
                if infos is not None:
                    self._settling.pop(place, None)
                    self._attached[place] = [self._attach(info) for info in infos]

    def _settled(self, device: Device, retry_state: float) -> list[InterfaceInfo] | None:
        """Its mass-storage interfaces; None while the kernel is still busy with the plugging-in."""
        infos = interfaces_of(self._backend, device)
        waits_for_driver = self._backend.is_shared and ON_LINUX and any(info.driver is None for info in infos)
        if device.configuration and not waits_for_driver:
            return infos
        since = self._settling.setdefault((device.bus, device.number), time.monotonic())
        return None if time.monotonic() - since < retry_state else infos

    def _drop(self, places: Set[tuple[int, int]]) -> None:
        gone = [event for place in places for event in self._attached.pop(place)]
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


def _now() -> datetime:
    return datetime.now(timezone.utc).astimezone()
