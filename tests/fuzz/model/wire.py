"""A bus on which something happens at the n-th transfer from now on, and transfers that complete later."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from scsiusb.usb.backend import Code
from tests.deadlines import within
from tests.disk.polling import FakeAsyncTransfers, PolledBus
from tests.fuzz.faults import HostFault, intercept_for
from tests.sticks import Answer, Intercept, InterceptedBus, InterceptedHandle, Wire

Event = Callable[[], "Answer | None"]
PATIENCE_MS: Final = 20  # milliseconds, for an asynchronous transfer that the device does not answer


class Happenings:
    """What happens at a later transfer. A KeyboardInterrupt is only for the main thread, as a real one is."""

    def __init__(self, wire: Wire) -> None:
        self._events: list[tuple[int, Event]] = []
        self._lock = threading.Lock()
        self._host_fault: Intercept | None = None
        wire.intercept = self._intercept

    def at(self, count: int, event: Event) -> None:
        """Let the event happen before the `count`-th transfer from now on, from 0; its answer replaces the device's."""
        with self._lock:
            self._events.append((count, event))

    def add_host_fault(self, fault: HostFault) -> None:
        """Let a transfer fail."""
        self._host_fault = intercept_for(fault)

    def clear(self) -> None:
        """Let nothing more happen."""
        with self._lock:
            self._events.clear()
        self._host_fault = None

    def _intercept(self, wire: Wire, endpoint: int, buffer: memoryview) -> Answer | None:
        wire.log.clear()
        with self._lock:
            due = [event for count, event in self._events if not count]
            self._events = [(count - 1, event) for count, event in self._events if count]
        answers = [event() for event in due]
        answer = next((answer for answer in answers if answer is not None), None)
        return self._host_fault(wire, endpoint, buffer) if answer is None and self._host_fault else answer


class _Later:
    """A transfer that the device is asked for when its result is wanted."""

    def __init__(self, endpoint: int, buffer: memoryview) -> None:
        self.endpoint, self.buffer = endpoint, buffer
        self.answer: Answer | None = None


class LaterTransfers(FakeAsyncTransfers):
    """Asynchronous transfers that take place in the next `handle_events`, not in `submit`."""

    def __init__(self, handle: InterceptedHandle, bus: PolledBus) -> None:
        super().__init__(handle, bus)
        self._pending: list[_Later] = []

    def submit(self, endpoint: int, buffer: memoryview, held: list[Any], stream: int = 0) -> None:
        held.append(_Later(endpoint, buffer))
        self._pending.append(held[-1])

    def handle_events(self, held: list[Any] | None = None) -> None:
        for each in tuple(self._pending):
            if held is None or each in held:
                each.answer = self._handle.bulk(each.endpoint, each.buffer, within(PATIENCE_MS))
                self._pending.remove(each)

    def outcome(self, held: list[Any]) -> Answer | None:
        answer: Answer | None = held[0].answer
        if answer is not None:
            held.clear()
        return answer

    def cancel(self, held: list[Any]) -> Answer:
        if not held:
            return Code.TIMEOUT, 0
        transfer = held.pop()
        if transfer in self._pending:
            self._pending.remove(transfer)
        return transfer.answer or (Code.TIMEOUT, 0)


class LaterBus(PolledBus):
    """A bus whose handles have `LaterTransfers`."""

    transfers = LaterTransfers


def bus_of(sticks: Sequence[Any], *, polled: bool) -> InterceptedBus:
    """Return a bus with these sticks."""
    return LaterBus(*sticks) if polled else InterceptedBus(*sticks)
