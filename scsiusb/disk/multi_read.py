"""Many streams read in one thread: whichever device has a piece ready comes next."""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Final, NamedTuple

from scsiusb.disk.polled import Overlapped
from scsiusb.disk.streaming import PROMPT, Reading
from scsiusb.errors import MediumError, ScsiUsbError

BUFFERS: Final = 2  # for each device: one on the bus, one in the caller's hands or ready for them
SLICE: Final = 100  # milliseconds between two looks at what may be overdue
NOTHING: Final = memoryview(b"")


class Part(NamedTuple):
    """Of which stream; its next blocks, or why there will be no more."""

    reading: Reading
    piece: memoryview
    error: ScsiUsbError | None = None


class Together:
    """Iterates over what several `disk.reading(…)` read at once; use it in a `with`, in one thread.

    Each device's pieces come in order; a piece is valid until the next part, of any device, is taken. A stream that
    fails ends with a part that has the error, and the others go on. The disks are not to be used meanwhile.

    Where libusb's descriptors can be polled, one thread, the caller's, moves the transfers of all devices: with many
    of them that is several times as fast as a thread for each. Elsewhere each stream has its thread.
    """

    def __init__(self, *readings: Reading) -> None:
        self._readings = readings
        self._held = ExitStack()
        self._parts: Iterator[Part] | None = None

    def __enter__(self) -> Together:
        with ExitStack() as held:
            ways = [(reading, *way) for reading in self._readings if (way := reading.overlapping()) is not None]
            # Two streams of one device would be in each other's way: it does one command at a time.
            if len({descriptor for _, _, descriptor in ways}) == len(self._readings):
                self._parts = _polled([_Lane(*way, held) for way in ways], held)
            else:
                self._parts = _threaded(self._readings, held)
            self._held = held.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._held.close()

    def __iter__(self) -> Together:
        return self

    def __next__(self) -> Part:
        if self._parts is None:
            raise RuntimeError("use it in a `with`, which ends what is under way")
        return next(self._parts)


def _threaded(readings: Sequence[Reading], held: ExitStack) -> Iterator[Part]:
    for reading in readings:
        held.enter_context(reading)
    return _in_turn(readings)


def _in_turn(readings: Sequence[Reading]) -> Iterator[Part]:
    left = deque(readings)
    while left:
        reading = left.popleft()
        try:
            piece = next(reading)
        except StopIteration:
            continue
        except ScsiUsbError as error:
            yield Part(reading, NOTHING, error)
        else:
            left.append(reading)
            yield Part(reading, piece)


def _polled(lanes: Sequence[_Lane], held: ExitStack) -> Iterator[Part]:
    loop = _Loop(lanes)
    held.callback(loop.end)
    parts = loop.parts()
    held.callback(parts.close)
    return parts


class _Lane:
    """One stream: what is under way, and what is ready."""

    def __init__(self, reading: Reading, overlapped: Overlapped, descriptor: int, held: ExitStack) -> None:
        self.reading = reading
        self.descriptor = descriptor
        self._overlapped = overlapped
        self._disk, self._end, self._block_size = reading.disk, reading.end, reading.block_size
        self._at = reading.lba
        self._idle = reading.lend(held, BUFFERS)
        self.ready: deque[tuple[memoryview, Part]] = deque()
        self._buffer = self._piece = NOTHING

    @property
    def is_under_way(self) -> bool:
        return self._overlapped.is_under_way

    @property
    def is_idle(self) -> bool:
        """Nothing more will happen on the bus."""
        return self._at >= self._end and not self._overlapped.is_under_way

    def begin(self) -> None:
        """Begins the next command, if there is one, and a buffer for it, and none is under way."""
        overlapped = self._overlapped
        while self._idle and self._at < self._end and not overlapped.is_under_way:
            self._buffer = buffer = self._idle.pop()
            self._piece = piece = self.reading.cut(buffer, self._at)
            try:
                if not self._disk.begin_reading(overlapped, self._at, piece):
                    self._disk.readinto(self._at, piece)
                    self._take()
                elif overlapped.proceed():
                    self._take()
            except ScsiUsbError as error:
                self._fail(error)

    def advance(self) -> None:
        """Takes note of what has ended, and goes on."""
        try:
            if not self._overlapped.is_under_way or not self._overlapped.proceed():
                return
            self._take()
        except ScsiUsbError as error:
            self._fail(error)
        self.begin()

    def _take(self) -> None:
        self.ready.append((self._buffer, Part(self.reading, self._piece)))
        self._at += len(self._piece) // self._block_size

    def _fail(self, error: ScsiUsbError) -> None:
        """Behind what was read before; of a piece with a block that cannot be read, what stands before that."""
        good = 0
        if isinstance(error, MediumError):
            try:
                good, error = self.reading.read_up_to(error, self._at, self._piece)
            except ScsiUsbError as another:
                error = another
        if good:
            self.ready.append((self._buffer, Part(self.reading, self._piece[: good * self._block_size])))
        self.ready.append((NOTHING, Part(self.reading, NOTHING, error.with_traceback(None))))
        del error  # the loop's frames are in its traceback, and in its causes'
        self.stop()

    def give_back(self, buffer: memoryview, part: Part) -> None:
        """Raises BufferError where something still looks into the piece: it must be copied to be kept."""
        if buffer is not NOTHING:
            part.piece.release()
            self._idle.append(buffer)

    def stop(self) -> None:
        """Begins nothing more."""
        self._end = self._at

    def abandon(self) -> None:
        self._overlapped.abandon()

    def forget(self) -> None:
        """The pieces that nobody took."""
        for _, part in self.ready:
            part.piece.release()
        self.ready.clear()


class _Loop:
    def __init__(self, lanes: Sequence[_Lane]) -> None:
        self._lanes = {lane.descriptor: lane for lane in lanes}  # of those for which something may happen
        self._all = lanes
        self._poll = select.poll()
        for descriptor in self._lanes:
            self._poll.register(descriptor, select.POLLOUT)
        self._looked = time.monotonic()

    def parts(self) -> Generator[Part, None, None]:
        for lane in self._all:
            lane.begin()
        ready = list(self._all)
        while ready:
            for lane in ready:
                if lane.ready:
                    buffer, part = lane.ready.popleft()
                    lane.reading.lba += len(part.piece) // lane.reading.block_size
                    try:
                        yield part
                    finally:
                        lane.give_back(buffer, part)
                        del buffer, part  # see `_fail`
                    lane.begin()
                if lane.is_idle:
                    self._drop(lane)
            ready = self._next([lane for lane in ready if lane.ready])

    def _next(self, ready: list[_Lane]) -> list[_Lane]:
        """Those that have something ready, besides these, for which nobody waits; none where all is over."""
        while self._lanes:
            ready += [lane for lane in self._turn(0 if ready else SLICE) if lane.ready and lane not in ready]
            if ready:
                break
        return ready

    def _turn(self, wait: int) -> list[_Lane]:
        """Goes on with what has happened; waits for something, at most so many milliseconds. For which lanes did it?"""
        lanes = self._lanes
        happened = [lanes[descriptor] for descriptor, _ in self._poll.poll(wait)]
        now = time.monotonic()
        if now - self._looked > SLICE / 1000:  # what is overdue has nothing to say for itself
            self._looked = now
            happened = list(lanes.values())
        for lane in happened:
            lane.advance()
            if lane.is_idle:
                self._drop(lane)
        return happened

    def _drop(self, lane: _Lane) -> None:
        """Of a device that has gone, the descriptor would be ready for ever."""
        if self._lanes.pop(lane.descriptor, None) is not None:
            self._poll.unregister(lane.descriptor)

    def end(self) -> None:
        """What is under way may end by itself, for a moment."""
        until = time.monotonic() + PROMPT
        with ExitStack() as stack:
            for lane in self._all:
                lane.stop()
                stack.callback(lane.forget)
                stack.callback(lane.abandon)
            while any(lane.is_under_way for lane in self._lanes.values()) and time.monotonic() < until:
                self._turn(SLICE)
