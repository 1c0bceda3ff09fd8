"""Puts transfers together again, by Bulk-Only Transport (BOT 5): a command, its data, its status."""

from __future__ import annotations

import struct
from typing import Final

CBW: Final = struct.Struct("<4sIIBBB16s")
CSW: Final = struct.Struct("<4sIIB")
CBW_SIGNATURE: Final = b"USBC"
CSW_SIGNATURE: Final = b"USBS"
KEPT: Final = 4096  # bytes of the data of a command


class Exchange:
    """A command with what happened to it."""

    def __init__(self, lun: int, cdb: bytes, expected: int, is_in: bool, began: float) -> None:
        self.lun = lun
        self.cdb = cdb
        self.expected = expected
        """Bytes of data that the host asked for, or has to send."""
        self.is_in = is_in
        self.began = began
        """Seconds of any clock."""
        self.seconds = 0.0
        self.moved = 0
        self.data = b""
        """The first bytes of the data."""
        self.status: int | None = None
        """0 if it was good; None if none came."""
        self.sense = b""
        """What came with the status."""
        self.residue = 0
        self.problems: list[str] = []
        """How transfers ended that were not good."""
        self.has_ended = False

    def keep(self, data: bytes | memoryview, length: int) -> None:
        """Add data of the command, of which `length` bytes were moved and `data` is the beginning."""
        self.moved += length
        self.data += bytes(data[: KEPT - len(self.data)])


class Conversation:
    """Takes the transfers of one device in their order, and gives each command when it has ended."""

    def __init__(self) -> None:
        self._now: Exchange | None = None

    def sent(self, data: bytes | memoryview, length: int, at: float) -> Exchange | None:
        """Take a bulk-out transfer, of which `data` is the beginning; return the command that it cut off, if any."""
        if len(data) == CBW.size and bytes(data[:4]) == CBW_SIGNATURE:
            _, _, expected, flags, lun, size, cdb = CBW.unpack(data)
            before, self._now = self._now, Exchange(lun & 0xF, cdb[: min(size, 16)], expected, bool(flags & 0x80), at)
            return before
        if self._now is not None:
            self._now.keep(data, length)
        return None

    def received(self, data: bytes | memoryview, length: int, at: float) -> Exchange | None:
        """Take a bulk-in transfer; return the command that it ended, if any."""
        now = self._now
        if now is None:
            return None
        if length == CSW.size and bytes(data[:4]) == CSW_SIGNATURE:
            _, _, now.residue, now.status = CSW.unpack(data[: CSW.size])
            now.seconds = at - now.began
            self._now, now.has_ended = None, True
            return now
        now.keep(data, length)
        return None

    @property
    def is_open(self) -> bool:
        """Whether a command has begun and not ended."""
        return self._now is not None

    def failed(self, what: str) -> None:
        """Take a transfer that ended with an error."""
        if self._now is not None:
            self._now.problems.append(what)

    def cut_off(self) -> Exchange | None:
        """Return the command that has not ended, if any: nothing more will come."""
        now, self._now = self._now, None
        return now
