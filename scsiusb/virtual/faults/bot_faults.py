"""A device that does Bulk-Only Transport wrong, as its script says."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

from scsiusb.usb.backend import Endpoint
from scsiusb.virtual.device.bot import (
    BULK_ONLY_MASS_STORAGE_RESET,
    CBW,
    GET_MAX_LUN,
    Bot,
    BotOptions,
    DataIn,
    DataOut,
    Phase,
    is_valid,
)
from scsiusb.virtual.device.function import Answer, Hang, Plug, Setup, Stall
from scsiusb.virtual.faults import unit_faults
from scsiusb.virtual.faults.active_faults import ActiveFaults, Fuse, cut, intent_of_case
from scsiusb.virtual.faults.faults import CBW as CBW_PHASE
from scsiusb.virtual.faults.faults import CSW, DATA, Fault
from scsiusb.virtual.faults.script import Command, Script
from scsiusb.virtual.target.sense import NO_SENSE
from scsiusb.virtual.target.target import Target
from scsiusb.virtual.target.task import Task

Move = Callable[[int, memoryview], tuple[Answer, int]]

_RESIDUE, _STATUS = slice(8, 12), slice(12, 13)
_FILLING = b"\xee"


class Faulty(Bot):
    """Does as `Bot` does where no fault is due; it may fall out of its port."""

    def __init__(
        self,
        bulk_in: Endpoint,
        bulk_out: Endpoint,
        target: Target,
        bot_options: BotOptions,
        script: Script,
        plug: Plug,
    ) -> None:
        super().__init__(bulk_in, bulk_out, target, bot_options)
        self._script, self._plug = script, plug
        self._recover()

    def _recover(self) -> None:
        self._active_faults: ActiveFaults | None = None
        self._judged = b""  # the CBW that the script has seen, until it is taken
        self._trailing = b""  # what still comes out behind a CSW

    # --- requests -------------------------------------------------------------------------------

    def reset(self) -> None:
        super().reset()
        self._recover()

    def clear_halt(self, endpoint: int) -> None:
        if endpoint in self._halted and self._script.request("halt-stays"):
            return
        super().clear_halt(endpoint)

    def control(self, setup: Setup, data: bytes) -> bytes:
        request = (setup.request_type, setup.request)
        if request == BULK_ONLY_MASS_STORAGE_RESET:
            return self._class_reset(setup, data)
        fault = self._script.request(*_MAX_LUN_FAULTS) if request == GET_MAX_LUN else None
        if fault is None:
            return super().control(setup, data)
        return _refuse(fault) or bytes((fault.number,))

    def _class_reset(self, setup: Setup, data: bytes) -> bytes:
        fault = self._script.request(*_RESET_FAULTS)
        if fault is not None:
            return _refuse(fault)
        answer = super().control(setup, data)
        self._recover()
        return answer

    # --- transfers ------------------------------------------------------------------------------

    def receive(self, endpoint: int, data: memoryview) -> tuple[Answer, int]:
        if self._active_faults is None and not self._script.entries:
            return super().receive(endpoint, data)
        if self._phase is Phase.COMMAND and endpoint not in self._halted:
            self._judge(data)
        if self._active_faults is None:
            return super().receive(endpoint, data)
        return self._move(super().receive, self._active_faults, endpoint, data)

    def send(self, endpoint: int, room: memoryview) -> tuple[Answer, int]:
        if self._active_faults is None and not self._trailing:
            return super().send(endpoint, room)
        if self._trailing and endpoint not in self._halted:
            return self._trail(room)
        if self._active_faults is None or self._ends_data(endpoint):
            return super().send(endpoint, room)
        return self._move(super().send, self._active_faults, endpoint, room)

    def _ends_data(self, endpoint: int) -> bool:
        """Is the end of the data phase still to be told? The CSW's faults come after it."""
        ended = self._phase is Phase.STATUS and (endpoint in self._halted or self._empty_packets > 0)
        return ended and self._active_faults is not None and not self._active_faults.stops_data

    def _move(self, move: Move, active: ActiveFaults, endpoint: int, buffer: memoryview) -> tuple[Answer, int]:
        if active.silent_until > time.monotonic():
            return Answer.NAK, 0
        if self._stalls(active, endpoint):
            self._halted.add(endpoint)
            return Answer.STALL, 0
        if active.began:
            self._refuse_haste(active)
        if active.fuse is not None and active.fuse.distance(self._phase) <= 0:
            return self._burn(move, active.fuse, endpoint, buffer)
        return move(endpoint, buffer)

    def _stalls(self, active: ActiveFaults, endpoint: int) -> bool:
        """Is a CBW or CSW to be stalled now? It happens once."""
        if self._phase is Phase.COMMAND and any(fault.name == "stall" for fault in active.at(CBW_PHASE)):
            self._recover()
            return True
        if self._phase is Phase.STATUS and active.stalls_csw and endpoint == self._in.address:
            active.stalls_csw = False
            return True
        return False

    def _burn(self, move: Move, fuse: Fuse, endpoint: int, buffer: memoryview) -> tuple[Answer, int]:
        """Moves whole packets only, for one that breaks off does not count, and leaves when the fuse has burnt."""
        phase = self._phase
        length = CBW.size if phase is Phase.COMMAND else self._left
        ends_here = fuse.left < length
        left = fuse.left - fuse.left % self._in.max_packet_size if ends_here else fuse.left
        if fuse.distance(phase) < 0 or (ends_here and not left):
            self._plug.fall_out()
            return Answer.NAK, 0
        answer, count = move(endpoint, buffer[:left] if ends_here else buffer)
        fuse.left -= count
        if fuse.left <= 0 or self._phase is not phase:
            self._plug.fall_out()
        return answer, count

    def _trail(self, room: memoryview) -> tuple[Answer, int]:
        """One packet behind the CSW."""
        packet = self._trailing[: self._in.max_packet_size]
        self._trailing = self._trailing[len(packet) :]
        sent = packet[: len(room)]
        room[: len(sent)] = sent
        if len(sent) < len(packet):
            return Answer.BABBLE, len(sent)
        return (Answer.SHORT if len(sent) < self._in.max_packet_size else Answer.MORE), len(sent)

    # --- the command ----------------------------------------------------------------------------

    def _judge(self, data: memoryview) -> None:
        """Asks the script about a CBW, once."""
        cbw = self._cbw + data[: self._out.max_packet_size]
        if cbw == self._judged or not is_valid(cbw):
            return
        self._judged = cbw
        _, _, asked, _, lun, length, cdb = CBW.unpack(cbw)
        faults = self._script.judge(Command(asked, lun, cdb[:length]))
        before, self._active_faults = self._active_faults, ActiveFaults(faults) if faults else None
        if before is not None and before.silent_until > time.monotonic():
            self._active_faults = self._active_faults or ActiveFaults(())
            self._active_faults.silence(before.silent_until, before.silenced_in)
        self._enter(CBW_PHASE)

    def _enter(self, phase: str) -> None:
        """The silences of a phase begin."""
        if self._active_faults is None:
            return
        for fault in self._active_faults.at(phase):
            if fault.name == "nak":
                self._active_faults.silence(math.inf, phase)
            elif fault.name == "delay":
                self._script.due = time.monotonic() + float(fault.value or 0)
                self._active_faults.silence(self._script.due, phase)

    def _execute(self, lun: int, cdb: bytes) -> Task:
        if not self._judged:
            self._script.commands += 1
        self._judged = b""
        active = self._active_faults
        if active is None:
            return super()._execute(lun, cdb)
        active.began, active.lun = time.monotonic(), lun
        task = unit_faults.execute(self._target, lun, cdb, active.faults)
        for fault in active.faults:
            bend = _BENDS.get(fault.name) if fault.phase in (DATA, "") else None
            task = bend(self, fault, task) if bend else task
        return task

    def _begin_data(self, is_in: bool) -> None:
        if self._active_faults is not None and self._asked:
            self._enter(DATA)
            if self._active_faults.skips_data:
                self._begin_status()
                return
        super()._begin_data(is_in)

    def _refuse_haste(self, active: ActiveFaults) -> None:
        """Go-slow devices lose the command if the host comes back too soon."""
        fault, elapsed = active.find("rushed"), time.monotonic() - active.began
        active.began = 0.0
        if fault is None or elapsed * 1e6 >= fault.number:
            return
        self._task, self._is_phase_error = Task(), True
        if self._phase is Phase.DATA_IN:
            self._halted.add(self._in.address)
        elif self._phase is Phase.DATA_OUT:
            self._halted.add(self._out.address)
        self._begin_status()

    # --- how the data phase is bent -------------------------------------------------------------

    def bend_stall(self, fault: Fault, task: Task) -> Task:
        self._data_in, self._data_out = DataIn.STALL, DataOut.STALL
        if self._active_faults is not None and fault.number >= task.length >= self._asked:
            self._active_faults.stalls_csw = True  # all has come: what is halted is what comes next
        return cut(task, fault.number)

    def bend_short(self, fault: Fault, task: Task) -> Task:
        self._data_in, self._data_out = DataIn.SHORT, DataOut.DISCARD
        return cut(task, fault.number)

    def bend_long(self, fault: Fault, task: Task) -> Task:
        self._data_out, self._surplus = DataOut.DISCARD, fault.number
        return task

    def bend_away(self, fault: Fault, task: Task) -> Task:
        if self._active_faults is not None:
            self._active_faults.skips_data = True
        return cut(task, 0)

    def bend_to_case(self, fault: Fault, task: Task) -> Task:
        return intent_of_case(fault.number, task, self._asked)

    # --- the status -----------------------------------------------------------------------------

    def _put_status(self, csw: bytes) -> None:
        active = self._active_faults
        if active is None:
            super()._put_status(csw)
            return
        for fault in active.at(CSW):
            csw = _EDITS[fault.name](fault, csw, self._asked) if fault.name in _EDITS else csw
        super()._put_status(csw)
        self._enter(CSW)
        names = {fault.name for fault in active.at(CSW)}
        if "no-sense" in names:
            self._forget_sense(active.lun)
        if "empty" in names or not csw:
            self._empty_packets += 1
        if not csw:
            self._finish()
        is_hidden = self._in.address in self._halted and self._carried % self._in.max_packet_size > 0
        active.stalls_csw |= "stall" in names
        active.stalls_csw &= not is_hidden  # the host meets the end of the data where it looks for the CSW

    def _forget_sense(self, lun: int) -> None:
        if lun < len(self._target.units):
            self._target.units[lun].queue_attentions(0)
            self._target.units[lun].keep_sense(NO_SENSE)

    def _drained(self, last: int) -> None:
        was_status = self._phase is Phase.STATUS
        super()._drained(last)
        if was_status and self._active_faults is not None:
            self._finish()

    def _finish(self) -> None:
        """The CSW is out."""
        extra = self._active_faults.find("extra") if self._active_faults else None
        self._phase, self._active_faults = Phase.COMMAND, None
        self._trailing = _FILLING * extra.number if extra else b""


_RESET_FAULTS = ("reset-stalls", "reset-hangs", "reset-ignored")
_MAX_LUN_FAULTS = ("max-lun-stalls", "max-lun-hangs", "max-lun")


def _refuse(fault: Fault) -> bytes:
    if fault.name.endswith("-stalls"):
        raise Stall
    if fault.name.endswith("-hangs"):
        raise Hang
    return b""


def _tag(fault: Fault, csw: bytes, asked: int) -> bytes:
    before = (int.from_bytes(csw[4:8], "little") - 1) & 0xFFFFFFFF
    return csw[:4] + (before if fault.value is None else fault.number).to_bytes(4, "little") + csw[8:]


def _with_residue(csw: bytes, residue: int) -> bytes:
    return csw[:8] + residue.to_bytes(4, "little") + csw[12:]


def _with_status(csw: bytes, status: int) -> bytes:
    return csw[:12] + bytes((status,)) + csw[13:]


_EDITS: Mapping[str, Callable[[Fault, bytes, int], bytes]] = {
    "signature": lambda fault, csw, asked: bytes.fromhex(str(fault.value)) + csw[4:],
    "tag": _tag,
    "residue": lambda fault, csw, asked: _with_residue(csw, fault.number),
    "bogus-residue": lambda fault, csw, asked: _with_residue(csw, asked),
    "no-sense": lambda fault, csw, asked: _with_status(csw, 1),
    "phase-error": lambda fault, csw, asked: _with_status(csw, 2),
    "status": lambda fault, csw, asked: _with_status(csw, fault.number),
    "short": lambda fault, csw, asked: csw[: fault.number],
    "long": lambda fault, csw, asked: csw + _FILLING * fault.number,
}

_BENDS: Mapping[str, Callable[[Faulty, Fault, Task], Task]] = {
    "stall": Faulty.bend_stall,
    "short": Faulty.bend_short,
    "empty": Faulty.bend_short,
    "long": Faulty.bend_long,
    "csw-as-data": Faulty.bend_away,
    "case": Faulty.bend_to_case,
}
