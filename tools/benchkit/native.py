"""What is measured on the host itself: Python's cost per command, start-up time, memory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from labkit.host import PYTHON, ROOT, VENV, LabError, find, say

from benchkit import names
from benchkit.names import key

Line = tuple[str, int, Mapping[str, float]]  # key, round, figures

HERE = Path(__file__).parent
NULL = HERE / "null.py"
PEAK = HERE / "peak.py"
COUNTED = ("readinto 4 KiB", "write 4 KiB")  # kinds of null.py whose instructions are counted
COST = "own cost"
COST_ROUNDS = 15
COMMANDS = 2000
LENGTHS = (200, 1200)  # commands in the two loops of which the difference is taken
SICK = "15 of 16 virtual sticks, in one process"
SICK_ROUNDS = 15
START = "start"
START_ROUNDS = 15
STARTS: tuple[tuple[str, tuple[object, ...]], ...] = (
    ("python -c pass", (PYTHON, "-c", "pass")),
    ("scsiusb --version", (VENV / "bin" / "scsiusb", "--version")),
    ("scsiusb list --json", (VENV / "bin" / "scsiusb", "list", "--json")),
    ("scsiusb inquiry virtual: --json", (VENV / "bin" / "scsiusb", "inquiry", "virtual:", "--json")),
)
SPARSE = 1 << 30
MEMORY = "natively, virtual stick"
TIMEOUT = 600  # seconds for a program


def python(quick: bool) -> Iterator[Line]:
    """Yield the cost per command of each kind. Each round is a new process: the layout of memory changes the time."""
    for number in range(3 if quick else COST_ROUNDS):
        for kind, microseconds in json.loads(_output([PYTHON, NULL, "cost", COMMANDS])).items():
            yield key(COST, kind), number, {names.COST: microseconds}
    if find("valgrind") is None:
        say("valgrind is not installed: instructions are not counted")
    elif not quick:
        for kind in COUNTED:
            yield key(COST, kind), 0, {names.INSTRUCTIONS: _instructions(kind)}


def _instructions(kind: str) -> float:
    """Return the instructions of one command: the difference between two loops, so that start-up cancels out."""
    say(f"counting the instructions of {kind} with valgrind")
    few, many = (_count([PYTHON, NULL, "run", kind, length]) for length in LENGTHS)
    return (many - few) / (LENGTHS[1] - LENGTHS[0])


def _count(command: Sequence[object]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out"]
        done = _run([*valgrind, *command], PYTHONHASHSEED="0")
    found = re.search(r"Collected : (\d+)", done.stderr)
    if found is None:
        raise LabError(f"no instruction count in the output of valgrind: {done.stderr[-500:]}")
    return int(found[1])


def start(quick: bool) -> Iterator[Line]:
    """Yield the time that each command takes to start and end."""
    for _, command in STARTS:
        _run(command)
    for number in range(5 if quick else START_ROUNDS):
        for way, command in STARTS:
            began = time.perf_counter()
            _run(command)
            yield key(START, way), number, {names.MILLISECONDS: (time.perf_counter() - began) * 1e3}


def memory(quick: bool) -> Iterator[Line]:
    """Yield the peak memory of reading a virtual stick of 1 GiB, and of a small command."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sparse.img"
        with path.open("wb") as file:
            file.truncate(SPARSE)
        device, blocks = f"virtual:{path}", str(SPARSE // 512)
        words = {
            names.STREAM: ["stream", device, blocks],
            names.CLI: ["cli", "read", device, "--lba", "0", "--blocks", blocks, "-o", "/dev/null"],
            f"{names.CLI}, inquiry": ["cli", "inquiry", "virtual:"],
        }
        for way, arguments in words.items():
            found = json.loads(_output([PYTHON, PEAK, *arguments]).splitlines()[-1])
            yield key(MEMORY, way), 0, {names.PEAK: found["peak"] / 1024}


def _output(command: Sequence[object]) -> str:
    return _run(command).stdout


def _run(command: Sequence[object], **environment: str) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    everything = {**os.environ, **environment}
    done = subprocess.run(words, capture_output=True, text=True, env=everything, timeout=TIMEOUT, check=False)
    if done.returncode:
        raise LabError(f"failed with status {done.returncode}: {' '.join(words)}: {done.stderr[-500:]}")
    return done


def many_with_one_sick(quick: bool) -> Iterator[Line]:
    """Yield what the healthy ones of many virtual sticks keep of their rate while one is sick."""
    path = os.pathsep.join(map(str, (HERE.parent, ROOT)))
    for number in range(3 if quick else SICK_ROUNDS):
        output = _run([PYTHON, "-m", "benchkit.sick"], PYTHONPATH=path).stdout
        for way, figures in json.loads(output).items():
            yield key(SICK, way), number, figures


PARTS: dict[str, Callable[[bool], Iterator[Line]]] = {
    "python": python,
    "start": start,
    "memory": memory,
    "sick": many_with_one_sick,
}
