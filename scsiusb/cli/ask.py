"""Asks the person at the terminal before something is overwritten."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from scsiusb.cli.device import name_of
from scsiusb.cli.failure import Refused
from scsiusb.cli.output import counted, naming, say, size_text

if TYPE_CHECKING:
    from scsiusb.disk.disk import Disk


def somebody_is_there() -> bool:
    """Is there a person who sees the question and can answer?"""
    return sys.stdin.isatty() and sys.stderr.isatty()


def require_somebody(doing: str) -> None:
    """Raises Refused where there is nobody to ask."""
    if not somebody_is_there():
        raise Refused(f"nobody is at the terminal to confirm {doing}", "give --yes")


def confirm(question: str) -> None:
    """Asks once. Raises Refused for any answer but yes, the end of the input too."""
    with naming("stderr"):
        click.echo(f"{question} [y/N] ", nl=False, err=True)
    answer = ""
    try:
        with naming("stdin"):
            answer = sys.stdin.readline()
    finally:
        if not answer.endswith("\n"):  # what comes next begins a line
            say("")
    if answer.strip().lower() not in ("y", "yes"):
        raise Refused("not confirmed, and nothing was written", "answer y, or give --yes")


def confirm_overwriting(disk: Disk, device: str | None, lba: int, blocks: int, how: str = "") -> None:
    """Names the place, the amount and the device; `how`: what is to stand behind it in the question."""
    unit = disk.inquiry()
    place = f"LBA {lba}" if blocks == 1 else f"LBA {lba} to {lba + blocks - 1}"
    amount = f"{counted(blocks, 'block')}, {size_text(blocks * disk.block_size)}"
    what = f"{unit.vendor} {unit.product} ({size_text(disk.size)})"
    confirm(f"Overwrite {place} ({amount}) of {what}, {name_of(device)}{how}?")
