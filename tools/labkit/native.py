"""The native guest: Linux as a program of the host, User-Mode Linux, and devices of its own kernel; no QEMU."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from . import packages, uml, zoo
from .guest import Boot
from .host import LabError, need

MEMORY = 1536  # MiB; the host gives what the guest touches
PLACES = ("/dev/shm", "/tmp", "/var/tmp")


class Native:
    """Boots the kernel as a program: it sees the host's files, and writes to none but the share's."""

    name = "native"
    zoos: Mapping[str, Sequence[zoo.Device]] = zoo.NATIVE_ZOOS
    scripts: Sequence[str] = ("native.sh",)

    def prepare(self) -> None:
        """Install and make what is missing."""
        packages.prepare()
        packages.distribution_packages((*packages.PACKAGES, *uml.PACKAGES), (*packages.PROGRAMS, *uml.PROGRAMS))
        uml.prepare()

    def furnish(self, work: Path, devices: Sequence[zoo.Device]) -> dict[str, object]:
        """Return the settings for the guest's script; the guest makes the devices' files itself."""
        self._gadgets = len(devices)
        return {"MODULES": uml.MODULES}

    def boot(self, work: Path, shell: bool) -> Boot:
        """Return how to boot the kernel; its end cannot outlive this process's."""
        folder = memory_folder((*PLACES, tempfile.gettempdir()), MEMORY << 20)
        environment = {**os.environ, "TMPDIR": str(folder), "LD_PRELOAD": str(uml.SHIM)}
        console = None if shell else os.pipe()
        command = [need("setpriv"), "--pdeathsig", "KILL", str(uml.LINUX)]
        return Boot([*command, *kernel_words(work, self._gadgets, console and console[1])], environment, console)


def kernel_words(work: Path, gadgets: int, console: int | None) -> list[str]:
    """Return the kernel's command line: `console` is the descriptor on which it speaks, None for the terminal."""
    words = [f"mem={MEMORY}M", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro"]
    words += [f"init={work}/share/native.sh", f"SHARE={work}/share", f"uml_dir={work}", "umid=scsiusb-lab"]
    words += [f"dummy_hcd.num={gadgets}", "dummy_hcd.is_super_speed=1", "usb-storage.delay_use=0"]
    if console is None:
        return [*words, "con=null", "con0=fd:0,fd:1", "ssl=null", "quiet", "loglevel=1"]
    return [*words, "con=null", f"con0=null,fd:{console}", "con1=null,fd:1", "con2=null,fd:2", "ssl=null", "loglevel=5"]


def memory_folder(places: Iterable[str], size: int) -> Path:
    """Return where the guest's memory can be a file: programs run in it, which containers forbid in some places."""
    if sys.platform != "linux":
        raise NotImplementedError
    for place in places:
        try:
            found = os.statvfs(place)
        except OSError:
            continue
        if not found.f_flag & os.ST_NOEXEC and found.f_bavail * found.f_frsize >= size and os.access(place, os.W_OK):
            return Path(place)
    raise LabError(f"no folder with {size >> 20} MiB for the guest's memory, and without noexec: set TMPDIR to one")
