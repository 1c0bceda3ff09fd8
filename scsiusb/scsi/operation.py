"""Operations that go on in the device after their status, such as a format: follow their progress by REQUEST SENSE."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from scsiusb.scsi.sense import DESCRIPTOR_CODES, RECOVERED_ERROR, RESPONSE_CODE, UNIT_ATTENTION, Sense, error_for

if TYPE_CHECKING:
    from scsiusb.scsi.unit import LogicalUnit

WHOLE: Final = 0x10000  # of the progress (SPC-4 4.5.2.4.4)
FIRST_PAUSE: Final = 0.05  # seconds between the first two questions; each pause is twice as long as the one before
LONGEST_PAUSE: Final = 2.0  # seconds
MOST_ATTENTIONS: Final = 16  # unit attentions in sequence, before one counts as an error
VALID: Final = 0x80  # SKSV
SPECIFIC: Final = 0x02  # type of the sense key specific descriptor
HEADER: Final = 8  # bytes before the descriptors
PLACE: Final = 15  # of the sense key specific field in fixed format
OPERATIONS: Final = frozenset(  # a unit that only starts up (04h/01h) is not ready either, and is in none of them
    (0x04, ascq) for ascq in (0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x1B, 0x24, 0x25)
)


def progress_of(sense: Sense) -> float | None:
    """Return the progress of an operation, 0 to 1, from the sense key specific field; None: it is not reported."""
    field = _specific(sense.raw)
    if len(field) < 3 or not field[0] & VALID or not sense.is_becoming_ready:
        return None
    return int.from_bytes(field[1:3], "big") / WHOLE


def _specific(raw: bytes) -> bytes:
    if not raw or raw[0] & RESPONSE_CODE not in DESCRIPTOR_CODES:
        return raw[PLACE : PLACE + 3]
    rest = raw[HEADER:]
    while len(rest) >= 2:
        if rest[0] == SPECIFIC:
            return rest[4:7]
        rest = rest[2 + rest[1] :]
    return b""


def follow(unit: LogicalUnit, doing: str, report: Callable[[float | None], object]) -> bool:
    """Return when the operation in progress has ended: True; False at once if there is none.

    `report` is called with its progress. The operation goes on if this is interrupted, and can be followed again.
    Raises the error with which it ended, whose text begins with `doing`.
    """
    pause = FIRST_PAUSE
    attentions = 0
    was_running = False
    while True:
        sense = unit.request_sense()
        if sense.is_becoming_ready:
            part = progress_of(sense)
            was_running |= part is not None or (sense.asc, sense.ascq) in OPERATIONS
            report(part)
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        elif sense.key != UNIT_ATTENTION or attentions == MOST_ATTENTIONS:
            break
        else:  # it only says what happened before, and is reported once
            attentions += 1
    if not sense.is_empty and sense.key != RECOVERED_ERROR:
        raise error_for(sense, doing)
    return was_running
