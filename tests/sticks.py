"""Test helpers: virtual sticks whose transfers a test can log, answer or fail; threads; scripts in a process."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from scsiusb.manager.client import Client
from scsiusb.manager.process import PROCESS
from scsiusb.quirks.lookup import tabled
from scsiusb.transport.base import Completion, Direction, Enter, Story, leaving
from scsiusb.transport.bot.transport import BulkOnlyTransport
from scsiusb.transport.turns import User
from scsiusb.usb.backend import ENDPOINT_IN, Code, Device, UsbError
from scsiusb.usb.interface import find
from scsiusb.usb.port import Port
from scsiusb.virtual import Bus, Medium, Memory, Stick, Unit, VirtualHandle
from scsiusb.virtual.target.sense import Sense
from scsiusb.virtual.target.task import Task
from tests import forkserver

Answer = tuple[Code, int]
Intercept = Callable[["Wire", int, memoryview], "Answer | None"]

CBW_LENGTH = 31
CSW_LENGTH = 13
PATIENCE = 60.0  # seconds to wait at most for what takes milliseconds, unless the machine is busy


def csw(tag: int, residue: int = 0, status: int = 0, signature: bytes = b"USBS") -> bytes:
    """Return the bytes of a CSW (BOT 5.2), packed without the code under test."""
    return signature + tag.to_bytes(4, "little") + residue.to_bytes(4, "little") + bytes([status])


@dataclass
class Wire:
    """Log of a handle's transfers and requests in order, and the function that may answer instead of the device."""

    log: list[str] = field(default_factory=list)
    tag: int = 0
    """Tag of the last CBW."""
    opcode: int = -1
    """Operation code of the last CBW."""
    intercept: Intercept | None = None
    """Called with each bulk transfer; returns its result, or None: the virtual stick executes it."""
    fail_requests: dict[str, Code] = field(default_factory=dict)
    """Errors of requests, by their names in the log."""

    def put(self, buffer: memoryview, data: bytes) -> Answer:
        """Answer an IN transfer with `data`."""
        buffer[: len(data)] = data
        return Code.OK, len(data)


class InterceptedHandle(VirtualHandle):
    """A virtual handle that logs on `wire` and lets it answer or fail each transfer."""

    wire: Wire

    def bulk(self, endpoint: int, buffer: memoryview, deadline: float) -> Answer:
        wire = self.wire
        if not endpoint & ENDPOINT_IN and len(buffer) == CBW_LENGTH and bytes(buffer[:4]) == b"USBC":
            wire.tag = int.from_bytes(buffer[4:8], "little")
            wire.opcode = buffer[15]
            wire.log.append(f"cbw {wire.opcode:02x}")
        else:
            wire.log.append("in" if endpoint & ENDPOINT_IN else "out")
        answer = wire.intercept(wire, endpoint, buffer) if wire.intercept else None
        return super().bulk(endpoint, buffer, deadline) if answer is None else answer

    def clear_halt(self, endpoint: int) -> None:
        self._note("clear in" if endpoint & ENDPOINT_IN else "clear out")
        super().clear_halt(endpoint)

    def reset(self) -> None:
        self._note("port reset")
        super().reset()

    def control_out(
        self, request_type: int, request: int, value: int, index: int, data: bytes, timeout_ms: int
    ) -> None:
        self._note(f"request {request:02x}")
        super().control_out(request_type, request, value, index, data, timeout_ms)

    def control_in(
        self, request_type: int, request: int, value: int, index: int, length: int, timeout_ms: int
    ) -> bytes:
        self._note(f"request {request:02x}")
        return super().control_in(request_type, request, value, index, length, timeout_ms)

    def _note(self, name: str) -> None:
        self.wire.log.append(name)
        if name in self.wire.fail_requests:
            raise UsbError(self.wire.fail_requests[name])


class InterceptedBus(Bus):
    """A virtual bus whose handles share one `Wire`."""

    def __init__(self, *sticks: Stick) -> None:
        super().__init__(*sticks)
        self.wire = Wire()

    def open(self, device: Device) -> VirtualHandle:
        handle = super().open(device)
        handle.__class__ = InterceptedHandle
        assert isinstance(handle, InterceptedHandle)
        handle.wire = self.wire
        return handle


class OddUnit(Unit):
    """A unit whose commands `answer` may answer instead, with a task; None leaves the command to the correct unit."""

    answer: Callable[[bytes], Task | None]

    def __init__(self, medium: Medium | None = None, **attributes: Any) -> None:
        super().__init__(Memory(1 << 20) if medium is None else medium, **attributes)
        self.answer = lambda cdb: None
        self.cdbs: list[bytes] = []

    def execute(self, cdb: bytes) -> Task:
        self.cdbs.append(bytes(cdb))
        return self.answer(cdb) or super().execute(cdb)

    def fail(self, key: int, asc: int = 0, ascq: int = 0) -> Task:
        """Return a task that has failed, with this sense data."""
        self.keep_sense(Sense(key, asc, ascq))
        return Task(failed=True)

    def count(self, opcode: int) -> int:
        """Return how many commands with this operation code have come."""
        return sum(cdb[0] == opcode for cdb in self.cdbs)


def stick(blocks: int = 2048, block_size: int = 512, **attributes: Any) -> Stick:
    """Return a stick with one unit, each block of which begins with its LBA, big-endian in 4 bytes."""
    data = bytearray(blocks * block_size)
    for number in range(blocks):
        data[number * block_size : number * block_size + 4] = number.to_bytes(4, "big")
    return Stick([Unit(Memory(data, block_size), **attributes)])


def transport_on(bus: Bus) -> BulkOnlyTransport:
    """Return a transport to the first device of the bus, with the quirks of the table."""
    info = find(bus)[0]
    quirks = tabled(info.vid, info.pid, info.device.release)
    return BulkOnlyTransport(Port(bus, info, quirks=quirks))


def client_on(bus: Bus) -> Client:
    """Return a client of the bus's first interface, without quirks; the test closes it."""
    return PROCESS.join(bus, find(bus)[0])


def execute(
    transport: BulkOnlyTransport | Client,
    lun: int,
    cdb: bytes,
    direction: Direction,
    buffer: memoryview,
    timeout: float,
    user: User | None = None,
) -> Completion:
    """Run one command in a turn of its own."""

    def story() -> Story[Completion]:
        turn = transport.turn() if isinstance(transport, Client) else transport.turn(user)
        with leaving(turn):
            if not turn.try_enter():
                yield Enter(turn)
            return (yield from transport.exchange(lun, cdb, direction, buffer, timeout))

    return transport.drive(story())


def hangs_at(opcode: int, reached: threading.Event) -> Intercept:
    """Keep the CBW of commands with that opcode from the device, so that their next phase hangs, and set `reached`."""

    def intercept(wire: Wire, endpoint: int, buffer: memoryview) -> Answer | None:
        if wire.opcode != opcode or not wire.log[-1].startswith("cbw"):
            return None
        reached.set()
        return Code.OK, CBW_LENGTH

    return intercept


def wait_until(happened: Callable[[], object]) -> None:
    """Wait until another thread has made `happened` true."""
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, f"not true after {PATIENCE:.0f} seconds"
        time.sleep(0.001)


class Worker(threading.Thread):
    """Runs `work` in another thread; `result` joins it and returns its result or raises its exception."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._value: object = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._value = self._work()
        except BaseException as error:  # noqa: BLE001
            self._error = error

    def result(self) -> object:
        self.join(PATIENCE)
        assert not self.is_alive(), "the thread hangs"
        if self._error is not None:
            raise self._error
        return self._value


def run_all(*works: Callable[[], object]) -> list[object]:
    """Run all at the same time, each in its own thread; return their results, or raise the first exception."""
    barrier = threading.Barrier(len(works), timeout=PATIENCE)

    def start_together(work: Callable[[], object]) -> object:
        barrier.wait()
        return work()

    return [worker.result() for worker in [Worker(partial(start_together, work)) for work in works]]


@contextmanager
def frequent_thread_switches() -> Iterator[None]:
    """Make the interpreter switch threads as often as possible, which brings out races."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


@contextmanager
def garbage_collector_off() -> Iterator[None]:
    """Disable the garbage collector: objects are freed only when their last reference goes.

    It ignores all earlier objects from now on, which makes the next `gc.collect()` quick.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def python(script: str, *, signal_at: str = "", number: int = 0, **changes: str) -> tuple[int, str, str]:
    """Run the script in another process; return exit status, stdout and stderr.

    `number` is a signal that it gets when it prints the line `signal_at`, `changes` are made to its environment.
    """
    script = textwrap.dedent(script)
    process = forkserver.start(script, env=forkserver.environment(**changes), stderr=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            err = Worker(process.stderr.read)
            first = ""
            if signal_at:
                first = process.stdout.readline()
                assert first.strip() == signal_at
                process.send_signal(number)
            out = Worker(process.stdout.read).result()
            process.wait(PATIENCE)
        finally:
            process.kill()
        return process.wait(), f"{first}{out}", str(err.result())


class Counting(Memory):
    """A medium that counts what is read and written, in bytes."""

    read = written = 0

    def _readinto(self, offset: int, view: memoryview) -> None:
        self.read += len(view)
        super()._readinto(offset, view)

    def _write(self, offset: int, view: memoryview) -> None:
        self.written += len(view)
        super()._write(offset, view)


class LongestQueue:
    """The most commands that a stick had in the queue of its UAS interface, since this object was made."""

    def __init__(self, stick: Stick) -> None:
        self.length = 0
        function: Any = stick.function_of_interface(0)
        self._function = function
        self._begin: Callable[[], None] = function._begin
        function._begin = self._watched

    def _watched(self) -> None:
        self.length = max(self.length, len(self._function._queue))
        self._begin()
