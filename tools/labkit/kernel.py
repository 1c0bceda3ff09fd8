"""Find a kernel that has all the lab's drivers as modules, or fetch Debian's without installing it."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from .host import CACHE, LabError, need, output, run, say
from .packages import apt_get, install, installed

MODULES = (
    "9pnet_virtio",
    "dummy_hcd",
    "ext4",
    "overlay",
    "sd_mod",
    "sg",
    "sr_mod",
    "uas",
    "usb-storage",
    "usb_f_mass_storage",
    "usbmon",
    "vfat",
    "vhci-hcd",
    "virtio_blk",
    "xhci-pci",
)
DEBIAN = "bookworm"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def kernel() -> Path:
    """Return a readable kernel image whose modules stand beside it."""
    for image in _images():
        if not missing_modules(image):
            return image
    say("no installed kernel has every driver that the lab needs: fetching Debian's")
    _fetch()
    for image in _images():
        if not missing_modules(image):
            return image
    raise LabError("the fetched kernel lacks drivers that the lab needs")


def missing_modules(image: Path) -> list[str]:
    """Name the drivers that the kernel of this image has neither as modules nor built in."""
    version = image.name.removeprefix("vmlinuz-")
    folder = image.parents[1] / "lib" / "modules" / version
    names: set[str] = set()
    for listing in ("modules.order", "modules.builtin"):
        path = folder / listing
        text = path.read_text() if path.exists() else ""
        names.update(re.findall(r"([^/\s]+)\.ko", text))
    canonical = {name.replace("-", "_") for name in names}
    return [name for name in MODULES if name.replace("-", "_") not in canonical]


def _images() -> Iterator[Path]:
    """Yield the images that this user can read, the newest first; what was fetched comes last."""
    for top in (Path("/"), CACHE / "kernel"):
        for image in sorted(top.glob("boot/vmlinuz-*"), reverse=True):
            if os.access(image, os.R_OK):
                yield image


def _fetch() -> None:
    """Unpack Debian's kernel package in the cache: nothing on the machine changes."""
    options = _sources()
    folder = CACHE / "kernel"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    depends = output(["apt-cache", *options, "depends", "linux-image-amd64"])
    package = re.search(r"Depends: (linux-image-\S+)", depends)
    if package is None:
        raise LabError("apt does not know which package linux-image-amd64 stands for")
    say(f"fetching {package[1]}")
    run(["sh", "-c", 'cd "$0" && exec apt-get -q "$@"', folder, *options, "download", package[1]])
    archive = next(folder.glob("*.deb"))
    run([need("dpkg-deb"), "-x", archive, folder])
    archive.unlink()
    version = next(folder.glob("boot/vmlinuz-*")).name.removeprefix("vmlinuz-")
    run([need("depmod"), "-b", folder, version])


def _sources() -> list[str]:
    """Return apt's options: none on Debian, elsewhere a private list with Debian's archive."""
    if platform.freedesktop_os_release().get("ID") == "debian":
        apt_get("update")
        return []
    if not installed("debian-archive-keyring"):
        install(["debian-archive-keyring"])
    apt = CACHE / "apt"
    for name in ("lists/partial", "cache/archives/partial"):
        (apt / name).mkdir(parents=True, exist_ok=True)
    lines = (
        f"deb [arch=amd64 signed-by={KEYRING}] http://deb.debian.org/debian {DEBIAN} main",
        f"deb [arch=amd64 signed-by={KEYRING}] http://deb.debian.org/debian-security {DEBIAN}-security main",
    )
    (apt / "sources.list").write_text("\n".join(lines) + "\n")
    settings = {
        "Dir::Etc::SourceList": apt / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": apt / "lists",
        "Dir::Cache": apt / "cache",
        "APT::Sandbox::User": "",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    run(["apt-get", "-q", *options, "update"])
    return options
