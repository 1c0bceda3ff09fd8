"""Puts transfers together again, by Bulk-Only Transport (BOT 5) and UAS (UAS-3 6): a command, its data, its status."""

from __future__ import annotations

import struct
from typing import Final

from scsiusb.usb.backend import Device

CBW: Final = struct.Struct("<4sIIBBB16s")
CSW: Final = struct.Struct("<4sIIB")
CBW_SIGNATURE: Final = b"USBC"
CSW_SIGNATURE: Final = b"USBS"
COMMAND_IU: Final = struct.Struct(">BxH4x8s16s")
SENSE_IU: Final = struct.Struct(">BxHxxB7xH")
COMMAND_ID, SENSE_ID, RESPONSE_ID, READ_READY_ID, WRITE_READY_ID = 1, 3, 4, 6, 7
PIPE_COMMAND, PIPE_STATUS, PIPE_IN = 1, 2, 3
MOST_KEPT: Final = 256  # commands without a status, until the oldest is forgotten
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
            self._now = None
            return now
        now.keep(data, length)
        return None

    def failed(self, what: str) -> None:
        """Take a transfer that ended with an error."""
        if self._now is not None:
            self._now.problems.append(what)

    def cut_off(self) -> Exchange | None:
        """Return the command that has not ended, if any: nothing more will come."""
        now, self._now = self._now, None
        return now


class UasConversation:
    """Takes the transfers of one device that is used by UAS, and gives each command when it has ended."""

    def __init__(self, device: Device) -> None:
        endpoints = [each for setting in device.settings for each in setting.endpoints]
        self._pipes = {each.address: each.pipe for each in endpoints if each.pipe}
        self._open: dict[int, Exchange] = {}  # by tag
        self._ready = 0  # the tag whose data moves, where there are no streams

    def moved(self, endpoint: int, data: memoryview, stream: int, at: float) -> Exchange | None:
        """Take a transfer that has ended; return the command that it ended, if any."""
        pipe = self._pipes.get(endpoint, 0)
        if pipe == PIPE_COMMAND:
            self._command(data, at)
        elif pipe == PIPE_STATUS:
            return self._status(data, at)
        elif pipe:
            now = self._open.get(stream or self._ready)
            if now is not None:
                now.is_in = pipe == PIPE_IN
                now.keep(data, len(data))
        return None

    def _command(self, unit: memoryview, at: float) -> None:
        if len(unit) < COMMAND_IU.size or unit[0] != COMMAND_ID:
            return
        _, tag, lun, cdb = COMMAND_IU.unpack_from(unit)
        self._open[tag] = Exchange(lun[1], cdb[: cdb_length(cdb[0])], 0, False, at)
        if len(self._open) > MOST_KEPT:
            del self._open[next(iter(self._open))]

    def _status(self, unit: memoryview, at: float) -> Exchange | None:
        if len(unit) < 4:
            return None
        tag = int.from_bytes(unit[2:4], "big")
        if unit[0] in (READ_READY_ID, WRITE_READY_ID):
            self._ready = tag
            return None
        now = self._open.pop(tag, None)
        if now is None:
            return None
        if unit[0] == SENSE_ID and len(unit) >= SENSE_IU.size:
            _, _, status, length = SENSE_IU.unpack_from(unit)
            now.status = int(status != 0)
            now.sense = bytes(unit[SENSE_IU.size : SENSE_IU.size + length])
        else:
            now.problems.append(f"response {unit[7]:02X}h" if unit[0] == RESPONSE_ID and len(unit) > 7 else "no status")
        now.seconds = at - now.began
        return now


def cdb_length(opcode: int) -> int:
    """Return the bytes of a CDB, by its group code (SPC-4 4.2.5.1); 16 where the group does not tell."""
    return {0: 6, 1: 10, 2: 10, 5: 12}.get(opcode >> 5, 16)
