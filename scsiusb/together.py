"""Many streams read in one thread: whichever device has a piece ready comes next."""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Final, NamedTuple

from scsiusb.errors import DeviceGone, MediumError, ScsiUsbError
from scsiusb.overlapped import Overlapped
from scsiusb.streaming import PROMPT, Reading
from scsiusb.usb.backend import Overlap

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
            begin = _polled if _can_be_polled(self._readings) else _threaded
            self._parts = begin(self._readings, held)
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


def _can_be_polled(readings: Sequence[Reading]) -> bool:
    """Not where two are of one device, which does one command at a time."""
    overlaps = [reading.overlap for reading in readings]
    descriptors = {overlap.fileno() for overlap in overlaps if overlap is not None}
    return len(descriptors) == len(readings)


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


def _polled(readings: Sequence[Reading], held: ExitStack) -> Iterator[Part]:
    loop = _Loop([_Lane(reading, held) for reading in readings])
    held.callback(loop.end)
    parts = loop.parts()
    held.callback(parts.close)
    return parts


class _Lane:
    """One stream: what is under way, and what is ready."""

    def __init__(self, reading: Reading, held: ExitStack) -> None:
        self.reading = reading
        self._at = reading.lba
        self._idle = reading.lend(held, BUFFERS)
        self._ready: deque[tuple[memoryview, memoryview, ScsiUsbError | None]] = deque()
        self._is_ended = False
        self._current: Overlapped | None = None
        self._buffer = self._piece = NOTHING

    @property
    def overlap(self) -> Overlap:
        overlap = self.reading.overlap
        if overlap is None:
            raise DeviceGone(f"{self.reading.disk} was closed")
        return overlap

    @property
    def is_under_way(self) -> bool:
        return self._current is not None

    @property
    def is_over(self) -> bool:
        return not self._ready and self.is_idle

    @property
    def is_idle(self) -> bool:
        """Nothing more will happen on the bus."""
        return self._current is None and (self._is_ended or self._at >= self.reading.end)

    def begin(self) -> bool:
        """Begins the next command, if there is one, and a buffer for it. Is something ready?"""
        reading = self.reading
        while self._current is None and self._idle and self._at < reading.end and not self._is_ended:
            self._buffer = self._idle.pop()
            self._piece = reading.cut(self._buffer, self._at)
            try:
                self._current = reading.disk.overlapped(self._at, self._piece)
                if self._current is None:
                    reading.disk.readinto(self._at, self._piece)
                    self._take()
                else:
                    self._proceed()
            except ScsiUsbError as error:
                self._fail(error)
        return bool(self._ready)

    def advance(self) -> bool:
        """Takes note of what has ended, and goes on. Is something ready?"""
        try:
            if self._current is not None:
                self.overlap.handle_events()
                self._proceed()
        except ScsiUsbError as error:
            self._fail(error)
        return self.begin()

    def _proceed(self) -> None:
        assert self._current is not None
        if self._current.proceed():
            self._current = None
            self._take()

    def _take(self) -> None:
        self._ready.append((self._buffer, self._piece, None))
        self._at += len(self._piece) // self.reading.block_size

    def _fail(self, error: ScsiUsbError) -> None:
        """Behind what was read before; of a piece with a block that cannot be read, what stands before that."""
        self._current, self._is_ended = None, True
        if isinstance(error, MediumError):
            try:
                good, error = self.reading.read_up_to(error, self._at, self._piece)
            except ScsiUsbError as another:
                good, error = 0, another
            if good:
                self._ready.append((self._buffer, self._piece[: good * self.reading.block_size], None))
        self._ready.append((NOTHING, NOTHING, error))

    def deliver(self) -> tuple[memoryview, Part]:
        """The buffer, which is to be given back, and what is in it."""
        buffer, piece, error = self._ready.popleft()
        self.reading.lba += len(piece) // self.reading.block_size
        return buffer, Part(self.reading, piece, error)

    def give_back(self, buffer: memoryview, part: Part) -> None:
        """Raises BufferError where something still looks into the piece: it must be copied to be kept."""
        if buffer is not NOTHING:
            part.piece.release()
            self._idle.append(buffer)

    def stop(self) -> None:
        """Begins nothing more."""
        self._is_ended = True

    def abandon(self) -> None:
        current, self._current = self._current, None
        if current is not None:
            current.abandon()

    def forget(self) -> None:
        """The pieces that nobody took."""
        for _, piece, _ in self._ready:
            piece.release()
        self._ready.clear()


class _Loop:
    def __init__(self, lanes: Sequence[_Lane]) -> None:
        self._lanes = lanes
        self._by_descriptor = {lane.overlap.fileno(): lane for lane in lanes}
        self._descriptors = {lane: descriptor for descriptor, lane in self._by_descriptor.items()}
        self._poll = select.poll()
        for descriptor in self._by_descriptor:
            self._poll.register(descriptor, select.POLLOUT)
        self._looked = time.monotonic()

    def parts(self) -> Generator[Part, None, None]:
        ready = deque(lane for lane in self._lanes if lane.begin())
        while any(not lane.is_over for lane in self._lanes):
            while ready:
                lane = ready.popleft()
                buffer, part = lane.deliver()
                try:
                    yield part
                finally:
                    lane.give_back(buffer, part)
                if lane.begin():
                    ready.append(lane)
            ready.extend(self._turn())

    def _turn(self) -> list[_Lane]:
        """Waits for something to happen, and goes on with it; the lanes that have something ready."""
        lanes = [self._by_descriptor[descriptor] for descriptor, _ in self._poll.poll(SLICE)]
        now = time.monotonic()
        if now - self._looked > SLICE / 1000:  # what is overdue has nothing to say for itself
            self._looked = now
            lanes = [lane for lane in self._lanes if lane.is_under_way]
        ready = [lane for lane in lanes if lane.advance()]
        for lane in lanes:
            if lane.is_idle:  # of a device that has gone, the descriptor would be ready for ever
                self._drop(lane)
        return ready

    def _drop(self, lane: _Lane) -> None:
        descriptor = self._descriptors.pop(lane, None)
        if descriptor is not None:
            self._poll.unregister(descriptor)

    def end(self) -> None:
        """What is under way may end by itself, for a moment."""
        until = time.monotonic() + PROMPT
        with ExitStack() as stack:
            for lane in self._lanes:
                lane.stop()
                stack.callback(lane.forget)
                stack.callback(lane.abandon)
            while any(lane.is_under_way for lane in self._lanes) and time.monotonic() < until:
                self._turn()
