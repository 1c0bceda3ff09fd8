"""Install what a guest needs: distribution packages, and virtme-ng in a private environment."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence

from .host import CACHE, PYTHON, ROOT, LabError, find, need, run, say

VIRTME = "virtme-ng==1.42"
# What the tests need in either guest.
PACKAGES = (
    "android-sdk-libsparse-utils",
    "bmap-tools",
    "bzip2",
    "dosfstools",
    "e2fsprogs",
    "exfatprogs",
    "fdisk",
    "file",
    "fio",
    "gddrescue",
    "gdisk",
    "genisoimage",
    "gzip",
    "hdparm",
    "iproute2",
    "kmod",
    "ntfs-3g",
    "sdparm",
    "sg3-utils",
    "smartmontools",
    "tshark",
    "udev",
    "usbutils",
    "xz-utils",
    "zstd",
)
QEMU = ("busybox-static", "qemu-system-x86")
USBIP = ("usbip", "linux-tools-generic")  # Debian's name, then Ubuntu's
PROGRAMS = (
    "badblocks",
    "bmaptool",
    "bzip2",
    "ddrescue",
    "depmod",
    "fdisk",
    "file",
    "fio",
    "fsck.vfat",
    "genisoimage",
    "gzip",
    "hdparm",
    "img2simg",
    "mke2fs",
    "mkfs.exfat",
    "mkfs.vfat",
    "mkntfs",
    "ntfscp",
    "sdparm",
    "sfdisk",
    "sg_inq",
    "sgdisk",
    "smartctl",
    "tshark",
    "udevadm",
    "lsusb",
    "xz",
    "zstd",
)
QEMU_PROGRAMS = ("busybox", "qemu-system-x86_64")


def prepare() -> None:
    """Check the machine, and make the project's environment."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise LabError(f"the lab needs Linux on x86_64, not {platform.system()} on {platform.machine()}")
    if any(letter.isspace() or letter in ",'\"" for letter in str(ROOT)):
        raise LabError(f"the kernel's command line cannot name this folder: move {ROOT} to one without blanks")
    run([ROOT / "tools" / "setup"])
    CACHE.mkdir(exist_ok=True)


def qemu() -> None:
    """Install what the guest in QEMU needs, but its kernel."""
    distribution_packages((*PACKAGES, *QEMU), (*PROGRAMS, *QEMU_PROGRAMS))
    _virtme()


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of those of the packages that dpkg has installed."""
    query = ["dpkg-query", "-W", "-f=${db:Status-Status} ${Package} ${Version}\\n", *packages]
    said = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    rows = [line.split() for line in said.splitlines()]
    return {row[1]: row[2] for row in rows if row[0] == "installed"}


def installed(package: str) -> bool:
    """Return whether dpkg has the package installed."""
    return bool(versions([package]))


def apt_get(*words: str) -> None:
    """Run apt-get as root, asking nothing."""
    if sys.platform != "linux":
        raise NotImplementedError
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    if sudo and find("sudo") is None:
        raise LabError(f"not root and no sudo; as root, run: apt-get {' '.join(words)}")
    run([*sudo, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", *words])


def install(missing: list[str]) -> None:
    """Install distribution packages."""
    say(f"installing {' '.join(missing)}")
    apt_get("update")
    apt_get("install", "-y", "--no-install-recommends", *missing)


def distribution_packages(packages: Sequence[str], programs: Sequence[str]) -> None:
    """Install the packages, and usbip's; without apt, find the programs or say which are missing."""
    if find("apt-get") is None or find("dpkg-query") is None:
        missing = [program for program in programs if find(program) is None]
        if missing:
            raise LabError(f"no apt-get here; install these programs yourself: {' '.join(missing)}")
        return
    there = versions((*packages, *USBIP))
    missing = [package for package in packages if package not in there]
    if not there.keys() & set(USBIP):
        missing.append(USBIP[1] if _is_ubuntu() else USBIP[0])
    if missing:
        install(missing)


def _is_ubuntu() -> bool:
    return platform.freedesktop_os_release().get("ID") == "ubuntu"


def _virtme() -> None:
    """Make the private environment; the project's pip fills it, so that ensurepip is not needed."""
    stamp = CACHE / "virtme.stamp"
    made = f"{VIRTME} in {CACHE} by {PYTHON.resolve()}"
    if stamp.exists() and stamp.read_text() == made:
        return
    say(f"installing {VIRTME} into {CACHE.name}/virtme")
    home = CACHE / "virtme"
    run([PYTHON, "-m", "venv", "--clear", "--without-pip", home])
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "-q", f"--python={home}/bin/python"]
    run([*pip, "install", VIRTME])
    need("qemu-system-x86_64")
    stamp.write_text(made)
