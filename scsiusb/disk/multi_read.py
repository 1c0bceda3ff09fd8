"""Many streams read in one thread: whichever device has a piece ready comes next."""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Final, NamedTuple

from scsiusb.disk.polled import PolledReader
from scsiusb.disk.streaming import PROMPT, Reading
from scsiusb.errors import MediumError, ScsiUsbError

BUFFERS: Final = 2  # for each device: one on the bus, one in the caller's hands or ready for them
SLICE_MS: Final = 100  # milliseconds between two looks at what may be overdue
NOTHING: Final = memoryview(b"")


class Chunk(NamedTuple):
    """Of which stream; its next blocks, or why there will be no more."""

    reading: Reading
    piece: memoryview
    error: ScsiUsbError | None = None


def read_many(*readings: Reading) -> ManyReader:
    """Reads several `disk.reading(…)` of different disks at once, in the caller's thread; for a `with`.

    Iterate over what the `with` gives: a `Chunk` for each piece, as they come.
    """
    return ManyReader(*readings)


class ManyReader:
    """Iterates over what several `disk.reading(…)` read at once; use it in a `with`, in one thread.

    Each device's pieces come in order; a piece is valid until the next chunk, of any device, is taken. A stream that
    fails ends with a chunk that has the error, and the others go on. The disks are not to be used meanwhile.

    Where libusb's descriptors can be polled, one thread, the caller's, moves the transfers of all devices: with many
    of them that is several times as fast as a thread for each. Elsewhere each stream has its thread.
    """

    def __init__(self, *readings: Reading) -> None:
        self._readings = readings
        self._held = ExitStack()
        self._chunks: Iterator[Chunk] | None = None

    def __enter__(self) -> ManyReader:
        with ExitStack() as held:
            ways = [(reading, *way) for reading in self._readings if (way := reading.overlapping()) is not None]
            # Two streams of one device would be in each other's way: it does one command at a time.
            if len({descriptor for _, _, descriptor in ways}) == len(self._readings):
                self._chunks = _polled([_Lane(*way, held) for way in ways], held)
            else:
                self._chunks = _threaded(self._readings, held)
            self._held = held.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._held.close()

    def __iter__(self) -> ManyReader:
        return self

    def __next__(self) -> Chunk:
        if self._chunks is None:
            raise RuntimeError("use it in a `with`, which ends what is under way")
        return next(self._chunks)


def _threaded(readings: Sequence[Reading], held: ExitStack) -> Iterator[Chunk]:
    for reading in readings:
        held.enter_context(reading)
    return _in_turn(readings)


def _in_turn(readings: Sequence[Reading]) -> Iterator[Chunk]:
    left = deque(readings)
    while left:
        reading = left.popleft()
        try:
            piece = next(reading)
        except StopIteration:
            continue
        except ScsiUsbError as error:
            yield Chunk(reading, NOTHING, error)
        else:
            left.append(reading)
            yield Chunk(reading, piece)


def _polled(lanes: Sequence[_Lane], held: ExitStack) -> Iterator[Chunk]:
    loop = _Loop(lanes)
    held.callback(loop.end)
    chunks = loop.chunks()
    held.callback(chunks.close)
    return chunks


class _Lane:
    """One stream: what is under way, and what is ready."""

    def __init__(self, reading: Reading, polled: PolledReader, descriptor: int, held: ExitStack) -> None:
        self.reading = reading
        self.descriptor = descriptor
        self._polled = polled
        self._disk, self._end, self._block_size = reading.disk, reading.end, reading.block_size
        self._at = reading.lba
        self._idle = reading.lend(held, BUFFERS)
        self.ready: deque[tuple[memoryview, Chunk]] = deque()
        self._buffer = self._piece = NOTHING

    @property
    def is_under_way(self) -> bool:
        return self._polled.is_under_way

    @property
    def is_idle(self) -> bool:
        """Nothing more will happen on the bus."""
        return self._at >= self._end and not self._polled.is_under_way

    def begin(self) -> None:
        """Begins the next command, if there is one, and a buffer for it, and none is under way."""
        polled = self._polled
        while self._idle and self._at < self._end and not polled.is_under_way:
            self._buffer = buffer = self._idle.pop()
            self._piece = piece = self.reading.cut(buffer, self._at)
            try:
                if not self._disk.begin_reading(polled, self._at, piece):
                    self._disk.readinto(self._at, piece)
                    self._take()
                elif polled.proceed():
                    self._take()
            except ScsiUsbError as error:
                self._fail(error)

    def advance(self) -> None:
        """Takes note of what has ended, and goes on."""
        try:
            if not self._polled.is_under_way or not self._polled.proceed():
                return
            self._take()
        except ScsiUsbError as error:
            self._fail(error)
        self.begin()

    def _take(self) -> None:
        self.ready.append((self._buffer, Chunk(self.reading, self._piece)))
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
            self.ready.append((self._buffer, Chunk(self.reading, self._piece[: good * self._block_size])))
        self.ready.append((NOTHING, Chunk(self.reading, NOTHING, error.with_traceback(None))))
        del error  # the loop's frames are in its traceback, and in its causes'
        self.stop()

    def give_back(self, buffer: memoryview, chunk: Chunk) -> None:
        """Raises BufferError where something still looks into the piece: it must be copied to be kept."""
        if buffer is not NOTHING:
            chunk.piece.release()
            self._idle.append(buffer)

    def stop(self) -> None:
        """Begins nothing more."""
        self._end = self._at

    def cancel(self) -> None:
        self._polled.cancel()

    def forget(self) -> None:
        """The pieces that nobody took."""
        for _, chunk in self.ready:
            chunk.piece.release()
        self.ready.clear()


class _Loop:
    def __init__(self, lanes: Sequence[_Lane]) -> None:
        self._lanes = {lane.descriptor: lane for lane in lanes}  # of those for which something may happen
        self._all = lanes
        self._poll = select.poll()
        for descriptor in self._lanes:
            self._poll.register(descriptor, select.POLLOUT)
        self._looked = time.monotonic()

    def chunks(self) -> Generator[Chunk, None, None]:
        for lane in self._all:
            lane.begin()
        ready = list(self._all)
        while ready:
            for lane in ready:
                if lane.ready:
                    buffer, chunk = lane.ready.popleft()
                    lane.reading.lba += len(chunk.piece) // lane.reading.block_size
                    try:
                        yield chunk
                    finally:
                        lane.give_back(buffer, chunk)
                        del buffer, chunk  # see `_fail`
                    lane.begin()
                if lane.is_idle:
                    self._drop(lane)
            ready = self._next([lane for lane in ready if lane.ready])

    def _next(self, ready: list[_Lane]) -> list[_Lane]:
        """Those that have something ready, besides these, for which nobody waits; none where all is over."""
        while self._lanes:
            ready += [lane for lane in self._turn(0 if ready else SLICE_MS) if lane.ready and lane not in ready]
            if ready:
                break
        return ready

    def _turn(self, wait: int) -> list[_Lane]:
        """Goes on with what has happened; waits for something, at most so many milliseconds. For which lanes did it?"""
        lanes = self._lanes
        happened = [lanes[descriptor] for descriptor, _ in self._poll.poll(wait)]
        now = time.monotonic()
        if now - self._looked > SLICE_MS / 1000:  # what is overdue has nothing to say for itself
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
                stack.callback(lane.cancel)
            while any(lane.is_under_way for lane in self._lanes.values()) and time.monotonic() < until:
                self._turn(SLICE_MS)
