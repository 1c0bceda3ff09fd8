"""The device's side of USB Attached SCSI (T10 UAS-3), with streams or without."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Sequence

from scsiusb.base.dataclass import dataclass
from scsiusb.usb.backend import Endpoint
from scsiusb.virtual.device.function import Answer, Halts, Setup, Stall
from scsiusb.virtual.target.target import Target
from scsiusb.virtual.target.task import Direction, Task

COMMAND_IU, SENSE_IU, RESPONSE_IU, TASK_MANAGEMENT_IU, READ_READY_IU, WRITE_READY_IU = 1, 3, 4, 5, 6, 7
GOOD, CHECK_CONDITION, TASK_SET_FULL = 0x00, 0x02, 0x28
COMPLETE, INVALID_IU, NOT_SUPPORTED, OVERLAPPED_TAG = 0x00, 0x02, 0x04, 0x0A
ABORT_TASK, LOGICAL_UNIT_RESET = 0x01, 0x08
PIPE_COMMAND, PIPE_STATUS, PIPE_IN, PIPE_OUT = 1, 2, 3, 4
MOST_TASKS = 64  # that wait

_COMMAND = struct.Struct(">BxHBxBx8s16s")
_MANAGEMENT = struct.Struct(">BxHBxH8s")
_SENSE = struct.Struct(">BxHHB7xH")
_RESPONSE = struct.Struct(">BxH3xB")
_READY = struct.Struct(">BxH")
_CDB_LENGTHS = {0: 6, 1: 10, 2: 10, 5: 12}  # by the group code of the operation code (SPC-4 4.2.5.1); others: 16
_REQUEST_SENSE = bytes((0x03, 0, 0, 0, 252, 0))


@dataclass
class Queued:
    """A command that the device has and has not ended; `task` once it was begun."""

    tag: int
    lun: int
    cdb: bytes
    task: Task | None = None
    left: int = 0  # bytes of its data that were not moved


class Uas(Halts):
    """The function of a UAS setting: it carries out one command after the other, in the order in which they came."""

    def __init__(self, endpoints: Sequence[Endpoint], target: Target, *, has_streams: bool) -> None:
        super().__init__()
        pipes = {each.pipe: each for each in endpoints}
        self._command, self._status, self._in, self._out = (
            pipes[each] for each in (PIPE_COMMAND, PIPE_STATUS, PIPE_IN, PIPE_OUT)
        )
        self._target = target
        self._has_streams = has_streams
        self._queue: deque[Queued] = deque()
        self._answers: deque[tuple[int, bytes]] = deque()  # tag, information unit

    def reset(self) -> None:
        """See `Function.reset`."""
        self._halted.clear()
        self._queue.clear()
        self._answers.clear()

    def control(self, setup: Setup, data: bytes) -> bytes:
        """See `Function.control`; UAS has no class requests."""
        raise Stall

    # --- from the host --------------------------------------------------------------------------

    def receive(self, endpoint: int, data: memoryview, stream: int = 0) -> tuple[Answer, int]:
        """See `Function.receive`; `stream`: the stream of the endpoint, 0 if it has none."""
        if endpoint in self._halted:
            return Answer.STALL, 0
        if endpoint == self._command.address:
            self.take(bytes(data))
            return Answer.MORE, len(data)
        queued = self._current(Direction.OUT, stream) if endpoint == self._out.address else None
        if queued is None or queued.task is None:
            return Answer.NAK, 0
        count = min(len(data), queued.left)
        queued.task.write(data[:count])
        queued.left -= count
        if not queued.left:
            self._end()
        return Answer.MORE, count

    def take(self, unit: bytes) -> None:
        """Receive an information unit on the command pipe."""
        if len(unit) >= _COMMAND.size and unit[0] == COMMAND_IU:
            _, tag, _, additional, lun, cdb = _COMMAND.unpack_from(unit)
            self._enqueue(
                Queued(tag, lun[1], cdb[: cdb_length(cdb[0])]), is_valid=not additional and len(unit) == _COMMAND.size
            )
        elif len(unit) == _MANAGEMENT.size and unit[0] == TASK_MANAGEMENT_IU:
            _, tag, function, task, lun = _MANAGEMENT.unpack(unit)
            self.respond(tag, self.manage(function, task, lun[1]))
        else:
            self.respond(int.from_bytes(unit[2:4], "big"), INVALID_IU)

    def _enqueue(self, queued: Queued, *, is_valid: bool) -> None:
        if not is_valid:
            self.respond(queued.tag, INVALID_IU)
        elif any(each.tag == queued.tag for each in self._queue):
            self._drop(lambda each: each.tag == queued.tag)
            self.respond(queued.tag, OVERLAPPED_TAG)
        elif len(self._queue) >= MOST_TASKS:
            self.answer(queued.tag, _SENSE.pack(SENSE_IU, queued.tag, 0, TASK_SET_FULL, 0))
        else:
            self._queue.append(queued)
            self._begin()

    def manage(self, function: int, task: int, lun: int) -> int:
        """Carry out a task management function; return the response code."""
        if function == ABORT_TASK:
            self._drop(lambda each: each.tag == task)
        elif function == LOGICAL_UNIT_RESET:
            self._drop(lambda each: each.lun == lun)
            for unit in self._target.units[lun : lun + 1]:
                unit.power_on()
        else:
            return NOT_SUPPORTED
        return COMPLETE

    def _drop(self, is_meant: Callable[[Queued], bool]) -> None:
        """Forget commands, with what the host was to be told of them."""
        tags = {each.tag for each in self._queue if is_meant(each)}
        self._queue = deque(each for each in self._queue if each.tag not in tags)
        self._answers = deque(each for each in self._answers if each[0] not in tags)
        self._begin()

    # --- the command ----------------------------------------------------------------------------

    def _begin(self) -> None:
        """Begin the first command of the queue, if it was not begun; end those that move no data."""
        while self._queue and self._queue[0].task is None:
            queued = self._queue[0]
            queued.task = task = self.execute(queued)
            queued.left = task.length
            if not queued.left:
                self._end()
            elif not self._has_streams:
                kind = READ_READY_IU if task.direction is Direction.IN else WRITE_READY_IU
                self.answer(queued.tag, _READY.pack(kind, queued.tag))

    def execute(self, queued: Queued) -> Task:
        """Start a command of the queue; return its task."""
        return self._target.execute(queued.lun, queued.cdb)

    def _current(self, direction: Direction, stream: int) -> Queued | None:
        """Return the command that moves data in that direction, on that stream, now."""
        queued = self._queue[0] if self._queue else None
        if queued is None or queued.task is None or queued.task.direction is not direction:
            return None
        return queued if not self._has_streams or stream == queued.tag else None

    def _end(self) -> None:
        """End the first command with its status, and its sense if it failed; begin the next."""
        queued = self._queue.popleft()
        assert queued.task is not None
        passed = queued.task.end()
        sense = b"" if passed else self._fetch_sense(queued.lun)
        status = GOOD if passed else CHECK_CONDITION
        self.put_status(queued, _SENSE.pack(SENSE_IU, queued.tag, 0, status, len(sense)) + sense)
        self._begin()

    def put_status(self, queued: Queued, unit: bytes) -> None:
        """Have the status of a command that has ended fetched."""
        self.answer(queued.tag, unit)

    def _fetch_sense(self, lun: int) -> bytes:
        """Take the sense from the unit, which then does not have it any more."""
        task = self._target.execute(lun, _REQUEST_SENSE)
        sense = bytearray(task.length)
        task.read(memoryview(sense))
        task.end()
        return bytes(sense)

    def respond(self, tag: int, code: int) -> None:
        """Answer with a response IU."""
        self.answer(tag, _RESPONSE.pack(RESPONSE_IU, tag, code))

    def answer(self, tag: int, unit: bytes) -> None:
        """Have an information unit fetched on the status pipe."""
        self._answers.append((tag, unit))

    # --- to the host ----------------------------------------------------------------------------

    def send(self, endpoint: int, room: memoryview, stream: int = 0) -> tuple[Answer, int]:
        """See `Function.send`; `stream`: the stream of the endpoint, 0 if it has none."""
        if endpoint in self._halted:
            return Answer.STALL, 0
        if endpoint == self._status.address:
            return self._send_answer(room, stream)
        queued = self._current(Direction.IN, stream) if endpoint == self._in.address else None
        if queued is None or queued.task is None:
            return Answer.NAK, 0
        count = min(len(room), queued.left)
        sent = queued.task.read(room[:count])
        surplus = queued.left - count if sent == count else 0
        self._end()
        return (Answer.BABBLE if surplus else Answer.SHORT), sent

    def _send_answer(self, room: memoryview, stream: int) -> tuple[Answer, int]:
        for at, (tag, unit) in enumerate(self._answers):
            if not self._has_streams or tag == stream:
                del self._answers[at]
                count = min(len(unit), len(room))
                room[:count] = unit[:count]
                return (Answer.BABBLE if count < len(unit) else Answer.SHORT), count
        return Answer.NAK, 0


def cdb_length(opcode: int) -> int:
    """Return the length of a CDB; the information unit has 16 bytes for each, and does not say it."""
    return _CDB_LENGTHS.get(opcode >> 5, 16)
