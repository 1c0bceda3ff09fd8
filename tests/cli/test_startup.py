"""A command loads only the modules that it needs: half of the time of `scsiusb list` is the loading of modules."""

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
    """Return the modules that are loaded when the program ends, with their packages."""
    code = f"import sys; sys.argv = {['scsiusb', *words]}; import scsiusb.__main__ as program; status = program.main()"
    code += "; print(*sys.modules, file=sys.stderr); sys.exit(status)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=PATIENCE, check=True)
    return set(ended.stderr.decode().split())


def test_version_does_not_load_click() -> None:
    assert loaded("--version") & {"click", "logging", "scsiusb.cli"} == set()


def test_list_does_not_load_scsi_modules() -> None:
    assert loaded("list", "--json") & (HEAVY | SCSI) == set()


@pytest.mark.parametrize("words", ["inquiry virtual: --json", "inquiry virtual:", "capacity virtual:", "read virtual:"])
def test_a_virtual_stick_does_not_load_libusb(words: str) -> None:
    assert loaded(*words.split()) & (HEAVY | USB) == set()


def test_sense_texts_are_loaded_only_for_an_error() -> None:
    assert "scsiusb.scsi.additional_sense" not in loaded("inquiry", "virtual:")


ASMEDIA = "e606" + "00" * 14
NAMED = "import sys; from scsiusb.scsi import catalog; print(catalog.name_of_cdb(bytes.fromhex(sys.argv[1])))"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-c", NAMED, ASMEDIA], "vendor specific E6h"),
        (["-m", "scsiusb", "decode", "cdb", ASMEDIA], "ASMedia NVMe"),
        (["-m", "scsiusb", "-v", "raw", "virtual:", ASMEDIA, "--in", "16", "--yes"], "ASMedia NVMe"),
    ],
    ids=["scsi", "decode", "verbose"],
)
def test_bridges_commands_are_named_where_the_room_that_declares_them_is_looked_into(
    words: list[str], said: str
) -> None:
    """SCSI does not import the room above it; the command line does, where it names CDBs."""
    ended = subprocess.run([sys.executable, *words], capture_output=True, timeout=PATIENCE, check=False)
    assert said in (ended.stdout + ended.stderr).decode()


def test_bridges_commands_are_not_loaded_where_no_command_is_named() -> None:
    assert "scsiusb.ata" not in loaded("inquiry", "virtual:")
