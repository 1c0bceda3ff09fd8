"""Puts transfers together again, by USB Attached SCSI (UAS-3 6): a command, its data, its status."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from scsiusb.trace.conversation import Exchange
from scsiusb.usb.backend import ENDPOINT_IN, PIPE_USAGE, Device

COMMAND_IU: Final = struct.Struct(">BxH4x8s16s")
SENSE_IU: Final = struct.Struct(">BxHxxB7xH")
COMMAND_ID, SENSE_ID, RESPONSE_ID, READ_READY_ID, WRITE_READY_ID = 1, 3, 4, 6, 7
SIZES: Final = {SENSE_ID: SENSE_IU.size, RESPONSE_ID: 8, READ_READY_ID: 4, WRITE_READY_ID: 4}
PIPE_COMMAND, PIPE_STATUS = 1, 2
RESPONSES: Final = {  # UAS-3 table 18
    0x00: "task management complete",
    0x02: "invalid information unit",
    0x04: "task management not supported",
    0x05: "task management failed",
    0x08: "task management succeeded",
    0x09: "incorrect LUN",
    0x0A: "overlapped tag",
}
GOOD, CHECK_CONDITION, CONDITION_MET = 0x00, 0x02, 0x04
STATUSES: Final = {  # SAM-5 5.3.1
    0x08: "busy",
    0x18: "reservation conflict",
    0x28: "task set full",
    0x30: "ACA active",
    0x40: "task aborted",
}
ENDPOINT: Final = 5  # bDescriptorType
MOST_KEPT: Final = 256  # commands without a status, until the oldest is forgotten


class UasConversation:
    """Takes the transfers of one device that is used by UAS, and gives each command when it has ended.

    Data belong to the command of their stream. Where the stream is not known, they belong to the command that a ready
    IU named before, or else to the next command, as hosts ask for the data before they send the command (UAS-3 5).
    """

    def __init__(self, pipes: dict[int, int]) -> None:
        """`pipes`: by endpoint, the number in its pipe usage descriptor; those that are missing are found out."""
        self.pipes = pipes
        self._open: dict[int, Exchange] = {}  # by tag
        self._sending: dict[int, Exchange] = {}  # by the number of the transfer of the command IU
        self._moving: dict[int, tuple[Exchange, int]] = {}  # by the number of the transfer of data: the bytes asked for
        self._early: dict[int, tuple[int, int]] = {}  # transfers before their command: the stream, the bytes asked for
        self._ready: dict[bool, list[int]] = {True: [], False: []}  # the tags whose data-in and data-out come next

    def begun(
        self, number: int, endpoint: int, data: bytes | memoryview, length: int, stream: int, at: float
    ) -> Exchange | None:
        """Take a transfer that begins, of `length` bytes; return the command whose tag it takes over, if any."""
        pipe = self.pipes.get(endpoint)
        if pipe == PIPE_COMMAND:
            return self._command(number, data, at)
        if pipe == PIPE_STATUS:
            return None
        ready = self._ready[bool(endpoint & ENDPOINT_IN)]
        now = self._open.get(stream or (ready.pop(0) if ready else 0))
        if now is None:
            self._early[number] = stream, length
        else:
            self._moving[number] = now, length
        return None

    def ended(
        self, number: int, endpoint: int, data: bytes | memoryview, length: int, at: float, problem: str = ""
    ) -> Exchange | None:
        """Take a transfer that has ended, with the bytes received; return the command that it ended, if any."""
        self._early.pop(number, None)
        sent = self._sending.pop(number, None)
        if sent is not None and problem:
            sent.problems.append(problem)
        if endpoint not in self.pipes and endpoint & ENDPOINT_IN and self._is_status(data):
            self.pipes[endpoint] = PIPE_STATUS
        if self.pipes.get(endpoint) == PIPE_STATUS:
            self._moving.pop(number, None)
            return self._status(data, at) if self._is_status(data) else None
        now, asked = self._moving.pop(number, (None, 0))
        if now is None:
            return None
        now.is_in = bool(endpoint & ENDPOINT_IN)
        now.keep(data, length)
        now.residue += max(asked - length, 0)
        if problem and now.status is None:  # after a status, the host cancels what did not move
            now.problems.append(problem)
        return now if now.has_ended and not self._is_moving(now) else None

    def cut_off(self) -> Iterable[Exchange]:
        """Return the commands that have not ended: nothing more will come."""
        found = [*self._open.values(), *(now for now, _ in self._moving.values() if now.has_ended)]
        self._open, self._moving, self._early = {}, {}, {}
        return found

    def _command(self, number: int, unit: bytes | memoryview, at: float) -> Exchange | None:
        if len(unit) < COMMAND_IU.size or unit[0] != COMMAND_ID:
            return None
        _, tag, lun, cdb = COMMAND_IU.unpack_from(unit)
        before = self._open.pop(tag, None)
        now = self._open[tag] = self._sending[number] = Exchange(lun[1], cdb[: cdb_length(cdb[0])], 0, False, at)
        for early, (stream, length) in list(self._early.items()):
            if stream in (0, tag):
                self._moving[early] = now, length
                del self._early[early]
        if len(self._open) > MOST_KEPT:
            del self._open[next(iter(self._open))]
        return before

    def _is_status(self, unit: bytes | memoryview) -> bool:
        """Return whether it is an IU of the status pipe, for a command that is awaited."""
        is_iu = len(unit) >= 4 and unit[1] == 0 and len(unit) >= SIZES.get(unit[0], len(unit) + 1)
        return is_iu and int.from_bytes(unit[2:4], "big") in self._open

    def _status(self, unit: bytes | memoryview, at: float) -> Exchange | None:
        tag = int.from_bytes(unit[2:4], "big")
        if unit[0] in (READ_READY_ID, WRITE_READY_ID):
            self._ready[unit[0] == READ_READY_ID].append(tag)
            return None
        now = self._open.pop(tag)
        if unit[0] == SENSE_ID:
            _, _, status, length = SENSE_IU.unpack_from(unit)
            now.status = int(status not in (GOOD, CONDITION_MET))
            now.sense = bytes(unit[SENSE_IU.size : SENSE_IU.size + length])
            if now.status and status != CHECK_CONDITION:
                now.problems.append(STATUSES.get(status, f"SCSI status {status:02X}h"))
        else:
            now.problems.append(RESPONSES.get(unit[7], f"response {unit[7]:02X}h"))
        now.seconds = at - now.began
        now.has_ended = True
        return None if self._is_moving(now) else now

    def _is_moving(self, exchange: Exchange) -> bool:
        return any(now is exchange for now, _ in self._moving.values())


def is_command(data: bytes | memoryview) -> bool:
    """Return whether data-out look like a command IU, for a host whose pipes are not known."""
    return len(data) == COMMAND_IU.size and data[0] == COMMAND_ID and not data[1] and data[2:4] != b"\0\0"


def pipes_of(device: Device) -> dict[int, int]:
    """Return the pipes of a device, by endpoint."""
    endpoints = [each for setting in device.settings for each in setting.endpoints]
    return {each.address: each.pipe for each in endpoints if each.pipe}


def pipes_in(configuration: bytes) -> dict[int, int]:
    """Return the pipes, by endpoint, that a configuration descriptor names (USB 2.0 9.6.3, UAS-3 6.2), cut or not."""
    found: dict[int, int] = {}
    at = endpoint = 0
    while at + 2 <= len(configuration) and 2 <= configuration[at] <= len(configuration) - at:
        length, kind = configuration[at], configuration[at + 1]
        if kind == ENDPOINT and length > 2:
            endpoint = configuration[at + 2]
        elif kind == PIPE_USAGE and length > 2:
            found[endpoint] = configuration[at + 2]
        at += length
    return found


def cdb_length(opcode: int) -> int:
    """Return the bytes of a CDB, by its group code (SPC-4 4.2.5.1); 16 where the group does not tell."""
    return {0: 6, 1: 10, 2: 10, 5: 12}.get(opcode >> 5, 16)
