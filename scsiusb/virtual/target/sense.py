"""Sense data: how a unit describes the failure of a command (SPC-4 4.5)."""

from __future__ import annotations

import struct

from scsiusb.base.dataclass import dataclass

_FIXED = struct.Struct(">BBBIB4sBBBBH")
_FIXED_CURRENT = 0x70
_DESCRIPTOR_CURRENT = 0x72
_DEFERRED = 0x01  # added to either
_VALID = 0x80
_ILI = 0x20
_INFORMATION = struct.Struct(">BBBBQ")


@dataclass(frozen=True)
class Sense:
    """A sense key, an additional sense code with its qualifier, and the INFORMATION field if any.

    `deferred`: it belongs to an earlier command (SPC-4 4.5.7). `progress`: of an operation, in 65536ths.
    """

    key: int
    asc: int = 0
    ascq: int = 0
    information: int | None = None
    deferred: bool = False
    specific: bytes = bytes(4)
    """The COMMAND-SPECIFIC INFORMATION of the fixed format."""
    progress: int | None = None
    has_wrong_length: bool = False
    """ILI: the block has another length than was asked for, and INFORMATION is the difference."""
    registers: bytes = b""
    """An ATA Status Return descriptor (SAT-3 12.2.5): of such sense data bridges send the descriptor format only."""

    def fixed(self) -> bytes:
        """Return fixed format sense data (SPC-4 4.5.3); VALID is set only if INFORMATION fits into its four bytes."""
        if self.registers:
            return self.descriptors()
        valid = self.information is not None and self.information <= 0xFFFFFFFF
        information = self.information if valid and self.information is not None else 0
        first = _FIXED_CURRENT | (_DEFERRED if self.deferred else 0) | (_VALID if valid else 0)
        key = self.key | (_ILI if self.has_wrong_length else 0)
        return _FIXED.pack(first, 0, key, information, 10, self.specific, self.asc, self.ascq, 0, *self._key_specific())

    def descriptors(self) -> bytes:
        """Return descriptor format sense data (SPC-4 4.5.2)."""
        tail = b"" if self.information is None else _INFORMATION.pack(0x00, 0x0A, _VALID, 0, self.information)
        if self.progress is not None:
            tail += struct.pack(">BBxxBHx", 0x02, 0x06, *self._key_specific())
        if self.has_wrong_length:
            tail += bytes((0x05, 0x02, 0, _ILI))
        tail += self.registers
        code = _DESCRIPTOR_CURRENT | (_DEFERRED if self.deferred else 0)
        return bytes((code, self.key, self.asc, self.ascq, 0, 0, 0, len(tail))) + tail

    def _key_specific(self) -> tuple[int, int]:
        """Return the sense key specific field: SKSV, and the progress (SPC-4 4.5.2.4.4)."""
        return (0, 0) if self.progress is None else (_VALID, self.progress)


NO_SENSE = Sense(0x0)
BECOMING_READY = Sense(0x2, 0x04, 0x01)
INITIALIZING_COMMAND_REQUIRED = Sense(0x2, 0x04, 0x02)
MEDIUM_NOT_PRESENT = Sense(0x2, 0x3A, 0x00)
PARAMETER_LIST_LENGTH_ERROR = Sense(0x5, 0x1A, 0x00)
INVALID_COMMAND = Sense(0x5, 0x20, 0x00)
LBA_OUT_OF_RANGE = Sense(0x5, 0x21, 0x00)
INVALID_ADDRESS = Sense(0x5, 0x21, 0x02)
INVALID_FIELD_IN_CDB = Sense(0x5, 0x24, 0x00)
INVALID_FIELD_IN_PARAMETERS = Sense(0x5, 0x26, 0x00)
LUN_NOT_SUPPORTED = Sense(0x5, 0x25, 0x00)
MEDIUM_REMOVAL_PREVENTED = Sense(0x5, 0x53, 0x02)
MEDIUM_CHANGED = Sense(0x6, 0x28, 0x00)
ILLEGAL_MODE = Sense(0x5, 0x64, 0x00)
NO_TABLE_OF_CONTENTS = Sense(0x3, 0x57, 0x00)
POWER_ON = Sense(0x6, 0x29, 0x00)
WRITE_PROTECTED = Sense(0x7, 0x27, 0x00)


def read_error(lba: int) -> Sense:
    """Return MEDIUM ERROR, UNRECOVERED READ ERROR at `lba`."""
    return Sense(0x3, 0x11, 0x00, lba)


def write_error(lba: int) -> Sense:
    """Return MEDIUM ERROR, WRITE ERROR at `lba`."""
    return Sense(0x3, 0x0C, 0x00, lba)


def miscompare(lba: int) -> Sense:
    """Return MISCOMPARE, MISCOMPARE DURING VERIFY OPERATION at `lba`."""
    return Sense(0xE, 0x1D, 0x00, lba)


class CommandFailed(Exception):
    """An exception that ends the command being decoded with CHECK CONDITION and its sense."""

    def __init__(self, sense: Sense) -> None:
        super().__init__(sense)
        self.sense = sense
