"""The smoke test of an installed scsiusb; runs by itself in a clean environment, with nothing but its dependencies."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from importlib import metadata
from importlib.resources import files
from pathlib import Path

LIMIT = 60  # seconds for a command
RULE = 'TAG+="uaccess"'
IMAGE = "round-trip.img"
EXTRAS = {"scsiusb.fs": "fsspec", "scsiusb.python_scsi": "pyscsi"}  # modules, and the libraries of their extras


def scsiusb_command(*words: str, data: bytes = b"") -> bytes:
    """Run the console script of this environment; return its stdout. Raises AssertionError where it fails."""
    program = Path(sys.executable).with_name("scsiusb")
    ended = subprocess.run([program, *words], input=data, capture_output=True, timeout=LIMIT, check=False)
    assert ended.returncode == 0, f"scsiusb {' '.join(words)}: {ended.returncode}: {ended.stderr.decode()}"
    return ended.stdout


def check_import() -> None:
    """Import each module but `__main__`, from the environment, and check the version."""
    import scsiusb

    assert Path(scsiusb.__file__).is_relative_to(sys.prefix), f"imported from {scsiusb.__file__}"
    assert scsiusb.__version__ == metadata.version("scsiusb")
    missing = [name for name in scsiusb.__all__ if not hasattr(scsiusb, name)]
    assert not missing, f"names of __all__ that are not there: {missing}"
    names = [module.name for module in pkgutil.walk_packages(scsiusb.__path__, "scsiusb.")]
    assert len(names) > 50, names
    for name in names:
        if name != "scsiusb.__main__":
            _import(name)


def _import(name: str) -> None:
    """Import a module; one of an extra says which library it needs."""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != EXTRAS.get(name):
            raise


def check_data() -> None:
    """Check that the files that are not modules came along."""
    package = files("scsiusb")
    assert (package / "py.typed").is_file()
    assert RULE in (package / "data" / "70-scsiusb.rules").read_text(encoding="utf-8")
    from scsiusb.quirks.table import table

    assert len(table()) > 200


def check_command_line() -> None:
    """Run commands that need no device."""
    version = metadata.version("scsiusb")
    assert scsiusb_command("--version").decode().split() == ["scsiusb", version]
    assert b"Virtual Stick" in scsiusb_command("inquiry", "virtual:")
    assert RULE.encode() in scsiusb_command("doctor", "--rule")


def check_round_trip() -> None:
    """Write to a virtual stick on a file by the command line, and read back by it and by the library."""
    import scsiusb

    path = Path(IMAGE)
    path.write_bytes(bytes(1 << 20))
    data = bytes(range(256)) * 16
    try:
        scsiusb_command("write", f"virtual:{IMAGE}", "--lba", "8", "-i", "-", "--yes", "--verify", data=data)
        assert scsiusb_command("read", f"virtual:{IMAGE}", "--lba", "8", "--blocks", "8") == data
        with scsiusb.open(f"virtual:{IMAGE}") as disk:
            assert disk.read(8, 8) == data
            disk.write(16, data)
            disk.flush()
        assert path.read_bytes()[8 * 512 : 24 * 512] == 2 * data
    finally:
        path.unlink()
    with scsiusb.open("virtual:") as disk:
        disk.write(100, data)
        assert disk.read(100, 8) == data


if __name__ == "__main__":
    check_import()
    check_data()
    check_command_line()
    check_round_trip()
