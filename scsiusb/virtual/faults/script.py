"""The live script of a stick's faults: which of them are due now, and which were."""

from __future__ import annotations

import re
import struct
import threading
from collections.abc import Iterable, Mapping

from scsiusb.base.dataclass import dataclass
from scsiusb.virtual.faults import descriptor_faults
from scsiusb.virtual.faults.faults import DATA, Fault, Scope

_REMEMBERED = 10_000  # faults that fired, at least
_REQUEST_SENSE, _INQUIRY, _SERVICE_ACTION_IN = 0x03, 0x12, 0x9E
_FAILING = ("sense", "no-sense")  # in vain at a REQUEST SENSE, which tells of the command before
_EXTENTS: Mapping[int, str] = {  # by opcode: LOGICAL BLOCK ADDRESS and TRANSFER LENGTH (SBC-3)
    **dict.fromkeys((0x28, 0x2A, 0x2E, 0x2F), ">xxIxH"),
    **dict.fromkeys((0xA8, 0xAA, 0xAE, 0xAF), ">xxII"),
    **dict.fromkeys((0x88, 0x8A, 0x8E, 0x8F), ">xxQI"),
}
_SMALL = (0x08, 0x0A)  # READ(6) and WRITE(6)


@dataclass(frozen=True)
class Command:
    """What a CBW asks for."""

    asked: int
    lun: int
    cdb: bytes

    def extent(self) -> tuple[int, int] | None:
        """The first block and the one after the last, of a command that reads, writes or verifies blocks."""
        opcode = self.cdb[0]
        if opcode in _SMALL and len(self.cdb) >= 6:
            lba, blocks = int.from_bytes(self.cdb[1:4], "big") & 0x1FFFFF, self.cdb[4] or 256
        elif opcode in _EXTENTS and len(self.cdb) >= struct.calcsize(_EXTENTS[opcode]):
            lba, blocks = struct.unpack_from(_EXTENTS[opcode], self.cdb)
        else:
            return None
        return lba, lba + blocks


@dataclass
class _Entry:
    """A fault that is still to come."""

    fault: Fault
    left: float  # times


class Script:
    """The faults that a stick has still to commit; any thread may change them."""

    def __init__(self, faults: Iterable[Fault | str] = ()) -> None:
        self._lock = threading.Lock()
        self.entries: tuple[_Entry, ...] = ()  # those that have times left
        self.commands = 0  # CBWs since the stick was plugged in
        self.fired: list[tuple[int, Fault]] = []  # with the number of the command, the latest last
        self.due = 0.0  # time.monotonic() when a silence ends by itself
        for fault in faults:
            self.add(fault)

    def add(self, fault: Fault | str) -> Fault:
        """Puts a fault behind those that are there."""
        fault = Fault.parse(fault) if isinstance(fault, str) else fault
        with self._lock:
            self.entries = (*self.entries, _Entry(fault, fault.times))
        return fault

    def clear(self) -> None:
        """Takes out all faults; one under way goes on until it is recovered from."""
        with self._lock:
            self.entries = ()

    def judge(self, command: Command) -> tuple[Fault, ...]:
        """Counts the command, and fires the faults that it meets."""
        self.commands += 1
        with self._lock:
            met = [entry for entry in self.entries if self._meets(entry.fault, command)]
            return tuple(self._fire(entry) for entry in _without_second_sense(met))

    def request(self, *names: str) -> Fault | None:
        """Fires the first fault of those kinds."""
        with self._lock:
            return next((self._fire(entry) for entry in self.entries if entry.fault.name in names), None)

    def twisted(self, kind: int, descriptor: bytes) -> bytes:
        """The descriptor with the faults that it is due."""
        with self._lock:
            for entry in self.entries:
                if entry.fault.kind.scope is Scope.DESCRIPTOR:
                    affected, twist = descriptor_faults.find(str(entry.fault.value))
                    if affected == kind:
                        self._fire(entry)
                        descriptor = twist(descriptor)
        return descriptor

    def _fire(self, entry: _Entry) -> Fault:
        entry.left -= 1
        self.entries = tuple(each for each in self.entries if each.left > 0)
        self.fired.append((self.commands, entry.fault))
        if len(self.fired) > 2 * _REMEMBERED:
            del self.fired[:_REMEMBERED]
        return entry.fault

    def _meets(self, fault: Fault, command: Command) -> bool:
        if fault.kind.scope is not Scope.COMMAND or (fault.phase == DATA and not command.asked):
            return False
        opcode = command.cdb[0]
        if fault.name in _FAILING and opcode == _REQUEST_SENSE and not fault.conditions():
            return False
        if fault.kind.opcodes and (opcode not in fault.kind.opcodes or not _is_plain(command.cdb)):
            return False
        return (
            fault.command in (None, self.commands)
            and fault.opcode in (None, opcode)
            and fault.lun in (None, command.lun)
            and (fault.over is None or command.asked > fault.over)
            and (fault.lba is None or _meet(fault.lba, command.extent()))
            and (fault.cdb is None or re.match(fault.cdb, command.cdb.hex().upper()) is not None)
        )


def _meet(wanted: tuple[int, int], extent: tuple[int, int] | None) -> bool:
    return extent is not None and extent[0] <= wanted[1] and wanted[0] < extent[1]


def _is_plain(cdb: bytes) -> bool:
    """Not INQUIRY of a vital product data page, nor another SERVICE ACTION than READ CAPACITY(16)."""
    if cdb[0] == _INQUIRY:
        return len(cdb) >= 6 and not cdb[1] & 1
    return cdb[0] != _SERVICE_ACTION_IN or (len(cdb) == 16 and cdb[1] & 0x1F == 0x10)


def _without_second_sense(entries: list[_Entry]) -> list[_Entry]:
    """A command fails with one sense only: the next fault of that kind waits for the next command."""
    first = next((entry for entry in entries if entry.fault.name == "sense"), None)
    return [entry for entry in entries if entry is first or entry.fault.name != "sense"]
