"""libusb-package's library is found without its help, and with it where that is not enough."""

from __future__ import annotations

from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

import libusb_package
import pytest

from scsiusb.usb.libusb import library


def test_it_is_the_library_that_the_package_has() -> None:
    assert library._find("usb-1.0") == str(libusb_package.get_library_path())
    assert library.load() is libusb_package.get_libusb1_backend()


@pytest.mark.parametrize("place", ["nowhere", "elsewhere"])
def test_a_package_that_is_no_folder_with_a_library_is_asked(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = None if place == "nowhere" else ModuleSpec("libusb_package", None, is_package=True)
    if spec is not None:
        spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(PathFinder, "find_spec", lambda name: spec)
    monkeypatch.setattr(libusb_package, "find_library", lambda name: f"/found/{name}")
    assert library._find("usb-1.0") == "/found/usb-1.0"
