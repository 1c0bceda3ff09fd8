"""Programs of others that judge what was written or read, and write what must be read: sfdisk, sg_vpd, mkfs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 120.0  # seconds that a program may take


def _path(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def needs(name: str) -> pytest.MarkDecorator:
    """Return a mark that skips a test where a program is not installed, except where every test must run."""
    missing = _path(name) is None and "SCSIUSB_ALL_TESTS" not in os.environ
    return pytest.mark.skipif(missing, reason=f"{name} is not installed")


def program(name: str) -> str:
    """Return the path of a program; skip if it is not installed, except where every test must run."""
    path = _path(name)
    if path is None and "SCSIUSB_ALL_TESTS" not in os.environ:
        pytest.skip(f"{name} is not installed")
    assert path, f"{name} is missing"
    return path


def run(name: str, *words: str | Path, text: str = "") -> str:
    """Run a program with `text` on its standard input; return what it wrote, errors too. It must succeed."""
    done = subprocess.run(
        [program(name), *words],
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def sfdisk_table(path: Path) -> dict[str, Any]:
    """Return the partition table of an image as sfdisk reads it."""
    table: dict[str, Any] = json.loads(run("sfdisk", "--json", path))["partitiontable"]
    return table


def verified_by_sfdisk(path: Path) -> None:
    assert "No errors detected." in run("sfdisk", "--verify", path)


def verified_by_sgdisk(path: Path) -> None:
    assert "No problems found." in run("sgdisk", "-v", path)
