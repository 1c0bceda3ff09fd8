"""Builds the sdist and the wheel, and checks what is in them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
LIMIT: Final = 300  # seconds for one program; pip's index may be slow
DATA: Final = {  # files of the wheel that are no modules, and where they are in the tree
    "scsiusb/py.typed": "scsiusb/py.typed",
    "scsiusb/data/quirks.txt": "scsiusb/data/quirks.txt",
    "scsiusb/data/70-scsiusb.rules": "udev/70-scsiusb.rules",
}


class Failure(Exception):
    """A step failed; the text says which, and why."""


class Release(NamedTuple):
    """The files of a release."""

    sdist: Path
    wheel: Path


def run(command: Sequence[str | Path], folder: Path = ROOT) -> str:
    """Run a program in `folder`; return its stdout. Raises Failure, with what it printed."""
    words = [str(word) for word in command]
    try:
        ended = subprocess.run(
            words, cwd=folder, capture_output=True, encoding="utf-8", errors="replace", timeout=LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        raise Failure(f"{' '.join(words)}: no end in {LIMIT} s") from None
    if ended.returncode:
        raise Failure(f"{' '.join(words)}: exit status {ended.returncode}\n{ended.stdout}{ended.stderr}")
    return ended.stdout


def build_release(dist: Path, from_tree: Path) -> Release:
    """Build the sdist from the tree and the wheel from the sdist; the wheel from the tree must be the same."""
    dist.mkdir(parents=True, exist_ok=True)
    build = [sys.executable, "-m", "build", "--outdir"]
    with ThreadPoolExecutor() as pool:
        for ended in [pool.submit(run, [*build, dist]), pool.submit(run, [*build, from_tree, "--wheel"])]:
            ended.result()
    release = Release(_newest(dist, "scsiusb-*.tar.gz"), _newest(dist, "scsiusb-*.whl"))
    built, expected = digests(release.wheel), digests(_newest(from_tree, "*.whl"))
    if built != expected:
        different = sorted(name for name, _ in built.items() ^ expected.items())
        raise Failure(f"the wheel built from the sdist differs from the tree's: {', '.join(dict.fromkeys(different))}")
    return release


def _newest(folder: Path, pattern: str) -> Path:
    """Return the file written last: a folder given by --dist may hold older releases."""
    return max(folder.glob(pattern), key=lambda path: path.stat().st_mtime_ns)


def digests(wheel: Path) -> dict[str, str]:
    """Return the SHA-256 of each file in a wheel, by name."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}


def check_metadata(release: Release) -> None:
    """Have twine check the metadata and whether the README can be shown."""
    run([sys.executable, "-m", "twine", "--no-color", "check", "--strict", release.sdist, release.wheel])


def check_contents(release: Release) -> int:
    """Check that the wheel holds all modules and data files, as in the tree, and nothing else; return their number."""
    tree = {str(path.relative_to(ROOT).as_posix()): path for path in (ROOT / "scsiusb").rglob("*.py")}
    tree |= {name: ROOT / source for name, source in DATA.items()}
    expected = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in tree.items()}
    found = {name: digest for name, digest in digests(release.wheel).items() if ".dist-info/" not in name}
    if different := sorted({name for name, _ in expected.items() ^ found.items()}):
        raise Failure(f"the wheel does not hold what the tree holds: {', '.join(different)}")
    return len(found)
