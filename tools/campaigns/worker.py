"""The program that is killed: opens the device, reads, writes, flushes and closes in a loop."""

from __future__ import annotations

import ctypes
import os
import random
import resource
import sys
import threading
import time
from typing import NoReturn

import scsiusb
from campaigns.content import Content
from campaigns.progress import Phase, Progress, pattern

if sys.platform != "linux":
    raise ImportError("this campaign runs on Linux only")

VARIANTS = ("loop", "keep", "manager")
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

    def _close(self, disk: scsiusb.Disk) -> None:
        number = self._progress.begin(0, 0, 0)
        with self._progress.during(Phase.CLOSING):
            disk.close()
        self._progress.acknowledge(number)
        self._progress.count_round()

    def _act(self, disk: scsiusb.Disk) -> None:
        kind = self._choice.random()
        if kind < 0.2:
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

    def _check(self, data: bytes, lba: int, blocks: int) -> None:
        if data != self._content.read(lba, blocks):
            print(f"wrong data: {blocks} blocks at LBA {lba}", file=sys.stderr, flush=True)
            os._exit(WRONG_DATA)

    def _write(self, disk: scsiusb.Disk) -> None:
        lba, blocks = self._place(2048)
        seed = self._choice.getrandbits(32)
        data = pattern(seed, blocks)
        number = self._progress.begin(lba, blocks, seed)
        with self._progress.during(Phase.WRITING):
            disk.write(lba, data)
        self._progress.acknowledge(number)
        self._content.write(lba, data)

    def _flush(self, disk: scsiusb.Disk) -> None:
        number = self._progress.begin(0, 0, 0)
        with self._progress.during(Phase.FLUSHING):
            disk.flush()
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
