"""The steps of a sequence: what users do, and what happens to sticks and cards."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final

from scsiusb import AsyncDisk, Disk, ledger, read_many
from scsiusb.disk.multi_read import Chunk, ManyReader
from scsiusb.disk.streaming import Writing
from scsiusb.scsi.command import Command
from scsiusb.scsi.commands.sbc import ReadCapacity10
from scsiusb.scsi.commands.spc import RequestSense, TestUnitReady
from scsiusb.scsi.retry import NO_RETRY
from scsiusb.virtual.faults.faults import ALWAYS, Fault
from tests.fuzz.faults import MASKING, HostFault, has_learned
from tests.fuzz.model.cards import ANY, BLOCK_SIZE, PIECE, Card, Slot, content
from tests.fuzz.model.world import CLIENTS, ENDINGS, Client, Failure, Setup, Stream, World
from tests.sticks import Answer, Worker, wait_until

COMMANDS: Final[tuple[Command[Any], ...]] = (TestUnitReady(), RequestSense(), ReadCapacity10())
MOST_STREAMS: Final = 3
CANCEL_WAIT: Final = 0.002  # seconds, enough for the cancelling


class Play(World):
    """A world, and its steps: each method that `script.py` names."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.asynchronous = Client(len(CLIENTS), self.slots[0])
        self._loop: asyncio.AbstractEventLoop | None = None
        self._async_disk: AsyncDisk | None = None
        self._many: ManyReader | None = None
        self._lanes: list[Stream] = []

    # --- calls ------------------------------------------------------------------------------------

    def read(self, number: int, lba: int, blocks: int) -> None:
        """Read blocks; in a call of its own a client that was told of a change reads the new card."""
        client = self.clients[number]
        data, _ = self.of(client, lambda disk: disk.read(lba, blocks))
        self._judge(client, lba, blocks, data)

    def _judge(self, client: Client, lba: int, blocks: int, data: bytes | None) -> None:
        if data is not None:
            assert len(data) == len(content(0, 0, 0)) * blocks
            client.learn(self.card_of(data, lba, client.bound))

    def capacity(self, number: int) -> None:
        """Ask for the size. That does not bind the client to a card: until it has read or written, any will do."""
        self.of(self.clients[number], lambda disk: disk.blocks)

    def write(self, number: int, lba: int, blocks: int) -> None:
        """Write blocks; where the client knows no card, they do not say for which card they are."""
        client = self.clients[number]
        version, data = self._data(client.bound, lba, blocks)
        done, _ = self.of(client, lambda disk: disk.write(lba, data))
        self._judge_write(client, lba, blocks, version, done)

    def _data(self, bound: Card | None, lba: int, blocks: int) -> tuple[int, bytes]:
        self.version += 1
        number = bound.number if bound else ANY
        return self.version, b"".join(content(number, at, self.version) for at in range(lba, lba + blocks))

    def _judge_write(self, client: Client, lba: int, blocks: int, version: int, done: int | None) -> None:
        self.check_cards()
        if done is not None:
            client.learn(self.home.get(version))
            if client.bound is not None:
                client.acknowledged.update({(client.bound, at): version for at in range(lba, lba + blocks)})

    def flush(self, number: int) -> None:
        """Flush; without an error, all that was acknowledged is on its medium."""
        client = self.clients[number]
        for stream in self.streams:
            if stream.client is client:
                self.note_written(stream)
        _, error = self.of(client, Disk.flush)
        if error is None:
            self.check_flushed(client)
        elif isinstance(error, ENDINGS):
            client.acknowledged.clear()

    def execute(self, number: int, command: int) -> None:
        """Execute a command without retries, which may take a unit attention that another client should have got."""
        self.of(self.clients[number], lambda disk: disk.execute(COMMANDS[command], retry=NO_RETRY))

    def reopen(self, number: int) -> None:
        """Close the client's disk; its next call opens it again."""
        self.close(self.clients[number])

    def race(self, first: int, second: int) -> None:
        """Let two clients of one device read and write at the same time, each in a half of the card."""
        one, two = self.clients[0], self.clients[1]
        works = [self._prepare(one, 0, first), self._prepare(two, PIECE, second)]
        workers = [Worker(work) for work in works if work is not None]
        finishings: list[Any] = [worker.result() for worker in workers]
        for finishing in finishings:
            finishing()

    def _prepare(self, client: Client, lba: int, kind: int) -> Callable[[], Callable[[], None]] | None:
        """Return what a thread does: it returns what the main thread does afterwards."""
        if self.of(client, lambda disk: disk.blocks)[0] is None or client.disk is None:
            return None
        disk = client.disk
        version, data = self._data(client.bound, lba, PIECE)

        def work() -> Callable[[], None]:
            if kind:
                done, error = self.call(lambda: disk.write(lba, data))
                return lambda: self._after(client, error, partial(self._judge_write, client, lba, PIECE, version, done))
            found, error = self.call(lambda: disk.read(lba, PIECE))
            return lambda: self._after(client, error, partial(self._judge, client, lba, PIECE, found))

        return work

    def _after(self, client: Client, error: Failure, judge: Callable[[], None]) -> None:
        judge()
        self.settle(client, error)

    # --- streams ----------------------------------------------------------------------------------

    def begin_reading(self, number: int, lba: int, blocks: int) -> None:
        """Begin a stream of reads."""
        self._begin(self.clients[number], lambda disk: disk.reading(lba, blocks).__enter__())

    def begin_writing(self, number: int, lba: int) -> None:
        """Begin a stream of writes."""
        self._begin(self.clients[number], lambda disk: disk.writing(lba).__enter__())

    def _begin(self, client: Client, make: Callable[[Disk], Any]) -> None:
        if len(self.streams) == MOST_STREAMS:
            return
        self.capacity(self.clients.index(client))
        made, _ = self.of(client, make)
        if made is not None:
            stream = Stream(client, made)
            self.streams.append(stream)
            self._rest(stream)

    def advance(self, number: int) -> None:
        """Take the next blocks from a stream, or give it some."""
        if not self.streams:
            return
        stream = self.streams[number % len(self.streams)]
        if isinstance(stream.stream, Writing):
            self._feed(stream)
        else:
            self._take(stream)
        if stream in self.streams:
            self._rest(stream)

    def finish_stream(self, number: int) -> None:
        """Leave a stream, as at the end of its `with`."""
        if not self.streams:
            return
        self._finish(self.streams[number % len(self.streams)])

    def _finish(self, stream: Stream) -> None:
        self.streams.remove(stream)
        _, error = self.call(partial(stream.stream.__exit__, None, None, None))
        self.note_written(stream)
        self.settle(stream.client, error)

    def _take(self, stream: Stream) -> None:
        piece, error = self.call(lambda: next(stream.stream, None))
        if piece is not None:
            self._judge_piece(stream, piece)
        else:
            self.streams.remove(stream)
            self.call(partial(stream.stream.__exit__, None, None, None))
            self.settle(stream.client, error)

    def _judge_piece(self, stream: Stream, piece: memoryview) -> None:
        stream.bound = self.card_of(piece, stream.lba, stream.bound)
        stream.lba = stream.stream.lba

    def _feed(self, stream: Stream) -> None:
        """Give a stream of writes one command's worth of blocks."""
        writing: Writing = stream.stream
        blocks = min(PIECE, writing._left // writing.block_size)
        version, data = self._data(stream.bound, stream.lba + len(stream.versions), blocks)
        done, error = self.call(lambda: writing.write(data))
        if done is None or not blocks:
            self.end(stream)
            self.settle(stream.client, error)
        else:
            stream.versions += [version] * blocks
            if writing._count:  # less than a command: finished now, as it must not go over what is written later
                self._finish(stream)

    def _rest(self, stream: Stream) -> None:
        """Wait until the stream's thread has nothing to do, so that a sequence is the same each time."""
        made = stream.stream
        thread = made._thread
        if isinstance(made, Writing):
            commands = len(stream.versions) * BLOCK_SIZE // made.most_bytes  # also if the block size is reported wrong
            given = stream.lba + commands * (made.most_bytes // made.block_size)
            wait_until(lambda: not thread.is_alive() or made.lba >= given)
        else:
            count = min(3, -(-made._total // made.most_bytes))
            wait_until(lambda: not thread.is_alive() or made._full.qsize() + (made._load is not None) == count)

    # --- many devices -----------------------------------------------------------------------------

    def begin_many(self, first: int, second: int, lba: int) -> None:
        """Begin to read two clients' streams in one loop."""
        if self._many is not None or first == second:
            return
        lanes = []
        for client in (self.clients[first], self.clients[second]):
            self.capacity(self.clients.index(client))
            made, _ = self.of(client, lambda disk: disk.reading(lba, max(disk.blocks - lba, 1)))
            if made is not None:
                lanes.append(Stream(client, made))
        if len(lanes) < 2:
            return
        many = read_many(*(lane.stream for lane in lanes))
        found, _ = self.call(many.__enter__)
        if found is not None:
            self._many, self._lanes = many, lanes

    def advance_many(self, chunks: int) -> None:
        """Take some chunks."""
        for _ in range(chunks):
            if self._many is None:
                return
            many = self._many
            chunk, error = self.call(lambda: next(many, None))  # noqa: B023
            if chunk is None:
                self.finish_many()
                assert error is None or isinstance(error, KeyboardInterrupt), error
                return
            self._judge_chunk(chunk)

    def _judge_chunk(self, chunk: Chunk) -> None:
        lane = next(lane for lane in self._lanes if lane.stream is chunk.reading)
        if chunk.error is None:
            self._judge_piece(lane, chunk.piece)
        else:
            lane.client.note(chunk.error)

    def finish_many(self) -> None:
        """Leave the loop."""
        many, self._many = self._many, None
        if many is not None:
            self.call(partial(many.__exit__, None, None, None))
        self._lanes = []

    def close(self, client: Client) -> None:
        """See `World.close`."""
        if any(lane.client is client for lane in self._lanes):
            self.finish_many()
        if client is self.asynchronous:
            self._close_async()
        super().close(client)

    # --- asyncio ----------------------------------------------------------------------------------

    def async_read(self, lba: int, blocks: int, cancel_at: int, wait: float = CANCEL_WAIT) -> None:
        """Read in a task, which is cancelled at that transfer; -1: not. The transfer begins `wait` seconds later."""
        judge = partial(self._judge, self.asynchronous, lba, blocks)
        self._async(lambda disk: disk.read(lba, blocks), cancel_at, wait, judge)

    def async_write(self, lba: int, blocks: int, cancel_at: int, wait: float = CANCEL_WAIT) -> None:
        """Write in a task, as `async_read`."""
        client = self.asynchronous
        version, data = self._data(client.bound, lba, blocks)
        judge = partial(self._judge_write, client, lba, blocks, version)
        self._async(lambda disk: disk.write(lba, data), cancel_at, wait, judge)

    def _async(
        self, make: Callable[[AsyncDisk], Any], cancel_at: int, wait: float, judge: Callable[[Any], None]
    ) -> None:
        client = self.asynchronous
        disk = self._open_async()
        if disk is None or self._loop is None:
            return
        disk.disk.unit.timeout = self.timeout
        found, error = self.call(partial(self._run, self._loop, make(disk), cancel_at, wait))
        judge(found)
        self.settle(client, error)

    def _run(self, loop: asyncio.AbstractEventLoop, call: Any, cancel_at: int, wait: float) -> Any:
        task = loop.create_task(call)

        def cancel() -> Answer | None:
            if not task.done() and threading.current_thread() is not threading.main_thread():
                loop.call_soon_threadsafe(task.cancel)
                time.sleep(wait)
            return None

        if cancel_at >= 0:
            self.happenings.at(cancel_at, cancel)
        try:
            return loop.run_until_complete(task)
        except asyncio.CancelledError:
            return None

    def _open_async(self) -> AsyncDisk | None:
        if self._async_disk is None:
            self._loop = self._loop or asyncio.new_event_loop()
            disk = AsyncDisk(partial(self._open, self.asynchronous))
            self._async_disk, _ = self.call(partial(self._loop.run_until_complete, disk.__aenter__()))
        return self._async_disk

    def _close_async(self) -> None:
        disk, self._async_disk = self._async_disk, None
        if disk is not None and self._loop is not None:
            _, error = self.call(partial(self._loop.run_until_complete, disk.aclose()))
            if error is None and not self.asynchronous.is_gone:
                self.check_flushed(self.asynchronous)
            self.asynchronous.forget()

    def plug(self, slot: Slot) -> None:
        """See `World.plug`."""
        if self.bus._connection_of(slot.stick) is None and slot is self.asynchronous.slot:
            self.close(self.asynchronous)
        super().plug(slot)

    def close_all(self) -> None:
        """See `World.close_all`."""
        self.finish_many()
        self.close(self.asynchronous)
        super().close_all()
        if self._loop is not None:
            self._loop.close()

    # --- what happens -----------------------------------------------------------------------------

    def swap(self, slot: int) -> None:
        """Exchange the card."""
        self.slots[slot].swap()

    def take_out(self, slot: int) -> None:
        """Take the card out."""
        self.slots[slot].take_out()

    def put_in(self, slot: int, card: int) -> None:
        """Put a card in, if there is none."""
        self.slots[slot].put_in(card)

    def power_on(self, slot: int) -> None:
        """Reset the unit from within, as a brown-out does."""
        self.slots[slot].reader.power_on()

    def unplug(self, slot: int) -> None:
        """Unplug the stick and plug it in again."""
        self.lose_power(self.slots[slot])

    def reset(self, number: int, what: str) -> None:
        """Reset the device as a client does: at its port, or by the class request."""

        def run(disk: Disk) -> None:
            with disk.unit.transport.probing() as lent:
                if what == "port":
                    lent.reset()

        self.of(self.clients[number], run)

    def later(self, transfers: int, name: str, slot: int) -> None:
        """Let something happen at a later transfer."""
        self.happenings.at(transfers, partial(self._happen, name, slot))

    def _happen(self, name: str, slot: int) -> Answer | None:
        if name == "ctrl-c":
            if threading.current_thread() is threading.main_thread():
                raise KeyboardInterrupt
        elif name == "put_in":
            self.slots[slot].put_in(1)
        elif name == "power_on":
            self.slots[slot].reader.power_on()
        elif name == "swap":
            self.slots[slot].swap()
        else:
            self.slots[slot].take_out()
        return None

    def fault(self, slot: int, text: str) -> None:
        """Add a fault of the virtual stick's table, if a host can detect what it does."""
        fault = Fault.parse(text)
        faults = self.slots[slot].stick.faults
        if not self.slots[slot].allows(fault) or (fault.name not in MASKING and has_learned(faults)):
            return
        if fault.name in MASKING or any(entry.fault.name in MASKING for entry in faults.entries):
            faults.clear()
        if fault.kind.times != ALWAYS or all(entry.fault.name != fault.name for entry in faults.entries):
            faults.add(fault)
            self.has_wrong_block_size |= fault.name == "block-size"
            self.has_descriptor_faults |= fault.name == "descriptor"

    def host_fault(self, fault: HostFault) -> None:
        """Add a fault of the host controller."""
        self.happenings.add_host_fault(fault)

    def heal(self) -> None:
        """Remove all faults."""
        self.remove_faults()


@contextmanager
def playing(setup: Setup) -> Iterator[Play]:
    """Yield a world, and finish it. If it fails, close what is open, so that the next one finds nothing held."""
    made = Play(setup)
    try:
        yield made
        made.finish()
    except BaseException:
        made.happenings.clear()
        with suppress(Exception):
            made.close_all()
        ledger.forget()
        raise
    finally:
        made.bus.close()
