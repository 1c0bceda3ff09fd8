"""A program that ends while a stream or a read of many devices is open: see `main` for its arguments."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import scsiusb

from .worker import say

if sys.platform != "linux":
    raise ImportError("these tests run on Linux only")

BLOCKS = 4096  # moved by each stream
STEP = 8  # blocks of a command: few, so that a stream takes long enough to end the program in the middle of it
DATA = bytes(STEP * 512 * 3 // 2)  # not a whole number of commands: a buffer is always partly filled
STATUS = 5  # of the endings that choose one
Step = Callable[[], object]
_kept: list[object] = []  # until the interpreter's end, as a program's globals are


class Ended(Exception):
    """A step found the stream at its end, or at an error."""


class Alarm(Exception):
    """A signal's handler ended a step."""


def _many(disks: list[scsiusb.Disk]) -> Step:
    chunks = scsiusb.read_many(*(disk.reading(0, BLOCKS) for disk in disks)).__enter__()
    return lambda: _good(next(chunks))


def _two_of_one(disks: list[scsiusb.Disk]) -> Step:
    """Read two streams of one device, each of which has a thread."""
    return _many([disks[0], disks[0]])


def _generator(disks: list[scsiusb.Disk]) -> Step:
    """Read many devices in a generator that is never closed."""

    def chunks() -> Iterator[scsiusb.Chunk]:
        with scsiusb.read_many(*(disk.reading(0, BLOCKS) for disk in disks)) as found:
            yield from found

    suspended = chunks()
    return lambda: _good(next(suspended))


def _good(chunk: scsiusb.Chunk) -> scsiusb.Chunk:
    if chunk.error is not None:
        raise chunk.error
    return chunk


def _reading(disks: list[scsiusb.Disk]) -> Step:
    stream = disks[0].reading(0, BLOCKS).__enter__()
    return lambda: next(stream)


def _writing(disks: list[scsiusb.Disk]) -> Step:
    stream = disks[0].writing(0).__enter__()
    left = BLOCKS * 512

    def step() -> object:
        nonlocal left
        if left < len(DATA):
            raise StopIteration
        left -= stream.write(DATA)
        return stream.room()

    return step


WORKS = {"many": _many, "two-of-one": _two_of_one, "generator": _generator, "reading": _reading, "writing": _writing}
WAITING = "waiting"  # state "holding", until there is a line on stdin
STATES = ("entered", "holding", "stepping", "after-error", "exhausted")
THREADS = ("main", "daemon")
ENDINGS = ("return", "sys.exit", "exception", "os._exit")


def _bring_into(state: str, step: Step, reached: Callable[[], None], eject: Path) -> None:
    """Bring the work into a state, and call `reached`; in state "stepping" go on meanwhile."""
    if state == "after-error":
        eject.write_text("\n")
    if state in ("after-error", "exhausted"):
        _step_until(scsiusb.ScsiUsbError if state == "after-error" else StopIteration, step)
    if state in ("holding", "stepping", WAITING):
        _kept.append(step())
    reached()
    while state == "stepping":
        step()


def _step_until(end: type[Exception], step: Step) -> None:
    with suppress(end):
        while True:
            step()


def _in_main(state: str, step: Step, eject: Path) -> None:
    """Bring the work into a state in this thread; "stepping" is ended by a signal's handler."""

    def handler(number: int, frame: object) -> None:
        raise Alarm

    def arm() -> None:
        if state == "stepping":
            signal.setitimer(signal.ITIMER_REAL, 0.02)

    signal.signal(signal.SIGALRM, handler)
    try:
        _bring_into(state, step, arm, eject)
    except Alarm:
        pass
    else:
        assert state != "stepping"


def _in_daemon(state: str, step: Callable[[], Step], eject: Path) -> None:
    """Bring the work into a state in a daemon thread, which keeps it."""
    reached = threading.Event()

    def work() -> None:
        here = step()
        with suppress(scsiusb.DeviceClosed):  # "stepping" at the interpreter's end
            _bring_into(state, here, reached.set, eject)
        while True:
            time.sleep(600)

    threading.Thread(target=work, daemon=True).start()
    assert reached.wait(60)


def main(addresses: str, work: str, state: str, thread: str, ending: str, eject: str) -> None:
    """Open the devices, bring the work into the state in the thread, and end the program.

    `eject` is the file by which a gadget's medium is removed. The line "ending" has the time.
    """
    disks = [scsiusb.open(address) for address in addresses.split(",")]
    _kept.append(disks)
    for disk in disks:
        disk.max_blocks = STEP
    if thread == "main":
        step = WORKS[work](disks)
        _kept.append(step)
        _in_main(state, step, Path(eject))
    else:
        _in_daemon(state, lambda: WORKS[work](disks), Path(eject))
    if state == WAITING:
        say("reached")
        sys.stdin.readline()
    say("ending", time.monotonic())
    if ending == "sys.exit":
        sys.exit(STATUS)
    if ending == "exception":
        raise Ended
    if ending == "os._exit":
        os._exit(STATUS)


if __name__ == "__main__":
    main(*sys.argv[1:])
