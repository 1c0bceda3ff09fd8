"""One sick device among sixteen: how much of their rate the others keep, read in one thread.

In the lab the healthy ones are fifteen of its devices, and the sick one is a virtual stick in a process of its own,
attached by USB/IP. On the host all are virtual sticks in this process. Runs in which all are healthy alternate with
those in which one is sick; each of these is compared with the mean of the two around it.

python -m benchkit.sick    prints the figures of one round on the host, by way
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import scsiusb
from benchkit import names
from benchkit.cases import Case, Extent, Figures
from benchkit.names import key
from benchkit.work import MIB
from scsiusb.virtual import Bus, Identity, Memory, Sparse, Stick, Unit
from scsiusb.virtual.usbip.server import Server
from tests.disk.polling import PolledBus
from tests.kernel.machine import zoo
from tests.kernel.served import Served

COUNT = 16
SUBJECT = f"{COUNT - 1} of {COUNT} devices"
POLLED, THREADED = "polled", "a thread for each"
HERE = Path(__file__).parent
SERVER = HERE / "sick_server.py"
TIMEOUT = 1.0  # seconds of a command: a device that does not answer is recovered during the run
AMOUNT = 32 * MIB  # read from each virtual stick
PIECE = 1024  # blocks of a command to a virtual stick
FAULTS: dict[str, str] = dict(
    zip(
        names.SICK,
        (
            "sense=2/04/01,opcode=28,times=20",
            "nak@data,opcode=28,times=always",
            "stall@csw,opcode=28,times=always",
            "tag,opcode=28,times=always",
            "delay=0.05@data,opcode=28,times=always",
        ),
        strict=True,
    )
)
BLOCKING = (names.SICK[1], names.SICK[4])  # for which the polled bus of the tests holds up its whole process
SetFault = Callable[[str], object]  # makes the sick device have this fault; "" makes it healthy


class Run(NamedTuple):
    """MB/s of the healthy devices together, and the longest time, in ms, in which none of them delivered anything."""

    rate: float
    pause: float


@dataclass(frozen=True)
class Station:
    """Sixteen open disks, of which the last can be made sick."""

    disks: Sequence[scsiusb.Disk]
    bytes: int  # read from each
    set_fault: SetFault

    def run(self, fault: str) -> Run:
        """Read all disks, one of them with the fault, until the others are read."""
        self._cure()
        self.set_fault(fault)
        readings = [disk.reading(0, self.bytes // disk.block_size) for disk in self.disks]
        left = set(readings[:-1])
        pause, last = 0.0, (began := time.perf_counter())
        with scsiusb.read_many(*readings) as chunks:
            for chunk in chunks:
                if chunk.reading not in left:
                    continue
                if chunk.error is not None:
                    raise chunk.error
                now = time.perf_counter()
                pause, last = max(pause, now - last), now
                if chunk.reading.lba == chunk.reading.end:
                    left.remove(chunk.reading)
                    if not left:
                        break
        return Run(self.bytes * (COUNT - 1) / 1e6 / (last - began), pause * 1e3)

    def _cure(self) -> None:
        """Make the sick device healthy, and get it into step, untimed."""
        self.set_fault("")
        for _ in range(10):
            with suppress(scsiusb.ScsiUsbError):
                self.disks[-1].read(0, 1)
                return
        self.disks[-1].read(0, 1)

    def figures(self, kinds: Sequence[str]) -> Figures:
        """Return the rate of the healthy ones, and what they keep of it beside each kind of sick device."""
        found: Figures = {}
        healthy = [self.run("")]
        for kind in kinds:
            beside = self.run(FAULTS[kind])
            healthy.append(self.run(""))
            found[names.KEPT[kind]] = beside.rate / mean(each.rate for each in healthy[-2:])
            found[names.PAUSE[kind]] = beside.pause
        found[names.PAUSE[names.HEALTHY]] = median(each.pause for each in healthy)
        return {names.MBS: mean(each.rate for each in healthy), **found}


# --- in the lab -----------------------------------------------------------------------------------


def cases(extent: Extent) -> Iterator[Case]:
    """Yield the only case."""
    yield Case(key(SUBJECT, names.READ_MANY), lambda: _in_lab(extent.sick))


def _in_lab(size: int) -> Figures:
    with ExitStack() as stack:
        sick, set_fault = stack.enter_context(_served(size))
        addresses = [zoo()[f"many-{number}"].wait().address for number in range(COUNT - 1)]
        disks = [stack.enter_context(_opened(address)) for address in (*addresses, sick)]
        return Station(disks, size, set_fault).figures(names.SICK)


@contextmanager
def _opened(address: str) -> Iterator[scsiusb.Disk]:
    """Open a disk; an error of the sick one at the close is none of the measurement."""
    disk = scsiusb.open(address, timeout=TIMEOUT)
    try:
        yield disk
    finally:
        with suppress(scsiusb.ScsiUsbError):
            disk.close()


@contextmanager
def _served(size: int) -> Iterator[tuple[str, SetFault]]:
    """Attach a stick of another process; yield its address, and what sets its fault."""
    command = [sys.executable, str(SERVER), str(size)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        ask, answers = process.stdin, process.stdout

        def set_fault(fault: str) -> None:
            print(fault, file=ask, flush=True)
            answers.readline()

        host, port, bus_id, serial = answers.readline().split()
        server: Any = SimpleNamespace(host=host, port=int(port), bus_id=bus_id, is_attached=False)
        like = Stick([Unit(Memory(MIB))], Identity(serial=serial, speed="high"))
        device = Served(like, cast(Server, server), serial)
        try:
            device.attach()
            device.wait()
            yield device.address, set_fault
        finally:
            set_fault("")
            device.detach()
            ask.close()


# --- in this process ------------------------------------------------------------------------------


def in_this_process() -> Iterator[tuple[str, Figures]]:
    """Yield the figures of virtual sticks, for each way to read many."""
    for way, kind, left_out in ((POLLED, PolledBus, BLOCKING), (THREADED, Bus, ())):
        sticks = [Stick([Unit(Sparse(AMOUNT // 512, 512))]) for _ in range(COUNT)]
        with ExitStack() as stack:
            disks = []
            for stick in sticks:
                bus = kind(stick)
                stack.callback(bus.close)
                disks.append(stack.enter_context(scsiusb.open_on(bus, timeout=TIMEOUT)))
                disks[-1].max_blocks = PIECE
            station = Station(disks, AMOUNT, lambda fault, sick=sticks[-1]: _set(sick, fault))  # type: ignore[misc]
            kinds = [each for each in names.SICK if each not in left_out]
            figures = station.figures(kinds)
            _set(sticks[-1], "")
        yield way, figures


def _set(stick: Stick, fault: str) -> None:
    stick.faults.clear()
    if fault:
        stick.faults.add(fault)


if __name__ == "__main__":
    print(json.dumps(dict(in_this_process())))
