"""What a program does with two virtual sticks, and what must be true after it was interrupted anywhere."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

from scsiusb import Disk, Manager, ledger, read_many
from scsiusb.errors import ScsiUsbError
from scsiusb.opening import open_on
from scsiusb.usb.interface import find
from scsiusb.virtual import Memory, Stick, Unit
from tests.disk.polling import PolledBus
from tests.interrupts import VIRTUAL, Raise, is_deleting, is_driver, of_driver
from tests.sticks import InterceptedBus

BLOCKS: Final = 64
AGAIN: Final = 50e-6  # seconds until a signal is tried again that came in the virtual stick's code
SOON: Final = 5.0  # seconds
PIECE: Final = 16  # blocks of one command
DATA: Final = b"".join(number.to_bytes(4, "big") * 128 for number in range(BLOCKS))


class Place:
    """Two sticks on a bus, a disk that is open on each, if the scenario uses open ones, and what else is open."""

    def __init__(self, *, polled: bool) -> None:
        self.sticks = [Stick([Unit(Memory(bytearray(DATA)))]) for _ in range(2)]
        self.bus: InterceptedBus = PolledBus(*self.sticks) if polled else InterceptedBus(*self.sticks)
        self.disks: list[Disk] = []
        self.managers: list[Manager] = []

    def open(self, count: int) -> None:
        """Open disks, and read, so that nothing is done for the first time in what is interrupted."""
        for number in range(count):
            self.open_one(number).read(0, 1)

    def open_one(self, number: int) -> Disk:
        """Open the disk of a stick."""
        disk = open_on(self.bus, find(self.bus)[number])
        self.disks.append(disk)
        disk.max_blocks = PIECE
        return disk

    def close(self) -> None:
        """Close what is open; an error of a flush is not the matter here."""
        for close in (*(disk.close for disk in self.disks), *(manager.close for manager in self.managers)):
            with suppress(ScsiUsbError):
                close()
        self.disks.clear()
        self.managers.clear()

    def faults(self) -> list[str]:
        """Return what is wrong after everything was closed; an empty list is right."""
        found = []
        if ledger.outstanding():
            found.append(f"held: {ledger.dump()}")
        if self.bus.handles:
            found.append("a handle is open")
        if any(self.bus.driver(device, 0) != "usb-storage" for device in self.bus.devices()):
            found.append("a stick has no driver")
        return found

    def is_usable(self) -> bool:
        """Return whether both sticks can be opened, and give right data."""
        for number in range(2):
            disk = self.open_one(number)
            if disk.read(1, 4) != DATA[512 : 5 * 512]:
                return False
        self.close()
        return True


# --- what a program does ----------------------------------------------------------------------------


def _open(place: Place) -> None:
    place.open_one(0)


def _read(place: Place) -> None:
    assert place.disks[0].read(0, 40) == DATA[: 40 * 512]


def _write(place: Place) -> None:
    place.disks[0].write(8, DATA[8 * 512 : 40 * 512])
    place.disks[0].flush()


def _reading(place: Place) -> None:
    with place.disks[0].reading(0, BLOCKS) as pieces:
        assert b"".join(bytes(piece) for piece in pieces) == DATA


def _writing(place: Place) -> None:
    with place.disks[0].writing(0) as out:
        out.write(DATA)


def _many(place: Place) -> None:
    one, two = place.disks
    with read_many(one.reading(0, BLOCKS), two.reading(0, BLOCKS)) as chunks:
        assert sum(len(chunk.piece) for chunk in chunks) == 2 * len(DATA)


def _manage(place: Place) -> None:
    manager = Manager(place.bus)
    place.managers.append(manager)
    manager.devices()
    disk = manager.open(find(place.bus)[0])
    place.disks.append(disk)
    disk.read(0, 1)
    disk.close()
    manager.close()


def _close(place: Place) -> None:
    place.disks[0].close()


SCENARIOS: Final[dict[str, tuple[int, bool, Callable[[Place], None]]]] = {
    "open": (0, False, _open),
    "read": (1, False, _read),
    "write": (1, False, _write),
    "read stream": (1, False, _reading),
    "write stream": (1, False, _writing),
    "many devices, polled": (2, True, _many),
    "many devices, threads": (2, False, _many),
    "manager": (0, False, _manage),
    "close": (1, False, _close),
}
"""By name: how many disks are open before, whether the bus can be polled, and what is done."""


@contextmanager
def quiet() -> Iterator[None]:
    """Ignore the warnings of disks that were interrupted before the program had them, and log nothing."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            yield
    finally:
        logging.disable(before)


def inject(name: str, error: type[BaseException], count: int) -> tuple[Raise, list[str]]:
    """Raise the error before the `count`th instruction of the driver; return where that was, and what is wrong after.

    A MemoryError may leave something held if the ledger says so. Where one was handled, another error may come out.
    """
    raised = Raise(error, of_driver, count)

    def act(action: Callable[[], None]) -> list[str]:
        try:
            raised.run(action)
        except ScsiUsbError as other:
            return [] if error is MemoryError else [f"{other!r} came out"]
        return ["nothing came out"] if raised.at >= 0 and not raised.came_out and error is not MemoryError else []

    return raised, _judge(name, act, may_say_so=error is MemoryError)


def instructions(name: str, error: type[BaseException]) -> int:
    """Return about how many instructions the driver runs that can raise the error; threads make it vary."""
    return inject(name, error, 1 << 40)[0].passed


class Alarm:
    """Raises KeyboardInterrupt in the main thread by a real signal, in the code of the driver, not of the stick."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._is_armed = False
        self.where = ""
        """The line that it interrupted; empty if the action ended before."""

    def run(self, action: Callable[[], None]) -> list[str]:
        """Run the action; return what is wrong with what came out."""
        if sys.platform == "win32":
            raise NotImplementedError
        before = signal.signal(signal.SIGALRM, self._handle)
        self._is_armed = True
        try:
            signal.setitimer(signal.ITIMER_REAL, self._delay)
            action()
            self._is_armed = False
            return [f"nothing came out of an interrupt at {self.where}"] if self.where else []
        except KeyboardInterrupt:
            return []
        except ScsiUsbError as error:
            return [f"{error!r} came out"]
        finally:
            self._is_armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if sys.platform == "win32":
            raise NotImplementedError
        if not self._is_armed:
            return
        files = [each.f_code.co_filename for each in _stack(frame)]
        if frame is None or any(file.startswith(VIRTUAL) for file in files) or is_deleting(frame):
            signal.setitimer(signal.ITIMER_REAL, AGAIN)
        elif any(map(is_driver, files)):
            self._is_armed = False
            self.where = f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno} in {frame.f_code.co_name}"
            raise KeyboardInterrupt


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def alarm(name: str, delay: float) -> tuple[Alarm, list[str]]:
    """Interrupt a scenario by a signal after `delay` seconds; return what is wrong after."""
    made = Alarm(delay)
    return made, _judge(name, made.run)


def _judge(name: str, run: Callable[[Callable[[], None]], list[str]], *, may_say_so: bool = False) -> list[str]:
    """Let `run` run a scenario; return what is wrong after it."""
    opened, polled, act = SCENARIOS[name]
    threads = set(threading.enumerate())
    place = Place(polled=polled)
    try:
        place.open(opened)
        faults = run(lambda: act(place))
        place.close()
        gc.collect(0)
        faults += _remaining(threads)
        says_so = may_say_so and bool(ledger.outstanding())
        faults += [] if says_so else place.faults()
        if not says_so and not faults and not place.is_usable():
            faults.append("wrong data after it")
        return faults
    finally:
        place.close()
        place.bus.close()
        ledger.forget()  # where something is held, that is reported above


def _remaining(threads: set[threading.Thread]) -> list[str]:
    """Return which threads have not ended soon after all was closed."""
    until = time.monotonic() + SOON
    while left := set(threading.enumerate()) - threads:
        if time.monotonic() > until:
            return [f"the thread {thread.name!r} goes on" for thread in left]
        time.sleep(0.001)
    return []
