"""Wire formats of USB Attached SCSI: the information units (UAS-3 6.2), all numbers big-endian."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from construct import Bytes, Const, Int8ub, Int16ub, Padding, Struct

from scsiusb.base.packing import ByteCodec

MAX_CDB: Final = 16
"""Bytes of the CDB in a command IU. Longer ones would go into additional bytes, which devices do not know."""

COMMAND_ID: Final = 0x01
SENSE_ID: Final = 0x03
RESPONSE_ID: Final = 0x04
TASK_MANAGEMENT_ID: Final = 0x05
READ_READY_ID: Final = 0x06
WRITE_READY_ID: Final = 0x07

COMMAND: Final = Struct(  # UAS-3 6.2.2
    "id" / Const(COMMAND_ID, Int8ub),  # IU ID
    Padding(1),
    "tag" / Int16ub,  # TAG
    "attribute" / Int8ub,  # COMMAND PRIORITY, TASK ATTRIBUTE: 0 is SIMPLE
    Padding(1),
    "additional" / Int8ub,  # ADDITIONAL CDB LENGTH, of four bytes each, in bits 7 to 2
    Padding(1),
    "lun" / Bytes(8),  # LOGICAL UNIT NUMBER
    "cdb" / Bytes(MAX_CDB),  # CDB
)
TASK_MANAGEMENT: Final = Struct(  # UAS-3 6.2.6
    "id" / Const(TASK_MANAGEMENT_ID, Int8ub),
    Padding(1),
    "tag" / Int16ub,
    "function" / Int8ub,  # TASK MANAGEMENT FUNCTION
    Padding(1),
    "task" / Int16ub,  # TAG OF TASK TO BE MANAGED
    "lun" / Bytes(8),
)
STATUS: Final = Struct(  # the sense IU, UAS-3 6.2.4; the sense data follow
    "id" / Int8ub,
    Padding(1),
    "tag" / Int16ub,
    "qualifier" / Int16ub,  # STATUS QUALIFIER
    "status" / Int8ub,  # STATUS (SAM-5 5.3.1)
    Padding(7),
    "sense_length" / Int16ub,  # LENGTH
)
RESPONSE: Final = Struct(  # UAS-3 6.2.5
    "id" / Int8ub,
    Padding(1),
    "tag" / Int16ub,
    "information" / Bytes(3),  # ADDITIONAL RESPONSE INFORMATION
    "code" / Int8ub,  # RESPONSE CODE
)
HEADER: Final = Struct("id" / Int8ub, Padding(1), "tag" / Int16ub)  # of every IU (UAS-3 6.2.1)

COMMAND_CODEC: Final = ByteCodec(COMMAND)
TASK_MANAGEMENT_CODEC: Final = ByteCodec(TASK_MANAGEMENT)
STATUS_CODEC: Final = ByteCodec(STATUS)
RESPONSE_CODEC: Final = ByteCodec(RESPONSE)
HEADER_CODEC: Final = ByteCodec(HEADER)

MAX_SENSE: Final = 252
"""Bytes of sense data that a unit has at most (SPC-4 4.5.1)."""


class Status(IntEnum):
    """How a command ended (SAM-5 5.3.1)."""

    GOOD = 0x00
    CHECK_CONDITION = 0x02
    CONDITION_MET = 0x04
    BUSY = 0x08
    RESERVATION_CONFLICT = 0x18
    TASK_SET_FULL = 0x28
    ACA_ACTIVE = 0x30
    TASK_ABORTED = 0x40


class Function(IntEnum):
    """A task management function (UAS-3 table 20)."""

    ABORT_TASK = 0x01
    LOGICAL_UNIT_RESET = 0x08


class Response(IntEnum):
    """What a device answers to a task management function, or to a command that it cannot take (UAS-3 table 18)."""

    COMPLETE = 0x00
    INVALID_IU = 0x02
    NOT_SUPPORTED = 0x04
    FAILED = 0x05
    SUCCEEDED = 0x08
    INCORRECT_LUN = 0x09
    OVERLAPPED_TAG = 0x0A


DONE: Final = (Response.COMPLETE, Response.SUCCEEDED)


def lun_field(lun: int) -> bytes:
    """Return the LOGICAL UNIT NUMBER field: single level, peripheral device addressing (SAM-5 4.7.7.2)."""
    return bytes((0, lun, 0, 0, 0, 0, 0, 0))
