"""The command line of tools/release-check."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from releasekit.build import Failure, build_release, check_contents, check_metadata
from releasekit.environments import VERSIONS, find_pythons, smoke_test

WORKERS: Final = 2  # environments that are made at once: as many as the machines for tests have cores
EPILOG: Final = """\
Pythons are looked for on the PATH, among those of pyenv and uv, and in the tool cache of GitHub's runners; of each
version the first one that runs is taken. Nothing is published. Apart from pip's index no network is needed.

Examples:
  tools/release-check                             # build and try; the files are thrown away
  tools/release-check --dist dist                 # keep the files, to publish them
  tools/release-check --require 3.10 3.13         # fail where one of these is missing
"""


def main(arguments: Sequence[str]) -> int:
    """Run the check; return 0, or 1 with the reasons on stderr."""
    options = _parser().parse_args(arguments)
    began = time.monotonic()
    try:
        count = _check(options.dist, options.require)
    except Failure as failure:
        print(f"tools/release-check: error: {failure}", file=sys.stderr)
        return 1
    print(f"release check: passed with {count} Pythons in {time.monotonic() - began:.0f} s")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/release-check",
        description="Build sdist and wheel, check content and metadata, install the wheel into a clean environment "
        "of each Python of this machine from 3.10 to 3.14, and run a smoke test in an empty folder.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dist", type=Path, metavar="FOLDER", help="keep the sdist and the wheel in this folder")
    parser.add_argument(
        "--require", nargs="+", default=[], choices=VERSIONS, metavar="VERSION", help="versions that must be found"
    )
    return parser


def _check(dist: Path | None, required: Sequence[str]) -> int:
    """Run all steps; return the number of Pythons that were tried. Raises Failure."""
    pythons = find_pythons()
    if missing := [version for version in required if version not in pythons]:
        raise Failure(f"no Python {', '.join(missing)} found; install it, or leave it out of --require")
    with tempfile.TemporaryDirectory(prefix="scsiusb-release-") as folder:
        work = Path(folder)
        release = build_release(dist or work / "dist", work / "from-tree")
        _report("built", f"{release.sdist.name}, {release.wheel.name}; both ways give the same wheel")
        check_metadata(release)
        _report("metadata", "twine has no complaint")
        _report("contents", f"{check_contents(release)} files in the wheel")
        with ThreadPoolExecutor(WORKERS) as pool:
            tests = {
                version: pool.submit(smoke_test, version, python, release.wheel, work)
                for version, python in pythons.items()
            }
            failures = [_outcome(version, test.exception()) for version, test in tests.items()]
    if failed := [text for text in failures if text]:
        raise Failure("\n".join(failed))
    return len(pythons)


def _outcome(version: str, error: BaseException | None) -> str:
    """Report one smoke test; return the text of its failure, or an empty one."""
    if error is not None and not isinstance(error, Failure):
        raise error
    _report(f"Python {version}", "FAILED" if error else "passed")
    return f"Python {version}: {error}" if error else ""


def _report(step: str, result: str) -> None:
    print(f"{step:12} {result}", flush=True)
