"""What an erase writes: one block again and again, or a stream of random bytes that can be made again from its key."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import Any, Final

KEY: Final = 32  # bytes
PART: Final = 64 * 1024  # bytes of the stream that are made at once


class Fill(ABC):
    """The bytes that each block of a disk gets."""

    is_constant = False
    """Whether each block gets the same bytes, so that one buffer serves for all."""

    @abstractmethod
    def put(self, view: memoryview, offset: int) -> None:
        """Put what the disk gets from the byte `offset` on into the view."""

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """Return what makes it again, for a journal."""


class Repeated(Fill):
    """A pattern, which begins anew in each block."""

    is_constant = True

    def __init__(self, pattern: bytes, block_size: int) -> None:
        """Raise ValueError for an empty pattern, and for one that is longer than a block."""
        if not 1 <= len(pattern) <= block_size:
            raise ValueError(f"a pattern of {len(pattern)} bytes is not possible; give 1 to {block_size}")
        self._pattern = pattern
        self._block = (pattern * (-(-block_size // len(pattern))))[:block_size]

    def put(self, view: memoryview, offset: int) -> None:
        """See `Fill.put`; `offset` and the view are of whole blocks."""
        view[:] = self._block * (len(view) // len(self._block))

    def record(self) -> dict[str, Any]:
        """See `Fill.record`."""
        return {"pattern": self._pattern.hex()}


class Keyed(Fill):
    """Bytes that cannot be told from random ones without the key: SHAKE128 of the key and the number of the part."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._number, self._part = -1, b""

    def put(self, view: memoryview, offset: int) -> None:
        """See `Fill.put`."""
        at = 0
        while at < len(view):
            number, start = divmod(offset + at, PART)
            piece = self._bytes_of(number)[start : start + len(view) - at]
            view[at : at + len(piece)] = piece
            at += len(piece)

    def _bytes_of(self, number: int) -> bytes:
        if number != self._number:
            self._part = hashlib.shake_128(self._key + number.to_bytes(8, "big")).digest(PART)
            self._number = number
        return self._part

    def record(self) -> dict[str, Any]:
        """See `Fill.record`."""
        return {"key": self._key.hex()}
