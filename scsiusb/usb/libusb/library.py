"""Loads pyusb's libusb1 backend with the libusb of the package libusb-package."""

from __future__ import annotations

import os
from importlib.machinery import PathFinder
from typing import Any, Final

NAMES: Final = ("libusb-1.0.so", "libusb-1.0.dylib", "libusb-1.0.dll")


def load() -> Any:
    """Return pyusb's backend, the same object each time; None if libusb cannot be loaded, which pyusb logs."""
    from usb.backend import libusb1

    return libusb1.get_backend(find_library=_find)


def _find(name: str) -> str | None:
    """Return the path of libusb-package's library, or else of the system's; None if there is neither."""
    # Importing the package takes longer than listing the devices, so first look into its folder without importing it.
    spec = PathFinder.find_spec("libusb_package")
    folders = spec.submodule_search_locations if spec is not None else None
    for path in (os.path.join(folder, each) for folder in folders or () for each in NAMES):
        if os.path.isfile(path):
            return path
    import libusb_package  # it may be in an archive, or have no library and use the system's

    found: str | None = libusb_package.find_library(name)
    return found
