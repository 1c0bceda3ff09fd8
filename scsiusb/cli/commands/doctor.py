"""The doctor command: find problems on this machine that prevent the use of devices, and show remedies."""

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


@click.command("doctor", short_help="Find problems on this machine, and remedies.")
@click.option("--rule", is_flag=True, help="Print the udev rule that permits the local user to open devices.")
@global_options
def doctor_command(rule: bool) -> None:
    """Find problems on this machine that prevent the use of devices.

    A line that begins with !! shows a problem; an arrow shows the remedy. No
    device is detached from its driver, and none is recovered. The exit status
    is 0 if there is no problem, else 99.

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
        raise ScsiUsbError(f"{wrong} of {counted(len(rows), 'check')} failed", "apply the remedies and run it again")


def _show(rows: Sequence[Check]) -> None:
    width = max(len(row.check) for row in rows)
    for row in rows:
        show(f"{MARKS[row.ok]}  {row.check:<{width}}  {row.detail}")
        if row.remedy:
            show(f"      {_arrow()} {row.remedy}")


def _arrow() -> str:
    """Return an arrow that the encoding of stdout supports."""
    return "→" if (sys.stdout.encoding or "").lower().startswith("utf") else "->"
