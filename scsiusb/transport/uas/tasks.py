"""Commands in flight on a UAS interface: their transfers, and whose status an information unit is."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from functools import partial
from typing import Any, Final

from scsiusb.errors import DeviceTimeout, MalformedReply, TransferStalled, TransportError
from scsiusb.transport.base import Await
from scsiusb.transport.uas.formats import (
    HEADER_CODEC,
    MAX_SENSE,
    READ_READY_ID,
    RESPONSE_CODEC,
    RESPONSE_ID,
    SENSE_ID,
    STATUS_CODEC,
    WRITE_READY_ID,
    Function,
)
from scsiusb.usb.backend import ABANDONED, AsyncTransfers, Code, UsbError
from scsiusb.usb.port import Port

LONGEST_IU: Final = STATUS_CODEC.length + MAX_SENSE
LAST_TAG: Final = 0xFFFE  # UAS-3 6.2.1; 0 is no tag
MOST_STRAYS: Final = 64  # units that no task awaits, in one call, until the device counts as out of step
GRACE: Final = 0.25  # seconds for data to end after a good status: a device may forget the short packet that ends it
MEMORY_PATIENCE: Final = 0.5  # seconds to wait until other transfers have given their memory back
MEMORY_PAUSE: Final = 0.001  # seconds
NOT_SENT: Final = -1
DEPTH_WITHOUT_STREAMS: Final = 16  # Linux takes 32; a device answers TASK SET FULL if it is too many

log = logging.getLogger(__name__)
monotonic: Final = time.monotonic
OK, PIPE, OVERFLOW, NO_MEM, TIMEOUT = Code.OK, Code.PIPE, Code.OVERFLOW, Code.NO_MEM, Code.TIMEOUT


class Task:
    """One command, or one task management function, from its information unit to its status."""

    def __init__(
        self, pack: Callable[[int], memoryview], data: memoryview, is_in: bool, timeout: float, tag: int = 0
    ) -> None:
        """`pack`: returns the information unit to send, with the tag that it is given; `tag`: that one, 0 for any.

        `data`: the data phase, empty for none; `timeout` in seconds.
        """
        self.pack = pack
        self.data = data
        self.is_in = is_in
        self.timeout = timeout
        self.tag = tag
        self.deadline = 0.0
        """By `time.monotonic`; 0: it was not sent."""
        self.ended = 0.0
        """When its status came; 0: not yet."""
        self.iu = data[:0]
        self.status = NOT_SENT
        self.sense = b""
        self.response: int | None = None
        self.moved = 0
        """Bytes of the data phase that went over the wire."""
        self.has_more = False
        """Whether the device had more data-in than was asked for."""
        self.sending: list[Any] = []
        self.moving: list[Any] = []
        self.listening: list[Any] = []
        self.room: memoryview | None = None
        """Where its status comes, if it has a stream of its own."""
        self.has_moved = False

    @property
    def is_over(self) -> bool:
        """Whether nothing is awaited any more."""
        return bool(self.ended) and not self.moving and not self.sending

    @property
    def is_in_doubt(self) -> bool:
        """Whether the device may still have it."""
        return bool(self.deadline) and not self.ended

    @property
    def may_have_told(self) -> bool:
        """Whether its end, if that is lost, may have been the report of a reset or such: they come without data."""
        return bool(self.deadline and (self.status if self.ended else not self.moved))


class Tasks:
    """Sends commands, several at once, and finds for each what came for it. One thread uses it, within a turn.

    With streams, each task has one of its own for its data and its status. Without, one status at a time is awaited for
    all, and data moves when a ready IU names its task (UAS-3 6.2.7).
    """

    def __init__(self, port: Port, transfers: AsyncTransfers, allocate: Callable[[int], memoryview]) -> None:
        """`allocate`: makes the buffers that information units come in."""
        pipes = port.pipes
        if pipes is None:
            raise ValueError(f"{port.info} has no UAS pipes")
        self._port = port
        self._transfers = transfers
        self._allocate = allocate
        self._command, self._status = pipes.command.address, pipes.status.address
        self._in, self._out = pipes.data_in.address, pipes.data_out.address
        packet = pipes.status.max_packet_size
        self._room = -(-LONGEST_IU // packet) * packet  # whole packets: a longer IU is then seen as such
        self._rooms: list[memoryview] = []
        self._common = self._new_room()
        self._listening: list[Any] = []
        self.streams = 0
        """How many streams there are; 0: none."""
        self._most = DEPTH_WITHOUT_STREAMS
        self._last_tag = 0
        self._strays = 0

    @property
    def depth(self) -> int:
        """How many commands may be in flight: as many as there are tags, or fewer if the device had not enough room."""
        return min(self._tags, self._most)

    @property
    def _tags(self) -> int:
        """How many commands have a tag: as many as there are streams, but for those of task management."""
        return max(self.streams - len(Function), 1) if self.streams else DEPTH_WITHOUT_STREAMS

    def lower_depth(self) -> None:
        """Have fewer commands in flight from now on: the device said that its task set is full."""
        self._most = max(self.depth // 2, 1)
        log.info("%s: the task set is full; at most %d commands at once", self._port.info, self._most)

    def _next_tag(self, taken: Collection[int] = ()) -> int:
        """Return a tag that is not taken; the one that was free for longest."""
        while True:
            self._last_tag = self._last_tag % (self._tags if self.streams else LAST_TAG) + 1
            if self._last_tag not in taken:
                return self._last_tag

    def tag_of(self, function: Function) -> int:
        """Return the tag of a task management function: what comes late for a command is not taken for its answer."""
        if not self.streams:
            return self._next_tag()
        return max(self.streams - list(Function).index(function), 1)

    def drain(self, tags: Sequence[int]) -> None:
        """Take what still comes on the streams of commands that were aborted, for a short time in all.

        A status may have been under way; a later command with the same tag must not take it for its own.
        """
        if not self.streams:
            return  # tags come again after 65,534 others
        rooms: list[memoryview] = []
        listening: list[list[Any]] = []
        outcome = self._transfers.outcome
        try:
            for tag in tags:
                rooms.append(self._rooms.pop() if self._rooms else self._new_room())
                listening.append([])
                self._begin(self._status, rooms[-1], listening[-1], tag)
            until = monotonic() + GRACE
            while (left := until - monotonic()) > 0 and any(held and outcome(held) is None for held in listening):
                self._transfers.await_events(left)
        finally:
            try:
                self._stop(listening)
            except BaseException:  # Ctrl-C: nothing may come into these rooms any more
                self._stop(listening)
                raise
            self._rooms += [room for room in rooms if id(room.obj) not in ABANDONED]

    def _stop(self, listening: Sequence[list[Any]]) -> None:
        for held in listening:
            if held:
                self._transfers.cancel(held)

    def perform(self, tasks: Sequence[Task], depth: int | None = None) -> Generator[Await, None, None]:
        """Story that sends the tasks, `depth` at a time, or as many as there can be, and ends when each is over.

        Nothing of them is in flight then. Raise TransportError at the first thing that goes wrong with any of them: no
        more are sent, and those that were in flight are in doubt.
        """
        self._strays = 0
        waiting, most = deque(tasks), min(depth or self.depth, self.depth)
        flying: list[Task] = []
        try:
            while waiting or flying:
                while waiting and len(flying) < most:
                    flying.append(waiting[0])
                    if not self._send(waiting[0], flying):
                        flying.pop()  # until another one gives its memory back
                        break
                    waiting.popleft()
                moved = self._look(flying)
                flying = [task for task in flying if not task.is_over]
                if flying and not moved and (left := self._time_left(flying)) > 0:
                    yield Await(partial(self._transfers.await_events, left))
        finally:
            self._end(tasks)

    # --- sending ----------------------------------------------------------------------------------

    def _send(self, task: Task, flying: Sequence[Task]) -> bool:
        """Begin a task's transfers; its command goes last, when its data and its status are awaited.

        Return False where there is no memory for its data now, but others in flight will give theirs back.
        """
        if not task.tag:
            task.tag = self._next_tag([each.tag for each in flying])
        if self.streams:
            if len(task.data):
                way = self._in if task.is_in else self._out
                if not self._begin(way, task.data, task.moving, task.tag, may_wait=len(flying) == 1):
                    return False
            task.room = self._rooms.pop() if self._rooms else self._new_room()
            self._begin(self._status, task.room, task.listening, task.tag)
        elif not self._listening:
            self._begin(self._status, self._common, self._listening)
        task.iu = task.pack(task.tag)
        task.deadline = monotonic() + task.timeout
        self._begin(self._command, task.iu, task.sending)
        return True

    def _begin(
        self, endpoint: int, buffer: memoryview, held: list[Any], stream: int = 0, *, may_wait: bool = True
    ) -> bool:
        """Begin a transfer. Raise TransportError.

        Where there is no memory, which other devices may use now, wait a little for it, or return False.
        """
        enough = monotonic() + MEMORY_PATIENCE
        while True:
            try:
                self._transfers.submit(endpoint, buffer, held, stream)
            except UsbError as error:
                if error.code is NO_MEM and not may_wait:
                    return False
                if error.code is not NO_MEM or monotonic() > enough:
                    self._port.check(error.code, "beginning a transfer")
                    raise
            else:
                return True
            time.sleep(MEMORY_PAUSE)

    def _new_room(self) -> memoryview:
        return self._allocate(self._room)[: self._room]

    # --- what has come ------------------------------------------------------------------------------

    def _look(self, flying: Sequence[Task]) -> bool:
        """Process what has ended; return whether anything has."""
        self._transfers.handle_events()
        moved = False
        for task in flying:
            # Data before the status: it ended before, and what the status means depends on it.
            moved |= self._look_at(task.sending, self._sent, task)
            moved |= self._look_at(task.moving, self._data_moved, task)
            moved |= self._look_at(task.listening, self._heard, task)
        if self._listening:
            answer = self._transfers.outcome(self._listening)
            if answer is not None:
                self._take_common(answer, {task.tag: task for task in flying})
                moved = True
        return moved

    def _look_at(self, held: list[Any], take: Callable[[Task, Code, int], None], task: Task) -> bool:
        answer = self._transfers.outcome(held) if held else None
        if answer is None:
            return False
        take(task, *answer)
        return True

    def _sent(self, task: Task, code: Code, count: int) -> None:
        if code is PIPE:
            self._port.clear_halt(self._command)
            raise TransferStalled("command pipe: the device refused an information unit (STALL)")
        self._port.check(code, "command pipe")
        if count != len(task.iu):
            raise TransportError(f"command pipe: only {count} of the {len(task.iu)} bytes were sent")

    def _data_moved(self, task: Task, code: Code, count: int) -> None:
        """Take the end of a data phase. A STALL is a way to end it early; the status says why."""
        task.moved += count
        if code is PIPE:
            self._port.clear_halt(self._in if task.is_in else self._out)
        elif code is OVERFLOW and task.is_in:
            task.has_more = True
        elif code is not OK:
            way = "in" if task.is_in else "out"
            self._port.check(code, f"data-{way} pipe, {count} of {len(task.data)} bytes")

    def _heard(self, task: Task, code: Code, count: int) -> None:
        """Take what came on the task's own stream."""
        room = task.room
        assert room is not None
        kind, tag = self._checked(room, code, count)
        if tag != task.tag:
            raise MalformedReply(f"status pipe: an information unit for tag {tag} came on stream {task.tag}")
        self._take(task, kind, room[:count])

    def _take_common(self, answer: tuple[Code, int], by_tag: dict[int, Task]) -> None:
        """Take what came on the pipe that all share, and listen again, if anybody still waits."""
        code, count = answer
        kind, tag = self._checked(self._common, code, count)
        task = by_tag.get(tag)
        if task is None or task.ended:
            self._strays += 1
            if self._strays > MOST_STRAYS:
                raise MalformedReply(
                    f"status pipe: {self._strays} information units for nobody, the last for tag {tag}"
                )
        else:
            self._check_pipe(kind, task, by_tag.values())
            self._take(task, kind, self._common[:count])
        if any(not task.ended for task in by_tag.values()):
            self._begin(self._status, self._common, self._listening)

    def _check_pipe(self, kind: int, task: Task, flying: Iterable[Task]) -> None:
        """Raise MalformedReply where data would go to, or come from, the transfer of another task than it is meant for.

        All share one pipe for each direction. If a command ends before its data, its transfer still waits on the pipe,
        and the data of the next command meets it before it can be cancelled.
        """
        others = [other for other in flying if other is not task and other.is_in == task.is_in and len(other.data)]
        if kind in (READ_READY_ID, WRITE_READY_ID):
            is_shared = True
        else:
            is_shared, others = any(not other.ended for other in others), [task]
        for each in others if is_shared else ():
            if each.moving and not self._has_data_ended(each):
                what = f"the data of tag {each.tag} did not end before that of another command"
                raise MalformedReply(f"status pipe: {what}")

    def _has_data_ended(self, task: Task) -> bool:
        """Look at a data transfer, for a while: host controllers may report what ends at one time in any order."""
        until = monotonic() + GRACE
        while not self._look_at(task.moving, self._data_moved, task):
            left = until - monotonic()
            if left <= 0:
                return False
            self._transfers.await_events(left)
        return True

    def _checked(self, room: memoryview, code: Code, count: int) -> tuple[int, int]:
        """Return the ID and the tag of an information unit. Raise TransportError if there is none."""
        if code is PIPE:
            self._port.clear_halt(self._status)
            raise TransferStalled("status pipe: the device halted it (STALL)")
        if code is OVERFLOW:
            raise MalformedReply(f"status pipe: an information unit of more than {self._room} bytes")
        self._port.check(code, "status pipe")
        if count < HEADER_CODEC.length:
            raise MalformedReply(f"status pipe: {count} bytes are no information unit")
        kind, tag = HEADER_CODEC.unpack_from(room)
        return kind, tag

    def _take(self, task: Task, kind: int, iu: memoryview) -> None:
        if kind == SENSE_ID:
            self._take_status(task, iu)
        elif kind == RESPONSE_ID and len(iu) >= RESPONSE_CODEC.length:
            task.response = RESPONSE_CODEC.unpack_from(iu)[3]
            task.ended = monotonic()
        elif kind in (READ_READY_ID, WRITE_READY_ID) and not self.streams:
            self._take_ready(task, is_in=kind == READ_READY_ID)
        else:
            raise MalformedReply(f"status pipe: an information unit with ID {kind:02X}h and {len(iu)} bytes")

    def _take_status(self, task: Task, iu: memoryview) -> None:
        if len(iu) < STATUS_CODEC.length:
            raise MalformedReply(f"status pipe: a sense IU of {len(iu)} bytes; it has {STATUS_CODEC.length} at least")
        _, _, _, task.status, length = STATUS_CODEC.unpack_from(iu)
        task.sense = bytes(iu[STATUS_CODEC.length : STATUS_CODEC.length + length])
        task.ended = monotonic()
        if task.status and task.moving:  # the rest of the data will not come
            self._end_data(task)

    def _take_ready(self, task: Task, *, is_in: bool) -> None:
        if is_in != task.is_in or task.has_moved or not len(task.data):
            raise MalformedReply(f"status pipe: {'READ' if is_in else 'WRITE'} READY for a command without such data")
        task.has_moved = True
        self._begin(self._in if is_in else self._out, task.data, task.moving)

    # --- waiting, and the end -----------------------------------------------------------------------

    def _time_left(self, flying: Sequence[Task]) -> float:
        """Return the seconds until the next deadline, or 0 if one has passed. Raise DeviceTimeout then."""
        now = monotonic()
        left = min((task.ended + GRACE if task.ended else task.deadline) - now for task in flying)
        for task in flying if left <= 0 else ():
            if task.ended and now >= task.ended + GRACE:
                self._end_data(task)
            elif not task.ended and now >= task.deadline:
                raise DeviceTimeout(f"no status came within {task.timeout:g} s, {self._port.info.address}")
        return max(left, 0.0)

    def _end_data(self, task: Task) -> None:
        """Cancel a data transfer whose command has ended, and count what it has moved."""
        code, count = self._transfers.cancel(task.moving)
        self._data_moved(task, OK if code is TIMEOUT else code, count)

    def _end(self, tasks: Sequence[Task]) -> None:
        """Cancel all that is in flight. After Ctrl-C, which may come in between, do it again."""
        try:
            self._cancel(tasks)
        except BaseException:
            self._cancel(tasks)
            raise

    def _cancel(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            if task.moving:
                task.moved += self._transfers.cancel(task.moving)[1]
            for held in (task.sending, task.listening):
                if held:
                    self._transfers.cancel(held)
            if task.room is not None:
                room, task.room = task.room, None
                if id(room.obj) not in ABANDONED:
                    self._rooms.append(room)
        if self._listening:
            self._transfers.cancel(self._listening)
            if id(self._common.obj) in ABANDONED:
                self._common = self._new_room()

    def release(self) -> None:
        """Drop the buffers; nothing may be in flight."""
        for room in (*self._rooms, self._common):
            room.release()
        self._rooms.clear()
