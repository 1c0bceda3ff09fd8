"""PolledReader transfers on virtual sticks: each is done when it is begun, unless a test holds it back."""

from __future__ import annotations

import os
from typing import Any

from scsiusb.usb.backend import Code, Device, UsbError
from scsiusb.virtual import VirtualHandle
from tests.sticks import Answer, MeddledBus, MeddledHandle

LONG = 1000  # milliseconds, for a virtual stick that does not answer


class Pending:
    """A transfer; `answer` is None as long as a test holds it back."""

    def __init__(self, answer: Answer | None) -> None:
        self.answer = answer


class Overlapping:
    """An `AsyncTransfers` over `Handle.bulk`."""

    def __init__(self, handle: MeddledHandle, bus: OverlappedBus) -> None:
        self._handle = handle
        self._bus = bus
        self._ends = os.pipe()  # its writing end is always ready

    def fileno(self) -> int:
        return self._ends[1]

    def submit(self, endpoint: int, buffer: memoryview) -> Pending:
        self._bus.submitted += 1
        if self._bus.refusals.pop(self._bus.submitted, None) is not None:
            raise UsbError(Code.NO_MEM)
        if self._bus.hangs:
            return Pending(None)
        return Pending(self._handle.bulk(endpoint, buffer, LONG))

    def handle_events(self, transfer: Pending | None = None) -> None:
        """All is known already."""

    def outcome(self, transfer: Pending) -> Answer | None:
        return transfer.answer

    def cancel(self, transfer: Pending) -> Answer:
        return transfer.answer or (Code.TIMEOUT, 0)

    def close(self) -> None:
        for end in self._ends:
            os.close(end)


class OverlappedBus(MeddledBus):
    """`refusals`: the numbers of the submissions for which there is no memory. `hangs`: nothing ever ends."""

    def __init__(self, *sticks: Any) -> None:
        super().__init__(*sticks)
        self.submitted = 0
        self.refusals: dict[int, bool] = {}
        self.hangs = False
        self._overlaps: list[Overlapping] = []

    def open(self, device: Device) -> VirtualHandle:
        handle = super().open(device)
        assert isinstance(handle, MeddledHandle)
        async_transfers = Overlapping(handle, self)
        self._overlaps.append(async_transfers)
        handle.async_transfers = async_transfers  # type: ignore[assignment]
        return handle

    def close(self) -> None:
        super().close()
        for async_transfers in self._overlaps:
            async_transfers.close()
        self._overlaps.clear()
