"""Finds the machine's Pythons, and tries a wheel in a clean environment of each."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from releasekit.build import Failure, run

VERSIONS: Final = ("3.10", "3.11", "3.12", "3.13", "3.14")
SMOKE: Final = Path(__file__).with_name("smoke.py")
ASK: Final = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
ASK_LIMIT: Final = 30  # seconds: a start of Python, on a busy machine


def find_pythons() -> dict[str, Path]:
    """Return a Python of each supported version that this machine has, oldest first."""
    found: dict[str, Path] = {}
    for python in _candidates():
        version = _version(python)
        if version in VERSIONS:
            found.setdefault(version, python)
    return {version: found[version] for version in VERSIONS if version in found}


def _candidates() -> Iterator[Path]:
    """Yield paths at which a Python may be; a virtual environment's own is replaced by its base."""
    yield Path(getattr(sys, "_base_executable", sys.executable))
    names = (shutil.which(f"python{version}") for version in VERSIONS)
    yield from (Path(name) for name in names if name)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR", Path.home() / ".local/share/uv/python"))
    runner = Path(os.environ.get("RUNNER_TOOL_CACHE", "/opt/hostedtoolcache"))
    yield from sorted((pyenv / "versions").glob("3.1[0-4].*/bin/python3"))
    yield from sorted(uv.glob("cpython-3.1[0-4].*/bin/python3"))
    yield from sorted((runner / "Python").glob("3.1[0-4].*/*/bin/python3"))


def _version(python: Path) -> str | None:
    """Return "3.12", or None where the program does not run: pyenv's shims fail for versions that are not selected."""
    try:
        ended = subprocess.run(
            [python, "-c", ASK], capture_output=True, encoding="utf-8", timeout=ASK_LIMIT, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ended.stdout.strip() if ended.returncode == 0 else None


def smoke_test(version: str, python: Path, wheel: Path, work: Path) -> None:
    """Install the wheel for that Python and try it in an empty folder. Raises Failure."""
    home, folder = work / f"environment-{version}", work / f"empty-{version}"
    # Without pip: Debian's Python has no ensurepip, and this pip can install for another Python.
    run([python, "-m", "venv", "--without-pip", home])
    inner = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", f"--python={inner}", "--disable-pip-version-check", "--no-input", "-q"]
    run([*pip, "install", "--no-compile", wheel])
    folder.mkdir()
    # Isolated (-I): neither the checkout nor PYTHONPATH may stand in for what was installed.
    run([inner, "-I", SMOKE], folder)
    if left := sorted(path.name for path in folder.iterdir()):
        raise Failure(f"the smoke test left files where it ran: {', '.join(left)}")
