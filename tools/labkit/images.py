"""Disk images of Python and of the checkout: the guest imports from them far faster than over 9p."""

from __future__ import annotations

import re
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

from .host import CACHE, PYTHON, ROOT, VENV, need, output, run, say

LEFT_OUT = (
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "turtledemo",
    "ensurepip",
    "config-*",
    "mypy",
    "mypyc",
    "pip",
    "ruff*",
    # for the pictures of `scsiusb bench`, which the guest draws none of
    "matplotlib*",
    "mpl_toolkits",
    "numpy*",
    "PIL",
    "pillow*",
    "fonttools*",
    "fontTools",
    "contourpy*",
    "kiwisolver*",
)
FORMAT = "4"
NOT_CHECKOUT = (".git", VENV.name, CACHE.name, "__pycache__", ".*_cache", ".hypothesis", "dist", "build", "*.img")


def python_paths() -> tuple[Path, Path]:
    """Return the standard library's folder and the environment's site-packages."""
    query = "import sysconfig as s; p = s.get_paths(); print(p['stdlib'], p['purelib'], sep='\\n')"
    stdlib, site = output([PYTHON, "-c", query]).splitlines()
    return Path(stdlib), Path(site)


def python_image() -> Path:
    """Return the image of the standard library and the environment, made anew when either changed."""
    stdlib, site = python_paths()
    image, stamp = CACHE / "python.img", CACHE / "python.stamp"
    names = [f"{path.name} {path.stat().st_mtime_ns}" for path in sorted(site.iterdir())]
    identity = sha256("\n".join([FORMAT, str(stdlib), *names]).encode()).hexdigest()
    if image.exists() and stamp.exists() and stamp.read_text() == identity:
        return image
    say("making the image of Python and its packages")
    stage = _stage(CACHE / "stage")
    ignore = shutil.ignore_patterns(*LEFT_OUT, "site-packages", "dist-packages")
    shutil.copytree(stdlib, stage / "stdlib", symlinks=True, ignore=ignore)
    shutil.copytree(site, stage / "site", symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
    _interpreter(stdlib, stage / "files")
    _make(stage, image)
    stamp.write_text(identity)
    return image


def _interpreter(stdlib: Path, folder: Path) -> None:
    """Copy the interpreter and its libraries, and write a list of the places that they belong to."""
    folder.mkdir()
    binary = PYTHON.resolve()
    extensions = (stdlib / "lib-dynload").glob("*.so")
    libraries = re.findall(r"=> (/\S+)|^\s(/\S+) \(", output([need("ldd"), binary, *extensions]), re.MULTILINE)
    names = [str(binary), *(first or second for first, second in libraries)]
    paths = sorted({str(Path(name).resolve()) for name in names})
    for number, path in enumerate(paths):
        shutil.copy(path, folder / str(number))
    (folder / "list").write_text("".join(f"{number} {path}\n" for number, path in enumerate(paths)))


def checkout_image(image: Path) -> Path:
    """Make the image of the checkout as it is now, with places to mount the environment and the cache on."""
    stage = _stage(image.with_suffix(".stage"))
    stage.rmdir()
    shutil.copytree(ROOT, stage, symlinks=True, ignore=shutil.ignore_patterns(*NOT_CHECKOUT))
    for folder in (VENV, CACHE):
        (stage / folder.name).mkdir()
    _make(stage, image)
    return image


def _stage(stage: Path) -> Path:
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir()
    return stage


def _make(stage: Path, image: Path) -> None:
    """Compile what is there and put it into a file system."""
    # What does not compile is for the tests to report.
    subprocess.run([PYTHON, "-m", "compileall", "-qq", "-j0", stage], check=False)
    used = sum(path.lstat().st_size + 4096 for path in stage.rglob("*"))
    image.unlink(missing_ok=True)
    with image.open("wb") as file:
        file.truncate(used * 5 // 4 + (16 << 20))
    run([need("mke2fs"), "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d", stage, image])
    shutil.rmtree(stage)
