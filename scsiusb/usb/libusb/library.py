"""Loads pyusb's libusb1 backend with libusb-package's library."""

from __future__ import annotations

import os
from importlib.machinery import PathFinder
from typing import Any, Final

NAMES: Final = ("libusb-1.0.so", "libusb-1.0.dylib", "libusb-1.0.dll")


def load() -> Any:
    """The backend, always the same; None where it cannot be loaded, which pyusb then logs."""
    from usb.backend import libusb1

    return libusb1.get_backend(find_library=_find)


def _find(name: str) -> str | None:
    """libusb-package's library. To import that package takes longer than to list devices, so it is only looked into."""
    spec = PathFinder.find_spec("libusb_package")
    folders = spec.submodule_search_locations if spec is not None else None
    for path in (os.path.join(folder, each) for folder in folders or () for each in NAMES):
        if os.path.isfile(path):
            return path
    import libusb_package  # it may be in an archive, or be without a library

    found: str | None = libusb_package.find_library(name)
    return found
