"""Build the native guest's kernel: Debian's source, unmodified, as User-Mode Linux (ARCH=um); once."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from .debian import download, sources
from .host import CACHE, LabError, need, run, say

SOURCE = "linux-source-6.12"  # in Debian 12 and 13
FORMAT = "1"  # of what is kept of a build; another one builds it anew
PACKAGES = ("bc", "bison", "flex", "gcc", "libc6-dev", "libiscsi-bin", "make", "util-linux", "xz-utils")
PROGRAMS = ("bc", "bison", "flex", "gcc", "iscsi-test-cu", "make", "setpriv", "xz")
FRAGMENT = Path(__file__).with_name("uml.fragment")
HOME = CACHE / "native"
LINUX = HOME / "linux"
MODULES = HOME / "modules"  # as modprobe's -d has it
STAMP = HOME / "stamp"
SHIM_SOURCE = Path(__file__).with_name("xstate.c")
SHIM = HOME / "xstate.so"
BUILTIN = ("modules.builtin", "modules.builtin.modinfo")


def prepare() -> None:
    """Build the kernel, unless it was built of this source, with these options, and in this way."""
    stamp = recipe()
    if not (LINUX.exists() and STAMP.exists() and STAMP.read_text() == stamp):
        _make(stamp)
    if not SHIM.exists() or SHIM.stat().st_mtime < SHIM_SOURCE.stat().st_mtime:
        run([need("gcc"), "-O2", "-shared", "-fPIC", "-o", SHIM, SHIM_SOURCE])


def _make(stamp: str) -> None:
    say(f"building a kernel of {SOURCE}: some minutes, once")
    shutil.rmtree(HOME, ignore_errors=True)
    build = HOME / "build"
    build.mkdir(parents=True)
    _build(_unpacked(build))
    shutil.rmtree(build)
    STAMP.write_text(stamp)


def recipe() -> str:
    """Return the source, format and configuration hash of the kernel build."""
    return f"{SOURCE}, {FORMAT}, {sha256(FRAGMENT.read_bytes()).hexdigest()}\n"


def _unpacked(build: Path) -> Path:
    """Return the folder of the source."""
    archive = download(SOURCE, build, sources())
    run([need("dpkg-deb"), "-x", archive, build])
    archive.unlink()
    (tarball,) = build.glob("usr/src/linux-source-*.tar.xz")
    run(["tar", "-xJf", tarball, "-C", build])
    tarball.unlink()
    (source,) = build.glob("linux-source-*/")
    return source


def _build(source: Path) -> None:
    """Configure and compile; keep the program, and what modprobe must know."""
    make: list[str | Path] = [need("make"), "-C", source, "ARCH=um", f"-j{os.cpu_count()}", "-s", "KCFLAGS=-w"]
    run([*make, f"KCONFIG_ALLCONFIG={FRAGMENT}", "allnoconfig"])
    dropped = list(missing_options(FRAGMENT.read_text(), (source / ".config").read_text()))
    if dropped:
        raise LabError(f"{SOURCE} does not take these options: {', '.join(dropped)}")
    run(make)
    shutil.copy(source / "linux", LINUX)
    run([need("strip"), "--strip-debug", LINUX])
    version = (source / "include" / "config" / "kernel.release").read_text().strip()
    folder = MODULES / "lib" / "modules" / version
    folder.mkdir(parents=True)
    for name in BUILTIN:
        shutil.copy(source / name, folder / name)
    (folder / "modules.order").touch()
    run([need("depmod"), "-b", MODULES, version])


def missing_options(fragment: str, config: str) -> Iterator[str]:
    """Yield the options that the fragment sets and the configuration does not have so."""
    there = set(config.splitlines())
    for line in fragment.splitlines():
        setting = re.fullmatch(r"(CONFIG_\w+)=(.*)", line)
        wanted = f"# {setting[1]} is not set" if setting and setting[2] == "n" else line
        if setting and wanted not in there:
            yield line
