"""A device whose Bulk-Only Transport has the faults that a script lists."""

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
from scsiusb.virtual.faults.active_faults import ActiveFaults, DisconnectPoint, limit_length, task_for_case
from scsiusb.virtual.faults.faults import BOT, CSW, DATA, Fault
from scsiusb.virtual.faults.faults import CBW as CBW_PHASE
from scsiusb.virtual.faults.script import Command, Script
from scsiusb.virtual.target.sense import NO_SENSE
from scsiusb.virtual.target.target import Target
from scsiusb.virtual.target.task import Task

Transfer = Callable[[int, memoryview], tuple[Answer, int]]

_FILLER = b"\xee"


class FaultyBot(Bot):
    """Bulk-Only Transport that applies the faults of a script, and is correct where none applies."""

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
        self._drop_active_faults()

    def _drop_active_faults(self) -> None:
        self._active_faults: ActiveFaults | None = None
        self._matched_cbw = b""  # the CBW that the script has counted, until the device accepts it
        self._trailing = b""  # bytes still to be sent after a CSW (fault "extra")

    # --- requests -------------------------------------------------------------------------------

    def reset(self) -> None:
        """See `Function.reset`; also ends the faults of the command in progress."""
        super().reset()
        self._drop_active_faults()

    def clear_halt(self, endpoint: int) -> None:
        """See `Function.clear_halt`; without effect while the fault "halt-stays" applies."""
        if endpoint in self._halted and self._script.next_for_request("halt-stays"):
            return
        super().clear_halt(endpoint)

    def control(self, setup: Setup, data: bytes) -> bytes:
        """See `Function.control`; applies the faults of the class reset and of GET MAX LUN."""
        request = (setup.request_type, setup.request)
        if request == BULK_ONLY_MASS_STORAGE_RESET:
            if self._active_faults is not None and self._active_faults.ignores_class_reset:
                raise Hang
            return self._class_reset(setup, data)
        fault = self._script.next_for_request(*_MAX_LUN_FAULTS) if request == GET_MAX_LUN else None
        if fault is None:
            return super().control(setup, data)
        return _refuse(fault) or bytes((fault.number,))

    def _class_reset(self, setup: Setup, data: bytes) -> bytes:
        fault = self._script.next_for_request(*_RESET_FAULTS)
        if fault is not None:
            return _refuse(fault)
        answer = super().control(setup, data)
        self._drop_active_faults()
        return answer

    # --- transfers ------------------------------------------------------------------------------

    def receive(self, endpoint: int, data: memoryview, stream: int = 0) -> tuple[Answer, int]:
        """See `Function.receive`."""
        if self._active_faults is None and not self._script.entries:
            return super().receive(endpoint, data)
        if self._phase is Phase.COMMAND and endpoint not in self._halted:
            self._match_cbw(data)
        if self._active_faults is None:
            return super().receive(endpoint, data)
        return self._transfer(super().receive, self._active_faults, endpoint, data)

    def send(self, endpoint: int, room: memoryview, stream: int = 0) -> tuple[Answer, int]:
        """See `Function.send`."""
        if self._active_faults is None and not self._trailing:
            return super().send(endpoint, room)
        if self._trailing and endpoint not in self._halted:
            return self._send_trailing(room)
        if self._active_faults is None or self._must_end_data(endpoint):
            return super().send(endpoint, room)
        return self._transfer(super().send, self._active_faults, endpoint, room)

    def _must_end_data(self, endpoint: int) -> bool:
        """Whether the host has yet to see the end of the data phase (a halt or an empty packet).

        The phase is STATUS as soon as the CSW is ready; its faults apply only after that end.
        """
        ended = self._phase is Phase.STATUS and (endpoint in self._halted or self._empty_packets > 0)
        return ended and self._active_faults is not None and not self._active_faults.hides_data_end

    def _transfer(
        self, transfer: Transfer, active: ActiveFaults, endpoint: int, buffer: memoryview
    ) -> tuple[Answer, int]:
        if active.silent_until > time.monotonic():
            return Answer.NAK, 0
        if self._stalls_now(active, endpoint):
            self._halted.add(endpoint)
            return Answer.STALL, 0
        if active.cbw_time:
            self._check_rushed(active)
        point = active.disconnect_point
        if point is not None and point.phases_until(self._phase) <= 0:
            return self._transfer_until(point, transfer, endpoint, buffer)
        return transfer(endpoint, buffer)

    def _stalls_now(self, active: ActiveFaults, endpoint: int) -> bool:
        """Whether to stall the CBW or the CSW now; each is stalled once."""
        if self._phase is Phase.COMMAND and any(fault.name == "stall" for fault in active.in_phase(CBW_PHASE)):
            self._drop_active_faults()
            return True
        if self._phase is Phase.STATUS and active.stalls_csw and endpoint == self._in.address:
            active.stalls_csw = False
            return True
        return False

    def _transfer_until(
        self, point: DisconnectPoint, transfer: Transfer, endpoint: int, buffer: memoryview
    ) -> tuple[Answer, int]:
        """Move data up to the disconnect point, then leave the bus.

        Only whole packets are moved: a packet that is broken off does not count for the host.
        """
        phase = self._phase
        length = CBW.size if phase is Phase.COMMAND else self._left
        ends_here = point.bytes_left < length
        left = point.bytes_left - point.bytes_left % self._in.max_packet_size if ends_here else point.bytes_left
        if point.phases_until(phase) < 0 or (ends_here and not left):
            self._plug.disconnect(point.absence)
            return Answer.NAK, 0
        answer, count = transfer(endpoint, buffer[:left] if ends_here else buffer)
        point.bytes_left -= count
        if point.bytes_left <= 0 or self._phase is not phase:
            self._plug.disconnect(point.absence)
        return answer, count

    def _send_trailing(self, room: memoryview) -> tuple[Answer, int]:
        """Send one packet of the bytes after the CSW."""
        packet = self._trailing[: self._in.max_packet_size]
        self._trailing = self._trailing[len(packet) :]
        sent = packet[: len(room)]
        room[: len(sent)] = sent
        if len(sent) < len(packet):
            return Answer.BABBLE, len(sent)
        return (Answer.SHORT if len(sent) < self._in.max_packet_size else Answer.MORE), len(sent)

    # --- the command ----------------------------------------------------------------------------

    def _match_cbw(self, data: memoryview) -> None:
        """Ask the script which faults apply to a CBW; once, however often the host offers the CBW."""
        cbw = self._cbw + data[: self._out.max_packet_size]
        if cbw == self._matched_cbw or not is_valid(cbw):
            return
        self._matched_cbw = cbw
        _, _, transfer_length, _, lun, length, cdb = CBW.unpack(cbw)
        faults = self._script.next_for_command(Command(transfer_length, lun, cdb[:length], BOT))
        before, self._active_faults = self._active_faults, ActiveFaults(faults) if faults else None
        # A silent device has not accepted the CBW before this one: a new CBW does not end the silence.
        if before is not None and before.silent_until > time.monotonic():
            self._active_faults = self._active_faults or ActiveFaults(())
            self._active_faults.stay_silent(before.silent_until, before.silent_phase)
            self._active_faults.ignores_class_reset |= before.ignores_class_reset
        self._start_silence(CBW_PHASE)

    def _start_silence(self, phase: str) -> None:
        """Start the faults "nak", "hang" and "delay" of a phase that begins."""
        if self._active_faults is None:
            return
        for fault in self._active_faults.in_phase(phase):
            if fault.name in ("nak", "hang"):
                self._active_faults.stay_silent(math.inf, phase)
                self._active_faults.ignores_class_reset |= fault.name == "hang"
            elif fault.name == "delay":
                self._script.delay_end = time.monotonic() + float(fault.value or 0)
                self._active_faults.stay_silent(self._script.delay_end, phase)

    def _execute(self, lun: int, cdb: bytes) -> Task:
        if not self._matched_cbw:  # no fault was pending when the CBW came, so `_match_cbw` has not counted it
            self._script.commands += 1
        self._matched_cbw = b""
        active = self._active_faults
        if active is None:
            return super()._execute(lun, cdb)
        active.cbw_time, active.lun = time.monotonic(), lun
        task = unit_faults.execute(self._target, lun, cdb, active.faults)
        for fault in active.faults:
            change = _DATA_FAULTS.get(fault.name) if fault.phase in (DATA, "") else None
            task = change(self, fault, task) if change else task
        return task

    def _begin_data(self, is_in: bool) -> None:
        if self._active_faults is not None and self._transfer_length:
            self._start_silence(DATA)
            if self._active_faults.skips_data:
                self._begin_status()
                return
        super()._begin_data(is_in)

    def _check_rushed(self, active: ActiveFaults) -> None:
        """End the command with a phase error if the host continued too soon after the CBW (fault "rushed").

        This is how devices that need Linux's quirk US_FL_GO_SLOW behave.
        """
        fault, elapsed = active.find("rushed"), time.monotonic() - active.cbw_time
        active.cbw_time = 0.0
        if fault is None or elapsed * 1e6 >= fault.number:
            return
        self._task, self._is_phase_error = Task(), True
        if self._phase is Phase.DATA_IN:
            self._halted.add(self._in.address)
        elif self._phase is Phase.DATA_OUT:
            self._halted.add(self._out.address)
        self._begin_status()

    # --- faults of the data phase, by `_DATA_FAULTS` ----------------------------------------------

    def stall_data(self, fault: Fault, task: Task) -> Task:
        """Stall the data phase after N bytes; if all data came before, stall the CSW, which uses the same pipe."""
        self._data_in, self._data_out = DataIn.STALL, DataOut.STALL
        if self._active_faults is not None and fault.number >= task.length >= self._transfer_length:
            self._active_faults.stalls_csw = True
        return limit_length(task, fault.number)

    def shorten_data(self, fault: Fault, task: Task) -> Task:
        """End the data phase after N bytes by a short or empty packet."""
        self._data_in, self._data_out = DataIn.SHORT, DataOut.DISCARD
        return limit_length(task, fault.number)

    def lengthen_data(self, fault: Fault, task: Task) -> Task:
        """Send N bytes more than the host asked for, or wait for N bytes more than it announced."""
        self._data_out, self._surplus = DataOut.DISCARD, fault.number
        return task

    def skip_data(self, fault: Fault, task: Task) -> Task:
        """Send the CSW in place of the data."""
        if self._active_faults is not None:
            self._active_faults.skips_data = True
        return limit_length(task, 0)

    def follow_case(self, fault: Fault, task: Task) -> Task:
        """Intend what the device intends in case N of the thirteen (BOT 6.7)."""
        return task_for_case(fault.number, task, self._transfer_length)

    # --- the status -----------------------------------------------------------------------------

    def _put_status(self, csw: bytes) -> None:
        active = self._active_faults
        if active is None:
            super()._put_status(csw)
            return
        for fault in active.in_phase(CSW):
            change = _CSW_FAULTS.get(fault.name)
            csw = change(fault, csw, self._transfer_length) if change else csw
        super()._put_status(csw)
        self._start_silence(CSW)
        names = {fault.name for fault in active.in_phase(CSW)}
        if "no-sense" in names:
            self._clear_sense(active.lun)
        if "empty" in names or not csw:
            self._empty_packets += 1
        if not csw:
            self._end_command()
        # After data that ended with a short packet, the host sees the halt that ends the data phase only when it reads
        # the CSW. For this host the CSW has then been stalled already, so no second STALL is added.
        ends_at_csw = self._in.address in self._halted and self._sent % self._in.max_packet_size > 0
        active.stalls_csw |= "stall" in names
        active.stalls_csw &= not ends_at_csw

    def _clear_sense(self, lun: int) -> None:
        if lun < len(self._target.units):
            self._target.units[lun].queue_attentions(0)
            self._target.units[lun].keep_sense(NO_SENSE)

    def _all_sent(self, last: int) -> None:
        was_status = self._phase is Phase.STATUS
        super()._all_sent(last)
        if was_status and self._active_faults is not None:
            self._end_command()

    def _end_command(self) -> None:
        """Wait for the next CBW, after the CSW has been sent."""
        extra = self._active_faults.find("extra") if self._active_faults else None
        self._phase, self._active_faults = Phase.COMMAND, None
        self._trailing = _FILLER * extra.number if extra else b""


_RESET_FAULTS = ("reset-stalls", "reset-hangs", "reset-ignored")
_MAX_LUN_FAULTS = ("max-lun-stalls", "max-lun-hangs", "max-lun")


def _refuse(fault: Fault) -> bytes:
    """Raise `Stall` or `Hang` if the fault is of that kind, else return b""."""
    if fault.name.endswith("-stalls"):
        raise Stall
    if fault.name.endswith("-hangs"):
        raise Hang
    return b""


def _with_tag(fault: Fault, csw: bytes, transfer_length: int) -> bytes:
    before = (int.from_bytes(csw[4:8], "little") - 1) & 0xFFFFFFFF
    return csw[:4] + (before if fault.value is None else fault.number).to_bytes(4, "little") + csw[8:]


def _with_residue(csw: bytes, residue: int) -> bytes:
    return csw[:8] + residue.to_bytes(4, "little") + csw[12:]


def _with_status(csw: bytes, status: int) -> bytes:
    return csw[:12] + bytes((status,)) + csw[13:]


_CSW_FAULTS: Mapping[str, Callable[[Fault, bytes, int], bytes]] = {
    "signature": lambda fault, csw, transfer_length: bytes.fromhex(str(fault.value)) + csw[4:],
    "tag": _with_tag,
    "residue": lambda fault, csw, transfer_length: _with_residue(csw, fault.number),
    "bogus-residue": lambda fault, csw, transfer_length: _with_residue(csw, transfer_length),
    "no-sense": lambda fault, csw, transfer_length: _with_status(csw, 1),
    "phase-error": lambda fault, csw, transfer_length: _with_status(csw, 2),
    "status": lambda fault, csw, transfer_length: _with_status(csw, fault.number),
    "short": lambda fault, csw, transfer_length: csw[: fault.number],
    "long": lambda fault, csw, transfer_length: csw + _FILLER * fault.number,
}

_DATA_FAULTS: Mapping[str, Callable[[FaultyBot, Fault, Task], Task]] = {
    "stall": FaultyBot.stall_data,
    "short": FaultyBot.shorten_data,
    "empty": FaultyBot.shorten_data,
    "long": FaultyBot.lengthen_data,
    "csw-as-data": FaultyBot.skip_data,
    "case": FaultyBot.follow_case,
}
