"""DEVICE on the command line: its argument, completion, and opening the device that it names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

from scsiusb.cli.failure import wrong_quirks, wrong_size
from scsiusb.cli.options import F, completions, number, settings
from scsiusb.cli.output import say
from scsiusb.finding import VIRTUAL, devices

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from scsiusb.disk.disk import Disk
    from scsiusb.usb.interface import InterfaceInfo


MAX_LUN: Final = 15  # as the transport has it, which takes too long to import for this alone


def open_disk(
    device: str | None, *, lun: int, timeout: float | None, trace: str | None, quirks: str | None = None
) -> Disk:
    """As `scsiusb.open`, which is loaded when it is needed, for a device that is there."""
    from scsiusb.opening import open

    return open(device, lun=lun, timeout=timeout, trace=trace, quirks=quirks)


def opened(device: str | None, lun: int) -> Disk:
    """For a `with`."""
    given = settings()
    if device is None or not device.startswith(VIRTUAL):
        _recover()  # also where the words then mean no device
    check_quirks()
    with sized(device):
        disk = open_disk(device, lun=lun, timeout=given.timeout, trace=given.trace, quirks=given.quirks)
    _tell_unused_quirks(disk.unit.transport.info)
    return disk


def check_quirks() -> None:
    """Whatever device is meant: what the user says of any must be readable."""
    from scsiusb.quirks.user import row_for

    try:
        row_for(-1, -1, settings().quirks)  # there is no such device, so that all is read
    except ValueError as error:
        raise wrong_quirks(error) from error


@contextmanager
def sized(device: str | None) -> Iterator[None]:
    """Around what opens the device: a file that is no whole number of blocks comes with its remedy."""
    try:
        yield
    except ValueError as error:
        if device is None or not device.startswith(VIRTUAL):
            raise
        said = error if str(error).startswith(VIRTUAL) else ValueError(f"{device}: {error}")
        raise wrong_size(said, device.removeprefix(VIRTUAL)) from error


def _tell_unused_quirks(info: InterfaceInfo) -> None:
    if not settings().quirks:
        return
    from scsiusb.quirks.model import letters
    from scsiusb.quirks.user import GIVEN, parse_rows

    for row in parse_rows(settings().quirks or "", GIVEN):
        if (row.vid, row.pid) != (info.vid, info.pid):
            text = f"{row.vid:04x}:{row.pid:04x}:{letters(row.quirks)}"
            say(f"scsiusb: warning: {GIVEN} {text} names no device that was opened")


def attached() -> list[InterfaceInfo]:
    """The mass-storage interfaces that a command could name; what others left behind is put right first."""
    _recover()
    return devices()


def _recover() -> None:
    from scsiusb.leases.orphans import recover

    recover()


def seen() -> list[InterfaceInfo]:
    """As `attached`, with everything left as it is."""
    return devices()


def name_of(device: str | None) -> str:
    """The device as a question should name it, also where the command left it out."""
    if device is not None:
        return device
    found = attached()
    return found[0].address if len(found) == 1 else "the only device attached"


def complete_attached(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from scsiusb.errors import ScsiUsbError

    try:
        found = [(info.address, str(info)) for info in seen()]
    except ScsiUsbError:
        found = []
    return completions(found, incomplete)


def complete_device(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    own = completions([(VIRTUAL, "a small stick in memory")], incomplete)
    return complete_attached(context, parameter, incomplete) + own


def _lun(context: click.Context, parameter: click.Parameter, value: str) -> int:
    lun = number(context, parameter, value) or 0
    if lun > MAX_LUN:
        raise click.BadParameter(f"{lun} is not from 0 to {MAX_LUN}")
    return lun


def lun_option(function: F) -> F:
    option = click.option("--lun", metavar="N", default="0", callback=_lun, help="The logical unit (default 0).")
    return option(function)


def device_argument(function: F) -> F:
    """DEVICE and --lun."""
    return click.argument("device", required=False, shell_complete=complete_device)(lun_option(function))
