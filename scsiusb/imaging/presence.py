"""Whether a device is there, and answers."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from scsiusb.errors import CheckCondition
from scsiusb.quirks.model import Quirk
from scsiusb.scsi.commands.spc import TestUnitReady
from scsiusb.scsi.retry import RetryPolicy
from scsiusb.scsi.unit import LogicalUnit

ANSWER_TIMEOUT: Final = 5.0  # seconds, for TEST UNIT READY
ONE_TRY: Final = RetryPolicy(failures=0, becoming_ready=0)


def ask(unit: LogicalUnit) -> None:
    """Send a command that any unit answers; an error that it reports is an answer. Raise TransportError."""
    with suppress(CheckCondition):
        if Quirk.NO_TEST_UNIT_READY in unit.transport.quirks:
            unit.request_sense()
        else:
            unit.execute(TestUnitReady(), timeout=ANSWER_TIMEOUT, retry=ONE_TRY)
