"""The doctor command: what on this machine keeps scsiusb from its devices, and what to do about it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

import click

from scsiusb.cli.commands.doctor_checks import Check, Machine, examine
from scsiusb.cli.options import global_options, settings
from scsiusb.cli.output import counted, show, show_json
from scsiusb.errors import ScsiUsbError
from scsiusb.usb.libusb.backend import libusb
from scsiusb.usb.system import udev

MARKS: Final = {True: "ok", False: "!!"}


@click.command("doctor", short_help="Find what is wrong, and what to do.")
@click.option("--rule", is_flag=True, help="Print the udev rule that lets the user at the seat open devices.")
@global_options
def doctor_command(rule: bool) -> None:
    """Look for what keeps scsiusb from its devices, and say what to do.

    A line that begins with !! tells what is wrong; an arrow shows what to do.
    Takes no device and gives none back. The exit status is 0 when nothing is
    wrong, else 99.

    \b
    Examples:
      scsiusb doctor
      scsiusb doctor --json
      scsiusb doctor --rule | sudo tee /etc/udev/rules.d/70-scsiusb.rules
    """
    if rule:
        show(udev.rule().rstrip("\n"))
        return
    rows = list(examine(Machine(libusb)))
    if settings().json:
        show_json([row._asdict() for row in rows])
    else:
        _show(rows)
    wrong = sum(not row.ok for row in rows)
    if wrong:
        raise ScsiUsbError(f"{wrong} of {counted(len(rows), 'check')} failed", "do what they say and run it again")


def _show(rows: Sequence[Check]) -> None:
    width = max(len(row.check) for row in rows)
    for row in rows:
        show(f"{MARKS[row.ok]}  {row.check:<{width}}  {row.detail}")
        if row.remedy:
            show(f"      {_arrow()} {row.remedy}")


def _arrow() -> str:
    """A terminal that speaks no Unicode gets one of two characters."""
    return "→" if (sys.stdout.encoding or "").lower().startswith("utf") else "->"
