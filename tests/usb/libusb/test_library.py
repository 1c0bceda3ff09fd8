"""libusb-package's library is found without importing the package, or by importing it if that fails."""

from __future__ import annotations

from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

import libusb_package
import pytest

from scsiusb.usb.libusb import library


def test_the_library_found_is_that_of_the_package() -> None:
    assert library._find("usb-1.0") == str(libusb_package.get_library_path())
    assert library.load() is libusb_package.get_libusb1_backend()


@pytest.mark.parametrize("place", ["nowhere", "elsewhere"])
def test_a_package_without_a_folder_that_holds_the_library_is_imported(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = None if place == "nowhere" else ModuleSpec("libusb_package", None, is_package=True)
    if spec is not None:
        spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(PathFinder, "find_spec", lambda name: spec)
    monkeypatch.setattr(libusb_package, "find_library", lambda name: f"/found/{name}")
    assert library._find("usb-1.0") == "/found/usb-1.0"
