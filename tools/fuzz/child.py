"""Runs one target in a separate process, by atheris or by random mutation; reports its progress as JSON lines."""

from __future__ import annotations

import faulthandler
import hashlib
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

REPORT_EVERY: Final = 1.0  # seconds
LONGEST: Final = 4096  # bytes of an input


class Progress:
    """Counts the runs, and prints one line per second: {"runs", "seconds", "kib"}."""

    def __init__(self, run: Callable[[bytes], None], runs: int | None, seconds: float | None) -> None:
        self._run = run
        self._most = runs
        self._seconds = seconds
        self._began = self._reported = time.monotonic()
        self.runs = 0

    def run_once(self, data: bytes) -> None:
        """Run the target on one input; report when a second has passed, or at the end."""
        self._run(data)
        self.runs += 1
        now = time.monotonic()
        if now - self._reported >= REPORT_EVERY or self.is_over:
            self.report(now)

    @property
    def is_over(self) -> bool:
        """Whether the number of runs or the time is reached."""
        late = self._seconds is not None and time.monotonic() - self._began >= self._seconds
        return late or self.runs == self._most

    def report(self, now: float) -> None:
        """Print the progress."""
        self._reported = now
        facts = {"runs": self.runs, "seconds": round(now - self._began, 2), "kib": resident()}
        sys.__stdout__.write(json.dumps(facts) + "\n")  # type: ignore[union-attr]
        sys.__stdout__.flush()  # type: ignore[union-attr]


def resident() -> int:
    """Return the resident memory in KiB; where the system does not report it, the peak, or 0 on Windows."""
    if sys.platform == "win32":
        return 0
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") // 1024
    except (OSError, AttributeError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Run the target that argv names: a JSON object with target, engine, runs, seconds, seed, folder."""
    options: dict[str, Any] = json.loads(sys.argv[1])
    faulthandler.enable()
    logging.disable(logging.INFO)
    logging.getLogger().addHandler(logging.NullHandler())
    engine = _atheris if options["engine"] == "atheris" else _random
    engine(options)


def _atheris(options: dict[str, Any]) -> None:
    """Run libFuzzer, which prefers inputs that reach new lines of scsiusb. Does not return."""
    import atheris  # type: ignore[import-untyped,import-not-found,unused-ignore]

    with atheris.instrument_imports(include=["scsiusb"]):
        from fuzz.corpus import HERE
        from fuzz.targets import TARGETS
    folder = Path(options["folder"])
    arguments = [sys.argv[0], str(folder / "corpus"), str(HERE / options["target"]), f"-max_len={LONGEST}"]
    arguments += [f"-seed={options['seed']}", f"-artifact_prefix={folder}/", "-timeout=60", "-rss_limit_mb=2048"]
    arguments += [f"-runs={options['runs']}"] if options["runs"] else [f"-max_total_time={options['seconds']:.0f}"]
    (folder / "corpus").mkdir(parents=True, exist_ok=True)
    with TARGETS[options["target"]]() as run:
        progress = Progress(run, options["runs"], options["seconds"])
        atheris.Setup(arguments, progress.run_once)
        atheris.Fuzz()


def _random(options: dict[str, Any]) -> None:
    from fuzz.corpus import seeds
    from fuzz.targets import FRESH, RUNS_OF_A_SEED, TARGETS
    from tests.fuzz.mutate import any_of, mutate

    random = Random(options["seed"])
    fresh = FRESH.get(options["target"])
    found = seeds(options["target"])
    with TARGETS[options["target"]]() as run:
        progress = Progress(run, options["runs"], options["seconds"])
        while not progress.is_over:
            if fresh is not None:
                data = fresh(options["seed"] * RUNS_OF_A_SEED + progress.runs)
            else:
                data = mutate(random.choice(found), random) if random.random() < 0.9 else any_of((), random)
            try:
                progress.run_once(data)
            except BaseException:
                _keep(Path(options["folder"]), data)
                raise


def _keep(folder: Path, data: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"crash-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    print(f"input saved as {path}", file=sys.stderr)


def replay(target: str, path: Path) -> bool:
    """Run the target once on the content of a file; print a traceback and return False if it fails."""
    from fuzz.targets import TARGETS

    with TARGETS[target]() as run:
        try:
            run(path.read_bytes())
        except Exception:  # noqa: BLE001
            traceback.print_exc()
            return False
    return True


if __name__ == "__main__":
    main()
