"""Many devices at once: scsiusb with one thread for all, or with one thread per device, and one dd per device."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import scsiusb
from benchkit import names, programs
from benchkit.cases import Case, Extent, Figures
from benchkit.names import key
from benchkit.turns import SETTLING
from benchkit.work import MIB, sequential
from scsiusb.usb.libusb import library, memory
from tests.kernel.machine import Unit, zoo

if sys.platform != "linux":
    raise ImportError("this benchmark runs on Linux only")

COUNTS = (1, 4, 16)
RAISED = 128  # MB for usbfs, as an imaging station would set; the default is 16
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Work:
    """What is read from one device."""

    unit: Unit
    lbas: Sequence[int]  # one per command of 1 MiB

    @property
    def bytes(self) -> int:
        """Bytes to read."""
        return len(self.lbas) * MIB

    @property
    def blocks(self) -> int:
        """Blocks to read."""
        return self.bytes // self.unit.block_size


def _work(unit: Unit, total: int) -> Work:
    (piece,) = sequential(unit, total, 1)
    return Work(unit, piece.lbas)


@dataclass(frozen=True)
class Outcome:
    """Seconds of all devices together and of each; CPU seconds of the whole guest, including the kernel."""

    bytes: int
    seconds: float
    each: Sequence[float]
    cpu: float

    def figures(self) -> Figures:
        """Return speed, CPU seconds per GB, and the slowest device's speed relative to the fastest."""
        return {
            names.MBS: self.bytes / 1e6 / self.seconds,
            names.CPU: self.cpu / (self.bytes / 1e9),
            names.EVEN: min(self.each) / max(self.each),
        }


def cases(extent: Extent) -> Iterator[Case]:
    """Yield a case for each number of devices and each way."""
    for count in COUNTS:
        size = max(extent.many_least, extent.many // count)
        works = [_work(zoo()[f"many-{number}"].units[0], size) for number in range(count)]
        for way, run in WAYS:
            subject = f"{count} device{'s' * (count > 1)}"
            yield Case(key(subject, way), partial(_figures, run, works))


def _figures(run: Callable[[Sequence[Work]], Outcome], works: Sequence[Work]) -> Figures:
    for work in works:
        programs.node(work.unit)
    return run(works).figures()


Reader = Callable[[scsiusb.Disk, Work], None]


def _threads(works: Sequence[Work]) -> Outcome:
    """Read in one process, with one thread and one buffer per device."""
    return _in_threads(works, _read)


def _streams(works: Sequence[Work]) -> Outcome:
    """Read in one process, with one stream per device, each of which has a thread."""
    return _in_threads(works, _stream)


def _in_threads(works: Sequence[Work], read: Reader) -> Outcome:
    with ExitStack() as stack:
        disks = _opened(works, stack)
        start = threading.Barrier(len(works))
        pool = stack.enter_context(ThreadPoolExecutor(len(works)))
        cpu = _cpu_seconds()
        reading = [pool.submit(_timed, read, *pair, start) for pair in zip(disks, works, strict=True)]
        spans = [future.result() for future in reading]
        seconds = max(ended for _, ended in spans) - min(began for began, _ in spans)
        return _outcome(works, seconds, [ended - began for began, ended in spans], _cpu_seconds() - cpu)


def _timed(read: Reader, disk: scsiusb.Disk, work: Work, start: threading.Barrier) -> tuple[float, float]:
    """Wait for the other threads, then read; return when that began and ended."""
    start.wait()
    began = time.perf_counter()
    read(disk, work)
    return began, time.perf_counter()


def _read(disk: scsiusb.Disk, work: Work) -> None:
    step = min(disk.max_blocks, MIB // disk.block_size)
    with disk.buffer(step * disk.block_size) as buffer:
        for lba in range(work.lbas[0], work.lbas[0] + work.blocks, step):
            disk.readinto(lba, buffer)


def _stream(disk: scsiusb.Disk, work: Work) -> None:
    with disk.reading(work.lbas[0], work.blocks) as pieces:
        for _ in pieces:
            pass


def _dds(works: Sequence[Work]) -> Outcome:
    """Read with one dd per device; all begin at the same time."""
    with ExitStack() as stack:
        waiting = [stack.enter_context(_stopped_dd(work)) for work in works]
        for process in waiting:
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        began, cpu = time.perf_counter(), _cpu_seconds()
        for process in waiting:
            process.send_signal(signal.SIGCONT)
        output = [process.communicate(timeout=programs.TIMEOUT)[1] for process in waiting]
        seconds, cpu = time.perf_counter() - began, _cpu_seconds() - cpu
    return _outcome(works, seconds, [programs.dd_seconds(text)[1] for text in output], cpu)


@contextmanager
def _stopped_dd(work: Work) -> Iterator[subprocess.Popen[str]]:
    """Start a process that stops itself, and becomes dd when it gets SIGCONT."""
    words = [f"if={work.unit.node}", "of=/dev/null", "iflag=direct", f"bs={MIB}", f"count={len(work.lbas)}"]
    command = ["sh", "-c", 'kill -STOP $$; exec dd "$@"', "sh", *words]
    environment = {**os.environ, "LC_ALL": "C"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def _read_many(works: Sequence[Work]) -> Outcome:
    """Read all devices in one thread."""
    with ExitStack() as stack:
        disks = _opened(works, stack)
        readings = [disk.reading(work.lbas[0], work.blocks) for disk, work in zip(disks, works, strict=True)]
        ended: dict[object, float] = {}
        began, cpu = time.perf_counter(), _cpu_seconds()
        with scsiusb.read_many(*readings) as chunks:
            for chunk in chunks:
                if chunk.error is not None:
                    raise chunk.error
                ended[chunk.reading] = time.perf_counter()
        each = [end - began for end in ended.values()]
        return _outcome(works, max(each), each, _cpu_seconds() - cpu)


def _opened(works: Sequence[Work], stack: ExitStack) -> list[scsiusb.Disk]:
    disks = [stack.enter_context(scsiusb.open(work.unit.device.address)) for work in works]
    for disk in disks:
        disk.readinto(0, bytearray(disk.block_size))
    time.sleep(SETTLING)
    return disks


def _outcome(works: Sequence[Work], seconds: float, each: Sequence[float], cpu: float) -> Outcome:
    return Outcome(sum(work.bytes for work in works), seconds, each, cpu)


def _cpu_seconds() -> float:
    """Return the CPU seconds of the whole guest: user, nice, system, irq, softirq (proc(5), /proc/stat)."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    user, nice, system, _idle, _wait, irq, softirq = map(int, words[1:8])
    return (user + nice + system + irq + softirq) / TICKS


def _read_many_raised(works: Sequence[Work]) -> Outcome:
    with _usbfs_memory(RAISED):
        return _read_many(works)


@contextmanager
def _usbfs_memory(megabytes: int) -> Iterator[None]:
    """Set the limit of usbfs; this process then counts its use from zero."""
    backend = vars(library.load())
    text, account = memory.LIMIT.read_text(), backend.get("scsiusb_memory")
    memory.LIMIT.write_text(str(megabytes))
    backend["scsiusb_memory"] = memory.DeviceMemory(memory.usbfs_limit())
    try:
        yield
    finally:
        memory.LIMIT.write_text(text)
        backend["scsiusb_memory"] = account


WAYS: tuple[tuple[str, Callable[[Sequence[Work]], Outcome]], ...] = (
    (names.READ_MANY, _read_many),
    (names.READ_MANY_RAISED, _read_many_raised),
    (names.THREADS, _threads),
    (names.THREADS_STREAM, _streams),
    (names.DD, _dds),
)
