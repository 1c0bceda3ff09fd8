"""The program that is killed: opens the device, reads, writes, flushes and closes in a loop."""

from __future__ import annotations

import asyncio
import ctypes
import os
import random
import resource
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import scsiusb
from campaigns.content import Content
from campaigns.progress import Phase, Progress, pattern

if sys.platform != "linux":
    raise ImportError("this campaign runs on Linux only")

VARIANTS = ("loop", "keep", "manager", "asyncio")
SIZES = (1, 8, 256, 1024, 2048, 4096, 8192)  # blocks of a read or a write
MANY = 64  # reads at once
PIECE = 4 << 20  # bytes
WRONG_DATA = 3
FAILED = 4


class Worker:
    """The work of the victim; runs in a fork of the campaign's process."""

    def __init__(self, variant: str, address: str, content: Content, seed: int, progress: Progress) -> None:
        self._variant = variant
        self._address = address
        self._content = content
        self._choice = random.Random(seed)
        self._progress = progress

    def run(self, orders: int) -> NoReturn:
        """Work until killed. From the descriptor `orders` comes the order to end the process from inside."""
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        threading.Thread(target=_follow_order, args=(orders,), daemon=True).start()
        try:
            if self._variant == "manager":
                self._with_manager()
            elif self._variant == "keep":
                self._never_closing()
            elif self._variant == "asyncio":
                asyncio.run(self._with_asyncio())
            else:
                while True:
                    self._round()
        except BaseException as error:  # noqa: BLE001 - no exception may reach the campaign's code
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(FAILED)

    def _round(self) -> None:
        with self._progress.during(Phase.OPENING):
            disk = scsiusb.open(self._address)
        for _ in range(self._choice.randint(2, 10)):
            self._act(disk)
        self._close(disk)

    def _never_closing(self) -> None:
        with self._progress.during(Phase.OPENING):
            disk = scsiusb.open(self._address)
        while True:
            self._act(disk)

    def _with_manager(self) -> None:
        with scsiusb.Manager() as manager:
            while True:
                with self._progress.during(Phase.OPENING):
                    disk = manager.open(self._address)
                for _ in range(self._choice.randint(2, 10)):
                    self._act(disk)
                self._close(disk)

    async def _with_asyncio(self) -> NoReturn:
        while True:
            disk = scsiusb.aopen(self._address)
            with self._progress.during(Phase.OPENING):
                await disk.__aenter__()
            for _ in range(self._choice.randint(2, 10)):
                await self._act_async(disk)
            with self._flushing(Phase.CLOSING):
                await disk.aclose()
            self._progress.count_round()

    async def _act_async(self, disk: scsiusb.AsyncDisk) -> None:
        """Write, or read in two tasks, of which one is cancelled at times."""
        if self._choice.random() < 0.4 and not self._progress.is_full:
            with self._writing() as (lba, data), self._progress.during(Phase.WRITING):
                await disk.write(lba, data)
        else:
            is_cancelled = self._choice.random() < 0.3 and not self._progress.is_full
            if is_cancelled:  # the recovery may reset the device, after which what is not flushed counts as lost
                with self._flushing(Phase.FLUSHING):
                    await disk.flush()
            places = [self._place(8192) for _ in range(2)]
            with self._progress.during(Phase.READING):
                tasks = [asyncio.create_task(disk.read(*place)) for place in places]
                if is_cancelled:
                    await asyncio.sleep(self._choice.random() * 0.01)
                    tasks[0].cancel()
                results = await asyncio.gather(*tasks, return_exceptions=True)
            for place, result in zip(places, results, strict=True):
                if isinstance(result, bytes):
                    self._check(result, *place)
                elif not isinstance(result, asyncio.CancelledError):
                    raise result
        self._progress.count_action()

    def _close(self, disk: scsiusb.Disk) -> None:
        with self._flushing(Phase.CLOSING):
            disk.close()
        self._progress.count_round()

    def _act(self, disk: scsiusb.Disk) -> None:
        kind = self._choice.random()
        if kind < 0.1:
            self._read_streams(disk)
        elif kind < 0.2:
            self._read_many(disk)
        elif kind < 0.4 or self._progress.is_full:
            self._read(disk)
        elif kind < 0.75:
            self._write(disk)
        elif kind < 0.9:
            self._flush(disk)
        else:
            time.sleep(self._choice.random() * 0.01)
        self._progress.count_action()

    def _place(self, most: int) -> tuple[int, int]:
        blocks = self._choice.choice([size for size in SIZES if size <= most])
        return self._choice.randrange(self._content.blocks - blocks + 1), blocks

    def _read(self, disk: scsiusb.Disk) -> None:
        lba, blocks = self._place(8192)
        with self._progress.during(Phase.READING):
            data = disk.read(lba, blocks)
        self._check(data, lba, blocks)

    def _read_many(self, disk: scsiusb.Disk) -> None:
        """Read at many places, with as many commands in flight as the device takes: one by BOT."""
        places = [self._place(8) for _ in range(MANY)]
        with self._progress.during(Phase.READING):
            found = list(disk.read_many(places))
        for number, data in found:
            self._check(data, *places[number])

    def _read_streams(self, disk: scsiusb.Disk) -> None:
        """Read by the reader of many devices: one stream, which is polled, or two of one device, each with a thread."""
        streams = [disk.reading(*self._place(8192)) for _ in range(self._choice.randint(1, 2))]
        with self._progress.during(Phase.READING), scsiusb.read_many(*streams) as chunks:
            for chunk in chunks:
                if chunk.error is not None:
                    raise chunk.error
                blocks = len(chunk.piece) // disk.block_size
                self._check(chunk.piece, chunk.reading.lba - blocks, blocks)

    def _check(self, data: bytes | memoryview, lba: int, blocks: int) -> None:
        if data != self._content.read(lba, blocks):
            print(f"wrong data: {blocks} blocks at LBA {lba}", file=sys.stderr, flush=True)
            os._exit(WRONG_DATA)

    def _write(self, disk: scsiusb.Disk) -> None:
        with self._writing() as (lba, data), self._progress.during(Phase.WRITING):
            disk.write(lba, data)

    @contextmanager
    def _writing(self) -> Iterator[tuple[int, bytes]]:
        """Note a write in the journal; yield what to write where, and note that it was carried out."""
        lba, blocks = self._place(2048)
        seed = self._choice.getrandbits(32)
        data = pattern(seed, blocks)
        number = self._progress.begin(lba, blocks, seed)
        yield lba, data
        self._progress.acknowledge(number)
        self._content.write(lba, data)

    def _flush(self, disk: scsiusb.Disk) -> None:
        with self._flushing(Phase.FLUSHING):
            disk.flush()

    @contextmanager
    def _flushing(self, phase: Phase) -> Iterator[None]:
        """Note a flush, or a close, which flushes, in the journal, and then that it was carried out."""
        number = self._progress.begin(0, 0, 0)
        with self._progress.during(phase):
            yield
        self._progress.acknowledge(number)


def _follow_order(orders: int) -> None:
    """End the process from inside, in the middle of whatever it does."""
    order = os.read(orders, 1)
    if order == b"e":
        os._exit(0)
    elif order == b"s":
        ctypes.string_at(0)
    elif order == b"m":
        _use_up_memory()


def _use_up_memory() -> None:
    """Allocate until the kernel kills the process or, with a limit of the address space, until that is reached."""
    taken = []
    try:
        while True:
            taken.append(b"\x55" * PIECE)
    except MemoryError:
        os.abort()
