"""The command line of the fuzzing: runs a target in a child, watches its time and memory, and gives a verdict."""

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
TARGETS: Final = ("replies", "exchange", "descriptors", "usbip")
SHORT: Final = 20.0  # seconds for each target where nothing is said
HANG: Final = 90.0  # seconds without a word
FLAT: Final = 1.2  # times the memory of the first tenth, and some MiB for what grows only once
SLACK_KIB: Final = 16 * 1024
EPILOG: Final = """\
examples:
  tools/fuzz/run                                20 seconds of each target
  tools/fuzz/run replies --runs 1000000
  tools/fuzz/run exchange --seconds 600 --engine atheris
  tools/fuzz/run replies --replay .fuzz/replies/crash-0123456789ab

atheris is looked for coverage with if it is installed (pip install '.[fuzz]'); else bytes are spoiled at random.
What fails is kept in .fuzz/TARGET. Exit status 0: nothing failed, nothing hung, the memory stayed flat."""


def main(arguments: Sequence[str]) -> int:
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
    parser = argparse.ArgumentParser(prog="tools/fuzz/run", description=__doc__, epilog=EPILOG, formatter_class=raw)
    parser.add_argument("target", nargs="?", choices=TARGETS, help="one of them; all where it is left out")
    end = parser.add_mutually_exclusive_group()
    end.add_argument("--runs", type=int, metavar="N", help="as many inputs")
    end.add_argument("--seconds", type=float, metavar="S", help=f"as long ({SHORT:.0f} s where neither is given)")
    parser.add_argument("--engine", choices=("auto", "atheris", "random"), default="auto")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run the target once, on what was kept")
    parser.add_argument("--make-corpus", action="store_true", help="write tools/fuzz/corpus anew")
    return parser


@dataclass
class Watch:
    """What the child said, a line a second."""

    lines: list[dict[str, float]] = field(default_factory=list)
    hung: bool = False

    def follow(self, child: subprocess.Popen[str]) -> None:
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
        """faulthandler then shows where it hangs."""
        self.hung = True
        child.send_signal(signal.SIGABRT)

    @property
    def memory(self) -> tuple[float, float, float]:
        """KiB after a tenth of the time, in the middle and at the end."""
        kib = [line["kib"] for line in self.lines]
        return kib[len(kib) // 10], kib[len(kib) // 2], kib[-1]

    @property
    def is_flat(self) -> bool:
        start, _, end = self.memory
        return end <= start * FLAT + SLACK_KIB


def _facts(child: subprocess.Popen[str]) -> Iterator[dict[str, float]]:
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith('{"runs"'):
            yield json.loads(line)


def _fuzz(target: str, options: argparse.Namespace) -> int:
    """Prints the figures and the verdict."""
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
    return _tell(target, engine, watch, child.returncode, log)


def _tell(target: str, engine: str, watch: Watch, status: int, log: Path) -> int:
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
        verdict = "held" if watch.is_flat else "FAILED, the memory grew"
    held = verdict == "held"
    if not held:
        print("".join(f"  {line}" for line in log.read_text(errors="replace").splitlines(keepends=True)[-40:]))
    print(f"{target}: {verdict}" + ("" if held else f"; all it said is in {log}"), flush=True)
    return 0 if held else 1


def _engine(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    return "atheris" if importlib.util.find_spec("atheris") else "random"
