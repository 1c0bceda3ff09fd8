"""Log pages of a unit: which there are, its temperature, and that no failure is predicted (SPC-4 7.3)."""

from __future__ import annotations

import struct
from collections.abc import Mapping

SUPPORTED, TEMPERATURE, EXCEPTIONS = 0x00, 0x0D, 0x2F

_CELSIUS, _MOST_CELSIUS = 31, 70
_BINARY_LIST = 0x03  # FORMAT AND LINKING: a list of numbers (SPC-4 7.3.2.2.2.3)

_PARAMETERS: Mapping[int, Mapping[int, bytes]] = {
    TEMPERATURE: {0: bytes((0, _CELSIUS)), 1: bytes((0, _MOST_CELSIUS))},
    EXCEPTIONS: {0: bytes((0, 0, _CELSIUS))},
}


def page(code: int, pointer: int) -> bytes | None:
    """Return a page without its header, from the parameter `pointer` on; None if there is no such page."""
    if code == SUPPORTED:
        return bytes((SUPPORTED, *_PARAMETERS))
    if code not in _PARAMETERS:
        return None
    return b"".join(
        struct.pack(">HBB", number, _BINARY_LIST, len(value)) + value
        for number, value in _PARAMETERS[code].items()
        if number >= pointer
    )
