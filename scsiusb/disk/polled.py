"""READs of one device whose command are moved on by whoever looks after those of many devices in one thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from scsiusb.errors import TransportError
from scsiusb.scsi.unit import CommandResult, LogicalUnit, raise_last
from scsiusb.transport.base import GOOD, Direction, PolledCommand, Polling
from scsiusb.usb.backend import Code, UsbError

OK: Final = Code.OK
DATA: Final = 1  # the number of that step
Finish = Callable[[Callable[[], CommandResult]], None]


class PolledReader:
    """Moves on what goes as it should; from anything else on, the command is waited for, as a single one is.

    One command at a time, which keeps others from the device until it has ended, or was abandoned. For one thread.
    """

    def __init__(self, unit: LogicalUnit, polling: Polling) -> None:
        self._unit = unit
        self._polling = polling
        self._transfers = polling.transfers
        self._command: PolledCommand | None = None  # of the command under way
        self._cdb, self._timeout = b"", 0.0
        self._finish: Finish | None = None
        self._transfer: Any = None
        self._number = 0  # of its step, which the transfer is for

    @property
    def is_under_way(self) -> bool:
        return self._command is not None

    def begin(self, cdb: bytes, buffer: memoryview, timeout: float, changes: int, finish: Finish) -> bool:
        """False where the command cannot go this way, or not now. Else `proceed`, until that is True.

        `changes`: the unit's `medium_changes` that its addresses mean. `finish` is called where there is more to say
        than that all is here: with what gives the attempt, or raises; and raises what becomes of the command.
        """
        unit, polling = self._unit, self._polling
        self._cdb, self._timeout = cdb, timeout
        command = self._command = polling.begin(unit.lun, cdb, Direction.IN, buffer, timeout)
        if command is None:
            return False
        if changes != unit.medium_changes:
            self.cancel()
            return False
        self._finish, self._number = finish, 0
        return True

    def proceed(self) -> bool:
        """Moves on as far as that takes but a moment; True when the blocks are here. Raises as `Disk.readinto`."""
        command, transfers, transfer, number = self._command, self._transfers, self._transfer, self._number
        assert command is not None
        if transfer is not None:
            transfers.handle_events()
        steps = command.steps
        while True:
            if transfer is None:
                endpoint, buffer = steps[number]
                try:
                    self._transfer = transfer = transfers.submit(endpoint, buffer)
                except UsbError as error:
                    return self._end(command, number, error.code, 0)
                if number != DATA:  # which alone takes its time
                    transfers.handle_events(transfer)
            answer = transfers.outcome(transfer)
            if answer is None:
                if time.monotonic() < command.deadline:
                    return False
                answer = transfers.cancel(transfer)
            self._transfer = transfer = None
            code, count = answer
            if code is not OK or count != len(steps[number][1]) or steps[number] is steps[-1] or command.pause:
                return self._end(command, number, code, count)
            self._number = number = number + 1

    def cancel(self) -> None:
        """Ends what is under way, in the middle; the device is then recovered before its next command."""
        transfer, self._transfer = self._transfer, None
        if self._command is None:
            return
        self._command = None
        try:
            if transfer is not None:
                self._transfers.cancel(transfer)
        finally:
            self._polling.release()

    def _end(self, command: PolledCommand, number: int, code: Code, count: int) -> bool:
        """The last step, or one that was not whole."""
        self._command = None
        assert self._finish is not None
        try:
            try:
                completion = self._polling.conclude(self._cdb, self._timeout, number, code, count)
            except TransportError as error:
                self._finish(partial(raise_last, [error]))
            else:
                if completion != (GOOD, 0, len(command.data)):
                    self._finish(lambda: (completion, None if completion.status == GOOD else self._unit.fetch_sense()))
        finally:
            self._polling.release()
        return True
