"""Streams of blocks: while the caller uses one buffer, a thread moves the next one over the bus."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Final, NamedTuple

from scsiusb import ledger
from scsiusb.base.arguments import integer
from scsiusb.base.copying import Uncopyable
from scsiusb.base.releases import Releases
from scsiusb.base.waits import join, take
from scsiusb.disk.medium import READ, WRITE, BlockTransfer, Medium
from scsiusb.errors import ScsiUsbError
from scsiusb.transport.base import Story

if TYPE_CHECKING:
    from scsiusb.disk.disk import Disk

BUFFERS: Final = 3  # one with the caller, one on the bus, one waiting between them
PROMPT: Final = 0.5  # seconds that a running command has to end by itself when the stream is left early


class _Load(NamedTuple):
    """A buffer, and the part of it that has data."""

    buffer: memoryview
    piece: memoryview


class _Stream(Uncopyable, ABC):
    """A thread, and a few buffers that circulate between it and the caller; they are released with the `with`."""

    def __init__(self, disk: Disk, lba: int, blocks: int, medium: Medium, transfer: BlockTransfer) -> None:
        """Take the medium that the stream begins with: it goes on over no other."""
        disk.check_range(lba, blocks)
        most = disk.mover.stream_blocks(transfer, medium)
        self.disk = disk
        self._medium = medium
        self.block_size = disk.block_size
        step = min(most, max(blocks, 1))
        self.most_bytes = step * self.block_size
        """Bytes of a buffer, and of a piece at most."""
        self._total = blocks * self.block_size
        self.lba = lba
        self._empty: SimpleQueue[memoryview | None] = SimpleQueue()
        self._full: SimpleQueue[_Load | None] = SimpleQueue()
        self._error: BaseException | None = None
        self._has_begun = False
        self._is_stopped = False
        self._process = os.getpid()
        self._thread: threading.Thread | None = None
        self._is_started = False
        self._entry = ledger.entry("thread", f"that moves blocks of {disk.unit.transport}")
        self._held = Releases()
        self.on_ready: Callable[[], object] = _ignore
        """Called from the stream's thread when there is a piece to take, or the end."""

    def _begin(self) -> None:
        self.check_new()
        held = self._held
        self._scope = self.disk.unit.transport.scope()
        try:
            held.add(self._entry.release)
            for buffer in self.lend(held, BUFFERS):
                self._empty.put(buffer)
            arguments = (self._run,)
            thread = threading.Thread(target=self._scope.run, args=arguments, name="scsiusb stream", daemon=True)
            self._thread = thread
            held.add(self._forget)
            held.add(self._join, thread)
        except BaseException:
            held.close()
            raise

    def start(self) -> None:
        """Start the thread, unless it was started: within the `with`, so that Ctrl-C cannot come before its end counts.

        Raise RuntimeError outside of the `with`, or if there is no thread to be had; DeviceClosed in a fork's child.
        """
        if self._thread is None:
            raise RuntimeError("use the stream in a `with`, which ends its thread")
        self.check_process()
        if self._is_started:
            return
        self._entry.hold()
        self._thread.start()
        self._is_started = True

    def check_new(self) -> None:
        """Raise RuntimeError if the stream was entered before."""
        if self._thread is not None:
            raise RuntimeError("a stream can be entered only once; make another one")

    @property
    def is_of_parent(self) -> bool:
        """Whether this process is a fork's child, where neither the stream's thread nor its device memory is."""
        return self._process != os.getpid()

    def check_process(self) -> None:
        """Raise DeviceClosed in a fork's child."""
        if self.is_of_parent:
            self.disk.unit.transport.check()

    def lend(self, held: Releases, count: int, most: int | None = None) -> list[memoryview]:
        """Lend `count` buffers until `held` is closed, or fewer if the stream has fewer commands.

        `most`: bytes of each, if they are to be smaller than `most_bytes`. Return fewer, too, if there is no more
        device memory: ordinary memory beside it would only be slower.
        """
        size = min(most or self.most_bytes, self.most_bytes)
        count = max(1, min(count, -(-self._total // size)))
        buffers = [held.enter(self.disk.buffer(size)) for _ in range(count)]
        return [buffer for buffer in buffers if type(buffer.obj) is type(buffers[0].obj)]

    def _join(self, thread: threading.Thread) -> None:
        """Stop the thread. Its running command has a moment to end by itself; then it is cancelled.

        If Ctrl-C interrupts it, it is run again: only when the thread has ended, its buffers may be given back.
        """
        self._is_stopped = True
        self._empty.put(None)
        self._full.put(None)
        # Ctrl-C may have interrupted the start. A thread that starts later sees `_is_stopped` and does nothing.
        if not self._has_begun and not thread.is_alive():
            return
        join(thread, PROMPT)
        if thread.is_alive():
            self._scope.cancel()
            join(thread)

    def _forget(self) -> None:
        """Drop what refers to the stream: the error's traceback, and a queue that many streams may share."""
        self._error = None
        self.on_ready = _ignore

    def _run(self) -> None:
        self._has_begun = True
        if self._is_stopped:
            return
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - it is raised in the caller's thread
            self._error = error
        finally:
            self._full.put(None)
            self._empty.put(None)
            self.on_ready()

    def note_told(self, error: BaseException) -> None:
        """Take note that the caller now gets this error of the stream; see `Disk.note_told`."""
        self.disk.note_told(error, self._medium)

    @abstractmethod
    def _work(self) -> None:
        """Move the blocks; runs in the thread."""


class Reading(_Stream):
    """Iterator over blocks, as memoryviews of a whole number of them; each is valid until the next one is taken.

    `lba` is the block after those that were delivered. Blocks that were read before an error come first; then the error
    is raised, with the first block that was not read in its `lba`. Leaving the `with` early ends the reading.
    """

    def __init__(self, disk: Disk, lba: int, blocks: int) -> None:
        super().__init__(disk, lba, blocks, disk.medium(), READ)
        self.end = lba + blocks
        self._load: _Load | None = None

    def __enter__(self) -> Reading:
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._held.close()
        except BaseException:  # Ctrl-C may have come as it was entered
            self._held.close()
            raise
        finally:
            if self._load is not None:
                self._load.piece.release()

    def __iter__(self) -> Reading:
        if self._thread is None:
            raise RuntimeError("use the stream in a `with`, which ends its thread")
        return self

    def __next__(self) -> memoryview:
        """Return the next blocks. Raises BufferError if a view of the ones before is still in use: copy to keep."""
        self.start()
        if self._load is not None:
            self._load.piece.release()
            self._empty.put(self._load.buffer)
        self._load = take(self._full)
        if self._load is None:
            self._full.put(None)  # for the next call
            if self._error is not None:
                self.note_told(self._error)
                raise self._error
            raise StopIteration
        self.lba += len(self._load.piece) // self.block_size
        return self._load.piece

    def story(self, lba: int, piece: memoryview) -> Story[None]:
        """Story that reads a piece; raises as `Disk.readinto`, after the blocks before the error's `lba` were read."""
        return self.disk.mover.reading_story(self._medium, lba, piece)

    def cut(self, buffer: memoryview, lba: int) -> memoryview:
        """Return the part of `buffer` for the blocks from `lba` to the end; all of it if they are more."""
        return buffer[: (self.end - lba) * self.block_size]

    def _work(self) -> None:
        at = self.lba
        while at < self.end and not self._is_stopped and (buffer := self._empty.get()) is not None:
            piece = self.cut(buffer, at)
            blocks = len(piece) // self.block_size
            try:
                self.disk.read_ahead(self._medium, at, piece)
            except ScsiUsbError as error:
                if good := blocks_before(error, at):
                    self._deliver(buffer, piece[: good * self.block_size])
                raise
            self._deliver(buffer, piece)
            at += blocks

    def _deliver(self, buffer: memoryview, piece: memoryview) -> None:
        """Hand a piece to the caller, who releases it."""
        self._full.put(_Load(buffer, piece))
        self.on_ready()


class Writing(_Stream):
    """Takes bytes, of any length, for the blocks from `lba` on; a thread writes them, one full buffer at a time.

    Leaving the `with` writes the rest, and returns when the device has acknowledged all; `Disk.flush` then has it on
    the medium. `lba` is the block after those that were acknowledged. An error is raised by the next call; its `lba` is
    the first block that may not be written. If the `with` is left by an exception, no further command is sent.
    """

    def __init__(self, disk: Disk, lba: int, medium: Medium | None = None) -> None:
        """Begin at `lba`, on `medium` if it is given: with that one and no other."""
        lba = integer("lba", lba)
        medium = medium or disk.medium_to_write(lba)
        super().__init__(disk, lba, max(medium.blocks - lba, 0), medium, WRITE)
        self._left = (disk.blocks - lba) * self.block_size
        self._buffer: memoryview | None = None
        self._count = 0

    def __enter__(self) -> Writing:
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            try:
                self._held.close()
            except BaseException:  # Ctrl-C may have come as it was entered
                self._held.close()
                raise

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Take all of `data`, and return its number of bytes. Raises OutOfRange if it is more than the medium has left.

        Also raises the error of an earlier write of this stream, as `Disk.write`.
        """
        with memoryview(data) as whole, whole.cast("B") as view:
            self._check_room(len(view))
            done = 0
            while done < len(view):
                with self.room() as room:
                    count = min(len(room), len(view) - done)
                    room[:count] = view[done : done + count]
                self.advance(count)
                done += count
            return done

    def room(self) -> memoryview:
        """Return the free memory for the next bytes, for example for `file.readinto`.

        After filling it, or a part of it, call `advance(count)`.
        """
        self.start()
        if self._buffer is None:
            self._buffer = take(self._empty)
            if self._buffer is None:
                self._empty.put(None)  # for the next call
                assert self._error is not None
                self.note_told(self._error)
                raise self._error
        return self._buffer[self._count :]

    def advance(self, count: int) -> None:
        """Record that `count` bytes were put into `room`. Raises ValueError; OutOfRange beyond the medium's end."""
        assert self._buffer is not None
        self._check_room(count)
        if not 0 <= count <= len(self._buffer) - self._count:
            raise ValueError(f"{count} bytes are not from 0 to {len(self._buffer) - self._count}, the size of the room")
        self._count += count
        self._left -= count
        if self._count == len(self._buffer):
            self._send(self._buffer)

    def _check_room(self, count: int) -> None:
        if count > self._left:
            end = self.disk.blocks
            self.disk.check_range(end, -(-(count - self._left) // self.block_size))

    def _send(self, buffer: memoryview) -> None:
        self._full.put(_Load(buffer, buffer[: self._count]))
        self._buffer, self._count = None, 0

    def _finish(self) -> None:
        self.check_process()
        if not self._is_started:  # nothing was written
            return
        assert self._thread is not None
        if self._count % self.block_size:
            raise ValueError(f"{self._count} bytes are left, not a multiple of the block size {self.block_size}")
        if self._buffer is not None and self._count:
            self._send(self._buffer)
        self._full.put(None)
        join(self._thread)
        if self._error is not None:
            self.note_told(self._error)
            raise self._error

    def _work(self) -> None:
        while (load := self._full.get()) is not None and not self._is_stopped:
            with load.piece:
                try:
                    self.disk.write_in_thread(self._medium, self.lba, load.piece)
                except ScsiUsbError as error:
                    self.lba += blocks_before(error, self.lba)
                    raise
                self.lba += len(load.piece) // self.block_size
            self._empty.put(load.buffer)


def blocks_before(error: ScsiUsbError, lba: int) -> int:
    """Return the number of blocks, of those from `lba` on, that were moved before the error."""
    return 0 if error.lba is None else error.lba - lba


def _ignore() -> None: ...
