"""One exchange by USB Attached SCSI: a command IU, its data, and the status with its sense (UAS-3 6)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

from scsiusb.base.releases import Releases
from scsiusb.errors import DeviceBusy, DeviceUnsupported, MalformedReply, PhaseError, TransportError
from scsiusb.quirks.model import Quirk
from scsiusb.transport.base import FAILED, GOOD, Completion, Direction, Request, Story
from scsiusb.transport.bot import reset_recovery
from scsiusb.transport.bot.exchange import Exchange
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
from scsiusb.usb.interface import InterfaceInfo
from scsiusb.usb.port import LONGEST_TIMEOUT_MS, Port

ABORT_TASK: Final = "abort task"
UNIT_RESET: Final = "logical unit reset"
TO_BOT: Final = "change to BOT"
REQUEST_SENSE: Final = 0x03
MAX_LUN: Final = 255  # peripheral device addressing has a byte (SAM-5 4.7.7.2)
LONGEST: Final = LONGEST_TIMEOUT_MS / 1000
NO_DATA: Final = memoryview(b"")
# Sense that stands for a status without any, in fixed format: key, additional length 10, ASC, ASCQ (SPC-4 4.5.3).
BUSY_SENSE: Final = bytes.fromhex("700002000000000a00000000040700000000")  # NOT READY, OPERATION IN PROGRESS
ABORTED_SENSE: Final = bytes.fromhex("70000b000000000a00000000000000000000")  # ABORTED COMMAND
NO_UNIT_SENSE: Final = bytes.fromhex("700005000000000a00000000250000000000")  # LOGICAL UNIT NOT SUPPORTED
PASSED: Final = (Status.GOOD, Status.CONDITION_MET)
FAILURES: Final = {
    # No sense comes with it. A device may have taken the data first, and has then dropped it.
    Status.RESERVATION_CONFLICT: ABORTED_SENSE,
    Status.CHECK_CONDITION: b"",
    Status.BUSY: BUSY_SENSE,
    Status.TASK_SET_FULL: BUSY_SENSE,
    Status.TASK_ABORTED: ABORTED_SENSE,
}

log = logging.getLogger(__name__)


class UasExchange:
    """Runs one command at a time, through its own buffers, which `releases` gives back.

    The sense of a failed command comes with its status. It is kept for the REQUEST SENSE that comes next for the unit,
    which is not sent then: the device has told it already, and would not again. For the same reason nobody can ask
    after a status that did not come: it may have been the report of a reset, and is counted as one.
    """

    def __init__(
        self,
        port: Port,
        tasks: Tasks,
        synchronizer: Synchronizer,
        turns: Turns,
        releases: Releases,
        other: InterfaceInfo | None = None,
    ) -> None:
        """`other`: the interface as it is used by BOT, if that may take the place of UAS."""
        self._other = other
        self._releases = releases
        self.successor: Exchange | None = None
        """The exchange of BOT, once that has taken the place of UAS."""
        self._port = port
        self._synchronizer = synchronizer
        self._tasks = tasks
        self._turns = turns
        self._senses: dict[int, bytes] = {}
        """By the unit, that of its last command if it failed."""
        self._lun = 0
        self._in_doubt: list[int] = []
        """Tags of commands that may still be in the device."""
        whole = port.memory.allocate(COMMAND_CODEC.length)
        self._iu, self._order = whole[: COMMAND_CODEC.length], whole[-TASK_MANAGEMENT_CODEC.length :]
        for view in (self._order, self._iu):
            releases.add(view.release)

    def run(self, lun: int, cdb: bytes, direction: Direction, data: memoryview, timeout: float) -> Story[Completion]:
        """Run one command, within a turn; `data` is the whole data phase, empty for none; `timeout` in seconds.

        Raise TransportError where the exchange does not end with a status, after the recovery of the device;
        DeviceBusy if the unit is reserved; ValueError for what a command IU cannot say.
        """
        if self.successor is not None:
            return (yield from self.successor.run(lun, cdb, direction, data, timeout))
        self._check(lun, cdb, direction, data)
        kept = self._senses.pop(lun, b"")
        if kept and cdb[0] == REQUEST_SENSE and len(data):
            count = min(len(data), len(kept))
            data[:count] = kept[:count]
            return Completion(GOOD, len(data) - count, count)
        pack = partial(self._pack, self._iu, lun, cdb)
        task = Task(pack, data, direction is Direction.IN, min(timeout, LONGEST))
        yield from self._perform(lun, (task,), cdb, timeout)
        completion, sense = self._completion(task)
        if task.status == Status.RESERVATION_CONFLICT:
            what = f"{self._port.info}, LUN {lun}, is reserved by another host or program (RESERVATION CONFLICT)"
            raise DeviceBusy(what, "have the holder release the reservation, or clear it there")
        if sense:
            self._senses[lun] = sense
        return completion

    def run_many(
        self, lun: int, requests: Sequence[Request], direction: Direction, timeout: float, depth: int | None = None
    ) -> Story[list[tuple[Completion, bytes]]]:
        """Run commands, `depth` at once, within a turn; return for each how it ended, and its sense.

        They are carried out in any order, and one that fails does not hold up the others. `timeout`: seconds for each;
        `depth` None: as many as the device takes. Raise as `run`, for all of them: none counts then.
        """
        if self.successor is not None:
            return (yield from self._one_by_one(self.successor, lun, requests, direction, timeout))
        for cdb, data in requests:
            self._check(lun, cdb, direction, data)
        self._senses.pop(lun, None)
        is_in = direction is Direction.IN
        tasks = [
            Task(partial(self._pack, memoryview(bytearray(COMMAND_CODEC.length)), lun, cdb), data, is_in, timeout)
            for cdb, data in requests
        ]
        if tasks:
            yield from self._perform(lun, tasks, requests[0][0], timeout, depth)
        if any(task.status == Status.TASK_SET_FULL for task in tasks):
            self._tasks.lower_depth()
        return [self._completion(task) for task in tasks]

    def _one_by_one(
        self, successor: Exchange, lun: int, requests: Sequence[Request], direction: Direction, timeout: float
    ) -> Story[list[tuple[Completion, bytes]]]:
        """Do as `run_many` by BOT, which says nothing of why a command failed: it is to be asked."""
        ended: list[tuple[Completion, bytes]] = []
        for cdb, data in requests:
            completion = yield from successor.run(lun, cdb, direction, data, timeout)
            ended.append((completion, b""))
        return ended

    def _check(self, lun: int, cdb: bytes, direction: Direction, data: memoryview) -> None:
        """Raise ValueError for what a command IU cannot say."""
        if not 0 <= lun <= MAX_LUN or not 0 < len(cdb) <= MAX_CDB or (len(data) and direction is Direction.NONE):
            raise ValueError(f"LUN {lun}, {direction}: a CDB of {len(cdb)} bytes does not fit a command IU")

    def _pack(self, unit: memoryview, lun: int, cdb: bytes, tag: int) -> memoryview:
        """Write the command IU into the memory, and return it."""
        COMMAND_CODEC.pack_into(unit, tag, 0, 0, lun_field(lun), cdb.ljust(MAX_CDB, b"\0"))
        return unit

    def _perform(
        self, lun: int, tasks: Sequence[Task], cdb: bytes, timeout: float, depth: int | None = None
    ) -> Story[None]:
        """Perform the tasks; each has then ended properly. Raise TransportError, after the recovery of the device."""
        device, turns = self._synchronizer, self._turns
        turns.check(turns.current)
        try:
            if device.out_of_step:
                yield from device.recover_first(timeout)
            device.begin()
            try:
                device.owes_data = False
                self._lun = lun
                yield from self._tasks.perform(tasks, depth)
                for task in tasks:
                    _check_ended(task)
            except BaseException as error:
                device.losses.count += 1  # without a call: see the exchange of BOT
                device.doubts.count += 1
                self._in_doubt = [task.tag for task in tasks if task.is_in_doubt]
                self._port.resets.count += any(task.may_have_told for task in tasks)
                if isinstance(error, TransportError):
                    yield from device.fail(cdb, timeout, error)
                raise
        except TransportError as error:
            turns.note(error)
            raise
        if device.failures.count:
            device.failures.note_success(cdb[0])
        device.out_of_step = False
        if device.note_exchange is not None:
            device.note_exchange(False)

    def _completion(self, task: Task) -> tuple[Completion, bytes]:
        """Return how a task ended, and the sense that came with it."""
        residue = len(task.data) - task.moved
        if task.response is not None:  # an incorrect LUN: see `_check_ended`
            return Completion(FAILED, residue, task.moved), NO_UNIT_SENSE
        if task.status in PASSED:
            return Completion(GOOD, residue, task.moved), b""
        return Completion(FAILED, residue, task.moved), task.sense or FAILURES[Status(task.status)]

    # --- recovery -----------------------------------------------------------------------------------

    def ladder(self, timeout: float, trouble: Trouble) -> Sequence[Rung]:
        """Return the recovery steps, the gentlest first; `timeout`: seconds for each."""
        if self.successor is not None:
            return reset_recovery.ladder(self._port, timeout, trouble)
        may_change = self._other is not None and not self._turns.is_closed
        changes = (Rung(TO_BOT, self.change_to_bot),) if may_change else ()
        last = *changes, Rung(PORT_RESET, self._reset_port)
        if trouble.is_repeated:
            return last
        aborts = (Rung(ABORT_TASK, partial(self._abort, timeout)),) if self._in_doubt else ()
        return *aborts, Rung(UNIT_RESET, partial(self._reset_unit, timeout)), *last

    def _abort(self, timeout: float) -> None:
        """Have each command that may still be in the device aborted."""
        for tag in self._in_doubt:
            self._manage(Function.ABORT_TASK, tag, timeout)
        self._drain()

    def _reset_unit(self, timeout: float) -> None:
        self._manage(Function.LOGICAL_UNIT_RESET, 0, timeout)
        self._drain()

    def _drain(self) -> None:
        with self._undisturbed():
            self._tasks.drain(self._in_doubt)
        self._in_doubt = []

    def _manage(self, function: Function, task: int, timeout: float) -> None:
        """Send a task management function (UAS-3 6.2.6). Raise TransportError unless the device has done it."""

        def pack(tag: int) -> memoryview:
            TASK_MANAGEMENT_CODEC.pack_into(self._order, tag, function, task, lun_field(self._lun))
            return self._order

        order = Task(pack, NO_DATA, False, timeout, self._tasks.tag_of(function))
        with self._undisturbed():
            for step in self._tasks.perform((order,)):
                step.action()
        if order.response not in DONE:
            answer = "a status" if order.response is None else _name(Response, order.response)
            raise MalformedReply(f"the device answered {function.name.replace('_', ' ')} with {answer}")

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """Let transfers begin after an interruption: the command must be aborted in the device, too."""
        was_interrupted = self._turns.is_interrupted
        if was_interrupted:
            self._port.interrupt(False)
        try:
            yield
        finally:
            if was_interrupted:
                self._port.interrupt(True)

    def change_to_bot(self) -> None:
        """Reset the device, and use it by BOT from now on, until it is unplugged. Raise TransportError."""
        port, other = self._port, self._other
        if other is None:
            raise DeviceUnsupported(f"{port.info} has no Bulk-Only Transport to change to")
        port.change_protocol(other, reset=True)
        self._in_doubt = []
        self.successor = Exchange(port, self._synchronizer, self._turns, self._releases)
        self._releases.add(self._synchronizer.settle)
        port.learn(Quirk.IGNORE_UAS, "it failed by UAS")
        log.warning("%s fails by UAS; Bulk-Only Transport is used until it is unplugged", other)

    def _reset_port(self) -> None:
        """Reset the port; the streams end with it, and are allocated again."""
        self._port.reset()
        wanted = self._tasks.streams
        if wanted and self._port.allocate_streams(wanted) < wanted:
            raise TransportError("the streams could not be allocated again after the port reset")
        self._in_doubt = []


def _check_ended(task: Task) -> None:
    """Raise TransportError if the task did not end with a status that means something."""
    if task.response is not None:
        if task.response != Response.INCORRECT_LUN:
            raise MalformedReply(f"the device refused the command IU: {_name(Response, task.response)}")
    elif task.has_more:
        raise PhaseError(f"data-in pipe: the device sent more than the {len(task.data)} bytes asked for")
    elif task.status not in PASSED and task.status not in FAILURES:
        raise MalformedReply(f"the status is {_name(Status, task.status)}")


def _name(kind: type[Status] | type[Response], value: int) -> str:
    """Return a code's number, and its name if it has one."""
    names = {each.value: each.name.replace("_", " ") for each in kind}
    return f"{value:02X}h, {names[value]}" if value in names else f"{value:02X}h"
