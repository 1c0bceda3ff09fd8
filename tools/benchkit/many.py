"""Many devices at once: scsiusb with one thread for all, or one for each, and as many dds."""

from __future__ import annotations

import os
import signal
import subprocess
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

COUNTS = (1, 4, 16)
RAISED = 128  # MB, which an imaging station would grant; 16 are usual
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Work:
    """What is read of one of them."""

    unit: Unit
    lbas: Sequence[int]  # of commands of 1 MiB

    @property
    def bytes(self) -> int:
        return len(self.lbas) * MIB

    @property
    def blocks(self) -> int:
        return self.bytes // self.unit.block_size


def _work(unit: Unit, total: int) -> Work:
    (piece,) = sequential(unit, total, 1)
    return Work(unit, piece.lbas)


@dataclass(frozen=True)
class Outcome:
    """Seconds that all took together, and each alone; CPU seconds of the whole guest, the kernel's included."""

    bytes: int
    seconds: float
    each: Sequence[float]
    cpu: float

    def figures(self) -> Figures:
        return {
            names.MBS: self.bytes / 1e6 / self.seconds,
            names.CPU: self.cpu / (self.bytes / 1e9),
            names.EVEN: min(self.each) / max(self.each),
        }


def cases(extent: Extent) -> Iterator[Case]:
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
    """One process, one thread for each device, each with a buffer of the device's own."""
    return _in_threads(works, _read)


def _streams(works: Sequence[Work]) -> Outcome:
    """The same by streaming, which has threads of its own."""
    return _in_threads(works, _stream)


def _in_threads(works: Sequence[Work], read: Reader) -> Outcome:
    with ExitStack() as stack:
        disks = _opened(works, stack)
        together = threading.Barrier(len(works))
        pool = stack.enter_context(ThreadPoolExecutor(len(works)))
        cpu = _busy()
        reading = [pool.submit(_begun, read, *pair, together) for pair in zip(disks, works, strict=True)]
        spans = [future.result() for future in reading]
        seconds = max(ended for _, ended in spans) - min(began for began, _ in spans)
        return _outcome(works, seconds, [ended - began for began, ended in spans], _busy() - cpu)


def _begun(read: Reader, disk: scsiusb.Disk, work: Work, together: threading.Barrier) -> tuple[float, float]:
    """When it began, with the others, and when it ended."""
    together.wait()
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
    """All begin together, when the last one is there."""
    with ExitStack() as stack:
        waiting = [stack.enter_context(_stopped_dd(work)) for work in works]
        for process in waiting:
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        began, cpu = time.perf_counter(), _busy()
        for process in waiting:
            process.send_signal(signal.SIGCONT)
        said = [process.communicate(timeout=programs.PATIENCE)[1] for process in waiting]
        seconds, cpu = time.perf_counter() - began, _busy() - cpu
    return _outcome(works, seconds, [programs.dd_seconds(text)[1] for text in said], cpu)


@contextmanager
def _stopped_dd(work: Work) -> Iterator[subprocess.Popen[str]]:
    """A process that stops itself, and becomes dd when it may go on."""
    words = [f"if={work.unit.node}", "of=/dev/null", "iflag=direct", f"bs={MIB}", f"count={len(work.lbas)}"]
    command = ["sh", "-c", 'kill -STOP $$; exec dd "$@"', "sh", *words]
    environment = {**os.environ, "LC_ALL": "C"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def _together(works: Sequence[Work]) -> Outcome:
    """One thread for all."""
    with ExitStack() as stack:
        disks = _opened(works, stack)
        readings = [disk.reading(work.lbas[0], work.blocks) for disk, work in zip(disks, works, strict=True)]
        ended: dict[object, float] = {}
        began, cpu = time.perf_counter(), _busy()
        with scsiusb.read_many(*readings) as parts:
            for part in parts:
                if part.error is not None:
                    raise part.error
                ended[part.reading] = time.perf_counter()
        each = [end - began for end in ended.values()]
        return _outcome(works, max(each), each, _busy() - cpu)


def _opened(works: Sequence[Work], stack: ExitStack) -> list[scsiusb.Disk]:
    disks = [stack.enter_context(scsiusb.open(work.unit.device.address)) for work in works]
    for disk in disks:
        disk.readinto(0, bytearray(disk.block_size))
    time.sleep(SETTLING)
    return disks


def _outcome(works: Sequence[Work], seconds: float, each: Sequence[float], cpu: float) -> Outcome:
    return Outcome(sum(work.bytes for work in works), seconds, each, cpu)


def _busy() -> float:
    """CPU seconds of the whole guest: user, nice, system, irq, softirq (proc(5), /proc/stat)."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    user, nice, system, _idle, _wait, irq, softirq = map(int, words[1:8])
    return (user + nice + system + irq + softirq) / TICKS


def _together_raised(works: Sequence[Work]) -> Outcome:
    with _usbfs_memory(RAISED):
        return _together(works)


@contextmanager
def _usbfs_memory(megabytes: int) -> Iterator[None]:
    """Grants all programs so much; this process keeps account anew."""
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
    (names.TOGETHER, _together),
    (names.TOGETHER_RAISED, _together_raised),
    (names.THREADS, _threads),
    (names.THREADS_STREAM, _streams),
    (names.DD, _dds),
)
