"""Records a manager's events by callback, iterator and async iterator; checks that each event comes once, in order."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from sys import intern

import scsiusb
from scsiusb.manager.events import Event, Events

ATTACHED, DETACHED = "attached", "detached"


@dataclass(frozen=True, slots=True)  # thousands are kept, and memory is measured
class Seen:
    """An event as one of the ways showed it; a callback does not get the generation."""

    kind: str
    serial: str
    number: int
    generation: int | None
    at: float

    @property
    def plain(self) -> tuple[str, str, int]:
        """What all ways show of an event."""
        return self.kind, self.serial, self.number


class Recorder:
    """Records the events of the devices with these serial numbers."""

    def __init__(self, manager: scsiusb.Manager, serials: Iterable[str]) -> None:
        self._serials = frozenset(serials)
        self.by_callback: list[Seen] = []
        self.by_iterator: list[Seen] = []
        self.by_async: list[Seen] = []
        self._subscriptions = [
            manager.on_attach(lambda info: self._call(ATTACHED, info), self._is_meant),
            manager.on_detach(lambda info: self._call(DETACHED, info), self._is_meant),
        ]
        self._threads = [
            threading.Thread(target=self._iterate, args=(manager.events(device=self._is_meant),), name="iterator"),
            threading.Thread(target=self._run_async, args=(manager.events(device=self._is_meant),), name="async"),
        ]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait for the threads, after the manager was closed."""
        for thread in self._threads:
            thread.join(60)

    def count(self, kind: str, serial: str) -> int:
        """Return how many such events all three ways have shown."""
        ways = (self.by_callback, self.by_iterator, self.by_async)
        return min(sum((each.kind, each.serial) == (kind, serial) for each in tuple(way)) for way in ways)

    def last(self, serial: str) -> Seen:
        """Return the latest event of a device."""
        return [each for each in self.by_iterator if each.serial == serial][-1]

    def faults(self, plugs: dict[str, int], present: Iterable[str]) -> list[str]:
        """Return what is wrong.

        `plugs`: how often each device was plugged in; `present`: the devices that are plugged in now.
        """
        there = set(present)
        found = _compare("callbacks", self.by_callback, "the iterator", self.by_iterator)
        found += _compare("async for", self.by_async, "the iterator", self.by_iterator)
        if [each.generation for each in self.by_async] != [each.generation for each in self.by_iterator]:
            found.append("the iterator and async for show different generations")
        attached = [each.generation or 0 for each in self.by_iterator if each.kind == ATTACHED]
        if any(late <= early for early, late in pairwise(attached)):
            found.append(f"generations do not grow: {attached}")
        for serial, number in plugs.items():
            own = [each for each in self.by_iterator if each.serial == serial]
            found += _alternation(serial, own, 2 * number - (serial in there))
        return found

    def _is_meant(self, info: scsiusb.InterfaceInfo) -> bool:
        return info.serial in self._serials

    def _call(self, kind: str, info: scsiusb.InterfaceInfo) -> None:
        self.by_callback.append(Seen(kind, intern(info.serial or ""), info.device.number, None, time.monotonic()))

    def _iterate(self, events: Iterable[Event]) -> None:
        for event in events:
            self.by_iterator.append(_seen(event))

    def _run_async(self, events: Events) -> None:
        async def iterate() -> None:
            async for event in events:
                self.by_async.append(_seen(event))

        asyncio.run(iterate())


def _seen(event: Event) -> Seen:
    info = event.device
    return Seen(event.kind, info.serial or "", info.device.number, event.generation, time.monotonic())


def _compare(name: str, ours: Sequence[Seen], other: str, theirs: Sequence[Seen]) -> list[str]:
    if [each.plain for each in ours] == [each.plain for each in theirs]:
        return []
    return [f"{name} and {other} show different events: {len(ours)} and {len(theirs)}"]


def _alternation(serial: str, own: Sequence[Seen], expected: int) -> list[str]:
    """Check that events alternate between attached and detached, in pairs of one generation, with none missing."""
    found = []
    if len(own) != expected:
        found.append(f"{serial}: {len(own)} events instead of {expected}")
    if [each.kind for each in own] != [(ATTACHED, DETACHED)[number % 2] for number in range(len(own))]:
        found.append(f"{serial}: the events do not alternate: {[each.kind for each in own]}")
    for came, left in zip(own[::2], own[1::2], strict=False):
        if (came.generation, came.number) != (left.generation, left.number):
            found.append(f"{serial}: attached as {came.generation}, detached as {left.generation}")
    return found
