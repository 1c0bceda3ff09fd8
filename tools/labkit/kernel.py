"""Find a kernel that has all the lab's drivers as modules, or fetch Debian's without installing it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from .debian import download, sources
from .host import CACHE, LabError, need, output, run, say

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
    options = sources()
    folder = CACHE / "kernel"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    depends = output(["apt-cache", *options, "depends", "linux-image-amd64"])
    package = re.search(r"Depends: (linux-image-\S+)", depends)
    if package is None:
        raise LabError("apt does not know which package linux-image-amd64 stands for")
    archive = download(package[1], folder, options)
    run([need("dpkg-deb"), "-x", archive, folder])
    archive.unlink()
    modules = folder / "lib"
    if not modules.exists():  # from Debian 13 on, the package has them in usr/lib only
        modules.symlink_to(Path("usr", "lib"))
    version = next(folder.glob("boot/vmlinuz-*")).name.removeprefix("vmlinuz-")
    run([need("depmod"), "-b", folder, version])
