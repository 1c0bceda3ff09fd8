"""READs of one device whose phases are moved on by whoever looks after those of many devices in one thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from scsiusb.errors import TransportError
from scsiusb.manager.client import Client
from scsiusb.scsi.unit import Attempt, LogicalUnit, raise_last
from scsiusb.transport.base import GOOD, Completion, Direction
from scsiusb.transport.phases import CBW_LENGTH, Phases
from scsiusb.usb.backend import Code, Overlap, UsbError

OK: Final = Code.OK
Step = Callable[..., Completion]
Finish = Callable[[Callable[[], Attempt]], None]


class Overlapped:
    """Moves on what goes as it should; from anything else on, the command is waited for, as a single one is.

    One command at a time, which keeps others from the device until it has ended, or was abandoned. For one thread.
    """

    def __init__(self, unit: LogicalUnit, client: Client, overlap: Overlap) -> None:
        self._unit = unit
        self._client = client
        self._overlap = overlap
        self._phases: Phases | None = None  # of the command under way
        self._cdb, self._timeout = b"", 0.0
        self._finish: Finish | None = None
        self._transfer: Any = None
        self._after: Callable[[Phases, Code, int], bool] | None = None

    @property
    def is_under_way(self) -> bool:
        return self._phases is not None

    def begin(self, cdb: bytes, buffer: memoryview, timeout: float, changes: int, finish: Finish) -> bool:
        """False where the command cannot go this way, or not now. Else `proceed`, until that is True.

        `changes`: the unit's `medium_changes` that its addresses mean. `finish` is called where there is more to say
        than that all is here: with what gives the attempt, or raises; and raises what becomes of the command.
        """
        unit, client = self._unit, self._client
        self._cdb, self._timeout = cdb, timeout
        phases = self._phases = client.begin(unit.lun, cdb, Direction.IN, buffer, timeout)
        if phases is None:
            return False
        if changes != unit.medium_changes:
            self.abandon()
            return False
        self._finish, self._after = finish, None
        return True

    def proceed(self) -> bool:
        """Moves on, if it can, without waiting; True when the blocks are here. Raises as `Disk.readinto`."""
        phases, after = self._phases, self._after
        assert phases is not None
        if after is None:
            return self._submit(phases.out, phases.cbw, self._after_cbw, phases.send)
        overlap = self._overlap
        overlap.handle_events()
        answer = overlap.outcome(self._transfer)
        if answer is None:
            if time.monotonic() < phases.deadline:
                return False
            answer = overlap.cancel(self._transfer)
        self._transfer = None
        return after(phases, *answer)

    def abandon(self) -> None:
        """Ends what is under way, in the middle; the device is then recovered before its next command."""
        transfer, self._transfer = self._transfer, None
        if self._phases is None:
            return
        self._phases = None
        try:
            if transfer is not None:
                self._overlap.cancel(transfer)
        finally:
            self._client.release()

    def _after_cbw(self, phases: Phases, code: Code, count: int) -> bool:
        if code is OK and count == CBW_LENGTH and not phases.pause:
            return self._submit(phases.into, phases.data, self._after_data, phases.after_cbw, code, count)
        return self._end(phases.after_cbw, code, count)

    def _after_data(self, phases: Phases, code: Code, count: int) -> bool:
        if code is OK and count == len(phases.data):
            return self._submit(phases.into, phases.csw, self._after_csw, phases.after_data_in, code, count)
        return self._end(phases.after_data_in, code, count)

    def _after_csw(self, phases: Phases, code: Code, count: int) -> bool:
        return self._end(phases.after_csw, code, count, len(phases.data))

    def _submit(
        self, endpoint: int, buffer: memoryview, after: Callable[[Phases, Code, int], bool], instead: Step, *known: Any
    ) -> bool:
        """Begins a transfer; where that fails, `instead` is the step that does it, and what follows, in its own way."""
        try:
            self._transfer = self._overlap.submit(endpoint, buffer)
        except UsbError:
            return self._end(instead, *known)
        self._after = after
        return False

    def _end(self, step: Step, *known: Any) -> bool:
        phases, self._phases = self._phases, None
        assert phases is not None
        assert self._finish is not None
        try:
            try:
                completion = self._client.conclude(self._cdb, self._timeout, step, *known)
            except TransportError as error:
                self._finish(partial(raise_last, [error]))
            else:
                if completion != (GOOD, 0, len(phases.data)):
                    self._finish(lambda: (completion, None if completion.status == GOOD else self._unit.why()))
        finally:
            self._client.release()
        return True
