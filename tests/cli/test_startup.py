"""A command loads what it needs and nothing else: half of what `scsiusb list` takes is the loading of modules."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.sticks import PATIENCE

HEAVY = {
    "asyncio",
    "concurrent.futures",
    "email",
    "importlib.metadata",
    "importlib.resources",
    "libusb_package",
    "logging.config",
    "multiprocessing",
    "platformdirs",
    "rich",
    "scsiusb.disk.aio",
    "scsiusb.cli.commands.check",
    "scsiusb.conformance",
    "scsiusb.manager.registry",
    "scsiusb.leases.warden",
    "scsiusb.scsi.commands.mmc",
    "scsiusb.trace.recorder",
    "scsiusb.virtual.usbip.server",
    "socket",
    "unittest",
}
USB = {"ctypes", "scsiusb.leases.lease", "scsiusb.leases.orphans", "scsiusb.usb.libusb.backend", "tempfile", "usb"}
SCSI = {
    "construct",
    "scsiusb.disk.disk",
    "scsiusb.scsi",
    "scsiusb.transport",
    "scsiusb.quirks.model",
    "scsiusb.virtual",
}


def loaded(*words: str) -> set[str]:
    """The modules that are there when the program has done its work, with the packages that they are in."""
    code = f"import sys; sys.argv = {['scsiusb', *words]}; import scsiusb.__main__ as program; status = program.main()"
    code += "; print(*sys.modules, file=sys.stderr); sys.exit(status)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=PATIENCE, check=True)
    return set(ended.stderr.decode().split())


def test_the_version_is_said_without_click() -> None:
    assert loaded("--version") & {"click", "logging", "scsiusb.cli"} == set()


def test_list_loads_nothing_of_scsi() -> None:
    assert loaded("list", "--json") & (HEAVY | SCSI) == set()


@pytest.mark.parametrize("words", ["inquiry virtual: --json", "inquiry virtual:", "capacity virtual:", "read virtual:"])
def test_what_a_virtual_stick_is_asked_loads_no_libusb(words: str) -> None:
    assert loaded(*words.split()) & (HEAVY | USB) == set()


def test_what_errors_are_called_is_loaded_with_the_first_one() -> None:
    assert "scsiusb.scsi.additional_sense" not in loaded("inquiry", "virtual:")
