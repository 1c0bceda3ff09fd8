"""Log pages of a unit: which there are, its temperature and self-tests, that no failure is predicted (SPC-4 7.3)."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scsiusb.virtual.target.support import Kept

SUPPORTED, TEMPERATURE, SELF_TESTS, EXCEPTIONS = 0x00, 0x0D, 0x10, 0x2F
MOST_SELF_TESTS = 20

_CELSIUS, _MOST_CELSIUS = 31, 70
_NO_LBA = (1 << 64) - 1
_BINARY_LIST = 0x03  # FORMAT AND LINKING: a list of numbers (SPC-4 7.3.2.2.2.3)

_PARAMETERS: Mapping[int, Mapping[int, bytes]] = {
    TEMPERATURE: {0: bytes((0, _CELSIUS)), 1: bytes((0, _MOST_CELSIUS))},
    EXCEPTIONS: {0: bytes((0, 0, _CELSIUS))},
}


def page(code: int, pointer: int, kept: Kept) -> bytes | None:
    """Return a page without its header, from the parameter `pointer` on; None if there is no such page."""
    if code == SUPPORTED:
        return bytes((SUPPORTED, *sorted((*_PARAMETERS, SELF_TESTS))))
    parameters = _self_tests(kept.self_tests) if code == SELF_TESTS else _PARAMETERS.get(code)
    if parameters is None:
        return None
    return b"".join(
        struct.pack(">HBB", number, _BINARY_LIST, len(value)) + value
        for number, value in parameters.items()
        if number >= pointer
    )


def _self_tests(codes: Sequence[int]) -> Mapping[int, bytes]:
    """Return the parameters of the last tests, all of which passed, the latest first; then zeros."""
    tests = [struct.pack(">BBHQ4x", code << 5, 0, 0, _NO_LBA) for code in reversed(codes)]
    return dict(enumerate((*tests, *[bytes(16)] * (MOST_SELF_TESTS - len(tests))), 1))
