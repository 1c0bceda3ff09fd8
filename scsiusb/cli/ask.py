"""Ask the user at the terminal for confirmation before data is overwritten."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from scsiusb.cli.device import name_of
from scsiusb.cli.failure import Refused
from scsiusb.cli.output import STDERR, counted, naming, say, size_text

if TYPE_CHECKING:
    from scsiusb.disk.disk import Disk


def is_interactive() -> bool:
    """Return whether a user can see a question on stderr and answer it on stdin."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def require_terminal(doing: str) -> None:
    """Raise Refused if there is no terminal to ask for confirmation of `doing`."""
    if not is_interactive():
        raise Refused(f"cannot ask to confirm {doing}: stdin or stderr is not a terminal", "give --yes")


def confirm(question: str) -> None:
    """Ask once. Raises Refused for any answer but y or yes, also at the end of the input."""
    with naming(STDERR):
        click.echo(f"{question} [y/N] ", nl=False, err=True)
    answer = ""
    try:
        with naming("stdin"):
            answer = sys.stdin.readline()
    finally:
        if not answer.endswith("\n"):  # the next output must begin a new line
            say("")
    if answer.strip().lower() not in ("y", "yes"):
        raise Refused("not confirmed, nothing was written", "answer y, or give --yes")


def confirm_overwriting(disk: Disk, device: str | None, lba: int, blocks: int, how: str = "") -> None:
    """Ask whether to overwrite a range of blocks; the question shows range, size, device, then `how`."""
    unit = disk.inquiry()
    place = f"LBA {lba}" if blocks == 1 else f"LBA {lba} to {lba + blocks - 1}"
    amount = f"{counted(blocks, 'block')}, {size_text(blocks * disk.block_size)}"
    what = f"{unit.vendor} {unit.product} ({size_text(disk.size)})"
    confirm(f"Overwrite {place} ({amount}) of {what}, {name_of(device)}{how}?")
