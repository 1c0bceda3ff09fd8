"""Reads many streams in one thread: whichever device has a piece ready comes next."""

from __future__ import annotations

import select
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Final, NamedTuple, Protocol

from scsiusb import ledger
from scsiusb.base.copying import Uncopyable
from scsiusb.base.releases import Releases
from scsiusb.base.waits import take
from scsiusb.disk.at_once import LANE_BYTES
from scsiusb.disk.streaming import PROMPT, Reading, blocks_before
from scsiusb.errors import ScsiUsbError
from scsiusb.transport.base import Polled
from scsiusb.transport.helper import Helper

BUFFERS: Final = 2  # for each device: one on the bus, one in the caller's hands or ready for them
SLICE_MS: Final = 100  # milliseconds between two looks at what may be overdue
NOTHING: Final = memoryview(b"")  # never part of a chunk, whose piece the caller may release
POLLIN: Final = 1  # poll(2); named here, as Windows' `select` has no such names
POLLOUT: Final = 4


class Chunk(NamedTuple):
    """A piece of one stream, or the error that ends it."""

    reading: Reading
    piece: memoryview
    """The stream's next blocks; empty beside an error."""
    error: ScsiUsbError | None = None
    """Why no more will come of this stream; without a traceback."""


def _failed(reading: Reading, error: ScsiUsbError) -> Chunk:
    return Chunk(reading, memoryview(b""), error)


def read_many(*readings: Reading) -> ManyReader:
    """Return a context manager that reads several `disk.reading(…)` streams of different disks at the same time.

    Use it from one thread only. Each step of an iteration over it yields a `Chunk`: the next piece of a stream that has
    one ready, or the error that ends a stream.
    """
    return ManyReader(*readings)


class ManyReader(Uncopyable):
    """Iterates over the pieces of several `disk.reading(…)` streams; use it in a `with`, and from one thread only.

    Each device's pieces come in order; a piece is valid until the next chunk, of any device, is taken. A stream that
    fails ends with a chunk that has the error, and the others go on. A device that fails or hangs does not delay them.

    Where libusb's descriptors can be polled, one thread, the caller's, moves the transfers of all devices: with many
    of them that is several times as fast as a thread for each. Elsewhere each stream has its thread.
    """

    def __init__(self, *readings: Reading) -> None:
        self._readings = readings
        self._held = Releases()
        self._chunks: Iterator[Chunk] | None = None
        self._is_broken = False

    def __enter__(self) -> ManyReader:
        descriptors = [reading.disk.unit.transport.descriptor for reading in self._readings]
        try:
            # Two streams of one device would be in each other's way: it does one command at a time.
            if sys.platform != "win32" and None not in descriptors and len(set(descriptors)) == len(descriptors):
                self._chunks = _polled(self._readings, self._held)
            else:
                self._chunks = _threaded(self._readings, self._held)
        except BaseException:
            self._held.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._held.close()
        except BaseException:  # Ctrl-C may have come as it was entered
            self._held.close()
            raise

    def __iter__(self) -> ManyReader:
        return self

    def __next__(self) -> Chunk:
        """Return the next chunk.

        Raise BufferError if the piece before is still in use: copy it to keep it. After that or another error, raise
        RuntimeError: it must not look as if the streams had come to their ends.
        """
        if self._chunks is None:
            raise RuntimeError("use it in a `with`, which ends what is under way")
        if self._is_broken:
            raise RuntimeError("an error ended this iteration; not everything was read")
        for reading in self._readings[:1]:
            reading.check_process()
        try:
            return next(self._chunks)
        except StopIteration:
            raise
        except BaseException:
            self._is_broken = True
            raise


# --- a thread for each stream ---------------------------------------------------------------------


def _threaded(readings: Sequence[Reading], held: Releases) -> Iterator[Chunk]:
    ready: SimpleQueue[Reading] = SimpleQueue()
    for reading in readings:
        reading.check_new()  # or else it is released by those who entered it
        reading.on_ready = partial(ready.put, reading)
        held.add(reading.__exit__, None, None, None)
        reading.__enter__()
    return _as_they_come(readings, ready)


def _as_they_come(readings: Sequence[Reading], ready: SimpleQueue[Reading]) -> Iterator[Chunk]:
    """Yield what is ready, of each stream in its turn, so that a quick one does not starve another."""
    for reading in readings:
        reading.start()
    counts: Counter[Reading] = Counter()
    left = deque(readings)
    while left:
        while not any(counts[reading] for reading in left):
            counts[take(ready)] += 1
        with suppress(Empty):
            while True:
                counts[ready.get_nowait()] += 1
        reading = next(reading for reading in left if counts[reading])
        counts[reading] -= 1
        left.remove(reading)
        try:
            piece = next(reading)
        except StopIteration:
            continue
        except ScsiUsbError as error:
            yield _failed(reading, error)
        else:
            left.append(reading)
            yield Chunk(reading, piece)


# --- one thread for all ---------------------------------------------------------------------------


def _polled(readings: Sequence[Reading], held: Releases) -> Iterator[Chunk]:
    loop = _Loop(held)
    lanes = [_Lane(reading, held, loop.wake) for reading in readings]
    held.add(loop.end, lanes)
    chunks = loop.chunks(lanes)
    held.add(chunks.close)
    return chunks


class _Lane:
    """One stream: what is under way, and what is ready."""

    def __init__(self, reading: Reading, held: Releases, wake: Callable[[int], object]) -> None:
        """`wake`: wakes the loop for the lane of a descriptor."""
        self.reading = reading
        self._transport = reading.disk.unit.transport
        descriptor = self._transport.descriptor
        assert descriptor is not None
        self.descriptor: int = descriptor
        self._helper = Helper(partial(wake, descriptor), f"that recovers {self._transport}")
        held.add(self._helper.close)
        self._end, self._block_size = reading.end, reading.block_size
        self._at = reading.lba
        self._scope = self._transport.scope()
        # By BOT a buffer is one command's, and whole; by UAS several devices share what memory there is.
        most = None if self._transport.depth == 1 else max(LANE_BYTES // reading.block_size, 1) * reading.block_size
        self._idle = reading.lend(held, BUFFERS, most)
        self.ready: deque[tuple[memoryview, Chunk]] = deque()
        self._buffer = self._piece = NOTHING
        self._story: Polled[None] | None = None

    @property
    def is_awaited(self) -> bool:
        """Whether a command is under way, of this process."""
        return self._story is not None and not self.reading.is_of_parent

    @property
    def is_helped(self) -> bool:
        """Whether its helper has the command: nothing comes at the descriptor for the loop, which is woken."""
        return self._story is not None and self._story.is_handed_over

    @property
    def is_idle(self) -> bool:
        """Whether nothing more will happen on the bus."""
        return self._at >= self._end and self._story is None

    def begin(self) -> None:
        """Begin the next command, if there is one, and a buffer for it, and none is under way."""
        while self._idle and self._at < self._end and self._story is None:
            self._buffer = self._idle.pop()
            self._piece = self.reading.cut(self._buffer, self._at)
            self._story = self._transport.poll(self.reading.story(self._at, self._piece), self._helper, self._scope)
            if self._story.proceed():
                self._take(self._story)

    def advance(self) -> None:
        """Take note of what has ended, and go on."""
        if self._story is not None and self._story.proceed():
            self._take(self._story)
        self.begin()

    def _take(self, story: Polled[None]) -> None:
        """Take what an ended story read: blocks, and the error that comes after them, if any."""
        self._story = None
        error: ScsiUsbError | None = None
        try:
            story.result()
            good = len(self._piece) // self._block_size
        except ScsiUsbError as failure:
            good, error = blocks_before(failure, self._at), failure
        if good:
            self.ready.append((self._buffer, Chunk(self.reading, self._piece[: good * self._block_size])))
            self._at += good
        if error is not None:
            self.ready.append((NOTHING, _failed(self.reading, error.with_traceback(None))))
            self.stop()
        del error  # this loop's frames would be in its traceback, and in its causes'

    def give_back(self, buffer: memoryview, chunk: Chunk) -> None:
        """Make a buffer free again. Raise BufferError where the piece is still in use: copy it to keep it."""
        if buffer is not NOTHING:
            chunk.piece.release()
            self._idle.append(buffer)

    def stop(self) -> None:
        """Begin nothing more."""
        self._end = self._at

    def cancel(self) -> None:
        """End the command that is under way; the device is then recovered before its next one."""
        if self._story is not None:
            self._scope.cancel()
            self._story.cancel()
            self._story = None

    def forget(self) -> None:
        """Drop the pieces that were not taken."""
        for _, chunk in self.ready:
            chunk.piece.release()
        self.ready.clear()


class _Poll(Protocol):
    """What is used of `select.poll`, which Windows does not have."""

    def register(self, fd: int, eventmask: int, /) -> None:
        """Poll the descriptor for these events."""

    def unregister(self, fd: int, /) -> None:
        """Poll the descriptor no longer."""

    def poll(self, timeout: float, /) -> list[tuple[int, int]]:
        """Wait for an event, at most `timeout` milliseconds; return descriptors and their events."""


def _new_poll() -> _Poll:
    if sys.platform == "win32":
        raise OSError("Windows has no poll")
    return select.poll()


class _Loop:
    """Polls the descriptors of all lanes, and one more by which other threads wake it."""

    def __init__(self, held: Releases) -> None:
        held.hold(ledger.entry("socket", "of a reader of many disks"))
        self._read_end, self._write_end = socket.socketpair()
        held.add(self._write_end.close)
        held.add(self._read_end.close)
        self._read_end.setblocking(False)
        self._write_end.setblocking(False)
        self._lanes: dict[int, _Lane] = {}  # those for which something may happen
        self._watched: set[int] = set()  # those of them that are polled
        self._woken: deque[int] = deque()
        self._poll = _new_poll()
        self._poll.register(self._read_end.fileno(), POLLIN)
        self._looked = time.monotonic()

    def wake(self, descriptor: int) -> None:
        """Let `_turn` end its wait, and look at this lane; from any thread."""
        self._woken.append(descriptor)
        with suppress(OSError):  # full: it is awake; closed: it has ended
            self._write_end.send(b"w")

    def chunks(self, lanes: Sequence[_Lane]) -> Generator[Chunk, None, None]:
        """Yield the chunks of all lanes, as they come."""
        for lane in lanes:
            self._lanes[lane.descriptor] = lane
            lane.begin()
            self._watch(lane)
        ready = list(lanes)
        while ready:
            for lane in ready:
                if lane.ready:
                    buffer, chunk = lane.ready.popleft()
                    lane.reading.lba += len(chunk.piece) // lane.reading.block_size
                    if chunk.error is not None:
                        lane.reading.note_told(chunk.error)
                    try:
                        yield chunk
                    finally:
                        lane.give_back(buffer, chunk)
                        del buffer, chunk  # see `_Lane._take`
                    lane.begin()
                self._watch(lane)
            ready = self._next([lane for lane in ready if lane.ready])

    def _next(self, ready: list[_Lane]) -> list[_Lane]:
        """Return the lanes that have something ready, these ones first; none where all is over."""
        while self._lanes:
            ready += [lane for lane in self._turn(0 if ready else SLICE_MS) if lane.ready and lane not in ready]
            if ready:
                break
        return ready

    def _turn(self, wait_ms: int) -> list[_Lane]:
        """Wait for something to happen, at most so long, and go on with it; return the lanes that it happened to."""
        lanes = self._lanes
        descriptors = dict(self._poll.poll(wait_ms))
        if self._read_end.fileno() in descriptors:
            descriptors.update(self._take_woken())
        now = time.monotonic()
        if now - self._looked > SLICE_MS / 1000:  # it is time to look for transfers that are overdue
            self._looked = now
            happened = list(lanes.values())
        else:
            happened = [lanes[descriptor] for descriptor in descriptors if descriptor in lanes]
        for lane in happened:
            lane.advance()
            self._watch(lane)
        return happened

    def _take_woken(self) -> Iterator[tuple[int, int]]:
        """Yield the descriptors of the lanes that other threads moved on, as `poll` does."""
        with suppress(BlockingIOError):
            self._read_end.recv(4096)  # before the deque is read: what is added later wakes again
        with suppress(IndexError):
            while True:
                yield self._woken.popleft(), 0

    def _watch(self, lane: _Lane) -> None:
        """Poll the lane's descriptor while something may come there that is for this loop.

        It would be ready for ever where the device has gone, and again and again while a helper uses the device.
        """
        descriptor = lane.descriptor
        if lane.is_idle:
            self._lanes.pop(descriptor, None)
        if (descriptor in self._lanes and not lane.is_helped) == (descriptor in self._watched):
            return
        if descriptor in self._watched:
            self._watched.remove(descriptor)
            self._poll.unregister(descriptor)
        else:
            self._poll.register(descriptor, POLLOUT)
            self._watched.add(descriptor)

    def end(self, lanes: Sequence[_Lane]) -> None:
        """Stop all lanes.

        Begin nothing more, wait up to PROMPT seconds for running commands to end, then cancel the rest. Pieces that
        were not taken are dropped.
        """
        until = time.monotonic() + PROMPT
        releases = Releases()
        for lane in lanes:
            lane.stop()
            releases.add(lane.forget)
            if not lane.reading.is_of_parent:  # else the command is the parent's
                releases.add(lane.cancel)
        try:
            while any(lane.is_awaited for lane in self._lanes.values()) and time.monotonic() < until:
                self._turn(SLICE_MS)
        finally:
            releases.close()
            self._lanes.clear()  # each refers to this loop: a cycle, which would keep the disks open
