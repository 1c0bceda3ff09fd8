"""The built documentation has every public name, and every command with its options."""

from __future__ import annotations

import html
import re
import subprocess
import sys
import zlib
from pathlib import Path

import click
import pytest

import scsiusb
from scsiusb import virtual
from scsiusb.cli.app import COMMANDS
from scsiusb.cli.app import scsiusb as command_line
from tests.docs.pages import ROOT

pytestmark = pytest.mark.slow  # Sphinx builds everything


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the documentation as HTML, without a warning."""
    folder = tmp_path_factory.mktemp("docs")
    words = ["-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", "--nitpicky", "-b", "html", "-d"]
    done = subprocess.run(
        [sys.executable, *words, folder / "doctrees", ROOT / "docs", folder / "html"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


def inventory(built: Path) -> set[str]:
    """Return the documented Python names, from Sphinx's inventory: four header lines, then compressed ones."""
    data = (built / "objects.inv").read_bytes().split(b"\n", 4)[4]
    lines = zlib.decompress(data).decode().splitlines()
    return {line.split()[0] for line in lines if line.split()[1].startswith("py:")}


def test_every_public_name_is_in_the_reference(built: Path) -> None:
    """Add a missing name to a page in docs/reference/."""
    names = {f"scsiusb.{name}" for name in scsiusb.__all__}
    names |= {f"scsiusb.virtual.{name}" for name in virtual.__all__} - {"scsiusb.virtual.VirtualBackend"}
    documented = inventory(built)
    assert not names - documented
    assert {f"scsiusb.scsi.{room}.{name}" for room, name in _scsi_modules()} <= documented


def _scsi_modules() -> set[tuple[str, str]]:
    rooms = {room: ROOT / "scsiusb" / "scsi" / room for room in ("commands", "pages")}
    return {(room, path.stem) for room, folder in rooms.items() for path in folder.glob("[a-z]*.py")}


def test_every_command_and_option_is_in_the_reference(built: Path) -> None:
    page = html.unescape(re.sub(r"<[^>]+>", "", (built / "reference" / "cli.html").read_text(encoding="utf-8")))
    context = click.Context(command_line, info_name="scsiusb")
    for name in COMMANDS:
        command = command_line.get_command(context, name)
        assert command is not None
        assert f"scsiusb {name}" in page
        for parameter in command.params:
            for option in parameter.opts if isinstance(parameter, click.Option) else ():
                assert option in page, f"{name} {option}"
