"""The script of a stick's faults: it decides which fault applies when, and records which faults were applied."""

from __future__ import annotations

import re
import struct
import threading
from collections.abc import Iterable, Mapping

from scsiusb.base.dataclass import dataclass
from scsiusb.virtual.faults import descriptor_faults
from scsiusb.virtual.faults.faults import DATA, Fault, Scope

_KEPT_FIRED = 10_000  # entries of `Script.fired` that are kept, at least
_REQUEST_SENSE, _INQUIRY, _SERVICE_ACTION_IN = 0x03, 0x12, 0x9E
_SENSE_FAULTS = ("sense", "no-sense")  # useless for REQUEST SENSE, which reports about the previous command
_EXTENTS: Mapping[int, str] = {  # by opcode: LOGICAL BLOCK ADDRESS and TRANSFER LENGTH (SBC-3)
    **dict.fromkeys((0x28, 0x2A, 0x2E, 0x2F), ">xxIxH"),
    **dict.fromkeys((0xA8, 0xAA, 0xAE, 0xAF), ">xxII"),
    **dict.fromkeys((0x88, 0x8A, 0x8E, 0x8F), ">xxQI"),
}
_SMALL = (0x08, 0x0A)  # READ(6) and WRITE(6)


@dataclass(frozen=True)
class Command:
    """What a CBW requests; `transfer_length` is dCBWDataTransferLength, in bytes."""

    transfer_length: int
    lun: int
    cdb: bytes
    by: str
    """The protocol."""


def extent_of(cdb: bytes) -> tuple[int, int] | None:
    """Return the first LBA and the LBA after the last; None unless the command reads, writes or verifies blocks."""
    opcode = cdb[0]
    if opcode in _SMALL and len(cdb) >= 6:
        lba, blocks = int.from_bytes(cdb[1:4], "big") & 0x1FFFFF, cdb[4] or 256
    elif opcode in _EXTENTS and len(cdb) >= struct.calcsize(_EXTENTS[opcode]):
        lba, blocks = struct.unpack_from(_EXTENTS[opcode], cdb)
    else:
        return None
    return lba, lba + blocks


@dataclass
class _Entry:
    """A fault that has not been applied as often as it should."""

    fault: Fault
    left: float  # how many times it still applies


class Script:
    """The faults of a stick that are still to be applied; any thread may change them while the stick is in use."""

    def __init__(self, faults: Iterable[Fault | str] = ()) -> None:
        self._lock = threading.Lock()
        self.entries: tuple[_Entry, ...] = ()  # replaced as a whole, so that it can be read without the lock
        self.commands = 0  # CBWs since the stick was plugged in
        self.fired: list[tuple[int, Fault]] = []  # command number and fault, oldest first
        self.delay_end = 0.0  # time.monotonic() when the latest fault "delay" ends
        for fault in faults:
            self.add(fault)

    def add(self, fault: Fault | str) -> Fault:
        """Append a fault, which may be given as text, and return it; ValueError if the text is invalid."""
        fault = Fault.parse(fault) if isinstance(fault, str) else fault
        with self._lock:
            self.entries = (*self.entries, _Entry(fault, fault.times))
        return fault

    def clear(self) -> None:
        """Remove all faults; one that is being applied continues until the host has recovered the device."""
        with self._lock:
            self.entries = ()

    def next_for_command(self, command: Command) -> tuple[Fault, ...]:
        """Count the command, and return the faults that apply to it; these count as applied."""
        self.commands += 1
        with self._lock:
            applying = [entry for entry in self.entries if self._applies(entry.fault, command)]
            return tuple(self._fire(entry) for entry in _without_second_sense(applying))

    def next_for_request(self, *names: str) -> Fault | None:
        """Return the first fault of one of those kinds, which then counts as applied; None if there is none."""
        with self._lock:
            return next((self._fire(entry) for entry in self.entries if entry.fault.name in names), None)

    def change_descriptor(self, kind: int, descriptor: bytes) -> bytes:
        """Apply the "descriptor" faults to a descriptor of type `kind` (bDescriptorType), and return the result."""
        with self._lock:
            for entry in self.entries:
                if entry.fault.kind.scope is Scope.DESCRIPTOR:
                    affected, change = descriptor_faults.find(str(entry.fault.value))
                    if affected == kind:
                        self._fire(entry)
                        descriptor = change(descriptor)
        return descriptor

    def _fire(self, entry: _Entry) -> Fault:
        entry.left -= 1
        self.entries = tuple(each for each in self.entries if each.left > 0)
        self.fired.append((self.commands, entry.fault))
        if len(self.fired) > 2 * _KEPT_FIRED:
            del self.fired[:_KEPT_FIRED]
        return entry.fault

    def _applies(self, fault: Fault, command: Command) -> bool:
        if fault.kind.scope is not Scope.COMMAND or (fault.phase == DATA and not command.transfer_length):
            return False
        opcode = command.cdb[0]
        if fault.name in _SENSE_FAULTS and opcode == _REQUEST_SENSE and not fault.conditions():
            return False
        if fault.kind.opcodes and (opcode not in fault.kind.opcodes or not _is_plain(command.cdb)):
            return False
        return (
            fault.command in (None, self.commands)
            and fault.opcode in (None, opcode)
            and fault.lun in (None, command.lun)
            and fault.by in (None, command.by)
            and (fault.over is None or command.transfer_length > fault.over)
            and (fault.lba is None or _overlap(fault.lba, extent_of(command.cdb)))
            and (fault.cdb is None or re.match(fault.cdb, command.cdb.hex().upper()) is not None)
        )


def _overlap(wanted: tuple[int, int], extent: tuple[int, int] | None) -> bool:
    return extent is not None and extent[0] <= wanted[1] and wanted[0] < extent[1]


def _is_plain(cdb: bytes) -> bool:
    """Return False for INQUIRY of a vital product data page, and for service actions other than READ CAPACITY(16)."""
    if cdb[0] == _INQUIRY:
        return len(cdb) >= 6 and not cdb[1] & 1
    return cdb[0] != _SERVICE_ACTION_IN or (len(cdb) == 16 and cdb[1] & 0x1F == 0x10)


def _without_second_sense(entries: list[_Entry]) -> list[_Entry]:
    """Remove all faults "sense" but the first: a command has one sense; the others apply to later commands."""
    first = next((entry for entry in entries if entry.fault.name == "sense"), None)
    return [entry for entry in entries if entry is first or entry.fault.name != "sense"]
