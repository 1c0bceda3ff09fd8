"""The command line of tools/fuzz/run: runs targets in child processes and watches their time and memory."""

from __future__ import annotations

import argparse
import importlib.util
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]
KEPT: Final = ROOT / ".fuzz"
TARGETS: Final = ("replies", "exchange", "model", "descriptors", "usbip")
SHORT: Final = 20.0  # seconds for each target by default
HANG: Final = 90.0  # seconds without progress
FLAT: Final = 1.2  # the memory at the end may be that of the first tenth times this, plus SLACK_KIB
SLACK_KIB: Final = 16 * 1024  # for what grows only once
WHAT: Final = """\
Run hostile bytes against scsiusb: every parser of replies and files, whole sessions with faulty devices, device
descriptors, and the USB/IP server. Each target runs in a child process, whose time and memory are watched."""
EPILOG: Final = """\
Examples:
  tools/fuzz/run                                20 seconds of each target
  tools/fuzz/run replies --runs 1000000
  tools/fuzz/run exchange --seconds 600 --engine atheris
  tools/fuzz/run model --runs 20000 --seed 7
  tools/fuzz/run replies --replay .fuzz/replies/crash-0123456789ab

If atheris is installed (pip install '.[fuzz]'), it searches by coverage; otherwise, bytes are changed at random.
Inputs that fail are saved in .fuzz/TARGET. Exit status 0: nothing failed or hung, and the memory did not grow."""


def main(arguments: Sequence[str]) -> int:
    """Run the targets; return the exit status."""
    options = _parser().parse_args(arguments)
    if options.make_corpus:
        from fuzz.corpus import make

        print(make())
        return 0
    if options.replay:
        from fuzz.child import replay

        return 0 if replay(options.target or "replies", options.replay) else 1
    targets = [options.target] if options.target else TARGETS
    return max([_fuzz(target, options) for target in targets])


def _parser() -> argparse.ArgumentParser:
    raw: Any = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="tools/fuzz/run", description=WHAT, epilog=EPILOG, formatter_class=raw)
    parser.add_argument("target", nargs="?", choices=TARGETS, help="the target (default: all)")
    end = parser.add_mutually_exclusive_group()
    end.add_argument("--runs", type=int, metavar="N", help="number of inputs")
    end.add_argument("--seconds", type=float, metavar="S", help=f"duration for each target (default {SHORT:.0f} s)")
    parser.add_argument(
        "--engine", choices=("auto", "atheris", "random"), default="auto", help="default: atheris if installed"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the random choices (default 1)")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run the target once, on an input that was saved")
    parser.add_argument("--make-corpus", action="store_true", help="write tools/fuzz/corpus again")
    return parser


@dataclass
class Watch:
    """The progress that the child reported, one entry per second."""

    lines: list[dict[str, float]] = field(default_factory=list)
    hung: bool = False

    def follow(self, child: subprocess.Popen[str]) -> None:
        """Collect the progress until the child ends; abort it if it makes none."""
        timer = self._timer(child)
        for facts in _facts(child):
            timer.cancel()
            timer = self._timer(child)
            self.lines.append(facts)
        timer.cancel()

    def _timer(self, child: subprocess.Popen[str]) -> threading.Timer:
        timer = threading.Timer(HANG, self._abort, [child])
        timer.daemon = True
        timer.start()
        return timer

    def _abort(self, child: subprocess.Popen[str]) -> None:
        """Abort the child; faulthandler then prints where it hangs."""
        self.hung = True
        child.send_signal(signal.SIGABRT)

    @property
    def memory(self) -> tuple[float, float, float]:
        """KiB after a tenth of the time, in the middle and at the end."""
        kib = [line["kib"] for line in self.lines]
        return kib[len(kib) // 10], kib[len(kib) // 2], kib[-1]

    @property
    def is_flat(self) -> bool:
        """Whether the memory did not grow."""
        start, _, end = self.memory
        return end <= start * FLAT + SLACK_KIB


def _facts(child: subprocess.Popen[str]) -> Iterator[dict[str, float]]:
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith('{"runs"'):
            yield json.loads(line)


def _fuzz(target: str, options: argparse.Namespace) -> int:
    """Run one target; return its exit status."""
    engine = _engine(options.engine)
    seconds = options.seconds if options.seconds or options.runs else SHORT
    order = {"target": target, "engine": engine, "runs": options.runs, "seconds": seconds, "seed": options.seed}
    order["folder"] = str(KEPT / target)
    log = KEPT / f"{target}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    watch = Watch()
    with log.open("w") as errors:
        command = [sys.executable, "-m", "fuzz.child", json.dumps(order)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as child:
            try:
                watch.follow(child)
            except BaseException:
                child.kill()
                raise
    return _report(target, engine, watch, child.returncode, log)


def _report(target: str, engine: str, watch: Watch, status: int, log: Path) -> int:
    """Print the figures and the verdict; return the exit status."""
    if watch.lines:
        last = watch.lines[-1]
        start, middle, end = (kib / 1024 for kib in watch.memory)
        rate = last["runs"] / max(last["seconds"], 0.01)
        print(
            f"{target} by {engine}: {last['runs']:.0f} runs in {last['seconds']:.0f} s, {rate:.0f} a second;", end=" "
        )
        print(f"memory {start:.0f} MiB at the start, {middle:.0f} in the middle, {end:.0f} at the end")
    if watch.hung:
        verdict = "FAILED, it hung"
    elif status or not watch.lines:
        verdict = f"FAILED with status {status}"
    else:
        verdict = "passed" if watch.is_flat else "FAILED, the memory grew"
    passed = verdict == "passed"
    if not passed:
        print("".join(f"  {line}" for line in log.read_text(errors="replace").splitlines(keepends=True)[-40:]))
    print(f"{target}: {verdict}" + ("" if passed else f"; its output is in {log}"), flush=True)
    return 0 if passed else 1


def _engine(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    return "atheris" if importlib.util.find_spec("atheris") else "random"
