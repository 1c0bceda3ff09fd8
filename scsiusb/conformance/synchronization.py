"""Gets host and device into step: the next CSW that comes is the one of the last CBW, and bulk-in is empty after it.

A device may keep the data or the CSW of a command through a reset recovery, although BOT 5.3.4 forbids it. Each later
command then gets what belongs to the one before, and what the device says has no meaning.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from scsiusb.conformance.exchange import Exchange, ExchangeResult
from scsiusb.errors import DeviceGone, TransportError
from scsiusb.scsi.commands.spc import TestUnitReady
from scsiusb.transport.bot.formats import CSW_CODEC
from scsiusb.usb.backend import Code

ROUNDS: Final = 8  # TEST UNIT READYs at most
READ_SIZE: Final = 1 << 16  # bytes of one read that drains bulk-in
MOST_READS: Final = 1024  # that drain bulk-in; a device that sends more than they take sends without end


class Synchronizer:
    """Brings a device into step by TEST UNIT READY, whose CSW is known by its tag."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.problem = ""  # what came instead of the CSW of TEST UNIT READY
        self.stale = 0  # bytes of earlier commands that were read from bulk-in, until the caller sets this to 0
        self.accepts_any = False  # any answer counts as being in step: for a device that never sends a correct CSW
        self._has_wrong_tags = False  # its CSWs never have the tag of the CBW

    def synchronize(self) -> ExchangeResult | None:
        """Send TEST UNIT READY, and drain bulk-in, until its own CSW comes; return its result, or None if none comes.

        Raises DeviceGone.
        """
        was_alone = False  # the last answer was wrong although nothing else was in bulk-in
        for _ in range(ROUNDS):
            try:
                result = self._exchange.command(TestUnitReady())
                own = self._own(result)
                if own is not None or not result.is_answered:
                    return own
                count = self.stale
                own = self._drain(result)
            except DeviceGone:
                raise
            except TransportError as error:
                self.problem = error.what
                return None
            if own is not None:
                return own
            is_alone = self.stale == count
            if is_alone and was_alone:  # nothing more to read: the device answers so each time
                self._has_wrong_tags = result.has_csw
                return self._own(result)
            was_alone = is_alone
            self.stale += 0 if is_alone else len(result.csw)
        return None

    def _own(self, result: ExchangeResult) -> ExchangeResult | None:
        """Return the result if its CSW belongs to the command, else None, with the reason in `problem`."""
        self.problem = f"{result.asked}: {result.description}"
        if result.has_csw and (self._has_wrong_tags or result.fields[1] == result.tag):
            return result
        if result.has_csw:
            self.problem += f", tag {result.fields[1]:08X}h instead of {result.tag:08X}h"
        return result if self.accepts_any and result.is_answered else None

    def _drain(self, result: ExchangeResult) -> ExchangeResult | None:
        """Read bulk-in until the CSW of the command comes or nothing more; return the result with that CSW, if any."""
        for _ in range(MOST_READS):
            code, data = self._exchange.receive(READ_SIZE, "drain")
            if code is Code.PIPE:
                self._exchange.clear_halt_in()
            elif code not in (Code.OK, Code.OVERFLOW):
                return None
            if len(data) == CSW_CODEC.length:
                found = replace(result, csw=data)
                if found.fields[1] == result.tag:
                    self.stale += len(result.csw)
                    return found
            self.stale += len(data)
        return None
