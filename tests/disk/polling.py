"""Asynchronous transfers on virtual sticks: each completes in `submit`, unless a test makes the bus hang."""

from __future__ import annotations

import os
from typing import Any

from scsiusb.usb.backend import Code, Device, UsbError
from scsiusb.virtual import VirtualHandle
from tests.deadlines import within
from tests.sticks import Answer, InterceptedBus, InterceptedHandle

LONG = 1000  # milliseconds: timeout of a transfer to a virtual stick that does not answer


class Pending:
    """A submitted transfer; `answer` is None while it is pending."""

    def __init__(self, answer: Answer | None) -> None:
        self.answer = answer


class FakeAsyncTransfers:
    """Implements `AsyncTransfers` with `Handle.bulk`."""

    def __init__(self, handle: InterceptedHandle, bus: PolledBus) -> None:
        self._handle = handle
        self._bus = bus
        self._ends = os.pipe()  # the write end is always ready for poll

    def fileno(self) -> int:
        return self._ends[1]

    def submit(self, endpoint: int, buffer: memoryview, held: list[Pending], stream: int = 0) -> None:
        self._bus.submitted += 1
        if self._bus.refusals.pop(self._bus.submitted, None) is not None:
            raise UsbError(Code.NO_MEM)
        held.append(Pending(None if self._bus.hangs else self._handle.bulk(endpoint, buffer, within(LONG))))
        if self._bus.hangs:
            self._bus.under_way.extend(held)

    def handle_events(self, held: list[Pending] | None = None) -> None:
        """Do nothing: the result of every transfer is already known."""

    def await_events(self, seconds: float) -> None:
        """Do nothing, as `handle_events`."""

    def outcome(self, held: list[Pending]) -> Answer | None:
        answer = held[0].answer
        if answer is not None:
            held.clear()
        return answer

    def cancel(self, held: list[Pending]) -> Answer:
        if held[0] in self._bus.under_way:
            self._bus.under_way.remove(held[0])
        return held.pop().answer or (Code.TIMEOUT, 0)

    def close(self) -> None:
        for end in self._ends:
            os.close(end)


class PolledBus(InterceptedBus):
    """A bus whose handles have asynchronous transfers.

    The submissions numbered in `refusals` (from 1) fail with NO_MEM. While `hangs` is set, no transfer completes.
    """

    transfers: type[FakeAsyncTransfers] = FakeAsyncTransfers

    def __init__(self, *sticks: Any) -> None:
        super().__init__(*sticks)
        self.submitted = 0
        self.refusals: dict[int, bool] = {}
        self.hangs = False
        self.under_way: list[Pending] = []
        """Transfers that hang, and were not cancelled yet."""
        self._async_transfers: list[FakeAsyncTransfers] = []

    def open(self, device: Device) -> VirtualHandle:
        handle = super().open(device)
        assert isinstance(handle, InterceptedHandle)
        async_transfers = self.transfers(handle, self)
        self._async_transfers.append(async_transfers)
        handle.async_transfers = async_transfers  # type: ignore[assignment]
        return handle

    def close(self) -> None:
        super().close()
        for async_transfers in self._async_transfers:
            async_transfers.close()
        self._async_transfers.clear()
