"""One exchange by USB Attached SCSI: a command IU, its data, and the status with its sense (UAS-3 6)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from scsiusb.base.releases import Releases
from scsiusb.errors import DeviceBusy, MalformedReply, PhaseError, TransportError
from scsiusb.transport.base import FAILED, GOOD, Call, Completion, Direction, Story
from scsiusb.transport.recovery import PORT_RESET, Rung, Synchronizer, Trouble
from scsiusb.transport.turns import Turns
from scsiusb.transport.uas.formats import (
    COMMAND_CODEC,
    DONE,
    MAX_CDB,
    TASK_MANAGEMENT_CODEC,
    Function,
    Response,
    Status,
    lun_field,
)
from scsiusb.transport.uas.tasks import Task, Tasks
from scsiusb.usb.port import LONGEST_TIMEOUT_MS, Port

ABORT_TASK: Final = "abort task"
UNIT_RESET: Final = "logical unit reset"
REQUEST_SENSE: Final = 0x03
MAX_LUN: Final = 255  # peripheral device addressing has a byte (SAM-5 4.7.7.2)
LONGEST: Final = LONGEST_TIMEOUT_MS / 1000
NO_DATA: Final = memoryview(b"")
# Sense that stands for a status without any, in fixed format: key, additional length 10, ASC, ASCQ (SPC-4 4.5.3).
BUSY_SENSE: Final = bytes.fromhex("700002000000000a00000000040700000000")  # NOT READY, OPERATION IN PROGRESS
ABORTED_SENSE: Final = bytes.fromhex("70000b000000000a00000000000000000000")  # ABORTED COMMAND
NO_UNIT_SENSE: Final = bytes.fromhex("700005000000000a00000000250000000000")  # LOGICAL UNIT NOT SUPPORTED
FAILURES: Final = {
    Status.CHECK_CONDITION: b"",
    Status.BUSY: BUSY_SENSE,
    Status.TASK_SET_FULL: BUSY_SENSE,
    Status.TASK_ABORTED: ABORTED_SENSE,
}


class UasExchange:
    """Runs one command at a time, through its own buffers, which `releases` gives back.

    The sense of a failed command comes with its status. It is kept for the REQUEST SENSE that follows in the same turn,
    which is not sent then: the device has told it already, and would not again.
    """

    def __init__(self, port: Port, tasks: Tasks, turns: Turns, releases: Releases) -> None:
        self.synchronizer: Synchronizer
        self._port = port
        self._tasks = tasks
        self._turns = turns
        self._sense: tuple[int, bytes] | None = None
        self._lun = 0
        self._in_doubt: list[int] = []
        """Tags of commands that may still be in the device."""
        whole = port.memory.allocate(COMMAND_CODEC.length)
        self._iu, self._order = whole[: COMMAND_CODEC.length], whole[-TASK_MANAGEMENT_CODEC.length :]
        for view in (self._order, self._iu):
            releases.add(view.release)
        COMMAND_CODEC.put_constants(self._iu)
        TASK_MANAGEMENT_CODEC.put_constants(self._order)

    def run(self, lun: int, cdb: bytes, direction: Direction, data: memoryview, timeout: float) -> Story[Completion]:
        """Run one command, within a turn; `data` is the whole data phase, empty for none; `timeout` in seconds.

        Raise TransportError where the exchange does not end with a status, after the recovery of the device;
        DeviceBusy if the unit is reserved; ValueError for what a command IU cannot say.
        """
        device, turns = self.synchronizer, self._turns
        if not 0 <= lun <= MAX_LUN or not 0 < len(cdb) <= MAX_CDB or (len(data) and direction is Direction.NONE):
            raise ValueError(f"LUN {lun}, {direction}: a CDB of {len(cdb)} bytes does not fit a command IU")
        kept, self._sense = self._sense, None
        if kept is not None and kept[0] == lun and cdb[0] == REQUEST_SENSE and len(data):
            count = min(len(data), len(kept[1]))
            data[:count] = kept[1][:count]
            return Completion(GOOD, len(data) - count, count)
        turns.check(turns.current)
        try:
            if device.out_of_step:
                yield from device.recover_first(timeout)
            device.begin()
            try:
                tag = self._tasks.next_tag()
                self._in_doubt, self._lun = [tag], lun
                COMMAND_CODEC.pack_values_into(
                    self._iu, COMMAND_CODEC.values_offset, tag, 0, 0, lun_field(lun), cdb.ljust(MAX_CDB, b"\0")
                )
                task = Task(self._iu, data, direction is Direction.IN, min(timeout, LONGEST))
                device.owes_data = False
                yield Call(partial(self._tasks.perform, (task,)))
                completion = self._completion(lun, task)
            except BaseException as error:
                device.losses.count += 1  # without a call: see the exchange of BOT
                device.doubts.count += 1
                if isinstance(error, TransportError):
                    yield from device.fail(cdb, timeout, error)
                raise
        except TransportError as error:
            turns.note(error)
            raise
        self._in_doubt = []
        if device.failures.count:
            device.failures.note_success(cdb[0])
        device.out_of_step = False
        if device.note_exchange is not None:
            device.note_exchange(False)
        if task.status == Status.RESERVATION_CONFLICT:
            what = f"{self._port.info}, LUN {lun}, is reserved by another host or program (RESERVATION CONFLICT)"
            raise DeviceBusy(what, "have the holder release the reservation, or clear it there")
        return completion

    def _completion(self, lun: int, task: Task) -> Completion:
        """Return how the task ended, and keep its sense. Raise TransportError if it did not end properly."""
        error, task.error = task.error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # this frame is in its traceback
        if task.response is not None:
            if task.response != Response.INCORRECT_LUN:
                raise MalformedReply(f"the device refused the command IU: {_name(Response, task.response)}")
            self._sense = lun, NO_UNIT_SENSE
            return Completion(FAILED, len(task.data) - task.moved, task.moved)
        if task.has_more:
            raise PhaseError(f"data-in pipe: the device sent more than the {len(task.data)} bytes asked for")
        residue = len(task.data) - task.moved
        if task.status in (Status.GOOD, Status.CONDITION_MET, Status.RESERVATION_CONFLICT):
            return Completion(GOOD, residue, task.moved)
        try:
            sense = task.sense or FAILURES[Status(task.status)]
        except (KeyError, ValueError):
            raise MalformedReply(f"the status is {_name(Status, task.status)}") from None
        self._sense = (lun, sense) if sense else None
        return Completion(FAILED, residue, task.moved)

    # --- recovery -----------------------------------------------------------------------------------

    def ladder(self, timeout: float, trouble: Trouble) -> Sequence[Rung]:
        """Return the recovery steps, the gentlest first; `timeout`: seconds for each."""
        by_port = Rung(PORT_RESET, self._reset_port)
        if trouble.is_repeated:
            return (by_port,)
        aborts = (Rung(ABORT_TASK, partial(self._order_all, Function.ABORT_TASK, timeout)),) if self._in_doubt else ()
        return *aborts, Rung(UNIT_RESET, partial(self._order_unit, timeout)), by_port

    def _order_all(self, function: Function, timeout: float) -> None:
        """Have each command that may still be in the device aborted."""
        for tag in self._in_doubt:
            self._manage(function, tag, timeout)
        self._drain()

    def _order_unit(self, timeout: float) -> None:
        self._manage(Function.LOGICAL_UNIT_RESET, 0, timeout)
        self._drain()

    def _drain(self) -> None:
        for tag in self._in_doubt:
            self._tasks.drain(tag)
        self._in_doubt = []

    def _manage(self, function: Function, task: int, timeout: float) -> None:
        """Send a task management function (UAS-3 6.2.6). Raise TransportError unless the device has done it."""
        TASK_MANAGEMENT_CODEC.pack_values_into(
            self._order,
            TASK_MANAGEMENT_CODEC.values_offset,
            self._tasks.tag_of(function),
            function,
            task,
            lun_field(self._lun),
        )
        order = Task(self._order, NO_DATA, False, timeout)
        self._tasks.perform((order,))
        error, order.error = order.error, None
        if error is not None:
            try:
                raise error
            finally:
                del error
        if order.response not in DONE:
            answer = "a status" if order.response is None else _name(Response, order.response)
            raise MalformedReply(f"the device answered {function.name.replace('_', ' ')} with {answer}")

    def _reset_port(self) -> None:
        """Reset the port; the streams end with it, and are allocated again."""
        self._port.reset()
        wanted = self._tasks.streams
        if wanted and self._port.allocate_streams(wanted) < wanted:
            raise TransportError("the streams could not be allocated again after the port reset")
        self._in_doubt = []


def _name(kind: type[Status] | type[Response], value: int) -> str:
    """Return a code's number, and its name if it has one."""
    names = {each.value: each.name.replace("_", " ") for each in kind}
    return f"{value:02X}h, {names[value]}" if value in names else f"{value:02X}h"
