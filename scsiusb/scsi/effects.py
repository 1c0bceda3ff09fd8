"""Which commands are known to change the medium or the device, by operation code."""

from __future__ import annotations

from typing import Final

CHANGING: Final = frozenset(
    {
        *(0x04, 0x07, 0x0A, 0x15, 0x18, 0x19),  # FORMAT UNIT, REASSIGN BLOCKS, WRITE, MODE SELECT, COPY, ERASE (6)
        *(
            0x2A,
            0x2C,
            0x2E,
            0x3A,
            0x3B,
            0x3F,
        ),  # WRITE, ERASE, WRITE AND VERIFY (10), COPY AND VERIFY, WRITE BUFFER
        *(0x41, 0x42, 0x48, 0x4C),  # WRITE SAME(10), UNMAP, SANITIZE, LOG SELECT
        *(0x50, 0x53, 0x54, 0x55, 0x58, 0x5B, 0x5D, 0x5F),  # MODE SELECT(10), RESERVE OUT, and those of burners
        *(
            0x83,
            0x89,
            0x8A,
            0x8B,
            0x8E,
            0x93,
            0x94,
            0x9C,
            0x9F,
        ),  # writes of 16 bytes, COPY, zones
        *(0xAA, 0xAE, 0xB5, 0xBF),  # WRITE, WRITE AND VERIFY (12), SECURITY PROTOCOL OUT, SEND DVD STRUCTURE
    }
)
"""Operation codes of SPC-4, SBC-3 and MMC-6; vendor specific ones are not known."""
CHANGING_WITHOUT_DATA_IN: Final = frozenset({0x85, 0xA1, 0xA4, 0xAC})
"""ATA PASS-THROUGH(16), (12) or BLANK, MAINTENANCE OUT, ERASE(12): with data-in they only read (REPORT KEY, …)."""


def is_known_to_change(opcode: int, *, receives: bool) -> bool:
    """Return whether the command changes the medium or the device; `receives`: it has data-in."""
    return opcode in CHANGING or (opcode in CHANGING_WITHOUT_DATA_IN and not receives)
