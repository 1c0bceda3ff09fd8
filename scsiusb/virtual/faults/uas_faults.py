"""A device whose USB Attached SCSI has the faults that a script lists."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

from scsiusb.usb.backend import Endpoint
from scsiusb.virtual.device.function import Answer, Plug
from scsiusb.virtual.device.uas import (
    CHECK_CONDITION,
    COMMAND_IU,
    RESPONSE_IU,
    TASK_MANAGEMENT_IU,
    Queued,
    Uas,
    cdb_length,
)
from scsiusb.virtual.faults import unit_faults
from scsiusb.virtual.faults.active_faults import ActiveFaults, limit_length
from scsiusb.virtual.faults.faults import CBW, CSW, DATA, UAS, Fault
from scsiusb.virtual.faults.script import Command, Script, extent_of
from scsiusb.virtual.target.sense import NO_SENSE
from scsiusb.virtual.target.target import Target
from scsiusb.virtual.target.task import Task

_WITHOUT_DATA = (0x00, 0x01, 0x1B, 0x1E, 0x35, 0x91)  # of the operation codes that the virtual unit has
_FILLER = b"\xee"
_NOBODY = 0xFFFF  # a tag that no command has
_FAILED = 0x05  # response code


class FaultyUas(Uas):
    """UAS that applies the faults of a script. Their phases are the command pipe, the data pipes, the status pipe.

    "nak" loses the command: task management still works. "hang" answers nothing more. Both end with a port reset.
    """

    def __init__(
        self, endpoints: Sequence[Endpoint], target: Target, script: Script, plug: Plug, *, has_streams: bool
    ) -> None:
        super().__init__(endpoints, target, has_streams=has_streams)
        self._script, self._plug = script, plug
        self._faults: dict[int, ActiveFaults] = {}  # by tag
        self._hangs_until = 0.0  # time.monotonic()

    def reset(self) -> None:
        """See `Function.reset`."""
        super().reset()
        self._faults.clear()
        self._hangs_until = 0.0

    # --- transfers ------------------------------------------------------------------------------

    def receive(self, endpoint: int, data: memoryview, stream: int = 0) -> tuple[Answer, int]:
        """See `Function.receive`."""
        if self._is_silent():
            return Answer.NAK, 0
        if endpoint == self._command.address and data[:1] == bytes((COMMAND_IU,)) and endpoint not in self._halted:
            return self._receive_command(endpoint, data, stream)
        return self._break_data(endpoint, data, stream) or super().receive(endpoint, data, stream)

    def send(self, endpoint: int, room: memoryview, stream: int = 0) -> tuple[Answer, int]:
        """See `Function.send`."""
        if self._is_silent():
            return Answer.NAK, 0
        return self._break_data(endpoint, room, stream) or super().send(endpoint, room, stream)

    def _is_silent(self) -> bool:
        return self._hangs_until > time.monotonic()

    def _break_data(self, endpoint: int, buffer: memoryview, stream: int) -> tuple[Answer, int] | None:
        """End a data phase by a STALL or a babble, if a fault says so."""
        queued = self._queue[0] if self._queue and endpoint in (self._in.address, self._out.address) else None
        active = self._faults.get(queued.tag) if queued is not None else None
        if queued is None or active is None or (self._has_streams and stream != queued.tag):
            return None
        names = {fault.name for fault in active.in_phase(DATA)}
        if "stall" not in names and not ("long" in names and endpoint == self._in.address):
            return None
        queued.left = 0
        self._end()
        if "stall" not in names:
            return Answer.BABBLE, len(buffer)
        self._halted.add(endpoint)
        return Answer.STALL, 0

    def _receive_command(self, endpoint: int, data: memoryview, stream: int) -> tuple[Answer, int]:
        tag, lun, cdb = int.from_bytes(data[2:4], "big"), data[9], bytes(data[16:32])
        cdb = cdb[: cdb_length(cdb[0])]
        command = Command(self._length(lun, cdb), lun, cdb, UAS)
        active = ActiveFaults(self._script.next_for_command(command))
        self._faults[tag] = active
        if self._leaves(active, CBW):
            return Answer.NAK, 0
        silence = self._silence(active, CBW)
        if any(fault.name == "stall" for fault in active.in_phase(CBW)):
            self._halted.add(endpoint)
            return Answer.STALL, 0
        if silence == "nak":
            return Answer.MORE, len(data)
        if silence == "hang":
            return Answer.NAK, 0
        return super().receive(endpoint, data, stream)

    def _length(self, lun: int, cdb: bytes) -> int:
        """Return the bytes of the data phase, which a command IU does not tell; 1 where the CDB does not, either."""
        if cdb[0] in _WITHOUT_DATA:
            return 0
        extent = extent_of(cdb)
        if extent is None or lun >= len(self._target.units):
            return 1
        medium = self._target.units[lun].medium
        return (extent[1] - extent[0]) * (1 if medium is None else medium.block_size)

    def _leaves(self, active: ActiveFaults, phase: str) -> bool:
        """Leave the bus, if a fault says so for this phase."""
        point = active.disconnect_point
        if point is None or point.phase != phase:
            return False
        self._plug.disconnect(point.absence)
        return True

    def _silence(self, active: ActiveFaults, phase: str) -> str:
        """Begin the silence of a phase, if there is one; return its name."""
        for fault in active.in_phase(phase):
            if fault.name == "hang":
                self._hangs_until = math.inf
                return fault.name
            if fault.name == "delay":
                self._hangs_until = self._script.delay_end = time.monotonic() + float(fault.value or 0)
                return fault.name
            if fault.name == "nak":
                return fault.name
        return ""

    # --- the command ----------------------------------------------------------------------------

    def execute(self, queued: Queued) -> Task:
        """See `Uas.execute`."""
        active = self._faults.get(queued.tag)
        if active is None or not active.faults:
            return super().execute(queued)
        task = unit_faults.execute(self._target, queued.lun, queued.cdb, active.faults)
        for fault in active.in_phase(DATA):
            if fault.name in ("short", "empty", "csw-as-data"):
                task = limit_length(task, fault.number if fault.name == "short" else 0)
        if self._leaves(active, DATA):
            return task
        if self._silence(active, DATA) == "nak":
            return _Lost()
        return task

    def put_status(self, queued: Queued, unit: bytes) -> None:
        """See `Uas.put_status`."""
        active = self._faults.pop(queued.tag, None)
        if active is None or isinstance(queued.task, _Lost) or not active.faults:
            if not isinstance(queued.task, _Lost):
                super().put_status(queued, unit)
            return
        if self._leaves(active, CSW) or self._silence(active, CSW) == "nak":
            return
        names = {fault.name for fault in active.in_phase(CSW)}
        if "no-sense" in names:
            self._clear_sense(queued.lun)
            unit = unit[:6] + bytes((CHECK_CONDITION,)) + bytes(9)
        for fault in active.in_phase(CSW):
            change = _STATUS_FAULTS.get(fault.name)
            unit = change(fault, unit) if change else unit
        if "stall" in names:
            self._halted.add(self._status.address)
        self.answer(queued.tag, unit)
        if "extra" in names:
            self.answer(_NOBODY if not self._has_streams else queued.tag, _with_tag(unit, _NOBODY))

    def _clear_sense(self, lun: int) -> None:
        for unit in self._target.units[lun : lun + 1]:
            unit.queue_attentions(0)
            unit.keep_sense(NO_SENSE)

    def take(self, unit: bytes) -> None:
        """See `Uas.take`; a command that was lost does not hold up a task management function."""
        if unit[:1] == bytes((TASK_MANAGEMENT_IU,)):
            self._faults.clear()
        super().take(unit)


class _Lost(Task):
    """A command that the device has forgotten."""


def _with_tag(unit: bytes, tag: int) -> bytes:
    return unit[:2] + (tag & 0xFFFF).to_bytes(2, "big") + unit[4:]


def _refused(fault: Fault, unit: bytes) -> bytes:
    return bytes((RESPONSE_IU, 0)) + unit[2:4] + bytes((0, 0, 0, _FAILED))


_STATUS_FAULTS: Mapping[str, Callable[[Fault, bytes], bytes]] = {
    "tag": lambda fault, unit: _with_tag(unit, fault.number if fault.value else int.from_bytes(unit[2:4], "big") - 1),
    "status": lambda fault, unit: unit[:6] + bytes((fault.number,)) + unit[7:],
    "phase-error": _refused,
    "short": lambda fault, unit: unit[: fault.number],
    "empty": lambda fault, unit: b"",
    "long": lambda fault, unit: unit + _FILLER * fault.number,
}
