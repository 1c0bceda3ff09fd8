"""The jobs campaign: dump, restore, rescue and erase are interrupted at random moments, and go on.

Each ends with the right bytes, does little of its work again, and does not touch another stick in the same port.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from campaigns.remains import Complaints, remains
from campaigns.report import Report, in_words
from scsiusb.imaging.codecs import codec_by_name, decompressed
from scsiusb.virtual import Identity, Stick, Unit
from tests.kernel.machine import LabError, wait_for
from tests.kernel.served import Served, serving
from tests.sticks import Counting

if sys.platform != "linux":
    raise ImportError("this campaign runs on Linux only")

MIB = 1 << 20
OLD = b"\xaa"  # what is on a stick that is to be written
PATTERN = b"\xa5"
MOST_AGAIN = 8 * MIB  # bytes that an interruption may cost
UNTOUCHED = MIB  # bytes at most that are read of another stick, by the kernel, which looks for partitions
PATIENCE = 180.0  # seconds for a job, on a busy machine
FORMATS = ("a.img", "a.img.gz", "a.img.zst")
WAYS = ("SIGKILL", "Ctrl-C", "unplug")
SETTLING = 0.3  # seconds in which udev looks at what is on the stick
ATTEMPTS = 10  # to interrupt a job before its end
# What Python says of Ctrl-C before it runs any of the program's code.
TOO_EARLY = (b"Could not import runpy", b"Fatal Python error: init_import_site")
INTERRUPTED = {"SIGKILL": {-signal.SIGKILL}, "Ctrl-C": {130, -signal.SIGINT}}


@dataclass(frozen=True)
class Kind:
    """A job: its words for the command line, and what must be so at its end."""

    name: str
    words: Callable[[Path, str, str], list[str]]
    """By folder, format and device."""
    writes: bool
    resume: tuple[str, ...] = ("--resume",)
    waits: bool = False
    """Whether it waits for a device that was unplugged, and goes on by itself."""


def _dump(folder: Path, name: str, device: str) -> list[str]:
    return ["dump", device, str(folder / name)]


def _restore(folder: Path, name: str, device: str) -> list[str]:
    return ["restore", str(folder / name), device, "--yes"]


def _rescue(folder: Path, name: str, device: str) -> list[str]:
    return ["rescue", device, str(folder / "a.img"), str(folder / "a.map")]


def _erase(folder: Path, name: str, device: str) -> list[str]:
    pattern = ["--pattern", PATTERN.hex(), "--verify", "whole"]
    return ["erase", device, *pattern, "--journal", str(folder / "erase.journal"), "--yes"]


KINDS = (
    Kind("dump", _dump, writes=False),
    Kind("restore", _restore, writes=True),
    Kind("rescue", _rescue, writes=False, resume=(), waits=True),
    Kind("erase", _erase, writes=True),
)


@dataclass
class Attempt:
    """One job on one stick: what was done to it, and what was found."""

    kind: Kind
    way: str
    name: str
    goes_on: bool = False
    """Whether the job waits for its device, so that it need not be started again."""
    kernel: int = 0
    """Bytes that the kernel has read meanwhile, which looks for partitions."""
    faults: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def run(options: argparse.Namespace, report: Report) -> None:
    """Interrupt each job so many times."""
    campaign = Campaign(options.size * MIB, random.Random(options.seed), report)
    kinds = [kind for kind in KINDS if options.job in (kind.name, "all")]
    for kind in kinds:
        campaign.run(kind, options.interruptions)
    campaign.conclude()


class Campaign:
    """One stick after the other, each with one job."""

    def __init__(self, size: int, choice: random.Random, report: Report) -> None:
        self._size = size
        self._choice = choice
        self._report = report
        self._complaints = Complaints()
        self._again: dict[str, list[int]] = {}
        self._ways: Counter[str] = Counter()
        self._refused = 0
        self._bound: list[float] = []

    def run(self, kind: Kind, interruptions: int) -> None:
        """Interrupt the job so many times, in each way equally often."""
        length = {name: self._length(kind, name) for name in FORMATS}
        done = tried = 0
        while done < interruptions:
            tried += 1
            if tried > ATTEMPTS + 3 * interruptions:
                self._report.faults.append(f"{kind.name}: it ended before it was interrupted, again and again")
                return
            attempt = Attempt(kind, WAYS[done % len(WAYS)], self._choice.choice(FORMATS))
            interrupted = self._attempt(attempt, self._choice.uniform(0, length[attempt.name]))
            done += interrupted
            if not interrupted:  # the first run was a slow one
                length[attempt.name] *= 0.9
            self._report.line(attempt.faults, job=kind.name, way=attempt.way, file=attempt.name, **attempt.facts)

    def conclude(self) -> None:
        """Add up the results."""
        again = [each for kind in self._again.values() for each in kind]
        self._report.words += [f"{self._ways.total()} interruptions", f"{self._refused} other sticks refused"]
        self._report.words += [f"at most {max(again, default=0) / MIB:.1f} MiB again"]
        self._report.words += [f"driver back in {in_words(self._bound)}"]
        self._report.summary |= {
            "interruptions": self._ways.total(),
            "ways": self._ways,
            "others_refused": self._refused,
            "most_again": {kind: max(each) for kind, each in self._again.items()},
        }

    def _length(self, kind: Kind, name: str) -> float:
        """Return how long the job takes when nothing interrupts it; check its result."""
        with self._prepared(kind, name) as (device, medium, folder):
            began = time.monotonic()
            process = _start(kind.words(folder, name, device.address))
            _end(process, kind.name)
            seconds = time.monotonic() - began
            self._report.faults += self._wrong(kind, medium, folder, name)
        return seconds

    @contextmanager
    def _prepared(self, kind: Kind, name: str) -> Iterator[tuple[Served, Counting, Path]]:
        """Plug in a stick as the job needs it, and make the image."""
        data = self._choice.randbytes(self._size // 2) + bytes(self._size // 4) + b"scsi" * (self._size // 16)
        self._data = data
        medium = Counting(bytearray(OLD * self._size if kind.writes else data))
        with ExitStack() as held:
            folder = Path(held.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")))
            if kind.name == "restore":
                (folder / name).write_bytes(_packed(data, name))
            identity = Identity(serial=f"{self._choice.getrandbits(48):012X}")
            stick = held.enter_context(Stick([Unit(medium)], identity))
            device = held.enter_context(serving(stick))
            medium.read = medium.written = 0
            yield device, medium, folder

    # --- one interruption -----------------------------------------------------------------------

    def _attempt(self, attempt: Attempt, moment: float) -> bool:
        """Interrupt a job at the moment, in seconds after its start, and let it go on; False: it had ended before."""
        kind, name = attempt.kind, attempt.name
        with self._prepared(kind, name) as (device, medium, folder):
            process = _start(kind.words(folder, name, device.address))
            time.sleep(moment)
            if process.poll() is not None:
                _end(process, kind.name)
                attempt.facts["too_late"] = True
                return False
            attempt.facts["after"] = round(moment, 3)
            if attempt.way == "unplug":
                self._unplug(attempt, process, device, folder)
            else:
                self._end_by(attempt, process)
            if not attempt.goes_on:
                self._settle(attempt, device, medium)
                process = _start([*kind.words(folder, name, device.address), *kind.resume])
            try:
                _end(process, kind.name)
            except LabError as error:
                attempt.faults.append(str(error))
            attempt.faults += self._wrong(kind, medium, folder, name)
            attempt.faults += self._work_again(attempt, medium)
        self._ways[attempt.way] += 1
        attempt.faults += [f"the kernel reports: {line}" for line in self._complaints.new()]
        return True

    def _end_by(self, attempt: Attempt, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGKILL if attempt.way == "SIGKILL" else signal.SIGINT)
        self._ended(attempt, process, INTERRUPTED[attempt.way])

    def _unplug(self, attempt: Attempt, process: subprocess.Popen[bytes], device: Served, folder: Path) -> None:
        """Unplug the stick, try another one in its place, and plug it in again."""
        device.detach()
        attempt.goes_on = attempt.kind.waits and _has_begun(folder) and process.poll() is None
        if not attempt.goes_on:
            self._ended(attempt, process, {*range(1, 128)})
        if _has_begun(folder) and self._choice.random() < 0.5:
            self._another(attempt, folder)
        device.attach()

    def _ended(self, attempt: Attempt, process: subprocess.Popen[bytes], statuses: set[int]) -> None:
        try:
            _, said = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            attempt.faults.append(f"it did not end within {PATIENCE:g} s after {attempt.way}")
            return
        attempt.facts["status"] = process.returncode
        if process.returncode not in {0, *statuses} and not said.startswith(TOO_EARLY):
            attempt.faults.append(f"it ended with {process.returncode}: {said.decode(errors='replace')}")

    def _another(self, attempt: Attempt, folder: Path) -> None:
        """Put another stick in the place of the first: it must be refused, and stay as it is."""
        medium = Counting(bytearray(OLD * self._size))
        with Stick([Unit(medium)], Identity(serial="ANOTHER00001")) as stick, serving(stick) as other:
            attempt.facts["other"] = True
            if attempt.goes_on:
                time.sleep(self._choice.random())
            else:
                words = attempt.kind.words(folder, attempt.name, other.address)
                process = _start([*words, *attempt.kind.resume])
                _, said = process.communicate(timeout=PATIENCE)
                if not process.returncode:
                    attempt.faults.append("another stick was taken")
                attempt.facts["refusal"] = said.decode(errors="replace").partition("\n")[0]
        if medium.written or medium.read > UNTOUCHED:
            attempt.faults.append(f"another stick: {medium.written} bytes written, {medium.read} read")
        self._refused += 1

    def _settle(self, attempt: Attempt, device: Served, medium: Counting) -> None:
        """Wait until the kernel has the stick, and nothing is left of the job; note what the kernel reads meanwhile."""
        began, read = time.monotonic(), medium.read
        device.wait()
        self._bound.append(time.monotonic() - began)
        try:
            wait_for(lambda: not remains(), "nothing to remain")
        except LabError:
            attempt.faults += remains()
        time.sleep(SETTLING)
        attempt.kernel = medium.read - read

    # --- what must be so afterwards -------------------------------------------------------------

    def _wrong(self, kind: Kind, medium: Counting, folder: Path, name: str) -> list[str]:
        """Return what is wrong with the bytes, or was left beside them."""
        if kind.name == "erase":
            right, kept = medium.data == PATTERN * self._size, set()
        elif kind.name == "restore":
            right, kept = medium.data == self._data, {name}
        else:
            name = "a.img" if kind.name == "rescue" else name
            right, kept = _unpacked(folder / name) == self._data, {name}
        kept |= {"a.map", "a.map.bak"} if kind.name == "rescue" else set()
        left = {path.name for path in folder.iterdir()} - kept
        return [*(f"{each} is left" for each in left), *([] if right else ["wrong bytes"])]

    def _work_again(self, attempt: Attempt, medium: Counting) -> list[str]:
        """Return a fault if more was done again than an interruption may cost."""
        again = (medium.written if attempt.kind.writes else medium.read - attempt.kernel) - self._size
        self._again.setdefault(attempt.kind.name, []).append(again)
        attempt.facts |= {"again": again, "read": medium.read, "written": medium.written}
        return [f"{again / MIB:.1f} MiB were done again"] if again > MOST_AGAIN else []


def _has_begun(folder: Path) -> bool:
    """Return whether the job has noted what it is; before that, the command begins on any stick."""
    return any(path.read_bytes().count(b"\n") for name in ("*.journal", "*.map") for path in folder.glob(name))


def _start(words: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "scsiusb", *words, "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)


def _end(process: subprocess.Popen[bytes], what: str) -> Any:
    """Return the result of a job that succeeds. Raise LabError."""
    try:
        out, said = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise LabError(f"{what} did not end within {PATIENCE:g} s") from None
    if process.returncode:
        raise LabError(f"{what} ended with {process.returncode}: {said.decode(errors='replace')}")
    return json.loads(out)


def _packed(data: bytes, name: str) -> bytes:
    codec = codec_by_name(name)
    return codec.compress(data) if codec else data


def _unpacked(path: Path) -> bytes:
    codec = codec_by_name(path.name)
    with path.open("rb") as file:
        return b"".join(decompressed(file, codec, path.name)) if codec else file.read()
