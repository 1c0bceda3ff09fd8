"""A READ under way whose phases are moved on by whoever looks after those of many devices in one thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from scsiusb.manager.client import Client
from scsiusb.scsi.block import BlockCommand
from scsiusb.scsi.unit import LogicalUnit
from scsiusb.transport.base import Completion
from scsiusb.transport.phases import CBW_LENGTH, Phases
from scsiusb.usb.backend import Code, Overlap, UsbError

OK: Final = Code.OK
Step = Callable[..., Completion]
Finish = Callable[[Callable[[], Completion]], None]


class Overlapped:
    """Moves on what goes as it should; from anything else on, the command is waited for, as a single one is.

    Keeps other commands from the device until it has ended, or was abandoned. For one thread alone.
    """

    def __init__(self, client: Client, overlap: Overlap, phases: Phases, conclude: Step, finish: Finish) -> None:
        self._client = client
        self._overlap = overlap
        self._phases = phases
        self._conclude = conclude
        self._finish = finish
        self._transfer: Any = None
        self._after: Callable[[Code, int], bool] | None = None

    @classmethod
    def begin(
        cls, unit: LogicalUnit, command: BlockCommand, buffer: memoryview, changes: int, finish: Finish
    ) -> Overlapped | None:
        """None where the command cannot go this way, or not now.

        `changes`: the unit's `medium_changes` that its addresses mean. `finish` is called with what gives the
        completion, when that is due, and raises what becomes of the command.
        """
        client = unit.transport
        overlap = client.overlap if isinstance(client, Client) else None
        if overlap is None:
            return None
        assert isinstance(client, Client)
        cdb, timeout = command.cdb(), unit.timeout or command.timeout
        phases = client.begin(unit.lun, cdb, command.direction, buffer, timeout)
        if phases is None:
            return None
        begun = cls(client, overlap, phases, partial(client.conclude, cdb, timeout), finish)
        if changes != unit.medium_changes:
            begun.abandon()
            return None
        return begun

    def proceed(self) -> bool:
        """Moves on, if it can, without waiting; True when the blocks are here. Raises as `Disk.readinto`."""
        if self._after is None:
            phases = self._phases
            return self._submit(phases.out, phases.cbw, self._after_cbw, phases.send)
        answer = self._overlap.outcome(self._transfer)
        if answer is None:
            if time.monotonic() < self._phases.deadline:
                return False
            answer = self._overlap.cancel(self._transfer)
        self._transfer = None
        return self._after(*answer)

    def abandon(self) -> None:
        """Ends it in the middle; the device is then recovered before its next command."""
        transfer, self._transfer = self._transfer, None
        try:
            if transfer is not None:
                self._overlap.cancel(transfer)
        finally:
            self._client.release()

    def _after_cbw(self, code: Code, count: int) -> bool:
        phases = self._phases
        if code is OK and count == CBW_LENGTH and not phases.pause:
            return self._submit(phases.into, phases.data, self._after_data, phases.after_cbw, code, count)
        return self._end(phases.after_cbw, code, count)

    def _after_data(self, code: Code, count: int) -> bool:
        phases = self._phases
        if code is OK and count == len(phases.data):
            return self._submit(phases.into, phases.csw, self._after_csw, phases.after_data_in, code, count)
        return self._end(phases.after_data_in, code, count)

    def _after_csw(self, code: Code, count: int) -> bool:
        return self._end(self._phases.after_csw, code, count, len(self._phases.data))

    def _submit(
        self, endpoint: int, buffer: memoryview, after: Callable[[Code, int], bool], instead: Step, *known: object
    ) -> bool:
        """Begins a transfer; where that fails, `instead` is the step that does it, and what follows, in its own way."""
        try:
            self._transfer = self._overlap.submit(endpoint, buffer)
        except UsbError:
            return self._end(instead, *known)
        self._after = after
        return False

    def _end(self, step: Step, *known: object) -> bool:
        try:
            self._finish(partial(self._conclude, step, *known))
        finally:
            self._client.release()
        return True
